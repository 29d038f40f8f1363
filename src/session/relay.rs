//! A session and its leased primary, both directions at once (SESSIONS R17): the only stall allowed is that a client that does
//! not read is not read. Must not decide where a statement goes.

use std::task::{Context, Poll};

use crate::backend::Lost;
use crate::wire::Fault;

use super::Session;
use super::downstream::Broken;
use super::lease::Leased;
use super::upstream::{ENOUGH, Taken};

/// Why a relay ended.
#[derive(Debug)]
pub(super) enum RelayEnd {
    /// Everything is answered and no transaction is open.
    Rest,
    /// The client said goodbye, vanished, or does not read any more.
    Gone,
    /// The client broke the protocol.
    Fault(Fault),
    /// The server is lost.
    Lost(Lost),
    /// pgherd stops.
    Stopped,
}

impl Session {
    /// Relays until everything is answered outside a transaction, or a side is lost. Cancel safe: all state is in the
    /// session and the lease.
    pub(super) async fn relay(&mut self, lease: &mut Leased) -> RelayEnd {
        // Until something of the client's was taken the lease is not at its end, however quiet it is.
        let mut begun = !lease.server.expected.is_empty();
        std::future::poll_fn(|cx| self.poll_relay(lease, &mut begun, cx)).await
    }

    fn poll_relay(&mut self, lease: &mut Leased, begun: &mut bool, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        self.control.register(cx);
        if self.control.take_cancel() {
            self.send_cancel(&lease.server);
        }
        if self.control.stopping_now() {
            return Poll::Ready(RelayEnd::Stopped);
        }
        if self.is_fenced(lease) {
            return self.drain_replies(lease, cx, Lost::Fenced);
        }
        loop {
            let before = self.client.input.len();
            let taken = match self.take_messages(lease) {
                Ok(taken) => taken,
                Err(fault) => return Poll::Ready(RelayEnd::Fault(fault)),
            };
            *begun |= self.client.input.len() < before || lease.up.pass > 0;
            let crowded = lease.server.output.len() >= ENOUGH;
            let wrote = match self.poll_requests(lease, cx) {
                Ok(wrote) => wrote,
                Err(lost) => return self.drain_replies(lease, cx, lost),
            };
            match self.poll_replies(lease, cx) {
                Poll::Ready(Broken::Client) => return Poll::Ready(RelayEnd::Gone),
                Poll::Ready(Broken::Server(lost)) => return Poll::Ready(RelayEnd::Lost(lost)),
                Poll::Pending => {}
            }
            let answered = lease.server.expected.is_empty() && lease.quiet() && self.client.output.is_empty();
            if taken == Taken::Terminate && (answered || lease.server.expected.in_series()) {
                return Poll::Ready(RelayEnd::Gone);
            }
            if *begun && self.resting(lease) {
                return Poll::Ready(if self.control.stopping() { RelayEnd::Stopped } else { RelayEnd::Rest });
            }
            let settled = lease.server.expected.is_empty() && lease.quiet() && self.client.output.is_empty();
            let waited = match taken {
                Taken::Wait => settled,
                Taken::Undecided => lease.decided() && !lease.names_unknown() && !self.unnamed_unknown(lease),
                Taken::Enough | Taken::Terminate => false,
            };
            if wrote || waited || (crowded && lease.server.flushed()) {
                continue;
            }
            match self.poll_more(lease, cx, taken) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => {
                    self.show_relay(lease);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Nothing is owed or on its way, and no transaction is open. A server that has answered already, as it does when a COPY fails, is still
    /// to get the rest of a message that it has the beginning of.
    fn resting(&self, lease: &Leased) -> bool {
        let sent = lease.up.pass == 0 && lease.up.left == 0;
        lease.server.at_rest() && lease.quiet() && sent && self.client.output.is_empty()
    }

    /// Writes what is cleared for the server. True: something was written, so more messages may be taken.
    fn poll_requests(&mut self, lease: &mut Leased, cx: &mut Context<'_>) -> Result<bool, Lost> {
        let mut wrote = false;
        if !lease.server.flushed() {
            match lease.server.poll_flush(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(false),
            }
        }
        while lease.up.pass > 0 {
            let bytes = &self.client.input.filled()[..lease.up.pass];
            match lease.server.stream.poll_write(cx, bytes) {
                Poll::Ready(count) => {
                    let count = count?;
                    self.client.input.consume(count);
                    lease.up.pass -= count;
                    wrote = true;
                }
                Poll::Pending => break,
            }
        }
        if wrote && let Poll::Ready(result) = lease.server.stream.poll_flush(cx) {
            result?;
        }
        Ok(wrote && lease.up.pass == 0)
    }

    /// The server takes no more; what it said before it went (why, most often) is still the client's.
    fn drain_replies(&mut self, lease: &mut Leased, cx: &mut Context<'_>, lost: Lost) -> Poll<RelayEnd> {
        match self.poll_replies(lease, cx) {
            Poll::Ready(Broken::Client) => Poll::Ready(RelayEnd::Gone),
            // What is cleared for the client was taken off the queue of what it is owed.
            Poll::Pending if lease.down.pass > 0 => Poll::Pending,
            Poll::Ready(Broken::Server(_)) | Poll::Pending => Poll::Ready(RelayEnd::Lost(lost)),
        }
    }

    /// Reads more of the client, as long as what came before is on its way.
    fn poll_more(&mut self, lease: &Leased, cx: &mut Context<'_>, taken: Taken) -> Poll<Result<(), RelayEnd>> {
        // A client that does not take its answers is not asked for more.
        let blocked = lease.up.pass > 0 || taken != Taken::Enough || self.client.input.is_full();
        if blocked || !lease.server.flushed() || self.client.output.len() > ENOUGH {
            return Poll::Pending;
        }
        let buffers = &self.context.hub.buffers;
        match self.client.poll_fill(cx, buffers) {
            Poll::Ready(Ok(count)) if count > 0 => {
                if lease.server.expected.is_empty() {
                    self.begins();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(Err(RelayEnd::Gone)),
            Poll::Pending => Poll::Pending,
        }
    }
}
