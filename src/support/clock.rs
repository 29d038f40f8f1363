//! The only place that asks the operating system for the time. Engines take `now` as an argument instead.

pub use std::time::{Duration, Instant};

/// The present, on the monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}
