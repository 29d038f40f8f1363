//! The part of a decision that may not be kept: a verdict meets a session and the cluster as it is now.

use super::{Class, Policy, Reason, Verdict};
use crate::cluster::{ClusterView, NodeId, NodeView};
use crate::config::TooLate;
use crate::sql::Isolation;

/// Where the session stands in its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Block {
    /// Each statement is its own transaction.
    Outside,
    /// In a block that nothing has bound yet: its BEGIN has not been sent to any server.
    Open(Isolation),
    /// In a block that runs on the primary.
    Bound,
}

/// Standbys that have what the session must see (SESSIONS R7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed<'a> {
    /// All of them.
    Any,
    /// These only.
    Only(&'a [NodeId]),
}

/// What a decision needs to know of a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionView<'a> {
    /// Its transaction.
    pub block: Block,
    /// It has state on the primary that a standby lacks (SESSIONS R5).
    pub pinned: bool,
    /// Which standbys it may read from.
    pub allowed: Allowed<'a>,
    /// The node picked for its reads, see [`super::pick_standby`]; may be the primary.
    pub preferred: Option<NodeId>,
}

/// A node, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The primary, which is this node now.
    Primary(NodeId),
    /// This standby.
    Standby(NodeId),
    /// Nowhere now: hold it until there is a primary, or refuse.
    Nowhere,
}

/// Where, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Where.
    pub target: Target,
    /// Why.
    pub reason: Reason,
}

/// Chooses the node for one statement. Reads go to a standby also while there is no primary.
pub fn choose(verdict: Verdict, session: &SessionView<'_>, view: &ClusterView, policy: &Policy) -> Decision {
    let reason = match needs_primary(verdict, session) {
        Some(reason) => reason,
        None => match standby(session, view, policy) {
            Ok((node, reason)) => return Decision { target: Target::Standby(node), reason },
            Err(reason) => reason,
        },
    };
    match view.primary_node().filter(|node| node.usable()) {
        Some(node) => Decision { target: Target::Primary(node.id), reason },
        None => Decision { target: Target::Nowhere, reason: Reason::NoPrimary },
    }
}

/// Does the statement, or the session's state, need the primary?
fn needs_primary(verdict: Verdict, session: &SessionView<'_>) -> Option<Reason> {
    if verdict.class == Class::Primary {
        return Some(verdict.reason);
    }
    if session.pinned {
        return Some(Reason::Pinned);
    }
    match session.block {
        Block::Outside => None,
        Block::Bound => Some(Reason::BlockBound),
        Block::Open(Isolation::RepeatableRead | Isolation::Serializable) => Some(Reason::Isolation),
        Block::Open(Isolation::ReadCommitted) => {
            (verdict.class == Class::AnywhereOutsideBlock).then_some(Reason::NowInBlock)
        }
    }
}

/// The standby for a read: the preferred one if it may serve it, else the least delayed that takes reads.
fn standby(session: &SessionView<'_>, view: &ClusterView, policy: &Policy) -> Result<(NodeId, Reason), Reason> {
    // Whoever reads from the primary would wait with those that write.
    let primary_up = view.writes.open() && view.primary_node().is_some_and(NodeView::usable);
    if session.preferred.is_some() && session.preferred == view.primary && primary_up {
        return Err(Reason::PrimaryShare);
    }
    let takes = |node: &&NodeView| node.weight > 0.0 || session.preferred == Some(node.id);
    let consistent = |node: &&NodeView| match session.allowed {
        Allowed::Any => true,
        Allowed::Only(nodes) => nodes.contains(&node.id),
    };
    let near = |node: &&NodeView| policy.is_near(node);
    let up = || view.usable_standbys().filter(takes);
    let serves = || up().filter(consistent).filter(near);
    if let Some(node) = serves().find(|node| session.preferred == Some(node.id)) {
        return Ok((node.id, Reason::Read));
    }
    let mine = up().filter(consistent).find(|node| session.preferred == Some(node.id));
    if mine.is_some() && policy.too_late == TooLate::Primary && primary_up {
        return Err(Reason::Lag);
    }
    if let Some(node) = serves().min_by_key(|node| (node.lag.unwrap_or(u64::MAX), node.delay)) {
        let reason = if session.preferred.is_some() { Reason::OtherStandby } else { Reason::Read };
        return Ok((node.id, reason));
    }
    Err(if up().next().is_none() {
        Reason::NoStandby
    } else if up().any(|node| consistent(&node)) {
        Reason::Lag
    } else {
        Reason::Consistency
    })
}
