//! What is known of each database's catalog, published by the control thread and read by the data threads without a
//! lock. Generic over what is known, which `routing` defines. Must not read a catalog itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use dashmap::DashMap;

/// Databases of which something may be known at a time; more are served by the primary alone.
const MOST: usize = 1_000;

/// One database's knowledge.
///
/// A reading of the catalog counts only if it was *sent* after the last change that was seen: [`begin`](Self::begin) before it is sent,
/// [`publish`](Self::publish) when it is there.
#[derive(Debug)]
pub struct Known<C> {
    /// The database.
    pub database: Box<str>,
    known: ArcSwapOption<C>,
    /// Grows with each change seen.
    changes: AtomicU64,
    /// Grows with each change seen and each reading published.
    generation: AtomicU64,
    wanted: AtomicBool,
}

/// The state of changes when a reading was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading(u64);

impl<C> Known<C> {
    fn new(database: &str) -> Self {
        Self {
            database: database.into(),
            known: ArcSwapOption::empty(),
            changes: AtomicU64::new(0),
            generation: AtomicU64::new(1),
            wanted: AtomicBool::new(false),
        }
    }

    /// What is known now; nothing after a change until it was read again.
    pub fn get(&self) -> Guard<Option<Arc<C>>> {
        self.known.load()
    }

    /// Part of the key of everything that was decided with [`get`](Self::get).
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many changes were seen; statements prepared before a change are not those prepared after it.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Something changed the catalog: nothing is known until it was read again.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.known.store(None);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Before the catalog is read.
    pub fn begin(&self) -> Reading {
        self.wanted.store(false, Ordering::Release);
        Reading(self.changes())
    }

    /// The catalog was read. Returns whether the reading counts.
    pub fn publish(&self, reading: Reading, known: C) -> bool {
        if reading.0 != self.changes() {
            return false;
        }
        self.known.store(Some(Arc::new(known)));
        self.generation.fetch_add(1, Ordering::AcqRel);
        if reading.0 == self.changes() {
            return true;
        }
        // A change came in between: whoever has used it since has decided by a generation that is over.
        self.known.store(None);
        self.generation.fetch_add(1, Ordering::AcqRel);
        false
    }

    /// Someone needs it. True for the first since the last [`begin`](Self::begin), who must ask for it to be read.
    pub fn want(&self) -> bool {
        !self.wanted.load(Ordering::Relaxed) && !self.wanted.swap(true, Ordering::AcqRel)
    }
}

/// All databases.
#[derive(Debug)]
pub struct Knowledge<C> {
    databases: DashMap<Box<str>, Arc<Known<C>>>,
}

impl<C> Default for Knowledge<C> {
    fn default() -> Self {
        Self { databases: DashMap::new() }
    }
}

impl<C> Knowledge<C> {
    /// A database's entry, made at first use. Beyond the limit an entry that nobody else sees and nothing is ever known in.
    pub fn database(&self, name: &str) -> Arc<Known<C>> {
        if let Some(found) = self.databases.get(name) {
            return found.clone();
        }
        if self.databases.len() >= MOST {
            return Arc::new(Known::new(name));
        }
        self.databases.entry(name.into()).or_insert_with(|| Arc::new(Known::new(name))).clone()
    }

    /// Every database that someone asked about.
    pub fn all(&self) -> Vec<Arc<Known<C>>> {
        self.databases.iter().map(|entry| entry.value().clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r09_a_reading_sent_before_a_change_does_not_count() {
        let knowledge = Knowledge::default();
        let known = knowledge.database("d");
        assert!(known.want());
        assert!(!known.want());
        let early = known.begin();
        known.changed();
        assert!(!known.publish(early, 1));
        assert!(known.get().is_none());
        let before = known.generation();
        assert!(known.publish(known.begin(), 2));
        assert_eq!(known.get().as_deref(), Some(&2));
        assert!(known.generation() > before);
        assert!(known.want());
    }
}
