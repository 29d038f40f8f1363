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

/// One thread's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
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
    /// Server connections that were given a session's settings, or cleaned for it, before its statement (SESSIONS R2).
    pub setups: Count,
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
    /// Waits of statements for a primary that may be written to.
    pub held: Count,
}

/// A counter by name.
type Named = (&'static str, fn(&Counters) -> &Count);

impl Counters {
    /// Every counter with its name, in the order of their declaration.
    pub const ALL: &[Named] = &[
        ("logins", |all| &all.logins),
        ("transactions", |all| &all.transactions),
        ("reads_standby", |all| &all.reads_standby),
        ("local", |all| &all.local),
        ("retries", |all| &all.retries),
        ("reruns", |all| &all.reruns),
        ("kept", |all| &all.kept),
        ("opaque", |all| &all.opaque),
        ("probes", |all| &all.probes),
        ("setups", |all| &all.setups),
        ("pins", |all| &all.pins),
        ("cancels", |all| &all.cancels),
        ("waits", |all| &all.waits),
        ("waited_us", |all| &all.waited_us),
        ("lost", |all| &all.lost),
        ("held", |all| &all.held),
    ];
}
