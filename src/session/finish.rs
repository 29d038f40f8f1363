//! The end of a transaction on the primary: what it did to the session is asked for where the texts do not tell, and the server connection is
//! kept or given back (SESSIONS R1, R4, R5, R6). The client has had its answer and does not wait.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::backend::{Expect, Lost, Outcome, Server, SharedPool, set_config, set_statement};
use crate::cluster::Trouble;
use crate::config::{OpaquePolicy, PoolMode};
use crate::routing::Traces;
use crate::sql::{Effect, Facts, Flags, Kind};
use crate::support::clock::now;
use crate::wire::{TxStatus, sqlstate, write};

use super::lease::{ASK, Leased};
use super::look::Looked;
use super::lost::state_lost;
use super::notes::{MOST_TOUCHED, Notes};
use super::reap::settle_cancels;
use super::{End, Session, Unfound};

/// Why a session keeps its server connection, counted in its pool while it does.
#[derive(Debug)]
pub(super) struct Pin {
    /// In words, for people.
    pub(super) reason: Rc<str>,
    /// What it is for is there, past the end of its transaction; until then it only keeps its place within the bound.
    pub(super) settled: bool,
    pool: Arc<SharedPool>,
}

impl Pin {
    /// Counts a session among the pinned ones of a pool before the statement that pins is sent, so that the bound holds over all
    /// threads (SESSIONS R5). None: `most` are pinned.
    pub(super) fn reserve(pool: &Arc<SharedPool>, most: u32) -> Option<Self> {
        let more = |pinned: u32| (pinned < most).then_some(pinned + 1);
        pool.pinned.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self { reason: Rc::from("a statement under way"), settled: false, pool: pool.clone() })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pool.pinned.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Everything that a server connection can hold for its session beside settings, each with its name.
const PINS: [(&str, &str); 5] = [
    (
        "temporary objects",
        "(pg_catalog.pg_my_temp_schema() <> 0 AND (\
         EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()) OR \
         EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()) OR \
         EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema())))",
    ),
    (
        "session advisory locks",
        "EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())",
    ),
    ("LISTEN", "EXISTS (SELECT FROM pg_catalog.pg_listening_channels())"),
    ("WITH HOLD cursors", "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)"),
    ("SQL-level PREPARE", "EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)"),
];

impl Session {
    /// Deals with the end of a transaction. The session may keep the lease.
    ///
    /// A connection that is lost before it has told what it holds takes that with it: the session ends, as nobody can say any more
    /// whether there was a lock, a temporary table or a setting (SESSIONS R20).
    pub(super) async fn finish(&mut self, mut lease: Box<Leased>) -> Result<(), End> {
        let notes = std::mem::take(&mut lease.notes);
        let failed = std::mem::take(&mut lease.failed);
        lease.settle();
        self.spread(notes.news);
        self.account(&notes, failed, &mut lease.server);
        match notes.must_ask() || notes.unseen.forget_statements {
            true => Box::pin(self.ask_and_keep(lease, notes)).await,
            false => {
                self.keep(lease, &notes);
                Ok(())
            }
        }
    }

    async fn ask_and_keep(&mut self, mut lease: Box<Leased>, notes: Notes) -> Result<(), End> {
        if let Err(lost) = self.ask_about(&mut lease, &notes).await {
            self.report(lease.server.identity.node, Trouble::ConnectionLost);
            self.lose(lease.server);
            let pinned = self.pin.take().is_some_and(|pin| pin.settled);
            return if notes.must_ask() || pinned { Err(End::Fatal(state_lost(&lost))) } else { Ok(()) };
        }
        self.keep(lease, &notes);
        Ok(())
    }

    /// Keeps the server connection or gives it back.
    fn keep(&mut self, mut lease: Box<Leased>, notes: &Notes) {
        self.pin_for_texts(&lease, notes);
        // A place that was kept for a statement which has left nothing.
        self.pin.take_if(|pin| !pin.settled);
        lease.server.leftovers.dirty |= notes.is_opaque() || self.pin.is_some();
        if self.pin.is_some() || self.who.limits.mode == PoolMode::Session {
            self.lease = Some(lease);
            return;
        }
        self.give_back(lease.server);
    }

