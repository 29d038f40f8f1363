//! The pure heart of failover: what to do when a primary dies, one decision at a time, re-evaluated whenever the world changes.
//! Owner: the control thread, through `runner`. No clock, no socket, no file: `step(event, now) -> actions`.
//!
//! ```text
//! watching ── primary late ──▶ writes held ── dead ──▶ run: barrier → consent → second opinion → intent → recruit
//!    ▲                            │ answers              → fence → choose → intent → PROMOTE → settle → follow → release
//!    └────────────────────────────┴────── undone ◀── anything before PROMOTE │ nothing behind it goes back (HA H7)
//! ```
//! A run that cannot go on before the promotion is given up: what it recruited is restored by chores, and it is tried again. Behind
//! the promotion there is only forward. What a process leaves behind when it dies, the next one finds in the journal (HA H13).

mod absent;
pub mod choice;
mod chores;
mod configured;
mod hooks;
mod opinion;
mod partners;
mod planned;
mod promotion;
mod run;
mod seen;
mod step;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{
    Accord, ClusterView, Epoch, History, Hold, Life, Mandate, NodeId, NodeView, Role, Ruling, Succession, Timeline,
    Writes,
};
use run::{Kind, Run};
pub use words::{
    Action, Begun, Company, Duty, Event, FenceRule, Hook, Intent, IntentStep, Job, Journal, Member, Mode, Note,
    Opinion, Order, Outcome, Settings, Standing, Ticket,
};

/// Between two attempts; grows up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A journal that nobody waits for.
const STATE: &str = "state";
/// A journal that could not be written is tried again.
const REWRITE: Duration = Duration::from_secs(5);

/// Why a job was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The present step of the run.
    Step,
    /// The present step, or one that was given up: what it does is waited for.
    Demote,
    /// A switch-over that was ordered begins when it is done.
    Ready(Ticket, Option<NodeId>),
    /// One of several of the recruiting step.
    Recruit(NodeId),
    /// A chore.
    Restore(NodeId),
    /// A chore.
    Follow(NodeId),
    /// Connections to the old primary after an adoption.
    Close,
    /// Partners are asked for an epoch in which this node is the primary.
    Claim(NodeId),
    /// A run that was given up since has waited for it; it goes on until somebody else leads.
    GivenUp,
    /// The same of partners who were asked for leave.
    Unwanted,
    /// A journal that a hook waits for.
    Announce,
    /// Nobody waits for it, but it is told if it fails.
    Aside(&'static str),
}

/// A primary that is dead, as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outage {
    since: Instant,
    /// When the next attempt may begin.
    retry: Instant,
    attempts: u32,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    view: Arc<ClusterView>,
    /// The least epoch: those up to it may have been used by processes before.
    floor: Epoch,
    journal: Journal,
    run: Option<Box<Run>>,
    outage: Option<Outage>,
    /// Since when writes are held.
    held: Option<Instant>,
    pending: BTreeMap<Ticket, (Purpose, Instant)>,
    next: u64,
    ruling: Ruling,
    /// Nodes whose `primary_conninfo` has not been looked at since the start.
    unseen: BTreeSet<NodeId>,
    /// When a chore that failed may be tried again.
    pauses: BTreeMap<NodeId, Instant>,
    /// Hooks that wait for the journal to say that they were started: none is run twice.
    hooks: BTreeMap<Ticket, Job>,
    /// Hooks that run.
    working: BTreeMap<Ticket, Begun>,
    /// When nodes that say that they are primary, and are not obeyed, were first seen.
    rivals: BTreeMap<NodeId, Instant>,
    /// Standbys that have died.
    absent: absent::Absent,
    /// An operator has chosen this one of two that say that they are primary.
    obeyed: Option<NodeId>,
    /// When the primary was stopped for a switch-over: what was read from it before does not count.
    stopped: Option<Instant>,
    /// How long a `demote_command` that the process before, or the leader before, has left behind may still work.
    inherited: Option<Instant>,
    /// The candidate that was fenced behind its promotion and let back.
    lifted: Option<NodeId>,
    /// When the journal is to be written again, after a failure.
    rewrite: Option<Instant>,
    /// What partner proxies have agreed on; none: there are none.
    accord: Option<Accord>,
    /// When the next attempt to agree on a primary that somebody else promoted may begin.
    claim: Instant,
    /// Partners were asked for leave, and may have stopped writing for it.
    asked: bool,
    /// Connections to a primary that somebody else has replaced are being closed.
    closing: Option<Ticket>,
    /// Where the last primary's timeline comes from.
    history: Option<Arc<History>>,
    /// How the present primary came by its role.
    succession: Option<Succession>,
    /// The partners have agreed on another primary than this one: how that came by its role is not known yet.
    replaced: Option<promotion::Replaced>,
    /// The last reason why nothing was done, so that it is told once.
    told: String,
    out: Vec<Action>,
}

