//! Reaching a server: names resolved anew each time if they can be, all addresses under one deadline, then TLS as its mode asks. The
//! error says which of several very different things went wrong. Must not log in; that is `backend`'s part.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls_pki_types::ServerName;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::{ClientTls, SocketOptions, SslMode, Stream};
use crate::support::clock;

/// How long a name that was resolved before may take.
const PATIENCE: Duration = Duration::from_millis(200);
/// SSLRequest: its length (8) and code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A name or address, and a port.
    Tcp {
        /// Resolved at each dial; while it cannot be, the last known addresses hold.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// The Unix socket `.s.PGSQL.<port>` in a directory.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// Part of the socket's name.
        port: u16,
    },
}

impl Endpoint {
    /// libpq's reading of host: one that begins with `/` is the directory of a Unix socket.
    pub fn new(host: &str, port: u16) -> Self {
        if host.starts_with('/') {
            Self::Unix { directory: host.into(), port }
        } else {
            Self::Tcp { host: host.to_owned(), port }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

/// All that a dial needs to know.
#[derive(Debug, Clone)]
pub struct DialTarget {
    /// Where to.
    pub endpoint: Endpoint,
    /// For everything together: names, every address, the TLS handshake.
    pub timeout: Duration,
    /// How much TLS. Without meaning on Unix sockets, as in libpq.
    pub tls: Arc<ClientTls>,
    /// Set on the new socket.
    pub options: SocketOptions,
    /// What the name stood for when somebody last knew.
    pub known: Known,
}

/// The addresses that a name had last: a name server that fails takes no server with it.
#[derive(Debug, Clone)]
pub struct Known {
    addresses: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// Who may ask. One at a time: a name server that is silent keeps one thread of ours for as long as the system waits for it, not one
    /// for each dial.
    turn: Arc<Semaphore>,
}

impl Default for Known {
    fn default() -> Self {
        Self { addresses: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl DialTarget {
    /// Where the server is now. Who has resolved the name before waits [`PATIENCE`] for the answer, and does with the old one then.
    ///
    /// # Errors
    /// The name was never resolved, and cannot be by the deadline.
    pub(super) async fn addresses(&self, deadline: Instant) -> Result<Vec<SocketAddr>, (DialFault, String)> {
        let Endpoint::Tcp { host, port } = &self.endpoint else { return Ok(Vec::new()) };
        // Brackets are how people write IPv6 addresses next to ports.
        let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![(address, *port).into()]);
        }
        let old = self.known.addresses.load_full();
        let deadline = if old.is_empty() { deadline } else { deadline.min(clock::now() + PATIENCE) };
        let fault = match timeout_at(deadline.into(), self.known.resolve(name, *port, &old)).await {
            Ok(Ok(found)) if !found.is_empty() || old.is_empty() => return Ok(found),
            Ok(Ok(_)) => (DialFault::Name, "cannot resolve the name".to_owned()),
            Ok(Err(error)) => (DialFault::Name, format!("cannot resolve the name: {error}")),
            Err(_) => (DialFault::TimedOut, "timed out while resolving the name".to_owned()),
        };
        if old.is_empty() { Err(fault) } else { Ok((*old).clone()) }
    }
}

impl Known {
    /// Asks for the addresses of `name`, or waits for what another dial is told. Cancel safe: an answer that comes too late counts for the
    /// next dial.
    async fn resolve(&self, name: &str, port: u16, old: &Arc<Vec<SocketAddr>>) -> io::Result<Vec<SocketAddr>> {
        let turn = self.turn.clone().acquire_owned().await.map_err(io::Error::other)?;
        let now = self.addresses.load_full();
        if !Arc::ptr_eq(&now, old) {
            return Ok((*now).clone());
        }
        let (name, known) = (name.to_owned(), self.addresses.clone());
        // A task of its own, which keeps its turn until the system has answered.
        let asked = tokio::spawn(async move {
            let found: Vec<SocketAddr> = lookup_host((name, port)).await?.collect();
            if !found.is_empty() {
                known.store(Arc::new(found.clone()));
            }
            drop(turn);
            io::Result::Ok(found)
        });
        asked.await.map_err(io::Error::other)?
    }
}

/// Connects to a Unix socket, for who may block. A listener that takes nobody is given up after `limit`.
///
/// # Errors
/// What the system says.
pub fn connect_unix(path: &Path, limit: Duration) -> io::Result<std::os::unix::net::UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The kernel holds connect(2) to it, too.
    socket.set_write_timeout(Some(limit))?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        done => done.map(|()| socket.into()),
    }
}

/// What kept a dial from succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialFault {
    /// The name has no address, or nobody could be asked.
    Name,
    /// The host is there and nobody listens.
    Refused,
    /// The network knows no way.
    Unreachable,
    /// No answer before the deadline.
    TimedOut,
    /// The server will not do TLS, the handshake failed, or its certificate is not good enough.
    Tls,
    /// Anything else the operating system says (out of sockets, no permission, connection cut).
    Other,
}

/// A dial that failed. The text names the server and what failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot connect to {endpoint}: {reason}")]
pub struct DialError {
    /// To whom.
    pub endpoint: Endpoint,
    /// The kind of failure.
    pub fault: DialFault,
    /// In words.
    pub reason: String,
}

/// A failure before the endpoint's name is put to it.
struct Failure(DialFault, String);

impl Failure {
    fn of_io(context: impl fmt::Display, error: &io::Error) -> Self {
        let fault = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => DialFault::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                DialFault::Unreachable
            }
            io::ErrorKind::TimedOut => DialFault::TimedOut,
            _ => DialFault::Other,
        };
        Self(fault, format!("{context}: {error}"))
    }

    fn late(what: impl fmt::Display) -> Self {
        Self(DialFault::TimedOut, format!("timed out {what}"))
    }
}

