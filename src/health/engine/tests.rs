//! The engine with a fake clock: single cases by hand, then seeded random histories with invariants.

use std::collections::BTreeMap;

use super::*;
use crate::cluster::Lsn;

const MS: Duration = Duration::from_millis(1);
const P: NodeId = NodeId(0);
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn settings(id: NodeId) -> NodeSettings {
    let (name, thresholds) = (format!("node{id}"), Thresholds::default());
    NodeSettings { id, name, weight: 1.0, fixed: Fixed::Auto, thresholds }
}

/// A server as it truly is.
#[derive(Debug, Clone)]
struct Server {
    failure: Option<Failure>,
    reading: Reading,
}

fn primary(timeline: u32, lsn: u64) -> Server {
    let reading = Reading {
        role: Role::Primary,
        lsn: Lsn(lsn),
        received: None,
        timeline: Timeline(timeline),
        checkpoint_timeline: Timeline(timeline),
        receiver: Receiver::Absent,
        system: 7,
        version: 150_000,
        delay: None,
        synchronous: None,
        clock: 0,
        receipt: None,
        stream: None,
        senders: None,
        refused: None,
        history: None,
    };
    Server { failure: None, reading }
}

fn standby(timeline: u32, lsn: u64) -> Server {
    let mut server = primary(timeline, lsn);
    server.reading.role = Role::Standby;
    server.reading.receiver = Receiver::Streaming;
    server
}

pub(in crate::health) fn standby_reading(timeline: u32, lsn: u64) -> Reading {
    standby(timeline, lsn).reading
}

/// Servers, an engine, and a clock that moves by the engine's own wishes.
struct World {
    now: Instant,
    engine: Engine,
    servers: BTreeMap<NodeId, Server>,
    notes: Vec<Note>,
    views: Vec<ClusterView>,
    probes: Vec<(NodeId, Instant, bool)>,
    /// Outstanding probes and when they end.
    flying: Vec<(Instant, Instant, NodeId)>,
}

impl World {
    fn of(nodes: Vec<NodeSettings>, servers: impl IntoIterator<Item = (NodeId, Server)>) -> Self {
        let now = crate::support::clock::now();
        let engine = Engine::new(nodes, 1, now);
        let servers = servers.into_iter().collect();
        Self { now, engine, servers, notes: Vec::new(), views: Vec::new(), probes: Vec::new(), flying: Vec::new() }
    }

    /// One primary and two standbys, found and up.
    fn ready() -> Self {
        let servers = [(P, primary(1, 1000)), (A, standby(1, 1000)), (B, standby(1, 900))];
        let mut world = Self::of(vec![settings(P), settings(A), settings(B)], servers);
        world.run(10 * MS);
        assert_eq!(world.up(), [P, A, B]);
        world
    }

    fn server(&mut self, id: NodeId) -> &mut Server {
        self.servers.get_mut(&id).expect("exists")
    }

    fn give(&mut self, event: Event) {
        let before = self.engine.view().clone();
        let actions = self.engine.step(event, self.now);
        self.act(&before, actions);
    }

    fn configure(&mut self, nodes: Vec<NodeSettings>) {
        let before = self.engine.view().clone();
        self.flying.clear();
        let actions = self.engine.configure(nodes, self.now);
        self.act(&before, actions);
    }

