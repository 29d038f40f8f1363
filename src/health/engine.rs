//! The pure heart of health: when to probe whom, what failures in a row mean, and the view that follows. Owner: the
//! control thread, through `runner`. `step(event, now) -> actions`; no clock, no socket, nobody promoted here.

mod probed;
mod shown;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choice::{self, Candidate, Choice, Judgement, Record, Seen, Standing};
use super::reading::{Failure, Reading, Receiver};
use crate::cluster::{
    ClusterView, Epoch, FailoverRequest, History, Mandate, NodeId, NodeView, Role, Ruling, Status, Timeline, Trouble,
};
use probed::{Health, Node, Probing};
pub use shown::STALE_PERIODS;

/// Two probes of one node start at least this far apart, whatever sessions report.
pub const MIN_GAP: Duration = Duration::from_millis(100);

/// Every so many probes a new connection is made, because a connection that lives says nothing about the postmaster: stopped,
/// it takes no new one while its old backends go on answering.
pub const FRESH_EVERY: u32 = 10;

/// A probe comes earlier than its period says by up to this share of it, each time another one, so that nodes of the same period, and
/// several proxies, do not ask in step for ever. Never later: bounds are counted with the period (HA H1).
pub const EARLY: f64 = 0.1;

/// A probe without an outcome for so long makes its node suspect (HA H1).
pub const OVERDUE: Duration = Duration::from_millis(300);

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
    /// What `failover` has decided, to be laid over the next view.
    Ruling(Ruling),
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
    /// Nothing keeps us from asking a living server any more.
    Asked(NodeId),
    /// The primary is another one now.
    Primary(NodeId, Epoch),
    /// Several servers say that they are primary and none can be preferred: nobody is.
    Ambiguous,
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
    /// Where that timeline comes from, once known.
    history: Option<Arc<History>>,
    /// Several claim to be primary and none can be preferred.
    ambiguous: bool,
    /// The newest word of `failover`.
    ruling: Ruling,
    /// The primary's `synchronous_standby_names`.
    synchronous: Arc<str>,
    /// The time of the last step.
    seen: Instant,
    /// Tells this engine's moments of probing from another one's.
    seed: u64,
}

