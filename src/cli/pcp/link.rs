//! One connection of pgherd's own client to an administration port: dial, login, requests in JSON. Must not print.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::net::{Endpoint, connect_unix};
use crate::pcp::admins::respond;
use crate::pcp::frame::{Frame, MOST_REPLY, push, push_texts, split, texts};
use crate::pcp::{OWN, Own, PROGRESS};

/// Longest wait for a connection, and for each step of the login.
const LOGIN: Duration = Duration::from_secs(10);

/// What may be read from and written to.
trait Wire: Read + Write {
    /// How long one read or write may take.
    fn patience(&self, limit: Duration) -> std::io::Result<()>;
}

impl Wire for TcpStream {
    fn patience(&self, limit: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

impl Wire for UnixStream {
    fn patience(&self, limit: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

/// A logged-in connection.
pub(super) struct Link {
    wire: Box<dyn Wire>,
    input: Vec<u8>,
}

/// Why a request failed, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

impl Link {
    /// Dials and logs in. A host that begins with `/` is the folder of a Unix socket.
    ///
    /// # Errors
    /// Nobody answers, or not as expected, or does not let `user` in.
    pub(super) fn open(host: &str, port: u16, user: &str, password: &str) -> Result<Self, Refused> {
        let place = Endpoint::new(host, port);
        let failed = |error: std::io::Error| Refused(format!("cannot connect to {place}: {error}"));
        let wire: Box<dyn Wire> = match &place {
            Endpoint::Unix { directory, port } => {
                Box::new(connect_unix(&directory.join(format!(".s.PGSQL.{port}")), LOGIN).map_err(failed)?)
            }
            Endpoint::Tcp { host, port } => Box::new(dial(host, *port).map_err(failed)?),
        };
        wire.patience(LOGIN).map_err(failed)?;
        let mut link = Self { wire, input: Vec::new() };
        link.send(b'M', b"")?;
        let challenge = link.next()?;
        let salt: [u8; 4] = match challenge {
            Frame { kind: b'm', body } => {
                body.try_into().map_err(|_| Refused(format!("{place} does not speak PCP")))?
            }
            other => return Err(refusal(&other)),
        };
        let mut answer = Vec::new();
        push_texts(&mut answer, b'R', &[user, &respond(user, password, salt)]);
        link.write(&answer)?;
        match link.next()? {
            Frame { kind: b'r', .. } => Ok(link),
            other => Err(refusal(&other)),
        }
    }

    /// Asks once. Each read may take up to `limit`; what comes before the answer goes to `progress`.
    ///
    /// # Errors
    /// It was refused, or failed, or the connection did.
    pub(super) fn ask(
        &mut self,
        own: &Own,
        limit: Duration,
        mut progress: impl FnMut(&Value),
    ) -> Result<Value, Refused> {
        let body = serde_json::to_vec(own).map_err(|error| Refused(error.to_string()))?;
        self.wire.patience(limit).map_err(|error| Refused(error.to_string()))?;
        self.send(OWN, &body)?;
        loop {
            let frame = self.next()?;
            let read = |body: &[u8]| {
                serde_json::from_slice(body).map_err(|error| Refused(format!("an answer that is none: {error}")))
            };
            match frame.kind {
                OWN => return read(&frame.body),
                PROGRESS => progress(&read(&frame.body)?),
                b'N' => {}
                _ => return Err(refusal(&frame)),
            }
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), Refused> {
        let mut bytes = Vec::new();
        push(&mut bytes, kind, body);
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.wire.write_all(bytes).map_err(|error| Refused(format!("the connection is lost: {error}")))
    }

    fn next(&mut self) -> Result<Frame, Refused> {
        loop {
            match split(&self.input, MOST_REPLY) {
                Ok(Some((frame, used))) => {
                    self.input.drain(..used);
                    return Ok(frame);
                }
                Ok(None) => {}
                Err(error) => return Err(Refused(format!("the other side does not speak PCP: {error}"))),
            }
            let mut bytes = [0; 16 * 1024];
            match self.wire.read(&mut bytes) {
                Ok(0) => return Err(Refused("the connection was closed without an answer".to_owned())),
                Ok(count) => self.input.extend(&bytes[..count]),
                // Stopped and continued by its terminal.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(Refused("no answer in time".to_owned()));
                }
                Err(error) => return Err(Refused(format!("the connection is lost: {error}"))),
            }
        }
    }
}

fn dial(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, LOGIN) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The message and detail of an error.
fn refusal(frame: &Frame) -> Refused {
    if frame.kind != b'E' {
        return Refused("the other side does not speak PCP".to_owned());
    }
    let field = |letter: u8| {
        texts(&frame.body).into_iter().find_map(|text| text.strip_prefix(&[letter])).map(String::from_utf8_lossy)
    };
    let message = field(b'M').unwrap_or_default();
    Refused(match field(b'D') {
        Some(detail) => format!("{message}: {detail}"),
        None => message.into_owned(),
    })
}
