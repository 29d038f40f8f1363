//! What the pools of all threads share: counts and limits. Atomics only; must not hold connections or wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;

use crate::cluster::NodeId;
use crate::support::clock::{Duration, Instant, now};

/// Which pool: connections are shared by sessions of the same database and user only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The server.
    pub node: NodeId,
    /// The database.
    pub database: Arc<str>,
    /// The user.
    pub user: Arc<str>,
}

/// Connections open to one node, over all pools and threads.
#[derive(Debug)]
pub struct SharedNode {
    /// `[[node]] max_connections`.
    pub most: AtomicU32,
    open: AtomicU32,
}

/// One thread's part of a pool, as the others see it.
#[derive(Debug, Default)]
pub struct Share {
    /// Connections, idle or lent.
    held: AtomicU32,
    /// Idle connections.
    pub idle: AtomicU32,
    /// Sessions that wait.
    pub waiting: AtomicU32,
    /// When its longest waiting session began to wait, in microseconds since the pool was made; `u64::MAX` if none waits.
    pub oldest: AtomicU64,
}

/// One pool over all threads.
#[derive(Debug)]
pub struct SharedPool {
    /// Which.
    pub key: PoolKey,
    /// Most connections.
    pub size: AtomicU32,
    /// Connections open or being opened.
    open: AtomicU32,
    /// Sessions pinned to one of them.
    pub pinned: AtomicU32,
    /// Sessions waiting, over all threads.
    pub waiting: AtomicU32,
    /// Connections opened before this moment end when they are idle; in microseconds since the pool was made.
    retired: AtomicU64,
    /// Each thread's part.
    pub shares: Box<[Share]>,
    node: Arc<SharedNode>,
    origin: Instant,
}

/// A place among a node's connections. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    node: Arc<SharedNode>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.node.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place among a pool's and a node's connections. Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<SharedPool>,
    /// The thread that holds the connection.
    thread: usize,
    _place: Place,
}

impl Permit {
    /// The connection is another thread's from now on.
    pub(super) fn move_to(&mut self, thread: usize) {
        self.pool.shares[self.thread].held.fetch_sub(1, Ordering::AcqRel);
        self.pool.shares[thread].held.fetch_add(1, Ordering::AcqRel);
        self.thread = thread;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.shares[self.thread].held.fetch_sub(1, Ordering::AcqRel);
        self.pool.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why there is no place for one more connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The pool has its size.
    Pool,
    /// The node has its most; closing an idle connection of another pool would make room.
    Node,
}

impl SharedNode {
    /// A place for one more connection, of whatever kind; none if the node has its most.
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        take(&self.open, self.most.load(Ordering::Relaxed)).map(|_| Place { node: self.clone() })
    }
}