impl Engine {
    /// Takes up what the journal of the process before says: what was not promoted yet is undone, what was is brought to its end.
    pub fn new(settings: Settings, journal: Journal, now: Instant) -> Self {
        let unseen = settings.members.iter().map(|member| member.id).collect();
        let inherited = journal.demoted.map(|_| now + settings.hook_timeout);
        let mut engine = Self {
            settings,
            view: Arc::new(ClusterView::empty()),
            floor: Epoch(journal.epoch),
            journal,
            run: None,
            outage: None,
            held: None,
            pending: BTreeMap::new(),
            next: 1,
            ruling: Ruling::default(),
            unseen,
            pauses: BTreeMap::new(),
            hooks: BTreeMap::new(),
            working: BTreeMap::new(),
            stopped: None,
            inherited,
            lifted: None,
            rivals: BTreeMap::new(),
            absent: absent::Absent::default(),
            obeyed: None,
            rewrite: None,
            accord: None,
            claim: now,
            asked: false,
            closing: None,
            history: None,
            succession: None,
            replaced: None,
            told: String::new(),
            out: Vec::new(),
        };
        if engine.settings.company == Company::Partners {
            // Whoever leads takes it up.
            (engine.accord, engine.floor) = (Some(Accord::default()), Epoch(0));
        } else {
            engine.tell_unknown_hooks();
            engine.resume(now);
            engine.journal.epoch += 1;
            engine.record(now);
        }
        engine.ruling = engine.make_ruling(now);
        engine
    }

    /// What holds before the first view.
    pub fn ruling(&self) -> &Ruling {
        &self.ruling
    }

    /// What is, or is about to be, on disk.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Nothing is under way, but that writes may wait for synchronous standbys.
    pub fn at_rest(&self) -> bool {
        let run = self.run.as_ref().is_none_or(|run| run.step == run::Step::Satisfying);
        run && (self.run.is_some() || self.outage.is_none()) && self.journal.recruited.is_empty()
    }

    /// How long a job may take; see [`Settings::limit`].
    pub fn limit_of(&self, job: &Job) -> Duration {
        self.settings.limit(job)
    }

    /// When the next [`Event::Tick`] is due, at the latest.
    pub fn wakeup(&self, now: Instant) -> Instant {
        let deadlines = self.pending.values().map(|(_, deadline)| *deadline);
        let timers = [
            self.run.as_ref().and_then(|run| run.timer),
            self.outage.map(|outage| outage.retry).filter(|_| self.run.is_none()),
            self.rewrite,
            Some(self.claim),
            self.held.map(|since| since + self.settings.hold_timeout),
        ];
        let all = deadlines.chain(timers.into_iter().flatten()).chain(self.pauses.values().copied());
        all.filter(|at| *at > now).min().unwrap_or(now + LONGEST_PAUSE)
    }

