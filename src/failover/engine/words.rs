//! The words of the failover engine: what it hears, what it wants done, what it writes down. Values only.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::{Accord, ClusterView, Epoch, Lsn, NodeId, Ruling, Timeline};

/// The least that a CHECKPOINT is given while writes are held.
const SHORT_CHECKPOINT: Duration = Duration::from_secs(5);

/// Who promotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody.
    Never,
    /// `pg_promote()`.
    Builtin,
    /// `failover_command`.
    Command,
}

/// One node, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// What it may be.
    pub duty: Duty,
    /// The walreceiver's `application_name`, the word that `synchronous_standby_names` uses.
    pub application_name: String,
    /// Where others reach it, under every name that the configuration has for it.
    pub addresses: Vec<(String, u16)>,
}

/// What the configuration lets a node be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Primary or standby.
    Any,
    /// Never primary.
    Standby,
    /// It keeps its role, whatever happens: `DISALLOW_TO_FAILOVER`, `ALWAYS_PRIMARY`, `role = "primary"`, and `role = "standby"` beside
    /// such a primary.
    Fixed,
}

/// A hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hook {
    /// `failover_command`.
    Failover,
    /// `follow_primary_command`.
    Follow,
    /// `failback_command`.
    Failback,
    /// `fence_command`.
    Fence,
    /// `demote_command`.
    Demote,
}

impl Hook {
    /// The parameter that sets it.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Failover => "failover_command",
            Hook::Follow => "follow_primary_command",
            Hook::Failback => "failback_command",
            Hook::Fence => "fence_command",
            Hook::Demote => "demote_command",
        }
    }
}

/// Who must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nobody.
    Alone,
    /// Partner proxies: whoever leads them acts, and nobody before they have agreed.
    Partners,
}

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who promotes.
    pub mode: Mode,
    /// The nodes.
    pub members: Vec<Member>,
    /// How long statements are held before they are refused at once.
    pub hold_timeout: Duration,
    /// Bytes that a standby may lack; none: any.
    pub max_lag: Option<u64>,
    /// Promote even if acknowledged commits may be lost.
    pub allow_data_loss: bool,
    /// Whether a new primary without enough synchronous standbys is relaxed (HA H9).
    pub relax_sync: bool,
    /// A failing `fence_command` stops the failover.
    pub fence: FenceRule,
    /// The hooks that are set.
    pub hooks: BTreeSet<Hook>,
    /// The longest run of a hook.
    pub hook_timeout: Duration,
    /// Standbys that have died are attached again once they stream, not twice within this time; none: by an operator alone.
    pub auto_failback: Option<Duration>,
    /// Who must agree.
    pub company: Company,
    /// How long a switch-over waits for the transactions that are open when it begins; then it is given up.
    pub drain: Duration,
}

impl Settings {
    /// How long a job may take; the runner keeps to it.
    pub fn limit(&self, job: &Job) -> Duration {
        let seconds = match job {
            Job::Barrier | Job::Consent { planned: false, .. } | Job::Record(_) | Job::Fence(_) | Job::Resume => 2,
            Job::Consent { planned: true, .. } => 9,
            Job::Opinions(_) | Job::Restore(_) | Job::Relax(_) => 3,
            Job::Recruit { .. } => 4,
            Job::Follow { .. } => 5,
            Job::Promote { .. } => 5,
            Job::CatchUp { .. } => 30,
            Job::Drain(_) => return self.drain,
            Job::Ready(_) => 300,
            // Writes are held.
            Job::Checkpoint { .. } => return self.hold_timeout.max(SHORT_CHECKPOINT),
            Job::Await(_) => return self.hook_timeout,
            // Each lock is looked at before, for a second at the most.
            Job::Hook { locks, .. } => return self.hook_timeout + Duration::from_secs(locks.len() as u64),
        };
        Duration::from_secs(seconds)
    }
}

/// What a failing `fence_command` does (HA H8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceRule {
    /// It stops the failover.
    Required,
    /// It is an event.
    BestEffort,
}

