//! What an operator orders (HA H25), and the way of a switch-over up to the point where it becomes a promotion like any other (HA H12):
//! drain → checkpoint → close → announce → stop the old primary → the candidate has everything.

use std::time::{Duration, Instant};

use super::choice;
use super::run::{Kind, Step, text};
use super::words::{Action, Duty, Hook, IntentStep, Job, Order, Outcome, Ticket};
use super::{Engine, Purpose};
use crate::cluster::{Life, NodeId, Role, Timeline};

/// An old primary whose stop failed is looked at for so long before it is given up.
const LAST_LOOK: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn order(&mut self, ticket: Ticket, order: Order, now: Instant) {
        if !self.acts() {
            let why = "this proxy does not lead its partners: give the order to the one that does (`pgherd pcp watchdog_info` tells which)";
            return self.out.push(Action::Reply(ticket, Err(why.to_owned())));
        }
        let answer = match order {
            Order::Detach(node) => self.detach(node, now).map(Some),
            Order::Attach(node) => self.attach(node, now).map(Some),
            Order::Promote(node) if self.is_rival(node) => Ok(Some(self.obey(node))),
            Order::Promote(node) => self.promote_by_hand(ticket, node, now).map(|()| None),
            Order::SwitchOver(node) => self.make_ready(ticket, node, now).map(|()| None),
        };
        match answer {
            Ok(Some(text)) => self.out.push(Action::Reply(ticket, Ok(text))),
            // Answered when it is over.
            Ok(None) => {}
            Err(why) => self.out.push(Action::Reply(ticket, Err(why))),
        }
    }

    fn known(&self, node: NodeId) -> Result<(), String> {
        self.member(node).map(drop).ok_or_else(|| format!("there is no node {node}"))
    }

    fn detach(&mut self, node: NodeId, now: Instant) -> Result<String, String> {
        self.known(node)?;
        if self.believed() == Some(node) {
            self.gone(node, None)?;
        }
        if self.run.as_ref().is_some_and(|run| run.candidate == Some(node)) {
            return Err(format!("node {node} is being promoted"));
        }
        if self.is_detached(node) {
            return Ok(format!("node {node} is detached already"));
        }
        if self.run.as_ref().is_some_and(|run| !run.irrevocable() && !run.is_being_written()) {
            self.abandon("an operator takes a node out", now);
        }
        // Who takes it out answers for what it still becomes.
        self.journal.promised = self.journal.promised.filter(|(promised, _)| *promised != node.0);
        self.journal.detached.push(node.0);
        self.journal.detached.sort_unstable();
        self.record(now);
        self.note("detached", Some(node), "by an operator".to_owned(), Duration::ZERO);
        if !self.absent.forgive(node) {
            self.notify(Hook::Failover, node, now);
        }
        Ok(format!("node {node} is detached"))
    }

    fn attach(&mut self, node: NodeId, now: Instant) -> Result<String, String> {
        self.known(node)?;
        if self.late() == Some(node) {
            return Err(promised(node));
        }
        if !self.is_detached(node) && !self.is_condemned(node) && !self.absent.is_fallen(node) {
            return Ok(format!("node {node} is attached already"));
        }
        let beside = self.leads(node) && self.believed().is_some_and(|primary| primary != node);
        if beside || self.is_condemned(node) && !self.stands_by(node) {
            return Err(format!("node {node} does not answer as a standby: rebuild it first"));
        }
        self.journal.condemned.retain(|id| *id != node.0);
        self.journal.detached.retain(|id| *id != node.0);
        self.absent.forgive(node);
        self.record(now);
        self.note("attached", Some(node), "by an operator".to_owned(), Duration::ZERO);
        self.notify(Hook::Failback, node, now);
        Ok(format!("node {node} is attached; it is used as soon as it is well"))
    }

    /// Runs the hook for a node that comes or goes; nobody waits for it.
    pub(super) fn notify(&mut self, hook: Hook, node: NodeId, now: Instant) {
        let Some(primary) = self.believed().filter(|_| self.settings.hooks.contains(&hook)) else { return };
        self.journal.attempts += 1;
        self.hook_aside(hook, (node, primary, Some(primary)), self.journal.attempts, now);
    }

    fn promote_by_hand(&mut self, ticket: Ticket, node: NodeId, now: Instant) -> Result<(), String> {
        self.known(node)?;
        let primary = self.believed().ok_or("no primary was ever known")?;
        let first_failed = self.gone(primary, Some(node))?.unwrap_or(now);
        self.may_lead(node)?;
        if self.run.as_ref().is_some_and(|run| run.irrevocable() || run.is_being_written()) {
            return Err("a promotion is under way that cannot be taken back".to_owned());
        }
        self.abandon("an operator promotes", now);
        self.begin(Kind::ByHand(ticket, node), primary, first_failed, now);
        Ok(())
    }

    /// The primary does not answer as one: since when, if it is dead. What only says that it starts or stops, for however long, and what has
    /// come back as a standby is gone as well: nobody but an operator can know better.
    fn gone(&self, primary: NodeId, successor: Option<NodeId>) -> Result<Option<Instant>, String> {
        match self.node(primary).map_or(Life::Unknown, |node| node.life) {
            Life::Dead(first_failed) => Ok(Some(first_failed)),
            Life::Busy(_) => Ok(None),
            Life::Well if !self.leads(primary) => Ok(None),
            Life::Well => Err(format!("node {primary} is the primary and answers: {}", how_to_switch(successor))),
            Life::Suspect(_) | Life::Unknown => {
                Err(format!("it is not known yet whether the primary, node {primary}, lives: try again in a moment"))
            }
        }
    }

    /// The primary is dead, or is none any more, and this node was promoted before.
    fn is_rival(&self, node: NodeId) -> bool {
        let gone = |primary| self.is_dead(primary) || self.stands_by(primary);
        let gone = self.believed().is_some_and(|primary| primary != node && gone(primary));
        gone && self.run.is_none() && self.rival(Timeline(self.journal.timeline)) == Some(node)
    }

    fn obey(&mut self, node: NodeId) -> String {
        self.obeyed = Some(node);
        self.journal.condemned.retain(|id| *id != node.0);
        self.journal.detached.retain(|id| *id != node.0);
        if self.late() == Some(node) {
            (self.journal.promised, self.journal.late) = (None, false);
        }
        self.note("rival_obeyed", Some(node), "by an operator".to_owned(), Duration::ZERO);
        format!("node {node} is the primary from now on; what the old one wrote since then is lost")
    }

    fn may_lead(&self, node: NodeId) -> Result<(), String> {
        if self.member(node).is_none_or(|member| member.duty != Duty::Any) {
            return Err(format!("node {node} may not be primary by configuration"));
        }
        if self.is_detached(node) || self.is_condemned(node) {
            return Err(format!("node {node} is detached: attach it first"));
        }
        if self.is_foreign(node) {
            return Err(format!("node {node} belongs to another cluster: its system identifier is not the primary's"));
        }
        if !self.stands_by(node) {
            return Err(format!("node {node} does not answer as a standby"));
        }
        Ok(())
    }

    /// What the old primary has not written to its disk yet is written before anybody has to wait for it.
    fn make_ready(&mut self, ticket: Ticket, node: Option<NodeId>, now: Instant) -> Result<(), String> {
        let (primary, _) = self.roles(node, now)?;
        self.give_for(Purpose::Ready(ticket, node), Job::Ready(primary), now);
        Ok(())
    }

    /// The order is looked at once more: the world may have changed since.
    pub(super) fn readied(&mut self, order: Ticket, node: Option<NodeId>, outcome: Outcome, now: Instant) {
        let answer = match outcome {
            Outcome::Ok => self.roles(node, now),
            other => Err(format!("CHECKPOINT on the primary: {}", text(other))),
        };
        match answer {
            Ok((primary, successor)) => self.begin(Kind::SwitchOver(order, Some(successor)), primary, now, now),
            Err(why) => self.out.push(Action::Reply(order, Err(why))),
        }
    }

    /// From whom to whom a switch-over moves the role now.
    fn roles(&self, node: Option<NodeId>, now: Instant) -> Result<(NodeId, NodeId), String> {
        if !self.settings.hooks.contains(&Hook::Demote) {
            return Err("there is no means to stop the primary: set failover.demote_command, or pgpool-II's extension in [recovery]".to_owned());
        }
        if self.run.is_some() || self.pending.values().any(|(purpose, _)| purpose.readies().is_some()) {
            return Err("a failover is under way".to_owned());
        }
        // Nothing is stopped for what may not be promoted, or by somebody else at any moment.
        if let Some(late) = self.late() {
            return Err(promised(late));
        }
        let obeyed = |primary: &NodeId| self.leads(*primary) && self.is_appointed(*primary);
        let primary = self.view.primary.filter(obeyed).ok_or("there is no primary that answers")?;
        let works = self.pending.values().any(|(purpose, _)| *purpose == Purpose::Demote);
        if works || self.is_being_demoted(primary, now) {
            return Err("demote_command may still run for a switch-over that was given up".to_owned());
        }
        if self.member(primary).is_none_or(|member| member.duty == Duty::Fixed) {
            return Err(format!("the role of node {primary} is fixed by configuration"));
        }
        let streams = |id: &NodeId| {
            self.node(*id).and_then(|node| node.position.as_ref()).is_some_and(|position| position.streaming)
        };
        let position = |id: &NodeId| self.node(*id).and_then(|node| Some(node.position.as_ref()?.sample.lsn));
        let all = self.settings.members.iter().map(|member| member.id);
        let best = all.filter(|id| *id != primary && self.may_lead(*id).is_ok() && streams(id));
        let node = match node {
            Some(node) if node == primary => return Err(format!("node {node} is the primary")),
            Some(node) => node,
            None => best.max_by_key(position).ok_or("no standby that may be primary streams from the primary")?,
        };
        self.known(node)?;
        self.may_lead(node)?;
        if !streams(&node) {
            return Err(format!("node {node} does not stream from the primary"));
        }
        self.enough_answer(primary, choice::majority(&self.settings, Some(primary), &self.journal.detached))?;
        Ok((primary, node))
    }

    /// The standby that a switch-over moves the role to.
    fn successor(&self) -> Option<NodeId> {
        match self.run.as_ref()?.kind {
            Kind::SwitchOver(_, node) => node,
            _ => self.run.as_ref()?.candidate,
        }
    }

    /// A job of the steps before the promotion has ended.
    pub(super) fn planned_done(&mut self, outcome: Outcome, now: Instant) {
        let (Some(run), Some(node)) = (self.run.as_ref(), self.successor()) else { return };
        let (old, id) = (run.old, run.id);
        match (&run.step, outcome) {
            (Step::Draining, Outcome::Ok) => {
                self.give_step(Step::Checkpointing, Job::Checkpoint { node: old, follow: node }, now);
            }
            (Step::Checkpointing, Outcome::Position(lsn)) => {
                if let Some(run) = self.run.as_mut() {
                    run.written = Some(lsn);
                }
                self.give_step(Step::Closing, Job::Fence(old), now);
            }
            (Step::Closing, Outcome::Ok) => self.announce(node, now),
            (Step::Announcing, Outcome::Ok) => {
                let (hook, new, locks) = (Hook::Demote, Some(node), Vec::new());
                let job = Job::Hook { hook, node: old, old, new, id, locks };
                let ticket = self.give_for(Purpose::Demote, job, now);
                let Some(run) = self.run.as_mut() else { return };
                (run.step, run.ticket, run.timer) = (Step::Demoting, Some(ticket), None);
            }
            (Step::Announcing, other) => {
                if let Some(run) = self.run.as_mut() {
                    run.stopped_at = None;
                }
                self.abandon(&format!("the decision cannot be written down: {}", text(other)), now);
            }
            (Step::Demoting, Outcome::Ok) => self.catch_up(node, now),
            (Step::Demoting, other) => {
                self.note("demote_failed", Some(old), text(other), Duration::ZERO);
                self.wait_step(Step::Dying, Some(now + LAST_LOOK));
            }
            (Step::CatchingUp, Outcome::Ok) => self.wait_step(Step::Waiting, None),
            (Step::CatchingUp, other) => {
                self.note("catch_up_failed", Some(node), text(other), Duration::ZERO);
                self.wait_step(Step::Dying, Some(now + LAST_LOOK));
            }
            (step, other) => {
                let why = format!("the switch-over was given up ({step:?}): {}", text(other));
                self.abandon(&why, now);
            }
        }
    }

    /// `demote_command` has ended, even if what it was run for was given up meanwhile.
    pub(super) fn demote_done(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        self.stopped = Some(now);
        self.step_done(ticket, outcome, now);
    }

    /// A `demote_command` may still stop this primary: it is no reason to forget that one was run that the primary answers yet.
    fn is_being_demoted(&self, primary: NodeId, now: Instant) -> bool {
        let works = self.pending.values().any(|(purpose, _)| *purpose == Purpose::Demote);
        self.is_demoted(primary) && (works || self.inherited.is_some_and(|until| now < until))
    }

    /// A primary was stopped, or was to be stopped, and this one answers all the same: there is nothing to remember.
    pub(super) fn is_past_demotion(&self, primary: NodeId, now: Instant) -> bool {
        self.journal.demoted.is_some() && !self.is_being_demoted(primary, now)
    }

    /// Whoever replaced a primary, or was left one, is obeyed from now on.
    pub(super) fn forget_demotion(&mut self, primary: NodeId, now: Instant) {
        if !self.is_being_demoted(primary, now) {
            (self.journal.demoted, self.stopped, self.inherited) = (None, None, None);
        }
    }

    fn announce(&mut self, node: NodeId, now: Instant) {
        let Some(run) = self.run.as_mut() else { return };
        run.candidate = Some(node);
        run.stopped_at = run.written;
        self.journal.intent = Some(run.intent(IntentStep::Demoting));
        let (old, id) = (run.old, run.id);
        self.journal.demoted = Some(old.0);
        self.hook_begins(Hook::Demote, old, id);
        let journal = Box::new(self.journal.clone());
        self.give_step(Step::Announcing, Job::Record(journal), now);
    }

    fn catch_up(&mut self, node: NodeId, now: Instant) {
        let Some((old, lsn)) = self.run.as_ref().and_then(|run| Some((run.old, run.stopped_at?))) else { return };
        self.give_step(Step::CatchingUp, Job::CatchUp { node, old, lsn }, now);
    }

    /// The stop failed, or it is not known what became of it: a living old primary stays primary, a dead one is replaced as any other.
    pub(super) fn dying(&mut self, now: Instant) -> bool {
        let Some(run) = self.run.as_mut() else { return false };
        let (old, late) = (run.old, run.timer.is_some_and(|timer| now >= timer));
        if late && self.leads(old) {
            self.abandon("the old primary was not stopped: it stays the primary", now);
            return true;
        }
        if !self.old_is_down(old) {
            return false;
        }
        // Whether it sent everything before it stopped is not known: the rules of a failover hold.
        let Some(run) = self.run.as_mut() else { return false };
        run.stopped_at = None;
        run.candidate = None;
        run.kind = match run.kind {
            Kind::SwitchOver(ticket, Some(node)) => Kind::ByHand(ticket, node),
            _ => Kind::Resumed,
        };
        self.wait_step(Step::Waiting, None);
        true
    }

    /// The old primary's role was seen as a standby's, or it is dead, or it does not answer.
    fn old_is_down(&self, old: NodeId) -> bool {
        self.node(old).is_none_or(|node| matches!(node.life, Life::Dead(_)) || node.role == Role::Standby)
    }
}

impl Purpose {
    /// The order that waits for it, and whom it names.
    pub(super) fn readies(self) -> Option<(Ticket, Option<NodeId>)> {
        if let Self::Ready(order, node) = self { Some((order, node)) } else { None }
    }
}

/// What has to be done before anything is certain again.
fn promised(node: NodeId) -> String {
    format!("failover_command may still promote node {node}: restart it as a standby, detach it, then attach it")
}

/// The words that an operator needs.
fn how_to_switch(node: Option<NodeId>) -> String {
    let node = node.map_or_else(|| "N".to_owned(), |node| node.to_string());
    format!("move its role first, with `pgherd pcp promote_node --switchover {node}`")
}
