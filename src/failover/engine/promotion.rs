//! From the decision to promote to the release of writes. Behind `pg_promote()` there is only forward (HA H7): the same node again, until
//! it is primary, is known to have forgotten it, or was fenced.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::choice::Synchronous;
use super::partners::WITHDRAWN;
use super::run::{Kind, Run, Step, text};
use super::step::Consent;
use super::words::{Hook, Intent, IntentStep, Job, Mode, Outcome};
use super::{Action, Engine, PAUSE};
use crate::cluster::{Epoch, History, Lsn, NodeId, Succession, Timeline, may_continue};

/// The other standbys are waited for so long before writes are released.
const FOLLOWERS: Duration = Duration::from_secs(2);

/// A primary that another one has taken the place of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replaced {
    pub(super) old: NodeId,
    /// Its timeline.
    pub(super) timeline: Timeline,
    /// The epoch in which it was primary.
    pub(super) before: Epoch,
}

/// Between two attempts to fence a candidate that has died.
const FENCE_PAUSE: Duration = Duration::from_secs(10);

impl Engine {
    /// Writes down who is promoted; then there is no way back.
    pub(super) fn commit(&mut self, now: Instant) {
        let by_hook = self.settings.mode == Mode::Command;
        let Some(run) = self.run.as_mut() else { return };
        run.hooks.promotes = by_hook && run.kind == Kind::Failover;
        let promised = run.candidate.map(|node| (node.0, run.started)).filter(|_| run.hooks.promotes);
        let intent = run.intent(IntentStep::Promoting);
        run.promise = (self.journal.promised, self.journal.late);
        let (old, id) = (run.old, run.id);
        if let Some(why) = self.candidate_lost() {
            return self.abandon(&why, now);
        }
        self.journal.intent = Some(intent);
        self.journal.fenced = None;
        if promised.is_some() {
            (self.journal.promised, self.journal.late) = (promised, false);
            // Whoever takes this up must not start it again, whatever has become of it.
            self.journal.spent = Some(old.0);
            self.hook_begins(Hook::Failover, old, id);
        }
        let journal = Box::new(self.journal.clone());
        self.give_step(Step::Committing, Job::Record(journal), now);
    }

    pub(super) fn committed(&mut self, outcome: Outcome, now: Instant) {
        let withdrawn = self.run.as_ref().filter(|run| run.consent == Consent::Withdrawn).map(|_| WITHDRAWN.to_owned());
        let overtaken = withdrawn.or_else(|| self.overtaken()).or_else(|| self.candidate_lost());
        let Some(run) = self.run.as_ref() else { return };
        let (old, candidate, id) = (run.old, run.candidate, run.id);
        if let (Outcome::Ok, Some(why)) = (&outcome, overtaken) {
            return self.revoke(why, now + self.settings.hold_timeout, now);
        }
        let recruits: Vec<NodeId> = run.standings.keys().copied().collect();
        match (outcome, candidate) {
            (Outcome::Ok, Some(_)) if run.hooks.promotes => {
                let job = Job::Hook { hook: Hook::Failover, node: old, old, new: candidate, id, locks: recruits };
                self.give_step(Step::Promoting, job, now);
            }
            (Outcome::Ok, Some(node)) => {
                self.give_step(Step::Promoting, Job::Promote { node, recruits, again: None }, now);
            }
            (other, _) => {
                let why = format!("the decision cannot be written down: {}", text(other));
                self.revoke(why, now + self.settings.hold_timeout, now);
            }
        }
    }

    /// Why the chosen standby cannot be promoted any more.
    fn candidate_lost(&self) -> Option<String> {
        let candidate = self.run.as_ref()?.candidate;
        let out = |node: NodeId| self.is_detached(node) || self.is_condemned(node) || self.member(node).is_none();
        let lost = candidate.filter(|node| self.stands_by(*node) && !out(*node)).is_none();
        lost.then(|| "the chosen standby does not answer any more".to_owned())
    }

