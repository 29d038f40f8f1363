//! What standbys refused lately and the primary then did (SESSIONS R11). Owned by one data thread; bounded in number and
//! time. Must not remember conflicts or names that were not found: those pass by themselves.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::sql::Fingerprint;

/// Refused statements by database and fingerprint, each until it expires.
#[derive(Debug)]
pub struct Memory {
    until: FxHashMap<(u32, Fingerprint), Instant>,
    capacity: usize,
    lifetime: Duration,
}

impl Memory {
    /// Nothing remembered; at most `capacity` statements, each for `lifetime`.
    pub fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { until: FxHashMap::default(), capacity, lifetime }
    }

    /// Must a standby's refusal with this SQLSTATE be remembered once the primary succeeds? Read-only transaction, feature not
    /// supported, wrong state, internal error; never conflicts and missing names.
    pub fn is_worth(sqlstate: &str) -> bool {
        matches!(sqlstate, "25006" | "0A000" | "55000" | "XX000")
    }

    /// Remembers a statement from `now` on. At capacity the one that expires first makes room.
    pub fn remember(&mut self, database: u32, fingerprint: Fingerprint, now: Instant) {
        if self.capacity == 0 {
            return;
        }
        let key = (database, fingerprint);
        if self.until.len() >= self.capacity && !self.until.contains_key(&key) {
            self.until.retain(|_, until| *until > now);
            if self.until.len() >= self.capacity
                && let Some(first) = self.until.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key)
            {
                self.until.remove(&first);
            }
        }
        self.until.insert(key, now + self.lifetime);
    }

    /// Is the statement for the primary because a standby refused it?
    pub fn refuses(&self, database: u32, fingerprint: Fingerprint, now: Instant) -> bool {
        self.until.get(&(database, fingerprint)).is_some_and(|until| *until > now)
    }

    /// Statements remembered, expired ones included.
    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// Nothing remembered?
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}
