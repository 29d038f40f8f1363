//! The pure heart of health: when to probe whom, what failures in a row mean, and the view that follows. Owner: the
//! control thread, through `runner`. `step(event, now) -> actions`; no clock, no socket, nobody promoted here.

use std::time::{Duration, Instant};

use super::choice::{self, Candidate, Choice, Judgement, Record, Seen, Standing};
use super::reading::{Failure, Reading, Receiver, Weight};
use crate::cluster::{
    ClusterView, Epoch, FailoverRequest, Lsn, NodeId, NodeView, Position, Role, Sample, Status, Timeline, Trouble,
};

/// Two probes of one node start at least this far apart, whatever sessions report.
pub const MIN_GAP: Duration = Duration::from_millis(100);

/// Every so many probes a new connection is made, because a connection that lives says nothing about the postmaster: stopped,
/// it takes no new one while its old backends go on answering.
pub const FRESH_EVERY: u32 = 10;

/// What the configuration says about a node's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// The server's own word decides.
    Auto,
    /// Only nodes fixed so may become primary, still only if they say that they are.
    Primary,
    /// Never primary.
    Standby,
}

/// Thresholds in both directions. Times run from start to start unless said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Between two probes of a node that is well, or down.
    pub period: Duration,
    /// Deadline of one probe, connecting included.
    pub timeout: Duration,
    /// Failures beyond the first that are needed for `Down`.
    pub max_retries: u32,
    /// From a failed probe's end, or a first success of a node that is down, to the next probe.
    pub retry_delay: Duration,
    /// Answers in a row that bring a node back that was found dead; at least 1.
    pub successes: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        let (second, delay) = (Duration::from_secs(1), Duration::from_millis(300));
        Self { period: second, timeout: second, max_retries: 2, retry_delay: delay, successes: 2 }
    }
}

/// One node, as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// Its number.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Share of the reads.
    pub weight: f64,
    /// The configured role.
    pub fixed: Fixed,
    /// Its thresholds.
    pub thresholds: Thresholds,
}

/// What the engine hears.
#[derive(Debug, Clone)]
pub enum Event {
    /// A probe brought a reading; `asked` is when its query was sent.
    Answered {
        /// The node.
        node: NodeId,
        /// When the query was sent.
        asked: Instant,
        /// What it said.
        reading: Reading,
    },
    /// A probe failed.
    Failed {
        /// The node.
        node: NodeId,
        /// How.
        failure: Failure,
    },
    /// The monitor connection ended by itself between two probes.
    Lost(NodeId),
    /// A session noticed something: a reason to look, never a verdict.
    Trouble(FailoverRequest),
    /// Time has come, see [`Engine::wakeup`].
    Tick,
}

/// What the engine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Probe this node now; exactly one `Answered` or `Failed` must come of it, within its timeout.
    Probe {
        /// The node.
        node: NodeId,
        /// Prove that a new connection is accepted, too.
        fresh: bool,
    },
    /// This is the view now.
    Publish(ClusterView),
    /// For the event log, once per change.
    Note(Note),
}