impl SharedPool {
    /// A place for one more connection, of that thread.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn permit(self: &Arc<Self>, thread: usize) -> Result<Permit, Full> {
        take(&self.open, self.size.load(Ordering::Relaxed)).ok_or(Full::Pool)?;
        match self.node.place() {
            Some(place) => {
                self.shares[thread].held.fetch_add(1, Ordering::AcqRel);
                Ok(Permit { pool: self.clone(), thread, _place: place })
            }
            None => {
                self.open.fetch_sub(1, Ordering::AcqRel);
                Err(Full::Node)
            }
        }
    }

    /// Connections open or being opened.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// More connections are open than the size that it has now.
    pub fn oversized(&self) -> bool {
        self.open() > self.size.load(Ordering::Relaxed)
    }

    /// Connections that are open now end as soon as they are idle.
    pub fn retire(&self, now: Instant) {
        self.retired.store(self.since_origin(now).saturating_add(1), Ordering::Relaxed);
    }

    /// Was a connection of that age retired?
    pub fn is_retired(&self, opened: Instant) -> bool {
        match self.retired.load(Ordering::Relaxed) {
            0 => false,
            retired => self.since_origin(opened) < retired,
        }
    }

    /// Microseconds from the pool's beginning to `at`.
    pub fn since_origin(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX - 1)
    }

    /// Has this thread at least its part of the connections, while there are as many as there may be? Then those that it has lent come
    /// back before one of another thread's could: to move one costs both threads more than most statements take.
    pub fn has_its_part(&self, thread: usize) -> bool {
        let open = self.open();
        let part = (open / u32::try_from(self.shares.len()).unwrap_or(u32::MAX)).max(1);
        open >= self.size.load(Ordering::Relaxed) && self.shares[thread].held.load(Ordering::Acquire) >= part
    }

    /// The thread other than `me` whose oldest waiter came over `patience` before `mine`, and has waited for an eighth longer; where nobody
    /// waits here, one that waits for longer than that, or that has less than its part.
    /// SESSIONS R16: order is strict within a thread, and between threads up to this patience.
    pub fn needier(&self, me: usize, mine: Option<Instant>, patience: Duration) -> Option<usize> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return None;
        }
        let other = (0..self.shares.len())
            .filter(|&thread| thread != me)
            .min_by_key(|&thread| self.shares[thread].oldest.load(Ordering::Acquire))?;
        let patience = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        let limit = match mine {
            None if !self.has_its_part(other) => u64::MAX - 1,
            None => self.since_origin(now()).saturating_sub(patience),
            Some(at) => limit(self.since_origin(at), self.since_origin(now()), patience),
        };
        (self.shares[other].oldest.load(Ordering::Acquire) < limit).then_some(other)
    }

    /// The thread other than `me` with the most idle connections.
    pub fn richer(&self, me: usize) -> Option<usize> {
        let other = (0..self.shares.len())
            .filter(|&thread| thread != me)
            .max_by_key(|&thread| self.shares[thread].idle.load(Ordering::Acquire))?;
        (self.shares[other].idle.load(Ordering::Acquire) > 0).then_some(other)
    }
}

/// Before when another thread's waiter must have come, all in microseconds, to get what is due to one here that came at `mine`. Of a long
/// queue the threads' shares differ by chance, and a connection that moves for that costs more than it saves.
fn limit(mine: u64, now: u64, patience: u64) -> u64 {
    mine.saturating_sub(patience.max(now.saturating_sub(mine) / 8))
}

fn take(count: &AtomicU32, most: u32) -> Option<u32> {
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < most).then_some(open + 1)).ok()
}

/// One pool as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRow {
    /// Which.
    pub key: PoolKey,
    /// Most connections.
    pub size: u32,
    /// Connections open or being opened.
    pub open: u32,
    /// Idle ones of these.
    pub idle: u32,
    /// Sessions that wait for one.
    pub waiting: u32,
    /// How long the one has waited that waits for longest; zero if none waits.
    pub longest_wait: Duration,
    /// Sessions that keep one for themselves.
    pub pinned: u32,
}

impl SharedPool {
    fn row(&self, now: Instant) -> PoolRow {
        let oldest = self.shares.iter().map(|share| share.oldest.load(Ordering::Acquire)).min().unwrap_or(u64::MAX);
        let waited = if oldest == u64::MAX { 0 } else { self.since_origin(now).saturating_sub(oldest) };
        PoolRow {
            key: self.key.clone(),
            size: self.size.load(Ordering::Relaxed),
            open: self.open(),
            idle: self.shares.iter().map(|share| share.idle.load(Ordering::Relaxed)).sum(),
            waiting: self.shares.iter().map(|share| share.waiting.load(Ordering::Relaxed)).sum(),
            longest_wait: Duration::from_micros(waited),
            pinned: self.pinned.load(Ordering::Relaxed),
        }
    }
}

/// All pools and nodes of the process.
#[derive(Debug)]
pub struct Registry {
    pools: DashMap<PoolKey, Arc<SharedPool>>,
    nodes: DashMap<NodeId, Arc<SharedNode>>,
    threads: usize,
    next_server: AtomicU64,
}

impl Registry {
    /// For `threads` data threads.
    pub fn new(threads: usize) -> Self {
        Self { pools: DashMap::new(), nodes: DashMap::new(), threads, next_server: AtomicU64::new(1) }
    }

    /// How many data threads share it.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// A number for a new server connection.
    pub fn next_server(&self) -> u64 {
        self.next_server.fetch_add(1, Ordering::Relaxed)
    }

