//! The operator's wishes, with their regular expressions compiled. Made from the configuration at start and reload; must
//! not change afterwards.

use std::time::Duration;

use regex::{Regex, RegexSet};

use crate::cluster::NodeView;
use crate::config::{Consistency, Redirect, Routing, TooLate};

/// A regular expression of the configuration that does not compile.
#[derive(Debug, thiserror::Error)]
#[error("routing.{list}: {entry:?} is no regular expression: {source}")]
pub struct PolicyError {
    /// Name of the list.
    pub list: &'static str,
    /// The entry as written.
    pub entry: String,
    source: regex::Error,
}

/// How reads are to be spread, as the configuration has it.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Grows with each reload; part of the key of kept verdicts.
    pub generation: u64,
    /// Off: everything goes to the primary.
    pub load_balance: bool,
    /// Choose a node for each statement instead of each session.
    pub statement_level: bool,
    /// What a read may miss.
    pub consistency: Consistency,
    /// Bytes of lag beyond which a standby gets no reads; 0: any lag will do.
    pub delay_threshold: u64,
    /// The same in time; zero: any.
    pub delay_threshold_by_time: Duration,
    /// Where reads go whose standby is beyond one of these.
    pub too_late: TooLate,
    patterns: RegexSet,
    reads: RegexSet,
    writes: RegexSet,
    redirects: [Vec<(Regex, Redirect)>; 3],
}

impl Policy {
    /// Compiles the configuration. Names of functions and in redirect lists must match whole; patterns of texts anywhere.
    ///
    /// # Errors
    /// The first regular expression that does not compile.
    pub fn new(routing: &Routing, generation: u64) -> Result<Self, PolicyError> {
        Ok(Self {
            generation,
            load_balance: routing.load_balance,
            statement_level: routing.statement_level,
            consistency: routing.consistency,
            delay_threshold: routing.delay_threshold,
            delay_threshold_by_time: routing.delay_threshold_by_time,
            too_late: routing.too_late,
            patterns: set(
                "primary_routing_query_pattern_list",
                &routing.primary_routing_query_pattern_list,
                str::to_owned,
            )?,
            reads: set("read_only_functions", &routing.read_only_functions, whole)?,
            writes: set("write_functions", &routing.write_functions, whole)?,
            redirects: [
                redirects("app_name_redirect_list", &routing.app_name_redirect_list)?,
                redirects("database_redirect_list", &routing.database_redirect_list)?,
                redirects("user_redirect_list", &routing.user_redirect_list)?,
            ],
        })
    }

    /// Is a standby within both thresholds? What is not known is too much, but who lacks nothing is not late.
    pub fn is_near(&self, node: &NodeView) -> bool {
        let bytes = self.delay_threshold == 0 || node.lag.is_some_and(|lag| lag <= self.delay_threshold);
        let limit = self.delay_threshold_by_time;
        let time = limit.is_zero() || node.lag == Some(0) || node.delay.is_some_and(|delay| delay <= limit);
        bytes && time
    }

    /// Must every read be looked at as a text? Then no decision may be kept by fingerprint, since literals count.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Does `primary_routing_query_pattern_list` want this text on the primary?
    pub fn wants_primary(&self, text: &[u8]) -> bool {
        self.has_patterns() && self.patterns.is_match(&String::from_utf8_lossy(text))
    }

    /// Is the function on the list of those that write? Matched without and with its schema.
    pub(super) fn writes(&self, schema: &str, name: &str) -> bool {
        listed(&self.writes, schema, name)
    }

    /// Is the function on the list of those that only read?
    pub(super) fn reads(&self, schema: &str, name: &str) -> bool {
        listed(&self.reads, schema, name)
    }

    /// The redirect of a session: the first match in the application's list, else in the database's, else in the user's.
    pub fn redirect(&self, application: &str, database: &str, user: &str) -> Option<&Redirect> {
        let names = [application, database, user];
        let first =
            |(list, name): (&'_ Vec<(Regex, Redirect)>, &str)| list.iter().position(|(regex, _)| regex.is_match(name));
        for (list, name) in self.redirects.iter().zip(names) {
            if let Some(at) = first((list, name)) {
                return Some(&list[at].1);
            }
        }
        None
    }
}

fn listed(set: &RegexSet, schema: &str, name: &str) -> bool {
    !set.is_empty() && (set.is_match(name) || (!schema.is_empty() && set.is_match(&format!("{schema}.{name}"))))
}

fn whole(entry: &str) -> String {
    format!("^(?:{entry})$")
}

fn set(list: &'static str, entries: &[String], wrap: fn(&str) -> String) -> Result<RegexSet, PolicyError> {
    for entry in entries {
        // One by one first, so that the error can name the entry; and by itself, so that "a)|(b" does not slip through.
        Regex::new(entry).map_err(|source| PolicyError { list, entry: entry.clone(), source })?;
    }
    RegexSet::new(entries.iter().map(|entry| wrap(entry))).map_err(|source| PolicyError {
        list,
        entry: entries.join(", "),
        source,
    })
}

fn redirects(list: &'static str, entries: &[Redirect]) -> Result<Vec<(Regex, Redirect)>, PolicyError> {
    let compile = |entry: &Redirect| {
        let error = |source| PolicyError { list, entry: entry.pattern.clone(), source };
        Regex::new(&entry.pattern).map_err(error)?;
        Ok((Regex::new(&whole(&entry.pattern)).map_err(error)?, entry.clone()))
    };
    entries.iter().map(compile).collect()
}
