//! What a run is about, and where it stands. Values only.

use std::time::Instant;

use super::words::Ticket;
use crate::cluster::NodeId;

/// Why a primary is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is dead.
    Failover,
    /// It is dead and an operator has chosen its successor.
    ByHand(Ticket, NodeId),
    /// An operator moves its role.
    SwitchOver(Ticket, Option<NodeId>),
    /// Taken up from the journal: who ordered it is gone.
    Resumed,
}

/// What those who must agree to a run have said, in its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// Not all yet.
    Missing,
    /// All that is needed.
    Given,
    /// They had agreed, and most of them do not any more.
    Withdrawn,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Holding,
    Consenting,
    Doubting,
    /// Chores under way must end first.
    Waiting,
    Preparing,
    Recruiting,
    Fencing,
    /// It is written down that the old primary is going to be fenced by `fence_command`.
    Condemning,
    Hooking,
    Committing,
    /// The decision may be on disk, and must not be taken up by another process: it is taken back there first.
    Revoking {
        why: String,
        /// Then it is let go all the same.
        until: Instant,
    },
    Promoting,
    /// Until the view says so.
    Settling,
    Following,
    Relaxing,
    Satisfying,
    /// The candidate has died behind its promotion and is going to be fenced.
    CondemningCandidate,
    FencingCandidate,
    // Of a switch-over alone.
    Draining,
    Checkpointing,
    Closing,
    Announcing,
    Demoting,
    Dying,
    CatchingUp,
}
