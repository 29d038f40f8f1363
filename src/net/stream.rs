//! One connection's bytes: TCP, Unix socket or TLS over TCP behind one small enum, polled by hand. A stream belongs to
//! the runtime it was attached in; [`Stream::detach`] and [`DetachedStream::attach`] move it. Must not frame or buffer.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::batch::{self, Mark, Taken};
use super::certificate::{common_name, end_point_hash};
use super::tls::{ClientTls, ServerTls};
use super::tls_state::TlsState;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerAddr {
    /// TCP, with or without TLS.
    Ip(SocketAddr),
    /// A process of this host, over a Unix socket.
    Unix,
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("[local]"),
        }
    }
}

/// When the kernel asks a silent peer whether it still lives (TCP only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first question; whole seconds, at least one.
    pub idle: Duration,
    /// Between questions; whole seconds, at least one.
    pub interval: Duration,
    /// Unanswered questions until the connection is given up.
    pub count: u32,
}

/// Socket options of a connection; without effect on Unix sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketOptions {
    /// Off if not set.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`); the system's own limit if not set.
    pub user_timeout: Option<Duration>,
}

impl SocketOptions {
    /// Sets them, and `TCP_NODELAY`: without it the second of two small writes waits for the peer's delayed acknowledgement, for 40 ms.
    pub(super) fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        if let Some(keepalive) = self.keepalive {
            let wanted = TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.count);
            socket.set_tcp_keepalive(&wanted)?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}

/// A connected byte stream in the runtime of this thread. 48 bytes; TLS is boxed and costs about 8 KiB.
pub enum Stream {
    /// Plain TCP.
    #[doc(hidden)]
    Tcp(Plain<TcpStream>),
    /// A Unix socket.
    #[doc(hidden)]
    Unix(Plain<UnixStream>),
    /// TLS over TCP.
    #[doc(hidden)]
    Tls(TcpStream, Tls),
}

/// The TLS part of a stream; opaque.
pub struct Tls(Box<TlsState>);

/// A socket and the bytes that it has in this thread's batch; opaque.
pub struct Plain<S> {
    /// Dropped before the socket.
    mark: Mark,
    socket: S,
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(Plain { mark: Mark::default(), socket: tcp })
    }
}

impl From<UnixStream> for Stream {
    fn from(unix: UnixStream) -> Self {
        Self::Unix(Plain { mark: Mark::default(), socket: unix })
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Stream(tcp)",
            Self::Unix(_) => "Stream(unix)",
            Self::Tls(..) => "Stream(tls)",
        })
    }
}

