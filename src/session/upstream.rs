//! From the client to a leased server: looks at each message, renames prepared statements, notes what may change the session, and
//! queues what goes out. Must not wait, and must not read from the server.

use std::rc::Rc;

use crate::backend::{Expect, Made, Server, StatementKey, is_statement_name, statement_name};
use crate::sql::Facts;
use crate::support::buffer::LARGE;
use crate::wire::{Fault, Header, TxStatus, back, front, write};

use super::Session;
use super::finish::hide_sequences;
use super::frames;
use super::lease::Leased;
use super::local::Refusal;
use super::notes::Notes;
use super::prepared::{Change, ON_SERVER, Prepared};

/// Bytes waiting for a server above which no more messages are taken from the client.
pub(super) const ENOUGH: usize = LARGE;

/// What of the client's input may be written to the server as it is.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// Bytes at the front of the input that go out unchanged, after the server's output.
    pub(super) pass: usize,
    /// Bytes of the message under way that have not arrived yet.
    pub(super) left: usize,
    /// The server was asked for the answers that it keeps back.
    flushed: bool,
}

/// Why no more messages are taken for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// More bytes of the client are needed, or what was taken must be written first.
    Enough,
    /// The message at the front must wait for replies that are owed.
    Wait,
    /// The message at the front must wait until it is known what names stand for, how its text is read, or that its block has begun.
    Undecided,
    /// The client says goodbye.
    Terminate,
}

/// Does a message speak of a prepared statement's name?
fn names(tag: u8, body: &[u8]) -> bool {
    match tag {
        front::PARSE => body.first() != Some(&0),
        front::BIND => frames::bind(body).is_some_and(|(_, name, _)| !name.is_empty()),
        front::DESCRIBE | front::CLOSE => {
            frames::target(body).is_some_and(|(kind, name)| kind == b'S' && !name.is_empty())
        }
        _ => false,
    }
}

impl Session {
    /// Takes messages from the client's input for the leased server.
    pub(super) fn take_messages(&mut self, lease: &mut Leased) -> Result<Taken, Fault> {
        loop {
            if lease.up.pass > 0 || lease.server.output.len() >= ENOUGH {
                return Ok(Taken::Enough);
            }
            if lease.up.left == 0 && lease.server.expected.awaits_begin() {
                return Ok(Taken::Undecided);
            }
            if lease.up.left > 0 {
                lease.up.pass = lease.up.left.min(self.client.input.len());
                lease.up.left -= lease.up.pass;
                return Ok(Taken::Enough);
            }
            let Some(header) = self.client.header()? else { return Ok(Taken::Enough) };
            if header.tag == front::COPY_DATA {
                self.pass_copy_data(lease)?;
                continue;
            }
            if self.client.input.len() < header.size && self.wait_or_stream(lease, header)? {
                return Ok(Taken::Enough);
            }
            if lease.up.pass > 0 || lease.up.left > 0 {
                continue;
            }
            let input = std::mem::take(&mut self.client.input);
            let body = &input.filled()[5..header.size];
            let unread = lease.lexing_unsettled() && matches!(header.tag, front::QUERY | front::PARSE);
            let undecided = unread || (lease.server.expected.undecided() && names(header.tag, body));
            let taken = if undecided {
                if unread && lease.server.expected.in_series() && !lease.up.flushed {
                    write::empty(&mut lease.server.output, front::FLUSH);
                }
                lease.up.flushed |= unread;
                Some(Taken::Undecided)
            } else {
                lease.up.flushed = false;
                self.take_message(lease, header, body)
            };
            self.client.input = input;
            match taken {
                None => self.client.input.consume(header.size),
                Some(taken) => return Ok(taken),
            }
        }
    }

    /// Runs of copy data go out as they are.
    fn pass_copy_data(&mut self, lease: &mut Leased) -> Result<(), Fault> {
        let bytes = self.client.input.filled();
        let mut at = 0;
        while let Some(header) = crate::wire::peek(&bytes[at..], crate::wire::Side::Client)? {
            if header.tag != front::COPY_DATA {
                break;
            }
            let there = header.size.min(bytes.len() - at);
            at += there;
            lease.up.left = header.size - there;
            if lease.up.left > 0 {
                break;
            }
        }
        lease.up.pass = at;
        Ok(())
    }

    /// A message that is not all there: wait for the rest if the buffer can hold it, else stream it.
    fn wait_or_stream(&mut self, lease: &mut Leased, header: Header) -> Result<bool, Fault> {
        let buffers = self.context.hub.buffers.clone();
        if header.size <= self.client.input.capacity()
            || (header.size <= LARGE && buffers.enlarge(&mut self.client.input))
        {
            return Ok(true);
        }
        // A full large buffer holds the names of any message; wait for that much.
        if self.client.input.capacity() < LARGE {
            buffers.enlarge(&mut self.client.input);
        }
        if !self.client.input.is_full() {
            return Ok(true);
        }
        self.stream_message(lease, header);
        Ok(false)
    }

