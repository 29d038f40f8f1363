//! What the engine says of a server's life, and how it obeys `failover`.

use super::*;
use crate::cluster::{History, Life, Lsn};

#[test]
fn h01_a_late_probe_makes_suspect_and_lost_ones_dead_in_the_time_that_the_formula_says() {
    let mut world = World::ready();
    world.server(P).failure = Some(Failure::Frozen);
    let begun = world.now;
    let life = |world: &World| world.engine.view().node(P).expect("configured").life;
    while !matches!(life(&world), Life::Suspect(_)) {
        world.run(MS);
    }
    assert!(world.now - begun <= Thresholds::default().period + OVERDUE + 2 * MS, "{:?}", world.now - begun);
    while !matches!(life(&world), Life::Dead(_)) {
        world.run(MS);
    }
    let Life::Dead(since) = life(&world) else { unreachable!("just seen") };
    assert!(since >= begun && since <= begun + Thresholds::default().period, "the first probe of the row");
    assert!(world.now - begun <= 4600 * MS, "{:?}", world.now - begun);
    world.server(P).failure = None;
    world.run(2000 * MS);
    assert_eq!(life(&world), Life::Well);
}

#[test]
fn h01_a_server_that_starts_up_is_busy_and_one_that_has_shut_down_dies_soon() {
    let mut world = World::ready();
    let life = |world: &World| world.engine.view().node(P).expect("configured").life;
    world.server(P).failure = Some(Failure::StartingUp);
    world.run(60_000 * MS);
    assert!(matches!(life(&world), Life::Busy(_)), "a crash recovery is no death");
    world.server(P).failure = Some(Failure::Refused);
    world.run(1200 * MS);
    assert!(matches!(life(&world), Life::Dead(_)));
    world.server(P).failure = Some(Failure::TooManyConnections);
    world.run(2000 * MS);
    assert_eq!(life(&world), Life::Well, "who has no room lives");
}

#[test]
fn h12_a_mandate_lets_one_node_take_over_from_a_primary_that_has_come_back() {
    let mut world = World::ready();
    let mandate = Mandate::Only(A, Epoch(5));
    world.give(Event::Ruling(Ruling { mandate, ..Ruling::default() }));
    *world.server(B) = primary(2, 2000);
    world.run(3000 * MS);
    assert_eq!(world.engine.view().primary, Some(P), "nobody else takes it");
    *world.server(A) = primary(2, 1000);
    world.run(3000 * MS);
    let view = world.engine.view();
    assert_eq!((view.primary, view.epoch), (Some(A), Epoch(5)), "the old one still says that it is primary");
    assert_eq!((world.status(P), world.status(B)), (Status::Quarantined, Status::Quarantined));
    world.give(Event::Ruling(Ruling { detached: vec![B], epoch: Epoch(9), ..Ruling::default() }));
    assert_eq!((world.engine.view().epoch, world.status(B)), (Epoch(9), Status::Detached));
}

fn origin(timeline: u32, left: &[(u32, u64)]) -> Option<Arc<History>> {
    let left = left.iter().map(|(timeline, lsn)| (Timeline(*timeline), Lsn(*lsn))).collect();
    Some(Arc::new(History::new(Timeline(timeline), left)))
}

#[test]
fn h06_a_later_timeline_takes_over_only_if_it_may_have_begun_on_the_present_one() {
    for (own, takes) in [
        (origin(3, &[(1, 50), (2, 900)]), true),
        (None, true),
        // It left timeline 1 earlier, or has not been on 2.
        (origin(3, &[(1, 40), (2, 900)]), false),
        (origin(3, &[(1, 50)]), false),
    ] {
        let mut world = World::of(vec![settings(P), settings(A)], [(P, primary(2, 1000)), (A, standby(2, 1000))]);
        world.server(P).reading.history = origin(2, &[(1, 50)]);
        world.run(3000 * MS);
        assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(P), Epoch(2)));
        world.server(P).failure = Some(Failure::Refused);
        world.run(5000 * MS);
        *world.server(A) = primary(3, 1100);
        world.server(A).reading.history = own.clone();
        world.run(3000 * MS);
        assert_eq!(world.engine.view().primary, Some(if takes { A } else { P }), "{own:?}");
    }
}

#[test]
fn h10_a_standby_of_another_branch_is_not_served_though_its_timeline_has_the_same_number() {
    let mut world = World::ready();
    for (own, status) in [
        (origin(2, &[(1, 50)]), Status::Up),
        (origin(2, &[(1, 40)]), Status::Quarantined),
        (None, Status::Up),
        (origin(2, &[(1, 50)]), Status::Up),
    ] {
        *world.server(P) = primary(2, 1000);
        world.server(P).reading.history = origin(2, &[(1, 50)]);
        *world.server(A) = standby(2, 1000);
        world.server(A).reading.history = own.clone();
        world.run(3000 * MS);
        assert_eq!(world.status(A), status, "{own:?}");
    }
}

