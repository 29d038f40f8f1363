//! A pair in front of an even number of servers: half of their locks and a trusted server (HA H16).

use super::*;

/// One of a pair in front of so many servers, alone, long after its start; the trusted server answers.
fn alone(nodes: u16) -> Engine {
    let third = Third::Nodes((0..nodes).map(NodeId).collect());
    let now = crate::support::clock::now();
    let mut engine = Engine::new(Settings { third, trusted: true, ..settings(0, 2) }, Kept::default(), 1, now);
    engine.trusted = Some(long_after(&engine));
    engine
}

fn long_after(engine: &Engine) -> Instant {
    engine.quiet + Duration::from_secs(60)
}

/// An attempt at that node's lock ends in this way at this moment.
fn attempt(engine: &mut Engine, node: u16, locked: Locked, at: Instant) {
    engine.locks.get_mut(&NodeId(node)).expect("there").under_way = Some(at);
    engine.on_lock(NodeId(node), at, locked, at);
}

#[test]
fn h16_half_of_the_servers_and_a_trusted_one_are_a_vote_once_their_locks_are_ripe() {
    let mut engine = alone(2);
    let begun = long_after(&engine);
    attempt(&mut engine, 0, Locked::Obtained(Duration::ZERO), begun);
    attempt(&mut engine, 1, Locked::Failed, begun);
    let ripe = begun + engine.settings.timings.guard();
    let clear = begun + engine.settings.timings.clear();
    assert_eq!(engine.third_evidence(ripe - Duration::from_millis(1)), None, "somebody else may count on it yet");
    assert_eq!(engine.third_evidence(ripe), Some(begun));
    assert!(!engine.third_is_clear(clear - Duration::from_millis(1)) && engine.third_is_clear(clear));
    // It is as old as the older one of both.
    engine.trusted = Some(begun - Duration::from_millis(700));
    assert_eq!(engine.third_evidence(ripe), Some(begun - Duration::from_millis(700)));
    engine.trusted = None;
    assert_eq!(engine.third_evidence(ripe), None, "no trusted server has answered");
    assert!(!engine.third_is_clear(clear));
}

#[test]
fn h16_a_tie_counts_for_nobody_who_has_seen_the_other_half_held() {
    let mut engine = alone(2);
    let begun = long_after(&engine);
    attempt(&mut engine, 0, Locked::Obtained(Duration::ZERO), begun);
    let ripe = begun + engine.settings.timings.guard();
    attempt(&mut engine, 1, Locked::Busy, ripe);
    let lease = engine.settings.timings.lease;
    assert_eq!(engine.third_evidence(ripe), None);
    assert_eq!(engine.third_evidence(ripe + lease - Duration::from_millis(1)), None);
    assert_eq!(engine.third_evidence(ripe + lease), Some(begun), "who held it then is not heard of any more");
}

#[test]
fn h16_less_than_half_and_half_of_an_odd_number_are_no_tie() {
    for (nodes, held) in [(4, 1), (3, 1), (5, 2), (1, 0)] {
        let mut engine = alone(nodes);
        let begun = long_after(&engine);
        (0..held).for_each(|node| attempt(&mut engine, node, Locked::Obtained(Duration::ZERO), begun));
        let later = begun + engine.settings.timings.clear();
        assert!(engine.third_evidence(later).is_none() && !engine.third_is_clear(later), "{held} of {nodes}");
    }
    for (nodes, held) in [(4, 2), (4, 3), (3, 2), (1, 1)] {
        let mut engine = alone(nodes);
        let begun = long_after(&engine);
        (0..held).for_each(|node| attempt(&mut engine, node, Locked::Obtained(Duration::ZERO), begun));
        let later = begun + engine.settings.timings.clear();
        assert!(engine.third_evidence(later) == Some(begun) && engine.third_is_clear(later), "{held} of {nodes}");
    }
}