/// A change worth a line in the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// A node's status changed, and why.
    Status(NodeId, Status, &'static str),
    /// A probe failed where the one before did not, or in another way.
    Failing(NodeId, Failure),
    /// The primary is another one now.
    Primary(NodeId, Epoch),
    /// Several servers say that they are primary and none can be preferred: nobody is.
    Ambiguous,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    New,
    Up { failures: u32 },
    Down { successes: u32, needed: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probing {
    Idle {
        due: Instant,
    },
    /// `again`: something was noticed after it had started.
    Flying {
        again: bool,
    },
}

#[derive(Debug)]
struct Node {
    settings: NodeSettings,
    health: Health,
    probing: Probing,
    started: Option<Instant>,
    /// Probes until the next one that makes a new connection.
    until_fresh: u32,
    /// The newest answer.
    last: Option<Seen>,
    /// The one before it.
    earlier: Option<Seen>,
    failure: Option<Failure>,
    record: Record,
}

impl Node {
    fn new(settings: NodeSettings, now: Instant) -> Self {
        Self {
            settings,
            health: Health::New,
            probing: Probing::Idle { due: now },
            started: None,
            until_fresh: FRESH_EVERY,
            last: None,
            earlier: None,
            failure: None,
            record: Record::default(),
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.health, Health::Up { .. })
    }

    /// Earliest next probe after one that has just ended.
    fn next_due(&self, now: Instant) -> Instant {
        let Thresholds { period, retry_delay, .. } = self.settings.thresholds;
        let started = self.started.unwrap_or(now);
        let by_period = started + period;
        let due = match self.health {
            Health::Up { failures: 0 } | Health::New => by_period,
            Health::Up { .. } | Health::Down { successes: 1.., .. } => now + retry_delay,
            // The server said that it is coming: look often, it will not be long.
            Health::Down { .. } if self.failure.is_some_and(|f| f.weight() == Weight::OwnWord) => now + retry_delay,
            Health::Down { .. } => by_period,
        };
        due.max(started + MIN_GAP).max(now)
    }

    fn ended(&mut self, now: Instant) {
        let again = matches!(self.probing, Probing::Flying { again: true });
        let due =
            if again { self.started.map_or(now, |started| (started + MIN_GAP).max(now)) } else { self.next_due(now) };
        self.probing = Probing::Idle { due };
    }

    fn hurry(&mut self, fresh: bool, now: Instant) {
        if fresh {
            self.until_fresh = 0;
        }
        match &mut self.probing {
            Probing::Flying { again } => *again = true,
            Probing::Idle { due } => {
                let earliest = self.started.map_or(now, |started| started + MIN_GAP);
                *due = (*due).min(earliest.max(now));
            }
        }
    }

    fn answered(&mut self) {
        self.failure = None;
        self.health = match self.health {
            Health::Down { successes, needed } if successes + 1 < needed => {
                Health::Down { successes: successes + 1, needed }
            }
            _ => Health::Up { failures: 0 },
        };
    }

    fn failed(&mut self, failure: Failure) {
        self.failure = Some(failure);
        let Thresholds { max_retries, successes, .. } = self.settings.thresholds;
        self.health = match (failure.weight(), self.health) {
            (_, Health::New) => Health::Down { successes: 0, needed: 1 },
            (Weight::Alive, health) => health,
            (Weight::OwnWord, Health::Up { .. }) => Health::Down { successes: 0, needed: 1 },
            (Weight::Counts, Health::Up { failures }) if failures < max_retries => {
                Health::Up { failures: failures + 1 }
            }
            (Weight::Counts, Health::Up { .. }) => Health::Down { successes: 0, needed: successes.max(1) },
            (_, Health::Down { needed, .. }) => Health::Down { successes: 0, needed },
        };
    }
}

/// State of all nodes and the view made of it.
#[derive(Debug)]
pub struct Engine {
    nodes: Vec<Node>,
    view: ClusterView,
    /// The system identifier of the first primary chosen.
    system: Option<u64>,
    /// The timeline of the present primary.
    timeline: Timeline,
    /// Several claim to be primary and none can be preferred.
    ambiguous: bool,
}

impl Engine {
    /// Nothing known; the first tick probes everyone. `nodes` must have distinct numbers.
    pub fn new(mut nodes: Vec<NodeSettings>, now: Instant) -> Self {
        nodes.sort_by_key(|node| node.id);
        let nodes: Vec<Node> = nodes.into_iter().map(|settings| Node::new(settings, now)).collect();
        let mut engine =
            Self { nodes, view: ClusterView::empty(), system: None, timeline: Timeline(0), ambiguous: false };
        engine.view = engine.make_view(None, Epoch(0), &engine.nodes.iter().map(|_| NOT_ASKED).collect::<Vec<_>>());
        engine
    }

    /// The present view.
    pub fn view(&self) -> &ClusterView {
        &self.view
    }

    /// When the next [`Event::Tick`] is due; `None` while every node has a probe under way.
    pub fn wakeup(&self) -> Option<Instant> {
        let due = |node: &Node| match node.probing {
            Probing::Idle { due } => Some(due),
            Probing::Flying { .. } => None,
        };
        self.nodes.iter().filter_map(due).min()
    }

    /// Other settings hold from now on. What is known of nodes that stay is kept; all probes under way are forgotten, so that the
    /// caller must not report them any more. A primary that is not among the nodes any more is none; the epoch stays.
    pub fn configure(&mut self, mut nodes: Vec<NodeSettings>, now: Instant) -> Vec<Action> {
        nodes.sort_by_key(|node| node.id);
        let mut old = std::mem::take(&mut self.nodes);
        let keep = |settings: NodeSettings| match old.iter().position(|node| node.settings.id == settings.id) {
            Some(at) => Node { settings, probing: Probing::Idle { due: now }, started: None, ..old.swap_remove(at) },
            None => Node { health: Health::Down { successes: 0, needed: 1 }, ..Node::new(settings, now) },
        };
        self.nodes = nodes.into_iter().map(keep).collect();
        self.view.primary = self.view.primary.filter(|id| self.nodes.iter().any(|node| node.settings.id == *id));
        let mut actions = Vec::new();
        self.judge(&mut actions);
        self.start_due(now, &mut actions);
        actions
    }

    /// Takes one event and says what to do.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Answered { node, asked, reading } => {
                if let Some(node) = self.node_mut(node) {
                    node.answered();
                    node.earlier = node.last.take();
                    node.last = Some(Seen { asked, answered: now, reading });
                    node.ended(now);
                }
            }
            Event::Failed { node, failure } => self.failed(node, failure, now, &mut actions),
            Event::Lost(node) => self.hurry(node, true, now),
            Event::Trouble(request) if request.epoch < self.view.epoch => {}
            Event::Trouble(request) => self.hurry(request.node, request.trouble != Trouble::NotPrimary, now),
            Event::Tick => {}
        }
        self.judge(&mut actions);
        self.start_due(now, &mut actions);
        actions
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.settings.id == id)
    }

    fn failed(&mut self, id: NodeId, failure: Failure, now: Instant, actions: &mut Vec<Action>) {
        let Some(node) = self.node_mut(id) else { return };
        if node.failure != Some(failure) {
            actions.push(Action::Note(Note::Failing(id, failure)));
        }
        node.failed(failure);
        node.ended(now);
    }

    fn hurry(&mut self, id: NodeId, fresh: bool, now: Instant) {
        if let Some(node) = self.node_mut(id) {
            node.hurry(fresh, now);
        }
    }

    fn start_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for node in &mut self.nodes {
            if !matches!(node.probing, Probing::Idle { due } if due <= now) {
                continue;
            }
            let fresh = node.until_fresh == 0;
            node.until_fresh = if fresh { FRESH_EVERY } else { node.until_fresh - 1 };
            node.probing = Probing::Flying { again: false };
            node.started = Some(now);
            actions.push(Action::Probe { node: node.settings.id, fresh });
        }
    }

    /// Chooses the primary, judges every node against it, and publishes what changed.
    fn judge(&mut self, actions: &mut Vec<Action>) {
        if self.nodes.iter().any(|node| node.health == Health::New) {
            return; // The first view waits for a first outcome of every node: the newer of two primaries may be the slower one.
        }
        let (primary, epoch) = self.choose(actions);
        let judgements = self.judge_nodes(primary, epoch);
        let view = self.make_view(primary, epoch, &judgements);
        self.publish(view, actions);
    }

    fn choose(&mut self, actions: &mut Vec<Action>) -> (Option<NodeId>, Epoch) {
        let any_fixed = self.nodes.iter().any(|node| node.settings.fixed == Fixed::Primary);
        let eligible = |fixed| fixed == Fixed::Primary || (fixed == Fixed::Auto && !any_fixed);
        let candidate = |node| {
            let Node { settings, last, .. }: &Node = node;
            let reading = &last.as_ref()?.reading;
            Some(Candidate { id: settings.id, eligible: eligible(settings.fixed), reading })
        };
        let candidates: Vec<Candidate<'_>> =
            self.nodes.iter().filter(|node| node.is_up()).filter_map(candidate).collect();
        let choice = choice::primary(&candidates, self.view.primary, self.system, self.timeline);
        let was_ambiguous = std::mem::replace(&mut self.ambiguous, choice == Choice::Ambiguous);
        if self.ambiguous && !was_ambiguous {
            actions.push(Action::Note(Note::Ambiguous));
        }
        let Choice::Node(id, timeline, system) = choice else { return (self.view.primary, self.view.epoch) };
        if self.view.primary == Some(id) && self.timeline == timeline {
            return (Some(id), self.view.epoch);
        }
        self.timeline = timeline;
        self.system = Some(system);
        let epoch = Epoch(self.view.epoch.0 + 1);
        actions.push(Action::Note(Note::Primary(id, epoch)));
        (Some(id), epoch)
    }

    fn judge_nodes(&mut self, primary: Option<NodeId>, epoch: Epoch) -> Vec<Judgement> {
        let readings =
            self.nodes.iter().filter(|node| node.is_up()).filter_map(|node| Some(&node.last.as_ref()?.reading));
        let consensus = choice::consensus(readings);
        let standing = Standing { epoch, timeline: self.timeline };
        let reference = primary.and_then(|id| self.nodes.iter().find(|node| node.settings.id == id));
        let primary_lives = reference.is_some_and(|node| node.is_up() && claims(node));
        let reference = reference.and_then(|node| node.last.clone());
        let court = choice::Court {
            primary,
            primary_lives,
            reference: reference.as_ref(),
            system: self.system,
            consensus: if self.ambiguous { None } else { consensus },
            standing,
        };
        let judge = |node: &mut Node| {
            let Some(seen) = node.last.as_ref().filter(|_| matches!(node.health, Health::Up { .. })) else {
                let unknown = if node.last.is_some() { "coming back" } else { NOT_ASKED.reason };
                return Judgement::down(node.failure.map_or(unknown, Failure::as_str));
            };
            if court.primary != Some(node.settings.id) {
                node.record.compare([Some(seen), node.earlier.as_ref()], court.reference);
            }
            let judgement = court.judge(node.settings.id, node.settings.fixed, seen, node.record);
            if judgement.proven {
                node.record.standing = Some(standing);
            }
            judgement
        };
        self.nodes.iter_mut().map(judge).collect()
    }

    fn make_view(&self, primary: Option<NodeId>, epoch: Epoch, judgements: &[Judgement]) -> ClusterView {
        let reference = primary.and_then(|id| self.nodes.iter().find(|node| node.settings.id == id));
        let reference = reference.and_then(|node| node.last.as_ref()).map(|seen| seen.reading.lsn);
        let nodes =
            self.nodes.iter().zip(judgements).map(|(node, judgement)| node_view(node, *judgement, reference, epoch));
        ClusterView {
            epoch,
            generation: self.view.generation,
            nodes: nodes.collect(),
            primary,
            writes: self.view.writes,
        }
    }

    fn publish(&mut self, mut view: ClusterView, actions: &mut Vec<Action>) {
        for new in &view.nodes {
            if self.view.node(new.id).is_none_or(|old| (old.status, old.reason) != (new.status, new.reason)) {
                actions.push(Action::Note(Note::Status(new.id, new.status, new.reason)));
            }
        }
        if view == self.view {
            return;
        }
        let matters = |node: &NodeView| (node.id, node.role, node.status, node.weight.to_bits());
        let same = (view.epoch, view.primary, view.writes) == (self.view.epoch, self.view.primary, self.view.writes)
            && view.nodes.iter().map(matters).eq(self.view.nodes.iter().map(matters));
        view.generation += u64::from(!same);
        self.view = view.clone();
        actions.push(Action::Publish(view));
    }
}