#[test]
fn h06_two_first_primaries_of_different_branches_are_none() {
    let mut world = World::of(vec![settings(P), settings(A)], [(P, primary(2, 5000)), (A, primary(3, 6000))]);
    world.server(P).reading.history = origin(2, &[(1, 50)]);
    world.server(A).reading.history = origin(3, &[(1, 70)]);
    world.run(5000 * MS);
    assert_eq!((world.engine.view().primary, world.up().len()), (None, 0));
}

#[test]
fn h17_partners_go_back_from_a_candidate_that_they_have_not_agreed_on() {
    let mut world = World::ready();
    let (agreed, timeline) = (Mandate::Only(P, Epoch(3)), Timeline(1));
    let ruling =
        Ruling { agreed: true, epoch: Epoch(3), timeline, primary: Some(P), mandate: agreed, ..Ruling::default() };
    world.give(Event::Ruling(Ruling { mandate: Mandate::Only(A, Epoch(5)), ..ruling.clone() }));
    *world.server(A) = primary(2, 1000);
    world.run(3000 * MS);
    assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(A), Epoch(5)));
    // Whoever leads next has never seen it, and the primary is well.
    world.give(Event::Ruling(ruling.clone()));
    assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(P), Epoch(3)));
    // What is agreed on is behind the timeline of P.
    world.give(Event::Ruling(Ruling { mandate: Mandate::Only(A, Epoch(6)), ..ruling.clone() }));
    let next = Ruling { epoch: Epoch(7), timeline: Timeline(2), ..ruling };
    world.give(Event::Ruling(next));
    assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(A), Epoch(7)));
}

#[test]
fn h17_a_proxy_that_starts_with_a_promotion_that_was_not_agreed_on_goes_back_from_it() {
    let servers = [(P, primary(1, 1000)), (A, standby(1, 1000)), (B, standby(1, 900))];
    let mut world = World::of(vec![settings(P), settings(A), settings(B)], servers);
    let agreed = |node, epoch, timeline| {
        let (epoch, timeline) = (Epoch(epoch), Timeline(timeline));
        let mandate = Mandate::Only(node, epoch);
        Event::Ruling(Ruling { agreed: true, epoch, timeline, primary: Some(node), mandate, ..Ruling::default() })
    };
    world.give(agreed(A, 5, 2));
    world.run(3000 * MS);
    assert_eq!(world.engine.view().primary, None);
    world.give(agreed(P, 3, 1));
    world.run(10 * MS);
    assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(P), Epoch(3)));
}

#[test]
fn h10_who_has_left_the_branch_does_not_come_back_by_receiving_nothing() {
    for primary_lives in [true, false] {
        let mut world = World::ready();
        world.run(1100 * MS);
        // Another proxy has promoted A, which this one cannot reach; B follows A, until A dies, too.
        world.server(A).failure = Some(Failure::Refused);
        world.server(P).failure = Some(Failure::Refused).filter(|_| !primary_lives);
        world.server(B).reading.timeline = Timeline(2);
        world.run(6000 * MS);
        assert_eq!(world.status(B), Status::Quarantined);
        (world.server(B).reading.timeline, world.server(B).reading.receiver) = (Timeline(0), Receiver::Absent);
        world.run(6000 * MS);
        assert_eq!(world.status(B), Status::Quarantined, "{primary_lives}");
        (world.server(B).reading.timeline, world.server(B).reading.receiver) = (Timeline(1), Receiver::Streaming);
        world.run(6000 * MS);
        assert_eq!(world.status(B), Status::Up, "it was rebuilt");
    }
}

#[test]
fn h10_what_a_silent_server_says_of_its_branch_counts() {
    let mut world = World::ready();
    *world.server(P) = primary(2, 1000);
    world.server(P).reading.history = origin(2, &[(1, 50)]);
    let silent = |restart: u32, history| {
        let mut server = standby(2, 1000);
        (server.reading.timeline, server.reading.receiver) = (Timeline(0), Receiver::Absent);
        (server.reading.checkpoint_timeline, server.reading.history) = (Timeline(restart), history);
        server
    };
    for (server, status) in [
        (silent(2, origin(2, &[(1, 40)])), Status::Quarantined),
        (silent(2, origin(2, &[(1, 50)])), Status::Up),
        (silent(3, None), Status::Quarantined),
        // Rebuilt, and fed from an archive: it never receives.
        (silent(2, None), Status::Up),
    ] {
        *world.server(A) = server;
        world.run(3000 * MS);
        assert_eq!(world.status(A), status, "{:?}", world.server(A).reading);
    }
}
