//! Who is alive, who is primary, how far each has come: a pure [`engine`] and a [`runner`] on the control thread that
//! does the I/O. Publishes `cluster::ClusterView`. Must not touch sessions, and promotes nobody: that is `failover`'s.

pub mod catalogs;
pub mod choice;
pub mod connection;
pub mod engine;
pub mod node;
pub mod reading;
pub mod runner;
pub mod senders;
mod tally;
mod written;
