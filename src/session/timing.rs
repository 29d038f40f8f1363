//! Times of statements: how long one waited and how long its server took, for histograms, the top list and the log. One in so many is
//! timed and stands for the others, so that the rest of them ask no clock; with a statement log all are. Must not decide anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cluster::NodeId;
use crate::routing::Reason;
use crate::sql::{Fingerprint, LexMode, Verb, without_literals};
use crate::support::clock::{Duration, Instant, now};

use super::Session;
use super::lease::Leased;
use super::look::Looked;
use super::survey::Survey;

/// Bytes of a text that are kept while it runs, and shown of it.
const TEXT: usize = 2_000;
/// Different statements that one thread keeps apart.
const MOST: usize = 1_000;

/// `[log]`, as far as it concerns statements.
#[derive(Debug, Clone, PartialEq)]
pub struct StatementLog {
    /// Every statement, or that share of them.
    pub statements: bool,
    /// From 0 to 1.
    pub sample: f64,
    /// Statements that take as long are logged in any case; zero: none.
    pub slow: Duration,
    /// Literals are shown as `?`.
    pub hide_literals: bool,
    /// One in so many is timed.
    pub timed_every: u32,
}

impl StatementLog {
    /// One in so many must be timed.
    pub(super) fn every(&self) -> u32 {
        if self.statements || !self.slow.is_zero() { 1 } else { self.timed_every.max(1) }
    }
}

/// A statement that is timed.
#[derive(Debug)]
pub(super) struct Timed {
    /// How many statements it stands for, itself included; 0: none.
    weight: u32,
    begun: Instant,
    /// A server connection was had, and this is its node.
    leased: Option<(Instant, NodeId)>,
    /// It was sent: what it is.
    sent: Option<(Fingerprint, Verb)>,
    reason: Option<Reason>,
    text: Vec<u8>,
    mode: LexMode,
}

/// What was measured of one statement, whoever ran it.
#[derive(Debug, Clone)]
pub struct StatementStats {
    /// The database.
    pub database: Arc<str>,
    /// Who ran it first.
    pub user: Arc<str>,
    /// The text without its literals.
    pub text: Box<str>,
    /// How often it ran, those that were not timed included.
    pub calls: u64,
    /// All of them together.
    pub total: Duration,
    /// Of that, waiting for a server.
    pub waiting: Duration,
    /// The slowest one that was timed.
    pub slowest: Duration,
}

/// The statements of one thread. Its lock is never waited for by the thread: a statement that finds it taken is not counted.
#[derive(Debug, Default)]
pub struct Statements {
    known: Mutex<HashMap<(u32, Fingerprint), StatementStats>>,
}

impl Statements {
    /// All that are known, in no order.
    pub fn all(&self) -> Vec<((u32, Fingerprint), StatementStats)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(key, stats)| (*key, stats.clone())).collect()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn add(
        &self,
        key: (u32, Fingerprint),
        calls: u32,
        (total, waiting): (Duration, Duration),
        make: impl FnOnce() -> StatementStats,
    ) {
        let Ok(mut known) = self.known.try_lock() else { return };
        if known.len() >= MOST && !known.contains_key(&key) {
            let least = known.iter().min_by_key(|(_, stats)| stats.total).map(|(key, _)| *key);
            least.map(|key| known.remove(&key));
        }
        let stats = known.entry(key).or_insert_with(make);
        stats.calls += u64::from(calls);
        stats.total += total * calls;
        stats.waiting += waiting * calls;
        stats.slowest = stats.slowest.max(total);
    }
}

/// Statements of all threads as one list, the one that took most time first. Those of one text and database are one.
pub fn top<'a>(threads: impl Iterator<Item = &'a Statements>, most: usize) -> Vec<StatementStats> {
    let mut all: HashMap<(Arc<str>, Fingerprint), StatementStats> = HashMap::new();
    for ((_, fingerprint), stats) in threads.flat_map(Statements::all) {
        let key = (stats.database.clone(), fingerprint);
        match all.get_mut(&key) {
            None => drop(all.insert(key, stats)),
            Some(known) => {
                known.calls += stats.calls;
                known.total += stats.total;
                known.waiting += stats.waiting;
                known.slowest = known.slowest.max(stats.slowest);
            }
        }
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.text.cmp(&b.text)));
    all.truncate(most);
    all
}

impl Session {
    /// A request has come: from here on it is timed, if it is its turn.
    #[inline]
    pub(super) fn begins(&mut self) {
        let left = self.context.until_timed.get();
        if left > 1 {
            self.context.until_timed.set(left - 1);
            if !self.own.logs {
                return;
            }
        }
        self.begins_timed(left <= 1);
    }

    /// `turn`: it stands for the others; else it is timed for the log alone, and counts nowhere.
    #[cold]
    fn begins_timed(&mut self, turn: bool) {
        let every = self.context.timed_every.get();
        if turn {
            self.context.until_timed.set(every);
        }
        let weight = if turn { every } else { 0 };
        match &mut self.timed {
            Some(timed) => timed.weight = timed.weight.max(weight),
            None => {
                let (begun, text, mode) = (now(), Vec::new(), self.lexing);
                let timed = Timed { weight, begun, leased: None, sent: None, reason: None, text, mode };
                self.timed = Some(Box::new(timed));
            }
        }
    }

