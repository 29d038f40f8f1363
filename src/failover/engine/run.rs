//! A run: one attempt to replace a primary, from the barrier to the choice. What stands behind the choice is in `promotion`, what only a
//! switch-over does in `planned`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::choice::{self, Lost};
use super::step::Consent;
pub(super) use super::step::{Kind, Step};
use super::words::{FenceRule, Hook, HookState, Intent, IntentStep, Job, Mode, Outcome, Standing, Ticket};
use super::{Engine, LONGEST_PAUSE, Outage, PAUSE, Purpose};
use crate::cluster::{Epoch, Hold, Lsn, Mandate, NodeId, Timeline};

/// Recruits beyond the majority are waited for so long.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) epoch: Epoch,
    pub(super) kind: Kind,
    pub(super) old: NodeId,
    /// The old primary's timeline.
    pub(super) timeline: Timeline,
    /// The epoch in which it is primary; 0 if that was another process's.
    pub(super) before: Epoch,
    pub(super) begun: Instant,
    pub(super) first_failed: Instant,
    pub(super) step: Step,
    /// The job that the step waits for.
    pub(super) ticket: Option<Ticket>,
    /// When the step wants to be looked at.
    pub(super) timer: Option<Instant>,
    pub(super) asked: BTreeSet<NodeId>,
    /// Standbys that were asked whether the old primary lives.
    pub(super) doubted: BTreeSet<NodeId>,
    pub(super) standings: BTreeMap<NodeId, Standing>,
    pub(super) candidate: Option<NodeId>,
    /// Switch-over: the old primary was told to stop, at this position.
    pub(super) stopped_at: Option<Lsn>,
    /// Switch-over: how far the old primary had written when it was emptied.
    pub(super) written: Option<Lsn>,
    /// `pg_promote()` may have been sent.
    pub(super) sent: bool,
    /// When the candidate's postmaster was started, once known.
    pub(super) started: i64,
    pub(super) hooks: HookState,
    /// Whom an earlier `failover_command` may still promote, and whether that comes too late, as it was before the decision.
    pub(super) promise: (Option<(u16, i64)>, bool),
    pub(super) consent: Consent,
}

impl Run {
    /// There is no way back.
    pub(super) fn irrevocable(&self) -> bool {
        matches!(
            self.step,
            Step::Promoting
                | Step::Settling
                | Step::Following
                | Step::Relaxing
                | Step::Satisfying
                | Step::CondemningCandidate
                | Step::FencingCandidate
        )
    }

    /// The decision to promote is on its way to the disk, or from it: what the journal of the next process says is not known.
    pub(super) fn is_being_written(&self) -> bool {
        matches!(self.step, Step::Committing | Step::Revoking { .. })
    }

    /// The new primary is in the view: only the others are waited for.
    pub(super) fn settled(&self) -> bool {
        matches!(self.step, Step::Following | Step::Relaxing | Step::Satisfying)
    }

    pub(super) fn hold(&self) -> Option<Hold> {
        match (&self.step, self.kind) {
            (Step::Relaxing | Step::Satisfying, _) => Some(Hold::SyncShortage),
            (_, Kind::SwitchOver(..)) => Some(Hold::SwitchOver),
            _ => Some(Hold::Failover),
        }
    }

    pub(super) fn mandate(&self) -> Mandate {
        match self.candidate {
            Some(candidate) if self.irrevocable() => Mandate::Only(candidate, self.epoch),
            _ => Mandate::Free,
        }
    }

    pub(super) fn planned(&self) -> bool {
        matches!(self.kind, Kind::SwitchOver(..)) || self.stopped_at.is_some()
    }

    pub(super) fn intent(&self, step: IntentStep) -> Intent {
        Intent {
            id: self.id,
            epoch: self.epoch.0,
            old: self.old.0,
            timeline: self.timeline.0,
            step,
            candidate: self.candidate.map(|node| node.0),
            stopped_at: self.stopped_at.map_or(0, |lsn| lsn.0),
            started: self.started,
            hooks: self.hooks,
        }
    }
}

