//! Hooks: each is written down before it is started, so that none is run twice by itself, and what has become of it is known, or said not
//! to be (HA H13).

use std::time::{Duration, Instant};

use super::run::text;
use super::words::{Begun, Hook, Job, Outcome, Ticket};
use super::{Engine, Purpose, REWRITE};
use crate::cluster::NodeId;

impl Begun {
    fn of(job: &Job) -> Option<Self> {
        match job {
            Job::Hook { hook, node, id, .. } => Some(Self { hook: *hook, node: node.0, id: *id }),
            _ => None,
        }
    }
}

impl Engine {
    /// From the next record on it counts as started.
    pub(super) fn hook_begins(&mut self, hook: Hook, node: NodeId, id: u64) {
        let begun = Begun { hook, node: node.0, id };
        if !self.journal.begun.contains(&begun) {
            self.journal.begun.push(begun);
        }
    }

    /// It is started.
    pub(super) fn hook_starts(&mut self, ticket: Ticket, job: &Job) {
        if let Some(begun) = Begun::of(job) {
            debug_assert!(self.journal.begun.contains(&begun), "{begun:?} is not written down");
            self.working.insert(ticket, begun);
        }
    }

    /// Its result is here, also if nobody waits for it any more: the event log has it.
    pub(super) fn hook_ended(&mut self, ticket: Ticket, now: Instant) {
        let Some(begun) = self.working.remove(&ticket) else { return };
        self.journal.begun.retain(|one| *one != begun);
        // What follows a step of the run is written down.
        let step = self.run.as_ref().is_some_and(|run| run.ticket == Some(ticket));
        if !step {
            self.record(now);
        }
    }

    /// Those of this attempt that were not started yet will not be.
    pub(super) fn forget_hooks(&mut self, id: u64) {
        let works = |one: &Begun| self.working.values().any(|begun| begun == one);
        self.journal.begun.retain(|one| one.id != id || works(one));
    }

    /// What the process before, or the leader before, had started: whoever was to be told of its end is gone. Returns whether there is any.
    pub(super) fn tell_unknown_hooks(&mut self) -> bool {
        let all = std::mem::take(&mut self.journal.begun);
        for Begun { hook, node, id } in &all {
            let why = format!(
                "{} of attempt {id} was started, or was about to be, by the process before: what has become of it is not known",
                hook.name()
            );
            self.note("hook_unknown", Some(NodeId(*node)), why, Duration::ZERO);
        }
        !all.is_empty()
    }

    /// Runs a hook that nobody waits for, once it is on disk that it was started.
    pub(super) fn hook_aside(
        &mut self,
        hook: Hook,
        (node, old, new): (NodeId, NodeId, Option<NodeId>),
        id: u64,
        now: Instant,
    ) {
        self.hook_begins(hook, node, id);
        let job = Job::Record(Box::new(self.journal.clone()));
        let ticket = self.give_for(Purpose::Announce, job, now);
        self.hooks.insert(ticket, Job::Hook { hook, node, old, new, id, locks: Vec::new() });
    }

    pub(super) fn announced(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        let Some(job) = self.hooks.remove(&ticket) else { return };
        let Some(begun @ Begun { hook, node, id }) = Begun::of(&job) else { return };
        match outcome {
            Outcome::Ok => {
                self.hook_begins(hook, NodeId(node), id);
                self.give_for(Purpose::Aside(hook.name()), job, now);
            }
            other => {
                self.journal.begun.retain(|one| *one != begun);
                let why = format!("{} is not run, since that cannot be written down: {}", hook.name(), text(other));
                self.note("hook_not_run", Some(NodeId(node)), why, Duration::ZERO);
                self.rewrite = Some(now + REWRITE);
            }
        }
    }
}
