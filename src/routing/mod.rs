//! Where a statement goes, and why: (facts, catalog, policy) → [`Verdict`], which may be kept; then
//! (verdict, session, cluster) → [`Decision`], which may not.
//!
//! Layer 2, pure: no I/O, no clock, no chance of its own. Reads [`crate::cluster::ClusterView`], never changes it.

pub mod catalog;
mod choose;
mod memory;
mod pick;
mod policy;
mod reason;
mod verdict;

pub use catalog::Catalog;
pub use choose::{Allowed, Block, Decision, SessionView, Target, choose};
pub use memory::Memory;
pub use pick::pick_standby;
pub use policy::{Policy, PolicyError};
pub use reason::Reason;
pub use verdict::{Class, Traces, Verdict, verdict};

#[cfg(test)]
mod tests;