impl Engine {
    pub(super) fn begin(&mut self, kind: Kind, old: NodeId, first_failed: Instant, now: Instant) {
        self.journal.attempts += 1;
        let run = Run {
            id: self.journal.attempts,
            epoch: Epoch(self.floor.max(self.view.epoch).0 + 1),
            kind,
            old,
            timeline: Timeline(self.journal.timeline),
            before: self.view.epoch,
            begun: now,
            first_failed,
            step: Step::Holding,
            ticket: None,
            timer: None,
            asked: BTreeSet::new(),
            doubted: BTreeSet::new(),
            standings: BTreeMap::new(),
            candidate: None,
            stopped_at: None,
            written: None,
            sent: false,
            started: 0,
            hooks: HookState::default(),
            promise: (None, false),
            consent: Consent::Missing,
        };
        self.run = Some(Box::new(run));
        let event = if matches!(kind, Kind::SwitchOver(..)) { "switchover_begins" } else { "failover_begins" };
        if self.told.is_empty() {
            self.note(event, Some(old), "writes are held".to_owned(), Duration::ZERO);
        }
        self.give_step(Step::Holding, Job::Barrier, now);
    }

    /// Goes to a step whose job is this.
    pub(super) fn give_step(&mut self, step: Step, job: Job, now: Instant) {
        let ticket = self.give(job, now);
        let Some(run) = self.run.as_mut() else { return };
        (run.step, run.ticket, run.timer) = (step, Some(ticket), None);
    }

    /// Goes to a step that waits for the world; looked at again at `timer`.
    pub(super) fn wait_step(&mut self, step: Step, timer: Option<Instant>) {
        let Some(run) = self.run.as_mut() else { return };
        (run.step, run.ticket, run.timer) = (step, None, timer);
    }

    /// The run is over before the promotion: nothing that it did stays. Tried again later unless an operator ordered it.
    pub(super) fn abandon(&mut self, why: &str, now: Instant) {
        let Some(run) = self.run.take() else { return };
        self.stop_asking(&run, now);
        for (purpose, _) in self.pending.values_mut() {
            if matches!(purpose, Purpose::Step | Purpose::Recruit(_)) {
                *purpose = Purpose::GivenUp;
            }
        }
        self.forget_hooks(run.id);
        if self.journal.intent.take().is_some() || !self.journal.recruited.is_empty() {
            self.record(now);
        }
        let outage = self.outage.get_or_insert(Outage { since: run.begun, retry: now, attempts: 0 });
        outage.attempts += 1;
        outage.retry = now + (PAUSE * outage.attempts).min(LONGEST_PAUSE);
        match run.kind {
            Kind::ByHand(ticket, _) | Kind::SwitchOver(ticket, _) => {
                self.out.push(super::Action::Reply(ticket, Err(why.to_owned())));
                self.note("failover_given_up", Some(run.old), why.to_owned(), now - run.begun);
            }
            Kind::Failover | Kind::Resumed => self.tell("failover_waits", Some(run.old), why, now),
        }
    }

