//! What the view says of a node that lives and cannot be asked, and how standbys receive.

use super::*;
use crate::cluster::{Life, Replication};
use crate::health::senders::{self, Stream};

/// What keeps us from asking a server that lives.
pub(super) const HINDERED: [&str; 2] = [TOO_MANY, REFUSED];
const TOO_MANY: &str = "too many connections";
const REFUSED: &str = "the monitor role is refused";

fn node(world: &World, id: NodeId) -> &NodeView {
    world.engine.view().node(id).expect("configured")
}

/// Runs until the view says so, and how long that took.
fn until(world: &mut World, wanted: impl Fn(&World) -> bool) -> Duration {
    let begun = world.now;
    while !wanted(world) {
        world.run(MS);
        assert!(world.now - begun < 60_000 * MS, "{:?}", world.engine.view());
    }
    world.now - begun
}

/// A cluster whose standbys have a lag and an age.
fn late() -> World {
    let mut world = World::ready();
    for id in [A, B] {
        world.server(id).reading.delay = Some(700 * MS);
        world.server(id).reading.stream = Stream::read(Some("p"), Some("5432"), Some("mine"), Some("a"));
    }
    world.run(1000 * MS);
    assert_eq!((node(&world, B).lag, node(&world, B).delay), (Some(100), Some(700 * MS)));
    world
}

#[test]
fn a_server_that_lives_and_refuses_us_says_so_as_long_as_it_does_and_is_not_compared_for_ever() {
    let bound = Thresholds::default().period * STALE_PERIODS + Thresholds::default().timeout;
    for (failure, reason) in [(Failure::TooManyConnections, TOO_MANY), (Failure::LoginRefused, REFUSED)] {
        let mut world = late();
        let generation = world.engine.view().generation;
        let asked = node(&world, B).position.as_ref().expect("read").sample.asked;
        world.server(B).failure = Some(failure);
        let took = until(&mut world, |world| node(world, B).reason == reason);
        assert!(took <= Thresholds::default().period + 2 * MS, "{took:?}");
        assert_eq!(node(&world, B).lag, Some(100), "what was read a moment ago is still so");
        until(&mut world, |world| node(world, B).lag.is_none());
        let age = world.now - asked;
        assert!(age >= bound && age <= bound + 2 * MS, "{age:?}");
        assert_eq!((node(&world, B).delay, &node(&world, B).replication), (None, &Replication::default()));
        assert_eq!(node(&world, A).lag, Some(0));
        world.run(60_000 * MS);
        assert_eq!((node(&world, B).reason, node(&world, B).life), (reason, Life::Well));
        assert_eq!(world.up(), [P, A, B]);
        world.server(B).failure = None;
        until(&mut world, |world| node(world, B).reason.is_empty());
        assert_eq!((node(&world, B).lag, node(&world, B).delay), (Some(100), Some(700 * MS)));
        let about = |note: &&Note| matches!(note, Note::Failing(B, _) | Note::Asked(B) | Note::Status(B, ..));
        let notes: Vec<&Note> = world.notes.iter().filter(about).collect();
        assert!(matches!(notes[..], [Note::Status(..), Note::Failing(..), Note::Asked(B)]), "{notes:?}");
        assert_eq!(world.engine.view().generation, generation, "nothing changes for statements");
    }
}

#[test]
fn a_new_connection_that_is_refused_while_the_old_one_answers_is_told_too() {
    let mut world = late();
    world.server(B).reading.refused = Some(Failure::LoginRefused);
    world.run(20_000 * MS);
    assert_eq!((node(&world, B).reason, node(&world, B).lag), (REFUSED, Some(100)));
    // The old one goes, too: that is no news.
    world.server(B).failure = Some(Failure::LoginRefused);
    world.run(20_000 * MS);
    let failing = |world: &World| world.notes.iter().filter(|note| matches!(note, Note::Failing(..))).count();
    assert_eq!((node(&world, B).reason, node(&world, B).lag, failing(&world)), (REFUSED, None, 1));
    world.server(B).reading.refused = None;
    world.server(B).failure = None;
    world.run(1000 * MS);
    assert_eq!((node(&world, B).reason, world.notes.last()), ("", Some(&Note::Asked(B))));
    assert_eq!(failing(&world), 1);
}

#[test]
fn with_a_primary_that_cannot_be_asked_nobody_knows_how_late_a_standby_is_but_a_dead_one_is_still_compared_with() {
    let mut world = late();
    world.server(P).failure = Some(Failure::LoginRefused);
    world.run(5_000 * MS);
    assert_eq!((node(&world, P).reason, node(&world, P).status), (REFUSED, Status::Up));
    assert_eq!((node(&world, B).lag, node(&world, B).delay), (None, Some(700 * MS)));
    let told = &node(&world, B).replication;
    assert_eq!((told.state, told.sync), ("streaming", ""), "its own word");
    // Nothing is written any more.
    world.server(P).failure = Some(Failure::Refused);
    world.run(30_000 * MS);
    assert_eq!((node(&world, B).lag, node(&world, B).status), (Some(100), Status::Up));
}

#[test]
fn replication_is_shown_as_the_primary_says_it() {
    let mut world = World::ready();
    world.server(P).reading.senders = senders::read("streaming sync  b\nstreaming sync  c");
    for (id, port, name) in [(A, "5432", "b"), (B, "5433", "d")] {
        world.server(id).reading.stream = Stream::read(Some("10.0.0.1"), Some(port), None, Some(name));
    }
    world.server(B).reading.stream.as_mut().expect("read").slot = Some("mine".into());
    world.run(1100 * MS);
    let told = |world: &World, id| {
        let Replication { state, sync, upstream, slot } = node(world, id).replication.clone();
        (state, sync, upstream.as_deref().unwrap_or("").to_owned(), slot.as_deref().unwrap_or("").to_owned())
    };
    let text = |words: [&'static str; 4]| (words[0], words[1], words[2].to_owned(), words[3].to_owned());
    assert_eq!(told(&world, A), text(["streaming", "sync", "10.0.0.1:5432", ""]));
    assert_eq!(told(&world, B), text(["streaming", "async", "10.0.0.1:5433", "mine"]), "from another standby");
    assert_eq!(told(&world, P), text([""; 4]));
    let shown = world.engine.view().pgpool_node(A);
    assert_eq!((shown.replication_state, shown.sync_state), ("streaming", "sync"));
    world.server(A).reading.receiver = Receiver::Waiting;
    world.run(1100 * MS);
    assert_eq!(told(&world, A), text(["", "", "10.0.0.1:5432", ""]), "it has been connected and does not stream");
    world.server(A).failure = Some(Failure::Refused);
    world.run(3000 * MS);
    assert_eq!(told(&world, A), text([""; 4]));
}
