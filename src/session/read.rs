//! A read, on a standby or on the primary: nothing of its answer reaches the client before it is certain that the server will have it, so
//! that until then it can run elsewhere instead (SESSIONS R11, R19). One request per lease (R12). An answer that fits into a small
//! buffer is passed on when it has ended, so that a server may even be lost in the middle of it.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::backend::{Expect, Lost};
use crate::cluster::{NodeId, Trouble};
use crate::support::buffer::SMALL;
use crate::support::clock::{Duration, now};
use crate::wire::{ErrorFields, back, sqlstate};

use super::block::Block;
use super::dispatch::{Got, Roams};
use super::downstream::{Broken, is_stale, passes};
use super::lease::{ASK, Leased, NoLease, SetupError};
use super::local::Refusal;
use super::prepared::{Prepared, Unnamed};
use super::survey::Survey;
use super::{End, Session, frames};

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// The client has its answer.
    Done,
    /// The primary must answer; the client has seen nothing.
    Primary,
    /// Another node may answer; the client has seen nothing.
    Elsewhere,
    /// The primary can answer, and this standby most probably in a moment; the client has seen nothing.
    Later,
}

/// Times that a read is run again on the primary after its connection was lost.
const RERUNS: u32 = 2;
/// A statement that ran for longer when its connection was terminated was meant by whoever did it, and is not run again.
const MEANT: Duration = Duration::from_millis(100);

/// What becomes of a read that is lost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resort {
    /// Another node may answer, and the primary has its say in each error.
    #[default]
    Standby,
    /// The primary is asked again.
    Primary,
    /// Nobody is asked again.
    Last,
}

impl Resort {
    /// Is a read that ran for `time` when its server was lost, before anything of its answer was passed on, run again?
    fn again(self, lost: &Lost, time: Duration) -> bool {
        match self {
            Self::Standby => true,
            Self::Primary => !matches!(lost, Lost::Said(_)) || time < MEANT,
            Self::Last => false,
        }
    }
}

/// What the beginning of the answer says.
#[derive(Debug)]
enum First {
    /// It is the client's.
    Answer,
    /// It is the client's, and all there; every message of it passes as it is.
    Whole,
    /// An error that the primary shall have a say in.
    Error(String),
    /// A prepared statement of ours is not there any more: to be parsed again.
    Stale,
    /// Its columns have changed: the same, for a client that asks for them with this request. Another one must hear of it, or it would take
    /// the new columns for the old ones.
    Reshaped,
    /// The connection is gone or says goodbye.
    Lost(Lost),
    /// The client is gone.
    Gone,
}

/// What the names in a request stood for before it.
struct Before {
    named: Vec<(Box<[u8]>, Option<Prepared>)>,
    unnamed: Option<Rc<Unnamed>>,
}

impl Session {
    /// Runs the complete request at the front of the input on a standby.
    pub(super) async fn read_on(&mut self, node: NodeId, survey: &Survey) -> Result<ReadEnd, End> {
        let server = match self.lease(node).await {
            Ok(server) => server,
            Err(NoLease::Gone) => return Err(End::Client),
            Err(NoLease::Unreachable(_)) => {
                self.report(node, Trouble::CannotConnect);
                return Ok(ReadEnd::Elsewhere);
            }
            Err(NoLease::Refused(refusal)) if refusal.code == sqlstate::QUERY_CANCELED || self.control.stopping() => {
                self.refuse(survey, &refusal);
                return Ok(ReadEnd::Done);
            }
            Err(NoLease::Refused(_)) => return Ok(ReadEnd::Later),
        };
        let mut server = server;
        let view = &self.context.global.cluster;
        if self.freshness.needs_newer_than(node, server.identity.opened, view) {
            // The standby may have restarted since its position was read, and begun again behind it.
            self.give_back(server);
            self.context.counters.kept.add(1);
            return Ok(ReadEnd::Later);
        }
        match self.prepare(&mut server).await {
            Ok(()) => {}
            Err(SetupError::Refused(_)) => {
                self.give_back(server);
                return Ok(ReadEnd::Primary);
            }
            Err(SetupError::Lost(_)) => {
                self.report(node, Trouble::ConnectionLost);
                self.lose(server);
                return Ok(ReadEnd::Elsewhere);
            }
        }
        self.has_server(node);
        let mut lease = Leased::new(server);
        lease.ways.masked = !matches!(self.block, Block::None);
        self.run_read(lease, survey).await
    }

