//! Failover on a real primary with two standbys, by pgherd in this process: who takes over, who follows, what is never served again.
//!
//! Each test has a cluster of its own, for it breaks it; they take turns, so that timings mean something.

mod common;

#[path = "failover/again.rs"]
mod again;
#[path = "failover/branches.rs"]
mod branches;
#[path = "failover/fenced.rs"]
mod fenced;
#[path = "failover/fixed.rs"]
mod fixed;
#[path = "failover/held.rs"]
mod held;
#[path = "failover/herd.rs"]
mod herd;
#[path = "failover/hooks.rs"]
mod hooks;
#[path = "failover/killed.rs"]
mod killed;
#[path = "failover/late.rs"]
mod late;
#[path = "failover/planned.rs"]
mod planned;
#[path = "failover/primary.rs"]
mod primary;
#[path = "failover/reloads.rs"]
mod reloads;
#[path = "failover/returns.rs"]
mod returns;
#[path = "failover/rights.rs"]
mod rights;