    /// Takes a decision back that may be on disk: whoever reads it there promotes. Nothing is let go before that is certain, or as long as
    /// statements are held.
    pub(super) fn revoke(&mut self, why: String, until: Instant, now: Instant) {
        self.journal.intent = None;
        if let Some(id) = self.run.as_ref().filter(|run| run.hooks.promotes).map(|run| run.id) {
            // `failover_command` was not started; an earlier one may still promote whom it was told to.
            (self.journal.promised, self.journal.late) = self.run.as_ref().map_or((None, false), |run| run.promise);
            self.journal.spent = None;
            self.forget_hooks(id);
        }
        let journal = Box::new(self.journal.clone());
        self.give_step(Step::Revoking { why, until }, Job::Record(journal), now);
    }

    pub(super) fn revoked(&mut self, why: String, until: Instant, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Ok => self.abandon(&why, now),
            other if now >= until => {
                let told = format!("{why}; that it is taken back cannot be written down: {}", text(other));
                self.abandon(&told, now);
            }
            _ => self.wait_step(Step::Revoking { why, until }, Some(now + PAUSE)),
        }
    }

    /// A promoting job has ended.
    pub(super) fn promoted(&mut self, outcome: Outcome, now: Instant) {
        let Some(run) = self.run.as_mut() else { return };
        let Some(candidate) = run.candidate else { return };
        match outcome {
            Outcome::Promoted(_) => self.wait_step(Step::Settling, None),
            Outcome::Ok if run.hooks.promotes => self.give_step(Step::Promoting, Job::Await(candidate), now),
            lost @ Outcome::LockLost(_) if run.hooks.promotes => {
                self.revoke(format!("nothing was promoted: {}", text(lost)), now + self.settings.hold_timeout, now);
            }
            other if run.hooks.promotes => {
                if matches!(other, Outcome::NotSent(_)) {
                    self.journal.promised = None;
                }
                let why = format!("failover_command did not promote: {}; promote a standby by hand", text(other));
                self.note("failover_command_failed", Some(candidate), why.clone(), Duration::ZERO);
                self.abandon(&why, now);
            }
            // Whoever took the decision up would not look at the locks.
            unsent @ (Outcome::NotSent(_) | Outcome::LockLost(_)) if !run.sent => {
                self.revoke(format!("nothing was promoted: {}", text(unsent)), now + self.settings.hold_timeout, now);
            }
            Outcome::Restarted => self.abandon("the candidate was restarted before it was promoted", now),
            other => {
                let first = !std::mem::replace(&mut run.sent, true);
                if first {
                    let why = format!("the candidate is not primary yet, only it can be: {}", text(other));
                    self.note("promotion_late", Some(candidate), why, Duration::ZERO);
                }
                self.wait_step(Step::Promoting, Some(now + PAUSE));
            }
        }
    }

    /// Waiting for a candidate that was told to become primary.
    pub(super) fn promoting(&mut self, now: Instant) -> bool {
        let Some(run) = self.run.as_ref() else { return false };
        let Some(candidate) = run.candidate else { return false };
        if self.leads_beyond(candidate, run.timeline) {
            self.wait_step(Step::Settling, None);
            return true;
        }
        let beside = |id: &NodeId| *id != candidate && *id != run.old;
        let other = self.obstacles(run).find(beside);
        if let Some(other) = other {
            self.abandon(&format!("node {other} was promoted by somebody else"), now);
            return true;
        }
        if run.ticket.is_some() || run.timer.is_some_and(|timer| now < timer) {
            return false;
        }
        if run.hooks.promotes {
            self.give_step(Step::Promoting, Job::Await(candidate), now);
        } else if self.stands_by(candidate) {
            let (recruits, again) = (run.standings.keys().copied().collect(), Some(run.started));
            self.give_step(Step::Promoting, Job::Promote { node: candidate, recruits, again }, now);
        } else if self.is_dead(candidate) && self.settings.hooks.contains(&Hook::Fence) && !run.hooks.fenced {
            let Some(run) = self.run.as_mut() else { return false };
            run.hooks.fenced = true;
            let id = run.id;
            self.journal.intent = Some(run.intent(IntentStep::Promoting));
            self.hook_begins(Hook::Fence, candidate, id);
            let journal = Box::new(self.journal.clone());
            self.give_step(Step::CondemningCandidate, Job::Record(journal), now);
        } else {
            self.wait_step(Step::Promoting, Some(now + PAUSE));
        }
        false
    }

    /// A node that was promoted from that timeline and is not obeyed: it says that it is primary since before the primary died.
    pub(super) fn rival(&self, timeline: Timeline) -> Option<NodeId> {
        self.settings.members.iter().map(|member| member.id).find(|id| self.leads_beyond(*id, timeline))
    }

    /// Such nodes stand in the way of this run. One that is out for good, since it was promoted in vain or beside the primary, does not if
    /// an operator has named another one, or did before the promotion was taken up from the journal: by itself nobody begins a second timeline of
    /// the same number (HA H7).
    pub(super) fn obstacles(&self, run: &Run) -> impl Iterator<Item = NodeId> {
        let timeline = run.timeline;
        let decided = matches!(run.kind, Kind::ByHand(..)) || (run.kind == Kind::Resumed && run.irrevocable());
        let all = self.settings.members.iter().map(|member| member.id);
        all.filter(move |id| self.leads_beyond(*id, timeline) && !(decided && self.is_condemned(*id)))
    }

    /// It answers, as a primary on a later timeline that may have begun on this one.
    pub(super) fn leads_beyond(&self, id: NodeId, timeline: Timeline) -> bool {
        let Some(position) = self.node(id).and_then(|node| node.position.as_ref()) else { return false };
        self.leads(id)
            && !self.is_foreign(id)
            && position.timeline > timeline
            && may_continue(position.history.as_deref(), self.origin(timeline))
    }

    /// Where a timeline of the last primary comes from.
    fn origin(&self, timeline: Timeline) -> Option<&History> {
        self.history.as_deref().filter(|history| history.timeline() == timeline)
    }

    /// It has received from that timeline, or one of the same number: is it certainly another one (HA H6)?
    pub(super) fn is_stranger(&self, id: NodeId, timeline: Timeline) -> bool {
        let position = self.node(id).and_then(|node| node.position.as_ref());
        let own = position.and_then(|position| position.history.as_deref());
        own.filter(|own| own.timeline() == timeline).zip(self.origin(timeline)).is_some_and(|(own, known)| own != known)
    }

    /// It is on disk that the candidate is being fenced: a hook runs once.
    pub(super) fn candidate_condemned(&mut self, outcome: Outcome, now: Instant) {
        let Some((run, candidate)) = self.run.as_ref().and_then(|run| Some((run, run.candidate?))) else { return };
        let (hook, locks) = (Hook::Fence, Vec::new());
        let job = Job::Hook { hook, node: candidate, old: run.old, new: None, id: run.id, locks };
        match outcome {
            Outcome::Ok => self.give_step(Step::FencingCandidate, job, now),
            other => {
                // It was not started: it is tried again.
                let id = run.id;
                self.forget_hooks(id);
                if let Some(run) = self.run.as_mut() {
                    run.hooks.fenced = false;
                    self.journal.intent = Some(run.intent(IntentStep::Promoting));
                }
                self.note("fence_failed", Some(candidate), text(other), Duration::ZERO);
                self.wait_step(Step::Promoting, Some(now + FENCE_PAUSE));
            }
        }
    }

    pub(super) fn candidate_fenced(&mut self, outcome: Outcome, now: Instant) {
        if outcome == Outcome::Ok {
            let fenced = self.run.as_ref().and_then(|run| Some((run.candidate?, run.timeline)));
            if let Some((candidate, timeline)) = fenced {
                self.journal.condemned.push(candidate.0);
                self.journal.fenced = Some((candidate.0, timeline.0));
            }
            return self.abandon("the candidate has died behind its promotion and was fenced", now);
        }
        let node = self.run.as_ref().and_then(|run| run.candidate);
        self.note("fence_failed", node, text(outcome), Duration::ZERO);
        // It has ended: the next process need not wonder.
        self.record(now);
        self.wait_step(Step::Promoting, Some(now + FENCE_PAUSE));
    }

    /// Until `health` has published the new primary.
    pub(super) fn settling(&mut self, now: Instant) -> bool {
        let Some(run) = self.run.as_ref() else { return false };
        let promoted = self.view.primary.filter(|id| self.leads_beyond(*id, run.timeline));
        let promoted = promoted.filter(|id| Some(*id) == run.candidate && self.is_appointed(*id));
        let Some(primary) = promoted else {
            let lost = run.candidate.is_some_and(|candidate| self.is_dead(candidate));
            if lost {
                self.wait_step(Step::Promoting, Some(now + PAUSE));
            }
            return lost;
        };
        let (old, begun, planned, id) = (run.old, run.begun, run.planned(), run.id);
        match planned {
            // It was stopped on purpose, and is used again as soon as it follows.
            true => drop(self.absent.forgive(old)),
            false if self.is_dead(old) => self.absent.replaced(old),
            false => {}
        }
        let Some(run) = self.run.as_ref() else { return false };
        let asked: BTreeSet<NodeId> = run.standings.keys().copied().filter(|id| *id != primary).collect();
        self.journal.intent = None;
        self.journal.spent = None;
        self.journal.promised = None;
        self.journal.hooked.clear();
        let all = self.settings.members.iter().map(|member| member.id.0);
        self.journal.following = all.filter(|id| *id != primary.0).collect();
        self.journal.leader = Some((old.0, id));
        if self.is_told_afterwards() {
            // It is run when writes go on; until then it is about to be.
            self.hook_begins(Hook::Failover, old, id);
        }
        if planned && self.settings.hooks.contains(&Hook::Follow) {
            self.journal.hooked.push(old.0);
            self.hook_aside(Hook::Follow, (old, old, Some(primary)), id, now);
        } else {
            self.record(now);
        }
        let replaced =
            self.run.as_ref().map(|run| Replaced { old: run.old, timeline: run.timeline, before: run.before });
        self.succession = replaced.and_then(|replaced| self.inherited(replaced, primary));
        if let Some(run) = self.run.as_mut() {
            run.candidate = Some(primary);
            run.epoch = self.view.epoch;
            run.asked = asked;
        }
        self.note("promoted", Some(primary), "it is the primary now".to_owned(), now - begun);
        self.wait_step(Step::Following, Some(now + FOLLOWERS));
        true
    }

    /// What the new primary's history cannot hold of the old one's (HA H14). Its history says how far it went along with the old timeline,
    /// and what it had received says when as much as that had been written.
    pub(super) fn inherited(&self, replaced: Replaced, primary: NodeId) -> Option<Succession> {
        let Replaced { old, timeline, before } = replaced;
        let position = self.node(primary)?.position.as_ref()?;
        let history = position.history.as_ref().filter(|history| history.timeline() == position.timeline)?;
        // What it has written on a timeline in between is not known.
        let (_, left) = *history.ancestors().last().filter(|(ancestor, _)| *ancestor == timeline)?;
        let written = position.written.filter(|written| written.timeline == timeline && written.lsn >= left)?;
        Some(Succession { old, before, after: self.view.epoch, until: written.by })
    }

    /// Until those that were recruited follow, or take too long over it.
    pub(super) fn following(&mut self, now: Instant) -> bool {
        let Some(run) = self.run.as_ref() else { return false };
        let Some(primary) = run.candidate else { return false };
        let waits = run.asked.iter().any(|id| self.journal.following.contains(&id.0));
        if waits && run.timer.is_some_and(|timer| now < timer) && !self.is_dead(primary) && !run.hooks.promotes {
            return false;
        }
        if self.is_satisfied() || self.is_dead(primary) {
            self.release(now);
        } else if self.settings.relax_sync {
            self.note(
                "sync_relaxed",
                Some(primary),
                "too few synchronous standbys are left".to_owned(),
                Duration::ZERO,
            );
            self.give_step(Step::Relaxing, Job::Relax(primary), now);
        } else {
            self.note(
                "sync_shortage",
                Some(primary),
                "writes wait for its synchronous standbys".to_owned(),
                Duration::ZERO,
            );
            self.wait_step(Step::Satisfying, None);
        }
        true
    }

    /// Enough standbys that `synchronous_standby_names` names stream from the primary (HA H9).
    fn is_satisfied(&self) -> bool {
        let Some(wanted) = Synchronous::parse(&self.view.synchronous) else { return true };
        let streams = |id: NodeId| {
            self.stands_by(id)
                && self
                    .node(id)
                    .and_then(|node| node.position.as_ref())
                    .is_some_and(|position| position.streaming && position.timeline.0 == self.journal.timeline)
        };
        let members = self.settings.members.iter().filter(|member| streams(member.id));
        wanted.among(members) >= wanted.count
    }

    pub(super) fn relaxed(&mut self, outcome: Outcome) {
        if outcome != Outcome::Ok {
            let node = self.run.as_ref().and_then(|run| run.candidate);
            self.note("sync_relax_failed", node, text(outcome), Duration::ZERO);
        }
        self.wait_step(Step::Satisfying, None);
    }

    pub(super) fn satisfying(&mut self, now: Instant) -> bool {
        let dead = self.run.as_ref().and_then(|run| run.candidate).is_some_and(|primary| self.is_dead(primary));
        let ready = dead || self.is_satisfied();
        if ready {
            self.release(now);
        }
        ready
    }

    fn release(&mut self, now: Instant) {
        let Some(run) = self.run.take() else { return };
        self.outage = None;
        self.told.clear();
        let (old, primary) = (run.old, run.candidate.unwrap_or(run.old));
        let planned = run.planned();
        if let Kind::ByHand(ticket, _) | Kind::SwitchOver(ticket, _) = run.kind {
            self.out.push(Action::Reply(ticket, Ok(format!("node {primary} is the primary now"))));
        }
        let (id, begun) = (run.id, run.begun);
        self.run = Some(run);
        let told = self.is_told_afterwards();
        let event = if planned { "switchover_done" } else { "failover_done" };
        self.note(event, Some(primary), "writes go on".to_owned(), now - begun);
        self.run = None;
        if told {
            self.hook_aside(Hook::Failover, (old, old, Some(primary)), id, now);
        }
    }

    /// `failover_command` does not promote: it is run when somebody is primary.
    fn is_told_afterwards(&self) -> bool {
        let promotes = self.run.as_ref().is_some_and(|run| run.hooks.promotes);
        !promotes && self.settings.hooks.contains(&Hook::Failover)
    }

    pub(super) fn is_promoting(&self, node: NodeId) -> bool {
        self.run.as_ref().is_some_and(|run| run.irrevocable() && run.candidate == Some(node))
    }

    /// Takes up what the process before has left (HA H13).
    pub(super) fn resume(&mut self, now: Instant) {
        let Some(intent) = self.journal.intent.clone() else { return };
        let step = match intent.step {
            IntentStep::Preparing => {
                self.journal.intent = None;
                self.note(
                    "failover_undone",
                    None,
                    "begun by the process before, not promoted".to_owned(),
                    Duration::ZERO,
                );
                return self.record(now);
            }
            IntentStep::Demoting => Step::Dying,
            IntentStep::Promoting => Step::Promoting,
        };
        self.run = Some(Box::new(self.resumed(&intent, step, now)));
        self.note("failover_resumed", None, "begun by the process before".to_owned(), Duration::ZERO);
    }

    fn resumed(&self, intent: &Intent, step: Step, now: Instant) -> Run {
        // What it did to an old primary that stops has no limit, but must not be waited for without one.
        let timer = if step == Step::Dying { now + self.settings.hook_timeout } else { now };
        Run {
            id: intent.id,
            epoch: Epoch(intent.epoch),
            kind: Kind::Resumed,
            old: NodeId(intent.old),
            timeline: Timeline(intent.timeline),
            before: Epoch(0),
            begun: now,
            first_failed: now,
            step,
            ticket: None,
            timer: Some(timer),
            asked: BTreeSet::new(),
            doubted: BTreeSet::new(),
            standings: std::collections::BTreeMap::new(),
            candidate: intent.candidate.map(NodeId),
            stopped_at: (intent.stopped_at > 0).then_some(Lsn(intent.stopped_at)),
            written: None,
            sent: true,
            started: intent.started,
            hooks: intent.hooks,
            promise: (None, false),
            consent: Consent::Missing,
        }
    }
}
