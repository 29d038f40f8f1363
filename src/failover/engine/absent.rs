//! Standbys that die and come back (SCENARIOS S9): who has died beside a living primary is detached until an operator attaches it or
//! `auto_failback` does. Kept in memory alone: down is not sticky over a restart. What an operator has taken out is in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::words::{Duty, Hook};
use super::{Engine, is_well};
use crate::cluster::{Life, NodeId, NodeView, Status};

/// What is remembered of standbys.
#[derive(Debug, Default)]
pub(super) struct Absent {
    /// Used since they were last missed: only who was there can be missed.
    used: BTreeSet<NodeId>,
    /// Found dead beside a living primary, and not attached since.
    fallen: BTreeSet<NodeId>,
    /// When each was last attached by `auto_failback`.
    returned: BTreeMap<NodeId, Instant>,
}

impl Absent {
    /// In order.
    pub(super) fn fallen(&self) -> Vec<NodeId> {
        self.fallen.iter().copied().collect()
    }

    pub(super) fn is_fallen(&self, node: NodeId) -> bool {
        self.fallen.contains(&node)
    }

    /// It may be used again, or for the first time: until then it is not missed. Returns whether it was detached.
    pub(super) fn forgive(&mut self, node: NodeId) -> bool {
        self.used.remove(&node);
        self.fallen.remove(&node)
    }

    /// A primary that was replaced because it had died.
    pub(super) fn replaced(&mut self, node: NodeId) {
        self.fallen.insert(node);
    }

    /// What whoever led before has found.
    pub(super) fn inherit(&mut self, fallen: impl Iterator<Item = NodeId>) {
        self.fallen = fallen.collect();
    }

    /// Nodes that are configured no more are forgotten.
    pub(super) fn keep(&mut self, configured: impl Fn(NodeId) -> bool) {
        self.used.retain(|node| configured(*node));
        self.fallen.retain(|node| configured(*node));
        self.returned.retain(|node, _| configured(*node));
    }
}

impl Engine {
    /// What the present view says of the standbys.
    pub(super) fn look_after_standbys(&mut self, now: Instant) {
        let primary = self.believed();
        let lives = primary.is_some_and(|primary| self.leads(primary));
        let view = self.view.clone();
        for node in &view.nodes {
            if Some(node.id) == primary {
                if self.acts() {
                    self.absent.fallen.remove(&node.id);
                }
                continue;
            }
            if node.usable() {
                self.absent.used.insert(node.id);
            }
            if !self.acts() {
                continue;
            }
            let dead = self.is_dead(node.id);
            if dead && !lives {
                // Whoever dies together with the primary comes back as that one does: by itself.
                self.absent.used.remove(&node.id);
            }
            if self.run.as_ref().is_some_and(|run| !run.settled()) || !lives {
                continue;
            }
            if dead && self.may_fall(node.id) && self.is_seen_dead_by_all(node.id, now) {
                self.falls(node.id, now);
            } else if self.may_return(node, now) {
                self.returns(node.id, now);
            }
        }
    }

    /// As the probes say.
    pub(super) fn is_dead(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| matches!(node.life, Life::Dead(_)))
    }

    /// So many standbys answer as are needed to replace this primary; or why it cannot be replaced.
    pub(super) fn enough_answer(&self, old: NodeId, needed: usize) -> Result<(), String> {
        let there = self.standbys().len();
        if there >= needed {
            return Ok(());
        }
        Err(format!("{there} standbys answer, {needed} are needed{}", self.missing(old)))
    }

    /// Who counts in the majority that a promotion needs (HA H5) and cannot be had, for the reason why there is none.
    pub(super) fn missing(&self, old: NodeId) -> String {
        let there = self.standbys();
        let counts = |id: &NodeId| *id != old && !self.is_detached(*id) && !there.contains(id);
        let missing: Vec<NodeId> = self.settings.members.iter().map(|member| member.id).filter(counts).collect();
        let names = missing.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        if names.is_empty() { names } else { format!("; not there: {names} (detach who does not come back)") }
    }

    fn may_fall(&self, node: NodeId) -> bool {
        // What is not to be detached comes and goes by itself.
        let ours = self.member(node).is_some_and(|member| member.duty != Duty::Fixed);
        let known = self.absent.is_fallen(node) || self.is_detached(node) || self.is_condemned(node);
        ours && !known && self.absent.used.contains(&node)
    }

    fn falls(&mut self, node: NodeId, now: Instant) {
        self.absent.used.remove(&node);
        self.absent.fallen.insert(node);
        let why = match self.settings.auto_failback {
            Some(_) => "a standby is dead: detached until it streams from the primary again",
            None => "a standby is dead: detached until it is attached",
        };
        self.note("standby_lost", Some(node), why.to_owned(), Duration::ZERO);
        self.notify(Hook::Failover, node, now);
    }

    /// It streams from the present primary, on its timeline (HA H10), and has not come back too recently.
    fn may_return(&self, node: &NodeView, now: Instant) -> bool {
        let Some(interval) = self.settings.auto_failback else { return false };
        let rested = self.absent.returned.get(&node.id).is_none_or(|at| now >= *at + interval);
        // The status is what it would be but for its fall: whoever is not fit to be used is quarantined.
        let fit = self.absent.is_fallen(node.id) && node.status == Status::Detached && is_well(node);
        let streams = node.position.as_ref().is_some_and(|position| {
            position.streaming && position.timeline.0 == self.journal.timeline && self.journal.timeline > 0
        });
        rested && fit && streams && !self.is_detached(node.id) && !self.is_condemned(node.id)
    }

    fn returns(&mut self, node: NodeId, now: Instant) {
        self.absent.forgive(node);
        self.absent.returned.insert(node, now);
        self.note("attached", Some(node), "it streams from the primary again".to_owned(), Duration::ZERO);
        self.notify(Hook::Failback, node, now);
    }
}
