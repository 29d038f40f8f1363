//! One thread's part of a pool: idle connections, and sessions that wait in the order of their coming (SESSIONS R16).
//! Lends and takes back; must not clean or set up what it lends.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::support::clock::{Duration, Instant, now};

use super::carried::Carried;
use super::hub::{Hub, Mail, OpenError};
use super::queue::{Queue, Waiter};
use super::server::Server;
use super::shared::{Full, Permit, PoolKey, Share, SharedPool};

/// A waiter of another thread must be older by this before a connection moves to it (SESSIONS R16).
const PATIENCE: Duration = Duration::from_millis(5);
/// Between two connections that a thread gives away while its own sessions wait: queues that differ by chance would pass the same ones to
/// and fro, which costs more than a transaction.
const SETTLING: Duration = Duration::from_millis(20);
/// Looks at an empty queue after which nobody looks any more.
const QUIET: u32 = 20;
/// Connections that one thread opens for one pool at the same time: a storm of clients is served at a bounded rate.
const OPENING: u32 = 8;
/// After a server had no room: how long before it is asked again.
const BACK_OFF: Duration = Duration::from_millis(250);
/// Idle connections looked at for one that already has the wanted settings.
const LOOK: usize = 8;

/// One thread's part of a pool.
pub struct Pool {
    hub: Weak<Hub>,
    thread: usize,
    shared: Arc<SharedPool>,
    /// Boxed as the sessions hold them: a lease moves eight bytes.
    #[expect(clippy::vec_box, reason = "leasing and giving back must not move what is in the box")]
    idle: RefCell<Vec<Box<Server>>>,
    queue: Queue,
    opening: Cell<u32>,
    /// Not before then to another thread past sessions that wait here.
    settled: Cell<Option<Instant>>,
    not_before: Cell<Option<Instant>>,
    /// Connections kept even when idle.
    min: Cell<u32>,
    /// A task looks after those who wait for long.
    watched: Cell<bool>,
}

/// A session's place in the queue. Leaves it when dropped; what was delivered meanwhile goes to the next.
pub struct Ticket {
    pool: Rc<Pool>,
    waiter: Rc<Waiter>,
}

impl Ticket {
    /// Ready with a connection, or with the reason why none can be had. Cancel safe.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Server>, OpenError>> {
        self.waiter.poll(cx)
    }

    /// The time of the wait is over.
    pub fn is_over(&self) -> bool {
        self.waiter.is_over()
    }

    /// When the wait began.
    pub fn since(&self) -> Instant {
        self.waiter.since
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.pool.queue.leave(&self.waiter) {
            self.pool.publish();
        }
        if let Some(Ok(server)) = self.waiter.take() {
            self.pool.put(server);
        }
    }
}

impl Pool {
    pub(super) fn new(hub: &Rc<Hub>, shared: Arc<SharedPool>) -> Rc<Self> {
        Rc::new(Self {
            hub: Rc::downgrade(hub),
            thread: hub.thread,
            shared,
            idle: RefCell::default(),
            queue: Queue::default(),
            opening: Cell::new(0),
            settled: Cell::new(None),
            not_before: Cell::new(None),
            min: Cell::new(0),
            watched: Cell::new(false),
        })
    }

    /// Keeps so many connections open even when they are idle, counted over all threads.
    pub fn keep_at_least(&self, min: u32) {
        self.min.set(min);
    }

    /// Which pool.
    pub fn key(&self) -> &PoolKey {
        &self.shared.key
    }

    /// The counts shared with the other threads.
    pub fn shared(&self) -> &Arc<SharedPool> {
        &self.shared
    }

    fn hub(&self) -> Rc<Hub> {
        self.hub.upgrade().expect("a thread's hub lives as long as its pools")
    }