    /// A message longer than any buffer. A query's text goes unread, which makes its transaction opaque (SESSIONS R10).
    fn stream_message(&mut self, lease: &mut Leased, header: Header) {
        let mut input = std::mem::take(&mut self.client.input);
        let body = &input.filled()[5..];
        let mut used = 0;
        match header.tag {
            front::QUERY => {
                self.forget_unnamed(&mut lease.server);
                lease.notes.unread();
                lease.server.expected.push(Expect::Query { hide: false });
            }
            front::PARSE => self.stream_parse(lease, body),
            front::BIND => used = self.stream_bind(lease, header, body),
            front::FUNCTION_CALL => {
                lease.notes.unread();
                lease.server.expected.push(Expect::Function);
            }
            _ => {}
        }
        input.consume(used);
        lease.up.pass = input.len();
        lease.up.left = header.size - used - input.len();
        self.client.input = input;
    }

    fn stream_parse(&mut self, lease: &mut Leased, body: &[u8]) {
        lease.notes.unread();
        if body.first() == Some(&0) {
            // Its text is not kept: it is this server's alone.
            lease.server.unnamed = self.keep_unnamed(&[], self.context.opaque.clone());
        } else {
            // Its text cannot be given to another server: the session stays here.
            lease.notes.unseen.long_statement = true;
        }
        lease.server.expected.push(Expect::Parse { hide: false, undo: None });
    }

    /// Returns how many bytes of the message its rewritten beginning stands for.
    fn stream_bind(&mut self, lease: &mut Leased, header: Header, body: &[u8]) -> usize {
        let Some((portal, name, rest)) = frames::bind(body) else {
            lease.server.expected.push(Expect::Bind);
            return 0;
        };
        let used = 5 + body.len() - rest.len();
        let facts = self.note_bind(lease, name);
        let renamed = self.establish(lease, name);
        if let Some(facts) = &facts {
            self.forget_statements(lease, facts);
        }
        let renamed = renamed.as_deref().map_or(name, str::as_bytes);
        let out = &mut lease.server.output;
        let length = header.size - 1 - name.len() + renamed.len();
        out.push(front::BIND);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        write::cstr(out, portal);
        write::cstr(out, renamed);
        lease.server.expected.push(Expect::Bind);
        used
    }

    /// Takes one whole message. `None`: it is done with.
    pub(super) fn take_message(&mut self, lease: &mut Leased, header: Header, body: &[u8]) -> Option<Taken> {
        match header.tag {
            front::QUERY => return self.take_query(lease, body),
            front::PARSE => self.take_parse(lease, body),
            front::BIND => self.take_bind(lease, body),
            front::DESCRIBE => self.take_describe(lease, body),
            front::CLOSE => self.take_close(lease, body),
            front::EXECUTE => push(&mut lease.server, front::EXECUTE, body, Expect::Execute),
            front::SYNC => {
                push(&mut lease.server, front::SYNC, body, Expect::Sync);
                self.apply_base_again(lease, 1);
            }
            front::FUNCTION_CALL => {
                lease.notes.unread();
                push(&mut lease.server, front::FUNCTION_CALL, body, Expect::Function);
            }
            front::COPY_DONE | front::COPY_FAIL => {
                lease.server.expected.push(Expect::CopyEnd);
                frame(&mut lease.server.output, header.tag, body);
            }
            front::TERMINATE => return Some(Taken::Terminate),
            tag => frame(&mut lease.server.output, tag, body),
        }
        None
    }

    fn take_query(&mut self, lease: &mut Leased, body: &[u8]) -> Option<Taken> {
        let Some(text) = frames::query(body) else {
            lease.notes.unread();
            push(&mut lease.server, front::QUERY, body, Expect::Query { hide: false });
            return None;
        };
        let looked = match self.ahead.take() {
            Some(looked) => looked,
            None => self.look(text),
        };
        if looked.is_local() && !lease.server.expected.in_series() {
            if !lease.server.expected.is_empty() || !lease.quiet() {
                return Some(Taken::Wait);
            }
            if lease.server.status != TxStatus::Failed && self.answer_in_lease(lease, &looked) {
                return None;
            }
        }
        if let Some(refusal) = self.refusal(&looked.facts, Some(lease)) {
            self.refuse_in_lease(lease, &refusal);
            return None;
        }
        self.before_statement(lease, &looked);
        self.forget_statements(lease, &looked.facts);
        self.forget_unnamed(&mut lease.server);
        push(&mut lease.server, front::QUERY, body, Expect::Query { hide: false });
        self.apply_base_again(lease, looked.facts.statements);
        None
    }

