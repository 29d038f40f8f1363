//! What has happened: one structured log line for each event, a bounded history that faces show, and counts for metrics. Written by
//! whoever lets something happen, on any thread; must not be on the path of a statement.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::metrics::Histogram;
use crate::support::clock::{self, millis};

use super::{Epoch, NodeId};

/// Events that are kept; the oldest goes first.
pub const KEPT: usize = 1_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It happened, as it should.
    Info,
    /// Someone should look.
    Warn,
    /// Something failed that should not have.
    Error,
}

impl Severity {
    /// `info`, `warn`, `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number in this process, from 1 on without a gap.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// How bad it is.
    pub severity: Severity,
    /// Its name, for machines, in snake case.
    pub name: &'static str,
    /// Who did it: `health`, `failover`, `pcp user postgres`, …
    pub who: String,
    /// The node that it is about.
    pub node: Option<NodeId>,
    /// What was before: a status, a role's holder; empty if that does not apply.
    pub from: String,
    /// What is now.
    pub to: String,
    /// Why, or what, for people.
    pub why: String,
    /// The epoch, if one matters.
    pub epoch: Option<Epoch>,
    /// How long it took, counted from the beginning of what it is a part of.
    pub took: Option<Duration>,
}

impl Event {
    /// An event of that name, which did `who`.
    pub fn new(severity: Severity, name: &'static str, who: &str) -> Self {
        Self {
            number: 0,
            at: clock::wall(),
            severity,
            name,
            who: who.to_owned(),
            node: None,
            from: String::new(),
            to: String::new(),
            why: String::new(),
            epoch: None,
            took: None,
        }
    }

    /// As it should be.
    pub fn info(name: &'static str, who: &str) -> Self {
        Self::new(Severity::Info, name, who)
    }

    /// Someone should look.
    pub fn warn(name: &'static str, who: &str) -> Self {
        Self::new(Severity::Warn, name, who)
    }

    /// Something failed.
    pub fn error(name: &'static str, who: &str) -> Self {
        Self::new(Severity::Error, name, who)
    }

    /// The node that it is about.
    #[must_use]
    pub fn node(self, node: impl Into<Option<NodeId>>) -> Self {
        Self { node: node.into(), ..self }
    }

    /// What was before, and what is now.
    #[must_use]
    pub fn change(self, from: impl ToString, to: impl ToString) -> Self {
        Self { from: from.to_string(), to: to.to_string(), ..self }
    }

    /// Why, or what.
    #[must_use]
    pub fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(self, epoch: Epoch) -> Self {
        Self { epoch: Some(epoch), ..self }
    }

    /// How long it took.
    #[must_use]
    pub fn took(self, took: Duration) -> Self {
        Self { took: Some(took), ..self }
    }

    /// The one log line.
    fn log(&self) {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (from, to) = (said(&self.from), said(&self.to));
        let (node, epoch) = (self.node.map(|node| node.0), self.epoch.map(|epoch| epoch.0));
        let took_ms = self.took.map(millis);
        let (event, who, why) = (self.name, self.who.as_str(), self.why.as_str());
        match self.severity {
            Severity::Info => tracing::info!(event, who, node, from, to, epoch, took_ms, "{why}"),
            Severity::Warn => tracing::warn!(event, who, node, from, to, epoch, took_ms, "{why}"),
            Severity::Error => tracing::error!(event, who, node, from, to, epoch, took_ms, "{why}"),
        }
    }
}

/// What was counted of the events of one name.
#[derive(Debug, Clone)]
pub struct EventCount {
    /// Their name.
    pub name: &'static str,
    /// How bad the last one was.
    pub severity: Severity,
    /// How many there were.
    pub count: u64,
    /// How long those took that say so.
    pub took: Arc<Histogram>,
}

/// The history. Its lock is held for as long as it takes to copy an event.
#[derive(Debug, Default)]
pub struct Events {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    kept: VecDeque<Event>,
    counts: BTreeMap<&'static str, EventCount>,
}

impl Events {
    /// Logs, counts and keeps an event. Returns its number.
    pub fn record(&self, event: Event) -> u64 {
        event.log();
        let mut inner = self.inner();
        inner.last += 1;
        let count = inner.counts.entry(event.name).or_insert_with(|| EventCount {
            name: event.name,
            severity: event.severity,
            count: 0,
            took: Arc::default(),
        });
        count.count += 1;
        count.severity = event.severity;
        // One writer at a time: this lock.
        if let Some(took) = event.took {
            count.took.observe(took);
        }
        if inner.kept.len() >= KEPT {
            inner.kept.pop_front();
        }
        let number = inner.last;
        inner.kept.push_back(Event { number, ..event });
        number
    }

    /// The events that are kept with a number above `after`, oldest first, at most the newest `most`.
    pub fn since(&self, after: u64, most: usize) -> Vec<Event> {
        let inner = self.inner();
        let first =
            inner.kept.partition_point(|event| event.number <= after).max(inner.kept.len().saturating_sub(most));
        inner.kept.range(first..).cloned().collect()
    }

    /// Number of the newest event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.inner().last
    }

    /// What was counted, by name.
    pub fn counts(&self) -> Vec<EventCount> {
        self.inner().counts.values().cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves whole entries behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_numbered_and_counted() {
        let events = Events::default();
        for round in 0..KEPT as u64 + 10 {
            let event = Event::info("node_up", "health").node(NodeId(1)).change("down", "up");
            assert_eq!(events.record(event.took(Duration::from_millis(round))), round + 1);
        }
        events.record(Event::warn("node_out", "health").why("refused").epoch(Epoch(3)));
        let all = events.since(0, usize::MAX);
        assert_eq!(all.len(), KEPT);
        assert_eq!((all[0].number, all[KEPT - 1].name), (12, "node_out"));
        assert!(all.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
        assert_eq!(events.since(events.last() - 2, 10).len(), 2);
        assert_eq!(events.since(0, 3).len(), 3);
        assert!(events.since(events.last(), 10).is_empty());
        let counts = events.counts();
        assert_eq!(
            counts.iter().map(|one| (one.name, one.count)).collect::<Vec<_>>(),
            [("node_out", 1), ("node_up", 1010)]
        );
    }
}
