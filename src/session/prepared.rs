//! Protocol-level prepared statements of a session, and their texts, held once per process (SESSIONS R3).
//! Bookkeeping only; must not send anything.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::backend::{Carried, StatementKey};
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
        let text = self.single(tail);
        self.known.insert(key, text.clone());
        text
    }

    /// A copy that nobody else is given: of a text that will not come again.
    pub fn single(&self, tail: &[u8]) -> Arc<Text> {
        Arc::new(Text { id: self.next.fetch_add(1, Ordering::Relaxed) + 1, tail: tail.into() })
    }
}

/// What a name of a session stands for.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) text: Arc<Text>,
    pub(super) facts: Rc<Facts>,
    /// Under which servers hold it: text, settings and catalog generation at Parse. A statement parsed after a DDL is another one, so
    /// that a shared plan never answers with the columns of before.
    pub(super) key: StatementKey,
    /// The settings at Parse, and their digest: servers that lack the statement parse it under these.
    pub(super) under: Rc<Carried>,
    pub(super) digest: u64,
}

/// The unnamed statement, as a message of the client made it. Whether that message is carried out is known only from its answer; until
/// then what was there before is kept.
#[derive(Debug)]
pub(super) struct Unnamed {
    /// Unique in this process; a server connection that has parsed it remembers the number.
    pub(super) token: u64,
    /// None: the message left no unnamed statement behind.
    pub(super) facts: Option<Rc<Facts>>,
    /// Everything of the Parse message behind the (empty) name; empty if it was too long to keep.
    pub(super) tail: Vec<u8>,
    /// The series that the message belongs to.
    series: u64,
    /// The message was not carried out.
    void: Cell<bool>,
    before: RefCell<Option<Rc<Self>>>,
}

impl Unnamed {
    /// A statement of that text.
    pub(super) fn new(token: u64, series: u64, facts: Rc<Facts>, tail: Vec<u8>, before: Option<Rc<Self>>) -> Rc<Self> {
        let (void, before) = (Cell::new(false), RefCell::new(before));
        Rc::new(Self { token, facts: Some(facts), tail, series, void, before })
    }

    /// None.
    pub(super) fn none(series: u64, before: Rc<Self>) -> Rc<Self> {
        let (void, before) = (Cell::new(false), RefCell::new(Some(before)));
        Rc::new(Self { token: 0, facts: None, tail: Vec::new(), series, void, before })
    }

    /// Its message was skipped, or failed.
    pub(super) fn skipped(&self) {
        self.void.set(true);
    }
}

/// One reference is the session's (or a later statement's), one is the caller's; a change that may be taken back has another.
fn is_certain(latest: &Rc<Unnamed>) -> bool {
    Rc::strong_count(latest) <= 2
}

/// A session's statements.
#[derive(Debug, Default)]
pub(super) struct PreparedSet {
    /// By names that clients choose: where they lie is a secret of the process, or they would be made to meet.
    pub(super) named: foldhash::HashMap<Box<[u8]>, Prepared>,
    /// Some may have been parsed under other settings than those of now.
    pub(super) mixed: bool,
    unnamed: Option<Rc<Unnamed>>,
}

impl PreparedSet {
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none()
    }

    /// What the latest message that is not known to have been skipped left.
    fn latest(&self) -> Option<Rc<Unnamed>> {
        let mut latest = self.unnamed.clone();
        while let Some(unnamed) = latest.take_if(|unnamed| unnamed.void.get()) {
            latest = unnamed.before.borrow().clone();
        }
        latest
    }

    /// The unnamed statement, if everything under way is carried out.
    pub(super) fn unnamed(&self) -> Option<Rc<Unnamed>> {
        self.latest().filter(|unnamed| unnamed.facts.is_some())
    }

    /// What is to be kept behind a message that may yet be skipped.
    pub(super) fn pending(&self) -> Option<Rc<Unnamed>> {
        let latest = self.latest();
        if let Some(latest) = latest.as_ref().filter(|latest| is_certain(latest)) {
            latest.before.take();
        }
        latest
    }

    /// A series before this one may still fail and decide what the unnamed statement is.
    pub(super) fn unnamed_unknown(&self, series: u64) -> bool {
        self.latest().is_some_and(|latest| latest.series != series && !is_certain(&latest))
    }

    pub(super) fn set_unnamed(&mut self, unnamed: Option<Rc<Unnamed>>) {
        self.unnamed = unnamed;
    }
}

/// How to take a change back if its message is skipped or fails.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The name, and what it stood for before.
    pub(super) name: Box<[u8]>,
    pub(super) before: Option<Prepared>,
    /// What the server was thought to get.
    pub(super) key: Option<StatementKey>,
    /// What the server was thought to lose.
    pub(super) closed: Option<(StatementKey, u32)>,
    /// What happened to the unnamed statement.
    pub(super) unnamed: Option<Rc<Unnamed>>,
}

impl Change {
    pub(super) fn unnamed(unnamed: Rc<Unnamed>) -> Box<Self> {
        Box::new(Self { unnamed: Some(unnamed), ..Self::default() })
    }

    pub(super) fn key(key: StatementKey) -> Box<Self> {
        Box::new(Self { key: Some(key), ..Self::default() })
    }
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

    #[test]
    fn what_will_not_come_again_is_not_kept() {
        let texts = Texts::default();
        let (a, b) = (texts.single(b"select 'now'\0\0\0"), texts.single(b"select 'now'\0\0\0"));
        assert_ne!(a.id, b.id);
        assert!(texts.known.is_empty());
    }
}