    /// An idle connection if there is one and nobody waits; one that already has `wanted` is preferred.
    pub fn try_lease(&self, wanted: &Rc<Carried>) -> Option<Box<Server>> {
        if !self.queue.is_empty() {
            return None;
        }
        loop {
            let mut server = {
                let mut idle = self.idle.borrow_mut();
                let from = idle.len().saturating_sub(LOOK);
                let fits = idle[from..].iter().rposition(|server| Rc::ptr_eq(&server.applied, wanted));
                let at = fits.map_or(idle.len().checked_sub(1)?, |at| from + at);
                idle.remove(at)
            };
            self.publish_idle();
            if server.alive(&self.hub().buffers) {
                return Some(server);
            }
        }
    }

    /// The idle connection `id`, if it is here and what sequences gave it is the session's (SESSIONS R4).
    pub fn try_lease_same(&self, id: u64, session: u64) -> Option<Box<Server>> {
        let mut server = {
            let mut idle = self.idle.borrow_mut();
            let at =
                idle.iter().position(|server| server.identity.id == id && server.leftovers.sequences == session)?;
            idle.remove(at)
        };
        self.publish_idle();
        server.alive(&self.hub().buffers).then_some(server)
    }

    /// Queues a session for at most `limit` and sees to it that a connection comes.
    pub fn enqueue(self: &Rc<Self>, limit: Duration) -> Ticket {
        let waiter = self.queue.push(limit);
        self.publish();
        self.want_more();
        self.watch();
        Ticket { pool: self.clone(), waiter }
    }

    /// Takes a connection that is at rest back: to the one who has waited longest, else to the idle ones.
    pub fn put(self: &Rc<Self>, mut server: Box<Server>) {
        let hub = self.hub();
        if self.is_retired(&hub, &server) || self.shared.oversized() {
            server.close();
            self.want_more();
            return;
        }
        let oldest = self.queue.oldest();
        let needier = self.shared.needier(hub.thread, oldest, PATIENCE);
        if let Some(thread) = needier.filter(|_| oldest.is_none() || self.settles()) {
            match self.send(&hub, thread, server) {
                None => return,
                Some(kept) => server = kept,
            }
        }
        match self.queue.pop() {
            Some(waiter) => waiter.deliver(Ok(server)),
            None => {
                server.rest(&hub.buffers);
                server.idle_since = hub.tick.get();
                self.idle.borrow_mut().push(server);
            }
        }
        self.publish();
    }

    /// It is long enough since a connection went to another thread past sessions that wait here.
    fn settles(&self) -> bool {
        let now = now();
        let settled = self.settled.get().is_none_or(|at| at <= now);
        if settled {
            self.settled.set(Some(now + SETTLING));
        }
        settled
    }

    /// A connection is gone: someone may need another.
    pub fn lost(self: &Rc<Self>, server: Box<Server>) {
        drop(server);
        self.want_more();
        let hub = self.hub();
        let oldest = self.queue.oldest();
        if let Some(thread) = self.shared.needier(hub.thread, oldest, PATIENCE) {
            // Its place is free for whoever waits over there. A full mailbox means that it looks again at its next housekeeping.
            let _ = (hub.post)(thread, Mail::Nothing { pool: self.shared.clone() });
        }
    }

    /// Posts a connection to another thread. Gives it back if it must stay.
    fn send(self: &Rc<Self>, hub: &Hub, thread: usize, mut server: Box<Server>) -> Option<Box<Server>> {
        server.rest(&hub.buffers);
        server.identity.permit.move_to(thread);
        let Ok(detached) = server.detach() else {
            self.want_more();
            return None;
        };
        let mail = Mail::Server { pool: self.shared.clone(), server: Box::new(detached) };
        match (hub.post)(thread, mail) {
            Ok(()) => None,
            Err(Mail::Server { server, .. }) => {
                let mut server = server.attach(hub.interner.clone()).ok()?;
                server.identity.permit.move_to(hub.thread);
                Some(Box::new(server))
            }
            Err(_) => None,
        }
    }

