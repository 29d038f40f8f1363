//! The connection of someone who is not logged in: what was read ahead, and the ways to send them away. Holds no
//! buffer before the first byte. Every refusal is logged here, once.

use std::future::poll_fn;
use std::io;
use std::mem::take;
use std::time::Duration;

use tokio::time::timeout;

use super::Turned;
use crate::net::{PeerAddr, Stream};
use crate::wire::write::{Severity, error};

/// Bytes asked of the socket at once.
const CHUNK: usize = 1024;
/// How long a refusal may take to be sent to someone who does not read.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection that is not logged in.
pub(super) struct Door {
    /// Absent while a TLS handshake holds it.
    stream: Option<Stream>,
    peer: PeerAddr,
    /// Read and not used yet.
    pub(super) buffer: Vec<u8>,
    /// A startup packet came: from here on the client is told why.
    pub(super) speaks: bool,
    /// For the log: user and database.
    pub(super) who: String,
}

impl Door {
    pub(super) fn new(stream: Stream, peer: PeerAddr) -> Self {
        Self { stream: Some(stream), peer, buffer: Vec::new(), speaks: false, who: String::new() }
    }

    pub(super) fn peer(&self) -> PeerAddr {
        self.peer
    }

    pub(super) fn stream(&mut self) -> Result<&mut Stream, Turned> {
        self.stream.as_mut().ok_or(Turned::Gone)
    }

    pub(super) fn take_stream(&mut self) -> Result<Stream, Turned> {
        self.stream.take().ok_or(Turned::Gone)
    }

    pub(super) fn put_stream(&mut self, stream: Stream) {
        self.stream = Some(stream);
    }

    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        take(&mut self.buffer)
    }

    /// Reads some more. The end, or an error, is somebody gone.
    pub(super) async fn read(&mut self) -> Result<(), Turned> {
        let Some(stream) = &mut self.stream else { return Err(Turned::Gone) };
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
            poll_fn(|cx| stream.poll_read_ready(cx)).await.map_err(|_| Turned::Gone)?;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK, 0);
        let read = stream.read(&mut self.buffer[length..]).await;
        self.buffer.truncate(length + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(self.gone("closed by the client")),
            Ok(_) => Ok(()),
            Err(error) => Err(self.gone(&error.to_string())),
        }
    }

    fn gone(&self, reason: &str) -> Turned {
        // psql goes away to ask for a password and comes again; load balancers never say a word.
        tracing::debug!(peer = %self.peer, who = self.who, reason, "client went away before it was logged in");
        Turned::Gone
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Turned> {
        let sent = self.stream()?.write_all(bytes).await;
        sent.map_err(|error| self.gone(&error.to_string()))
    }

    /// Says why and closes. No room or no time for them: not their fault.
    pub(super) async fn refuse(&mut self, sqlstate: &str, message: &str) -> Turned {
        self.tell(sqlstate, message, message).await;
        Turned::Refused
    }

    /// The client broke the protocol; it is told in these words.
    pub(super) async fn violation(&mut self, sqlstate: &str, message: &str) -> Turned {
        self.tell(sqlstate, message, message).await;
        Turned::Protocol
    }

    /// The client may not come in; the log learns more than the client.
    pub(super) async fn unauthorized(&mut self, sqlstate: &str, message: &str, detail: &str) -> Turned {
        self.tell(sqlstate, message, detail).await;
        Turned::Unauthorized
    }

    /// Bytes that are no startup packet at all: PostgreSQL closes without a word, and so does this.
    pub(super) fn garbage(&self, reason: &str) -> Turned {
        tracing::info!(peer = %self.peer, reason, "connection refused");
        Turned::Protocol
    }

    /// The time is over.
    pub(super) async fn time_out(&mut self) -> Turned {
        const MESSAGE: &str = "canceling authentication due to timeout";
        if self.speaks {
            self.tell("57014", MESSAGE, MESSAGE).await;
        } else {
            tracing::debug!(peer = %self.peer, "no startup packet in time");
        }
        Turned::TimedOut
    }

    async fn tell(&mut self, sqlstate: &str, message: &str, detail: &str) {
        tracing::warn!(event = "login_refused", peer = %self.peer, who = self.who, sqlstate, reason = detail, "connection refused");
        let Some(stream) = &mut self.stream else { return };
        let mut bytes = Vec::new();
        error(&mut bytes, Severity::Fatal, sqlstate, message, None);
        let farewell = async {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            // Bytes that were not read would turn the close into a reset, which may overtake the message.
            while stream.read(&mut [0; 512]).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}
