//! What the sessions of one thread count. Each counter has one writer, its thread; readers are elsewhere.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cluster::NodeId;
use crate::metrics::Histogram;
use crate::routing::Reason;
use crate::sql::Verb;

use super::timing::Statements;

/// Node numbers go from 0 to 127.
const NODES: usize = 128;

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only the owning thread may.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Errors that a server raised.
#[derive(Debug, Default)]
pub struct Faults {
    /// PANIC.
    pub panics: Count,
    /// FATAL.
    pub fatals: Count,
    /// ERROR.
    pub errors: Count,
}

/// What was sent to one node.
#[derive(Debug, Default)]
pub struct NodeCounts {
    /// By [`Verb`].
    verbs: [Count; Verb::ALL.len()],
    /// What it raised.
    pub faults: Faults,
    /// Made when the first statement is timed.
    times: OnceLock<Box<Times>>,
}

impl NodeCounts {
    /// Statements of that kind.
    #[inline]
    pub fn verb(&self, verb: Verb) -> &Count {
        &self.verbs[verb as usize]
    }

    /// The times of statements, if any was timed.
    pub fn times(&self) -> Option<&Times> {
        self.times.get().map(|times| &**times)
    }

    pub(super) fn timed(&self) -> &Times {
        self.times.get_or_init(Box::default)
    }
}

/// Times of statements, by what they do. Statements that are timed stand for those that are not.
#[derive(Debug, Default)]
pub struct Times {
    /// Reads.
    pub read: Phases,
    /// INSERT, UPDATE, DELETE.
    pub write: Phases,
    /// Everything else.
    pub other: Phases,
}

impl Times {
    pub(super) fn of(&self, verb: Verb) -> &Phases {
        match verb {
            Verb::Select => &self.read,
            Verb::Insert | Verb::Update | Verb::Delete => &self.write,
            Verb::Ddl | Verb::Other => &self.other,
        }
    }
}

/// The time of a statement, split.
#[derive(Debug, Default)]
pub struct Phases {
    /// Until it was sent to a server: looking at it, waiting for a connection and its setup.
    pub waiting: Histogram,
    /// From then to the end of the answer.
    pub server: Histogram,
    /// Both.
    pub total: Histogram,
}

/// Where requests went, and why.
#[derive(Debug)]
pub struct Routed {
    primary: [Count; Reason::ALL.len()],
    standby: [Count; Reason::ALL.len()],
}

impl Default for Routed {
    fn default() -> Self {
        let zero = || std::array::from_fn(|_| Count::default());
        Self { primary: zero(), standby: zero() }
    }
}

impl Routed {
    /// Requests that went to the primary for that reason.
    #[inline]
    pub fn primary(&self, reason: Reason) -> &Count {
        &self.primary[reason as usize]
    }

    /// Requests that went to a standby for that reason.
    #[inline]
    pub fn standby(&self, reason: Reason) -> &Count {
        &self.standby[reason as usize]
    }
}

/// One thread's counters, on cache lines of their own.
#[derive(Debug)]
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
    /// Writes run again because the history that goes on without their server certainly lacks them (HA H14).
    pub rewrites: Count,
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
    /// Cancel requests of clients with the key of no session.
    pub cancels_refused: Count,
    /// Waits for a lease.
    pub waits: Count,
    /// Microseconds waited for leases.
    pub waited_us: Count,
    /// Server connections lost under a session.
    pub lost: Count,
    /// Waits of statements for a primary that may be written to.
    pub held: Count,
    /// Clients that were turned away at the door.
    pub refused: Count,
    /// Batches of writes to sockets, each sent by one system call.
    pub batches: Count,
    /// Writes in batches.
    pub batched: Count,
    /// Writes in batches that a socket did not take whole.
    pub batched_left: Count,
    /// Where requests went.
    pub routed: Routed,
    /// Statements and their times.
    pub statements: Statements,
    nodes: Box<[NodeCounts]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            logins: Count::default(),
            transactions: Count::default(),
            reads_standby: Count::default(),
            local: Count::default(),
            retries: Count::default(),
            reruns: Count::default(),
            rewrites: Count::default(),
            kept: Count::default(),
            opaque: Count::default(),
            probes: Count::default(),
            setups: Count::default(),
            pins: Count::default(),
            cancels: Count::default(),
            cancels_refused: Count::default(),
            waits: Count::default(),
            waited_us: Count::default(),
            lost: Count::default(),
            held: Count::default(),
            refused: Count::default(),
            batches: Count::default(),
            batched: Count::default(),
            batched_left: Count::default(),
            routed: Routed::default(),
            statements: Statements::default(),
            nodes: (0..NODES).map(|_| NodeCounts::default()).collect(),
        }
    }
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
        ("rewrites", |all| &all.rewrites),
        ("kept", |all| &all.kept),
        ("opaque", |all| &all.opaque),
        ("probes", |all| &all.probes),
        ("setups", |all| &all.setups),
        ("pins", |all| &all.pins),
        ("cancels", |all| &all.cancels),
        ("cancels_refused", |all| &all.cancels_refused),
        ("waits", |all| &all.waits),
        ("waited_us", |all| &all.waited_us),
        ("lost", |all| &all.lost),
        ("held", |all| &all.held),
        ("refused", |all| &all.refused),
        ("batches", |all| &all.batches),
        ("batched", |all| &all.batched),
        ("batched_left", |all| &all.batched_left),
    ];

    /// What was sent to a node.
    #[inline]
    pub fn node(&self, node: NodeId) -> &NodeCounts {
        &self.nodes[usize::from(node.0) % NODES]
    }
}

impl super::Global {
    /// What all data threads have counted together.
    pub fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|one| of(one)).sum()
    }
}