    fn act(&mut self, before: &ClusterView, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Probe { node, fresh } => {
                    let took = match self.servers[&node].failure {
                        Some(Failure::TimedOut | Failure::Frozen) => Thresholds::default().timeout,
                        _ => MS,
                    };
                    self.probes.push((node, self.now, fresh));
                    self.flying.push((self.now + took, self.now, node));
                }
                Action::Publish(view) => {
                    // Partners count epochs otherwise, and may go back.
                    if !self.engine.ruling.agreed {
                        check_step(before, &view);
                    }
                    self.views.push(view);
                }
                Action::Note(note) => self.notes.push(note),
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.flying.sort();
            let ends = self.flying.first().map(|(at, ..)| *at);
            let Some(next) = [ends, self.engine.wakeup()].into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if ends.is_some_and(|at| at <= self.now) {
                let (_, asked, node) = self.flying.remove(0);
                let Server { failure, reading } = self.servers[&node].clone();
                self.give(match failure {
                    Some(failure) => Event::Failed { node, failure },
                    None => Event::Answered { node, asked, reading },
                });
            } else {
                self.give(Event::Tick);
            }
        }
        self.now = end;
    }

    fn status(&self, id: NodeId) -> Status {
        self.engine.view().node(id).expect("exists").status
    }

    fn up(&self) -> Vec<NodeId> {
        self.engine.view().nodes.iter().filter(|node| node.usable()).map(|node| node.id).collect()
    }
}

/// What must hold from each view to the next.
fn check_step(old: &ClusterView, new: &ClusterView) {
    let writable = new.nodes.iter().filter(|node| node.usable() && node.role == Role::Primary).collect::<Vec<_>>();
    assert!(writable.len() <= 1, "two primaries: {writable:?}");
    assert!(writable.iter().all(|node| Some(node.id) == new.primary), "{new:?}");
    assert!(new.generation >= old.generation && new.epoch >= old.epoch);
    assert!(new.epoch == old.epoch || new.primary.is_some());
    let removed = new.primary.is_none() && !new.nodes.iter().any(|node| Some(node.id) == old.primary);
    assert!(new.primary == old.primary || new.epoch > old.epoch || removed, "another primary in the same epoch");
    let told = |node: &NodeView| node.usable() == node.reason.is_empty() || shown::HINDERED.contains(&node.reason);
    assert!(new.nodes.iter().all(told), "{new:?}");
    let key =
        |view: &ClusterView| -> Vec<_> { view.nodes.iter().map(|node| (node.id, node.role, node.status)).collect() };
    assert_eq!(
        new.generation == old.generation,
        (key(new), new.primary, new.epoch) == (key(old), old.primary, old.epoch)
    );
}

#[test]
fn the_first_view_waits_for_all_so_that_the_newer_primary_wins() {
    let mut world = World::of(vec![settings(P), settings(A)], [(P, primary(1, 5000)), (A, primary(2, 1200))]);
    world.run(50 * MS);
    assert_eq!(world.engine.view().primary, Some(A));
    assert_eq!(world.status(P), Status::Quarantined);
    assert!(world.views.iter().all(|view| view.primary != Some(P)));
}

#[test]
fn two_first_primaries_that_cannot_be_told_apart_are_none() {
    let mut world = World::of(vec![settings(P), settings(A)], [(P, primary(1, 5000)), (A, primary(1, 6000))]);
    world.run(5000 * MS);
    assert_eq!((world.engine.view().primary, world.up().len()), (None, 0));
    assert_eq!(world.notes.iter().filter(|note| **note == Note::Ambiguous).count(), 1);
    let mut fixed = settings(A);
    fixed.fixed = Fixed::Primary;
    let mut world = World::of(vec![settings(P), fixed], [(P, primary(1, 5000)), (A, primary(1, 6000))]);
    world.run(50 * MS);
    assert_eq!((world.engine.view().primary, world.up()), (Some(A), vec![A]));
}

#[test]
fn a_first_primary_that_the_standbys_have_left_is_not_chosen() {
    let servers = [(P, primary(1, 5000)), (A, standby(2, 5200))];
    let mut world = World::of(vec![settings(P), settings(A)], servers);
    world.run(50 * MS);
    assert_eq!(world.engine.view().primary, None);
    assert_eq!(world.status(P), Status::Quarantined);
}