    /// Runs a complete request that only reads, outside a block, on the primary; `roams` as for [`lease_primary`](Self::lease_primary).
    pub(super) async fn read_on_primary(&mut self, survey: &Survey, roams: Option<Roams<'_>>) -> Result<ReadEnd, End> {
        for left in (0..=RERUNS).rev() {
            let mut lease = match self.lease_primary_or_refuse(survey, roams).await? {
                Got::Primary(lease) => lease,
                Got::Elsewhere => return Ok(ReadEnd::Elsewhere),
                Got::Refused => break,
            };
            lease.ways.resort = if left == 0 { Resort::Last } else { Resort::Primary };
            if self.run_read(lease, survey).await? == ReadEnd::Done {
                break;
            }
        }
        Ok(ReadEnd::Done)
    }

    async fn run_read(&mut self, mut lease: Box<Leased>, survey: &Survey) -> Result<ReadEnd, End> {
        self.sends_read(&lease, survey);
        let before = self.queue_read(&mut lease, survey);
        // A clock is asked only where the answer may count.
        let sent = (lease.ways.resort == Resort::Primary).then(now);
        match std::future::poll_fn(|cx| self.poll_first(&mut lease, cx)).await {
            First::Answer => {}
            First::Whole => lease.down.whole = true,
            First::Error(_) if lease.ways.resort != Resort::Standby => {}
            First::Stale | First::Reshaped if lease.ways.resort == Resort::Last => {}
            First::Reshaped if !self.describes(survey) => {}
            First::Error(code) => {
                self.corrected = survey.single().map(|looked| Box::new((looked.facts.fingerprint, code)));
                Box::pin(self.hide_failure(lease, false)).await;
                self.restore(before);
                return Ok(ReadEnd::Primary);
            }
            First::Stale | First::Reshaped => {
                let end = if lease.ways.resort == Resort::Standby { ReadEnd::Primary } else { ReadEnd::Elsewhere };
                Box::pin(self.hide_failure(lease, true)).await;
                self.restore(before);
                return Ok(end);
            }
            First::Lost(lost) => {
                self.restore(before);
                if !matches!(lost, Lost::Fenced) {
                    self.report(lease.server.identity.node, Trouble::ConnectionLost);
                }
                if !lease.ways.resort.again(&lost, sent.map_or(Duration::ZERO, |sent| sent.elapsed())) {
                    self.client.input.consume(survey.size);
                    return self.lose_answer(*lease, survey, &lost);
                }
                self.context.counters.reruns.add(1);
                self.lose(lease.server);
                return Ok(ReadEnd::Elsewhere);
            }
            First::Gone => {
                super::reap::abandon(self, lease);
                return Err(End::Client);
            }
        }
        self.client.input.consume(survey.size);
        let end = std::future::poll_fn(|cx| self.poll_answer(&mut lease, cx)).await;
        self.after_read(lease, survey, end)
    }

    /// The request at the front of the input asks what columns there are.
    fn describes(&self, survey: &Survey) -> bool {
        frames::whole(&self.client.input.filled()[..survey.size]).any(|(header, _)| header.tag == b'D')
    }

