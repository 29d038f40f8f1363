//! Parse on its way to a leased server, and statements that a server lacks: what the client calls a statement becomes the name of
//! one that the server has or gets (SESSIONS R3). Must not read from the server.

use crate::backend::{
    Expect, Lost, Made, Server, StatementKey, StatementName, is_statement_name, setup, statement_name,
};
use crate::sql::Kind;
use crate::wire::{TxStatus, back, front, write};

use super::Session;
use super::finish::hide_sequences;
use super::frames::{self, Parse};
use super::lease::Leased;
use super::prepared::{Change, Prepared};
use super::upstream::frame;

/// Statements under other settings that one lease is given ahead of its first message.
const MOST_OLD: usize = 100;

/// What a server is told in place of a client's name.
#[derive(Debug)]
pub(super) enum Renamed {
    /// The name of a statement that it has.
    There(StatementName),
    /// One that it does not have.
    Nobody(Vec<u8>),
}

impl Renamed {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::There(name) => name.as_bytes(),
            Self::Nobody(name) => name,
        }
    }
}

impl Session {
    /// A Parse that is longer than any buffer.
    pub(super) fn stream_parse(&mut self, lease: &mut Leased, body: &[u8]) {
        lease.notes.unread();
        if body.first() == Some(&0) {
            // Its text is not kept: it is this server's alone.
            return self.expect_unnamed(lease, &[], self.context.opaque.clone());
        }
        // Its text cannot be given to another server: the session stays here.
        lease.notes.unseen.long_statement = true;
        lease.server.expected.push(Expect::Parse { hide: false, undo: None });
    }

    pub(super) fn take_parse(&mut self, lease: &mut Leased, body: &[u8]) {
        let Some(parse) = frames::parse(body) else {
            lease.notes.unread();
            frame(&mut lease.server.output, front::PARSE, body);
            lease.server.expected.push(Expect::Parse { hide: false, undo: None });
            return;
        };
        let looked = self.look(parse.text);
        hide_sequences(lease, &looked);
        let instead = if looked.facts.kind == Kind::Admin { self.stand_in(&looked.facts) } else { None };
        if let Some(tail) = &instead
            && parse.name.is_empty()
        {
            self.expect_unnamed(lease, tail, looked.facts);
            return write_parse(&mut lease.server.output, "", tail);
        }
        if parse.name.is_empty() {
            self.expect_unnamed(lease, parse.tail, looked.facts);
            return frame(&mut lease.server.output, front::PARSE, body);
        }
        let tail = instead.as_deref().unwrap_or(parse.tail);
        let parse = Parse { tail, ..parse };
        let prepared = self.prepared_now(lease.ways.unsettled, tail, looked.facts);
        if self.prepared_named(parse.name).is_some() {
            return self.parse_again(lease, parse, &prepared);
        }
        self.parse_named(lease, parse, prepared);
    }

    /// The unnamed statement becomes another one, or none if its Parse fails.
    fn expect_unnamed(&mut self, lease: &mut Leased, tail: &[u8], facts: std::rc::Rc<crate::sql::Facts>) {
        self.drop_unnamed(lease);
        let unnamed = self.keep_unnamed(lease.server.expected.series(), tail, facts);
        lease.server.unnamed = unnamed.token;
        lease.undo(Expect::Unnamed { hide: false, undo: Change::unnamed(unnamed) }, self);
    }

