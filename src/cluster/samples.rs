//! Positions in the write-ahead log as the control thread samples them, readable by data threads without a lock
//! (SESSIONS R7). One slot per node, one writer (the control thread). Holds values; must not judge them.
//!
//! What a sample proves, and for how long:
//! - A *primary* sample asked at `a` in epoch `e`: everything that was acknowledged before `a` under `e` lies at or below
//!   its position. It never grows wrong within its epoch.
//! - A *standby* sample: at some moment after `a` the standby had replayed that far. Replay does not go back while the
//!   server runs, but an immediate restart may bring it up at an earlier position. So it counts only for a server
//!   connection that was **established before `a`** and is still alive: that connection proves that there was no restart
//!   in between. Besides, the control thread voids the slot as soon as it loses its own connection.
//! - A new epoch voids everything that was sampled under older ones.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use super::{Epoch, Lsn, NodeId};

/// Node numbers from here on have no slot: their samples are never known, and reads that need one stay on the primary.
pub const MAX_SAMPLED_NODES: usize = 128;

/// How long one `want` keeps the sampler at its quick pace. Longer than the 100 ms of that pace, so that a waiting session which
/// asks at each of its statements does not fall between two rounds.
pub const WANTED_FOR: Duration = Duration::from_secs(1);

/// A reader gives up after this many meetings with the writer and takes the sample as unknown, which is always safe.
const READ_TRIES: usize = 8;

/// One reading of a node's write-ahead log position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When the question was *sent*: on a primary everything acknowledged before is at or below `lsn`.
    pub asked: Instant,
    /// Primary: the insert position. Standby: the replayed position.
    pub lsn: Lsn,
    /// The epoch in which it was both asked and answered.
    pub epoch: Epoch,
}

/// A sequence lock: odd while the writer is inside. Aligned so that readers of one node do not disturb those of another.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    sequence: AtomicU64,
    /// Nanoseconds since `Samples::base`, plus one; 0 is "no sample".
    asked: AtomicU64,
    lsn: AtomicU64,
    epoch: AtomicU64,
}

impl Slot {
    fn write(&self, asked: u64, lsn: Lsn, epoch: Epoch) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.asked.store(asked, Ordering::Relaxed);
        self.lsn.store(lsn.0, Ordering::Relaxed);
        self.epoch.store(epoch.0, Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(2), Ordering::Release);
    }

    fn read(&self) -> Option<(u64, Lsn, Epoch)> {
        for _ in 0..READ_TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            let asked = self.asked.load(Ordering::Relaxed);
            let lsn = Lsn(self.lsn.load(Ordering::Relaxed));
            let epoch = Epoch(self.epoch.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return (asked != 0).then_some((asked, lsn, epoch));
            }
            std::hint::spin_loop();
        }
        None
    }
}

/// The newest sample of each node, and the mark by which sessions ask for more.
#[derive(Debug)]
pub struct Samples {
    base: Instant,
    slots: Box<[Slot]>,
    /// Nanoseconds since `base`, plus one, of the last `want`.
    wanted: AtomicU64,
}

impl Samples {
    /// Empty; `base` must not be later than any time given to the other functions.
    pub fn new(base: Instant) -> Self {
        let slots = (0..MAX_SAMPLED_NODES).map(|_| Slot::default()).collect();
        Self { base, slots, wanted: AtomicU64::new(0) }
    }

    /// Stores a sample. Only the control thread may call this and [`Samples::void`].
    pub fn store(&self, node: NodeId, sample: Sample) {
        if let Some(slot) = self.slots.get(usize::from(node.0)) {
            slot.write(self.nanos(sample.asked), sample.lsn, sample.epoch);
        }
    }

    /// Forgets a node's sample: its connection was lost, or its role is not the expected one.
    pub fn void(&self, node: NodeId) {
        if let Some(slot) = self.slots.get(usize::from(node.0)) {
            slot.write(0, Lsn(0), Epoch(0));
        }
    }

    /// The newest sample of a node, of whatever epoch; see the head of this file for what it proves.
    pub fn newest(&self, node: NodeId) -> Option<Sample> {
        let (asked, lsn, epoch) = self.slots.get(usize::from(node.0))?.read()?;
        Some(Sample { asked: self.base + Duration::from_nanos(asked - 1), lsn, epoch })
    }

    /// A session waits for a sample: sample at the quick pace for the next [`WANTED_FOR`]. Costs one load when another
    /// session said so less than 10 ms ago.
    pub fn want(&self, now: Instant) {
        const REFRESH: u64 = 10_000_000;
        let (now, last) = (self.nanos(now), self.wanted.load(Ordering::Relaxed));
        if last == 0 || now.saturating_sub(last) > REFRESH {
            self.wanted.store(now, Ordering::Relaxed);
        }
    }

    /// Does anyone wait for samples?
    pub fn wanted(&self, now: Instant) -> bool {
        let last = self.wanted.load(Ordering::Relaxed);
        last != 0 && u128::from(self.nanos(now).saturating_sub(last)) <= WANTED_FOR.as_nanos()
    }

    /// Five centuries fit.
    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX - 1).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        crate::support::clock::now()
    }

    #[test]
    fn r07_a_sample_comes_back_as_it_was_stored_and_can_be_voided() {
        let base = start();
        let samples = Samples::new(base);
        assert_eq!(samples.newest(NodeId(3)), None);
        let sample = Sample { asked: base + Duration::from_millis(7), lsn: Lsn(99), epoch: Epoch(2) };
        samples.store(NodeId(3), sample);
        assert_eq!(samples.newest(NodeId(3)), Some(sample));
        assert_eq!(samples.newest(NodeId(2)), None);
        samples.void(NodeId(3));
        assert_eq!(samples.newest(NodeId(3)), None);
    }

    #[test]
    fn r07_a_node_without_a_slot_is_never_known() {
        let base = start();
        let samples = Samples::new(base);
        let node = NodeId(u16::try_from(MAX_SAMPLED_NODES).expect("small"));
        samples.store(node, Sample { asked: base, lsn: Lsn(1), epoch: Epoch(1) });
        assert_eq!(samples.newest(node), None);
    }

    #[test]
    fn r07_wanted_ends_by_itself() {
        let base = start();
        let samples = Samples::new(base);
        assert!(!samples.wanted(base));
        samples.want(base);
        assert!(samples.wanted(base + WANTED_FOR));
        assert!(!samples.wanted(base + WANTED_FOR + Duration::from_millis(1)));
        samples.want(base + Duration::from_secs(9));
        assert!(samples.wanted(base + Duration::from_secs(9)));
    }

    #[test]
    fn r07_a_reader_never_sees_half_a_sample() {
        let base = start();
        let samples = Samples::new(base);
        let rounds = 200_000_u64;
        let sample = |n: u64| Sample { asked: base + Duration::from_nanos(n), lsn: Lsn(n * 3), epoch: Epoch(n * 7) };
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=rounds).for_each(|n| samples.store(NodeId(0), sample(n))));
            let mut last = 0;
            while last < rounds {
                if let Some(seen) = samples.newest(NodeId(0)) {
                    let n = seen.lsn.0 / 3;
                    assert_eq!(seen, sample(n));
                    assert!(n >= last, "went back from {last} to {n}");
                    last = n;
                }
            }
        });
    }
}
