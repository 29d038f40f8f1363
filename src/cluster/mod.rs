//! The vocabulary of a cluster: who is who, which server is in which state, and who may decide.
//!
//! Words only. Layer 1: no I/O, no tokio, no clock. Both planes read [`ClusterView`] snapshots; only
//! `health` (roles, positions) and `failover` (status, epoch) publish new ones.

mod errands;
mod events;
mod history;
mod knowledge;
mod partners;
mod records;
mod ruling;
mod samples;
mod shared;
mod view;
mod words;
mod writes;

pub use errands::{Errand, Sign, StopMode};
pub use events::{Event, EventCount, Events, KEPT, Severity};
pub use history::{History, may_continue};
pub use knowledge::{Knowledge, Known, Reading};
pub use partners::{Accord, Clock, Group, Lease, Link, Partner, Says, Vote};
pub use records::{Checks, NodeRecord, Records};
pub use ruling::{Mandate, Ruling, Succession};
pub use samples::{MAX_SAMPLED_NODES, Sample, Samples, WANTED_FOR};
pub use shared::Shared;
pub use view::{ClusterView, NodeView, PgpoolNode, Position, Replication, Written};
pub use words::{
    Alone, Answer, Consensus, Epoch, FailoverRequest, Life, Lsn, NodeId, Role, Status, Timeline, Trouble, Verdict,
};
pub use writes::{Hold, Writes};
