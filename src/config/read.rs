//! Typed access to one section: what the file gives, else the row's default. Must not check anything: the rows'
//! kinds have been checked before, and `build` relates values to one another.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use toml::de::DeValue;

use super::raw::{Given, Table};
use super::table::{Presence, Section};
use super::value::{Item, Value};
use super::words::Word;

const FITS: &str = "the row's kind fits the field; a test reads every row";

/// A section, there or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) section: Section,
    pub(super) table: Option<&'a Table>,
}

impl<'a> Reader<'a> {
    /// The section below `parent`, or its defaults.
    pub(super) fn below(parent: &'a Table, section: Section) -> Self {
        Self { section, table: parent.one(section) }
    }

    pub(super) fn of(table: &'a Table) -> Self {
        Self { section: table.section, table: Some(table) }
    }

    /// What the file says.
    pub(super) fn given(&self, name: &str) -> Option<&'a Given> {
        debug_assert!(self.section.rows().any(|row| row.name == name), "{} has no row {name}", self.section.header());
        self.table?.values.get(name)
    }

    pub(super) fn span(&self, name: &str) -> Option<Range<usize>> {
        self.given(name).map(|given| given.span.clone())
    }

    /// What holds: the file's value, else the default, else nothing.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        if let Some(given) = self.given(name) {
            return Some(given.value.clone());
        }
        let row = self.section.rows().find(|row| row.name == name)?;
        match row.presence {
            Presence::Default(text) => {
                let value = DeValue::parse(text).expect("a default is TOML; a test reads every row");
                Some(row.kind.check(value.get_ref()).expect(FITS))
            }
            Presence::Unset(_) | Presence::Required(_) => None,
        }
    }

    pub(super) fn opt_int<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        self.value(name).map(|value| match value {
            Value::Int(number) => T::try_from(number).ok().expect(FITS),
            _ => unreachable!("{FITS}"),
        })
    }

    pub(super) fn int<T: TryFrom<i64>>(&self, name: &str) -> T {
        self.opt_int(name).expect(FITS)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Bool(true)))
    }

    pub(super) fn float(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Float(number)) => number,
            _ => unreachable!("{FITS}"),
        }
    }

    pub(super) fn opt_duration(&self, name: &str) -> Option<Duration> {
        self.value(name).map(|value| match value {
            Value::Duration(time) => time,
            _ => unreachable!("{FITS}"),
        })
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        self.opt_duration(name).expect(FITS)
    }

    pub(super) fn opt_size(&self, name: &str) -> Option<u64> {
        self.value(name).map(|value| match value {
            Value::Size(bytes) => bytes,
            _ => unreachable!("{FITS}"),
        })
    }

    pub(super) fn size(&self, name: &str) -> u64 {
        self.opt_size(name).expect(FITS)
    }

    pub(super) fn opt_text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| match value {
            Value::Text(text) => text,
            _ => unreachable!("{FITS}"),
        })
    }

    /// For a default or a required parameter; missing required ones have been complained about, and read as empty.
    pub(super) fn text(&self, name: &str) -> String {
        self.opt_text(name).unwrap_or_default()
    }

    pub(super) fn items(&self, name: &str) -> Vec<Item> {
        match self.value(name) {
            Some(Value::List(items)) => items,
            _ => unreachable!("{FITS}"),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.items(name).into_iter().map(|item| item.text).collect()
    }

    pub(super) fn opt_word<T: Word>(&self, name: &str) -> Option<T> {
        self.opt_text(name).map(|text| T::from_word(&text).expect(FITS))
    }

    pub(super) fn word<T: Word>(&self, name: &str) -> T {
        self.opt_word(name).expect(FITS)
    }

    pub(super) fn opt_address(&self, name: &str) -> Option<IpAddr> {
        self.opt_text(name).map(|text| text.parse().expect(FITS))
    }
}
