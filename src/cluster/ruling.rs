//! What `failover` has decided and `health` lays over its next view, so that one place alone publishes views. A value; must
//! not decide anything itself.

use std::time::Instant;

use super::{Epoch, NodeId, Timeline, Writes};

/// Who may take the primary's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mandate {
    /// Whoever was promoted from this cluster, as `health` finds it.
    #[default]
    Free,
    /// This node alone, as soon as it says that it is primary on a newer timeline, and even if the old one says so too; in this epoch.
    Only(NodeId, Epoch),
}

/// What is known of the history that a replaced primary's successor goes on with (HA H14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Succession {
    /// The primary that was replaced.
    pub old: NodeId,
    /// The epoch in which it was primary.
    pub before: Epoch,
    /// The epoch of its successor.
    pub after: Epoch,
    /// What was sent to the old primary, under its epoch, later than this is not in the successor's history, and never will be.
    pub until: Instant,
}

impl Succession {
    /// Was a statement certainly sent in vain: to that node, over a connection of that epoch, not before `sent`?
    pub fn lacks(&self, node: NodeId, epoch: Epoch, sent: Instant) -> bool {
        (self.old, self.before) == (node, epoch) && sent > self.until
    }
}

/// The newest word of `failover`; replaces the one before as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// Goes into the view as it is.
    pub writes: Writes,
    /// Taken out, in order; their status is `Detached` and none of them becomes primary.
    pub detached: Vec<NodeId>,
    /// Found dead beside a living primary, in order: what would be used again is `Detached` until somebody attaches it.
    pub fallen: Vec<NodeId>,
    /// No view has a smaller epoch: what was agreed on before a restart still holds.
    pub epoch: Epoch,
    /// No server on an older timeline becomes primary.
    pub timeline: Timeline,
    /// The primary of the last epoch: at the first choice it stays primary if it says that it is, though somebody was promoted since.
    pub primary: Option<NodeId>,
    /// Who may take the primary's place.
    pub mandate: Mandate,
    /// How the present primary came by its role, as far as it is known.
    pub succession: Option<Succession>,
    /// Epochs are agreed on with partner proxies: the view counts none of its own.
    pub agreed: bool,
}

impl Default for Ruling {
    fn default() -> Self {
        Self {
            writes: Writes::Open,
            detached: Vec::new(),
            fallen: Vec::new(),
            epoch: Epoch(0),
            timeline: Timeline(0),
            primary: None,
            mandate: Mandate::Free,
            succession: None,
            agreed: false,
        }
    }
}