const NOT_ASKED: Judgement = Judgement::down("not asked yet");

fn claims(node: &Node) -> bool {
    node.last.as_ref().is_some_and(|seen| seen.reading.role == Role::Primary)
}

fn node_view(node: &Node, judgement: Judgement, reference: Option<Lsn>, epoch: Epoch) -> NodeView {
    let reading = node.last.as_ref().map(|seen| &seen.reading);
    let role = reading.map_or(Role::Unknown, |reading| reading.role);
    let position = node.last.as_ref().map(|Seen { asked, reading, .. }| Position {
        sample: Sample { asked: *asked, lsn: reading.lsn, epoch },
        received: reading.received,
        timeline: reading.timeline,
        streaming: reading.receiver == Receiver::Streaming,
    });
    let standby = reading.filter(|reading| reading.role == Role::Standby);
    let lag = standby.and_then(|reading| Some(reference?.0.saturating_sub(reading.lsn.0)));
    NodeView {
        id: node.settings.id,
        name: node.settings.name.clone(),
        role,
        status: judgement.status,
        weight: node.settings.weight,
        position,
        version: reading.map_or(0, |reading| reading.version),
        lag,
        delay: standby.and_then(|reading| reading.delay),
        reason: judgement.reason,
    }
}

#[cfg(test)]
mod tests;
