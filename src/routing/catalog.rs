//! What is known of one database's functions and relations. Built from rows that the control plane reads with the
//! queries in [`queries`]; immutable. Must not ask any server itself.
//!
//! Everything is known by its last name in any schema; where a name is used more than once, the worst counts (SESSIONS R9).

mod build;
pub mod queries;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::sql::Facts;

/// What a function of the database may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// Only reads: an SQL function, not volatile, whose body is reads, or an aggregate of built-in functions (SESSIONS R1).
    Reads,
    /// Not volatile and written in C: probably harmless, sent to a standby only if listed. As an overload of a built-in name it
    /// does not keep calls from standbys.
    Compiled,
    /// Not volatile by its declaration, but it may do anything.
    Unsure,
    /// Volatile.
    Writes,
}

/// What reading a relation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reading {
    /// Nothing: an ordinary table, or a view made of reads.
    Anywhere,
    /// A sequence.
    Sequence,
    /// Row security is on.
    RowSecurity,
    /// A view that is not made of reads alone.
    View,
    /// A foreign table, or a parent of one.
    Foreign,
    /// An unlogged table, or a parent of one.
    Unlogged,
}

/// A relation of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Relation {
    /// What reading it needs.
    pub reading: Reading,
    /// Writing to it runs code of users: triggers, rules, defaults, constraints, policies, indexes (SESSIONS R1).
    pub active: bool,
    /// A column's default takes a value from a sequence, or might: an identity, `nextval`, anything behind a view (SESSIONS R4).
    pub serial: bool,
}

/// A row as text, in the column order of its query; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// Knowledge of one database at one time.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    generation: u64,
    functions: FxHashMap<Box<str>, Function>,
    relations: FxHashMap<Box<str>, Relation>,
    attributes: FxHashSet<u32>,
    /// Functions, and relations, that only read and ask for the time at which the block began.
    clocks: [FxHashSet<Box<str>>; 2],
}

impl Catalog {
    /// Builds it from the rows of [`queries::functions`] and [`queries::RELATIONS`]. Rows that cannot be read leave their names
    /// unknown. May take some milliseconds for each function body and view: for a thread that serves nobody, with a stack of
    /// [`crate::sql::HELPER_STACK`].
    pub fn build(generation: u64, functions: &[Row], relations: &[Row]) -> Self {
        build::build(generation, functions, relations)
    }

    /// Part of the key of kept verdicts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The worst function of that name, folded, in any schema.
    pub fn function(&self, name: &str) -> Option<Function> {
        self.functions.get(name).copied()
    }

    /// The worst relation of that name, folded, in any schema.
    pub fn relation(&self, name: &str) -> Option<Relation> {
        self.relations.get(name).copied()
    }

    /// Is any of these names behind a point (see [`crate::sql::Facts::attributes`]) a function that may do more than read?
    pub fn calls_by_attribute(&self, attributes: &[u32]) -> bool {
        !self.attributes.is_empty() && attributes.iter().any(|hash| self.attributes.contains(hash))
    }

    /// Does any function or relation that is named ask for the time at which the block began (SESSIONS R12)?
    pub fn tells_time(&self, facts: &Facts) -> bool {
        let [functions, relations] = &self.clocks;
        let called = || facts.functions.iter().any(|name| functions.contains(&name.name));
        let overloaded = || facts.builtins.iter().any(|name| functions.contains(*name));
        (!functions.is_empty() && (called() || overloaded()))
            || (!relations.is_empty() && facts.relations.iter().any(|name| relations.contains(&name.name)))
    }

    /// Number of functions and relations known.
    pub fn size(&self) -> (usize, usize) {
        (self.functions.len(), self.relations.len())
    }
}

#[cfg(test)]
mod tests;
