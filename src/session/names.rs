//! What a session calls its prepared statements (SESSIONS R3): the bookkeeping of names while messages are sent, and what is taken
//! back when a server skips them. Must not send anything.

use crate::backend::Server;

use super::Session;
use super::prepared::{Change, MOST_NAMES, MOST_UNNAMED, ON_SERVER, Prepared, Unnamed};

impl Session {
    pub(super) fn prepared_named(&self, name: &[u8]) -> Option<&Prepared> {
        self.prepared.as_deref()?.named.get(name)
    }

    pub(super) fn define(&mut self, name: &[u8], prepared: Prepared) {
        let set = self.prepared.get_or_insert_default();
        if set.named.len() < MOST_NAMES {
            set.named.insert(name.into(), prepared);
        }
    }

    pub(super) fn undefine(&mut self, name: &[u8]) -> Option<Prepared> {
        self.prepared.as_deref_mut()?.named.remove(name)
    }

    pub(super) fn keep_unnamed(&mut self, tail: &[u8], facts: std::rc::Rc<crate::sql::Facts>) -> u64 {
        let token = self.context.next_token();
        let set = self.prepared.get_or_insert_default();
        let mut kept = set.unnamed.take().map(|unnamed| unnamed.tail).unwrap_or_default();
        kept.clear();
        if tail.len() <= MOST_UNNAMED {
            kept.extend_from_slice(tail);
        }
        set.unnamed = Some(Unnamed { token, facts, tail: kept });
        token
    }

    /// A simple query and a failed Parse leave no unnamed statement behind.
    pub(super) fn forget_unnamed(&mut self, server: &mut Server) {
        server.unnamed = 0;
        if let Some(set) = self.prepared.as_deref_mut() {
            set.unnamed = None;
            if set.is_empty() {
                self.prepared = None;
            }
        }
    }

    /// Takes back what a failed series did not do.
    pub(super) fn take_back(&mut self, server: &mut Server, change: Change) {
        if let Some(key) = change.key {
            server.statements.remove(key);
        }
        match change.before {
            Some(before) => self.define(&change.name, before),
            None if change.unnamed == ON_SERVER => server.unnamed = 0,
            None if change.unnamed != 0 => {
                let unnamed = self.prepared.as_deref().and_then(|set| set.unnamed.as_ref());
                // A later Parse may have taken its place.
                if unnamed.is_some_and(|unnamed| unnamed.token == change.unnamed) {
                    self.forget_unnamed(server);
                }
            }
            None if change.name.is_empty() => {}
            None => drop(self.undefine(&change.name)),
        }
    }
}
