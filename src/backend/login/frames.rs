//! Whole messages of a server during its login, when they are few and small. Must not be used afterwards: the data path
//! never waits for whole messages.

use std::sync::Arc;

use crate::net::Stream;
use crate::wire::{Side, peek};

use super::LoginError;

/// No message of a login is longer; libpq's own limit for errors at this stage is 30 000.
const LONGEST: usize = 64 * 1024;
/// Bytes asked of the socket at once.
const CHUNK: usize = 4096;

/// A server's connection with what was read ahead.
pub(super) struct Frames {
    stream: Stream,
    buffer: Vec<u8>,
    /// Bytes at the front that were given out already.
    used: usize,
}

impl Frames {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new(), used: 0 }
    }

    pub(super) fn channel_binding(&self) -> Option<Arc<[u8]>> {
        self.stream.channel_binding().map(Into::into)
    }

    /// Everything that was read has been given out.
    pub(super) fn is_empty(&self) -> bool {
        self.used == self.buffer.len()
    }

    /// The connection alone; nothing may be left over.
    pub(super) fn into_stream(self) -> Stream {
        debug_assert!(self.is_empty(), "bytes of the server would be lost");
        self.stream
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), LoginError> {
        self.stream.write_all(bytes).await.map_err(|error| LoginError::lost(&error))
    }

    /// The next whole message: its tag and body.
    pub(super) async fn next(&mut self) -> Result<(u8, &[u8]), LoginError> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let header = loop {
            let header = peek(&self.buffer, Side::Server).map_err(|fault| LoginError::protocol(fault.to_string()))?;
            if let Some(header) = header {
                if header.size > LONGEST {
                    let text = format!("message of {} bytes during the login", header.size);
                    return Err(LoginError::protocol(text));
                }
                if self.buffer.len() >= header.size {
                    break header;
                }
            }
            self.read().await?;
        };
        self.used = header.size;
        Ok((header.tag, &self.buffer[5..header.size]))
    }

    async fn read(&mut self) -> Result<(), LoginError> {
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK, 0);
        let read = self.stream.read(&mut self.buffer[length..]).await.map_err(|error| LoginError::lost(&error))?;
        self.buffer.truncate(length + read);
        match read {
            0 => Err(LoginError::lost(&std::io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}