    fn take_parse(&mut self, lease: &mut Leased, body: &[u8]) {
        let Some(parse) = frames::parse(body) else {
            lease.notes.unread();
            push(&mut lease.server, front::PARSE, body, Expect::Parse { hide: false, undo: None });
            return;
        };
        let looked = self.look(parse.text);
        hide_sequences(lease, &looked.facts);
        if parse.name.is_empty() {
            let token = self.keep_unnamed(parse.tail, looked.facts.clone());
            lease.server.unnamed = token;
            let undo = Change { unnamed: token, ..Change::default() };
            frame(&mut lease.server.output, front::PARSE, body);
            lease.undo(Expect::Unnamed { hide: false, undo: Box::new(undo) }, self);
            return;
        }
        if self.prepared_named(parse.name).is_some() {
            return self.parse_twice(lease, parse.name);
        }
        let prepared = Prepared {
            text: self.context.global.texts.intern(parse.tail),
            facts: looked.facts.clone(),
            generation: self.who.known.changes(),
        };
        let key = self.statement_key(lease, &prepared);
        let known = lease.server.statements.find(key);
        let change = Change { name: parse.name.into(), key: known.is_none().then_some(key), ..Change::default() };
        self.define(parse.name, prepared);
        if known.is_some() {
            let frames = Made::Tag(back::PARSE_COMPLETE);
            lease.undo(Expect::Made { frames, undo: Some(Box::new(change)) }, self);
            return;
        }
        let number = insert_statement(&mut lease.server, key);
        write_parse(&mut lease.server.output, &statement_name(number), parse.tail);
        lease.undo(Expect::Parse { hide: false, undo: Some(Box::new(change)) }, self);
    }

    /// A name that the session has already: the server is made to refuse it, so that its block fails too (42P05).
    fn parse_twice(&mut self, lease: &mut Leased, name: &[u8]) {
        let Some(renamed) = self.establish(lease, name) else { return };
        let Some(prepared) = self.prepared_named(name) else { return };
        write_parse(&mut lease.server.output, &renamed, &prepared.text.tail);
        lease.duplicate = Some(name.into());
        lease.server.expected.push(Expect::Parse { hide: false, undo: None });
    }

    fn take_bind(&mut self, lease: &mut Leased, body: &[u8]) {
        let Some((portal, name, rest)) = frames::bind(body) else {
            return push(&mut lease.server, front::BIND, body, Expect::Bind);
        };
        let facts = self.facts_bound(name);
        if let Some(refusal) = facts.and_then(|facts| self.refusal(&facts, Some(lease))) {
            return refuse_in_series(lease, &refusal);
        }
        let facts = self.note_bind(lease, name);
        let renamed = self.establish(lease, name);
        if let Some(facts) = &facts {
            self.forget_statements(lease, facts);
        }
        match renamed {
            None => push(&mut lease.server, front::BIND, body, Expect::Bind),
            Some(renamed) => {
                write::frame(&mut lease.server.output, front::BIND, |out| {
                    write::cstr(out, portal);
                    write::cstr(out, renamed.as_bytes());
                    out.extend_from_slice(rest);
                });
                lease.server.expected.push(Expect::Bind);
            }
        }
    }

    /// What the statement is that a portal is made of.
    fn facts_bound(&self, name: &[u8]) -> Option<Rc<Facts>> {
        let set = self.prepared.as_deref()?;
        if name.is_empty() {
            return set.unnamed.as_ref().map(|unnamed| unnamed.facts.clone());
        }
        set.named.get(name).map(|prepared| prepared.facts.clone())
    }

    /// Notes the statement that a portal is made of.
    fn note_bind(&mut self, lease: &mut Leased, name: &[u8]) -> Option<Rc<Facts>> {
        let facts = self.facts_bound(name);
        match &facts {
            Some(facts) => {
                let looked = self.judge(facts.clone());
                self.before_statement(lease, &looked);
            }
            None => lease.notes.unread(),
        }
        facts
    }

    fn take_describe(&mut self, lease: &mut Leased, body: &[u8]) {
        match frames::target(body) {
            Some((b'S', name)) => match self.establish(lease, name) {
                Some(renamed) => {
                    write::frame(&mut lease.server.output, front::DESCRIBE, |out| {
                        out.push(b'S');
                        write::cstr(out, renamed.as_bytes());
                    });
                    lease.server.expected.push(Expect::DescribeStatement);
                }
                None => push(&mut lease.server, front::DESCRIBE, body, Expect::DescribeStatement),
            },
            _ => push(&mut lease.server, front::DESCRIBE, body, Expect::DescribePortal),
        }
    }

