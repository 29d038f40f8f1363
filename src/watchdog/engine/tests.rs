//! Single decisions of the engine, told by hand; histories are in `tests/sim`. Owned by the engine.

use super::*;
use crate::watchdog::timings::Timings;

/// Members of a group whose messages are handed on at once, all clocks alike.
struct Play {
    engines: Vec<Engine>,
    now: Instant,
    notes: Vec<(usize, Note)>,
    addresses: Vec<(usize, Address)>,
    kept: Vec<u64>,
    /// Disks that do not answer.
    stuck: bool,
}

fn settings(me: u8, members: usize) -> Settings {
    Settings {
        me: MemberId(me),
        members: (0..members).map(|at| Member { name: format!("p{at}"), duty: Duty::Proxy }).collect(),
        priority: 1,
        timings: Timings::of(Duration::from_secs(3)),
        third: if members == 2 { Third::Trusted } else { Third::None },
        address: true,
        trusted: members == 2,
        on_quorum_loss: OnQuorumLoss::Stop,
        agreed: BTreeMap::from([("virtual_ip".to_owned(), "192.0.2.10".to_owned())]),
    }
}

impl Play {
    fn new(all: Vec<Settings>) -> Self {
        let now = crate::support::clock::now();
        let engines = all.into_iter().zip(1..).map(|(one, at)| Engine::new(one, Kept::default(), at, now)).collect();
        Self { engines, now, notes: Vec::new(), addresses: Vec::new(), kept: vec![0; 5], stuck: false }
    }

    fn tell(&mut self, to: usize, event: Event) {
        let mut queue = vec![(to, event)];
        while let Some((to, event)) = queue.pop() {
            for action in self.engines[to].step(event, self.now) {
                match action {
                    Action::Send(other, message) => {
                        let from = MemberId(u8::try_from(to).expect("few"));
                        queue.insert(0, (usize::from(other.0), Event::Heard(from, message)));
                    }
                    Action::Persist(number, _) => {
                        self.kept[to] += 1;
                        if !self.stuck {
                            queue.insert(0, (to, Event::Persisted(number)));
                        }
                    }
                    Action::Ping => queue.insert(0, (to, Event::Trusted { sent: self.now, answered: true })),
                    Action::Address(order) => {
                        self.addresses.push((to, order));
                        match order {
                            Address::Take { .. } => queue.insert(0, (to, Event::Address(AddressIs::Taken))),
                            Address::Release => queue.insert(0, (to, Event::Address(AddressIs::Released))),
                            _ => {}
                        }
                    }
                    Action::Note(note) => self.notes.push((to, note)),
                    Action::Stop(epoch) => queue.insert(0, (to, Event::Stopped(epoch))),
                    _ => {}
                }
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(20);
            (0..self.engines.len()).for_each(|one| self.tell(one, Event::Tick));
        }
    }

    fn leaders(&self) -> Vec<usize> {
        (0..self.engines.len()).filter(|one| self.engines[*one].leads().is_some()).collect()
    }

    fn noted(&self, event: &str) -> bool {
        self.notes.iter().any(|(_, note)| note.event == event)
    }
}

#[test]
fn h18_nobody_is_voted_for_before_a_forgotten_lease_is_over_and_the_fitter_leads() {
    let mut play = Play::new((0..3).map(|me| settings(me, 3)).collect());
    play.tell(2, Event::Configure(Box::new(Settings { priority: 5, ..settings(2, 3) })));
    play.wait(Duration::from_millis(4_300));
    assert_eq!(play.leaders(), Vec::<usize>::new());
    play.wait(Duration::from_secs(1));
    assert_eq!(play.leaders(), [2], "the highest priority");
    assert!(matches!(play.addresses.first(), Some((2, Address::Take { ask: true, .. }))), "{:?}", play.addresses);
}

#[test]
fn h18_no_vote_leaves_before_it_is_on_disk() {
    let mut play = Play::new((0..3).map(|me| settings(me, 3)).collect());
    play.stuck = true;
    play.wait(Duration::from_secs(8));
    assert!(play.kept.iter().sum::<u64>() > 0, "votes were ordered to the disks");
    assert_eq!(play.leaders(), Vec::<usize>::new());
}

#[test]
fn h23_another_address_is_refused_on_both_sides_with_its_name() {
    let mut other = settings(1, 2);
    other.agreed.insert("virtual_ip".to_owned(), "192.0.2.11".to_owned());
    let mut play = Play::new(vec![settings(0, 2), other]);
    play.wait(Duration::from_secs(1));
    for side in 0..2 {
        let note = play.notes.iter().find(|(at, note)| *at == side && note.event == "member_refused");
        let why = &note.expect("each side says so").1.why;
        assert!(why.contains("virtual_ip") && why.contains("192.0.2.10") && why.contains("192.0.2.11"), "{why}");
    }
    assert!(!play.noted("member_joined"));
}

#[test]
fn h03_a_fitter_partner_takes_over_and_h24_leaving_hands_over() {
    let mut play = Play::new((0..2).map(|me| settings(me, 2)).collect());
    play.wait(Duration::from_secs(6));
    assert_eq!(play.leaders(), [0]);
    let node = NodeId(1);
    play.tell(1, Event::Sights(vec![(node, Sight::Alive)], Some(node)));
    play.tell(0, Event::Sights(vec![(node, Sight::Dead)], Some(node)));
    play.wait(Duration::from_millis(1_500));
    assert_eq!(play.leaders(), [0], "not at once");
    play.wait(Duration::from_millis(1_500));
    assert_eq!(play.leaders(), [1]);
    play.tell(0, Event::Sights(vec![(node, Sight::Alive)], Some(node)));
    play.wait(Duration::from_secs(4));
    play.tell(1, Event::Leave);
    play.wait(Duration::from_millis(200));
    assert_eq!(play.leaders(), [0]);
    assert!(play.noted("member_left"));
}