/// Connects to a server. Dropping the future closes whatever was half done.
pub async fn dial(target: &DialTarget) -> Result<Stream, DialError> {
    let deadline = clock::now() + target.timeout;
    let done = match &target.endpoint {
        Endpoint::Unix { directory, port } => dial_unix(directory.join(format!(".s.PGSQL.{port}")), deadline).await,
        Endpoint::Tcp { host, .. } => dial_tcp(host, target, deadline).await,
    };
    done.map_err(|Failure(fault, reason)| DialError { endpoint: target.endpoint.clone(), fault, reason })
}

async fn dial_unix(path: PathBuf, deadline: Instant) -> Result<Stream, Failure> {
    match timeout_at(deadline.into(), UnixStream::connect(path)).await {
        Err(_) => Err(Failure::late("while connecting")),
        Ok(Err(error)) => Err(Failure::of_io("socket", &error)),
        Ok(Ok(unix)) => Ok(unix.into()),
    }
}

async fn dial_tcp(host: &str, target: &DialTarget, deadline: Instant) -> Result<Stream, Failure> {
    let plain = connect_any(target, deadline).await?;
    prepare(&plain, &target.options)?;
    if target.tls.mode() == SslMode::Disable {
        return Ok(plain);
    }
    match negotiate(plain, host, &target.tls, deadline).await {
        // libpq: a server that offers TLS and then fails at it is tried again in plain text under `prefer`.
        Err(Failure(DialFault::Tls, _)) if target.tls.mode() == SslMode::Prefer => {
            let plain = connect_any(target, deadline).await?;
            prepare(&plain, &target.options)?;
            Ok(plain)
        }
        done => done,
    }
}

fn prepare(stream: &Stream, options: &SocketOptions) -> Result<(), Failure> {
    stream.set_options(options).map_err(|error| Failure::of_io("socket options", &error))
}

async fn connect_any(target: &DialTarget, deadline: Instant) -> Result<Stream, Failure> {
    let addresses = target.addresses(deadline).await.map_err(|(fault, reason)| Failure(fault, reason))?;
    let mut failure = Failure(DialFault::Name, "the name has no address".to_owned());
    for (index, address) in addresses.iter().enumerate() {
        // A dead address may use up its share of the time that is left, not all of it.
        let now = clock::now();
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = now + deadline.saturating_duration_since(now) / left;
        match timeout_at(share.into(), TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp.into()),
            Ok(Err(error)) => failure = Failure::of_io(address, &error),
            Err(_) => failure = Failure::late(format_args!("while connecting to {address}")),
        }
    }
    Err(failure)
}

async fn negotiate(mut plain: Stream, host: &str, tls: &ClientTls, deadline: Instant) -> Result<Stream, Failure> {
    let cut = |error| Failure::of_io("while asking for TLS", &error);
    let asked = async {
        plain.write_all(&SSL_REQUEST).await?;
        // One byte and no more: what came behind it in plain text would be an injection, and is left to fail as
        // part of the handshake.
        let mut answer = [0];
        match plain.read(&mut answer).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            _ => Ok(answer[0]),
        }
    };
    let answer = timeout_at(deadline.into(), asked).await.map_err(|_| Failure::late("while asking for TLS"))?;
    match answer.map_err(cut)? {
        b'S' => {}
        b'N' if tls.mode() == SslMode::Prefer => return Ok(plain),
        b'N' => return Err(Failure(DialFault::Tls, "the server does not offer TLS, and sslmode demands it".into())),
        // An ErrorResponse in plain text is nobody's word (CVE-2024-10977): its contents are not shown.
        b'E' => return Err(Failure(DialFault::Tls, "the server refused the SSLRequest with an error".into())),
        byte => return Err(Failure(DialFault::Tls, format!("unexpected answer {byte:#04x} to the SSLRequest"))),
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare)
        .map_err(|_| Failure(DialFault::Tls, format!("\"{host}\" is no name that a certificate can hold")))?;
    match timeout_at(deadline.into(), plain.connect_tls(tls, name)).await {
        Err(_) => Err(Failure::late("during the TLS handshake")),
        Ok(Err(error)) => Err(Failure(DialFault::Tls, format!("TLS: {error}"))),
        Ok(Ok(stream)) => Ok(stream),
    }
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
