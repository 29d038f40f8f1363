//! What is left to do on single nodes beside any run: taking back what recruiting changed, pointing standbys at the present primary. Tried
//! again until it is done, so that no node stays recruited.

use std::time::{Duration, Instant};

use super::run::text;
use super::words::{Hook, Job, Mode, Outcome};
use super::{Engine, Purpose};
use crate::cluster::{Life, NodeId};

/// Before a chore that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Engine {
    /// How many are under way.
    pub(super) fn chores_under_way(&self) -> usize {
        let chore = |purpose: &Purpose| matches!(purpose, Purpose::Restore(_) | Purpose::Follow(_));
        self.pending.values().filter(|(purpose, _)| chore(purpose)).count()
    }

    /// Starts what is due. A run that has not promoted yet, or waits for its candidate, needs its recruits as they are.
    pub(super) fn chores(&mut self, now: Instant) {
        if !self.acts() || self.run.as_ref().is_some_and(|run| !run.settled()) {
            return;
        }
        let primary = self.view.primary.filter(|primary| self.leads(*primary) && self.is_appointed(*primary));
        // Without a hook for it, as with the other modes: an operator may have promoted.
        let by_sql = self.settings.mode != Mode::Command || !self.settings.hooks.contains(&Hook::Follow);
        let old = self.journal.leader.map_or(NodeId(u16::MAX), |(old, _)| NodeId(old));
        for node in self.settings.members.iter().map(|member| member.id).collect::<Vec<_>>() {
            let busy = self
                .pending
                .values()
                .any(|(purpose, _)| *purpose == Purpose::Restore(node) || *purpose == Purpose::Follow(node));
            let pausing = self.pauses.get(&node).is_some_and(|at| *at > now);
            if busy || pausing || self.node(node).is_none_or(|view| view.life != Life::Well) {
                continue;
            }
            let follows = self.journal.following.contains(&node.0) && self.stands_by(node);
            let restores = self.journal.recruited.contains(&node.0) || self.unseen.contains(&node);
            match primary {
                Some(primary) if follows && primary != node && by_sql => {
                    self.give_for(Purpose::Follow(node), Job::Follow { node, primary, old }, now);
                }
                _ if restores => drop(self.give_for(Purpose::Restore(node), Job::Restore(node), now)),
                Some(primary) if follows && primary != node => self.follow_by_hook(node, now),
                _ => {}
            }
        }
    }

    pub(super) fn restored(&mut self, node: NodeId, outcome: Outcome, now: Instant) {
        if outcome != Outcome::Ok {
            return self.chore_failed("restore_failed", node, outcome, now);
        }
        self.pauses.remove(&node);
        self.unseen.remove(&node);
        if self.journal.recruited.contains(&node.0) {
            self.journal.recruited.retain(|id| *id != node.0);
            self.record(now);
        }
    }

    pub(super) fn followed(&mut self, node: NodeId, outcome: Outcome, now: Instant) {
        if outcome != Outcome::Ok {
            return self.chore_failed("follow_failed", node, outcome, now);
        }
        self.pauses.remove(&node);
        self.unseen.remove(&node);
        self.journal.recruited.retain(|id| *id != node.0);
        self.note("follows", Some(node), "it follows the new primary".to_owned(), Duration::ZERO);
        self.follow_by_hook(node, now);
    }

    /// Runs `follow_primary_command` for a standby, once, and counts it as told.
    fn follow_by_hook(&mut self, node: NodeId, now: Instant) {
        self.journal.following.retain(|id| *id != node.0);
        let run = self.settings.hooks.contains(&Hook::Follow) && !self.journal.hooked.contains(&node.0);
        if !run {
            return self.record(now);
        }
        self.journal.hooked.push(node.0);
        let (old, id) = self.journal.leader.map_or((NodeId(u16::MAX), 0), |(old, id)| (NodeId(old), id));
        self.hook_aside(Hook::Follow, (node, old, self.view.primary), id, now);
    }

    fn chore_failed(&mut self, event: &'static str, node: NodeId, outcome: Outcome, now: Instant) {
        // The first failure of a row is told.
        if self.pauses.insert(node, now + AGAIN).is_none() {
            self.note(event, Some(node), text(outcome), Duration::ZERO);
        }
    }
}
