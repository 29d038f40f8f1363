//! What each parameter came to, and what differs between two files. Driven by the table; must not know `Settings`'
//! fields.

use std::collections::BTreeMap;

use super::raw::Table;
use super::read::Reader;
use super::table::{Reload, Section};

/// The value of every parameter that is in force, by its key, with what a change needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Effective(BTreeMap<String, (String, Reload)>);

/// One difference between two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `pool.size`, `node[1].weight`; `node[1]` alone for one that came or went.
    pub key: String,
    /// As the old file had it, or `unset`.
    pub old: String,
    /// As the new file has it, or `unset`.
    pub new: String,
    /// What it needs.
    pub class: Reload,
}

const UNSET: &str = "unset";

impl Effective {
    /// Of a file without problems.
    pub(super) fn of(root: &Table) -> Self {
        let mut all = Self::default();
        all.add(root, "");
        for child in Section::Root.children().filter(|child| child.shape == super::table::Shape::Always) {
            if root.one(child.section).is_none() {
                all.rows(&Reader { section: child.section, table: None }, child.key);
            }
        }
        all
    }

    fn add(&mut self, table: &Table, prefix: &str) {
        let reader = Reader::of(table);
        self.rows(&reader, prefix);
        let mut rules = 0;
        for child in &table.children {
            let name = child.section.row().map_or("", |row| row.key);
            let own = Reader::of(child);
            let suffix = match child.section {
                Section::Node => format!("[{}]", own.int::<i64>("id")),
                Section::WatchdogPeer => format!("[{}]", own.text("name")),
                Section::PoolRule => {
                    rules += 1;
                    format!("[{}]", rules - 1)
                }
                _ => String::new(),
            };
            let dot = if prefix.is_empty() { "" } else { "." };
            self.add(child, &format!("{prefix}{dot}{name}{suffix}"));
        }
    }

    fn rows(&mut self, reader: &Reader<'_>, prefix: &str) {
        let dot = if prefix.is_empty() { "" } else { "." };
        for row in reader.section.rows() {
            // What a node does not override is shown where it stands, in [health_check].
            let value = match reader.section {
                Section::NodeHealthCheck => reader.given(row.name).map(|given| given.value.show()),
                _ => reader.value(row.name).map(|value| value.show()),
            };
            if let Some(value) = value {
                self.0.insert(format!("{prefix}{dot}{}", row.name), (value, row.reload));
            }
        }
    }

    /// The value of that key, as the file spells it.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value.as_str())
    }

    /// Every key with its value, in the order of the keys.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, (value, _))| (key.as_str(), value.as_str()))
    }

    /// What differs, in the order of the keys; a node that came or went is one change.
    pub(super) fn changes(old: &Self, new: &Self) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        let keys: std::collections::BTreeSet<_> = old.0.keys().chain(new.0.keys()).collect();
        for key in keys {
            let (before, after) = (old.0.get(key), new.0.get(key));
            if before.map(|entry| &entry.0) == after.map(|entry| &entry.0) {
                continue;
            }
            let class = before.or(after).map_or(Reload::Live, |entry| entry.1);
            let show = |entry: Option<&(String, Reload)>| entry.map_or(UNSET.to_owned(), |entry| entry.0.clone());
            changes.push(Change { key: key.clone(), old: show(before), new: show(after), class });
        }
        for (from, to, gone) in [(old, new, true), (new, old, false)] {
            for node in from.nodes().filter(|node| !to.nodes().any(|other| other == *node)) {
                changes.retain(|change| !change.key.starts_with(&format!("{node}.")));
                let (here, there) = ("present".to_owned(), UNSET.to_owned());
                let (old, new) = if gone { (here, there) } else { (there, here) };
                changes.push(Change { key: node.to_owned(), old, new, class: Reload::Live });
            }
        }
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    }

    /// `node[0]`, `node[1]`, …
    fn nodes(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|key| key.strip_suffix(".id")).filter(|key| key.starts_with("node["))
    }
}