    /// Counts, and what others must know of this transaction.
    fn account(&mut self, notes: &Notes, failed: bool, server: &mut Server) {
        let context = &self.context;
        context.counters.transactions.add(1);
        if notes.is_opaque() {
            context.counters.opaque.add(1);
        }
        if let Some(corrected) = self.corrected.take()
            && !failed
        {
            context.remember(&self.who, corrected.0, &corrected.1);
        }
        if notes.took() {
            // Taken in the middle of a series, where nothing could be discarded ahead of it: nobody's.
            let mixed = server.leftovers.has_foreign_sequences();
            self.last_server = if mixed { 0 } else { server.identity.id };
            server.leftovers.sequences = if mixed { u64::MAX } else { self.number() };
        }
        if notes.wrote() {
            // Reads alone do not count: a session that reads on the primary for want of a fresh standby would never leave it.
            self.freshness.primary_at(now());
        }
    }

    /// A transaction may be over, and its client is about to hear of it: what others must know comes first, since they may act on the
    /// client's word at once (SESSIONS R6, R7, R9).
    pub(super) fn before_ready(&mut self, lease: &mut Leased) {
        let ended = lease.server.status == TxStatus::Idle || lease.notes.commits;
        if ended && lease.notes.news != Flags::NONE {
            self.spread(lease.notes.news);
            // Of several requests under way only the last one's end is the end of all news.
            if lease.server.expected.is_empty() {
                lease.notes.news = Flags::NONE;
            }
        }
        self.ends_timed(lease);
    }

    /// Tells other sessions, of this thread and others, what statements with these flags may have changed.
    pub(super) fn spread(&self, news: Flags) {
        if news.any(super::notes::WROTE) {
            self.context.wrote(now());
        }
        if news.has(Flags::DDL) {
            self.who.known.changed();
        }
        if news.has(Flags::LOGIN_DEFAULTS) {
            (self.context.global.retire)();
        }
    }

    /// Asks the server for the settings that were touched and, if need be, for what pins.
    async fn ask_about(&mut self, lease: &mut Leased, notes: &Notes) -> Result<(), Lost> {
        let names = self.names_to_ask(notes);
        let pins = notes.probe;
        let mut text = Vec::new();
        settings_query(&mut text, &names, notes.reset());
        if pins {
            pins_query(&mut text);
        }
        if notes.unseen.forget_statements && self.pin.is_none() {
            text.extend_from_slice(b";DEALLOCATE ALL");
        }
        if text.is_empty() {
            return Ok(());
        }
        let outcome = self.probe(lease, &text).await?;
        if notes.unseen.forget_statements && self.pin.is_none() {
            // Those that were parsed since are gone with the others.
            lease.server.statements.clear();
        }
        if outcome.error.is_some() {
            // A setting of the session's own (a role without rights, a tiny statement_timeout) keeps us from asking.
            self.pin_because(lease, "its state could not be asked for".to_owned());
            return Ok(());
        }
        let mut rows = outcome.rows.into_iter();
        if !names.is_empty() {
            self.adopt(lease, &names, rows.next().unwrap_or_default(), notes.reset());
        }
        if pins {
            self.adopt_pins(lease, &rows.next().unwrap_or_default(), notes);
        }
        self.tell(&lease.server);
        Ok(())
    }

    /// Asks once, and again if a cancel that came too late for its statement has hit the question.
    async fn probe(&mut self, lease: &mut Leased, text: &[u8]) -> Result<Outcome, Lost> {
        let mut again = false;
        loop {
            settle_cancels(&lease.server).await?;
            self.context.counters.probes.add(1);
            let shown = &self.control.shown;
            shown.probes.set(shown.probes.get().wrapping_add(1));
            let asked = lease.server.ask(text, &self.context.hub.buffers);
            let outcome = tokio::time::timeout(ASK, asked).await.unwrap_or(Err(Lost::Timeout))?;
            self.client.output.extend_from_slice(&outcome.notifications);
            let cancelled = outcome.error.as_ref().is_some_and(|(code, _)| code == sqlstate::QUERY_CANCELED);
            // statement_timeout has the same code: that one asks again only once.
            if !cancelled || again {
                return Ok(outcome);
            }
            again = true;
        }
    }

    fn names_to_ask(&self, notes: &Notes) -> Vec<Box<str>> {
        let mut names: Vec<Box<str>> = notes.touched.clone();
        if notes.reset() {
            let carried = self.settings.names().chain(self.base.names());
            for name in carried {
                if !names.iter().any(|known| **known == *name) {
                    names.push(name.into());
                }
            }
        }
        names.truncate(MOST_TOUCHED);
        names
    }

