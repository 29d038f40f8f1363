//! What the engine says of a server's life, and how it obeys `failover`.

use super::*;
use crate::cluster::Life;

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
