//! Protocol-level prepared statements of a session, and their texts, held once per process (SESSIONS R3).
//! Bookkeeping only; must not send anything.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::sql::Facts;

/// Named statements that one session may hold; PostgreSQL has no limit, a proxy shared by thousands needs one.
pub(super) const MOST_NAMES: usize = 10_000;
/// Texts kept although no session holds them, for clients that come back.
const MOST_TEXTS: usize = 20_000;
/// Longest unnamed statement that is kept for a Bind on another lease.
pub(super) const MOST_UNNAMED: usize = 64 * 1024;

/// A statement's text and parameter types, as the end of a Parse message: the query with its NUL, the number of types, the types.
#[derive(Debug)]
pub struct Text {
    /// Unique in this process.
    pub id: u64,
    /// Everything of the Parse message behind the statement's name.
    pub tail: Box<[u8]>,
}

/// All texts of the process.
#[derive(Debug, Default)]
pub struct Texts {
    known: DashMap<(u64, u64), Arc<Text>>,
    first: RandomState,
    second: RandomState,
    next: AtomicU64,
}

impl Texts {
    /// The process's copy of a text.
    pub fn intern(&self, tail: &[u8]) -> Arc<Text> {
        let key = (self.first.hash_one(tail), self.second.hash_one(tail));
        if let Some(found) = self.known.get(&key).filter(|text| *text.tail == *tail) {
            return found.clone();
        }
        if self.known.len() >= MOST_TEXTS {
            self.known.retain(|_, text| Arc::strong_count(text) > 1);
        }
        let text = Arc::new(Text { id: self.next.fetch_add(1, Ordering::Relaxed) + 1, tail: tail.into() });
        self.known.insert(key, text.clone());
        text
    }
}

/// What a name of a session stands for.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) text: Arc<Text>,
    pub(super) facts: Rc<Facts>,
    /// The catalog generation at Parse: a statement parsed after a DDL is another one, so that a shared plan never
    /// answers with the columns of before.
    pub(super) generation: u64,
}

/// The unnamed statement.
#[derive(Debug)]
pub(super) struct Unnamed {
    /// Unique in this process; a server connection that has parsed it remembers the number.
    pub(super) token: u64,
    pub(super) facts: Rc<Facts>,
    /// Everything of the Parse message behind the (empty) name; empty if it was too long to keep.
    pub(super) tail: Vec<u8>,
}

/// A session's statements.
#[derive(Debug, Default)]
pub(super) struct PreparedSet {
    pub(super) named: HashMap<Box<[u8]>, Prepared>,
    pub(super) unnamed: Option<Unnamed>,
}

impl PreparedSet {
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none()
    }
}

/// As [`Change::unnamed`]: the server alone is without it.
pub(super) const ON_SERVER: u64 = u64::MAX;

/// How to take a change back if its message is skipped.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The name, and what it stood for before.
    pub(super) name: Box<[u8]>,
    pub(super) before: Option<Prepared>,
    /// What the server was thought to get.
    pub(super) key: Option<crate::backend::StatementKey>,
    /// The number of the unnamed statement that it was; 0 for a named one.
    pub(super) unnamed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r03_equal_texts_are_one() {
        let texts = Texts::default();
        let (a, b, c) =
            (texts.intern(b"select 1\0\0\0"), texts.intern(b"select 1\0\0\0"), texts.intern(b"select 2\0\0\0"));
        assert!(Arc::ptr_eq(&a, &b));
        assert_ne!(a.id, c.id);
    }
}