    fn parse_named(&mut self, lease: &mut Leased, parse: Parse<'_>, prepared: Prepared) {
        let key = prepared.key;
        self.define(parse.name, prepared);
        let known = lease.server.statements.find(key);
        let mut change = Change { name: parse.name.into(), ..Change::default() };
        if let Some(known) = known {
            // A failed block refuses what it parsed before, too (25P02): whether this one has failed is for the server to say.
            if lease.server.status != TxStatus::Failed && !lease.server.expected.unsettled() {
                let frames = Made::Tag(back::PARSE_COMPLETE);
                return lease.undo(Expect::Made { frames, undo: Some(Box::new(change)) }, self);
            }
            write::close_statement(&mut lease.server.output, &statement_name(known));
            lease.server.statements.remove(key);
            let closed = Change { closed: Some((key, known)), ..Change::default() };
            lease.undo(Expect::Close { hide: true, undo: Some(Box::new(closed)) }, self);
        }
        change.key = Some(key);
        let number = insert_statement(lease, self, key);
        write_parse(&mut lease.server.output, &statement_name(number), parse.tail);
        lease.undo(Expect::Parse { hide: false, undo: Some(Box::new(change)) }, self);
    }

    /// A name that the session has already: the server is made to refuse it, so that its block fails too. It looks at the text first,
    /// and may find other faults with it than that its name is there (42P05).
    fn parse_again(&mut self, lease: &mut Leased, parse: Parse<'_>, prepared: &Prepared) {
        let number = self.provide(lease, prepared);
        write_parse(&mut lease.server.output, &statement_name(number), parse.tail);
        lease.server.expected.push(Expect::Again { name: parse.name.into() });
    }

    /// Sees to it that the server has the statement that the session knows as `name`; returns the server's name for it. `None`: the
    /// client's own name is forwarded.
    pub(super) fn establish(&mut self, lease: &mut Leased, name: &[u8]) -> Option<Renamed> {
        if name.is_empty() {
            self.establish_unnamed(lease);
            return None;
        }
        let Some(prepared) = self.prepared_named(name).cloned() else {
            // What another session prepared under a name of ours is nobody else's.
            return is_statement_name(name).then(|| Renamed::Nobody([name, b"?"].concat()));
        };
        if prepared.facts.kind == Kind::Admin
            && let Some(tail) = self.stand_in(&prepared.facts)
        {
            let now = self.prepared_now(lease.ways.unsettled, &tail, prepared.facts);
            return Some(Renamed::There(statement_name(self.provide(lease, &now))));
        }
        Some(Renamed::There(statement_name(self.provide(lease, &prepared))))
    }

    /// The server's number for a statement, which it is given if it lacks it.
    fn provide(&mut self, lease: &mut Leased, prepared: &Prepared) -> u32 {
        let key = prepared.key;
        if let Some(number) = lease.server.statements.find(key) {
            return number;
        }
        // What is parsed under other settings must not be taken for this one, by nobody.
        let settled = lease.ways.unsettled == 0 && self.digest == prepared.digest;
        let token = if settled { 0 } else { self.context.next_token() };
        let key = StatementKey { settings: key.settings ^ token.wrapping_mul(0xC2B2_AE3D_27D4_EB4F), ..key };
        let number = insert_statement(lease, self, key);
        write_parse(&mut lease.server.output, &statement_name(number), &prepared.text.tail);
        lease.undo(Expect::Parse { hide: true, undo: Some(Change::key(key)) }, self);
        number
    }

    /// Statements that the session parsed under other settings than it has now, as far as the server lacks them: they are parsed under
    /// those, before any byte of the client's. A literal such as `'01/02/2024'::date` has its meaning from Parse on.
    pub(super) async fn provide_old(&mut self, server: &mut Server) -> Result<(), Lost> {
        let Some(set) = self.prepared.as_deref().filter(|set| set.mixed) else { return Ok(()) };
        let lacks = |old: &&Prepared| old.digest != self.digest && !server.statements.has(old.key);
        let missing: Vec<Prepared> = set.named.values().filter(lacks).take(MOST_OLD).cloned().collect();
        for old in missing {
            self.context.counters.setups.add(1);
            let there = setup(&self.settings, &old.under, false);
            let buffers = self.context.hub.buffers.clone();
            if server.ask(&there, &buffers).await?.error.is_some() {
                // A setting that is refused now: the statement is parsed under those of now if it is asked for.
                continue;
            }
            let (number, evicted) = server.statements.insert(old.key);
            if let Some((evicted, _)) = evicted {
                write::close_statement(&mut server.output, &statement_name(evicted));
                server.expected.push(Expect::Close { hide: true, undo: None });
            }
            write_parse(&mut server.output, &statement_name(number), &old.text.tail);
            server.expected.push(Expect::Parse { hide: true, undo: Some(Change::key(old.key)) });
            write::empty(&mut server.output, front::SYNC);
            server.expected.push(Expect::Sync);
            let mut undone = Vec::new();
            server.drain(&buffers, &mut undone).await?;
            self.undo_all(server, undone);
            let back = setup(&old.under, &self.settings, false);
            if let Some((code, message)) = server.ask(&back, &buffers).await?.error {
                return Err(Lost::Protocol(format!("the session's settings are refused: {code} {message}")));
            }
        }
        Ok(())
    }

