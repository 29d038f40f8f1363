//! What partner proxies mean for failover: whoever leads them acts, alone, by a journal that a majority has on disk; the others obey what is
//! agreed (HA H3, H13, H17). Without partners nothing here does anything.

use std::time::{Duration, Instant};

use super::promotion::Replaced;
use super::run::{Kind, Run, Step, text};
use super::step::Consent;
use super::words::{Action, Duty, IntentStep, Job, Journal, Mode, Outcome};
use super::{Engine, Purpose};
use crate::cluster::{Accord, Epoch, Hold, Life, Mandate, NodeId, Succession, Timeline};

/// Why a run is given up that they had agreed to.
pub(super) const WITHDRAWN: &str = "the partners see the primary again";
/// Between two attempts to agree on who is primary.
const AGAIN: Duration = Duration::from_secs(1);
/// Before a node that this proxy has lost counts as lost for all: by then it is known what partners see.
const ALONE: Duration = Duration::from_millis(700);

impl Engine {
    /// May this proxy change anything?
    pub(super) fn acts(&self) -> bool {
        self.accord.as_ref().is_none_or(|accord| accord.leads.is_some())
    }

    /// Something else is agreed on, or somebody else leads.
    pub(super) fn agree(&mut self, new: Accord, now: Instant) {
        let Some(old) = self.accord.replace(new.clone()) else {
            self.accord = None;
            return;
        };
        self.floor = self.floor.max(new.epoch);
        self.look_for_withdrawal(&new, now);
        let begins = new.leads.is_some() && new.leads != old.leads;
        if old.leads.is_some() && new.leads != old.leads {
            self.depose(now);
        }
        if !begins && (new.leads.is_some() || new.version == old.version) {
            return;
        }
        match serde_json::from_str::<Journal>(&new.body) {
            Ok(journal) => self.take_over(journal, old.epoch, now),
            // Nothing was agreed on yet: what this proxy alone has written down begins it.
            Err(_) => self.journal.epoch = new.epoch.0,
        }
        if begins {
            self.unseen = self.settings.members.iter().map(|member| member.id).collect();
            self.pauses.clear();
            self.claim = now;
            if self.tell_unknown_hooks() {
                self.record(now);
            }
            self.resume(now);
            // A view that came before counts from now on.
            self.see(self.view.clone(), now);
        }
    }

    /// Partners have agreed that the primary is lost, and most of those that were heard a moment ago see it again: only this proxy has lost it.
    fn look_for_withdrawal(&mut self, new: &Accord, now: Instant) {
        let run = self.run.as_ref().filter(|run| run.consent == Consent::Given && !run.irrevocable());
        let lives = run.is_some_and(|run| new.blind.contains(&run.old) && self.must_be_lost(run));
        let Some(run) = self.run.as_mut().filter(|_| lives) else { return };
        // What is being written is looked at once more when that is done.
        run.consent = Consent::Withdrawn;
        if !run.is_being_written() {
            self.abandon(WITHDRAWN, now);
        }
    }

    /// The primary that this run replaces must be lost to a majority of those who look: nobody has ordered that it be replaced, it has not
    /// been stopped, and it has not come back as a standby. That `demote_command` was run is no proof that it has stopped anything: what is
    /// only lost to this proxy others are asked about.
    fn must_be_lost(&self, run: &Run) -> bool {
        match run.kind {
            Kind::Failover => !self.stands_by(run.old),
            Kind::Resumed => self.stopped.is_none() && !self.stands_by(run.old),
            Kind::ByHand(..) | Kind::SwitchOver(..) => false,
        }
    }

    /// What is under way belongs to whoever leads next.
    fn depose(&mut self, now: Instant) {
        let why = "this proxy leads no more; whoever does goes on with it";
        if let Some(run) = self.run.take() {
            self.note("failover_left", Some(run.old), why.to_owned(), now - run.begun);
            if let Kind::ByHand(ticket, _) | Kind::SwitchOver(ticket, _) = run.kind {
                self.out.push(Action::Reply(ticket, Err(why.to_owned())));
            }
        }
        let readied = self.pending.values().filter_map(|(purpose, _)| purpose.readies());
        self.out.extend(readied.map(|(ticket, _)| Action::Reply(ticket, Err(why.to_owned()))));
        let ours = |purpose: &Purpose| *purpose != Purpose::Close;
        let given_up =
            self.pending.iter().filter(|(_, (purpose, _))| ours(purpose)).map(|(ticket, _)| *ticket).collect();
        self.pending.retain(|_, (purpose, _)| !ours(purpose));
        self.hooks.clear();
        self.working.clear();
        (self.asked, self.succession) = (false, self.agreed_succession());
        (self.outage, self.obeyed, self.rewrite, self.stopped) = (None, None, None, None);
        self.out.push(Action::Drop(given_up));
    }

