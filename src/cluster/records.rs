//! What people want to know of each node beside the view: health checks counted as pgpool-II does, and when its status changed. Kept by
//! `health`, shown by the faces. Nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::metrics::Histogram;
use crate::support::clock::stamp;

use super::NodeId;

/// Health checks of one node since the process started. A check is a probe with the retries that follow it until the node has answered
/// or is found dead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checks {
    /// Checks that have ended.
    pub total: u64,
    /// Those that the node answered, be it at a retry.
    pub success: u64,
    /// Those that found it dead, or unable to serve.
    pub fail: u64,
    /// Those that were left out. pgherd goes on checking nodes that are down, so there are none.
    pub skip: u64,
    /// Retries, over all checks.
    pub retries: u64,
    /// The most retries of one check.
    pub most_retries: u32,
    /// The longest check, retries included.
    pub longest: Duration,
    /// The shortest one; none before the first.
    pub shortest: Option<Duration>,
    /// All of them together.
    pub together: Duration,
    /// When the last one ended.
    pub last: Option<SystemTime>,
    /// When one succeeded last.
    pub last_success: Option<SystemTime>,
    /// When one was left out last.
    pub last_skip: Option<SystemTime>,
    /// When one failed last.
    pub last_fail: Option<SystemTime>,
}

impl Checks {
    /// Counts a check that has ended after `retries` retries.
    pub fn ended(&mut self, success: bool, retries: u32, took: Duration, at: SystemTime) {
        self.total += 1;
        self.retries += u64::from(retries);
        self.most_retries = self.most_retries.max(retries);
        self.longest = self.longest.max(took);
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.together += took;
        self.last = Some(at);
        if success {
            self.success += 1;
            self.last_success = Some(at);
        } else {
            self.fail += 1;
            self.last_fail = Some(at);
        }
    }

    /// Retries per check.
    #[expect(clippy::cast_precision_loss, reason = "an average for people")]
    pub fn average_retries(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.retries as f64 / self.total as f64 }
    }

    /// Milliseconds per check.
    #[expect(clippy::cast_precision_loss, reason = "an average for people")]
    pub fn average_millis(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.together.as_secs_f64() * 1_000.0 / self.total as f64 }
    }
}

/// One node.
#[derive(Debug, Clone, Default)]
pub struct NodeRecord {
    /// Health checks.
    pub checks: Checks,
    /// How long each probe took. Written, as all of this, by one thread at a time: who holds the lock.
    pub probes: Arc<Histogram>,
    /// How long it took to open each server connection, login included.
    pub connects: Arc<Histogram>,
    /// Server connections that could not be opened.
    pub connect_failures: u64,
    /// When its status changed last; none before the first status.
    pub changed: Option<SystemTime>,
}

impl NodeRecord {
    /// What pgpool-II tells of a node's health checks behind its id, host, port, status and role: since when it has this status, counts,
    /// retries, times in milliseconds, and when the last checks were (UTC; empty: never).
    pub fn pgpool_fields(&self) -> [String; 15] {
        let time = |at: Option<SystemTime>| at.map(stamp).unwrap_or_default();
        let checks = &self.checks;
        [
            time(self.changed),
            checks.total.to_string(),
            checks.success.to_string(),
            checks.fail.to_string(),
            checks.skip.to_string(),
            checks.retries.to_string(),
            format!("{:.6}", checks.average_retries()),
            checks.most_retries.to_string(),
            checks.longest.as_millis().to_string(),
            checks.shortest.unwrap_or_default().as_millis().to_string(),
            format!("{:.6}", checks.average_millis()),
            time(checks.last),
            time(checks.last_success),
            time(checks.last_skip),
            time(checks.last_fail),
        ]
    }
}

/// All nodes. The lock is for people's questions; the control thread takes it a few times per second, a data thread when it has opened a
/// server connection.
#[derive(Debug, Default)]
pub struct Records {
    nodes: Mutex<BTreeMap<NodeId, NodeRecord>>,
}

impl Records {
    /// Changes what is kept of a node.
    pub fn note(&self, node: NodeId, change: impl FnOnce(&mut NodeRecord)) {
        change(self.nodes().entry(node).or_default());
    }

    /// What is kept of a node; nothing yet is the same as all zero.
    pub fn of(&self, node: NodeId) -> NodeRecord {
        self.nodes().get(&node).cloned().unwrap_or_default()
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, NodeRecord>> {
        // A panic elsewhere leaves whole entries behind.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