    /// The unnamed statement lives on the server that parsed it; another one parses it again.
    fn establish_unnamed(&mut self, lease: &mut Leased) {
        let unnamed = self.unnamed();
        if unnamed.as_ref().is_some_and(|unnamed| lease.server.unnamed == unnamed.token) {
            return;
        }
        lease.server.unnamed = 0;
        let Some(unnamed) = unnamed.filter(|unnamed| !unnamed.tail.is_empty()) else {
            // What the server may have is another session's: this one is to hear that there is none.
            write::close_statement(&mut lease.server.output, "");
            lease.server.expected.push(Expect::Close { hide: true, undo: None });
            return;
        };
        let admin = unnamed.facts.as_ref().filter(|facts| facts.kind == Kind::Admin).cloned();
        let instead = admin.and_then(|facts| self.stand_in(&facts));
        write_parse(&mut lease.server.output, "", instead.as_deref().unwrap_or(&unnamed.tail));
        lease.server.unnamed = unnamed.token;
        lease.undo(Expect::Unnamed { hide: true, undo: Box::new(Change::default()) }, self);
    }

    /// A statement as it is parsed now. `unsettled`: the transaction's own number if it has changed settings.
    pub(super) fn prepared_now(&self, unsettled: u64, tail: &[u8], facts: std::rc::Rc<crate::sql::Facts>) -> Prepared {
        let texts = &self.context.global.texts;
        // What stands in for a statement about pgherd holds its answer, which is another one each time.
        let text = if facts.kind == Kind::Admin { texts.single(tail) } else { texts.intern(tail) };
        // What is parsed while settings change within a transaction is found by those who parsed it alone.
        let settings = self.digest
            ^ self.who.known.changes().wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ unsettled.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let key = StatementKey { text: text.id, settings };
        Prepared { text, facts, key, under: self.settings.clone(), digest: self.digest }
    }

    /// What the client calls the statement of that number on the server.
    pub(super) fn name_of(&self, lease: &Leased, number: u32) -> Option<&[u8]> {
        let key = lease.server.statements.key_of(number)?;
        let named = &self.prepared.as_deref()?.named;
        named.iter().find(|(_, prepared)| prepared.key == key).map(|(name, _)| &**name)
    }
}

/// Notes a new statement on a server; one that must make room is closed first.
fn insert_statement(lease: &mut Leased, session: &mut Session, key: StatementKey) -> u32 {
    let (number, evicted) = lease.server.statements.insert(key);
    if let Some((old, of)) = evicted {
        write::close_statement(&mut lease.server.output, &statement_name(old));
        let change = Change { closed: Some((of, old)), ..Change::default() };
        lease.undo(Expect::Close { hide: true, undo: Some(Box::new(change)) }, session);
    }
    number
}

fn write_parse(out: &mut Vec<u8>, name: &str, tail: &[u8]) {
    write::frame(out, front::PARSE, |out| {
        write::cstr(out, name.as_bytes());
        out.extend_from_slice(tail);
    });
}