/// What must survive the process: written and synced before the effect that it announces (HA H13).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// The epoch of the newest view that was obeyed.
    pub epoch: u64,
    /// Attempts so far, for the numbers of hooks.
    pub attempts: u64,
    /// The primary of that epoch: a process that starts while it is dead knows whom to replace.
    pub primary: Option<u16>,
    /// Its timeline.
    pub timeline: u32,
    /// Its system identifier; 0 if unknown.
    pub system: u64,
    /// Its `synchronous_standby_names`.
    pub synchronous: String,
    /// Taken out by an operator. What is merely down is not here: down is not sticky.
    pub detached: Vec<u16>,
    /// Fenced behind a promotion that may have happened: never primary, until they answer as standbys and are attached.
    pub condemned: Vec<u16>,
    /// The candidate that was fenced last, and the timeline that it was to leave; nobody has been primary instead since.
    pub fenced: Option<(u16, u32)>,
    /// Standbys that may bear our marker instead of their own `primary_conninfo`.
    pub recruited: Vec<u16>,
    /// Standbys that must follow the present primary and have not been told yet.
    pub following: Vec<u16>,
    /// For which of these `follow_primary_command` was started: it runs at most once by itself.
    pub hooked: Vec<u16>,
    /// Who was replaced last, and by which attempt.
    pub leader: Option<(u16, u64)>,
    /// The primary that was stopped for a switch-over: if it comes back as a standby, somebody has to be promoted.
    pub demoted: Option<u16>,
    /// `failover_command` was told to promote this node, whose postmaster had been started then, and it may still happen (HA H7).
    pub promised: Option<(u16, i64)>,
    /// The old primary was back since: who was promised lacks what it has written, and is not believed to be primary.
    pub late: bool,
    /// The primary for whose replacement `failover_command` was started: it is not started again by itself.
    pub spent: Option<u16>,
    /// What is under way.
    pub intent: Option<Intent>,
    /// Hooks that may have been started, and whose end is not written down.
    pub begun: Vec<Begun>,
    /// With partner proxies: standbys that have died and wait to be attached.
    pub fallen: Vec<u16>,
}

/// One run of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Which.
    pub hook: Hook,
    /// The node that it is about.
    pub node: u16,
    /// `PGHERD_FAILOVER_ID`.
    pub id: u64,
}

/// A failover or switch-over under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its number, `PGHERD_FAILOVER_ID` of its hooks.
    pub id: u64,
    /// The epoch that it leads to.
    pub epoch: u64,
    /// The primary that is replaced.
    pub old: u16,
    /// Its timeline.
    pub timeline: u32,
    /// How far it has come.
    pub step: IntentStep,
    /// Who takes over, once chosen.
    pub candidate: Option<u16>,
    /// Switch-over: what the candidate must have received.
    pub stopped_at: u64,
    /// When the candidate's postmaster had been started, as [`Standing::started`].
    pub started: i64,
    /// What is known of the hooks.
    pub hooks: HookState,
}

/// How hooks took part in a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HookState {
    /// `failover_command` promotes.
    pub promotes: bool,
    /// `fence_command` was started for the candidate, which had died.
    pub fenced: bool,
}

/// The steps that are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntentStep {
    /// Nothing was done that cannot be undone.
    Preparing,
    /// Switch-over: the old primary is being stopped.
    Demoting,
    /// The candidate is being promoted: there is no way back (HA H7).
    Promoting,
}

