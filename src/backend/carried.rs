//! The settings of a session as data: what a server connection must have before a session's bytes reach it, and
//! the statements that get it there (SESSIONS R1, R2, R6). Pure; must not send anything.

use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::Rc;

use crate::wire::write;

/// Settings that differ from the login's defaults, by lower-case name. Values are bytes in the session's own encoding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    entries: Vec<(Box<str>, Box<[u8]>)>,
}

/// What is removed before another session gets a server connection (SESSIONS R1). `RESET ALL` leaves the role alone.
const CLEAN: &[u8] = b"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; UNLISTEN *; CLOSE ALL; DISCARD SEQUENCES; \
    DISCARD TEMP; SELECT pg_catalog.pg_advisory_unlock_all();";

/// Settings that are not applied in the order of their names.
const AUTHORIZATION: &str = "session_authorization";
const ROLE: &str = "role";

impl Carried {
    /// No settings.
    pub fn none() -> Rc<Self> {
        Rc::default()
    }

    /// From startup options; a later one of the same name wins.
    pub fn from_options<'a>(options: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut carried = Self::default();
        for (name, value) in options {
            carried.set(name, value.as_bytes());
        }
        carried
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.find(name).ok().map(|at| &*self.entries[at].1)
    }

    /// Nothing is carried.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many settings are carried.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| &**name)
    }

    /// Carries a setting.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let name = name.to_ascii_lowercase();
        match self.find(&name) {
            Ok(at) => self.entries[at].1 = value.into(),
            Err(at) => self.entries.insert(at, (name.into(), value.into())),
        }
    }

    /// Stops carrying a setting.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.entries.remove(at);
        }
    }

    /// Stops carrying all that RESET ALL resets: it leaves role and session authorization alone.
    pub fn keep_identity(&mut self) {
        self.entries.retain(|(name, _)| [AUTHORIZATION, ROLE].contains(&&**name));
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(entry, _)| (**entry).cmp(name))
    }

    /// A number that stands for the settings that a prepared statement may depend on (SESSIONS R3): all but the name
    /// that is shown to people. Keyed by `hasher`, which the process makes once.
    pub fn digest(&self, hasher: &impl BuildHasher) -> u64 {
        let mut state = hasher.build_hasher();
        for (name, value) in self.entries.iter().filter(|(name, _)| &**name != "application_name") {
            name.hash(&mut state);
            value.hash(&mut state);
        }
        state.finish()
    }

    /// Every value is plain ASCII, so that any client encoding reads it alike.
    pub fn is_ascii(&self) -> bool {
        self.entries.iter().all(|(_, value)| value.is_ascii())
    }
}

/// The text that turns a server connection that has `applied` into one that has `wanted`; empty if there is nothing to do.
/// `dirty` cleans it first of everything that another session may have left.
pub fn setup(applied: &Rc<Carried>, wanted: &Rc<Carried>, dirty: bool) -> Vec<u8> {
    let mut text = Vec::new();
    if !dirty && (Rc::ptr_eq(applied, wanted) || applied == wanted) {
        return text;
    }
    let nothing = Carried::default();
    let from: &Carried = if dirty { &nothing } else { applied };
    if dirty {
        text.extend_from_slice(CLEAN);
    } else {
        reset(&mut text, from, wanted);
    }
    let identity_changed = [AUTHORIZATION, ROLE].iter().any(|name| from.get(name) != wanted.get(name));
    for (name, value) in &wanted.entries {
        if ![AUTHORIZATION, ROLE].contains(&&**name) && from.get(name) != Some(value) {
            set(&mut text, name, value, false);
        }
    }
    if identity_changed {
        for name in [AUTHORIZATION, ROLE] {
            if let Some(value) = wanted.get(name) {
                set(&mut text, name, value, false);
            }
        }
    }
    text
}

/// Gives up the identity first, so that the rest is done with the login's own rights.
fn reset(text: &mut Vec<u8>, from: &Carried, wanted: &Carried) {
    if [AUTHORIZATION, ROLE].iter().any(|name| from.get(name) != wanted.get(name)) {
        text.extend_from_slice(b"RESET SESSION AUTHORIZATION; RESET ROLE;");
    }
    for name in from.names().filter(|name| ![AUTHORIZATION, ROLE].contains(name)) {
        if wanted.get(name).is_none() {
            text.extend_from_slice(b"RESET ");
            qualified(text, name);
            text.push(b';');
        }
    }
}

/// A custom setting has a prefix, each part of which is an identifier.
fn qualified(text: &mut Vec<u8>, name: &str) {
    for (at, part) in name.split('.').enumerate() {
        if at > 0 {
            text.push(b'.');
        }
        write::identifier(text, part);
    }
}

/// Appends a statement that sets one parameter, for the session or (`local`) for its transaction.
pub fn set(text: &mut Vec<u8>, name: &str, value: &[u8], local: bool) {
    set_config(text, name, value, local);
    text.push(b';');
}

/// Appends the query of [`set`] without its end.
pub fn set_config(text: &mut Vec<u8>, name: &str, value: &[u8], local: bool) {
    text.extend_from_slice(b"SELECT pg_catalog.set_config(");
    write::literal(text, name);
    text.push(b',');
    write::literal_bytes(text, value);
    text.extend_from_slice(if local { b",true)" } else { b",false)" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(entries: &[(&str, &str)]) -> Rc<Carried> {
        Rc::new(Carried::from_options(entries.iter().copied()))
    }

    fn text(from: &[(&str, &str)], to: &[(&str, &str)], dirty: bool) -> String {
        String::from_utf8(setup(&carried(from), &carried(to), dirty)).expect("ASCII")
    }

    #[test]
    fn r02_equal_settings_need_nothing() {
        assert_eq!(text(&[("DateStyle", "ISO")], &[("datestyle", "ISO")], false), "");
    }

    #[test]
    fn r02_the_role_is_given_up_first_and_taken_last() {
        let setup = text(&[("role", "a"), ("x.y", "1")], &[("role", "b"), ("timezone", "UTC")], false);
        let expected = "RESET SESSION AUTHORIZATION; RESET ROLE;RESET \"x\".\"y\";\
            SELECT pg_catalog.set_config('timezone','UTC',false);SELECT pg_catalog.set_config('role','b',false);";
        assert_eq!(setup, expected);
    }

    #[test]
    fn r01_a_dirty_connection_is_cleaned_even_when_settings_agree() {
        let setup = text(&[("timezone", "UTC")], &[("timezone", "UTC")], true);
        assert!(setup.starts_with("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; UNLISTEN *;"), "{setup}");
        assert!(setup.ends_with("SELECT pg_catalog.set_config('timezone','UTC',false);"), "{setup}");
    }

    #[test]
    fn r03_the_digest_leaves_out_only_the_application_name() {
        let hasher = std::hash::RandomState::new();
        let digest = |entries: &[(&str, &str)]| carried(entries).digest(&hasher);
        assert_eq!(digest(&[("application_name", "a")]), digest(&[]));
        assert_ne!(digest(&[("datestyle", "MDY")]), digest(&[("datestyle", "DMY")]));
    }
}
