//! What one proxy of a group asks of another on behalf of an operator, beside what all of them agree on. Words only; must not decide.

use serde::{Deserialize, Serialize};

/// How a proxy is to stop: `pg_ctl`'s modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// When the last client has left.
    Smart,
    /// Sessions end with their transactions.
    Fast,
    /// At once.
    Immediate,
}

/// What another proxy shall do, itself: nobody passes it on once more. Nodes by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// Whoever leads: use this node no more.
    Detach(u16),
    /// Whoever leads: use it again.
    Attach(u16),
    /// Whoever leads: make it primary in place of a dead one.
    Promote(u16),
    /// Whoever leads: move the primary's role, to this node or to the best.
    SwitchOver(Option<u16>),
    /// Whoever leads: rebuild it.
    Recover(u16),
    /// Wait until no server connection to this node is in the hands of a session.
    Rest(u16),
    /// Keep this original of a node's `primary_conninfo`, and the file that it came from: the sender is about to change it (HA H5).
    Keep {
        /// Which node.
        node: u16,
        /// The value.
        conninfo: String,
        /// The file.
        source: String,
    },
    /// It is restored: the original is of no use any more.
    Forget(u16),
    /// Read the configuration file again.
    Reload,
    /// Stop, once the answer has left.
    Stop(StopMode),
}

impl Errand {
    /// Does it mean the same only where nodes are numbered alike?
    pub fn names_nodes(&self) -> bool {
        !matches!(self, Self::Reload | Self::Stop(_))
    }
}

/// What comes back of an [`Errand`]: any number of signs of life, then the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// It is at it; how far, for people, or nothing.
    Still(String),
    /// It is over; why it was refused or has failed, for people.
    Done(Result<String, String>),
}
