//! Which node a read goes to now: policy and weights, what the session must be able to see, and who is up.

use crate::cluster::NodeId;
use crate::config::Consistency;
use crate::routing::{self, Allowed, Reason, SessionView, Target};

use super::Session;
use super::block::Block;
use super::look::Where;
use super::survey::Survey;

/// Standbys that are looked at for one read.
const MOST_STANDBYS: usize = 16;

impl Session {
    /// Where a request that standbys may answer goes. Nodes in `avoid` have failed it already.
    pub(super) fn place(&mut self, survey: &Survey, avoid: &[NodeId]) -> (Where, Reason) {
        let (place, reason) = self.place_and_reason(survey, avoid);
        if reason == Reason::Consistency {
            self.context.counters.kept.add(1);
        }
        (place, reason)
    }

    /// As [`place`](Self::place), with the reason.
    pub(super) fn place_and_reason(&mut self, survey: &Survey, avoid: &[NodeId]) -> (Where, Reason) {
        let refused = |looked: &super::look::Looked| self.context.refused_before(&self.who, looked.facts.fingerprint);
        if survey.statements.iter().any(refused) {
            return (Where::Primary, Reason::Remembered);
        }
        let Some(first) = survey.statements.first() else { return (Where::Primary, Reason::Opaque) };
        let verdict = first.verdict.verdict;
        let context = self.context.clone();
        let view = context.cluster().view();
        let policy = self.context.policy.borrow().clone();
        let before = self.preferred;
        self.prefer(&view, &policy);
        if before != self.preferred {
            self.freshness.moves();
        }
        if policy.consistency == Consistency::Proxy {
            self.freshness.at_least(context.last_write());
        }
        let eventual = policy.consistency == Consistency::Eventual;
        let free = avoid.is_empty() && (eventual || self.freshness.is_free());
        let mut fresh = [NodeId(0); MOST_STANDBYS];
        let mut count = 0;
        if !free {
            let usable = view.usable_standbys().map(|node| node.id).filter(|id| !avoid.contains(id));
            for id in usable.take(MOST_STANDBYS) {
                if eventual || self.freshness.allows(id, context.cluster()) {
                    fresh[count] = id;
                    count += 1;
                }
            }
        }
        let session = SessionView {
            block: match &self.block {
                Block::None => routing::Block::Outside,
                Block::Deferred(_) => routing::Block::Open(crate::sql::Isolation::ReadCommitted),
                Block::Failed(_) | Block::Lost { .. } => routing::Block::Bound,
            },
            pinned: self.pin.is_some(),
            allowed: if free { Allowed::Any } else { Allowed::Only(&fresh[..count]) },
            preferred: self.preferred,
        };
        let decision = routing::choose(verdict, &session, &view, &policy);
        match decision.target {
            Target::Standby(node) if free && !eventual && self.freshness.goes_elsewhere(node) => {
                // Not where the last read was: that one must not have seen more.
                self.freshness.moves();
                self.place_and_reason(survey, avoid)
            }
            Target::Standby(node) => (Where::Standby(node), decision.reason),
            Target::Primary(_) | Target::Nowhere => (Where::Primary, decision.reason),
        }
    }

    /// Picks the node of this session's reads, once or for each statement, and again when it went away.
    fn prefer(&mut self, view: &crate::cluster::ClusterView, policy: &routing::Policy) {
        let gone = |id: NodeId| view.node(id).is_none_or(|node| !node.usable());
        if !policy.statement_level && self.preferred.is_some_and(|id| !gone(id)) {
            return;
        }
        let application = self.base.get("application_name").map(|name| String::from_utf8_lossy(name).into_owned());
        let redirect = policy.redirect(application.as_deref().unwrap_or(""), &self.who.database, &self.who.user);
        self.preferred = routing::pick_standby(view, policy, redirect, self.context.random());
    }
}
