//! Memory that one thread writes and a scrape reads. Must not lock, and must not be written by two threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of a histogram: 1 µs times a power of two, up to 67 s; one more takes the rest.
pub const BUCKETS: usize = 27;

/// Times, by their order of magnitude. Written by one thread.
#[derive(Debug)]
#[repr(align(64))]
pub struct Histogram {
    /// Not cumulative; the last one is beyond all bounds.
    counts: [AtomicU64; BUCKETS + 1],
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS + 1], micros: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, time: Duration) {
        self.observe_for(time, 1);
    }

    /// Counts one that stands for `count` of its like.
    pub fn observe_for(&self, time: Duration, count: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        bump(&self.counts[bucket(micros)], count);
        bump(&self.micros, micros.saturating_mul(count));
    }

    /// Counts per bucket, and the sum in microseconds. A scrape between two writes may see one without the other.
    pub fn get(&self) -> ([u64; BUCKETS + 1], u64) {
        (std::array::from_fn(|index| self.counts[index].load(Ordering::Relaxed)), self.micros.load(Ordering::Relaxed))
    }
}

/// The first bucket whose bound, 2^index µs, is not below.
fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - micros.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS)
}

/// With one writer a load and a store do what `fetch_add` does, without locking the bus.
fn bump(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
