//! Listening sockets, TCP and Unix. Accepted sockets come out detached, so that the accepting thread may give them to
//! any data thread at no cost. Must not read from them. A Unix socket is removed again when its listener is dropped.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::{DetachedStream, PeerAddr, SocketOptions};

/// A socket on which clients arrive.
pub struct Listener {
    socket: AsyncFd<Socket>,
    address: PeerAddr,
    /// Removes the socket's file at the end.
    file: Option<SocketFile>,
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

impl Listener {
    pub(super) fn new(socket: Socket, address: PeerAddr, file: Option<SocketFile>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that lie about their descriptor; Socket does not"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket, address, file })
    }

    /// Waits for the next client. Cancel safe. Errors of one client (it went away again) are skipped; what is
    /// returned (out of file descriptors, …) needs a pause before the next call, or the loop spins.
    pub async fn accept(&self) -> io::Result<(DetachedStream, PeerAddr)> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| socket.get_ref().accept()) {
                Err(_would_block) => {}
                Ok(Ok((socket, address))) => return detached(socket, &address),
                Ok(Err(error)) if is_one_clients(&error) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Sets options of all connections to come: they have their listener's (Linux), which saves five system calls for each. Nothing on
    /// Unix sockets.
    ///
    /// # Errors
    /// The system refuses one.
    pub fn set_options(&self, options: &SocketOptions) -> io::Result<()> {
        match self.address {
            PeerAddr::Ip(_) => options.apply(self.socket.get_ref()),
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

fn detached(socket: Socket, address: &SockAddr) -> io::Result<(DetachedStream, PeerAddr)> {
    socket.set_nonblocking(true)?;
    Ok(match address.as_socket() {
        Some(ip) => (DetachedStream::Tcp(socket.into()), PeerAddr::Ip(ip)),
        None => (DetachedStream::Unix(socket.into()), PeerAddr::Unix),
    })
}

/// Listens on a TCP address; port 0 lets the system choose. Must be called inside a runtime.
pub fn bind_tcp(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each family has its own listener, so that 0.0.0.0 and :: may both be named.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Listener::new(socket, PeerAddr::Ip(bound), None)
}

/// Listens on `<directory>/.s.PGSQL.<port>` with permissions `mode` (as chmod, e.g. 0o777). A socket file that nobody
/// answers on is removed, under a lock; one that is answered is an `AddrInUse` error. Must be called inside a runtime.
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