    /// The journal of whoever leads, or led; the one that was known was of the epoch `before`.
    fn take_over(&mut self, journal: Journal, before: Epoch, now: Instant) {
        let timeline = Timeline(self.journal.timeline);
        let (old, new) = (self.journal.primary.map(NodeId), journal.primary.map(NodeId));
        self.absent.inherit(journal.fallen.iter().copied().map(NodeId));
        self.journal = journal;
        self.inherited = self.journal.demoted.map(|_| now + self.settings.hook_timeout);
        if let Some(old) = old.filter(|old| Some(*old) != new && self.member(*old).is_some()) {
            self.replaced = Some(Replaced { old, timeline, before });
            self.closing = Some(self.give_for(Purpose::Close, Job::Fence(old), now));
            self.note("primary_agreed", new, "agreed on with the partner proxies".to_owned(), Duration::ZERO);
        }
    }

    /// The primary that is agreed on, as long as it is configured.
    pub(super) fn agreed_primary(&self) -> Option<NodeId> {
        self.journal.primary.map(NodeId).filter(|id| self.member(*id).is_some())
    }

    /// Nobody but the agreed primary is one, in the agreed epoch, but for the candidate of a run.
    pub(super) fn agreed_mandate(&self, own: Mandate) -> Mandate {
        match (&self.accord, own) {
            // An operator's word alone is not agreed on yet.
            (Some(accord), Mandate::Free | Mandate::Only(_, Epoch(0))) => {
                self.agreed_primary().map_or(Mandate::Free, |primary| Mandate::Only(primary, accord.epoch))
            }
            _ => own,
        }
    }

    /// Statements wait while partners have not agreed on this epoch, or while whoever leads has begun what cannot be taken back.
    pub(super) fn partners_hold(&self, hold: Option<Hold>) -> Option<Hold> {
        let Some(accord) = &self.accord else { return hold };
        let step = self.journal.intent.as_ref().map(|intent| intent.step);
        match hold {
            // Somebody else may be at it.
            Some(Hold::NoPrimary) if !self.acts() && self.settings.mode != Mode::Never => Some(Hold::Failover),
            Some(hold) => Some(hold),
            None if matches!(step, Some(IntentStep::Promoting | IntentStep::Demoting)) => Some(Hold::Failover),
            None if !accord.writes || accord.epoch != self.view.epoch || accord.epoch == Epoch(0) => {
                Some(Hold::Partners)
            }
            // Who is primary in the next epoch is written down here and not agreed on yet.
            None if accord.epoch.0 != self.journal.epoch => Some(Hold::Partners),
            // The epoch is agreed on before this proxy has seen who is primary in it; the one before may still answer here.
            None if self.agreed_primary().is_some_and(|agreed| self.view.primary != Some(agreed)) => {
                Some(Hold::Partners)
            }
            None => None,
        }
    }

    /// Partners may go back from a primary that they have not agreed on: until then nothing is known to be missing.
    pub(super) fn agreed_succession(&self) -> Option<Succession> {
        let agreed = |epoch: Epoch| self.accord.as_ref().is_none_or(|accord| accord.epoch >= epoch);
        self.succession.filter(|succession| agreed(succession.after))
    }

    /// What the new primary's history lacks (HA H14) each proxy finds by itself: the probes of this one tell when the standby that became it
    /// had received how much, by the clock that its own statements were sent by. All that it must be told is who was replaced, and when.
    pub(super) fn learn_succession(&mut self) {
        let agreed = self.accord.as_ref().is_some_and(|accord| accord.epoch == self.view.epoch);
        let primary = self.view.primary.filter(|id| agreed && self.agreed_primary() == Some(*id) && self.leads(*id));
        let Some((replaced, primary)) = self.replaced.zip(primary) else { return };
        if let Some(succession) = self.inherited(replaced, primary) {
            (self.succession, self.replaced) = (Some(succession), None);
        }
    }