impl<S: AsFd> AsFd for Plain<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<S: AsyncRead + AsyncWrite + AsRawFd + Unpin> Plain<S> {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut target = ReadBuf::new(buf);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut target))?;
        Poll::Ready(Ok(target.filled().len()))
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match batch::take(&mut self.mark, &self.socket, buf, cx) {
            Taken::All => Poll::Ready(Ok(buf.len())),
            Taken::Wait => Poll::Pending,
            Taken::No => Pin::new(&mut self.socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.mark.poll_settled(cx));
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.mark.poll_settled(cx));
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// The socket alone, if it has taken everything.
    fn into_socket(mut self) -> io::Result<S> {
        match self.mark.poll_settled(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => Ok(self.socket),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Stream {
    /// Reads what is there; 0 is the end of the connection (or an empty `buf`). Cancel safe: nothing is lost by
    /// dropping the caller between polls.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read(cx, buf),
            Self::Unix(unix) => unix.poll_read(cx, buf),
            Self::Tls(tcp, tls) => tls.0.poll_read(tcp, cx, buf),
        }
    }

    /// Reads without waiting; `WouldBlock` if nothing is there. Costs no system call while the runtime knows that
    /// the socket is dry.
    #[inline]
    pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.socket.try_read(buf),
            Self::Unix(unix) => unix.socket.try_read(buf),
            Self::Tls(tcp, tls) => tls.0.try_read(tcp, buf),
        }
    }

    /// Ready when a read may return bytes, the end or an error; may be ready without need. Lets an idle session wait
    /// without a buffer.
    #[inline]
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.socket.poll_read_ready(cx),
            Self::Unix(unix) => unix.socket.poll_read_ready(cx),
            Self::Tls(tcp, tls) => tls.0.poll_read_ready(tcp, cx),
        }
    }

    /// Nothing is there to be read, as far as the runtime knows: told without a system call. Not known under TLS.
    #[inline]
    pub fn is_dry(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.socket.try_io(Interest::READABLE, || Ok(())).is_err(),
            Self::Unix(unix) => unix.socket.try_io(Interest::READABLE, || Ok(())).is_err(),
            Self::Tls(..) => false,
        }
    }

    /// Nothing has come, not even the end, as far as the runtime knows: most often told without a system call.
    #[inline]
    pub fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        let blocks = |read: io::Result<usize>| read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        match self {
            Self::Tcp(tcp) => blocks(tcp.socket.try_read(&mut [])),
            Self::Unix(unix) => blocks(unix.socket.try_read(&mut [])),
            Self::Tls(tcp, tls) => tls.0.poll_read_ready(tcp, cx).is_pending(),
        }
    }

    /// Writes some of `buf`. With TLS, what was taken may still wait for [`Stream::poll_flush`].
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write(cx, buf),
            Self::Unix(unix) => unix.poll_write(cx, buf),
            Self::Tls(tcp, tls) => tls.0.poll_write(tcp, cx, &[IoSlice::new(buf)]),
        }
    }

    /// Writes some of `bufs` with one system call.
    #[inline]
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write_vectored(cx, bufs),
            Self::Unix(unix) => unix.poll_write_vectored(cx, bufs),
            Self::Tls(tcp, tls) => tls.0.poll_write(tcp, cx, bufs),
        }
    }

    /// Ready when all TLS records are on the socket; without TLS when the socket has taken what was offered to it (what is in this turn's
    /// batch will be).
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(Plain { mark, .. }) | Self::Unix(Plain { mark, .. }) => mark.poll_left(cx).map(Ok),
            Self::Tls(tcp, tls) => tls.0.poll_flush(tcp, cx),
        }
    }

    /// Ready when the socket has taken everything that was written, or never will. What was written is sent at once, and not with others.
    pub fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(Plain { mark, .. }) | Self::Unix(Plain { mark, .. }) => mark.poll_settled(cx),
            Self::Tls(tcp, tls) => tls.0.poll_flush(tcp, cx).map(drop),
        }
    }

    /// Sends what is left and closes the writing direction (TLS: close_notify first).
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_shutdown(cx),
            Self::Unix(unix) => unix.poll_shutdown(cx),
            Self::Tls(tcp, tls) => {
                tls.0.say_goodbye();
                ready!(tls.0.poll_flush(tcp, cx))?;
                Pin::new(tcp).poll_shutdown(cx)
            }
        }
    }

    /// Closes without waiting: says goodbye if the socket takes it now.
    pub fn close(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.poll_shutdown(&mut cx);
    }

    /// Reads some bytes; 0 is the end. Cancel safe. For logins and other slow paths.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of `buf` and flushes. Not cancel safe: what was sent is unknown after a drop.
    pub async fn write_all(&mut self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match poll_fn(|cx| self.poll_write(cx, buf)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => buf = &buf[written..],
            }
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Flushes and closes the writing direction.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// The user of a process of this host at the other end of a Unix socket.
    pub fn peer_uid(&self) -> Option<u32> {
        match self {
            Self::Unix(unix) => unix.socket.peer_cred().ok().map(|cred| cred.uid()),
            Self::Tcp(_) | Self::Tls(..) => None,
        }
    }

    /// Is it encrypted?
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(..))
    }

    /// Who is at the other end. An error if it is gone already.
    pub fn peer(&self) -> io::Result<PeerAddr> {
        match self {
            Self::Tcp(Plain { socket: tcp, .. }) | Self::Tls(tcp, _) => tcp.peer_addr().map(PeerAddr::Ip),
            Self::Unix(_) => Ok(PeerAddr::Unix),
        }
    }

    /// The peer has sent all that it ever will, whether or not all of it was read. A system call.
    pub fn has_left(&self) -> bool {
        let fd = match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Tls(tcp, _) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        };
        let asked = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
        let mut asked = [PollFd::new(fd, asked)];
        // What cannot be asked is found out by the next read.
        let said = poll(&mut asked, PollTimeout::ZERO).is_ok_and(|count| count > 0);
        said && asked[0].revents().is_some_and(|said| !said.is_empty())
    }

    /// The address of this host that the peer reached; none over a Unix socket.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(Plain { socket: tcp, .. }) | Self::Tls(tcp, _) => {
                tcp.local_addr().ok().map(|address| address.ip())
            }
            Self::Unix(_) => None,
        }
    }

    /// The certificate that the peer showed in its TLS handshake, verified as the configuration asked.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Tls(_, tls) => tls.0.peer_certificate(),
            _ => None,
        }
    }

    /// The first common name in the subject of the peer's certificate.
    pub fn peer_common_name(&self) -> Option<String> {
        common_name(self.peer_certificate()?)
    }

    /// Data of the channel binding `tls-server-end-point` (RFC 5929): a hash of the server's certificate. `None`
    /// without TLS, or if the certificate's signature has no hash of its own (Ed25519).
    pub fn channel_binding(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(_, tls) => tls.0.binding(),
            _ => None,
        }
    }

    /// The protocol agreed by ALPN, if any.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(_, tls) => tls.0.alpn(),
            _ => None,
        }
    }

    /// Sets `TCP_NODELAY`, keepalive and `TCP_USER_TIMEOUT`; nothing on Unix sockets.
    pub fn set_options(&self, options: &SocketOptions) -> io::Result<()> {
        let tcp = match self {
            Self::Tcp(Plain { socket: tcp, .. }) | Self::Tls(tcp, _) => tcp,
            Self::Unix(_) => return Ok(()),
        };
        options.apply(&SockRef::from(tcp))
    }

    /// The server's side of a TLS handshake. `early`: bytes read from the socket that belong to the handshake
    /// already (a direct TLS start); after an SSLRequest it must be empty. Not cancel safe.
    pub async fn accept_tls(self, tls: &ServerTls, early: &[u8]) -> io::Result<Self> {
        let connection = ServerConnection::new(Arc::clone(tls.config())).map_err(io::Error::other)?;
        let state = TlsState::new(connection.into(), tls.end_point());
        self.handshake(state, early).await
    }

    /// The client's side of a TLS handshake; `name` is what the server's certificate is checked against, as far as
    /// the mode asks for it. Not cancel safe.
    pub async fn connect_tls(self, tls: &ClientTls, name: ServerName<'static>) -> io::Result<Self> {
        let connection = ClientConnection::new(Arc::clone(tls.config()), name).map_err(io::Error::other)?;
        let mut stream = self.handshake(TlsState::new(connection.into(), None), &[]).await?;
        if let Self::Tls(_, tls) = &mut stream {
            let hash = tls.0.peer_certificate().and_then(|certificate| end_point_hash(certificate));
            tls.0.set_binding(hash.map(Into::into));
        }
        Ok(stream)
    }

    async fn handshake(self, mut state: TlsState, early: &[u8]) -> io::Result<Self> {
        let Self::Tcp(tcp) = self else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS runs over plain TCP only"));
        };
        let tcp = tcp.into_socket()?;
        let fed = state.feed(early);
        let done = match fed {
            Ok(()) => poll_fn(|cx| state.poll_handshake(&tcp, cx)).await,
            Err(error) => {
                let mut cx = Context::from_waker(Waker::noop());
                let _ = state.poll_flush(&tcp, &mut cx);
                Err(error)
            }
        };
        done.map(|()| Self::Tls(tcp, Tls(Box::new(state))))
    }

    /// Takes the stream out of this runtime. Only for a connection on which nothing is under way: the caller knows
    /// that its buffers are empty and that it flushed.
    pub fn detach(self) -> io::Result<DetachedStream> {
        Ok(match self {
            Self::Tcp(tcp) => DetachedStream::Tcp(tcp.into_socket()?.into_std()?),
            Self::Unix(unix) => DetachedStream::Unix(unix.into_socket()?.into_std()?),
            Self::Tls(tcp, tls) => DetachedStream::Tls(tcp.into_std()?, tls),
        })
    }
}

/// A stream between two runtimes. Dropping it closes the connection.
pub enum DetachedStream {
    /// Plain TCP, non-blocking.
    #[doc(hidden)]
    Tcp(std::net::TcpStream),
    /// A Unix socket, non-blocking.
    #[doc(hidden)]
    Unix(std::os::unix::net::UnixStream),
    /// TLS over TCP, non-blocking.
    #[doc(hidden)]
    Tls(std::net::TcpStream, Tls),
}

impl fmt::Debug for DetachedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DetachedStream")
    }
}

impl DetachedStream {
    /// Brings the stream into the runtime of this thread. Panics outside a runtime, as tokio does.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(tcp) => TcpStream::from_std(tcp)?.into(),
            Self::Unix(unix) => UnixStream::from_std(unix)?.into(),
            Self::Tls(tcp, tls) => Stream::Tls(TcpStream::from_std(tcp)?, tls),
        })
    }
}

const _: () = assert!(size_of::<Stream>() <= 64, "an idle client pays for these bytes");
const _: fn() = || {
    fn movable<T: Send>() {}
    movable::<Stream>();
    movable::<DetachedStream>();
};

#[cfg(test)]
#[path = "stream_tests.rs"]
pub(in crate::net) mod tests;
