//! What a server reported of its parameters (ParameterStatus), shared by all who were told the same.
//! Values only; must not talk to anyone.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

/// Reported parameters by name, each as the server spelled it. `in_hot_standby` is left out: a client that was told of it
/// would turn away from a proxy whose writes succeed (SESSIONS R6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Reported {
    entries: Vec<(Box<str>, Box<[u8]>)>,
}

/// Parameters that one server's report may hold; a hostile server cannot make it grow.
const MOST: usize = 128;

impl Reported {
    /// Takes a report over. Returns whether it changed anything.
    pub fn set(&mut self, name: &str, value: &[u8]) -> bool {
        if name == "in_hot_standby" {
            return false;
        }
        match self.entries.binary_search_by(|(entry, _)| (**entry).cmp(name)) {
            Ok(at) if *self.entries[at].1 == *value => false,
            Ok(at) => {
                self.entries[at].1 = value.into();
                true
            }
            Err(_) if self.entries.len() >= MOST => false,
            Err(at) => {
                self.entries.insert(at, (name.into(), value.into()));
                true
            }
        }
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let at = self.entries.binary_search_by(|(entry, _)| (**entry).cmp(name)).ok()?;
        Some(&self.entries[at].1)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Those whose values differ from `other`'s.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.iter().filter(|(name, value)| other.get(name) != Some(*value))
    }
}

/// Makes equal reports of a thread one report, so that they compare by address and an idle client holds none of its own.
#[derive(Debug, Default)]
pub struct Interner {
    known: RefCell<HashSet<Rc<Reported>>>,
    /// What [`named`](Self::named) was asked last, and its answer: clients come in rows of a kind.
    last: RefCell<Option<(Rc<Reported>, Rc<Reported>)>>,
}

impl Interner {
    /// The thread's own copy of `reported`.
    pub fn intern(&self, reported: Reported) -> Rc<Reported> {
        let mut known = self.known.borrow_mut();
        if let Some(found) = known.get(&reported) {
            return found.clone();
        }
        if known.len() >= 64 && known.len().is_power_of_two() {
            known.retain(|entry| Rc::strong_count(entry) > 1);
        }
        let shared = Rc::new(reported);
        known.insert(shared.clone());
        shared
    }

    /// `reported` with this `application_name`.
    pub fn named(&self, reported: &Rc<Reported>, name: &[u8]) -> Rc<Reported> {
        if let Some((of, answer)) = &*self.last.borrow()
            && Rc::ptr_eq(of, reported)
            && answer.get("application_name") == Some(name)
        {
            return answer.clone();
        }
        let mut own = (**reported).clone();
        own.set("application_name", name);
        let answer = self.intern(own);
        *self.last.borrow_mut() = Some((reported.clone(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r06_equal_reports_are_one_and_hot_standby_is_never_told() {
        let interner = Interner::default();
        let mut one = Reported::default();
        assert!(one.set("DateStyle", b"ISO"));
        assert!(!one.set("DateStyle", b"ISO"));
        assert!(!one.set("in_hot_standby", b"on"));
        let mut two = one.clone();
        let (a, b) = (interner.intern(one.clone()), interner.intern(one));
        assert!(Rc::ptr_eq(&a, &b));
        let named = |of: &Rc<Reported>, name: &[u8]| interner.named(of, name);
        let (psql, again, other) = (named(&a, b"psql"), named(&b, b"psql"), named(&a, b"other"));
        assert!(Rc::ptr_eq(&psql, &again) && Rc::ptr_eq(&psql, &named(&a, b"psql")));
        assert_eq!(other.differing(&psql).collect::<Vec<_>>(), [("application_name", &b"other"[..])]);
        two.set("DateStyle", b"German");
        assert_eq!(two.differing(&a).collect::<Vec<_>>(), [("DateStyle", &b"German"[..])]);
    }
}
