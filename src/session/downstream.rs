//! From a leased server to the client: the client's own replies pass as they are, what answers injected messages is dropped,
//! and what is made here goes out in its place. Must not look into rows.

use std::io;
use std::task::{Context, Poll, ready};

use crate::backend::{Fate, Lost, Made};
use crate::support::buffer::LARGE;
use crate::wire::write;
use crate::wire::{self, ErrorFields, Header, Side, TxStatus, back};

use super::Session;
use super::lease::Leased;

/// What of the server's input may be written to the client as it is.
#[derive(Debug, Default)]
pub(super) struct Downstream {
    /// Bytes at the front of the input that go out unchanged, after the client's output.
    pub(super) pass: usize,
    /// Bytes of the message under way that have not arrived yet.
    pub(super) left: usize,
    /// That message is dropped, not passed.
    hide: bool,
    /// The input is known to be one whole answer of messages that pass as they are.
    pub(super) whole: bool,
}

/// Why a relay cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client's side.
    Client,
    /// The server's side.
    Server(Lost),
}

impl Session {
    /// Moves replies to the client until nothing more can be done now. Ready only when a side is lost.
    pub(super) fn poll_replies(&mut self, lease: &mut Leased, cx: &mut Context<'_>) -> Poll<Broken> {
        loop {
            let scanned = if self.is_fenced(lease) { Err(Lost::Fenced) } else { self.scan(lease) };
            if let Err(lost) = scanned {
                // What came before is the client's.
                return match self.poll_write_client(lease, cx) {
                    Poll::Pending => Poll::Pending,
                    _ => Poll::Ready(Broken::Server(lost)),
                };
            }
            match self.poll_write_client(lease, cx) {
                Poll::Ready(Ok(true)) => continue,
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Broken::Client),
                Poll::Pending => return Poll::Pending,
            }
            match ready!(lease.server.poll_fill(cx, &self.context.hub.buffers)) {
                Ok(0) => return Poll::Ready(Broken::Server(Lost::Closed)),
                Ok(_) => lease.ways.again = None,
                Err(error) => return Poll::Ready(Broken::Server(error.into())),
            }
        }
    }

    /// Writes what is cleared for the client. True: something was written and more may be cleared now.
    pub(super) fn poll_write_client(&mut self, lease: &mut Leased, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut wrote = !self.client.output.is_empty();
        ready!(self.client.poll_flush(cx))?;
        while lease.down.pass > 0 {
            let bytes = &lease.server.input.filled()[..lease.down.pass];
            let count = ready!(self.client.stream.poll_write(cx, bytes))?;
            lease.server.input.consume(count);
            lease.down.pass -= count;
            wrote = true;
        }
        if wrote {
            ready!(self.client.stream.poll_flush(cx))?;
        }
        Poll::Ready(Ok(wrote))
    }

    /// Looks at the messages in the server's input as far as they can be passed or dropped now.
    pub(super) fn scan(&mut self, lease: &mut Leased) -> Result<(), Lost> {
        if lease.down.left == 0 {
            self.emit_made(lease);
        }
        if self.scan_whole(lease)? {
            return Ok(());
        }
        loop {
            let at = lease.down.pass;
            let there = lease.server.input.len() - at;
            if lease.down.left > 0 {
                if !self.scan_rest(lease, there) {
                    return Ok(());
                }
                // Nothing made here may stand in the middle of a server's message.
                if lease.down.left == 0 {
                    self.emit_made(lease);
                }
                continue;
            }
            let Some(header) = lease.server.header_at(at)? else { return Ok(()) };
            if there < header.size && looked_into(lease, header.tag) && self.make_room(lease, header) {
                return Ok(());
            }
            if !self.scan_message(lease, header, there)? {
                return Ok(());
            }
        }
    }

    /// Clears a whole answer at once, as most are: all there, and nothing in it that would have to be looked into. False: message by
    /// message.
    pub(super) fn scan_whole(&mut self, lease: &mut Leased) -> Result<bool, Lost> {
        let whole = std::mem::take(&mut lease.down.whole);
        let plain = lease.quiet() && !lease.may_have_forgotten() && lease.server.expected.is_plain();
        if !plain || !(whole || is_whole(lease.server.input.filled())) {
            return Ok(false);
        }
        let query = lease.server.expected.is_query();
        let (mut at, mut undone) = (0, Vec::new());
        while let Some(header) = wire::peek_unlimited(&lease.server.input.filled()[at..]) {
            // Nothing is to be accounted for but the end.
            if query && matches!(header.tag, back::ROW_DESCRIPTION | back::DATA_ROW | back::COMPLETE) {
                at += header.size;
                continue;
            }
            if let Err(lost) = lease.server.observe_at(at, header, &mut undone) {
                lease.down.pass = at;
                return Err(lost);
            }
            at += header.size;
        }
        self.before_ready(lease);
        if lease.ways.masked {
            lease.server.input.filled_mut()[at - 1] = masked(lease).byte();
        }
        lease.down.pass = at;
        Ok(true)
    }

    /// Continues a message that did not fit. False: nothing more is there.
    fn scan_rest(&mut self, lease: &mut Leased, there: usize) -> bool {
        let count = lease.down.left.min(there);
        if count == 0 || (lease.down.hide && lease.down.pass > 0) {
            return false;
        }
        lease.down.left -= count;
        if lease.down.hide {
            lease.server.input.consume(count);
        } else {
            lease.down.pass += count;
        }
        true
    }

    /// A message that must be whole to be looked into. True: wait for the rest.
    fn make_room(&mut self, lease: &mut Leased, header: Header) -> bool {
        let input = &mut lease.server.input;
        if lease.down.pass > 0 {
            return true;
        }
        header.size <= input.capacity() || (header.size <= LARGE && self.context.hub.buffers.enlarge(input))
    }

    /// Deals with the message behind what is already cleared. False: what is cleared must be written first.
    fn scan_message(&mut self, lease: &mut Leased, header: Header, there: usize) -> Result<bool, Lost> {
        let hidden = lease.server.expected.hides(header.tag);
        if hidden && lease.down.pass > 0 {
            return Ok(false);
        }
        let at = lease.down.pass;
        if header.tag == back::ERROR {
            self.count_fault(lease, header);
            // The session outlives its server: the client gets an error of its own (SESSIONS R20).
            last_words(lease, header)?;
        }
        let replacement = if header.tag == back::ERROR { self.on_error(lease, header) } else { None };
        if header.tag == back::COMPLETE && lease.may_have_forgotten() {
            let tag = lease.server.input.filled().get(at + 5..at + header.size).unwrap_or_default().to_vec();
            self.on_complete(lease, &tag);
        }
        let mut undone = Vec::new();
        let mut fate = lease.server.observe_at(at, header, &mut undone)?;
        self.undo_all(&mut lease.server, undone);
        if header.tag == back::READY {
            self.before_ready(lease);
        }
        if header.tag == back::READY && lease.ways.masked {
            lease.server.input.filled_mut()[at + 5] = masked(lease).byte();
        }
        if header.tag == back::PARAMETER_STATUS {
            fate = self.on_parameter(lease, at, header);
            if fate == Fate::Hide && at > 0 {
                lease.server.input.remove(at, header.size);
                return Ok(true);
            }
        }
        if let Some(replacement) = replacement {
            self.put_here(lease, &replacement);
            fate = Fate::Hide;
        }
        let count = header.size.min(there);
        lease.down.left = header.size - count;
        lease.down.hide = fate == Fate::Hide;
        match fate {
            Fate::Forward => lease.down.pass += count,
            Fate::Hide => lease.server.input.consume(count),
        }
        if lease.down.left == 0 {
            self.emit_made(lease);
        }
        Ok(true)
    }

    /// A report of a parameter is the client's at any time, but for the one that would turn it away (SESSIONS R6).
    fn on_parameter(&mut self, lease: &mut Leased, at: usize, header: Header) -> Fate {
        let filled = lease.server.input.filled();
        if filled[at + 5..].starts_with(b"in_hot_standby\0") && filled.len() >= at + header.size {
            return Fate::Hide;
        }
        self.set_told(lease.server.reported.clone());
        Fate::Forward
    }

    /// What a server raises is counted by its severity.
    fn count_fault(&self, lease: &Leased, header: Header) {
        let faults = &self.context.counters.node(lease.server.identity.node).faults;
        let count = match error_at_front(lease, header).severity {
            b"PANIC" => &faults.panics,
            b"FATAL" => &faults.fatals,
            _ => &faults.errors,
        };
        count.add(1);
    }

    /// Errors that say something about our own bookkeeping.
    /// Returns what the client gets instead.
    fn on_error(&mut self, lease: &mut Leased, header: Header) -> Option<Vec<u8>> {
        lease.failed = true;
        if let Some(refused) = lease.server.expected.take_refusal() {
            return Some(refused.into());
        }
        let fields = error_at_front(lease, header);
        let stale = is_stale(&fields);
        if fields.code == b"25006" {
            self.report(lease.server.identity.node, crate::cluster::Trouble::NotPrimary);
        }
        let replaced = self.renamed(lease, header);
        if stale {
            lease.forget_statements();
        }
        replaced
    }

    /// The error as the client is to see it, if its text speaks of a statement by the server's name.
    fn renamed(&self, lease: &Leased, header: Header) -> Option<Vec<u8>> {
        const OURS: &[u8] = b"\"pgherd_";
        let at = lease.down.pass;
        let body = lease.server.input.filled().get(at + 5..at + header.size)?;
        let at = body.windows(OURS.len()).position(|window| window == OURS)?;
        let digits = body[at + OURS.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let end = at + OURS.len() + digits;
        let number = std::str::from_utf8(&body[at + OURS.len()..end]).ok()?.parse().ok()?;
        let name = match lease.server.expected.again() {
            Some(name) => name,
            None => self.name_of(lease, number)?,
        };
        let mut replaced = Vec::new();
        write::frame(&mut replaced, back::ERROR, |out| {
            out.extend_from_slice(&body[..at + 1]);
            out.extend_from_slice(name);
            out.extend_from_slice(&body[end..]);
        });
        Some(replaced)
    }

    /// Appends messages made here whose turn has come, behind what is cleared.
    pub(super) fn emit_made(&mut self, lease: &mut Leased) {
        while let Some(made) = lease.server.expected.pop_made() {
            match made {
                Made::Tag(tag) => self.put_here(lease, &[tag, 0, 0, 0, 4]),
                Made::Frames(frames) => self.put_here(lease, &frames),
            }
        }
    }

    /// Appends a message made here behind what is cleared.
    fn put_here(&mut self, lease: &mut Leased, frames: &[u8]) {
        let cleared = std::mem::take(&mut lease.down.pass);
        self.client.output.extend_from_slice(&lease.server.input.filled()[..cleared]);
        lease.server.input.consume(cleared);
        self.client.output.extend_from_slice(frames);
    }
}