    /// Takes the values that the server has over as the session's own.
    fn adopt(&mut self, lease: &mut Leased, names: &[Box<str>], row: Vec<Option<Vec<u8>>>, with_source: bool) {
        let mut settings = (*self.settings).clone();
        let mut values = row.into_iter();
        for name in names {
            let value = values.next().flatten();
            let source = if with_source { values.next().flatten() } else { None };
            let own = match (&**name, &value) {
                (_, None) => false,
                ("role", Some(value)) => value != b"none",
                ("session_authorization", Some(value)) => *value != self.who.user.as_bytes(),
                _ => source.is_none_or(|source| source == b"session"),
            };
            match value.filter(|_| own) {
                Some(value) => settings.set(name, &value),
                None => settings.remove(name),
            }
        }
        if settings != *self.settings {
            self.carry(Rc::new(settings));
        }
        lease.server.applied = self.settings.clone();
        if !self.settings.is_ascii() && self.lexing.client_only_encoding {
            self.pin_because(lease, "a setting that cannot be carried in this client encoding".to_owned());
        }
        self.restore_base();
    }

    /// What startup options set is a session's reset value (SESSIONS R6).
    fn restore_base(&mut self) {
        let missing = self.base.names().filter(|name| self.settings.get(name).is_none()).count();
        if missing > 0 {
            let mut settings = (*self.settings).clone();
            for name in self.base.names() {
                if let (None, Some(value)) = (settings.get(name), self.base.get(name)) {
                    settings.set(name, value);
                }
            }
            self.carry(Rc::new(settings));
        }
    }

    fn adopt_pins(&mut self, lease: &Leased, row: &[Option<Vec<u8>>], notes: &Notes) {
        let found: Vec<&str> = PINS
            .iter()
            .zip(row)
            .filter(|(_, value)| value.as_deref() == Some(b"t"))
            .map(|((name, _), _)| *name)
            .collect();
        if !found.is_empty() {
            self.pin_because(lease, found.join(", "));
        } else if notes.is_opaque() && self.context.opaque_policy() == OpaquePolicy::Pin {
            self.pin_because(lease, "an opaque transaction (pool.opaque = \"pin\")".to_owned());
        } else if self.habits.pinned == Unfound::None {
            self.pin = None;
        }
    }

    /// Reasons that no probe can find.
    fn pin_for_texts(&mut self, lease: &Leased, notes: &Notes) {
        if notes.flags.has(Flags::SEQUENCE_VALUE) {
            self.habits.uses_sequences = true;
        }
        let (reason, ends) = if notes.flags.has(Flags::SETSEED) {
            ("setseed", Unfound::ForGood)
        } else if notes.unseen.long_statement {
            ("a prepared statement too long to move", Unfound::UntilDiscard)
        } else if self.habits.uses_sequences && (notes.wrote() || notes.took()) {
            ("currval and lastval", Unfound::UntilDiscard)
        } else {
            return;
        };
        if self.habits.pinned != Unfound::ForGood {
            self.habits.pinned = ends;
        }
        self.pin_because(lease, reason.to_owned());
    }

    fn pin_because(&mut self, lease: &Leased, reason: String) {
        if self.pin.is_none() {
            // What only the probe has found is there already and stays, whatever the bound says.
            let Some(pool) = self.pool(lease.server.identity.node) else { return };
            self.pin = Pin::reserve(pool.shared(), u32::MAX).map(Box::new);
        }
        if let Some(pin) = &mut self.pin {
            self.context.counters.pins.add(u64::from(!pin.settled));
            pin.reason = reason.into();
            pin.settled = true;
        }
    }

    /// Notes a statement that is about to be sent, and sends ahead of it what it needs.
    pub(super) fn before_statement(&mut self, lease: &mut Leased, looked: &Looked) {
        let facts = &looked.facts;
        self.sends(lease.server.identity.node, looked);
        hide_sequences(lease, looked);
        lease.notes.add(facts, looked.verdict.flags());
        if lease.ways.unsettled == 0 && changes_settings(facts) {
            lease.ways.unsettled = self.context.next_token();
        }
    }

    /// A statement was completed while names may be forgotten (SESSIONS R3).
    pub(super) fn on_complete(&mut self, lease: &mut Leased, tag: &[u8]) {
        if tag == b"DISCARD ALL\0" {
            self.habits.uses_sequences = false;
            if self.habits.pinned == Unfound::UntilDiscard {
                self.habits.pinned = Unfound::None;
            }
        }
        if [&b"DEALLOCATE ALL\0"[..], b"DISCARD ALL\0"].contains(&tag) {
            lease.server.statements.clear();
            self.forget_names();
        }
    }

