//! One connection to a server: its bytes in both directions, what it owes, and what it was told. Owned by the session that
//! leases it, else by its pool. Must not know what a client wants.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use crate::cluster::{Epoch, NodeId};
use crate::net::{DetachedStream, Stream};
use crate::support::buffer::{Buffer, BufferPool, LARGE};
use crate::support::clock::Instant;
use crate::wire::{self, CancelKey, ErrorFields, Header, Reader, Side, TxStatus, back, front};

use super::carried::Carried;
use super::expect::{Expect, Expected, Fate, Undo};
use super::reported::{Interner, Reported};
use super::shared::Permit;
use super::statements::Statements;

/// Why a server connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The socket failed.
    #[error("connection to the server was lost: {0}")]
    Io(#[from] io::Error),
    /// The server closed it.
    #[error("server closed the connection unexpectedly")]
    Closed,
    /// It broke the protocol.
    #[error("server broke the protocol: {0}")]
    Protocol(String),
    /// It said goodbye, and why.
    #[error("{0}")]
    Said(String),
    /// It refused the BEGIN that a block was to begin with: nothing of the block has run.
    #[error("{message}")]
    NotBegun {
        /// SQLSTATE.
        code: String,
        /// Its text.
        message: String,
    },
    /// It did not answer in time.
    #[error("server did not answer in time")]
    Timeout,
    /// Another server takes its place, and nothing that it still says counts (HA H8).
    #[error("another server takes its place")]
    Fenced,
}

/// What belongs to one server connection for as long as it lives, wherever it is.
#[derive(Debug)]
pub struct Identity {
    /// Unique in this process.
    pub id: u64,
    /// The node.
    pub node: NodeId,
    /// The view's epoch when it was opened.
    pub epoch: Epoch,
    /// What a CancelRequest must say.
    pub key: CancelKey,
    /// When it was opened.
    pub opened: Instant,
    /// Its place in the limits of pool and node.
    pub permit: Permit,
}

/// What the last session left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leftovers {
    /// The session that used it last; 0 for none.
    pub session: u64,
    /// The session that `currval` and `lastval` would answer for; 0 for none (SESSIONS R4). Who takes none has no part in it.
    pub sequences: u64,
    /// State that text does not show may be there: clean before another session gets it (SESSIONS R1).
    pub dirty: bool,
}

impl Leftovers {
    /// `currval` and `lastval` would answer with values that are not all those of the session that has it.
    pub fn has_foreign_sequences(&self) -> bool {
        self.sequences != 0 && self.sequences != self.session
    }
}

/// One connection to a server.
#[derive(Debug)]
pub struct Server {
    /// The socket.
    pub stream: Stream,
    /// Bytes from the server that were not dealt with.
    pub input: Buffer,
    /// Bytes for the server that were not written.
    pub output: Vec<u8>,
    written: usize,
    /// Replies that it owes.
    pub expected: Expected,
    /// State of its transaction, from its last ReadyForQuery.
    pub status: TxStatus,
    /// Settings that it has beside its login's own.
    pub applied: Rc<Carried>,
    /// Parameters that it reported.
    pub reported: Rc<Reported>,
    /// Prepared statements that it holds.
    pub statements: Statements,
    /// Stands for the unnamed statement that it holds; 0 for none or unknown.
    pub unnamed: u64,
    /// What the last session left.
    pub leftovers: Leftovers,
    /// CancelRequests under way for it; it must not be handed on before they are done (SESSIONS R18).
    pub cancels: Rc<Cell<u32>>,
    /// What it is.
    pub identity: Identity,
    /// When it was last given back.
    pub idle_since: Instant,
    /// This thread's reports.
    pub interner: Rc<Interner>,
}

/// The answer to a query that pgherd itself asked.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Values of all rows, in text form.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// SQLSTATE and text of the first error.
    pub error: Option<(String, String)>,
    /// NotificationResponses that came meanwhile, as whole messages: they are the session's if the connection is its own.
    pub notifications: Vec<u8>,
}

/// Rows that an internal query may return: they are bounded by their texts, this guards against surprises.
const MOST_ROWS: usize = 10_000;

