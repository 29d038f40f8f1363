//! A transaction block while no server holds it (SESSIONS R12, R20). Pure.

use std::rc::Rc;

use crate::sql::{Effect, Facts, Isolation, Modes};
use crate::wire::TxStatus;

/// What the client's block is while the session has no lease.
#[derive(Debug, Default)]
pub(super) enum Block {
    /// No block.
    #[default]
    None,
    /// BEGIN was answered here; no server knows of it yet.
    Deferred(Deferred),
    /// A deferred block that failed on a standby.
    Failed(Deferred),
    /// Its server was lost: nothing but its end is possible.
    Lost {
        /// The client knows: a statement of it has failed with the reason. Until then not even COMMIT may succeed.
        told: bool,
    },
}

/// A BEGIN that was answered here.
#[derive(Debug, Clone)]
pub(super) struct Deferred {
    /// Its text, to be sent when the block needs the primary.
    pub(super) begin: Rc<[u8]>,
    /// Reads may run on standbys: READ COMMITTED.
    pub(super) reads: bool,
    /// One has: the modes of the transaction are fixed.
    pub(super) has_read: bool,
}

impl Block {
    /// The status byte that the client should see.
    pub(super) fn shown(&self) -> TxStatus {
        match self {
            Self::None => TxStatus::Idle,
            Self::Deferred(_) => TxStatus::InBlock,
            Self::Failed(_) | Self::Lost { .. } => TxStatus::Failed,
        }
    }

    /// A statement of it failed.
    pub(super) fn fail(&mut self) {
        *self = match std::mem::take(self) {
            Self::Deferred(deferred) => Self::Failed(deferred),
            other => other,
        };
    }
}

/// The modes of a BEGIN that may wait for the first statement that needs a server: READ COMMITTED or what the login's defaults
/// say, no DEFERRABLE. Everything else is the server's from the start.
pub(super) fn deferrable(facts: &Facts) -> Option<Modes> {
    match &facts.effects[..] {
        [Effect::Begin(modes)] if facts.statements == 1 && modes.deferrable != Some(true) => Some(*modes),
        _ => None,
    }
}

/// May reads of a block with these modes run on a standby, statement by statement? `default` is the session's
/// `default_transaction_isolation`.
pub(super) fn may_read_elsewhere(modes: Modes, default: Isolation) -> bool {
    modes.isolation.unwrap_or(default) == Isolation::ReadCommitted
}

/// How an empty or failed block ends: the tag, if the statement ends it at all.
pub(super) fn ending(facts: &Facts, failed: bool) -> Option<&'static str> {
    match &facts.effects[..] {
        [Effect::Commit { chain: false }] if facts.statements == 1 => Some(if failed { "ROLLBACK" } else { "COMMIT" }),
        [Effect::Rollback { chain: false }] if facts.statements == 1 => Some("ROLLBACK"),
        _ => None,
    }
}

/// The tag that PostgreSQL answers a BEGIN of that text with; none if a comment stands before the word.
pub(super) fn begin_tag(text: &[u8]) -> Option<&'static str> {
    match text.trim_ascii_start().first()?.to_ascii_lowercase() {
        b'b' => Some("BEGIN"),
        b's' => Some("START TRANSACTION"),
        _ => None,
    }
}