    /// Queues the request, whose bytes stay in the input. Returns what its names stood for, to be restored if it runs again.
    fn queue_read(&mut self, lease: &mut Leased, survey: &Survey) -> Before {
        let input = std::mem::take(&mut self.client.input);
        let mut before = Before { named: Vec::new(), unnamed: self.unnamed() };
        if !survey.series {
            lease.server.output.extend_from_slice(&input.filled()[..survey.size]);
            lease.server.expected.push(Expect::Query { hide: false });
            self.drop_unnamed(lease);
            self.client.input = input;
            return before;
        }
        for (header, body) in frames::whole(&input.filled()[..survey.size]) {
            let name = match header.tag {
                b'P' => frames::parse(body).map(|parse| parse.name),
                b'C' => frames::target(body).map(|(_, name)| name),
                _ => None,
            };
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                before.named.push((name.into(), self.prepared_named(name).cloned()));
            }
            let taken = self.take_message(lease, header, body);
            debug_assert!(taken.is_none(), "a read is taken whole");
        }
        self.client.input = input;
        before
    }

    fn restore(&mut self, before: Before) {
        match (before.unnamed, self.prepared.as_deref_mut()) {
            (Some(unnamed), _) => self.prepared.get_or_insert_default().set_unnamed(Some(unnamed)),
            (None, Some(set)) => set.set_unnamed(None),
            (None, None) => {}
        }
        for (name, prepared) in before.named.into_iter().rev() {
            match prepared {
                Some(prepared) => self.define(&name, prepared),
                None => drop(self.undefine(&name)),
            }
        }
    }

    /// Waits until the beginning of the answer tells whose it is. Cancel safe.
    fn poll_first(&mut self, lease: &mut Leased, cx: &mut Context<'_>) -> Poll<First> {
        self.control.register(cx);
        if self.control.take_cancel() {
            self.send_cancel(&lease.server);
        }
        if self.control.stopping_now() {
            return Poll::Ready(First::Gone);
        }
        if self.is_fenced(lease) {
            return Poll::Ready(First::Lost(Lost::Fenced));
        }
        if !lease.server.flushed()
            && let Poll::Ready(Err(error)) = lease.server.poll_flush(cx)
        {
            return Poll::Ready(First::Lost(error.into()));
        }
        loop {
            let seen = match first(lease) {
                Ok(Seen::First(first)) => return Poll::Ready(first),
                Ok(seen) => seen,
                Err(lost) => return Poll::Ready(First::Lost(lost)),
            };
            let input = &mut lease.server.input;
            // No longer than a server itself keeps rows back: a slow query's first ones must not wait for a larger buffer.
            let begun = matches!(seen, Seen::Rows) && input.len() >= SMALL;
            if begun || (input.is_full() && !self.context.hub.buffers.enlarge(input)) {
                return Poll::Ready(First::Answer);
            }
            match lease.server.poll_fill(cx, &self.context.hub.buffers) {
                Poll::Ready(Ok(0)) => return Poll::Ready(First::Lost(Lost::Closed)),
                Poll::Ready(Err(error)) => return Poll::Ready(First::Lost(error.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        self.poll_client_end(cx).map(|()| First::Gone)
    }

    /// Ready when the client is gone. Reads ahead as far as there is room.
    fn poll_client_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.client.input.is_full() {
            match ready!(self.client.poll_fill(cx, &self.context.hub.buffers)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Relays the answer to its end.
    fn poll_answer(&mut self, lease: &mut Leased, cx: &mut Context<'_>) -> Poll<Option<Broken>> {
        self.control.register(cx);
        if self.control.take_cancel() {
            self.send_cancel(&lease.server);
        }
        if self.control.stopping_now() {
            // Also while the client does not read.
            return Poll::Ready(Some(Broken::Client));
        }
        if let Poll::Ready(broken) = self.poll_replies_until_rest(lease, cx) {
            return Poll::Ready(broken);
        }
        if !self.client.input.is_full() {
            return self.poll_client_end(cx).map(|()| Some(Broken::Client));
        }
        Poll::Pending
    }

    fn poll_replies_until_rest(&mut self, lease: &mut Leased, cx: &mut Context<'_>) -> Poll<Option<Broken>> {
        let rests = |session: &Self, lease: &Leased| {
            lease.server.at_rest() && lease.quiet() && session.client.output.is_empty()
        };
        // Most answers are there as a whole and go out at once.
        if !self.is_fenced(lease)
            && let Ok(true) = self.scan_whole(lease)
            && let Poll::Ready(Ok(_)) = self.poll_write_client(lease, cx)
            && rests(self, lease)
        {
            return Poll::Ready(None);
        }
        let polled = self.poll_replies(lease, cx);
        if rests(self, lease) {
            return Poll::Ready(None);
        }
        polled.map(Some)
    }

    fn after_read(&mut self, lease: Box<Leased>, survey: &Survey, end: Option<Broken>) -> Result<ReadEnd, End> {
        let node = lease.server.identity.node;
        let answered = lease.server.expected.is_empty() && lease.quiet() && self.client.output.is_empty();
        match end {
            // What a server says after its answer is nothing to the client; giving the connection back finds it lost.
            Some(Broken::Server(_)) | None if answered => {
                if lease.failed {
                    self.block.fail();
                }
                match lease.ways.resort {
                    Resort::Standby => {
                        if let Block::Deferred(deferred) = &mut self.block {
                            deferred.has_read = true;
                        }
                        self.freshness.read_on(node);
                        self.context.counters.reads_standby.add(1);
                    }
                    Resort::Primary | Resort::Last => self.answered_by_primary(lease.failed),
                }
                self.give_back(lease.server);
                Ok(ReadEnd::Done)
            }
            Some(Broken::Client) | None => {
                super::reap::abandon(self, lease);
                Err(End::Client)
            }
            Some(Broken::Server(lost)) => {
                if !matches!(lost, Lost::Fenced) {
                    self.report(node, Trouble::ConnectionLost);
                }
                self.lose_answer(*lease, survey, &lost)
            }
        }
    }

    /// What the primary answered without an error a standby was wrong to refuse (SESSIONS R11).
    fn answered_by_primary(&mut self, failed: bool) {
        self.context.counters.transactions.add(1);
        if let Some(corrected) = self.corrected.take().filter(|_| !failed) {
            self.context.remember(&self.who, corrected.0, &corrected.1);
        }
    }

    /// The server is lost in the middle of an answer that the client has begun to read.
    fn lose_answer(&mut self, lease: Leased, survey: &Survey, lost: &Lost) -> Result<ReadEnd, End> {
        if lease.down.left > 0 {
            return Err(End::Client);
        }
        self.lose(lease.server);
        let text = format!("the server was lost in the middle of the answer: {lost}");
        let gone = Survey { size: 0, complete: true, ..Survey::taken(survey.series) };
        self.refuse(&gone, &Refusal::new(sqlstate::SERIALIZATION_FAILURE, text));
        Ok(ReadEnd::Done)
    }

    /// An error that the client does not see: the request runs again. If it is for `stale` statements (SESSIONS R3), the connection
    /// gives them up.
    async fn hide_failure(&mut self, mut lease: Box<Leased>, stale: bool) {
        self.context.counters.retries.add(1);
        self.control.shown.retries.set(self.control.shown.retries.get().wrapping_add(1));
        let mut undone = Vec::new();
        let buffers = &self.context.hub.buffers;
        let server = &mut lease.server;
        let drained = tokio::time::timeout(ASK, async {
            server.drain(buffers, &mut undone).await?;
            if stale {
                server.statements.clear();
                server.ask(b"DEALLOCATE ALL", buffers).await?;
            }
            Ok::<_, Lost>(())
        })
        .await;
        // What the server did not parse it must not be thought to have.
        self.undo_all(&mut lease.server, undone);
        match drained {
            Ok(Ok(())) => self.give_back(lease.server),
            _ => self.lose(lease.server),
        }
    }
}

/// What has come of the answer.
#[derive(Debug)]
enum Seen {
    /// Nothing of weight yet.
    Nothing,
    /// Rows, and no end.
    Rows,
    /// Enough to tell.
    First(First),
}

/// Reads the answer as far as it has come, taking nothing.
fn first(lease: &Leased) -> Result<Seen, Lost> {
    let (mut at, mut rows, mut plain) = (0, false, true);
    while let Some(header) = lease.server.header_at(at)? {
        let filled = lease.server.input.filled();
        match header.tag {
            back::ERROR => {
                let Some(body) = filled.get(at + 5..at + header.size) else { break };
                return Ok(Seen::First(judge_error(&ErrorFields::parse(body))));
            }
            back::READY if plain && at + header.size == filled.len() => return Ok(Seen::First(First::Whole)),
            back::READY => return Ok(Seen::First(First::Answer)),
            back::PARSE_COMPLETE | back::BIND_COMPLETE | back::CLOSE_COMPLETE | back::NOTICE => {}
            back::PARAMETER_DESCRIPTION | back::ROW_DESCRIPTION | back::NO_DATA | back::PARAMETER_STATUS => {}
            _ => rows = true,
        }
        plain &= passes(header.tag);
        at += header.size;
        if at > filled.len() {
            break;
        }
    }
    Ok(if rows { Seen::Rows } else { Seen::Nothing })
}

/// SESSIONS R11: any error but a cancel and bad data is answered by the primary.
fn judge_error(fields: &ErrorFields<'_>) -> First {
    if fields.is_fatal() {
        return First::Lost(Lost::Said(String::from_utf8_lossy(fields.message).into_owned()));
    }
    if is_stale(fields) {
        return if fields.code == b"26000" { First::Stale } else { First::Reshaped };
    }
    if fields.code == sqlstate::QUERY_CANCELED.as_bytes() || fields.class() == b"22" {
        return First::Answer;
    }
    First::Error(String::from_utf8_lossy(fields.code).into_owned())
}