    /// After a RESET the startup options hold again, before anything else of the client runs and before it hears that it may go on
    /// (SESSIONS R6). `parts`: statements of the text; of several, a later one may have taken the RESET back.
    pub(super) fn apply_base_again(&mut self, lease: &mut Leased, parts: u16) {
        let due = lease.notes.take_reset();
        let mut text = Vec::new();
        for name in self.base.names().filter(|name| due.covers(name)) {
            if let Some(value) = self.base.get(name) {
                match parts {
                    0 | 1 => set_statement(&mut text, name, value, false),
                    _ => set_if_reset(&mut text, name, value),
                }
            }
        }
        for name in lease.notes.take_local_reset() {
            // Of several statements, a later one may have set it again.
            if let (Some(value), 0 | 1) = (self.base.get(&name), parts) {
                set_statement(&mut text, &name, value, true);
            }
        }
        if text.is_empty() {
            return;
        }
        write::query(&mut lease.server.output, &text);
        lease.server.expected.push(Expect::After);
        lease.server.unnamed = 0;
    }

    /// DISCARD ALL while the session holds nothing: it is a new session from here on.
    pub(super) fn discard_all(&mut self) {
        self.habits.uses_sequences = false;
        self.carry(self.base.clone());
        self.renumber();
    }
}

/// Another session's values are gone before one asks for a value, where PostgreSQL says 55000 without any, and before it takes one
/// itself, after which nobody could tell them from its own (SESSIONS R4).
pub(super) fn hide_sequences(lease: &mut Leased, looked: &Looked) {
    let concerned = looked.verdict.verdict.traces != Traces::None || looked.facts.flags.has(Flags::SEQUENCE_VALUE);
    if concerned && !lease.notes.took() {
        hide_all_sequences(lease);
    }
}

/// Another session's values are gone before something that nobody could look at.
pub(super) fn hide_all_sequences(lease: &mut Leased) {
    // A failed block would refuse it, and lets nobody ask.
    let accepted = !lease.server.expected.in_series() && lease.server.status != TxStatus::Failed;
    if lease.server.leftovers.has_foreign_sequences() && accepted {
        inject(lease, b"DISCARD SEQUENCES");
        lease.server.leftovers.sequences = 0;
    }
}

/// Does it change a setting that a text's meaning may depend on?
fn changes_settings(facts: &Facts) -> bool {
    let changes = |effect: &Effect| match effect {
        Effect::Set { name } | Effect::Reset { name } => **name != *"application_name",
        Effect::SetLocal | Effect::ResetLocal { .. } | Effect::ResetAll | Effect::DiscardAll => true,
        _ => false,
    };
    // SET TRANSACTION and SET CONSTRAINTS change no text's meaning.
    facts.kind != Kind::Transaction && facts.effects.iter().any(changes)
}

fn inject(lease: &mut Leased, text: &[u8]) {
    write::query(&mut lease.server.output, text);
    lease.server.expected.push(Expect::Query { hide: true });
    lease.server.unnamed = 0;
}

/// Sets a parameter for the session unless the session has set it itself. A custom one is unknown to pg_settings; empty is its default.
fn set_if_reset(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    set_config(text, name, value, false);
    text.extend_from_slice(
        b" WHERE coalesce((SELECT source <> 'session' FROM pg_catalog.pg_settings WHERE pg_catalog.lower(name) = ",
    );
    write::literal(text, name);
    text.extend_from_slice(b"), coalesce(pg_catalog.current_setting(");
    write::literal(text, name);
    text.extend_from_slice(b", true), '') = '');");
}

fn settings_query(text: &mut Vec<u8>, names: &[Box<str>], with_source: bool) {
    for (at, name) in names.iter().enumerate() {
        text.extend_from_slice(if at == 0 { b"SELECT " } else { b", " });
        text.extend_from_slice(b"pg_catalog.current_setting(");
        write::literal(text, name);
        text.extend_from_slice(b", true)");
        if with_source {
            text.extend_from_slice(b", (SELECT source FROM pg_catalog.pg_settings WHERE pg_catalog.lower(name) =");
            write::literal(text, name);
            text.extend_from_slice(b")");
        }
    }
    if !names.is_empty() {
        text.push(b';');
    }
}

fn pins_query(text: &mut Vec<u8>) {
    for (at, (_, condition)) in PINS.iter().enumerate() {
        text.extend_from_slice(if at == 0 { b"SELECT " } else { b", " });
        text.extend_from_slice(condition.as_bytes());
    }
}
