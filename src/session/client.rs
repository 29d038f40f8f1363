//! The client's socket and the bytes in both directions. Must not know what they mean beyond frame headers.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::task::coop::has_budget_remaining;

use crate::net::Stream;
use crate::support::buffer::{Buffer, BufferPool};
use crate::wire::{self, Fault, Header, Side};

/// Memory for messages made here that a session keeps: enough for the answers that it gives again and again (to BEGIN, to Sync), not for
/// a greeting.
const KEPT: usize = 256;

/// The client's end of a session.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    /// Bytes from the client that were not dealt with.
    pub(super) input: Buffer,
    /// Messages made here that were not written yet; they go before anything of a server.
    pub(super) output: Vec<u8>,
    written: usize,
    /// The session is woken when there is something to read.
    awaited: bool,
    /// What it is woken by.
    #[cfg(debug_assertions)]
    waker: Option<std::task::Waker>,
}

impl Client {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: Buffer::none(),
            output: Vec::new(),
            written: 0,
            awaited: false,
            #[cfg(debug_assertions)]
            waker: None,
        }
    }

    /// The header at the front of the input; `None` while it is incomplete.
    pub(super) fn header(&self) -> Result<Option<Header>, Fault> {
        wire::peek(self.input.filled(), Side::Client)
    }

    /// Writes what was made here. Cancel safe: what was written is forgotten as it goes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let count = ready!(self.stream.poll_write(cx, &self.output[self.written..]))?;
            self.written += count;
        }
        self.written = 0;
        if self.output.capacity() > KEPT {
            self.output = Vec::new();
        }
        self.output.clear();
        self.stream.poll_flush(cx)
    }

    /// Reads what is there; an empty buffer is lent memory only once there is something. Ready(0) is the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, buffers: &BufferPool) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_more(cx, buffers))?;
        if self.input.is_full() {
            // Bulk data: fewer system calls from here on.
            buffers.enlarge(&mut self.input);
        }
        Poll::Ready(Ok(count))
    }

    /// The same into the memory that it has, for who waits: a buffer that is full is left as it is. Always asked by one and the same task.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>, buffers: &BufferPool) -> Poll<io::Result<usize>> {
        #[cfg(debug_assertions)]
        assert!(self.waker.get_or_insert_with(|| cx.waker().clone()).will_wake(cx.waker()), "one task");
        if self.stream.is_dry() {
            // A task that has used up its turn is not told whether it is woken by the socket or only for its next turn.
            let certain = has_budget_remaining();
            if self.awaited || self.stream.poll_read_ready(cx)?.is_pending() {
                self.awaited |= certain;
                self.rest(buffers);
                return Poll::Pending;
            }
        }
        self.awaited = false;
        buffers.lend(&mut self.input);
        let count = match self.stream.poll_read(cx, self.input.spare()) {
            Poll::Ready(count) => count?,
            Poll::Pending => {
                self.rest(buffers);
                return Poll::Pending;
            }
        };
        self.input.commit(count);
        Poll::Ready(Ok(count))
    }

    /// Takes over bytes that came behind the login.
    pub(super) fn preload(&mut self, early: &[u8], buffers: &BufferPool) {
        buffers.lend(&mut self.input);
        if early.len() > self.input.capacity() {
            buffers.enlarge(&mut self.input);
        }
        self.input.spare()[..early.len()].copy_from_slice(early);
        self.input.commit(early.len());
    }

    /// Puts bytes that were taken back in front of the input. False: there is no room for them.
    pub(super) fn put_back(&mut self, bytes: &[u8], buffers: &BufferPool) -> bool {
        buffers.lend(&mut self.input);
        while !self.input.put_back(bytes) {
            if !buffers.enlarge(&mut self.input) {
                return false;
            }
        }
        true
    }

    /// Nothing more of it will be read.
    pub(super) fn forget_input(&mut self, buffers: &BufferPool) {
        self.input.consume(self.input.len());
        buffers.take_back(&mut self.input);
    }

    /// Gives the memory of an empty buffer back.
    pub(super) fn rest(&mut self, buffers: &BufferPool) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            buffers.take_back(&mut self.input);
        }
    }
}