/// What a block's status is shown as while a read of it runs outside of any (SESSIONS R12).
fn masked(lease: &Leased) -> TxStatus {
    if lease.failed { TxStatus::Failed } else { TxStatus::InBlock }
}

/// Is that one answer up to its ReadyForQuery, of messages that pass as they are?
fn is_whole(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(Ok(Some(header))) = bytes.get(at..).map(|rest| wire::peek(rest, Side::Server)) {
        at += header.size;
        if header.tag == back::READY || !passes(header.tag) {
            return header.tag == back::READY && at == bytes.len();
        }
    }
    false
}

/// Nothing has to be looked into or kept of such a message.
pub(super) fn passes(tag: u8) -> bool {
    matches!(
        tag,
        back::ROW_DESCRIPTION
            | back::DATA_ROW
            | back::COMPLETE
            | back::EMPTY_QUERY
            | back::PARSE_COMPLETE
            | back::BIND_COMPLETE
            | back::NO_DATA
            | back::PARAMETER_DESCRIPTION
    )
}

/// The ErrorResponse behind what is cleared.
fn error_at_front(lease: &Leased, header: Header) -> ErrorFields<'_> {
    let filled = lease.server.input.filled();
    let at = lease.down.pass;
    ErrorFields::parse(&filled[at + 5..filled.len().min(at + header.size)])
}

/// Is the error at hand the last that is heard of this server or of the block that was to begin there?
fn last_words(lease: &Leased, header: Header) -> Result<(), Lost> {
    let fields = error_at_front(lease, header);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if fields.is_fatal() {
        return Err(Lost::Said(text(fields.message)));
    }
    if lease.server.expected.begins() {
        return Err(Lost::NotBegun { code: text(fields.code), message: text(fields.message) });
    }
    Ok(())
}

/// What we believe of a server's statements is not so, or a plan's columns have changed (SESSIONS R3). The second is told by the routine that
/// raises it, since messages are translated.
pub(super) fn is_stale(fields: &ErrorFields<'_>) -> bool {
    match fields.code {
        b"26000" => contains(fields.message, b"pgherd_"),
        b"0A000" => fields.routine == b"RevalidateCachedQuery",
        _ => false,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Kinds whose bodies are read here.
fn looked_into(lease: &Leased, tag: u8) -> bool {
    match tag {
        back::READY | back::ERROR | back::PARAMETER_STATUS => true,
        back::COMPLETE => lease.may_have_forgotten(),
        _ => false,
    }
}