    /// Another thread wants an idle connection.
    pub(super) fn hand_over(self: &Rc<Self>, to: usize) {
        let hub = self.hub();
        let spare = if self.queue.is_empty() { self.pop_alive(&hub) } else { None };
        self.publish_idle();
        let left = match spare {
            Some(server) => match self.send(&hub, to, server) {
                None => return,
                left => left,
            },
            None => None,
        };
        if let Some(server) = left {
            self.put(server);
        }
        // A full mailbox means that it asks again at its next housekeeping.
        let _ = (hub.post)(to, Mail::Nothing { pool: self.shared.clone() });
    }

    /// An idle connection that the server has not closed.
    fn pop_alive(&self, hub: &Hub) -> Option<Box<Server>> {
        loop {
            let mut server = self.idle.borrow_mut().pop()?;
            if server.alive(&hub.buffers) {
                return Some(server);
            }
        }
    }

    /// Someone waits: take a connection over from another thread, else open one. With as many as there may be, and its part of them, a
    /// thread waits for its own.
    pub(super) fn want_more(self: &Rc<Self>) {
        if self.queue.is_empty() {
            return;
        }
        let hub = self.hub();
        if !self.shared.has_its_part(hub.thread) && !self.ask_others(&hub) {
            self.open_more();
        }
    }

    /// Asks the thread with the most idle connections for one. False if there is none, or its mailbox is full.
    fn ask_others(&self, hub: &Hub) -> bool {
        let ask = |thread| (hub.post)(thread, Mail::Want { pool: self.shared.clone(), from: hub.thread }).is_ok();
        self.shared.richer(hub.thread).is_some_and(ask)
    }

