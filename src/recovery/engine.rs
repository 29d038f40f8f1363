//! The pure heart of online recovery: one node at a time, each step with a limit, given up when what it stands on is gone. Owner: the control
//! thread, through `runner`. No clock, no socket, no file: `step(event, now) -> actions`.
//!
//! ```text
//! asked ─▶ open (session on the primary, lock) ─▶ detach ─▶ copy ─▶ start ─▶ until it streams ─▶ attach ─▶ until it is used
//!                        └─ failed: as before      └─ failed, too late, another primary: it stays detached
//! ```
//! Before the copy has ended another primary makes the copy worthless; afterwards failover points the node at whoever leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{ClusterView, Epoch, Life, NodeId, NodeView, Role, Status};

/// A session on the primary, with the lock.
const OPENING: Duration = Duration::from_secs(10);
/// An order to `failover`.
const ORDERING: Duration = Duration::from_secs(10);

/// Who copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// pgpool's extension on the primary, in two calls: copy, start.
    Extension,
    /// A program on this host, which starts the node as well.
    Hook,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which node.
    pub node: NodeId,
    /// By which means; none are configured: it is refused.
    pub means: Option<Means>,
    /// Longest run of the copy.
    pub copy: Duration,
    /// From the end of the copy until the node is used.
    pub arrive: Duration,
}

/// One thing to do; one at a time, and exactly one [`Event::Done`] comes of each unless it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Open a session on the primary, take the lock of the node there, and look whether it has what it takes.
    Open {
        /// The node.
        node: NodeId,
        /// Where it is copied from.
        primary: NodeId,
        /// By which means.
        means: Means,
    },
    /// Tell `failover` that the node is out.
    Detach(NodeId),
    /// Rebuild the data folder; a hook starts the node, too.
    Copy {
        /// The node.
        node: NodeId,
        /// Where it is copied from.
        primary: NodeId,
        /// By which means.
        means: Means,
    },
    /// Start the node.
    Start(NodeId),
    /// Tell `failover` that it may be used.
    Attach(NodeId),
}

/// What the engine hears.
#[derive(Debug, Clone)]
pub enum Event {
    /// There is a new view.
    View(Arc<ClusterView>),
    /// Somebody wants a node rebuilt; a `Reply` with this number follows, at once or at the end.
    Begin(u64, Plan),
    /// The job has ended; what there is to say of it.
    Done(Result<String, String>),
    /// Time has come, see [`Engine::wakeup`].
    Tick,
}

/// What the engine wants of its runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Do this.
    Do(Job),
    /// Give up the job under way, if there is one; no answer follows.
    Cancel,
    /// The session on the primary is of no use any more, its lock neither.
    Close,
    /// For the event log.
    Note(Note),
    /// To whoever asked.
    Reply(u64, Result<String, String>),
}

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its name, for machines.
    pub event: &'static str,
    /// The node.
    pub node: NodeId,
    /// Why, or what.
    pub why: String,
    /// Since the recovery began.
    pub took: Duration,
    /// Somebody should look.
    pub bad: bool,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Opening,
    Detaching,
    Copying,
    Starting,
    Arriving,
    Attaching,
    Joining,
}

impl Step {
    /// For people.
    fn text(self) -> &'static str {
        match self {
            Self::Opening => "a session on the primary",
            Self::Detaching => "taking the node out",
            Self::Copying => "the copy",
            Self::Starting => "the start",
            Self::Arriving => "the wait until it streams from the primary",
            Self::Attaching => "attaching it",
            Self::Joining => "the wait until it is used",
        }
    }

    /// Its copy is of no use under another primary.
    fn needs_primary(self) -> bool {
        matches!(self, Self::Opening | Self::Detaching | Self::Copying | Self::Starting)
    }

    /// A job is under way.
    fn works(self) -> bool {
        !matches!(self, Self::Arriving | Self::Joining)
    }
}