impl Server {
    /// A server connection whose login has just ended.
    pub fn new(stream: Stream, identity: Identity, interner: Rc<Interner>, most_statements: u32) -> Self {
        let opened = identity.opened;
        Self {
            stream,
            input: Buffer::none(),
            output: Vec::new(),
            written: 0,
            expected: Expected::default(),
            status: TxStatus::Idle,
            applied: Carried::none(),
            reported: Rc::default(),
            statements: Statements::new(most_statements),
            unnamed: 0,
            leftovers: Leftovers { session: 0, sequences: 0, dirty: false },
            cancels: Rc::default(),
            identity,
            idle_since: opened,
            interner,
        }
    }

    /// Takes a report of a parameter over.
    pub fn report(&mut self, name: &str, value: &[u8]) {
        let mut reported = (*self.reported).clone();
        if reported.set(name, value) {
            self.reported = self.interner.intern(reported);
        }
    }

    /// From now on its reports are shared with `interner`'s thread.
    pub fn adopt_interner(&mut self, interner: Rc<Interner>) {
        self.reported = interner.intern((*self.reported).clone());
        self.interner = interner;
    }

    /// Writes what is queued. Cancel safe: what was written is forgotten as it goes.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let count = ready!(self.stream.poll_write(cx, &self.output[self.written..]))?;
            self.written += count;
        }
        self.output.clear();
        self.written = 0;
        self.stream.poll_flush(cx)
    }

    /// Nothing waits to be written.
    pub fn flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Reads what is there into the input buffer, which must have room; who waits holds none. Ready(0) is the end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, buffers: &BufferPool) -> Poll<io::Result<usize>> {
        if self.stream.is_dry() && self.stream.poll_read_ready(cx)?.is_pending() {
            self.rest(buffers);
            return Poll::Pending;
        }
        buffers.lend(&mut self.input);
        let Poll::Ready(count) = self.stream.poll_read(cx, self.input.spare())? else {
            self.rest(buffers);
            return Poll::Pending;
        };
        self.input.commit(count);
        if self.input.is_full() {
            // Bulk data: fewer system calls from here on.
            buffers.enlarge(&mut self.input);
        }
        Poll::Ready(Ok(count))
    }

    /// The header at the front of the input; `None` while it is incomplete.
    ///
    /// # Errors
    /// A tag or length that no server may send.
    pub fn header(&self) -> Result<Option<Header>, Lost> {
        self.header_at(0)
    }

    /// The header `at` bytes behind the front of the input.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    pub fn header_at(&self, at: usize) -> Result<Option<Header>, Lost> {
        wire::peek(&self.input.filled()[at..], Side::Server).map_err(|fault| Lost::Protocol(fault.to_string()))
    }

    /// Accounts for the frame at the front of the input. Its body may be incomplete only for kinds that are never looked into.
    ///
    /// # Errors
    /// Nothing that was sent is answered by such a message.
    pub fn observe(&mut self, header: Header, undone: &mut Vec<Undo>) -> Result<Fate, Lost> {
        self.observe_at(0, header, undone)
    }

    /// As [`observe`](Self::observe) for the frame `at` bytes behind the front.
    ///
    /// # Errors
    /// Nothing that was sent is answered by such a message.
    pub fn observe_at(&mut self, at: usize, header: Header, undone: &mut Vec<Undo>) -> Result<Fate, Lost> {
        // Looked at before the queue is: if the message is malformed, its request is still owed an answer.
        let ready = match header.tag {
            back::READY => Some(self.ready_status(at, header)?),
            _ => None,
        };
        let begun = header.tag == back::COMPLETE && self.expected.begins();
        let fate = self.expected.on(header.tag, undone).map_err(|fault| Lost::Protocol(fault.to_string()))?;
        self.status = ready.unwrap_or(self.status);
        if begun {
            self.status = TxStatus::InBlock;
        }
        if header.tag == back::PARAMETER_STATUS {
            self.observe_parameter(at, header);
        }
        Ok(fate)
    }

    fn ready_status(&self, at: usize, header: Header) -> Result<TxStatus, Lost> {
        let byte = self.input.filled().get(at + 5).copied().filter(|_| header.body() == 1);
        byte.and_then(TxStatus::from_byte).ok_or_else(|| Lost::Protocol("malformed ReadyForQuery".to_owned()))
    }

    fn observe_parameter(&mut self, at: usize, header: Header) {
        let body = self.input.filled().get(at + 5..at + header.size).unwrap_or_default();
        let mut reader = Reader::new(body);
        if let (Some(name), Some(value)) = (reader.cstr(), reader.cstr())
            && let Ok(name) = std::str::from_utf8(name)
        {
            let (name, value) = (name.to_owned(), value.to_vec());
            self.report(&name, &value);
        }
    }

    /// Runs `text` for pgherd itself, with nothing else owed. Not cancel safe: dropped in the middle, the connection must be closed.
    ///
    /// # Errors
    /// The connection was lost; an error of the statement is in the outcome.
    pub async fn ask(&mut self, text: &[u8], buffers: &BufferPool) -> Result<Outcome, Lost> {
        wire::write::query(&mut self.output, text);
        self.expected.push(Expect::Query { hide: true });
        self.unnamed = 0;
        let mut outcome = Outcome::default();
        std::future::poll_fn(|cx| self.poll_ask(cx, buffers, &mut outcome)).await?;
        Ok(outcome)
    }

    fn poll_ask(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &BufferPool,
        outcome: &mut Outcome,
    ) -> Poll<Result<(), Lost>> {
        ready!(self.poll_flush(cx))?;
        loop {
            while let Some(header) = self.header()? {
                if self.input.len() < header.size {
                    if header.size > self.input.capacity() && !buffers.enlarge(&mut self.input) {
                        return Poll::Ready(Err(Lost::Protocol("answer too long".to_owned())));
                    }
                    break;
                }
                self.collect(header, outcome)?;
                self.input.consume(header.size);
                if self.expected.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            if ready!(self.poll_fill(cx, buffers))? == 0 {
                return Poll::Ready(Err(Lost::Closed));
            }
        }
    }

    fn collect(&mut self, header: Header, outcome: &mut Outcome) -> Result<(), Lost> {
        self.observe(header, &mut Vec::new())?;
        let body = &self.input.filled()[5..header.size];
        match header.tag {
            back::DATA_ROW if outcome.rows.len() < MOST_ROWS => outcome.rows.push(row(body)),
            back::ERROR if outcome.error.is_none() => {
                let fields = ErrorFields::parse(body);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                outcome.error = Some((text(fields.code), text(fields.message)));
            }
            back::NOTIFICATION => outcome.notifications.extend_from_slice(&self.input.filled()[..header.size]),
            _ => {}
        }
        Ok(())
    }

    /// Ends what a client has left open in the protocol: copy data without an end, a series without its Sync.
    pub fn end_messages(&mut self) {
        if self.expected.copy_in() && !self.expected.copy_ended() {
            wire::write::frame(&mut self.output, front::COPY_FAIL, |out| wire::write::cstr(out, b"client is gone"));
            self.expected.push(Expect::CopyEnd);
        }
        if self.expected.in_series() {
            wire::write::empty(&mut self.output, front::SYNC);
            self.expected.push(Expect::Sync);
        }
    }

    /// Reads and drops everything that is still owed. `undone` receives what a failed series did not do. Not cancel safe: dropped in the middle, the connection must be closed.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn drain(&mut self, buffers: &BufferPool, undone: &mut Vec<Undo>) -> Result<(), Lost> {
        std::future::poll_fn(|cx| self.poll_drain(cx, buffers, undone)).await
    }

    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &BufferPool,
        undone: &mut Vec<Undo>,
    ) -> Poll<Result<(), Lost>> {
        loop {
            while let Some(header) = self.header()? {
                if self.input.len() < header.size && (header.size <= LARGE || !self.input.is_full()) {
                    let full = self.input.is_full();
                    if full && !buffers.enlarge(&mut self.input) {
                        return Poll::Ready(Err(Lost::Protocol("a message that is too long to drop".to_owned())));
                    }
                    break;
                }
                if self.input.len() < header.size {
                    return Poll::Ready(Err(Lost::Protocol("a message that is too long to drop".to_owned())));
                }
                self.observe(header, undone)?;
                self.input.consume(header.size);
                if matches!(header.tag, back::COPY_IN | back::COPY_BOTH) {
                    // Nobody is there to send the data.
                    self.end_messages();
                }
            }
            while self.expected.pop_made().is_some() {}
            if !self.flushed()
                && let Poll::Ready(result) = self.poll_flush(cx)
            {
                result?;
            }
            if self.expected.is_empty() && self.flushed() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill(cx, buffers))? == 0 {
                return Poll::Ready(Err(Lost::Closed));
            }
        }
    }

    /// Reads what came while it was idle. Returns false if it is of no more use: closed, or in an unexpected state.
    pub fn alive(&mut self, buffers: &BufferPool) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        while !self.stream.is_silent(&mut cx) {
            match self.poll_fill(&mut cx, buffers) {
                Poll::Pending => return self.input.is_empty() && self.shelve(buffers),
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return false,
            }
            if !self.take_asynchronous() {
                return false;
            }
        }
        self.input.is_empty()
    }

    /// Deals with messages that a server may send at any moment. An error on an idle connection announces its end.
    fn take_asynchronous(&mut self) -> bool {
        while let Ok(Some(header)) = self.header() {
            let harmless = matches!(header.tag, back::NOTICE | back::NOTIFICATION | back::PARAMETER_STATUS);
            if !harmless || self.input.len() < header.size {
                return false;
            }
            if self.observe(header, &mut Vec::new()).is_err() {
                return false;
            }
            self.input.consume(header.size);
        }
        self.input.is_empty()
    }

    fn shelve(&mut self, buffers: &BufferPool) -> bool {
        buffers.take_back(&mut self.input);
        true
    }

    /// Nothing is owed, nothing waits in either direction, no transaction is open.
    pub fn at_rest(&self) -> bool {
        self.expected.is_empty() && self.output.is_empty() && self.input.is_empty() && self.status == TxStatus::Idle
    }

    /// Gives the memory back that holds nothing.
    pub fn rest(&mut self, buffers: &BufferPool) {
        if self.input.is_empty() {
            buffers.take_back(&mut self.input);
        }
        if self.output.is_empty() && self.output.capacity() > 4096 {
            self.output = Vec::new();
        }
    }

    /// Says goodbye as far as the socket takes it at once, and closes.
    pub fn close(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        if self.output.is_empty() {
            let _ = self.stream.poll_write(&mut cx, &[b'X', 0, 0, 0, 4]);
            let _ = self.stream.poll_flush(&mut cx);
        }
        self.stream.close();
    }

    /// Leaves this thread. The connection must be at rest.
    ///
    /// # Errors
    /// The socket cannot be taken from this thread's runtime; the connection is gone.
    pub fn detach(self) -> io::Result<DetachedServer> {
        Ok(DetachedServer {
            stream: self.stream.detach()?,
            applied: (*self.applied).clone(),
            reported: (*self.reported).clone(),
            statements: self.statements,
            leftovers: self.leftovers,
            identity: self.identity,
            idle_since: self.idle_since,
        })
    }
}

/// A server connection between two threads.
#[derive(Debug)]
pub struct DetachedServer {
    stream: DetachedStream,
    applied: Carried,
    reported: Reported,
    statements: Statements,
    leftovers: Leftovers,
    identity: Identity,
    idle_since: Instant,
}

impl DetachedServer {
    /// Arrives at a thread.
    ///
    /// # Errors
    /// This thread's runtime does not take the socket; the connection is gone.
    pub fn attach(self, interner: Rc<Interner>) -> io::Result<Server> {
        let mut server = Server::new(self.stream.attach()?, self.identity, interner, 1);
        server.applied = Rc::new(self.applied);
        server.reported = server.interner.intern(self.reported);
        server.statements = self.statements;
        server.leftovers = self.leftovers;
        server.idle_since = self.idle_since;
        Ok(server)
    }
}

fn row(body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut reader = Reader::new(body);
    let count = reader.i16().unwrap_or(0);
    let mut values = Vec::new();
    for _ in 0..count {
        let Some(length) = reader.i32() else { break };
        values.push(usize::try_from(length).ok().and_then(|length| reader.bytes(length)).map(<[u8]>::to_vec));
    }
    values
}