impl Engine {
    /// Nothing known; the first tick probes everyone. `nodes` must have distinct numbers; `seed` may be any number, and decides by how
    /// much probes come before their period is over.
    pub fn new(mut nodes: Vec<NodeSettings>, seed: u64, now: Instant) -> Self {
        nodes.sort_by_key(|node| node.id);
        let nodes: Vec<Node> = nodes.into_iter().map(|settings| Node::new(settings, seed, now)).collect();
        let mut engine = Self {
            nodes,
            view: ClusterView::empty(),
            system: None,
            timeline: Timeline(0),
            history: None,
            ambiguous: false,
            ruling: Ruling::default(),
            synchronous: Arc::default(),
            seen: now,
            seed,
        };
        let judgements = vec![NOT_ASKED; engine.nodes.len()];
        engine.view = engine.make_view(None, Epoch(0), &judgements, now);
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
            // Once late it is known to be.
            Probing::Flying { .. } => node.overdue().filter(|late| *late > self.seen),
        };
        let stale = |node: &Node| node.stale_at().filter(|stale| *stale > self.seen);
        self.nodes.iter().flat_map(|node| [due(node), stale(node)]).flatten().min()
    }

    /// Other settings hold from now on. What is known of nodes that stay is kept; all probes under way are forgotten, so that the
    /// caller must not report them any more. A primary that is not among the nodes any more is none; the epoch stays.
    pub fn configure(&mut self, mut nodes: Vec<NodeSettings>, now: Instant) -> Vec<Action> {
        nodes.sort_by_key(|node| node.id);
        let mut old = std::mem::take(&mut self.nodes);
        let keep = |settings: NodeSettings| match old.iter().position(|node| node.settings.id == settings.id) {
            Some(at) => Node { settings, probing: Probing::Idle { due: now }, started: None, ..old.swap_remove(at) },
            None => Node { health: Health::Down { successes: 0, needed: 1 }, ..Node::new(settings, self.seed, now) },
        };
        self.nodes = nodes.into_iter().map(keep).collect();
        self.view.primary = self.view.primary.filter(|id| self.nodes.iter().any(|node| node.settings.id == *id));
        let mut actions = Vec::new();
        self.judge(now, &mut actions);
        self.start_due(now, &mut actions);
        actions
    }

    /// Takes one event and says what to do.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Answered { node, asked, reading } => {
                self.answered(node, Seen { asked, answered: now, reading }, &mut actions);
            }
            Event::Failed { node, failure } => self.failed(node, failure, now, &mut actions),
            Event::Lost(node) => self.hurry(node, true, now),
            Event::Trouble(request) if request.epoch < self.view.epoch => {}
            Event::Trouble(request) => self.hurry(request.node, request.trouble != Trouble::NotPrimary, now),
            Event::Ruling(ruling) => {
                if self.view.primary.is_none() {
                    self.timeline = self.timeline.max(ruling.timeline);
                }
                self.ruling = ruling;
            }
            Event::Tick => {}
        }
        self.judge(now, &mut actions);
        self.start_due(now, &mut actions);
        actions
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.settings.id == id)
    }

    fn answered(&mut self, id: NodeId, seen: Seen, actions: &mut Vec<Action>) {
        let Some(node) = self.node_mut(id) else { return };
        let (before, now) = (node.hindrance(), seen.answered);
        node.learn(seen);
        node.ended(now);
        actions.extend(match node.hindrance() {
            hindrance if hindrance == before => None,
            Some(failure) => Some(Action::Note(Note::Failing(id, failure))),
            None => Some(Action::Note(Note::Asked(id))),
        });
    }

    fn failed(&mut self, id: NodeId, failure: Failure, now: Instant, actions: &mut Vec<Action>) {
        let Some(node) = self.node_mut(id) else { return };
        if node.failure.or(node.hindrance()) != Some(failure) {
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
    fn judge(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.seen = now;
        if self.nodes.iter().any(|node| node.health == Health::New) {
            return; // The first view waits for a first outcome of every node: the newer of two primaries may be the slower one.
        }
        let (primary, epoch) = self.choose(actions);
        let reading = primary.and_then(|id| self.nodes.iter().find(|node| node.settings.id == id)?.last.as_ref());
        if let Some(names) = reading.and_then(|seen| seen.reading.synchronous.clone())
            && *names != *self.synchronous
        {
            self.synchronous = names;
        }
        let told = reading.and_then(|seen| seen.reading.history.clone());
        self.history = told.filter(|history| history.timeline() == self.timeline).or(self.history.take());
        let judgements = self.judge_nodes(primary, epoch);
        let view = self.make_view(primary, epoch, &judgements, now);
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
        let only = match self.ruling.mandate {
            Mandate::Only(only, _) => Some(only),
            Mandate::Free => None,
        };
        let served = |node: &&Node| {
            let id = node.settings.id;
            let rival = node.record.rival && only != Some(id) && self.view.primary != Some(id);
            node.is_up() && !rival && !self.ruling.detached.contains(&id)
        };
        let candidates: Vec<Candidate<'_>> = self.nodes.iter().filter(served).filter_map(candidate).collect();
        let choice =
            choice::primary(&candidates, self.view.primary, self.system, (self.timeline, self.known_history()));
        let (choice, least) = self.mandated(choice, &candidates);
        let was_ambiguous = std::mem::replace(&mut self.ambiguous, choice == Choice::Ambiguous);
        if self.ambiguous && !was_ambiguous {
            actions.push(Action::Note(Note::Ambiguous));
        }
        let floor = self.view.epoch.max(self.ruling.epoch);
        let Choice::Node(id, timeline, system) = choice else { return (self.view.primary, floor) };
        if self.view.primary == Some(id) && self.timeline == timeline {
            return (Some(id), floor);
        }
        self.timeline = timeline;
        self.system = Some(system);
        // Each promotion makes both greater by one: without a memory of epochs the timeline says how many there were at least (HA H13).
        let counted = Epoch(floor.0 + 1).max(Epoch(u64::from(timeline.0)));
        // A candidate that partners never agreed on may have been seen in a later epoch than the one that they go back to.
        let epoch = if self.ruling.agreed { self.ruling.epoch } else { counted }.max(least);
        actions.push(Action::Note(Note::Primary(id, epoch)));
        (Some(id), epoch)
    }

    /// Of the present primary's timeline.
    fn known_history(&self) -> Option<&History> {
        self.history.as_deref().filter(|history| history.timeline() == self.timeline)
    }

    /// The choice as `failover` allows it, and the least epoch for it. One that was promoted on purpose takes the place of a primary
    /// that has come back meanwhile.
    fn mandated(&self, choice: Choice, candidates: &[Candidate<'_>]) -> (Choice, Epoch) {
        let Mandate::Only(only, epoch) = self.ruling.mandate else {
            return (self.expected(candidates).unwrap_or(choice), Epoch(0));
        };
        // Whatever this proxy has seen of a candidate that partners never agreed on.
        let agreed = self.ruling.agreed && self.ruling.primary == Some(only);
        let ours = |node: &&Candidate<'_>| {
            node.id == only
                && node.reading.role == Role::Primary
                && self.system.is_none_or(|system| system == node.reading.system)
                && (agreed && node.reading.timeline >= self.ruling.timeline
                    || match self.view.primary {
                        Some(primary) if primary != only => node.reading.timeline > self.timeline,
                        _ => node.reading.timeline >= self.timeline,
                    })
        };
        match candidates.iter().find(ours) {
            Some(node) => (Choice::Node(only, node.reading.timeline, node.reading.system), epoch),
            None => (Choice::Unchanged, epoch),
        }
    }

    /// At the first choice: the primary of the last epoch, if it still is one and no standby has gone over to another.
    fn expected(&self, candidates: &[Candidate<'_>]) -> Option<Choice> {
        let expected = self.ruling.primary.filter(|_| self.view.primary.is_none())?;
        let Candidate { id, reading, .. } = candidates.iter().find(|node| node.id == expected && node.eligible)?;
        let gone = |node: &&Candidate<'_>| {
            node.reading.role == Role::Standby
                && node.reading.system == reading.system
                && node.reading.timeline > reading.timeline
        };
        let stays = reading.role == Role::Primary && reading.timeline >= self.ruling.timeline;
        let alone = candidates.iter().find(gone).is_none();
        (stays && alone).then_some(Choice::Node(*id, reading.timeline, reading.system))
    }

    fn judge_nodes(&mut self, primary: Option<NodeId>, epoch: Epoch) -> Vec<Judgement> {
        let readings =
            self.nodes.iter().filter(|node| node.is_up()).filter_map(|node| Some(&node.last.as_ref()?.reading));
        let consensus = choice::consensus(readings);
        let standing = Standing { epoch, timeline: self.timeline };
        let reference = primary.and_then(|id| self.nodes.iter().find(|node| node.settings.id == id));
        let primary_lives = reference.is_some_and(|node| node.is_up() && claims(node));
        let reference = reference.and_then(|node| node.last.clone());
        let history = self.history.clone().filter(|history| history.timeline() == self.timeline);
        let court = choice::Court {
            primary,
            primary_lives,
            reference: reference.as_ref(),
            system: self.system,
            consensus: if self.ambiguous { None } else { consensus },
            standing,
            history: history.as_deref(),
            appointed: self.nodes.iter().any(|node| node.settings.fixed == Fixed::Primary),
        };
        let Ruling { detached, fallen, .. } = &self.ruling;
        let judge = |node: &mut Node| {
            let Some(seen) = node.last.as_ref().filter(|_| matches!(node.health, Health::Up { .. })) else {
                let unknown = if node.last.is_some() { "coming back" } else { NOT_ASKED.reason };
                return Judgement::down(node.failure.map_or(unknown, Failure::as_str));
            };
            let claims = seen.reading.role == Role::Primary && court.primary != Some(node.settings.id);
            let later = |primary: &Seen| court.primary_lives && primary.asked >= seen.answered;
            // A former primary that follows it has nothing that it lacks.
            let followed = |primary: &Seen| {
                primary.reading.role == Role::Standby && primary.reading.timeline >= seen.reading.timeline
            };
            let rival = node.record.rival || court.reference.is_some_and(later);
            node.record.rival = claims && rival && !court.reference.is_some_and(followed);
            if court.primary != Some(node.settings.id) {
                node.record.compare([Some(seen), node.earlier.as_ref()], court.reference);
            }
            node.record.strayed = court.strayed(&seen.reading, node.record.strayed);
            node.copy = court.is_copy(node.settings.id, node.settings.fixed, &seen.reading);
            let judgement = court.judge(node.settings.id, node.settings.fixed, seen, node.record);
            if judgement.proven {
                node.record.standing = Some(standing);
            }
            match node.settings.id {
                id if detached.contains(&id) => Judgement::DETACHED,
                id if fallen.contains(&id) && court.primary != Some(id) && judgement.status == Status::Up => {
                    Judgement::WAITS
                }
                _ => judgement,
            }
        };
        self.nodes.iter_mut().map(judge).collect()
    }

    fn publish(&mut self, mut view: ClusterView, actions: &mut Vec<Action>) {
        for new in &view.nodes {
            let same = |old: &NodeView| old.status == new.status && (old.reason == new.reason || new.usable());
            // What keeps us from asking one that is used has a note of its own.
            if self.view.node(new.id).is_none_or(|old| !same(old)) {
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

#[cfg(test)]
pub(in crate::health) mod tests;