/// The number of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What the engine wants done; exactly one [`Event::Done`] must come of each, unless the process ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// All data threads acknowledge that they have seen the present ruling.
    Barrier,
    /// `cluster::Consensus` is asked for leave to replace this primary.
    Consent {
        /// Whom.
        node: NodeId,
        /// An operator wants it, or it is primary no more: it need not be dead.
        planned: bool,
    },
    /// What leave was given for does not happen.
    Resume,
    /// All standbys are asked how their WAL receivers are doing (HA H2).
    Opinions(Vec<NodeId>),
    /// Take the advisory lock of this standby and, unless `lock_only`, stop its WAL receiver (HA H5); then read its position twice.
    Recruit {
        /// Which standby.
        node: NodeId,
        /// For the marker.
        epoch: Epoch,
        /// Leave the WAL receiver alone: somebody else promotes.
        lock_only: bool,
    },
    /// Take our marker from a node's `primary_conninfo`, if it is there, and give its lock back.
    Restore(NodeId),
    /// Close every server connection to this node on all data threads, and let no later answer through (HA H8).
    Fence(NodeId),
    /// Run a hook once.
    Hook {
        /// Which.
        hook: Hook,
        /// The node that it is about: `%d`.
        node: NodeId,
        /// The primary before: `%P`.
        old: NodeId,
        /// The primary now or to be: `%m`; none: `-1`.
        new: Option<NodeId>,
        /// `PGHERD_FAILOVER_ID`.
        id: u64,
        /// Whose locks must still be held by us, or it is not started: those of the recruits, if it promotes one of them.
        locks: Vec<NodeId>,
    },
    /// Write this and sync it.
    Record(Box<Journal>),
    /// Promote. The locks of all `recruits` must still be held by us, or it is not sent.
    Promote {
        /// Who.
        node: NodeId,
        /// Whose locks were taken.
        recruits: Vec<NodeId>,
        /// `pg_promote()` may have been sent before, to the postmaster that was started then: send it again if it is still in
        /// recovery and has not been restarted (HA H7).
        again: Option<i64>,
    },
    /// Wait until this node says that it is primary: a hook promotes it.
    Await(NodeId),
    /// Point a standby at the new primary (HA H11), take our marker away and give its lock back.
    Follow {
        /// Which standby.
        node: NodeId,
        /// Whom it follows.
        primary: NodeId,
        /// Who was followed before.
        old: NodeId,
    },
    /// Empty `synchronous_standby_names` of this primary.
    Relax(NodeId),
    /// Wait until no transaction of ours is open on this node.
    Drain(NodeId),
    /// `CHECKPOINT` there, while nothing is held yet: the one behind it takes no longer than what was written meanwhile.
    Ready(NodeId),
    /// `CHECKPOINT` there, prepare it to follow the other node, and say how far it has written.
    Checkpoint {
        /// The old primary.
        node: NodeId,
        /// Whom it shall follow.
        follow: NodeId,
    },
    /// Wait until the standby has received and replayed what the old primary wrote before it stopped, and its end.
    CatchUp {
        /// The standby.
        node: NodeId,
        /// The old primary.
        old: NodeId,
        /// How far it had written before it was told to stop.
        lsn: Lsn,
    },
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// To `Consent`: in this epoch, if partner proxies count them.
    Granted(Epoch),
    /// It was not, or nobody knows; the text is for people.
    Failed(String),
    /// To `Opinions`: those who could be asked.
    Opinions(Vec<(NodeId, Opinion)>),
    /// To `Recruit`.
    Recruited(Standing),
    /// To `Promote` and `Await`: it is primary now, on that timeline.
    Promoted(Timeline),
    /// To `Promote`: `pg_promote()` was certainly not sent by this job. To `Hook`: it could not be started.
    NotSent(String),
    /// To `Promote` and to a hook that promotes: nothing was sent or started, since the lock of a recruit was lost.
    LockLost(NodeId),
    /// To `Promote` and `Await`: sent or not, it is still in recovery, or does not answer.
    Late(String),
    /// To `Promote` with `again`: it was restarted since it was recruited and is in recovery: what was sent is forgotten.
    Restarted,
    /// To `Checkpoint`.
    Position(Lsn),
}

/// A standby's WAL receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// Whom it receives from.
    pub sender: (String, u16),
    /// How long ago its newest message came, by its own clock; from the moment when the answer arrived here.
    pub age: Duration,
}

/// How far a recruited standby has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The timeline that it has received from.
    pub timeline: Timeline,
    /// The greater one of received and replayed (HA H6).
    pub lsn: Lsn,
    /// Replayed.
    pub replayed: Lsn,
    /// When its postmaster was started, in microseconds since 1970 by its own clock: another value means that it forgot what it was told.
    pub started: i64,
    /// Replay is paused or delayed on purpose.
    pub slow: bool,
}

/// What the engine hears.
#[derive(Debug, Clone)]
pub enum Event {
    /// There is a new view.
    View(std::sync::Arc<ClusterView>),
    /// A job has ended.
    Done(Ticket, Outcome),
    /// What partner proxies have agreed on.
    Accord(Accord),
    /// An operator wants something; a `Reply` follows, at once or at the end.
    Order(Ticket, Order),
    /// Other settings hold.
    Configure(Settings),
    /// Time has come, see [`Engine::wakeup`](super::Engine::wakeup).
    Tick,
}

/// What an operator may want (HA H25).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Use this node no more.
    Detach(NodeId),
    /// Use it again.
    Attach(NodeId),
    /// The primary is dead and this node shall replace it, whatever `promote` says and however few could be recruited.
    Promote(NodeId),
    /// Move the primary's role, to this node or to the best.
    SwitchOver(Option<NodeId>),
}

/// What the engine wants of its runner.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Do this.
    Do(Ticket, Job),
    /// This holds from now on; before any job that stands behind it.
    Rule(Ruling),
    /// For the event log.
    Note(Note),
    /// These jobs, and the locks of recruits, are given up: somebody else acts now.
    Drop(Vec<Ticket>),
    /// To whoever gave the order.
    Reply(Ticket, Result<String, String>),
}

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its name, for machines.
    pub event: &'static str,
    /// The node that it is about.
    pub node: Option<NodeId>,
    /// From whom the role goes.
    pub from: Option<NodeId>,
    /// To whom.
    pub to: Option<NodeId>,
    /// The epoch.
    pub epoch: Epoch,
    /// Why, or what.
    pub why: String,
    /// Since the failover or the outage began.
    pub took: Duration,
}
