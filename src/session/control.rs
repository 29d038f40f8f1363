//! The handle by which others reach a session: cancel, stop. Lives on the session's thread; must not reach into the session.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

use crate::cluster::NodeId;
use crate::support::clock::Instant;

use super::shown::Shown;

/// Why a session is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Not at all.
    No,
    /// Once no transaction is open: it has been silent for too long.
    Idle,
    /// Once no transaction is open.
    AtRest,
    /// Now.
    Now,
}

/// Shared by a session and those who reach it.
#[derive(Debug)]
pub struct Control {
    cancel: Cell<bool>,
    stop: Cell<Stop>,
    waker: RefCell<Option<Waker>>,
    idle_since: Cell<Option<Instant>>,
    rests: Cell<Option<NodeId>>,
    /// When the client logged in.
    pub since: Instant,
    /// What others may see of it.
    pub(super) shown: Shown,
}

impl Control {
    /// A new session's.
    pub(super) fn new(since: Instant, shown: Shown) -> Self {
        Self {
            cancel: Cell::new(false),
            stop: Cell::new(Stop::No),
            waker: RefCell::default(),
            idle_since: Cell::new(None),
            rests: Cell::new(None),
            since,
            shown,
        }
    }

    /// Cancels what the session is doing.
    pub fn cancel(&self) {
        self.cancel.set(true);
        self.wake();
    }

    /// Ends the session.
    pub fn stop(&self, stop: Stop) {
        self.stop.set(stop);
        self.wake();
    }

    /// Has the session look at everything again.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The session waits: wake it when something is asked of it.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            slot => *slot = Some(cx.waker().clone()),
        }
    }

    /// The session waits for its client from now on.
    pub(super) fn idle_from(&self, now: Instant) {
        if self.idle_since.get().is_none() {
            self.idle_since.set(Some(now));
        }
    }

    /// The session keeps a connection to this node and has nothing under way there, or not.
    pub(super) fn rest(&self, node: Option<NodeId>) {
        self.rests.set(node);
    }

    /// Where the session keeps a connection while it has nothing under way.
    pub(super) fn rests_at(&self) -> Option<NodeId> {
        self.rests.get()
    }

    /// The client has said something.
    pub(super) fn busy(&self) {
        self.idle_since.set(None);
        if self.stop.get() == Stop::Idle {
            self.stop.set(Stop::No);
        }
    }

    /// Since when the session waits for its client, if it does and that matters.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since.get()
    }

    /// What the session was told.
    pub(super) fn stop_reason(&self) -> Stop {
        self.stop.get()
    }

    /// A cancel was asked for since the last look.
    pub(super) fn take_cancel(&self) -> bool {
        self.cancel.replace(false)
    }

    /// The session is to end once no transaction is open.
    pub(super) fn stopping(&self) -> bool {
        self.stop.get() != Stop::No
    }

    /// The session is to end at once.
    pub(super) fn stopping_now(&self) -> bool {
        self.stop.get() == Stop::Now
    }
}