/// A recovery under way.
#[derive(Debug)]
struct Work {
    asked: u64,
    plan: Plan,
    means: Means,
    primary: NodeId,
    epoch: Epoch,
    begun: Instant,
    step: Step,
    /// Since when this step.
    since: Instant,
    deadline: Instant,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Engine {
    view: Arc<ClusterView>,
    work: Option<Work>,
    out: Vec<Action>,
}

impl Default for Engine {
    fn default() -> Self {
        Self { view: Arc::new(ClusterView::empty()), work: None, out: Vec::new() }
    }
}

impl Engine {
    /// Takes one event and says what to do, in this order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::View(view) => self.view = view,
            Event::Begin(asked, plan) => self.begin(asked, plan, now),
            Event::Done(result) => self.done(result, now),
            Event::Tick => {}
        }
        self.look(now);
        std::mem::take(&mut self.out)
    }

    /// When the next [`Event::Tick`] is due, at the latest; none while nothing is under way.
    pub fn wakeup(&self) -> Option<Instant> {
        self.work.as_ref().map(|work| work.deadline)
    }

    /// What is under way, and since when, for people.
    pub fn status(&self) -> Option<(NodeId, &'static str, Instant)> {
        self.work.as_ref().map(|work| (work.plan.node, work.step.text(), work.since))
    }

    fn begin(&mut self, asked: u64, plan: Plan, now: Instant) {
        match self.may_begin(&plan) {
            Ok((means, primary)) => {
                let (node, epoch) = (plan.node, self.view.epoch);
                let work = Work {
                    asked,
                    plan,
                    means,
                    primary,
                    epoch,
                    begun: now,
                    step: Step::Opening,
                    since: now,
                    deadline: now + OPENING,
                };
                self.work = Some(work);
                self.note("recovery_begins", format!("from node {primary}"), now);
                self.out.push(Action::Do(Job::Open { node, primary, means }));
            }
            Err(why) => self.out.push(Action::Reply(asked, Err(why))),
        }
    }

    /// By which means, and from where.
    fn may_begin(&self, plan: &Plan) -> Result<(Means, NodeId), String> {
        let id = plan.node;
        if let Some(work) = &self.work {
            return Err(format!("a recovery of node {} is under way ({})", work.plan.node, work.step.text()));
        }
        let node = self.view.node(id).ok_or_else(|| format!("there is no node {id}"))?;
        let means =
            plan.means.ok_or("set recovery.command, or recovery.first_stage_command with pgpool's extension")?;
        if self.view.primary == Some(id) {
            return Err(format!("node {id} is the primary"));
        }
        if node.usable() {
            return Err(format!("node {id} is alive and used: detach it first"));
        }
        let leads = |node: &&NodeView| node.usable() && node.role == Role::Primary && self.view.writes.open();
        match self.view.primary_node().filter(leads) {
            Some(primary) => Ok((means, primary.id)),
            None => Err("there is no primary to copy from now, or it is being replaced: try again later".to_owned()),
        }
    }

    fn enter(&mut self, step: Step, limit: Duration, now: Instant) {
        if let Some(work) = self.work.as_mut() {
            (work.step, work.since, work.deadline) = (step, now, now + limit);
        }
    }

    fn done(&mut self, result: Result<String, String>, now: Instant) {
        let Some(work) = &self.work else { return };
        let (node, primary, means) = (work.plan.node, work.primary, work.means);
        let (step, copy, arrive, since) = (work.step, work.plan.copy, work.plan.arrive, work.since);
        let said = match result {
            Ok(said) => said,
            Err(why) => return self.fail(&format!("{} failed: {why}", step.text()), now),
        };
        match step {
            Step::Opening => {
                self.out.push(Action::Do(Job::Detach(node)));
                self.enter(Step::Detaching, ORDERING, now);
            }
            Step::Detaching => {
                self.out.push(Action::Do(Job::Copy { node, primary, means }));
                self.enter(Step::Copying, copy, now);
            }
            Step::Copying => {
                let divider = if said.is_empty() { "" } else { ": " };
                self.note("recovery_copied", format!("in {:.1} s{divider}{said}", (now - since).as_secs_f64()), now);
                match means {
                    Means::Extension => {
                        self.out.push(Action::Do(Job::Start(node)));
                        self.enter(Step::Starting, arrive, now);
                    }
                    Means::Hook => self.arrives(arrive, now),
                }
            }
            Step::Starting => self.arrives(arrive, now),
            Step::Attaching => self.enter(Step::Joining, arrive, now),
            Step::Arriving | Step::Joining => {}
        }
    }

    /// The node was started: nobody else needs to be kept away from it any more.
    fn arrives(&mut self, limit: Duration, now: Instant) {
        self.out.push(Action::Close);
        self.enter(Step::Arriving, limit, now);
        self.note("recovery_started", "it is to stream from the primary now".to_owned(), now);
    }

    /// What follows from the present world.
    fn look(&mut self, now: Instant) {
        let Some(work) = &self.work else { return };
        let (node, step, late, arrive) = (work.plan.node, work.step, now >= work.deadline, work.plan.arrive);
        if self.view.node(node).is_none() {
            return self.fail(&format!("node {node} is configured no more"), now);
        }
        if step.needs_primary() && (self.view.epoch != work.epoch || self.view.primary != Some(work.primary)) {
            let why = format!("node {} is the primary no more: begin again, from the new one", work.primary);
            return self.fail(&why, now);
        }
        let ready = match step {
            Step::Arriving => self.streams(node, work.since),
            Step::Joining => self.view.node(node).is_some_and(NodeView::usable),
            _ => false,
        };
        match step {
            Step::Arriving if ready => {
                self.out.push(Action::Do(Job::Attach(node)));
                self.enter(Step::Attaching, ORDERING.max(arrive), now);
            }
            Step::Joining if ready => self.succeed(now),
            _ if late => self.fail(&self.overdue(), now),
            _ => {}
        }
    }

    /// It has said, later than `since`, that it streams from the present primary, on its timeline (HA H10).
    fn streams(&self, id: NodeId, since: Instant) -> bool {
        let leads = |node: &&NodeView| node.role == Role::Primary && node.life == Life::Well;
        let Some(primary) = self.view.primary_node().filter(leads).and_then(|node| node.position.as_ref()) else {
            return false;
        };
        self.view.node(id).is_some_and(|node| {
            let fit = matches!(node.status, Status::Up | Status::Detached) && node.life == Life::Well;
            let follows = node.position.as_ref().is_some_and(|position| {
                let known = position.timeline.0 > 0 && position.timeline == primary.timeline;
                position.streaming && known && position.sample.asked > since
            });
            fit && follows && node.role == Role::Standby
        })
    }

    /// Why a step that takes too long is given up.
    fn overdue(&self) -> String {
        let Some(work) = &self.work else { return String::new() };
        let limit = work.deadline - work.since;
        let mut text = format!("{} was not over after {limit:?}", work.step.text());
        match work.step {
            Step::Copying if work.means == Means::Extension => {
                text += &format!(" (recovery.copy_timeout); its script may still run on node {}", work.primary);
            }
            Step::Copying => text += " (recovery.copy_timeout); it was ended",
            Step::Starting => text += " (recovery.timeout)",
            Step::Arriving | Step::Joining => {
                let reason = self.view.node(work.plan.node).map_or("", |node| node.reason);
                text += &format!(" (recovery.timeout): {reason}");
            }
            Step::Opening | Step::Detaching | Step::Attaching => {}
        }
        text
    }

    fn fail(&mut self, why: &str, now: Instant) {
        let Some(work) = &self.work else { return };
        let out =
            !matches!(work.step, Step::Opening) && self.view.node(work.plan.node).is_some_and(|node| !node.usable());
        let state = if out { format!("; node {} stays out", work.plan.node) } else { String::new() };
        let text = format!("{why}{state}");
        if work.step.works() {
            self.out.push(Action::Cancel);
        }
        self.note_as("recovery_failed", text.clone(), now, true);
        self.end(Err(text));
    }

    fn succeed(&mut self, now: Instant) {
        self.note("recovery_done", "it streams from the primary and is used".to_owned(), now);
        let node = self.work.as_ref().map_or(NodeId(0), |work| work.plan.node);
        self.end(Ok(format!("node {node} is recovered: it streams from the primary and is used")));
    }

    fn end(&mut self, result: Result<String, String>) {
        if let Some(work) = self.work.take() {
            self.out.push(Action::Close);
            self.out.push(Action::Reply(work.asked, result));
        }
    }

    fn note(&mut self, event: &'static str, why: String, now: Instant) {
        self.note_as(event, why, now, false);
    }

    fn note_as(&mut self, event: &'static str, why: String, now: Instant, bad: bool) {
        let Some(work) = &self.work else { return };
        let (node, took) = (work.plan.node, now.saturating_duration_since(work.begun));
        self.out.push(Action::Note(Note { event, node, why, took, bad }));
    }
}

#[cfg(test)]
mod tests;