#[test]
fn a_standby_by_configuration_is_never_primary() {
    let mut fixed = settings(A);
    fixed.fixed = Fixed::Standby;
    let mut world = World::of(vec![settings(P), fixed], [(P, primary(1, 5000)), (A, primary(2, 1200))]);
    world.run(50 * MS);
    assert_eq!(world.status(A), Status::Quarantined);
    assert_ne!(world.engine.view().primary, Some(A));
}

#[test]
fn h01_down_after_the_retries_within_the_bound_and_up_after_the_successes() {
    let mut world = World::ready();
    world.server(A).failure = Some(Failure::TimedOut);
    let started = world.now;
    // period + (retries + 1) x timeout + retries x retry_delay
    while world.status(A) == Status::Up {
        world.run(10 * MS);
    }
    let took = world.now - started;
    assert!(took > 3000 * MS && took <= 4610 * MS, "{took:?}");
    assert_eq!(world.up(), [P, B]);
    world.server(A).failure = None;
    world.run(1010 * MS);
    let back = world.now;
    while world.status(A) != Status::Up {
        world.run(10 * MS);
        assert!(world.now - back < 1500 * MS);
    }
    let answers = Thresholds::default().successes;
    let probes = world.probes.iter().filter(|(node, at, _)| *node == A && *at >= started + took - 10 * MS).count();
    assert!(probes >= answers as usize, "{probes}");
}

#[test]
fn one_lost_probe_changes_nothing() {
    let mut world = World::ready();
    let generation = world.engine.view().generation;
    world.server(P).failure = Some(Failure::Lost);
    world.run(1100 * MS);
    world.server(P).failure = None;
    world.run(3000 * MS);
    assert_eq!(world.engine.view().generation, generation);
}

#[test]
fn a_server_that_says_it_starts_up_is_down_at_once_and_back_at_once() {
    let mut world = World::ready();
    world.server(P).failure = Some(Failure::StartingUp);
    world.run(1010 * MS);
    assert_eq!(world.status(P), Status::Down);
    assert_eq!(world.engine.view().primary, Some(P), "the primary stays named: its sessions wait for it");
    world.server(P).failure = None;
    world.run(310 * MS);
    assert_eq!(world.status(P), Status::Up);
    assert_eq!(world.engine.view().epoch, Epoch(1));
}

#[test]
fn a_living_server_that_refuses_us_keeps_its_status() {
    for failure in [Failure::TooManyConnections, Failure::LoginRefused] {
        let mut world = World::ready();
        world.server(P).failure = Some(failure);
        world.run(60_000 * MS);
        assert_eq!(world.up(), [P, A, B]);
        assert_eq!(world.notes.iter().filter(|note| **note == Note::Failing(P, failure)).count(), 1);
    }
}

#[test]
fn s31_the_standbys_are_served_while_the_primary_is_gone() {
    let mut world = World::ready();
    world.server(P).failure = Some(Failure::Refused);
    for id in [A, B] {
        world.server(id).reading.receiver = Receiver::Absent;
        world.server(id).reading.timeline = Timeline(0);
    }
    world.run(30_000 * MS);
    assert_eq!(world.up(), [A, B]);
    assert_eq!((world.engine.view().primary, world.status(P)), (Some(P), Status::Down));
    world.server(P).failure = None;
    world.run(2500 * MS);
    assert_eq!(world.up(), [P, A, B], "they have a standing and little lag");
}

#[test]
fn a_promotion_by_hand_is_followed_and_the_old_primary_is_not_served_again() {
    let mut world = World::ready();
    world.server(P).failure = Some(Failure::Refused);
    *world.server(A) = primary(2, 1100);
    world.run(6000 * MS);
    assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(A), Epoch(2)));
    assert_eq!(world.up(), [A], "h10: the other standby is not on the new timeline yet");
    *world.server(B) = standby(2, 1100);
    world.run(1100 * MS);
    assert_eq!(world.up(), [A, B]);
    world.server(P).failure = None;
    world.run(5000 * MS);
    assert_eq!((world.status(P), world.engine.view().primary), (Status::Quarantined, Some(A)));
    *world.server(P) = standby(2, 1050);
    world.run(1100 * MS);
    assert_eq!(world.up(), [P, A, B], "rebuilt as a standby");
}

