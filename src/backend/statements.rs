//! The prepared statements that one server connection holds for whoever uses it (SESSIONS R3). Pure bookkeeping;
//! must not send anything.

use std::ops::Deref;

use rustc_hash::FxHashMap;

/// What a prepared statement on a server depends on: its text with parameter types (a number made once per process)
/// and the settings under which it was parsed. Both numbers are made here, so that nobody chooses where they lie in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatementKey {
    /// Stands for text and parameter types.
    pub text: u64,
    /// Digest of the settings.
    pub settings: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u32,
    used: u64,
}

/// Statements on one server connection, least recently used first out.
#[derive(Debug, Clone)]
pub struct Statements {
    map: FxHashMap<StatementKey, Entry>,
    next: u32,
    tick: u64,
    most: usize,
}

impl Statements {
    /// At most `most` statements, at least one.
    pub fn new(most: u32) -> Self {
        Self { map: FxHashMap::default(), next: 0, tick: 0, most: most.max(1) as usize }
    }

    /// The number of a statement that the server has.
    pub fn find(&mut self, key: StatementKey) -> Option<u32> {
        self.tick += 1;
        let entry = self.map.get_mut(&key)?;
        entry.used = self.tick;
        Some(entry.number)
    }

    /// Does the server have a statement?
    pub fn has(&self, key: StatementKey) -> bool {
        self.map.contains_key(&key)
    }

    /// Notes that the server is given a statement. Returns its number, and the number and key of one to close for it.
    pub fn insert(&mut self, key: StatementKey) -> (u32, Option<(u32, StatementKey)>) {
        let evicted = if self.map.len() >= self.most && !self.map.contains_key(&key) { self.evict() } else { None };
        self.tick += 1;
        self.next += 1;
        self.map.insert(key, Entry { number: self.next, used: self.tick });
        (self.next, evicted)
    }

    fn evict(&mut self) -> Option<(u32, StatementKey)> {
        let (&key, entry) = self.map.iter().min_by_key(|(_, entry)| entry.used)?;
        let number = entry.number;
        self.map.remove(&key);
        Some((number, key))
    }

    /// The server has it still.
    pub fn restore(&mut self, key: StatementKey, number: u32) {
        self.map.insert(key, Entry { number, used: self.tick });
    }

    /// What a statement of that number is.
    pub fn key_of(&self, number: u32) -> Option<StatementKey> {
        self.map.iter().find(|(_, entry)| entry.number == number).map(|(key, _)| *key)
    }

    /// The server does not have it after all.
    pub fn remove(&mut self, key: StatementKey) {
        self.map.remove(&key);
    }

    /// The server has none any more.
    pub fn clear(&mut self) {
        self.map.clear();
    }

    /// How many the server has.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The server has none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

/// What a statement is called on a server. Takes no memory of its own, for one is made for each Bind.
#[derive(Debug, Clone, Copy)]
pub struct StatementName {
    bytes: [u8; PREFIX.len() + 10],
    len: usize,
}

impl Deref for StatementName {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).expect("letters and digits")
    }
}

const PREFIX: &[u8] = b"pgherd_";

/// Name of a statement on a server; no client's name reaches a server.
pub fn statement_name(number: u32) -> StatementName {
    let mut name = StatementName { bytes: [0; PREFIX.len() + 10], len: PREFIX.len() };
    name.bytes[..PREFIX.len()].copy_from_slice(PREFIX);
    name.len += number.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut rest = number;
    for digit in name.bytes[PREFIX.len()..name.len].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

/// Could it be the name of a statement on a server?
pub fn is_statement_name(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r03_the_least_used_statement_makes_room() {
        let key = |text| StatementKey { text, settings: 0 };
        let mut statements = Statements::new(2);
        assert_eq!(statements.insert(key(1)), (1, None));
        assert_eq!(statements.insert(key(2)), (2, None));
        assert_eq!(statements.find(key(1)), Some(1));
        assert_eq!(statements.insert(key(3)), (3, Some((2, key(2)))));
        assert_eq!((statements.find(key(2)), statements.len()), (None, 2));
    }

    #[test]
    fn r03_names_on_servers_are_told_from_others() {
        for number in [0, 1, 9, 10, 99, 100, 1_234_567, u32::MAX] {
            assert_eq!(&*statement_name(number), format!("pgherd_{number}"));
            assert!(is_statement_name(statement_name(number).as_bytes()));
        }
    }

    #[test]
    fn r03_other_settings_are_another_statement() {
        let mut statements = Statements::new(9);
        statements.insert(StatementKey { text: 1, settings: 1 });
        assert_eq!(statements.find(StatementKey { text: 1, settings: 2 }), None);
    }
}