    /// Asks partners for leave to go on with the run.
    pub(super) fn ask_partners(&mut self, old: NodeId, now: Instant) {
        let planned = self.run.as_ref().is_some_and(|run| !self.must_be_lost(run));
        self.give_step(Step::Consenting, Job::Consent { node: old, planned }, now);
        self.asked = true;
    }

    /// A run is given up: what leave was given for does not happen. What was only asked for may be given yet, and another attempt lives on what
    /// was prepared for this one: partners go on once the primary is well, see [`give_back`](Self::give_back).
    pub(super) fn stop_asking(&mut self, run: &Run, now: Instant) {
        if run.consent != Consent::Missing && self.accord.is_some() {
            self.go_on(now);
        }
        let asks = run.ticket.filter(|_| run.step == Step::Consenting);
        if let Some((purpose, _)) = asks.and_then(|ticket| self.pending.get_mut(&ticket)) {
            *purpose = Purpose::Unwanted;
        }
    }

    fn is_asking(&self) -> bool {
        self.pending.values().any(|(purpose, _)| matches!(purpose, Purpose::Unwanted | Purpose::Claim(_)))
    }

    /// Not if they are about to agree on what they have stopped for.
    fn go_on(&mut self, now: Instant) {
        if self.accord.as_ref().is_some_and(|accord| accord.epoch.0 < self.journal.epoch) {
            return;
        }
        self.give_for(Purpose::Aside("resume"), Job::Resume, now);
        self.asked = self.is_asking();
    }

    /// Nothing is going to be done: who has stopped writing for it goes on. Not before there is an answer: it would be prepared again.
    pub(super) fn give_back(&mut self, now: Instant) {
        if self.asked && self.accord.is_some() && !self.is_asking() {
            self.go_on(now);
        }
    }

    /// What the view says to whoever leads.
    pub(super) fn see_together(&mut self, now: Instant) {
        let Some(primary) = self.view.primary.filter(|id| self.leads(*id)) else { return };
        let timeline = self.node(primary).and_then(|node| Some(node.position.as_ref()?.timeline.0)).unwrap_or(0);
        let run = self.run.as_ref().filter(|run| run.irrevocable() && run.candidate == Some(primary));
        let promoted = run.filter(|_| Some(primary.0) != self.journal.primary || timeline > self.journal.timeline);
        if let Some(epoch) = promoted.filter(|run| run.consent == Consent::Given).map(|run| run.epoch) {
            self.appoint(primary, epoch, now);
            return;
        }
        if promoted.is_some() {
            // Taken up behind the promotion: nobody may write under the old epoch any more.
            return self.ask_for_epoch(primary, now);
        }
        let asked = self.node(primary).and_then(|node| Some(node.position.as_ref()?.sample.asked));
        let stale = self.stopped.is_some_and(|stopped| asked.is_none_or(|asked| asked <= stopped));
        if stale || self.agreed_primary() != Some(primary) || timeline < self.journal.timeline {
            return;
        }
        let synchronous = self.view.synchronous.as_ref().to_owned();
        if (self.journal.timeline, &self.journal.synchronous) != (timeline, &synchronous)
            || self.journal.spent == Some(primary.0)
            || (self.run.is_none() && self.is_past_demotion(primary, now))
        {
            (self.journal.timeline, self.journal.synchronous) = (timeline, synchronous);
            self.journal.spent = None;
            self.forget_demotion(primary, now);
            self.record(now);
        }
    }

    /// The partners know of this primary, or there are none.
    pub(super) fn is_appointed(&self, primary: NodeId) -> bool {
        self.accord.is_none() || self.journal.primary == Some(primary.0)
    }

    /// From now on this node is the primary of that epoch.
    fn appoint(&mut self, primary: NodeId, epoch: Epoch, now: Instant) {
        let timeline = self.node(primary).and_then(|node| Some(node.position.as_ref()?.timeline.0)).unwrap_or(0);
        self.obeyed = self.obeyed.filter(|node| *node != primary);
        if Some(primary.0) != self.journal.primary {
            (self.replaced, self.lifted) = (None, self.lifted.filter(|lifted| *lifted == primary));
            if !self.is_promoting(primary) {
                self.adopted(primary, now);
            }
        }
        self.journal.spent = None;
        self.forget_demotion(primary, now);
        (self.journal.epoch, self.journal.primary, self.journal.timeline) = (epoch.0, Some(primary.0), timeline);
        self.journal.synchronous = self.view.synchronous.as_ref().to_owned();
        self.journal.system = self.system_of(primary).unwrap_or(self.journal.system);
        self.record(now);
    }