    /// Takes one event and says what to do, in this order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::View(view) => self.see(view, now),
            Event::Done(ticket, outcome) => self.done(ticket, outcome, now),
            Event::Accord(accord) => self.agree(accord, now),
            Event::Order(ticket, order) => self.order(ticket, order, now),
            Event::Configure(settings) => self.configure(settings, now),
            Event::Tick => {}
        }
        self.expire(now);
        self.drive(now);
        self.look_after_standbys(now);
        self.chores(now);
        self.keep_partners_informed(now);
        if self.rewrite.is_some_and(|at| at <= now) {
            self.rewrite = None;
            self.record(now);
        }
        let ruling = self.make_ruling(now);
        if ruling != self.ruling {
            self.ruling = ruling.clone();
            // Jobs of this step count on it: it goes first.
            self.out.insert(0, Action::Rule(ruling));
        }
        std::mem::take(&mut self.out)
    }

    /// Jobs whose answer is overdue: the runner has limits of its own, but nobody may be waited for without an end.
    fn expire(&mut self, now: Instant) {
        let late = self.pending.iter().filter(|(_, (_, deadline))| *deadline <= now).map(|(ticket, _)| *ticket);
        for ticket in late.collect::<Vec<_>>() {
            self.done(ticket, Outcome::Failed("no answer in time".to_owned()), now);
        }
    }

    fn done(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        self.hook_ended(ticket, now);
        let Some((purpose, _)) = self.pending.remove(&ticket) else { return };
        match purpose {
            Purpose::Step => self.step_done(ticket, outcome, now),
            Purpose::Demote => self.demote_done(ticket, outcome, now),
            Purpose::Ready(order, node) => self.readied(order, node, outcome, now),
            Purpose::Recruit(node) => self.recruit_done(node, outcome),
            Purpose::Restore(node) => self.restored(node, outcome, now),
            Purpose::Follow(node) => self.followed(node, outcome, now),
            Purpose::Close => self.closing = None,
            Purpose::GivenUp | Purpose::Unwanted => {}
            Purpose::Claim(node) => self.claimed(node, outcome, now),
            Purpose::Announce => self.announced(ticket, outcome, now),
            Purpose::Aside(what) => {
                if let Outcome::Failed(why) = outcome {
                    if what == STATE {
                        // Partners that were not there a moment ago are most probably there now.
                        self.rewrite = Some(now + if self.accord.is_some() { PAUSE } else { REWRITE });
                    }
                    self.note(what, None, format!("{what}: {why}"), Duration::ZERO);
                }
            }
        }
    }

    /// Decides what follows from the present world, until nothing changes any more.
    fn drive(&mut self, now: Instant) {
        if !self.acts() {
            return;
        }
        // A step may make the next one possible at once; there are fewer steps than this.
        for _ in 0..16 {
            let changed = if self.run.is_some() { self.advance(now) } else { self.watch(now) };
            if !changed {
                return;
            }
        }
    }

    /// No run: is one due? Returns whether it began.
    fn watch(&mut self, now: Instant) -> bool {
        if self.adopts(now) {
            return false;
        }
        let (primary, first_failed) = match self.subject() {
            Some((primary, Life::Dead(since))) => (primary, since),
            // It was stopped for a switch-over that came to nothing, or was dead and has come back as a standby: nobody is primary.
            Some((primary, Life::Well))
                if self.stands_by(primary) && (self.is_demoted(primary) || self.outage.is_some()) =>
            {
                (primary, now)
            }
            Some((_, Life::Busy(_) | Life::Suspect(_))) => return false,
            _ => {
                self.give_back(now);
                if let Some(outage) = self.outage.take() {
                    self.told.clear();
                    let took = now - outage.since;
                    self.note("outage_over", self.believed(), "there is a primary again".to_owned(), took);
                }
                return false;
            }
        };
        let outage = self.outage.get_or_insert(Outage { since: now, retry: now, attempts: 0 });
        if outage.retry > now {
            return false;
        }
        let demoted = self.is_demoted(primary);
        if let Some(why) = self.reason_to_wait(primary, demoted) {
            self.tell("primary_lost", Some(primary), &why, now);
            return false;
        }
        self.begin(if demoted { Kind::Resumed } else { Kind::Failover }, primary, first_failed, now);
        true
    }

    /// Why nobody is promoted in its place by itself; where it was `demoted` for a switch-over, an operator has wanted that somebody is.
    fn reason_to_wait(&self, primary: NodeId, demoted: bool) -> Option<String> {
        if self.member(primary).is_none_or(|member| member.duty == Duty::Fixed) {
            return Some("this node's role is fixed".to_owned());
        }
        if let Some(rival) = self.rival(Timeline(self.journal.timeline)) {
            return Some(format!(
                "node {rival} was promoted while the primary lived: promote it by hand, or stop it and promote a standby; what only the other has is lost"
            ));
        }
        match self.settings.mode {
            _ if demoted => None,
            Mode::Never => Some("promote = \"never\"".to_owned()),
            Mode::Command if self.journal.spent == Some(primary.0) => {
                Some("failover_command has failed: promote a standby by hand".to_owned())
            }
            Mode::Command | Mode::Builtin => None,
        }
    }

    fn is_demoted(&self, primary: NodeId) -> bool {
        self.journal.demoted == Some(primary.0)
    }

    /// The primary that the journal or the view knows, and what is said of its life.
    fn subject(&self) -> Option<(NodeId, Life)> {
        let id = self.believed()?;
        Some((id, self.view.node(id)?.life))
    }

    /// What partners have agreed on counts before what this proxy has seen: it may have missed who replaced the primary that it knows.
    fn believed(&self) -> Option<NodeId> {
        let agreed = self.agreed_primary().filter(|_| self.accord.is_some());
        agreed.or(self.view.primary).or(self.journal.primary.map(NodeId))
    }

    fn member(&self, id: NodeId) -> Option<&Member> {
        self.settings.members.iter().find(|member| member.id == id)
    }

    fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.view.node(id)
    }

    fn is_detached(&self, id: NodeId) -> bool {
        self.journal.detached.contains(&id.0)
    }

    fn is_condemned(&self, id: NodeId) -> bool {
        self.journal.condemned.contains(&id.0)
    }

    /// It answers and says that it is primary.
    fn leads(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| is_well(node) && node.role == Role::Primary)
    }

    /// It answers and says that it is a standby.
    fn stands_by(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| is_well(node) && node.role == Role::Standby)
    }

    fn make_ruling(&mut self, now: Instant) -> Ruling {
        let hold = match (&self.run, self.subject()) {
            (Some(run), _) => run.hold(),
            (None, _) if self.closing.is_some() => Some(Hold::Failover),
            (None, Some((id, Life::Well))) if self.view.primary == Some(id) && self.leads(id) => {
                // One answer is not enough for a server that was dead: until it is used, another one may take its place.
                let used = self.node(id).is_some_and(NodeView::usable);
                if used { None } else { Some(Hold::Suspect) }
            }
            (None, Some((_, Life::Suspect(_) | Life::Busy(_)))) => Some(Hold::Suspect),
            (None, Some((_, Life::Dead(_) | Life::Well))) => Some(Hold::NoPrimary),
            (None, Some((_, Life::Unknown)) | None) => None,
        };
        let hold = self.partners_hold(hold);
        let Some(why) = hold else {
            self.held = None;
            return self.ruling_with(Writes::Open);
        };
        let since = *self.held.get_or_insert(now);
        let patient = now < since + self.settings.hold_timeout || why == Hold::SyncShortage;
        self.ruling_with(if patient { Writes::Held { since, why } } else { Writes::Refused { why: why.as_str() } })
    }

    fn ruling_with(&self, writes: Writes) -> Ruling {
        let mandate = match (&self.run, self.obeyed) {
            (Some(run), _) => run.mandate(),
            (None, Some(node)) => Mandate::Only(node, Epoch(0)),
            (None, None) => Mandate::Free,
        };
        let late = self.late().filter(|late| !self.is_promoting(*late)).map(|late| late.0);
        let out = self.journal.detached.iter().chain(&self.journal.condemned).copied();
        let out: BTreeSet<u16> = out.chain(late).collect();
        Ruling {
            writes,
            detached: out.into_iter().map(NodeId).collect(),
            fallen: self.absent.fallen(),
            epoch: self.floor,
            timeline: Timeline(self.journal.timeline),
            primary: self.journal.primary.map(NodeId),
            succession: self.agreed_succession(),
            mandate: self.agreed_mandate(mandate),
            agreed: self.accord.is_some(),
        }
    }

    /// Gives a job for the run's present step.
    fn give(&mut self, job: Job, now: Instant) -> Ticket {
        self.give_for(Purpose::Step, job, now)
    }

    fn give_for(&mut self, purpose: Purpose, job: Job, now: Instant) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.pending.insert(ticket, (purpose, now + self.limit(&job)));
        self.hook_starts(ticket, &job);
        self.out.push(Action::Do(ticket, job));
        ticket
    }

    /// How long a job may take before it counts as lost; the runner's own limits are a second shorter.
    fn limit(&self, job: &Job) -> Duration {
        self.settings.limit(job) + Duration::from_secs(1)
    }

    /// Writes the journal without waiting for it.
    fn record(&mut self, now: Instant) {
        if self.acts() {
            let job = Job::Record(Box::new(self.journal.clone()));
            self.give_for(Purpose::Aside(STATE), job, now);
        }
    }

    fn note(&mut self, event: &'static str, node: Option<NodeId>, why: String, took: Duration) {
        let (from, to) = self.run.as_ref().map_or((None, None), |run| (Some(run.old), run.candidate));
        let epoch = Epoch(self.run.as_ref().map_or(self.view.epoch.0, |run| run.epoch.0));
        self.out.push(Action::Note(Note { event, node, from, to, epoch, why, took }));
    }

    /// As [`note`](Self::note), but the same words once only.
    fn tell(&mut self, event: &'static str, node: Option<NodeId>, why: &str, now: Instant) {
        if self.told != why {
            self.told = why.to_owned();
            let took = self.outage.map_or(Duration::ZERO, |outage| now - outage.since);
            self.note(event, node, why.to_owned(), took);
        }
    }
}

fn is_well(node: &NodeView) -> bool {
    node.life == Life::Well
}

#[cfg(test)]
pub(in crate::failover) mod tests;
