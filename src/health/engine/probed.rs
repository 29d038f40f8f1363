//! What the engine keeps of one node: thresholds in both directions, when its next probe is due, and what is said of its life.

use super::{EARLY, FRESH_EVERY, Instant, MIN_GAP, NodeSettings, OVERDUE, Record, Seen, Thresholds};
use crate::cluster::{Life, Written};
use crate::health::reading::{Failure, Weight};
use crate::health::written;
use crate::support::backoff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    New,
    Up { failures: u32 },
    Down { successes: u32, needed: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probing {
    Idle {
        due: Instant,
    },
    /// `again`: something was noticed after it had started.
    Flying {
        again: bool,
    },
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) settings: NodeSettings,
    pub(super) health: Health,
    pub(super) probing: Probing,
    pub(super) started: Option<Instant>,
    /// How much earlier than its period each probe comes: a series of numbers that is this node's own.
    pub(super) series: u64,
    /// Probes until the next one that makes a new connection.
    pub(super) until_fresh: u32,
    /// The newest answer.
    pub(super) last: Option<Seen>,
    /// The one before it.
    pub(super) earlier: Option<Seen>,
    /// What its answers tell of the age of what it has received.
    pub(super) written: Option<Written>,
    pub(super) failure: Option<Failure>,
    /// Failures in a row that count towards its death, and when the first probe of the present row of failures started.
    pub(super) counted: u32,
    pub(super) failing: Option<Instant>,
    pub(super) record: Record,
    /// A server of its own that is a standby by configuration.
    pub(super) copy: bool,
}

impl Node {
    /// `seed`: of the engine; each node makes a series of its own from it.
    pub(super) fn new(settings: NodeSettings, seed: u64, now: Instant) -> Self {
        Self {
            series: seed ^ (u64::from(settings.id.0) << 48),
            settings,
            health: Health::New,
            probing: Probing::Idle { due: now },
            started: None,
            until_fresh: FRESH_EVERY,
            last: None,
            earlier: None,
            written: None,
            failure: None,
            counted: 0,
            failing: None,
            record: Record::default(),
            copy: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.health, Health::Up { .. })
    }

    /// Earliest next probe after one that has just ended.
    fn next_due(&mut self, now: Instant) -> Instant {
        let Thresholds { period, retry_delay, max_retries, .. } = self.settings.thresholds;
        let started = self.started.unwrap_or(now);
        let by_period = started + period - period.mul_f64(EARLY * backoff::part(&mut self.series));
        let due = match self.health {
            Health::Up { failures: 0 } | Health::New => by_period,
            Health::Up { .. } | Health::Down { successes: 1.., .. } => now + retry_delay,
            // The server said that it is coming: look often, it will not be long. Or it is not known yet whether it has died.
            Health::Down { .. } if self.failure.is_some_and(|f| f.weight() == Weight::OwnWord) => now + retry_delay,
            Health::Down { .. } if (1..=max_retries).contains(&self.counted) => now + retry_delay,
            Health::Down { .. } => by_period,
        };
        due.max(started + MIN_GAP).max(now)
    }

    pub(super) fn ended(&mut self, now: Instant) {
        let again = matches!(self.probing, Probing::Flying { again: true });
        let due = if again && self.counted == 0 {
            self.started.map_or(now, |started| (started + MIN_GAP).max(now))
        } else {
            self.next_due(now)
        };
        self.probing = Probing::Idle { due };
    }

    pub(super) fn hurry(&mut self, fresh: bool, now: Instant) {
        if fresh {
            self.until_fresh = 0;
        }
        match &mut self.probing {
            Probing::Flying { again } => *again = true,
            // Condemning takes its time, however many notice that something is wrong.
            Probing::Idle { .. } if self.counted > 0 => {}
            Probing::Idle { due } => {
                let earliest = self.started.map_or(now, |started| started + MIN_GAP);
                *due = (*due).min(earliest.max(now));
            }
        }
    }

    /// Takes a new answer over.
    pub(super) fn learn(&mut self, seen: Seen) {
        self.answered();
        self.written = written::learn(self.written, self.last.as_ref(), &seen);
        self.earlier = self.last.replace(seen);
    }

    fn answered(&mut self) {
        self.failure = None;
        (self.counted, self.failing) = (0, None);
        self.health = match self.health {
            Health::Down { successes, needed } if successes + 1 < needed => {
                Health::Down { successes: successes + 1, needed }
            }
            _ => Health::Up { failures: 0 },
        };
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.failure = Some(failure);
        let Thresholds { max_retries, successes, .. } = self.settings.thresholds;
        self.counted = if failure.weight() == Weight::Counts { self.counted.saturating_add(1) } else { 0 };
        self.failing = if failure.weight() == Weight::Alive { None } else { self.failing.or(self.started) };
        self.health = match (failure.weight(), self.health) {
            (_, Health::New) => Health::Down { successes: 0, needed: 1 },
            (Weight::Alive, health) => health,
            (Weight::OwnWord, Health::Up { .. }) => Health::Down { successes: 0, needed: 1 },
            (Weight::Counts, Health::Up { failures }) if failures < max_retries => {
                Health::Up { failures: failures + 1 }
            }
            (Weight::Counts, Health::Up { .. }) => Health::Down { successes: 0, needed: successes.max(1) },
            (_, Health::Down { needed, .. }) => Health::Down { successes: 0, needed },
        };
    }

    /// When the probe under way becomes late (HA H1).
    pub(super) fn overdue(&self) -> Option<Instant> {
        matches!(self.probing, Probing::Flying { .. }).then_some(self.started? + OVERDUE)
    }

    /// What the probes say about its life.
    pub(super) fn life(&self, now: Instant) -> Life {
        match self.failing {
            Some(since) if self.counted > self.settings.thresholds.max_retries => Life::Dead(since),
            Some(since) if self.failure.is_some_and(|failure| failure.weight() == Weight::OwnWord) => Life::Busy(since),
            Some(since) => Life::Suspect(since),
            None => match (self.overdue(), self.started) {
                (Some(late), Some(started)) if late <= now => Life::Suspect(started),
                _ if self.last.is_none() && self.failure.is_none() => Life::Unknown,
                _ => Life::Well,
            },
        }
    }
}
