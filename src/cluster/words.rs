//! Newtypes and enums of the cluster vocabulary. Values only; must not know how they are found out.

use std::fmt;
use std::pin::Pin;
use std::time::Instant;

/// A node's number, the `id` of its `[[node]]`; stable over reloads, holes are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in the write-ahead log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Reads PostgreSQL's `X/X` form (two hexadecimal halves of 32 bits).
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let high = u32::from_str_radix(high, 16).ok()?;
        let low = u32::from_str_radix(low, 16).ok()?;
        Some(Self((u64::from(high) << 32) | u64::from(low)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A timeline of the write-ahead log; a promotion starts the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timeline(pub u32);

/// The number of the present agreement on who is primary. Grows with each promotion; writes carry the epoch
/// that they were routed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

/// What a server said that it is, last time it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `pg_is_in_recovery()` was false.
    Primary,
    /// `pg_is_in_recovery()` was true.
    Standby,
    /// Never asked with success yet.
    Unknown,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Unknown => "unknown",
        })
    }
}

/// Whether statements may be sent to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Answers probes and may be used.
    Up,
    /// Does not answer probes, or not yet.
    Down,
    /// Taken out by an operator; stays out until attached again.
    Detached,
    /// Answers, but must not be served: another system, a dead timeline, a second primary.
    Quarantined,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Detached => "detached",
            Self::Quarantined => "quarantined",
        })
    }
}

/// What the probes say about a server's life, for who decides about failover. Times are when the first probe of the present
/// row of failures started: what was seen of the server later than that speaks against them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// No outcome yet.
    Unknown,
    /// It answered last time, be it that it has no room for us.
    Well,
    /// A probe is late, or too few have failed to condemn it (HA H1).
    Suspect(Instant),
    /// It says itself that it takes nobody now: it starts up, recovers from a crash, or shuts down.
    Busy(Instant),
    /// It has failed more probes in a row than are forgiven.
    Dead(Instant),
}

/// What a session or a probe noticed about a node. A reason to look, never a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// A dial was refused, unreachable or timed out.
    CannotConnect,
    /// An established connection ended without a goodbye.
    ConnectionLost,
    /// The server said that it is shutting down or starting up.
    NotAccepting,
    /// A write was refused as read-only: the node is no primary any more.
    NotPrimary,
}

/// Sent over one bounded channel by `session` and `health` to whoever decides about nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailoverRequest {
    /// The node in question.
    pub node: NodeId,
    /// What was seen.
    pub trouble: Trouble,
    /// The epoch of the view under which it was seen; older ones are ignored.
    pub epoch: Epoch,
}

/// An answer to a request for leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go ahead; in this epoch, if it is not ours alone to count them.
    Granted(Option<Epoch>),
    /// Not now; the text says why, for the event log.
    Refused(String),
}

/// What somebody who must agree will say.
pub type Answer<T> = Pin<Box<dyn Future<Output = T>>>;

/// Who must agree before the role of a node is changed.
pub trait Consensus {
    /// Asks leave to act on `request`; `planned`: an operator wants it, and the node need not be dead. Granted, nobody writes under an epoch
    /// before the new one any more (HA H17).
    fn may_act(&self, request: &FailoverRequest, planned: bool) -> Answer<Verdict>;

    /// What was asked leave for does not happen: writes go on.
    fn resume(&self);

    /// Agrees on this journal in this epoch (HA H13).
    ///
    /// # Errors
    /// It is not known that a majority has it on disk.
    fn record(&self, epoch: Epoch, journal: String) -> Answer<Result<(), String>>;

    /// Gives everybody else a copy of a node's original `primary_conninfo` and of the name of the file that it came from, or takes it back
    /// (HA H5). Begins at once, and waits no longer than a failover can: who is not there has none.
    fn keep(&self, node: NodeId, original: Option<(String, String)>) -> Answer<()>;
}

/// One proxy alone agrees with itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Consensus for Alone {
    fn may_act(&self, _request: &FailoverRequest, _planned: bool) -> Answer<Verdict> {
        Box::pin(std::future::ready(Verdict::Granted(None)))
    }

    fn resume(&self) {}

    fn record(&self, _epoch: Epoch, _journal: String) -> Answer<Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn keep(&self, _node: NodeId, _original: Option<(String, String)>) -> Answer<()> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_and_prints_as_postgresql_does() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(Lsn::parse(text).map(|lsn| lsn.to_string()).as_deref(), Some(text));
        }
        for bad in ["", "/", "1/", "1/G", "1/1/1", "100000000/0"] {
            assert_eq!(Lsn::parse(bad), None, "{bad}");
        }
    }
}