    /// Looks after those who wait, for as long as anybody does: asks other threads once somebody has waited for longer than [`PATIENCE`],
    /// and ends waits whose time is over. One timer for all of them.
    fn watch(self: &Rc<Self>) {
        if self.watched.replace(true) {
            return;
        }
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let mut quiet = 0;
            while quiet < QUIET {
                tokio::time::sleep(PATIENCE).await;
                let now = now();
                pool.answer(pool.queue.take_late(now), &OpenError::Late);
                let oldest = pool.queue.oldest();
                quiet = if oldest.is_some() { 0 } else { quiet + 1 };
                let late = oldest.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
                if late && !pool.ask_others(&pool.hub()) {
                    pool.open_more();
                }
            }
            pool.watched.set(false);
        });
    }

    /// Opens as many connections as sessions wait for, within all limits.
    pub(super) fn open_more(self: &Rc<Self>) {
        let hub = self.hub();
        while self.opening.get() < OPENING && (self.opening.get() as usize) < self.queue.len() {
            if self.not_before.get().is_some_and(|at| now() < at) {
                return;
            }
            match self.shared.permit(hub.thread) {
                Ok(permit) => self.open(&hub, permit),
                Err(Full::Pool) => return,
                Err(Full::Node) if hub.evict(self.key().node, Some(self.key())) => {}
                Err(Full::Node) => return hub.ask_for_room(self.key().node),
            }
        }
    }

    fn open(self: &Rc<Self>, hub: &Rc<Hub>, permit: Permit) {
        self.opening.set(self.opening.get() + 1);
        let opening = (hub.open)(&self.shared, permit);
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let opened = opening.await;
            pool.opening.set(pool.opening.get() - 1);
            match opened {
                Ok(server) => {
                    pool.not_before.set(None);
                    pool.put(server);
                }
                Err(error) => pool.cannot_open(error),
            }
        });
    }

    /// Sessions whose server is gone or will not have them are told at once; one that is full is asked again.
    fn cannot_open(self: &Rc<Self>, error: OpenError) {
        if self.queue.is_empty() {
            self.not_before.set(Some(now() + BACK_OFF));
        }
        if matches!(error, OpenError::Busy(_)) {
            self.not_before.set(Some(now() + BACK_OFF));
            if self.shared.open() > 0 {
                return;
            }
        }
        self.turn_away(&error);
    }

    /// Everyone who waits hears that there will be no connection.
    pub(super) fn turn_away(&self, error: &OpenError) {
        self.answer(self.queue.take_all(), error);
    }

    fn answer(&self, waiters: VecDeque<Rc<Waiter>>, error: &OpenError) {
        if waiters.is_empty() {
            return;
        }
        self.publish();
        for waiter in waiters {
            waiter.deliver(Err(error.clone()));
        }
    }

    pub(super) fn housekeeping(self: &Rc<Self>) {
        let hub = self.hub();
        let timeout = hub.times.get().idle_timeout;
        let servers = std::mem::take(&mut *self.idle.borrow_mut());
        let (mut kept, mut closed) = (Vec::with_capacity(servers.len()), Vec::new());
        for mut server in servers {
            let spare =
                self.shared.open().saturating_sub(u32::try_from(closed.len()).unwrap_or(u32::MAX)) > self.min.get();
            let stale = spare && !timeout.is_zero() && server.idle_since.elapsed() > timeout;
            if !stale && !self.is_retired(&hub, &server) && server.alive(&hub.buffers) {
                kept.push(server);
            } else {
                closed.push(server);
            }
        }
        kept.append(&mut self.idle.borrow_mut());
        *self.idle.borrow_mut() = kept;
        self.publish();
        for server in closed {
            server.close();
        }
        self.want_more();
        self.fill_up(&hub);
    }

    /// Opens a connection towards the minimum.
    fn fill_up(self: &Rc<Self>, hub: &Rc<Hub>) {
        let wait = self.opening.get() > 0 || self.not_before.get().is_some_and(|at| now() < at);
        if !wait
            && self.shared.open() < self.min.get()
            && let Ok(permit) = self.shared.permit(hub.thread)
        {
            self.open(hub, permit);
        }
    }

    pub(super) fn longest_idle(&self) -> Option<Instant> {
        self.idle.borrow().iter().map(|server| server.idle_since).min()
    }

    pub(super) fn close_longest_idle(&self) {
        let mut idle = self.idle.borrow_mut();
        let at = (0..idle.len()).min_by_key(|&at| idle[at].idle_since);
        let server = at.map(|at| idle.remove(at));
        drop(idle);
        self.publish_idle();
        if let Some(server) = server {
            server.close();
        }
    }

    pub(super) fn close_idle(&self) {
        let servers = std::mem::take(&mut *self.idle.borrow_mut());
        self.publish_idle();
        for server in servers {
            server.close();
        }
    }

    fn is_retired(&self, hub: &Hub, server: &Server) -> bool {
        hub.is_retired(server.identity.opened) || self.shared.is_retired(server.identity.opened)
    }

    /// Idle connections and waiting sessions of this thread.
    pub fn counts(&self) -> (usize, usize) {
        (self.idle.borrow().len(), self.queue.len())
    }

    fn publish_idle(&self) {
        let count = u32::try_from(self.idle.borrow().len()).unwrap_or(u32::MAX);
        self.share().idle.store(count, Ordering::Release);
    }

    fn share(&self) -> &Share {
        &self.shared.shares[self.thread]
    }

    /// Tells the other threads what this one has and lacks. Nobody else writes there, so what has not changed is left alone: most often
    /// nobody waits.
    fn publish(&self) {
        self.publish_idle();
        let share = self.share();
        let count = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        if count == 0 && share.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let before = share.waiting.swap(count, Ordering::AcqRel);
        self.shared.waiting.fetch_add(count.wrapping_sub(before), Ordering::AcqRel);
        let oldest = self.queue.oldest().map_or(u64::MAX, |since| self.shared.since_origin(since));
        share.oldest.store(oldest, Ordering::Release);
    }
}
