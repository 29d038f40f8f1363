//! The facts and verdicts that a thread has worked out before. Owned by one data thread, without locks; bounded in entries
//! and bytes. Must not work anything out itself.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::{Facts, Fingerprint};

/// What a verdict depends on besides the facts (SESSIONS R9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerdictKey {
    /// The caller's number of the database.
    pub database: u32,
    /// Generation of the knowledge of its catalog; 0 while there is none.
    pub catalog: u64,
    /// Generation of the routing policy.
    pub policy: u64,
}

/// Databases whose verdicts on one text are kept at a time.
const VERDICTS: usize = 4;

/// One text's facts, with the latest verdicts on them.
#[derive(Debug)]
pub struct Entry<V> {
    fingerprint: Fingerprint,
    facts: Rc<Facts>,
    bytes: usize,
    used: bool,
    verdicts: [Option<(VerdictKey, V)>; VERDICTS],
    next: usize,
}

impl<V: Copy> Entry<V> {
    /// The facts.
    pub fn facts(&self) -> &Rc<Facts> {
        &self.facts
    }

    /// The verdict under exactly this key, if it was given lately.
    pub fn verdict(&self, key: VerdictKey) -> Option<V> {
        self.verdicts.iter().flatten().find(|(known, _)| *known == key).map(|(_, verdict)| *verdict)
    }

    /// Keeps a verdict in place of the same database's last one, else of the oldest.
    pub fn set_verdict(&mut self, key: VerdictKey, verdict: V) {
        let same =
            |slot: &Option<(VerdictKey, V)>| slot.as_ref().is_some_and(|(known, _)| known.database == key.database);
        let at = self.verdicts.iter().position(same).unwrap_or_else(|| {
            self.next = (self.next + 1) % VERDICTS;
            self.next
        });
        self.verdicts[at] = Some((key, verdict));
    }
}

/// Facts by fingerprint; the second-chance clock decides who leaves.
#[derive(Debug)]
pub struct Cache<V> {
    index: FxHashMap<Fingerprint, usize>,
    slots: Vec<Entry<V>>,
    hand: usize,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

impl<V: Copy> Cache<V> {
    /// An empty cache that never holds more than `max_entries` texts nor, by estimate, `max_bytes` bytes of facts.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { index: FxHashMap::default(), slots: Vec::new(), hand: 0, bytes: 0, max_entries, max_bytes }
    }

    /// The entry of a text. Takes no memory.
    pub fn get(&mut self, fingerprint: Fingerprint) -> Option<&mut Entry<V>> {
        let at = *self.index.get(&fingerprint)?;
        let entry = &mut self.slots[at];
        entry.used = true;
        Some(entry)
    }

    /// Keeps facts, replacing those of the same fingerprint. Facts larger than a quarter of the bytes are not kept.
    pub fn insert(&mut self, fingerprint: Fingerprint, facts: Rc<Facts>) {
        let bytes = facts.bytes() + size_of::<Entry<V>>() + size_of::<(Fingerprint, usize)>();
        self.remove(fingerprint);
        if self.max_entries == 0 || bytes > self.max_bytes / 4 {
            return;
        }
        while self.slots.len() >= self.max_entries || self.bytes + bytes > self.max_bytes {
            self.evict();
        }
        self.index.insert(fingerprint, self.slots.len());
        self.bytes += bytes;
        self.slots.push(Entry { fingerprint, facts, bytes, used: false, verdicts: [None; VERDICTS], next: 0 });
    }

    /// Texts held now.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Nothing held?
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes held now, by estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, fingerprint: Fingerprint) {
        let Some(at) = self.index.remove(&fingerprint) else { return };
        let gone = self.slots.swap_remove(at);
        self.bytes -= gone.bytes;
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.fingerprint, at);
        }
    }

    /// Drops the first entry from the hand on that nobody asked for since the hand was last there.
    fn evict(&mut self) {
        loop {
            self.hand = if self.hand + 1 >= self.slots.len() { 0 } else { self.hand + 1 };
            let Some(entry) = self.slots.get_mut(self.hand) else { return };
            if !std::mem::take(&mut entry.used) {
                let fingerprint = entry.fingerprint;
                return self.remove(fingerprint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{LexMode, analyze};

    fn facts(text: &str) -> Rc<Facts> {
        Rc::new(analyze(text.as_bytes(), LexMode::default()))
    }

    const KEY: VerdictKey = VerdictKey { database: 1, catalog: 7, policy: 3 };

    #[test]
    fn r09_a_verdict_counts_only_under_its_own_key() {
        let mut cache = Cache::new(10, 1 << 20);
        let known = facts("select 1");
        cache.insert(known.fingerprint, known.clone());
        let entry = cache.get(known.fingerprint).expect("it was just put in");
        entry.set_verdict(KEY, 'a');
        assert_eq!(entry.verdict(KEY), Some('a'));
        for other in
            [VerdictKey { database: 2, ..KEY }, VerdictKey { catalog: 8, ..KEY }, VerdictKey { policy: 4, ..KEY }]
        {
            assert_eq!(entry.verdict(other), None);
        }
        entry.set_verdict(VerdictKey { catalog: 8, ..KEY }, 'b');
        assert_eq!(entry.verdict(KEY), None, "a newer catalog replaces the verdict");
        (2..=5).for_each(|database| entry.set_verdict(VerdictKey { database, ..KEY }, 'c'));
        assert_eq!(entry.verdict(VerdictKey { database: 5, ..KEY }), Some('c'));
        assert_eq!(entry.verdict(VerdictKey { catalog: 8, ..KEY }), None, "the oldest has left");
    }

    #[test]
    fn entries_and_bytes_are_bounded_and_what_is_used_stays() {
        let mut cache = Cache::<()>::new(4, 1 << 20);
        let hot = facts("select hot from t");
        cache.insert(hot.fingerprint, hot.clone());
        for n in 0..100 {
            let cold = facts(&format!("select c{n} from t"));
            cache.insert(cold.fingerprint, cold.clone());
            assert!(cache.get(hot.fingerprint).is_some(), "{n}");
            assert!(cache.len() <= 4);
            assert!(n == 0 || cache.get(cold.fingerprint).is_some(), "the newest is there");
        }
        let mut small = Cache::<()>::new(1000, 4000);
        for n in 0..100 {
            let some = facts(&format!("select c{n} from t{n}"));
            small.insert(some.fingerprint, some);
            assert!(small.bytes() <= 4000);
        }
        assert!(small.len() > 1);
        let wide = facts(&format!("select {}", (0..500).map(|n| format!("f{n}()")).collect::<Vec<_>>().join(",")));
        small.insert(wide.fingerprint, wide.clone());
        assert!(small.get(wide.fingerprint).is_none(), "too large to keep");
        let same = facts("select 1");
        small.insert(same.fingerprint, same.clone());
        let before = (small.len(), small.bytes());
        small.insert(same.fingerprint, same);
        assert_eq!((small.len(), small.bytes()), before);
    }
}