    /// The run's present step: does the world still allow it? Returns whether something changed.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let Some(run) = &self.run else { return false };
        if !run.irrevocable()
            && !run.is_being_written()
            && let Some(why) = self.overtaken()
        {
            self.abandon(&why, now);
            return true;
        }
        let Some(run) = &self.run else { return false };
        match &run.step {
            Step::Revoking { why, until } if run.ticket.is_none() && run.timer.is_none_or(|timer| now >= timer) => {
                let (why, until) = (why.clone(), *until);
                self.revoke(why, until, now);
                false
            }
            Step::Waiting if self.chores_under_way() == 0 => {
                self.prepare(now);
                true
            }
            Step::Recruiting => self.recruited(now),
            Step::Dying => self.dying(now),
            Step::Promoting => self.promoting(now),
            Step::Settling => self.settling(now),
            Step::Following => self.following(now),
            Step::Satisfying => self.satisfying(now),
            _ => false,
        }
    }

    /// Why what was begun makes no sense any more.
    pub(super) fn overtaken(&self) -> Option<String> {
        let run = self.run.as_ref()?;
        if self
            .view
            .primary
            .is_some_and(|primary| primary != run.old && self.leads(primary) && self.is_appointed(primary))
        {
            return Some("another node was promoted meanwhile".to_owned());
        }
        if let Some(rival) = self.obstacles(run).next() {
            return Some(format!("node {rival} says that it is primary"));
        }
        if run.planned() {
            let gone = self.is_dead(run.old) && run.stopped_at.is_none();
            return gone.then(|| "the primary died before it was stopped".to_owned());
        }
        self.leads(run.old).then(|| "the primary answers again".to_owned())
    }

    /// The job of the present step has ended.
    pub(super) fn step_done(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        let Some(run) = self.run.as_ref().filter(|run| run.ticket == Some(ticket)) else { return };
        match &run.step {
            Step::Revoking { why, until } => {
                let (why, until) = (why.clone(), *until);
                self.revoked(why, until, outcome, now);
            }
            Step::Holding => self.held_back(outcome, now),
            Step::Consenting => self.consented(outcome, now),
            Step::Doubting => self.doubted(&outcome, now),
            Step::Preparing => self.prepared(outcome, now),
            Step::Fencing => self.fenced(outcome, now),
            Step::Condemning => self.condemned(outcome, now),
            Step::Hooking => self.hooked(outcome, now),
            Step::Committing => self.committed(outcome, now),
            Step::Promoting => self.promoted(outcome, now),
            Step::CondemningCandidate => self.candidate_condemned(outcome, now),
            Step::FencingCandidate => self.candidate_fenced(outcome, now),
            Step::Relaxing => self.relaxed(outcome),
            Step::Draining
            | Step::Checkpointing
            | Step::Closing
            | Step::Announcing
            | Step::Demoting
            | Step::CatchingUp => {
                self.planned_done(outcome, now);
            }
            Step::Waiting | Step::Recruiting | Step::Settling | Step::Following | Step::Satisfying | Step::Dying => {}
        }
    }

    fn held_back(&mut self, outcome: Outcome, now: Instant) {
        let Some(run) = &self.run else { return };
        let old = run.old;
        match outcome {
            Outcome::Ok => self.ask_partners(old, now),
            other => self.abandon(&format!("the data threads do not hold writes: {}", text(other)), now),
        }
    }

    fn consented(&mut self, outcome: Outcome, now: Instant) {
        let Some(run) = &mut self.run else { return };
        if let Outcome::Granted(epoch) = outcome {
            run.epoch = epoch;
        }
        let agreed = matches!(outcome, Outcome::Ok | Outcome::Granted(_));
        run.consent = if agreed { Consent::Given } else { Consent::Missing };
        match outcome {
            Outcome::Ok | Outcome::Granted(_) if matches!(run.kind, Kind::SwitchOver(..)) => {
                let old = run.old;
                self.give_step(Step::Draining, Job::Drain(old), now);
            }
            Outcome::Ok | Outcome::Granted(_) => self.doubt(now),
            other => self.abandon(&format!("the partners do not agree: {}", text(other)), now),
        }
    }

    /// Nodes that answer as standbys; an old primary that has come back as one is one.
    pub(super) fn standbys(&self) -> Vec<NodeId> {
        let all = self.settings.members.iter().map(|member| member.id);
        let out = |id: NodeId| self.is_detached(id) || self.is_condemned(id) || self.is_foreign(id);
        all.filter(|id| !out(*id) && self.stands_by(*id)).collect()
    }

    /// How many of them must be recruited.
    fn needed(&self) -> usize {
        let Some(run) = &self.run else { return usize::MAX };
        let old = Some(run.old).filter(|old| !self.stands_by(*old));
        match run.kind {
            Kind::ByHand(..) => 1,
            _ => choice::majority(&self.settings, old, &self.journal.detached),
        }
    }

    /// Is there anybody to recruit? Then what is going to be done is written down.
    pub(super) fn prepare(&mut self, now: Instant) {
        if let Some(run) = self.run.as_ref().filter(|run| run.consent == Consent::Missing && self.accord.is_some()) {
            // It was taken up from a leader before.
            return self.ask_partners(run.old, now);
        }
        let Some(old) = self.run.as_ref().map(|run| run.old) else { return };
        if let Err(why) = self.enough_answer(old, self.needed()) {
            return self.abandon(&why, now);
        }
        let standbys = self.standbys();
        let Some(run) = self.run.as_mut() else { return };
        if !run.planned() && standbys.iter().any(|node| !run.doubted.contains(node)) {
            // It has come since the others were asked, or the old primary was to be stopped and is only lost.
            return self.doubt(now);
        }
        run.asked = standbys.iter().copied().collect();
        let step = if run.stopped_at.is_some() { IntentStep::Demoting } else { IntentStep::Preparing };
        self.journal.intent = Some(run.intent(step));
        for node in standbys {
            if !self.journal.recruited.contains(&node.0) {
                self.journal.recruited.push(node.0);
            }
        }
        let journal = Box::new(self.journal.clone());
        self.give_step(Step::Preparing, Job::Record(journal), now);
    }

    fn prepared(&mut self, outcome: Outcome, now: Instant) {
        if outcome != Outcome::Ok {
            return self.abandon(&format!("what is to be done cannot be written down: {}", text(outcome)), now);
        }
        let Some(run) = self.run.as_ref() else { return };
        let (epoch, asked) = (run.epoch, run.asked.clone());
        let lock_only = self.settings.mode == Mode::Command && run.kind == Kind::Failover;
        for node in asked {
            self.give_for(Purpose::Recruit(node), Job::Recruit { node, epoch, lock_only }, now);
        }
        self.wait_step(Step::Recruiting, Some(now + STRAGGLERS));
    }

    pub(super) fn recruit_done(&mut self, node: NodeId, outcome: Outcome) {
        let Some(run) = self.run.as_mut().filter(|run| run.step == Step::Recruiting) else { return };
        run.asked.remove(&node);
        match outcome {
            Outcome::Recruited(standing) => drop(run.standings.insert(node, standing)),
            other => {
                let took = Duration::ZERO;
                self.note("recruit_failed", Some(node), text(other), took);
            }
        }
    }

    /// All have answered, or enough and the rest takes too long.
    fn recruited(&mut self, now: Instant) -> bool {
        let Some(run) = self.run.as_ref() else { return false };
        let wanted = match run.kind {
            Kind::ByHand(_, node) | Kind::SwitchOver(_, Some(node)) => Some(node),
            Kind::SwitchOver(_, None) | Kind::Failover | Kind::Resumed => run.candidate,
        };
        let needed = self.needed();
        let patient = run.timer.is_some_and(|timer| now < timer);
        if !run.asked.is_empty() && (patient || run.standings.len() < needed) {
            return false;
        }
        if run.standings.len() < needed {
            let why = format!(
                "{} standbys were recruited, {needed} are needed{}",
                run.standings.len(),
                self.missing(run.old)
            );
            self.abandon(&why, now);
            return true;
        }
        let wanted = match self.promised(wanted) {
            Ok(wanted) => wanted,
            Err(why) => {
                self.abandon(&why, now);
                return true;
            }
        };
        let Some(run) = self.run.as_ref() else { return false };
        let known = self.node(run.old).and_then(|node| Some(node.position.as_ref()?.sample.lsn));
        let lost = Lost {
            node: run.old,
            timeline: run.timeline,
            lsn: known.filter(|_| !run.planned()),
            // What was stopped in order has sent everything.
            synchronous: if run.stopped_at.is_some() { "" } else { &self.journal.synchronous },
        };
        let mut ours = run.standings.clone();
        ours.retain(|id, _| !self.is_stranger(*id, run.timeline));
        match choice::best(&self.settings, lost, &ours, wanted) {
            Ok(candidate) => self.chosen(candidate, now),
            Err(why) => self.abandon(&why, now),
        }
        true
    }

    /// Whom `failover_command` was told to promote may still become primary: nobody else may, unless it was restarted, or an operator
    /// took it out.
    fn promised(&mut self, wanted: Option<NodeId>) -> Result<Option<NodeId>, String> {
        let Some((node, started)) = self.journal.promised.map(|(node, started)| (NodeId(node), started)) else {
            return Ok(wanted);
        };
        let standing = self.run.as_ref().and_then(|run| run.standings.get(&node));
        if standing.is_some_and(|standing| standing.started != started) || self.is_detached(node) {
            self.journal.promised = None;
            return Ok(wanted);
        }
        if standing.is_none() || wanted.is_some_and(|wanted| wanted != node) {
            return Err(format!(
                "failover_command was told to promote node {node}, which may still happen: restart it as a standby, or detach it"
            ));
        }
        Ok(Some(node))
    }

    fn chosen(&mut self, candidate: NodeId, now: Instant) {
        let Some(run) = self.run.as_mut() else { return };
        run.candidate = Some(candidate);
        run.started = run.standings.get(&candidate).map_or(0, |standing| standing.started);
        let (old, begun, planned) = (run.old, run.begun, run.planned());
        let lsn = run.standings.get(&candidate).map(|standing| standing.lsn).unwrap_or_default();
        let mut why = format!("recruited {} standbys; the candidate has {lsn}", run.standings.len());
        // What is missing is lost, as far as it is known.
        let known = self.node(old).and_then(|node| Some(node.position.as_ref()?.sample.lsn));
        if let Some(known) = known.filter(|_| !planned) {
            why += &format!(
                ", at least {} bytes behind {known}, where node {old} was last seen",
                known.0.saturating_sub(lsn.0)
            );
        }
        self.note("candidate_chosen", Some(candidate), why, now - begun);
        self.give_step(Step::Fencing, Job::Fence(old), now);
    }

    fn fenced(&mut self, outcome: Outcome, now: Instant) {
        let Some(run) = self.run.as_ref() else { return };
        let (old, id, planned) = (run.old, run.id, run.planned());
        if outcome != Outcome::Ok {
            return self.abandon(&format!("connections to the old primary are not closed: {}", text(outcome)), now);
        }
        // One that has come back as a standby takes no writes and may be the best there is.
        if planned || self.stands_by(old) || !self.settings.hooks.contains(&Hook::Fence) {
            return self.commit(now);
        }
        self.hook_begins(Hook::Fence, old, id);
        let journal = Box::new(self.journal.clone());
        self.give_step(Step::Condemning, Job::Record(journal), now);
    }

    /// It is on disk that the old primary is being fenced.
    fn condemned(&mut self, outcome: Outcome, now: Instant) {
        let Some(run) = self.run.as_ref() else { return };
        let (hook, old, locks) = (Hook::Fence, run.old, Vec::new());
        let job = Job::Hook { hook, node: old, old, new: run.candidate, id: run.id, locks };
        match outcome {
            Outcome::Ok => self.give_step(Step::Hooking, job, now),
            other => self.abandon(&format!("what is to be done cannot be written down: {}", text(other)), now),
        }
    }

    fn hooked(&mut self, outcome: Outcome, now: Instant) {
        match (outcome, self.settings.fence) {
            (Outcome::Ok, _) => self.commit(now),
            (other, FenceRule::BestEffort) => {
                let node = self.run.as_ref().map(|run| run.old);
                self.note("fence_failed", node, text(other), Duration::ZERO);
                self.commit(now);
            }
            (other, FenceRule::Required) => self.abandon(&format!("fence_command failed: {}", text(other)), now),
        }
    }
}

/// An outcome as a reason.
pub(super) fn text(outcome: Outcome) -> String {
    match outcome {
        Outcome::LockLost(node) => format!("the lock of node {node} was lost"),
        Outcome::Failed(why) | Outcome::NotSent(why) | Outcome::Late(why) => why,
        other => format!("an answer that does not belong here: {other:?}"),
    }
}