#[test]
fn a_second_primary_beside_a_living_one_is_quarantined() {
    let mut world = World::ready();
    *world.server(A) = primary(2, 1100);
    world.run(20_000 * MS);
    assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(P), Epoch(1)));
    assert_eq!((world.status(A), world.up()), (Status::Quarantined, vec![P, B]));
}

#[test]
fn a_switch_of_roles_by_hand_is_followed() {
    let mut world = World::ready();
    *world.server(P) = standby(2, 1100);
    *world.server(A) = primary(2, 1100);
    world.run(1100 * MS);
    assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(A), Epoch(2)));
}

#[test]
fn h10_only_what_is_on_the_branch_of_the_primary_is_served() {
    type Change = fn(&mut Reading);
    let cases: [(&str, Change, bool); 6] = [
        ("other system", |r| r.system = 8, false),
        ("other timeline", |r| r.timeline = Timeline(2), false),
        ("not streaming, near", |r| r.receiver = Receiver::Absent, true),
        ("not streaming, far", |r| (r.receiver, r.lsn) = (Receiver::Waiting, Lsn(0)), false),
        ("ahead", |r| r.lsn = Lsn(1 << 40), false),
        ("no rights to see", |r| r.receiver = Receiver::Hidden, false),
    ];
    for (what, change, served) in cases {
        let mut world = World::ready();
        for id in [P, A, B] {
            world.server(id).reading.lsn = Lsn(1 << 30);
        }
        world.run(1100 * MS);
        change(&mut world.server(B).reading);
        world.run(2200 * MS);
        assert_eq!(world.status(B) == Status::Up, served, "{what}");
        assert_eq!(world.status(A), Status::Up, "{what}");
        let generation = world.engine.view().generation;
        world.run(10_000 * MS);
        assert_eq!(world.engine.view().generation, generation, "{what}: it flaps");
    }
}

#[test]
fn trouble_hurries_but_not_too_often_and_old_trouble_is_ignored() {
    let mut world = World::ready();
    world.run(500 * MS);
    let before = world.probes.len();
    for _ in 0..1000 {
        let (trouble, epoch) = (Trouble::CannotConnect, world.engine.view().epoch);
        world.give(Event::Trouble(FailoverRequest { node: P, trouble, epoch }));
        world.run(MS / 10);
    }
    let hurried = &world.probes[before..];
    assert!(hurried.len() <= 2 && hurried[0].2, "a new connection is tried: {hurried:?}");
    world.run(1000 * MS);
    let before = world.probes.len();
    world.give(Event::Trouble(FailoverRequest { node: A, trouble: Trouble::CannotConnect, epoch: Epoch(0) }));
    assert_eq!(world.probes.len(), before);
}

#[test]
fn a_lost_connection_is_looked_at_at_once() {
    let mut world = World::ready();
    world.run(200 * MS);
    world.server(A).failure = Some(Failure::Refused);
    world.give(Event::Lost(A));
    world.run(700 * MS);
    assert_eq!(world.status(A), Status::Down);
}

#[test]
fn a_fixed_primary_that_is_down_is_not_replaced() {
    let mut fixed = settings(P);
    fixed.fixed = Fixed::Primary;
    let mut world = World::of(vec![fixed, settings(A)], [(P, primary(1, 1000)), (A, standby(1, 1000))]);
    world.run(50 * MS);
    world.server(P).failure = Some(Failure::Refused);
    *world.server(A) = primary(2, 1100);
    world.run(10_000 * MS);
    assert_eq!((world.engine.view().primary, world.up().len()), (Some(P), 0));
}

