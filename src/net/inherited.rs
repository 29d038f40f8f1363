//! Listening sockets that a service manager has opened for this process (sd_listen_fds(3)): with it they outlive the process, and clients who
//! come while it starts anew wait instead of being refused. Must not know what they are for.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::Socket;

use super::{Listener, PeerAddr};

/// One of them.
#[derive(Debug)]
pub struct Inherited {
    /// What the manager calls it (`FileDescriptorName`).
    pub name: String,
    socket: Socket,
    address: PeerAddr,
}

impl Inherited {
    /// All that were passed to this process, in the manager's order; none if nobody has passed any. To be called once, before there are
    /// threads: it takes the environment variables away, so that hooks do not believe them to be theirs.
    ///
    /// # Errors
    /// One is no listening TCP or Unix socket, or the environment contradicts itself.
    pub fn take() -> io::Result<Vec<Self>> {
        // Also has hooks not inherit them.
        let names: Vec<String> = sd_notify::listen_fds_with_names()?.map(|(_, name)| name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = ListenFd::from_env();
        names.into_iter().enumerate().map(|(at, name)| Self::at(&mut all, at, name)).collect()
    }

    fn at(all: &mut ListenFd, at: usize, name: String) -> io::Result<Self> {
        let no =
            |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {} ({name}) {why}", at + 3));
        let socket: Socket = match (all.take_tcp_listener(at), all.take_unix_listener(at)) {
            (Ok(Some(tcp)), _) => tcp.into(),
            (_, Ok(Some(unix))) => unix.into(),
            _ => return Err(no("is neither a TCP nor a Unix socket")),
        };
        if !socket.is_listener()? {
            return Err(no("does not listen: Accept=yes is not for this program"));
        }
        let address = socket.local_addr()?.as_socket().map_or(PeerAddr::Unix, PeerAddr::Ip);
        Ok(Self { name, socket, address })
    }

    /// For whoever accepts by itself; none for a Unix socket.
    pub fn into_tcp(self) -> Option<TcpListener> {
        matches!(self.address, PeerAddr::Ip(_)).then(|| self.socket.into())
    }

    /// As one of our own.
    ///
    /// # Errors
    /// The system does not let it be made non-blocking.
    pub fn listen(self) -> io::Result<Listener> {
        Listener::new(self.socket, self.address, None)
    }
}
