//! An operator's pause: no new statement begins before it is over. Bounded in time by who orders it, and in the number of those that wait by
//! `failover.max_held`. Read by every statement, so that it costs one load; must not hold statements itself.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::support::clock::{Instant, now};

/// What held statements wait for.
pub(super) const WHY: &str = "an operator has paused new statements";

/// Shared by all sessions.
#[derive(Debug)]
pub struct Pause {
    /// In microseconds since `origin`; 0: there is none.
    until: AtomicU64,
    origin: Instant,
    /// Told when a pause is over.
    over: watch::Sender<()>,
}

impl Pause {
    /// None.
    pub fn new(origin: Instant) -> Self {
        Self { until: AtomicU64::new(0), origin, over: watch::Sender::new(()) }
    }

    /// No new statement begins before `until`. A transaction under way goes on.
    pub fn begin(&self, until: Instant) {
        let micros = until.saturating_duration_since(self.origin).as_micros();
        self.until.store(u64::try_from(micros).unwrap_or(u64::MAX).max(1), Ordering::Release);
    }

    /// Statements go on. Was there a pause?
    pub fn end(&self) -> bool {
        let was = self.is_on();
        self.until.store(0, Ordering::Release);
        self.over.send_replace(());
        was
    }

    /// Until when; none if there is no pause.
    pub fn until(&self) -> Option<Instant> {
        let until = self.until.load(Ordering::Acquire);
        (until != 0).then(|| self.origin + std::time::Duration::from_micros(until)).filter(|until| *until > now())
    }

    /// Ends a pause whose time is over; true once.
    pub fn expire(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        let over = until != 0 && self.until().is_none();
        // A new pause that was ordered meanwhile stays.
        let ended = over && self.until.compare_exchange(until, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if ended {
            self.over.send_replace(());
        }
        ended
    }

    /// The clock is looked at only while there is one.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0 && self.until().is_some()
    }

    /// Changes when a pause is over.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.over.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::clock::Duration;

    #[test]
    fn a_pause_ends_by_order_or_by_itself() {
        let pause = Pause::new(now());
        assert!(!pause.is_on() && !pause.end() && !pause.expire() && pause.until().is_none());
        pause.begin(now() + Duration::from_secs(60));
        let mut told = pause.watch();
        assert!(pause.is_on() && !pause.expire());
        assert!(pause.end() && !pause.is_on() && told.has_changed().expect("it lives"));
        told.mark_unchanged();
        pause.begin(now());
        assert!(!pause.is_on() && pause.until().is_none());
        assert!(!told.has_changed().expect("it lives"));
        assert!(pause.expire() && !pause.expire() && told.has_changed().expect("it lives"));
    }
}
