//! Listening sockets, TCP and Unix. Must not read from what is accepted. A Unix socket is removed again when its listener is dropped.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{PeerAddr, SocketOptions, Stream};

/// A socket on which clients arrive, and wait until somebody accepts them.
pub struct Listener {
    socket: Socket,
    address: PeerAddr,
    /// Removes the socket's file at the end.
    file: Option<SocketFile>,
}

/// Who accepts them, on the runtime where it was made.
pub struct Acceptor {
    socket: Accepting,
    _file: Option<SocketFile>,
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The file of a Unix socket and the lock beside it.
pub(super) struct SocketFile {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Under the lock still: nobody else can have made a new socket there.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

impl Acceptor {
    /// Waits for the next client. Cancel safe. Errors of one client (it went away again) are skipped; what is
    /// returned (out of file descriptors, …) needs a pause before the next call, or the loop spins.
    pub async fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        loop {
            let accepted = match &self.socket {
                Accepting::Tcp(tcp) => tcp.accept().await.map(|(tcp, peer)| (tcp.into(), PeerAddr::Ip(peer))),
                Accepting::Unix(unix) => unix.accept().await.map(|(unix, _)| (unix.into(), PeerAddr::Unix)),
            };
            match accepted {
                Err(error) if is_one_clients(&error) => {}
                accepted => return accepted,
            }
        }
    }
}

impl Listener {
    pub(super) fn new(socket: Socket, address: PeerAddr, file: Option<SocketFile>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address, file })
    }

    /// Begins to accept on this thread. Must be called inside its runtime.
    ///
    /// # Errors
    /// The runtime does not take the socket, which is closed then.
    pub fn attend(self) -> io::Result<Acceptor> {
        let socket = match self.address {
            PeerAddr::Ip(_) => Accepting::Tcp(TcpListener::from_std(self.socket.into())?),
            PeerAddr::Unix => Accepting::Unix(UnixListener::from_std(self.socket.into())?),
        };
        Ok(Acceptor { socket, _file: self.file })
    }

    /// Sets options of all connections to come: they have their listener's (Linux), which saves five system calls for each. Nothing on
    /// Unix sockets.
    ///
    /// # Errors
    /// The system refuses one.
    pub fn set_options(&self, options: &SocketOptions) -> io::Result<()> {
        match self.address {
            PeerAddr::Ip(_) => options.apply(&self.socket),
            PeerAddr::Unix => Ok(()),
        }
    }

    /// Where it listens: the bound address (with the real port, if 0 was asked for), or Unix.
    pub fn address(&self) -> PeerAddr {
        self.address
    }

    /// The file of a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }
}

/// accept(2): errors that belong to the connection which was to be accepted.
fn is_one_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | TimedOut)
}

/// Listens on a TCP address; port 0 lets the system choose.
pub fn bind_tcp(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
    let socket = exclusive(address)?;
    socket.listen(backlog)?;
    tcp(socket, address)
}

/// Listens on a TCP address with `count` sockets, among which the kernel spreads connections by a hash of their addresses
/// (`SO_REUSEPORT`): so many threads can accept without waking each other. Each has a queue of `backlog` connections.
///
/// # Errors
/// The address is in use: of several programs only one gets it, as without the option.
pub fn bind_tcp_group(address: SocketAddr, backlog: i32, count: usize) -> io::Result<Vec<Listener>> {
    if count < 2 {
        return Ok(vec![bind_tcp(address, backlog)?]);
    }
    // Bound without the option, so that it fails where somebody else listens, with the option or without.
    let first = exclusive(address)?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let socket = unbound(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound)?;
        sockets.push(socket);
    }
    for socket in &sockets {
        socket.listen(backlog)?;
    }
    sockets.into_iter().map(|socket| tcp(socket, address)).collect()
}

fn exclusive(address: SocketAddr) -> io::Result<Socket> {
    let socket = unbound(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each family has its own listener, so that 0.0.0.0 and :: may both be named.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn tcp(socket: Socket, address: SocketAddr) -> io::Result<Listener> {
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Listener::new(socket, PeerAddr::Ip(bound), None)
}

/// Listens on `<directory>/.s.PGSQL.<port>` with permissions `mode` (as chmod, e.g. 0o777). A socket file that nobody
/// answers on is removed, under a lock; one that is answered is an `AddrInUse` error.
pub fn bind_unix(directory: &Path, port: u16, mode: u32, backlog: i32) -> io::Result<Listener> {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    let lock_path = directory.join(format!(".s.PGSQL.{port}.lock"));
    let mut lock = take_lock(&lock_path)?;
    if path.symlink_metadata().is_ok() {
        remove_stale(&path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before the bind it narrows what the file is created with; afterwards it makes it exact whatever the umask.
    fchmod(&socket, Mode::from_bits_truncate(mode))?;
    socket.bind(&SockAddr::unix(&path)?)?;
    // PostgreSQL reads a process id here when it wants the same socket.
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    let file = SocketFile { path, lock_path, _lock: lock };
    fs::set_permissions(&file.path, fs::Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Listener::new(socket, PeerAddr::Unix, Some(file))
}

fn take_lock(path: &Path) -> io::Result<File> {
    loop {
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match lock.try_lock() {
            // The one who held it may have removed the file meanwhile: then this is a lock on nothing.
            Ok(()) if fs::metadata(path).is_ok_and(|now| lock.metadata().is_ok_and(|own| own.ino() == now.ino())) => {
                return Ok(lock);
            }
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("another process listens there: it holds {}", path.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Removes a socket file that a dead process left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            let text = format!("another process listens on {}", path.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