    /// The request that is timed was answered without a server, or ended without an answer.
    #[inline]
    pub(super) fn not_timed(&mut self) {
        if self.timed.is_some() {
            self.timed = None;
        }
    }

    /// It has a server connection.
    #[inline]
    pub(super) fn has_server(&mut self, node: NodeId) {
        if let Some(timed) = &mut self.timed {
            timed.leased = Some((now(), node));
        }
    }

    /// Where it goes, and why.
    #[inline]
    pub(super) fn goes(&mut self, reason: Reason) {
        if let Some(timed) = &mut self.timed {
            timed.reason = Some(reason);
        }
    }

    /// A statement is sent to a node.
    #[inline]
    pub(super) fn sends(&mut self, node: NodeId, looked: &Looked) {
        self.context.counters.node(node).verb(looked.facts.verb).add(1);
        if let Some(timed) = &mut self.timed
            && timed.sent.is_none()
        {
            timed.sent = Some((looked.facts.fingerprint, looked.facts.verb));
            timed.leased.get_or_insert_with(|| (now(), node));
            timed.mode = self.lexing;
            timed.reason.get_or_insert(looked.verdict.verdict.reason);
        }
    }

    /// A complete request that reads is sent to a leased server.
    pub(super) fn sends_read(&mut self, lease: &Leased, survey: &Survey) {
        for looked in survey.statements.iter() {
            self.sends(lease.server.identity.node, looked);
        }
        if self.timed.is_some()
            && let Some(text) = self.text_of(survey)
        {
            self.says(&text);
        }
    }

    /// The text of the statement that a portal is made of.
    pub(super) fn says_bound(&mut self, name: &[u8]) {
        if self.timed.is_none() {
            return;
        }
        let tail = match name {
            b"" => self.unnamed().map(|unnamed| unnamed.tail.clone()),
            name => self.prepared_named(name).map(|prepared| prepared.text.tail.to_vec()),
        };
        if let Some(text) = tail.as_deref().and_then(|tail| tail.split(|&byte| byte == 0).next()) {
            self.says(text);
        }
    }

    /// Its text.
    #[inline]
    pub(super) fn says(&mut self, text: &[u8]) {
        if let Some(timed) = &mut self.timed
            && timed.text.is_empty()
        {
            timed.text.extend_from_slice(&text[..text.len().min(TEXT)]);
        }
    }

    /// Everything that was owed is answered.
    #[inline]
    pub(super) fn ends_timed(&mut self, lease: &Leased) {
        if self.timed.is_some() && lease.server.expected.is_empty() {
            self.timed_ended(lease.failed);
        }
    }

    #[cold]
    fn timed_ended(&mut self, failed: bool) {
        let Some(timed) = self.timed.take() else { return };
        let (Some((leased, node)), Some((fingerprint, verb))) = (timed.leased, timed.sent) else { return };
        let total = timed.begun.elapsed();
        let waiting = leased.saturating_duration_since(timed.begun);
        let weight = timed.weight;
        if weight > 0 {
            let phases = self.context.counters.node(node).timed().of(verb);
            phases.waiting.observe_for(waiting, u64::from(weight));
            phases.server.observe_for(total.saturating_sub(waiting), u64::from(weight));
            phases.total.observe_for(total, u64::from(weight));
        }
        if weight > 0 && fingerprint != Fingerprint(0) && !timed.text.is_empty() {
            let make = || StatementStats {
                database: self.who.database.clone(),
                user: self.who.user.clone(),
                text: without_literals(&timed.text, timed.mode, TEXT).into(),
                calls: 0,
                total: Duration::ZERO,
                waiting: Duration::ZERO,
                slowest: Duration::ZERO,
            };
            let statements = &self.context.counters.statements;
            statements.add((self.who.number, fingerprint), weight, (total, waiting), make);
        }
        self.log_statement(&timed, node, (total, waiting), failed);
    }

    /// The line in the log, if there is to be one.
    fn log_statement(&self, timed: &Timed, node: NodeId, (total, waiting): (Duration, Duration), failed: bool) {
        let settings = self.context.settings.borrow().clone();
        let log = &settings.log;
        let slow = !log.slow.is_zero() && total >= log.slow;
        #[expect(clippy::cast_precision_loss, reason = "one part in 2^53 of a share")]
        let chosen = || log.sample >= 1.0 || (self.context.random() >> 11) as f64 / ((1_u64 << 53) as f64) < log.sample;
        let wanted = slow || self.own.logs || (log.statements && chosen());
        if !wanted {
            return;
        }
        let text = match log.hide_literals {
            true => without_literals(&timed.text, timed.mode, TEXT),
            false => String::from_utf8_lossy(&timed.text).into_owned(),
        };
        tracing::info!(
            event = if slow { "slow_statement" } else { "statement" },
            session = self.id,
            user = %self.who.user,
            database = %self.who.database,
            node = node.0,
            reason = timed.reason.map_or("", Reason::name),
            ms = total.as_secs_f64() * 1_000.0,
            waiting_ms = waiting.as_secs_f64() * 1_000.0,
            failed,
            "{text}"
        );
    }
}