#[test]
fn a_reload_keeps_what_stays_adds_and_removes() {
    let mut world = World::ready();
    let mut heavier = settings(A);
    heavier.weight = 3.0;
    let c = NodeId(5);
    world.servers.insert(c, standby(1, 1000));
    let generation = world.engine.view().generation;
    world.configure(vec![settings(P), heavier, settings(c)]);
    assert_eq!((world.up(), world.engine.view().epoch), (vec![P, A], Epoch(1)), "nobody has to be asked first");
    assert!(world.engine.view().generation > generation && world.engine.view().node(B).is_none());
    world.run(100 * MS);
    assert_eq!((world.up(), world.engine.view().nodes[1].weight), (vec![P, A, c], 3.0));
    // The primary's entry goes; one of the past does not become primary in its place, its successor does.
    *world.server(c) = primary(0, 1000);
    world.configure(vec![settings(A), settings(c)]);
    world.run(3000 * MS);
    assert_eq!(world.engine.view().primary, None);
    *world.server(A) = primary(2, 1100);
    world.run(3000 * MS);
    assert_eq!((world.engine.view().primary, world.engine.view().epoch), (Some(A), Epoch(2)));
}

/// A small generator: the seed alone decides.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

const FAILURES: [Failure; 10] = [
    Failure::Refused,
    Failure::Unreachable,
    Failure::TimedOut,
    Failure::Frozen,
    Failure::Lost,
    Failure::StartingUp,
    Failure::ShuttingDown,
    Failure::TooManyConnections,
    Failure::LoginRefused,
    Failure::BadAnswer,
];

/// A random change of the world: faults, wild promotions, servers that come back as what they were.
fn disturb(world: &mut World, random: &mut Random, timeline: &mut u32) {
    let id = NodeId(u16::try_from(random.below(3)).expect("small"));
    let lsn = world.server(id).reading.lsn.0 + random.below(100);
    match random.below(8) {
        0..=2 => {
            let choice = usize::try_from(random.below(10)).expect("small");
            world.server(id).failure = Some(FAILURES[choice]);
        }
        3..=4 => world.server(id).failure = None,
        5 => {
            *timeline += u32::from(random.below(2) == 0);
            *world.server(id) = primary(*timeline, lsn);
        }
        6 => *world.server(id) = standby(*timeline - u32::from(*timeline > 1 && random.below(2) == 0), lsn),
        _ => {
            let (trouble, epoch) = (Trouble::ConnectionLost, world.engine.view().epoch);
            world.give(Event::Trouble(FailoverRequest { node: id, trouble, epoch }));
        }
    }
}

#[test]
fn whatever_happens_there_is_one_primary_and_after_healing_all_are_served() {
    for seed in 0..2000 {
        let mut random = Random(seed);
        let servers = [(P, primary(1, 1000)), (A, standby(1, 1000)), (B, standby(1, 900))];
        let mut world = World::of(vec![settings(P), settings(A), settings(B)], servers);
        let mut timeline = 1;
        for _ in 0..random.below(40) {
            disturb(&mut world, &mut random, &mut timeline);
            let pause = u32::try_from(random.below(2500)).expect("small");
            world.run(pause * MS);
        }
        // Heal: one primary that was promoted last, the others follow it.
        let lsn = world.servers.values().map(|server| server.reading.lsn.0).max().expect("three");
        let chosen = NodeId(u16::try_from(random.below(3)).expect("small"));
        for id in [P, A, B] {
            *world.server(id) = if id == chosen { primary(timeline + 1, lsn + 1) } else { standby(timeline + 1, lsn) };
        }
        world.run(8000 * MS);
        assert_eq!((world.engine.view().primary, world.up()), (Some(chosen), vec![P, A, B]), "seed {seed}");
        for id in [P, A, B] {
            let starts: Vec<Instant> =
                world.probes.iter().filter(|(node, ..)| *node == id).map(|(_, at, _)| *at).collect();
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= MIN_GAP), "seed {seed}: probes too close");
        }
    }
}

mod life;
mod pace;
mod shown;
