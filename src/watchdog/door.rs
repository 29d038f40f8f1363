//! Who may have a connection to the port for partners: strangers for a moment and few at a time, members as many as they need. Owner: the links.
//! Values only; whose a connection is, is found out by the seal.
//!
//! Nobody is refused: whoever comes takes the place of the one that has shown nothing for the longest time. A partner shows the key with
//! its first frame.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::support::clock::Duration;

/// In this time a connection must bring a frame of a member.
pub(super) const GREETING: Duration = Duration::from_secs(2);
/// Connections that have shown nothing yet, from addresses of nobody that is configured.
const STRANGERS: usize = 32;
/// The same from addresses of members: these places are theirs, however many strangers come.
const EXPECTED: usize = 32;
/// Connections of one member: one is enough, and one before it may not have ended yet.
const EACH: usize = 4;

/// What a connection knows of its right to be there.
#[derive(Debug, Default)]
pub(super) struct Pass {
    vouched: Cell<bool>,
    over: Notify,
}

impl Pass {
    /// A frame of a member has come by it.
    pub(super) fn is_vouched(&self) -> bool {
        self.vouched.get()
    }

    /// It is to end. Cancel safe.
    pub(super) async fn over(&self) {
        self.over.notified().await;
    }
}

#[derive(Debug)]
enum Guest {
    Stranger,
    /// It comes from an address of a member.
    Expected,
    /// It is of the member at that place.
    Member(usize),
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Door {
    guests: BTreeMap<u64, (Guest, Rc<Pass>)>,
    newest: u64,
}

impl Door {
    /// A connection comes; its number, and whether another one had to go for it.
    pub(super) fn enter(&mut self, expected: bool) -> (u64, Rc<Pass>, bool) {
        let class = |guest: &Guest| match guest {
            Guest::Stranger => !expected,
            Guest::Expected => expected,
            Guest::Member(_) => false,
        };
        let crowded = self.keep(if expected { EXPECTED } else { STRANGERS } - 1, class);
        self.newest += 1;
        let guest = if expected { Guest::Expected } else { Guest::Stranger };
        let pass = Rc::new(Pass::default());
        self.guests.insert(self.newest, (guest, pass.clone()));
        (self.newest, pass, crowded)
    }

    /// A frame of that member has come by it.
    pub(super) fn vouch(&mut self, number: u64, member: usize) {
        let Some((guest, pass)) = self.guests.get_mut(&number) else { return };
        if !pass.vouched.replace(true) {
            *guest = Guest::Member(member);
            self.keep(EACH, |guest| matches!(guest, Guest::Member(other) if *other == member));
        }
    }

    /// It is to end, or has.
    pub(super) fn leave(&mut self, number: u64) {
        if let Some((_, pass)) = self.guests.remove(&number) {
            pass.over.notify_one();
        }
    }

    /// Only so many of a kind stay: the newest. Whether any had to go.
    fn keep(&mut self, most: usize, kind: impl Fn(&Guest) -> bool) -> bool {
        let all: Vec<u64> =
            self.guests.iter().filter(|(_, (guest, _))| kind(guest)).map(|(number, _)| *number).collect();
        let over = all.len().saturating_sub(most);
        all.into_iter().take(over).for_each(|number| self.leave(number));
        over > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_push_out_each_other_and_nobody_else() {
        let mut door = Door::default();
        let (member, pass, _) = door.enter(true);
        door.vouch(member, 0);
        let (expected, ..) = door.enter(true);
        let strangers: Vec<(u64, bool)> = (0..1_000).map(|_| door.enter(false)).map(|(n, _, full)| (n, full)).collect();
        assert!(strangers.iter().enumerate().all(|(at, (_, full))| *full == (at >= STRANGERS)));
        assert_eq!(door.guests.len(), 2 + STRANGERS);
        assert!(door.guests.contains_key(&member) && door.guests.contains_key(&expected) && pass.is_vouched());
        assert!(
            strangers[1_000 - STRANGERS..].iter().all(|(number, _)| door.guests.contains_key(number)),
            "the newest"
        );
        (0..1_000).for_each(|_| drop(door.enter(true)));
        assert!(door.guests.contains_key(&member) && door.guests.len() == 1 + STRANGERS + EXPECTED);
    }

    #[test]
    fn a_member_has_a_few_and_the_newest_stay() {
        let mut door = Door::default();
        let numbers: Vec<u64> = (0..100)
            .map(|at| {
                let (number, ..) = door.enter(false);
                // Each frame vouches again.
                (0..3).for_each(|_| door.vouch(number, at % 2));
                number
            })
            .collect();
        assert_eq!(door.guests.keys().copied().collect::<Vec<_>>(), numbers[100 - 2 * EACH..]);
        numbers.into_iter().for_each(|number| door.leave(number));
        assert!(door.guests.is_empty());
        door.vouch(7, 1);
        assert!(door.guests.is_empty(), "it has ended meanwhile");
    }
}
