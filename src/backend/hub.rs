//! One data thread's pools and its post to the other threads. Must not wait for another thread: a message that
//! cannot be posted at once is dropped, and whoever waited for its answer asks again at the next housekeeping.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::cluster::NodeId;
use crate::support::buffer::BufferPool;
use crate::support::clock::{Duration, Instant, now};

use super::pool::Pool;
use super::reported::Interner;
use super::server::{DetachedServer, Server};
use super::shared::{Permit, Place, PoolKey, Registry, SharedPool};

/// How often, and how long in between, room at a full node is asked for.
const ROOM_TRIES: u32 = 20;
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Between the pools of two threads.
#[derive(Debug)]
pub enum Mail {
    /// A session of thread `from` waits and nobody there has a connection: hand an idle one over.
    Want {
        /// Which pool.
        pool: Arc<SharedPool>,
        /// Who asks.
        from: usize,
    },
    /// A connection changes hands.
    Server {
        /// Its pool.
        pool: Arc<SharedPool>,
        /// The connection.
        server: Box<DetachedServer>,
    },
    /// There was none to hand over.
    Nothing {
        /// Which pool.
        pool: Arc<SharedPool>,
    },
    /// The node has its most connections: close the longest idle one that you have there.
    Evict {
        /// The node.
        node: NodeId,
    },
}

/// Why a server connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Nobody answers there, or not in time, or the server is starting up or shutting down.
    Unreachable(String),
    /// The server has too many clients: wait and try again (SESSIONS R21).
    Busy(String),
    /// None was free in time.
    Late,
    /// The server refused this user or database; SQLSTATE and text are for the client.
    Refused {
        /// SQLSTATE.
        code: String,
        /// Its text.
        message: String,
    },
}

/// A connection being opened.
pub type Opening = Pin<Box<dyn Future<Output = Result<Box<Server>, OpenError>>>>;
/// Opens a connection for a pool, counted by the permit.
pub type Opener = Box<dyn Fn(&Arc<SharedPool>, Permit) -> Opening>;
/// Posts to a thread without waiting; gives the message back if it cannot.
pub type Post = Box<dyn Fn(usize, Mail) -> Result<(), Mail>>;

/// When idle connections end.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Idle beyond the minimum: closed after this; zero: never.
    pub idle_timeout: Duration,
    /// Closed, once idle, after this; zero: never.
    pub max_lifetime: Duration,
}

/// Limits of a pool, in connections over all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// At most.
    pub size: u32,
    /// Kept even when idle.
    pub min: u32,
    /// At most to the node, over all its pools.
    pub node: u32,
}

/// One thread's pools.
pub struct Hub {
    /// This thread's number.
    pub thread: usize,
    /// Limits shared by all threads.
    pub registry: Arc<Registry>,
    /// This thread's buffers.
    pub buffers: BufferPool,
    /// This thread's reports.
    pub interner: Rc<Interner>,
    /// When idle connections end.
    pub times: Cell<Times>,
    /// Connections opened before this moment are closed once idle.
    retired: Cell<Instant>,
    /// The time as of the last housekeeping: near enough for times of minutes, and no question to the clock for each lease.
    pub(super) tick: Cell<Instant>,
    pub(super) open: Opener,
    pub(super) post: Post,
    pools: RefCell<HashMap<PoolKey, Rc<Pool>>>,
}

impl Hub {
    /// A thread's hub.
    pub fn new(
        thread: usize,
        registry: Arc<Registry>,
        times: Times,
        interner: Rc<Interner>,
        open: Opener,
        post: Post,
    ) -> Rc<Self> {
        Rc::new(Self {
            thread,
            registry,
            buffers: BufferPool::default(),
            interner,
            times: Cell::new(times),
            retired: Cell::new(now()),
            tick: Cell::new(now()),
            open,
            post,
            pools: RefCell::default(),
        })
    }

