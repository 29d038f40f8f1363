//! What a session calls its prepared statements (SESSIONS R3): the bookkeeping of names while messages are sent, and what is taken
//! back when a server skips them. Must not send anything.

use std::rc::Rc;

use crate::backend::{Expect, Server, Undo};
use crate::sql::Facts;

use super::Session;
use super::lease::Leased;
use super::prepared::{Change, MOST_NAMES, MOST_UNNAMED, Prepared, Unnamed};

impl Session {
    pub(super) fn prepared_named(&self, name: &[u8]) -> Option<&Prepared> {
        self.prepared.as_deref()?.named.get(name)
    }

    pub(super) fn define(&mut self, name: &[u8], prepared: Prepared) {
        let set = self.prepared.get_or_insert_default();
        if set.named.len() < MOST_NAMES {
            set.mixed |= prepared.digest != self.digest;
            set.named.insert(name.into(), prepared);
        }
    }

    pub(super) fn undefine(&mut self, name: &[u8]) -> Option<Prepared> {
        self.prepared.as_deref_mut()?.named.remove(name)
    }

    /// Another unnamed statement; what was there is gone or has its own note of that.
    pub(super) fn keep_unnamed(&mut self, series: u64, tail: &[u8], facts: Rc<Facts>) -> Rc<Unnamed> {
        let token = self.context.next_token();
        let kept = if tail.len() <= MOST_UNNAMED { tail.to_vec() } else { Vec::new() };
        let set = self.prepared.get_or_insert_default();
        let unnamed = Unnamed::new(token, series, facts, kept, set.pending());
        set.set_unnamed(Some(unnamed.clone()));
        unnamed
    }

    /// The unnamed statement, if all that is under way is carried out.
    pub(super) fn unnamed(&self) -> Option<Rc<Unnamed>> {
        self.prepared.as_deref()?.unnamed()
    }

    /// What the unnamed statement is at this place of the order is not known yet.
    pub(super) fn unnamed_unknown(&self, lease: &Leased) -> bool {
        let series = lease.server.expected.series();
        self.prepared.as_deref().is_some_and(|set| set.unnamed_unknown(series))
    }

    /// A message that cannot be skipped any more leaves no unnamed statement behind.
    pub(super) fn forget_unnamed(&mut self) {
        if let Some(set) = self.prepared.as_deref_mut() {
            set.set_unnamed(None);
            if set.is_empty() {
                self.prepared = None;
            }
        }
    }

    /// A simple query, a Close and each Parse of the unnamed statement begin with its end, unless they are skipped.
    pub(super) fn drop_unnamed(&mut self, lease: &mut Leased) {
        lease.server.unnamed = 0;
        if !lease.server.expected.exposed() {
            return self.forget_unnamed();
        }
        let Some(set) = self.prepared.as_deref_mut() else { return };
        let Some(before) = set.pending() else { return };
        let none = Unnamed::none(lease.server.expected.series(), before);
        set.set_unnamed(Some(none.clone()));
        lease.undo(Expect::Mark { undo: Change::unnamed(none) }, self);
    }

    /// DEALLOCATE ALL and what is like it: every name is free again.
    pub(super) fn forget_names(&mut self) {
        if let Some(set) = self.prepared.as_deref_mut() {
            set.named.clear();
            if set.is_empty() {
                self.prepared = None;
            }
        }
    }

    /// Takes back what a message did not do.
    pub(super) fn take_back(&mut self, server: &mut Server, change: Change) {
        server.unnamed = 0;
        if let Some(key) = change.key {
            server.statements.remove(key);
        }
        if let Some((key, number)) = change.closed {
            server.statements.restore(key, number);
        }
        if let Some(unnamed) = change.unnamed {
            unnamed.skipped();
        }
        match change.before {
            Some(before) => self.define(&change.name, before),
            None if change.name.is_empty() => {}
            None => drop(self.undefine(&change.name)),
        }
    }

    /// Takes back, last first, what a series did not do.
    pub(super) fn undo_all(&mut self, server: &mut Server, undone: Vec<Undo>) {
        for undo in undone.into_iter().rev() {
            if let Ok(change) = undo.downcast::<Change>() {
                self.take_back(server, *change);
            }
        }
    }
}
