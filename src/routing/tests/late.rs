//! Standbys beyond a threshold of delay.

use super::*;

#[test]
fn in_time_and_where_the_reads_go() {
    let pgpools = policy(|routing| (routing.delay_threshold, routing.too_late) = (50, TooLate::Primary));
    let decision = choose(READ, &SESSION, &view(), &pgpools);
    assert_eq!(decision, Decision { target: Target::Primary(NodeId(0)), reason: Reason::Lag });
    let timed = policy(|routing| routing.delay_threshold_by_time = Duration::from_secs(1));
    let mut old = view();
    old.nodes[1].delay = Some(Duration::from_secs(2));
    old.nodes[2].delay = Some(Duration::from_millis(900));
    assert_eq!(choose(READ, &SESSION, &old, &timed).target, Target::Standby(NodeId(2)));
    old.nodes[2].delay = None;
    assert_eq!(choose(READ, &SESSION, &old, &timed).reason, Reason::Lag, "unknown is too much");
    old.nodes[1].lag = Some(0);
    assert_eq!(choose(READ, &SESSION, &old, &timed).target, Target::Standby(NodeId(1)), "it lacks nothing");
}

#[test]
fn in_bytes() {
    let near = policy(|routing| routing.delay_threshold = 50);
    let decision = choose(READ, &SESSION, &view(), &near);
    assert_eq!(decision, Decision { target: Target::Standby(NodeId(2)), reason: Reason::OtherStandby });
    let nearest = policy(|routing| routing.delay_threshold = 5);
    assert_eq!(choose(READ, &SESSION, &view(), &nearest).reason, Reason::Lag);
    let any = policy(|_| {});
    let mut unknown_lag = view();
    unknown_lag.nodes.iter_mut().for_each(|node| node.lag = None);
    assert_eq!(choose(READ, &SESSION, &unknown_lag, &near).reason, Reason::Lag, "unknown is too much");
    assert_eq!(choose(READ, &SESSION, &unknown_lag, &any).reason, Reason::Read);
}
