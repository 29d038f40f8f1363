//! Connections that have not logged in yet: so many, so many of one origin, and who has been silent for longest gives way to a newcomer, so
//! that nobody keeps administrators out by holding connections. Pure: told who comes and goes; must not close anything.

use super::lockout::Origin;
use crate::support::clock::{Duration, Instant};

/// Connections that may log in at a time.
const MOST: usize = 32;
/// Of one origin.
const MOST_OF_ONE: usize = 16;
/// Between two lines in the log about those who gave way.
const QUIET: Duration = Duration::from_secs(60);

/// Who has not logged in yet, those that came first in front.
#[derive(Debug, Default)]
pub(super) struct Guests {
    next: u64,
    all: Vec<(u64, Origin)>,
    gave_way: u64,
    told: Option<Instant>,
}

/// A newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entered {
    /// Its number.
    pub(super) id: u64,
    /// Who gives way.
    pub(super) instead_of: Option<u64>,
}

impl Guests {
    /// Somebody comes in.
    pub(super) fn enter(&mut self, origin: Origin) -> Entered {
        let of = |origin: Origin| self.all.iter().filter(|one| one.1 == origin).count();
        let from = if of(origin) >= MOST_OF_ONE {
            Some(origin)
        } else if self.all.len() >= MOST {
            // The first of those with the most connections.
            self.all.iter().rev().map(|one| one.1).max_by_key(|origin| of(*origin))
        } else {
            None
        };
        let place = from.and_then(|from| self.all.iter().position(|one| one.1 == from));
        let instead_of = place.map(|place| self.all.remove(place).0);
        self.gave_way += u64::from(instead_of.is_some());
        let id = self.next;
        self.next += 1;
        self.all.push((id, origin));
        Entered { id, instead_of }
    }

    /// Somebody has logged in, or is gone.
    pub(super) fn leave(&mut self, id: u64) {
        self.all.retain(|one| one.0 != id);
    }

    /// How many gave way since this was last answered, if it is time to say so.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        let time = self.told.is_none_or(|told| now.saturating_duration_since(told) >= QUIET);
        if self.gave_way == 0 || !time {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.gave_way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::clock::now;

    fn host(last: u8) -> Origin {
        Origin::Ip([192, 0, 2, last].into())
    }

    #[test]
    fn the_oldest_of_the_greediest_gives_way() {
        let mut guests = Guests::default();
        let came = |guests: &mut Guests, last| guests.enter(host(last)).instead_of;
        for _ in 0..16 {
            assert_eq!(came(&mut guests, 1), None);
        }
        // One host has no more than its share, and takes nothing from others.
        assert_eq!(came(&mut guests, 1), Some(0));
        for other in 10..26 {
            assert_eq!(came(&mut guests, other), None);
        }
        // Full: who holds most pays.
        assert_eq!((came(&mut guests, 99), came(&mut guests, 98)), (Some(1), Some(2)));
        guests.leave(3);
        assert_eq!((came(&mut guests, 97), came(&mut guests, 96)), (None, Some(4)));
        assert_eq!(guests.all.len(), MOST);
        // Many hosts with one connection each: the first that came.
        let mut guests = Guests::default();
        for last in 0..32 {
            assert_eq!(came(&mut guests, last), None);
        }
        assert_eq!((came(&mut guests, 77), came(&mut guests, 78)), (Some(0), Some(1)));
    }

    #[test]
    fn it_is_told_now_and_then() {
        let (mut guests, at) = (Guests::default(), now());
        assert_eq!(guests.due(at), None);
        for _ in 0..18 {
            guests.enter(host(1));
        }
        assert_eq!((guests.due(at), guests.due(at)), (Some(2), None));
        guests.enter(host(1));
        assert_eq!(guests.due(at + QUIET / 2), None);
        assert_eq!(guests.due(at + QUIET), Some(1));
    }
}
