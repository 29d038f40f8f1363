//! From the client to a leased server: looks at each message, renames prepared statements, notes what may change the session, and
//! queues what goes out. Must not wait, and must not read from the server.

use std::rc::Rc;

use crate::backend::{Expect, Made, Server, is_statement_name};
use crate::sql::{Facts, Flags};
use crate::support::buffer::LARGE;
use crate::wire::{Fault, Header, TxStatus, back, front, write};

use super::Session;
use super::frames;
use super::hold::Way;
use super::lease::Leased;
use super::local::Refusal;
use super::notes::Notes;
use super::parse::Renamed;
use super::prepared::Change;

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

/// The prepared statement that a message speaks of.
fn name(tag: u8, body: &[u8]) -> Option<&[u8]> {
    match tag {
        front::PARSE => body.split(|&byte| byte == 0).next(),
        front::BIND => frames::bind(body).map(|(_, name, _)| name),
        front::DESCRIBE | front::CLOSE => frames::target(body).filter(|(kind, _)| *kind == b'S').map(|(_, name)| name),
        _ => None,
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
            if self.is_held_behind(lease, header.tag) {
                return Ok(Taken::Wait);
            }
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
            let unknown = match name(header.tag, body) {
                None => false,
                Some(b"") => header.tag != front::PARSE && header.tag != front::CLOSE && self.unnamed_unknown(lease),
                Some(_) => lease.names_unknown(),
            };
            let taken = if unread || unknown {
                if unread && lease.server.expected.in_series() && !lease.up.flushed {
                    write::empty(&mut lease.server.output, front::FLUSH);
                }
                lease.up.flushed |= unread;
                lease.ask_for_names();
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

    /// A request that was sent ahead of the answer to the one before it may begin a transaction: while nothing new may begin it waits for that
    /// answer, which tells. Who always has a request under way would never be held otherwise (HA H4).
    fn is_held_behind(&self, lease: &Leased, tag: u8) -> bool {
        let expected = &lease.server.expected;
        let begins = matches!(
            tag,
            front::QUERY
                | front::FUNCTION_CALL
                | front::PARSE
                | front::BIND
                | front::DESCRIBE
                | front::EXECUTE
                | front::CLOSE
        );
        begins && expected.owes() && !expected.in_series() && !matches!(self.way(), Way::To(_))
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
                lease.may_forget(&self.context.opaque);
                lease.executes();
                self.drop_unnamed(lease);
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

    /// Returns how many bytes of the message its rewritten beginning stands for.
    fn stream_bind(&mut self, lease: &mut Leased, header: Header, body: &[u8]) -> usize {
        let Some((portal, name, rest)) = frames::bind(body) else {
            lease.server.expected.push(Expect::Bind);
            return 0;
        };
        let used = 5 + body.len() - rest.len();
        let facts = self.facts_bound(name);
        self.note_bind(lease, name, facts.as_ref());
        let renamed = self.establish(lease, name);
        if let Some(facts) = &facts {
            lease.may_forget(facts);
        }
        let renamed = renamed.as_ref().map_or(name, Renamed::as_bytes);
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
            front::EXECUTE => {
                lease.executes();
                push(&mut lease.server, front::EXECUTE, body, Expect::Execute);
            }
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
        self.says(text);
        self.before_statement(lease, &looked);
        lease.may_forget(&looked.facts);
        lease.executes();
        self.drop_unnamed(lease);
        push(&mut lease.server, front::QUERY, body, Expect::Query { hide: false });
        self.apply_base_again(lease, looked.facts.statements);
        None
    }

    fn take_bind(&mut self, lease: &mut Leased, body: &[u8]) {
        let Some((portal, name, rest)) = frames::bind(body) else {
            return push(&mut lease.server, front::BIND, body, Expect::Bind);
        };
        let facts = self.facts_bound(name);
        if let Some(refusal) = facts.as_ref().and_then(|facts| self.refusal(facts, Some(lease))) {
            return refuse_in_series(lease, &refusal);
        }
        self.note_bind(lease, name, facts.as_ref());
        let renamed = self.establish(lease, name);
        if let Some(facts) = &facts {
            lease.may_forget(facts);
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
        match name {
            b"" => self.unnamed().and_then(|unnamed| unnamed.facts.clone()),
            name => self.prepared_named(name).map(|prepared| prepared.facts.clone()),
        }
    }

    /// Notes the statement that a portal is made of.
    fn note_bind(&mut self, lease: &mut Leased, name: &[u8], facts: Option<&Rc<Facts>>) {
        match facts {
            Some(facts) => {
                let looked = self.judge(facts.clone());
                self.says_bound(name);
                self.before_statement(lease, &looked);
            }
            None => lease.notes.unread(),
        }
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
                self.drop_unnamed(lease);
            }
            if is_statement_name(name) {
                // Not this session's: to close what does not exist is no error.
                let frames = Made::Tag(back::CLOSE_COMPLETE);
                return lease.undo(Expect::Made { frames, undo: None }, self);
            }
        }
        push(&mut lease.server, front::CLOSE, body, Expect::Close { hide: false, undo: None });
    }
}

impl Notes {
    /// A text that was not read.
    pub(super) fn unread(&mut self) {
        self.add(&Facts::opaque(), Flags::OPAQUE);
        // There may be a COMMIT in it.
        self.commits = true;
    }
}

pub(super) fn frame(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
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
