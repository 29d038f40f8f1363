//! What the sessions of one thread count. Each counter has one writer, its thread; readers are elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only the owning thread may.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One thread's counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clients that logged in.
    pub logins: Count,
    /// Transactions that ran on a primary.
    pub transactions: Count,
    /// Requests answered by a standby.
    pub reads_standby: Count,
    /// Requests answered here.
    pub local: Count,
    /// Reads that a standby refused and the primary answered (SESSIONS R11).
    pub retries: Count,
    /// Reads run again because a server was lost before it answered (SESSIONS R19).
    pub reruns: Count,
    /// Reads kept on the primary because no standby was fresh enough (SESSIONS R7).
    pub kept: Count,
    /// Transactions whose effects on the session could not be known from their texts (SESSIONS R1).
    pub opaque: Count,
    /// Probes after transactions.
    pub probes: Count,
    /// Sessions that became pinned (SESSIONS R5).
    pub pins: Count,
    /// Cancels sent to servers.
    pub cancels: Count,
    /// Waits for a lease.
    pub waits: Count,
    /// Microseconds waited for leases.
    pub waited_us: Count,
    /// Server connections lost under a session.
    pub lost: Count,
}
