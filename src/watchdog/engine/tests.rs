//! Single decisions of the engine, told by hand; histories are in `tests/sim`. Owned by the engine.

mod agreement;
mod tie;

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
    /// Where the address cannot be put.
    refuses: Vec<usize>,
    /// Where nothing is heard of it.
    slow: Vec<usize>,
    /// Whose messages do not arrive, nor those of others there.
    mute: Vec<usize>,
    replies: Vec<(Ticket, Result<u64, String>)>,
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
        Self {
            engines,
            now,
            notes: Vec::new(),
            addresses: Vec::new(),
            kept: vec![0; 5],
            stuck: false,
            refuses: Vec::new(),
            slow: Vec::new(),
            mute: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn tell(&mut self, to: usize, event: Event) {
        let mut queue = vec![(to, event)];
        while let Some((to, event)) = queue.pop() {
            for action in self.engines[to].step(event, self.now) {
                match action {
                    Action::Send(other, _) if self.mute.contains(&to) || self.mute.contains(&usize::from(other.0)) => {}
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
                            Address::Take { .. } | Address::Renew { .. } if self.refuses.contains(&to) => {
                                let failed = AddressIs::Failed("no such device".to_owned());
                                queue.insert(0, (to, Event::Address(failed)));
                            }
                            Address::Take { .. } if self.slow.contains(&to) => {}
                            Address::Take { .. } => queue.insert(0, (to, Event::Address(AddressIs::Taken))),
                            Address::Release => queue.insert(0, (to, Event::Address(AddressIs::Released))),
                            _ => {}
                        }
                    }
                    Action::Note(note) => self.notes.push((to, note)),
                    Action::Reply(ticket, answer) => self.replies.push((ticket, answer)),
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

/// A pair, of which the first one has led for a while.
fn pair() -> Play {
    let mut play = Play::new((0..2).map(|me| settings(me, 2)).collect());
    play.wait(Duration::from_secs(9));
    assert_eq!((play.leaders(), play.holder()), (vec![0], Some(0)));
    play
}

impl Play {
    fn holder(&self) -> Option<usize> {
        (0..self.engines.len()).find(|one| matches!(self.engines[*one].place, Place::On { .. }))
    }

    fn hold(&self, one: usize) -> Hold {
        self.engines[one].own_fitness(self.now).hold
    }

    fn count(&self, event: &str) -> usize {
        self.notes.iter().filter(|(_, note)| note.event == event).count()
    }
}

#[test]
fn h03_a_leader_that_cannot_hold_the_address_hands_over_within_the_time_of_one_that_is_less_fit() {
    let mut play = pair();
    play.refuses = vec![0];
    play.wait(Duration::from_millis(1_800));
    assert_eq!((play.leaders(), play.holder()), (vec![0], None), "it tries again first");
    let tries = play.addresses.iter().filter(|(at, order)| *at == 0 && matches!(order, Address::Take { .. })).count();
    assert!(tries >= 5, "{tries}");
    play.wait(Duration::from_millis(1_200));
    assert_eq!((play.leaders(), play.holder()), (vec![1], Some(1)));
    let unfit = play.notes.iter().find(|(_, note)| note.event == "address_unfit").expect("it is told");
    assert!(unfit.0 == 0 && unfit.1.why.contains("no such device"), "{unfit:?}");
    assert!((play.hold(0), play.hold(1)) == (Hold::Unable, Hold::Able));
    assert!(
        play.engines[1].members(play.now).iter().all(|member| member.fitness.hold == Hold::Unable),
        "its partner knows"
    );
}

#[test]
fn h03_one_hitch_hands_nothing_over() {
    let mut play = pair();
    for _ in 0..3 {
        play.refuses = vec![0];
        play.wait(Duration::from_millis(1_000));
        play.refuses.clear();
        play.wait(Duration::from_millis(3_000));
        assert_eq!((play.leaders(), play.holder()), (vec![0], Some(0)));
    }
    assert!(!play.noted("address_unfit") && !play.noted("hand_over"));
}

#[test]
fn h03_who_could_not_hold_the_address_is_preferred_again_when_something_has_changed() {
    let mut play = pair();
    play.refuses = vec![0];
    play.wait(Duration::from_secs(4));
    assert_eq!(play.leaders(), [1]);
    play.tell(0, Event::Configure(Box::new(Settings { priority: 9, ..settings(0, 2) })));
    // Its programs, too, may be others: it is believed to be able, and fails once more.
    play.wait(Duration::from_secs(16));
    assert_eq!((play.count("address_unfit"), play.leaders()), (2, vec![1]));
    // Behind the back-off it is able, yet a try is not worth an outage.
    play.wait(Duration::from_secs(60));
    assert!(play.hold(0) == Hold::Able && !play.engines[0].ability.is_sound());
    assert_eq!((play.count("address_unfit"), play.leaders(), play.holder()), (2, vec![1], Some(1)));
    play.refuses.clear();
    play.tell(0, Event::Mended);
    play.wait(Duration::from_secs(14));
    assert_eq!((play.leaders(), play.holder()), (vec![0], Some(0)));
    assert!(play.noted("address_fit"));
}

#[test]
fn h03_who_holds_the_address_keeps_it_though_it_could_not_hold_it_some_time_ago() {
    let mut play = pair();
    play.refuses = vec![0];
    play.wait(Duration::from_secs(9));
    assert_eq!((play.leaders(), play.hold(0)), (vec![1], Hold::Able), "its back-off is over");
    play.refuses.clear();
    // It becomes leader, the address takes a while to come, and the other one is as well as ever.
    play.slow = vec![0];
    play.tell(1, Event::HandOver(Ticket(7), Some(MemberId(0))));
    play.wait(Duration::from_secs(1));
    assert!(play.leaders() == [0] && play.holder().is_none() && !play.engines[0].ability.is_sound());
    play.tell(0, Event::Address(AddressIs::Taken));
    play.wait(Duration::from_secs(5));
    assert!(play.leaders() == [0] && play.holder() == Some(0) && play.engines[0].ability.is_sound());
}

#[test]
fn h03_a_leader_that_no_client_comes_to_hands_over_to_whoever_is_better_and_still_votes() {
    let mut play = pair();
    let node = NodeId(0);
    for one in [0, 1] {
        play.tell(one, Event::Sights(vec![(node, Sight::Alive)], Some(node)));
    }
    play.wait(Duration::from_secs(1));
    play.tell(0, Event::Dark(true));
    assert_eq!((play.hold(0), play.engines[0].sights.get(&node)), (Hold::Unable, Some(&Sight::Alive)));
    // Even if that one could not hold the address some time ago.
    play.engines[0].peers.get_mut(&MemberId(1)).expect("there").fitness.hold = Hold::Unable;
    play.tell(0, Event::HandOver(Ticket(7), None));
    play.wait(Duration::from_secs(1));
    assert_eq!((play.leaders(), play.holder()), (vec![1], Some(1)));
}

#[test]
fn h03_two_that_cannot_hold_the_address_take_turns_ever_less_often_and_keep_trying() {
    let mut play = pair();
    play.refuses = vec![0, 1];
    play.wait(Duration::from_secs(60));
    let early = play.count("hand_over");
    assert!((2..=10).contains(&early), "{early}");
    play.wait(Duration::from_secs(1_200));
    let before = play.count("hand_over");
    play.wait(Duration::from_secs(1_200));
    let late = play.count("hand_over") - before;
    assert!((1..=44).contains(&late), "{late} in twenty minutes");
    let leader = play.leaders()[0];
    let before = play.addresses.len();
    play.wait(Duration::from_secs(20));
    assert!(play.addresses.len() >= before + 5, "it keeps trying");
    // Whoever leads could again: at once.
    play.refuses.retain(|one| *one != leader);
    play.wait(Duration::from_secs(3));
    assert_eq!((play.leaders(), play.holder()), (vec![leader], Some(leader)));
}

#[test]
fn h03_what_a_real_fault_takes_goes_to_who_is_not_sound_too() {
    let mut play = pair();
    play.refuses = vec![0];
    play.wait(Duration::from_secs(14));
    assert_eq!(play.leaders(), [1]);
    play.refuses.clear();
    let node = NodeId(1);
    play.tell(0, Event::Sights(vec![(node, Sight::Alive)], Some(node)));
    play.tell(1, Event::Sights(vec![(node, Sight::Dead)], Some(node)));
    play.wait(Duration::from_secs(4));
    assert_eq!((play.leaders(), play.holder()), (vec![0], Some(0)));
}

#[test]
fn h17_a_promise_that_was_given_before_is_none_to_this_leader() {
    let mut play = Play::new((0..3).map(|me| settings(me, 3)).collect());
    play.wait(Duration::from_secs(9));
    assert_eq!(play.leaders(), [0]);
    let (engine, now) = (&mut play.engines[0], play.now);
    (engine.prepare, engine.prepared_by) = (5, engine.seq + 1);
    // To itself, for one, when it led: it takes it back with an earlier word of this leader that is on its way yet.
    engine.peers.values_mut().for_each(|peer| peer.promised = 5);
    assert!(!engine.is_cleared(now));
    let heard = (engine.kept.term, engine.prepared_by);
    engine.peers.values_mut().for_each(|peer| peer.answered = heard);
    assert!(engine.is_cleared(now));
}