    /// A primary that nobody has agreed on yet: the first one, or one that somebody else promoted. Returns whether that is under way.
    pub(super) fn adopts(&mut self, now: Instant) -> bool {
        if self.accord.is_none() {
            return false;
        }
        let asking = self.pending.values().any(|(purpose, _)| matches!(purpose, Purpose::Claim(_)));
        if asking {
            return true;
        }
        let Some(found) = self.adoptable() else { return false };
        let first = self.accord.as_ref().is_some_and(|accord| accord.epoch == Epoch(0));
        if first && self.journal.primary.is_none_or(|id| id == found.0) {
            // Nobody writes under no epoch.
            // Not below the timeline, as elsewhere.
            let timeline = self.node(found).and_then(|node| Some(node.position.as_ref()?.timeline.0)).unwrap_or(0);
            let epoch = u64::from(timeline).max(1);
            if self.journal.epoch == 0 || self.journal.primary.is_none() {
                self.appoint(found, Epoch(epoch), now);
            }
            return false;
        }
        self.ask_for_epoch(found, now);
        true
    }

    fn adoptable(&self) -> Option<NodeId> {
        let timeline = Timeline(self.journal.timeline);
        let first = self.accord.as_ref().is_some_and(|accord| accord.epoch == Epoch(0));
        let Some(old) = self.agreed_primary() else {
            return self.view.primary.filter(|id| self.leads(*id));
        };
        if self.leads(old) {
            return Some(old).filter(|_| first);
        }
        // One of two that cannot be told apart is none.
        let may = |id: &NodeId| {
            self.leads_beyond(*id, timeline)
                && (self.obeyed == Some(*id) || !self.is_condemned(*id))
                && !self.is_detached(*id)
                && self.late() != Some(*id)
                && self.member(*id).is_some_and(|member| member.duty != Duty::Standby)
        };
        let mut found = self.settings.members.iter().map(|member| member.id).filter(may);
        let one = found.next().filter(|_| found.next().is_none())?;
        let gone = self.stands_by(old) || self.is_dead(old) || self.obeyed == Some(one);
        Some(one).filter(|_| gone)
    }

    fn ask_for_epoch(&mut self, primary: NodeId, now: Instant) {
        let asking = self.pending.values().any(|(purpose, _)| matches!(purpose, Purpose::Claim(_)));
        if asking || now < self.claim {
            return;
        }
        self.claim = now + AGAIN;
        let old = self.agreed_primary().unwrap_or(primary);
        // Who says that it is a standby takes no writes; a dead one must be dead for a majority.
        let planned = !self.is_dead(old) || self.obeyed.is_some() || self.run.is_some();
        self.give_for(Purpose::Claim(primary), Job::Consent { node: old, planned }, now);
        self.asked = true;
    }

    pub(super) fn claimed(&mut self, primary: NodeId, outcome: Outcome, now: Instant) {
        let epoch = match outcome {
            Outcome::Granted(epoch) => epoch,
            other => return self.tell("primary_not_agreed", Some(primary), &text(other), now),
        };
        let wanted = self.is_promoting(primary) || self.adoptable() == Some(primary);
        if !self.leads(primary) || !wanted {
            // Asked again if it is wanted again: what is prepared now is forgotten then.
            return self.go_on(now);
        }
        let ours = self.run.as_mut().filter(|run| run.candidate == Some(primary));
        if let Some(run) = ours {
            (run.epoch, run.consent) = (epoch, Consent::Given);
        }
        self.appoint(primary, epoch, now);
    }

    /// Dead for longer than it takes to hear from partners that it lives for them.
    pub(super) fn is_seen_dead_by_all(&self, node: NodeId, now: Instant) -> bool {
        let Some(accord) = &self.accord else { return true };
        let since = self.node(node).map(|node| node.life);
        let long = matches!(since, Some(Life::Dead(since)) if now >= since + ALONE);
        long && !accord.blind.contains(&node)
    }

    /// What only memory holds elsewhere must survive this proxy.
    pub(super) fn keep_partners_informed(&mut self, now: Instant) {
        if self.accord.as_ref().is_none_or(|accord| accord.leads.is_none() || accord.epoch == Epoch(0)) {
            return;
        }
        let fallen: Vec<u16> = self.absent.fallen().into_iter().map(|node| node.0).collect();
        if fallen != self.journal.fallen {
            self.journal.fallen = fallen;
            self.record(now);
        }
    }
}