    /// The node's counts, made at first use; `most` is what its settings say now.
    pub fn node(&self, id: NodeId, most: u32) -> Arc<SharedNode> {
        let node = self
            .nodes
            .entry(id)
            .or_insert_with(|| Arc::new(SharedNode { most: AtomicU32::new(most), open: AtomicU32::new(0) }));
        node.most.store(most, Ordering::Relaxed);
        node.clone()
    }

    /// The pool's counts, made at first use; `size` and `most` are what the settings say now.
    pub fn pool(&self, key: &PoolKey, size: u32, most: u32) -> Arc<SharedPool> {
        let node = self.node(key.node, most);
        if let Some(found) = self.pools.get(key) {
            found.size.store(size, Ordering::Relaxed);
            return found.clone();
        }
        let share = || Share { oldest: AtomicU64::new(u64::MAX), ..Share::default() };
        let pool = self.pools.entry(key.clone()).or_insert_with(|| {
            Arc::new(SharedPool {
                key: key.clone(),
                size: AtomicU32::new(size),
                open: AtomicU32::new(0),
                pinned: AtomicU32::new(0),
                waiting: AtomicU32::new(0),
                retired: AtomicU64::new(0),
                shares: (0..self.threads).map(|_| share()).collect(),
                node,
                origin: now(),
            })
        });
        pool.clone()
    }

    /// All pools at `now`, by node, database and user; readable from any thread without a lock of the data path's.
    pub fn table(&self, now: Instant) -> Vec<PoolRow> {
        let mut rows: Vec<_> = self.pools.iter().map(|entry| entry.value().row(now)).collect();
        rows.sort_by(|a, b| {
            let order = |row: &PoolRow| (row.key.node, row.key.database.clone(), row.key.user.clone());
            order(a).cmp(&order(b))
        });
        rows
    }

    /// Every pool, for people.
    pub fn pools(&self) -> Vec<Arc<SharedPool>> {
        self.pools.iter().map(|entry| entry.value().clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str) -> PoolKey {
        PoolKey { node: NodeId(0), database: "d".into(), user: user.into() }
    }

    #[test]
    fn r16_permits_are_counted_over_pool_and_node_and_come_back() {
        let registry = Registry::new(2);
        let (a, b) = (registry.pool(&key("a"), 2, 3), registry.pool(&key("b"), 2, 3));
        let held: Vec<_> = (0..2).map(|_| a.permit(0).expect("room")).collect();
        assert_eq!(a.permit(0).expect_err("full"), Full::Pool);
        let other = b.permit(0).expect("room");
        assert_eq!(b.permit(0).expect_err("full"), Full::Node);
        drop(held);
        drop(other);
        assert_eq!((a.open(), b.open()), (0, 0));
        assert!(b.permit(0).is_ok());
    }

    #[test]
    fn r16_a_release_goes_to_another_thread_only_past_the_patience() {
        let registry = Registry::new(2);
        let pool = registry.pool(&key("a"), 1, 1);
        let base = now();
        let patience = Duration::from_millis(5);
        assert_eq!(pool.needier(0, None, patience), None);
        pool.waiting.store(1, Ordering::Release);
        pool.shares[1].oldest.store(pool.since_origin(base), Ordering::Release);
        assert_eq!(pool.needier(0, None, patience), Some(1));
        assert_eq!(pool.needier(0, Some(base + Duration::from_millis(4)), patience), None);
        assert_eq!(pool.needier(0, Some(base + Duration::from_millis(7)), patience), Some(1));
        assert_eq!(pool.needier(1, None, patience), None);
        // (mine, now): 2 ms ago, 80 ms ago.
        assert_eq!((limit(100_000, 102_000, 5_000), limit(100_000, 180_000, 5_000)), (95_000, 90_000));
        let rows = registry.table(base + Duration::from_millis(9));
        assert_eq!((rows.len(), rows[0].size, rows[0].open, rows[0].waiting), (1, 1, 0, 0));
        assert_eq!(
            rows[0].longest_wait,
            Duration::from_micros(pool.since_origin(base + Duration::from_millis(9)) - pool.since_origin(base))
        );
    }
}
