//! What a recovery does, and when it is given up, with a clock that stands still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::cluster::{Lsn, Position, Sample, Timeline, Writes};

const COPY: Duration = Duration::from_secs(1000);
const ARRIVE: Duration = Duration::from_secs(90);

/// An engine, its clock, and the view that it sees.
struct World {
    engine: Engine,
    now: Instant,
    view: ClusterView,
}

fn node(id: u16, role: Role, status: Status, asked: Instant) -> NodeView {
    let sample = Sample { asked, lsn: Lsn(100), epoch: Epoch(1) };
    let streaming = role == Role::Standby;
    NodeView {
        id: NodeId(id),
        name: format!("n{id}"),
        role,
        status,
        life: Life::Well,
        weight: 1.0,
        position: Some(Position {
            sample,
            received: None,
            timeline: Timeline(3),
            system: 7,
            streaming,
            history: None,
            written: None,
        }),
        version: 150_000,
        lag: None,
        delay: None,
        replication: crate::cluster::Replication::default(),
        reason: "",
    }
}

impl World {
    /// Node 0 is the primary, node 1 is dead.
    fn new() -> Self {
        let now = crate::support::clock::now();
        let mut dead = node(1, Role::Standby, Status::Down, now);
        dead.life = Life::Dead(now);
        let nodes = vec![node(0, Role::Primary, Status::Up, now), dead];
        let view = ClusterView { nodes, primary: Some(NodeId(0)), epoch: Epoch(1), ..ClusterView::empty() };
        let mut world = Self { engine: Engine::default(), now, view };
        world.see();
        world
    }

    fn see(&mut self) -> Vec<Action> {
        let event = Event::View(Arc::new(self.view.clone()));
        self.step(event)
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let all = self.engine.step(event, self.now);
        all.into_iter().filter(|action| !matches!(action, Action::Note(_))).collect()
    }

    fn begin(&mut self, asked: u64, id: u16, means: Option<Means>) -> Vec<Action> {
        self.step(Event::Begin(asked, Plan { node: NodeId(id), means, copy: COPY, arrive: ARRIVE }))
    }

    fn ok(&mut self) -> Vec<Action> {
        self.step(Event::Done(Ok(String::new())))
    }

    /// Up to the copy.
    fn copying(means: Means) -> Self {
        let mut world = Self::new();
        let (node, primary) = (NodeId(1), NodeId(0));
        assert_eq!(world.begin(7, 1, Some(means)), [Action::Do(Job::Open { node, primary, means })]);
        assert_eq!(world.ok(), [Action::Do(Job::Detach(node))]);
        assert_eq!(world.ok(), [Action::Do(Job::Copy { node, primary, means })]);
        world
    }

    fn later(&mut self, time: Duration) {
        self.now += time;
    }

    /// What is answered to request 7, after a cancel of the job under way if `working`.
    fn refused(actions: &[Action], working: bool) -> String {
        assert_eq!(actions.contains(&Action::Cancel), working, "{actions:?}");
        assert!(actions.contains(&Action::Close), "{actions:?}");
        match actions.last() {
            Some(Action::Reply(7, Err(why))) => why.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_node_is_attached_only_once_it_streams_from_the_present_primary() {
    for means in [Means::Hook, Means::Extension] {
        let mut world = World::copying(means);
        world.later(Duration::from_secs(60));
        if means == Means::Extension {
            assert_eq!(world.ok(), [Action::Do(Job::Start(NodeId(1)))]);
        }
        assert_eq!(world.ok(), [Action::Close]);
        let asked = world.now + Duration::from_secs(1);
        world.view.nodes[1] = node(1, Role::Standby, Status::Detached, asked);
        // Streams, but what was read of it is from before, or it is on another timeline, or not fit, or does not stream.
        type Spoil = fn(&mut NodeView, Instant);
        let spoilt: [Spoil; 5] = [
            |node, now| node.position.as_mut().expect("one").sample.asked = now - Duration::from_secs(1),
            |node, _| node.position.as_mut().expect("one").timeline = Timeline(2),
            |node, _| node.status = Status::Quarantined,
            |node, _| node.position.as_mut().expect("one").streaming = false,
            |node, now| node.life = Life::Suspect(now),
        ];
        let good = world.view.nodes[1].clone();
        for spoil in spoilt {
            world.view.nodes[1] = good.clone();
            spoil(&mut world.view.nodes[1], world.now);
            assert_eq!(world.see(), []);
        }
        world.view.nodes[1] = good;
        assert_eq!(world.see(), [Action::Do(Job::Attach(NodeId(1)))]);
        assert_eq!(world.ok(), []);
        world.view.nodes[1].status = Status::Up;
        let actions = world.see();
        assert!(matches!(&actions[..], [Action::Close, Action::Reply(7, Ok(_))]), "{actions:?}");
        assert_eq!(world.engine.wakeup(), None);
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_one_at_a_time_is_done() {
    let mut world = World::new();
    let refused = |actions: Vec<Action>| match &actions[..] {
        [Action::Reply(_, Err(why))] => why.clone(),
        other => panic!("{other:?}"),
    };
    let hook = Some(Means::Hook);
    assert!(refused(world.begin(1, 9, hook)).contains("no node 9"));
    assert!(refused(world.begin(1, 0, hook)).contains("is the primary"));
    assert!(refused(world.begin(1, 1, None)).contains("recovery.command"));
    world.view.nodes[1].status = Status::Up;
    world.see();
    assert!(refused(world.begin(1, 1, hook)).contains("alive"));
    world.view.nodes[1].status = Status::Down;
    world.view.writes = Writes::Refused { why: "" };
    world.see();
    assert!(refused(world.begin(1, 1, hook)).contains("no primary"));
    let mut world = World::copying(Means::Hook);
    assert!(refused(world.begin(8, 1, hook)).contains("under way"));
    assert!(world.engine.wakeup().is_some(), "the first one goes on");
}

#[test]
fn a_failover_before_the_copy_has_ended_ends_it_and_behind_it_does_not() {
    let mut world = World::copying(Means::Extension);
    (world.view.epoch, world.view.primary) = (Epoch(2), Some(NodeId(1)));
    let actions = world.see();
    assert!(World::refused(&actions, true).contains("primary no more"));
    let mut world = World::copying(Means::Hook);
    world.ok();
    (world.view.epoch, world.view.primary) = (Epoch(2), None);
    assert_eq!(world.see(), []);
    assert!(world.engine.wakeup().is_some());
}

#[test]
fn every_step_has_an_end() {
    let mut world = World::copying(Means::Extension);
    world.later(COPY);
    let why = World::refused(&world.engine.step(Event::Tick, world.now), true);
    assert!(why.contains("may still run on node 0") && why.contains("stays out"), "{why}");
    let mut world = World::copying(Means::Hook);
    world.ok();
    world.later(ARRIVE);
    let why = World::refused(&world.engine.step(Event::Tick, world.now), false);
    assert!(why.contains("recovery.timeout"), "{why}");
    let mut world = World::copying(Means::Hook);
    let actions = world.step(Event::Done(Err("exit status: 1".to_owned())));
    assert!(World::refused(&actions, true).contains("the copy failed: exit status: 1"));
    let mut world = World::copying(Means::Hook);
    world.view.nodes.pop();
    let actions = world.see();
    assert!(World::refused(&actions, true).contains("configured no more"));
}