    fn take_close(&mut self, lease: &mut Leased, body: &[u8]) {
        if let Some((b'S', name)) = frames::target(body) {
            if let Some(before) = self.undefine(name) {
                let change = Change { name: name.into(), before: Some(before), ..Change::default() };
                let frames = Made::Tag(back::CLOSE_COMPLETE);
                return lease.undo(Expect::Made { frames, undo: Some(Box::new(change)) }, self);
            }
            if name.is_empty() {
                self.forget_unnamed(&mut lease.server);
            }
            if is_statement_name(name) {
                // Not this session's: to close what does not exist is no error.
                let frames = Made::Tag(back::CLOSE_COMPLETE);
                return lease.undo(Expect::Made { frames, undo: None }, self);
            }
        }
        push(&mut lease.server, front::CLOSE, body, Expect::Close { hide: false, undo: None });
    }

    /// Sees to it that the server has the statement that the session knows as `name`; returns the server's name for it. `None`: the
    /// client's own name is forwarded.
    pub(super) fn establish(&mut self, lease: &mut Leased, name: &[u8]) -> Option<String> {
        if name.is_empty() {
            self.establish_unnamed(&mut lease.server);
            return None;
        }
        let Some(prepared) = self.prepared_named(name).cloned() else {
            // What another session prepared under a name of ours is nobody else's.
            return is_statement_name(name).then(|| format!("{}?", String::from_utf8_lossy(name)));
        };
        let key = self.statement_key(lease, &prepared);
        if let Some(number) = lease.server.statements.find(key) {
            return Some(statement_name(number));
        }
        let number = insert_statement(&mut lease.server, key);
        write_parse(&mut lease.server.output, &statement_name(number), &prepared.text.tail);
        let change = Change { key: Some(key), ..Change::default() };
        lease.undo(Expect::Parse { hide: true, undo: Some(Box::new(change)) }, self);
        Some(statement_name(number))
    }

    /// The unnamed statement lives on the server that parsed it; another one parses it again.
    fn establish_unnamed(&mut self, server: &mut Server) {
        let unnamed = self.prepared.as_deref().and_then(|set| set.unnamed.as_ref());
        if unnamed.is_some_and(|unnamed| server.unnamed == unnamed.token) {
            return;
        }
        let Some(unnamed) = unnamed.filter(|unnamed| !unnamed.tail.is_empty()) else {
            // What the server may have is another session's: this one is to hear that there is none.
            write::close_statement(&mut server.output, "");
            server.unnamed = 0;
            server.expected.push(Expect::Close { hide: true, undo: None });
            return;
        };
        write_parse(&mut server.output, "", &unnamed.tail);
        server.unnamed = unnamed.token;
        let undo = Change { unnamed: ON_SERVER, ..Change::default() };
        if server.expected.push(Expect::Unnamed { hide: true, undo: Box::new(undo) }).is_some() {
            server.unnamed = 0;
        }
    }

    fn statement_key(&self, lease: &Leased, prepared: &Prepared) -> StatementKey {
        // What is parsed while settings change within a transaction is found by that transaction alone.
        let settings = self.digest
            ^ prepared.generation.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ lease.ways.unsettled.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        StatementKey { text: prepared.text.id, settings }
    }
}

impl Notes {
    /// A text that was not read.
    pub(super) fn unread(&mut self) {
        self.add(&crate::sql::Facts::opaque(), true);
        // There may be a COMMIT in it.
        self.commits = true;
    }
}

/// Notes a new statement on a server; one that must make room is closed first.
fn insert_statement(server: &mut Server, key: StatementKey) -> u32 {
    let (number, evicted) = server.statements.insert(key);
    if let Some(old) = evicted {
        write::close_statement(&mut server.output, &statement_name(old));
        server.expected.push(Expect::Close { hide: true, undo: None });
    }
    number
}

fn write_parse(out: &mut Vec<u8>, name: &str, tail: &[u8]) {
    write::frame(out, front::PARSE, |out| {
        write::cstr(out, name.as_bytes());
        out.extend_from_slice(tail);
    });
}

fn frame(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    write::frame(out, tag, |out| out.extend_from_slice(body));
}

/// Refuses a message of a series: the server is made to fail the series, and the client gets the reason for the server's error.
fn refuse_in_series(lease: &mut Leased, refusal: &Refusal) {
    write::frame(&mut lease.server.output, front::BIND, |out| {
        write::cstr(out, b"");
        write::cstr(out, b"pgherd: refused");
        out.extend([0; 6]);
    });
    let mut error = Vec::new();
    refusal.write(&mut error, write::Severity::Error);
    lease.server.expected.push(Expect::Refused { error: error.into() });
}

fn push(server: &mut Server, tag: u8, body: &[u8], expect: Expect) {
    frame(&mut server.output, tag, body);
    server.expected.push(expect);
}