    /// This thread's part of a pool; made at first use.
    pub fn pool(self: &Rc<Self>, shared: &Arc<SharedPool>) -> Rc<Pool> {
        if let Some(found) = self.pools.borrow().get(&shared.key) {
            return found.clone();
        }
        let pool = Pool::new(self, shared.clone());
        self.pools.borrow_mut().insert(shared.key.clone(), pool.clone());
        pool
    }

    /// As [`pool`](Self::pool) by its key and what the settings say of it.
    pub fn pool_by_key(self: &Rc<Self>, key: PoolKey, sizes: Sizes) -> Rc<Pool> {
        if let Some(found) = self.pools.borrow().get(&key) {
            return found.clone();
        }
        let shared = self.registry.pool(&key, sizes.size, sizes.node);
        let pool = self.pool(&shared);
        pool.keep_at_least(sizes.min);
        pool
    }

    /// Deals with a message of another thread.
    pub fn receive(self: &Rc<Self>, mail: Mail) {
        match mail {
            Mail::Want { pool, from } => self.pool(&pool).hand_over(from),
            Mail::Server { pool, server } => {
                let pool = self.pool(&pool);
                match server.attach(self.interner.clone()) {
                    Ok(server) => pool.put(Box::new(server)),
                    Err(_) => pool.want_more(),
                }
            }
            Mail::Nothing { pool } => self.pool(&pool).open_more(),
            Mail::Evict { node } => {
                self.evict(node, None);
            }
        }
    }

    /// Closes the longest idle connection to `node` that is in another pool than `but`. Returns whether there was one.
    pub(super) fn evict(&self, node: NodeId, but: Option<&PoolKey>) -> bool {
        let pools = self.pools.borrow();
        let candidates = pools.values().filter(|pool| pool.key().node == node && Some(pool.key()) != but);
        let Some(pool) =
            candidates.filter_map(|pool| Some((pool.longest_idle()?, pool))).min_by_key(|(since, _)| *since)
        else {
            return false;
        };
        pool.1.close_longest_idle();
        true
    }

    /// A place for a connection that belongs to no pool. At the node's limit, `most`, idle connections of pools are closed for it; waits a
    /// second at the most.
    pub async fn place(&self, node: NodeId, most: u32) -> Option<Place> {
        let counts = self.registry.node(node, most);
        for _ in 0..ROOM_TRIES {
            if let Some(place) = counts.place() {
                return Some(place);
            }
            if !self.evict(node, None) {
                self.ask_for_room(node);
            }
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        None
    }

    /// Asks the other threads to make room at `node`.
    pub(super) fn ask_for_room(&self, node: NodeId) {
        for thread in (0..self.registry.threads()).filter(|&thread| thread != self.thread) {
            // A full mailbox means that this is asked again at the next housekeeping.
            let _ = (self.post)(thread, Mail::Evict { node });
        }
    }

    /// Server connections opened before now end as soon as they are idle (SESSIONS R6: login defaults may have changed).
    pub fn retire(&self) {
        self.retired.set(now());
        self.housekeeping();
    }

    pub(super) fn is_retired(&self, opened: Instant) -> bool {
        let lifetime = self.times.get().max_lifetime;
        opened < self.retired.get()
            || (!lifetime.is_zero() && self.tick.get().saturating_duration_since(opened) > lifetime)
    }

    /// Closes what has been idle for too long or has died, and sees to sessions that still wait.
    pub fn housekeeping(&self) {
        self.tick.set(now());
        let pools: Vec<_> = self.pools.borrow().values().cloned().collect();
        for pool in pools {
            pool.housekeeping();
        }
    }

    /// Drops every idle connection to `node`, whose server is gone or to be left; sessions that wait for one are told so.
    pub fn forget(&self, node: NodeId) {
        let pools: Vec<_> = self.pools().into_iter().filter(|pool| pool.key().node == node).collect();
        for pool in pools {
            pool.close_idle();
            pool.turn_away(&OpenError::Unreachable(format!("node {node} is not used now")));
        }
    }

    /// This thread's pools, for people.
    pub fn pools(&self) -> Vec<Rc<Pool>> {
        self.pools.borrow().values().cloned().collect()
    }
}
