//! Sessions of one thread that wait for a connection of one pool, in the order of their coming (SESSIONS R16). Must not know where
//! connections come from.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::support::clock::{Duration, Instant, now};

use super::hub::OpenError;
use super::server::Server;

/// What a wait comes to.
type Answer = Result<Box<Server>, OpenError>;

/// Those who wait.
#[derive(Default)]
pub(super) struct Queue {
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    /// No wait is over before then, so that nobody looks through all of them to find that out.
    soonest: Cell<Option<Instant>>,
}

/// One of them.
pub(super) struct Waiter {
    /// When the wait began.
    pub(super) since: Instant,
    /// When the wait is over, in vain.
    until: Instant,
    /// Still in the queue: set back by whoever takes it out.
    queued: Cell<bool>,
    answer: RefCell<Option<Answer>>,
    waker: RefCell<Option<Waker>>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.borrow().is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.borrow().len()
    }

    /// Since when the first has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiters.borrow().front().map(|waiter| waiter.since)
    }

    /// Waits at the end of the queue from now on, for at most `limit`.
    pub(super) fn push(&self, limit: Duration) -> Rc<Waiter> {
        let since = now();
        let until = since + limit;
        self.soonest.set(Some(self.soonest.get().map_or(until, |soonest| soonest.min(until))));
        let (answer, waker) = Default::default();
        let waiter = Rc::new(Waiter { since, until, queued: Cell::new(true), answer, waker });
        self.waiters.borrow_mut().push_back(waiter.clone());
        waiter
    }

    /// The first, who is to be answered.
    pub(super) fn pop(&self) -> Option<Rc<Waiter>> {
        self.waiters.borrow_mut().pop_front()
    }

    /// Everybody, in order, to be answered.
    pub(super) fn take_all(&self) -> VecDeque<Rc<Waiter>> {
        std::mem::take(&mut *self.waiters.borrow_mut())
    }

    /// Those whose time is over, to be answered. All of one login have the same limit, but for those who logged in before a reload.
    pub(super) fn take_late(&self, now: Instant) -> VecDeque<Rc<Waiter>> {
        if self.soonest.get().is_none_or(|soonest| soonest > now) {
            return VecDeque::new();
        }
        let (late, left): (VecDeque<_>, VecDeque<_>) =
            self.take_all().into_iter().partition(|waiter| waiter.until <= now);
        self.soonest.set(left.iter().map(|waiter| waiter.until).min());
        *self.waiters.borrow_mut() = left;
        late
    }

    /// Waits no more. True: it was still in the queue.
    pub(super) fn leave(&self, waiter: &Rc<Waiter>) -> bool {
        let queued = waiter.queued.replace(false);
        if queued {
            self.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, waiter));
        }
        queued
    }
}

impl Waiter {
    /// Ends the wait.
    pub(super) fn deliver(&self, answer: Answer) {
        self.queued.set(false);
        *self.answer.borrow_mut() = Some(answer);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// What was delivered and not taken yet.
    pub(super) fn take(&self) -> Option<Answer> {
        self.answer.borrow_mut().take()
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Some(answer) = self.take() {
            return Poll::Ready(answer);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The time of the wait is over.
    pub(super) fn is_over(&self) -> bool {
        self.until <= now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_only_those_whose_time_is_over_leave_and_the_others_keep_their_order() {
        let queue = Queue::default();
        let (hour, moment) = (Duration::from_secs(3600), Duration::from_millis(1));
        let waits = [hour, moment, hour, moment].map(|limit| queue.push(limit));
        let later = now() + Duration::from_secs(1);
        assert!(queue.take_late(waits[0].since).is_empty());
        let late = queue.take_late(later);
        assert!(late.len() == 2 && Rc::ptr_eq(&late[0], &waits[1]) && Rc::ptr_eq(&late[1], &waits[3]));
        assert!(queue.take_late(later).is_empty());
        assert_eq!((queue.len(), queue.oldest()), (2, Some(waits[0].since)));
        let short = queue.push(moment);
        assert!(queue.leave(&waits[0]) && !queue.leave(&waits[0]));
        assert!(queue.pop().is_some_and(|waiter| Rc::ptr_eq(&waiter, &waits[2])));
        assert!(Rc::ptr_eq(&queue.take_late(later)[0], &short), "one that came behind longer ones");
        assert!(queue.is_empty());
    }
}
