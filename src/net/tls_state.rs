//! The TLS half of a stream: a rustls connection pumped by hand over non-blocking reads and writes of a socket that
//! it does not own, so that the socket may change its runtime below it. Must not wait on its own and never spawns.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;

/// What one TLS connection needs besides its socket. Boxed by its stream: it is rare and large.
pub(super) struct TlsState {
    connection: Connection,
    /// Hash of the server's certificate for `tls-server-end-point`, whichever side we are.
    binding: Option<Arc<[u8]>>,
}

/// Lets rustls read and write the socket without waiting.
struct NoWait<'a>(&'a TcpStream);

impl Read for NoWait<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for NoWait<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl TlsState {
    pub(super) fn new(connection: Connection, binding: Option<Arc<[u8]>>) -> Self {
        Self { connection, binding }
    }

    /// Channel binding data, once the handshake is done.
    pub(super) fn binding(&self) -> Option<&[u8]> {
        self.binding.as_deref()
    }

    /// Computed by the client side from the certificate that the server showed.
    pub(super) fn set_binding(&mut self, binding: Option<Arc<[u8]>>) {
        self.binding = binding;
    }

    /// The peer's own certificate, if it showed one.
    pub(super) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates()?.first()
    }

    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Gives rustls bytes that were read from the socket before TLS was known to be there.
    pub(super) fn feed(&mut self, mut early: &[u8]) -> io::Result<()> {
        while !early.is_empty() {
            self.connection.read_tls(&mut early)?;
            self.process()?;
        }
        Ok(())
    }

    fn process(&mut self) -> io::Result<()> {
        match self.connection.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// One read from the socket, decrypted. `Ok(0)` is the end of the connection.
    fn fill(&mut self, tcp: &TcpStream) -> io::Result<usize> {
        let read = self.connection.read_tls(&mut NoWait(tcp))?;
        if let Err(error) = self.process() {
            // The alert tells the peer why; whether it arrives makes no difference here.
            let _ = self.connection.write_tls(&mut NoWait(tcp));
            return Err(error);
        }
        Ok(read)
    }

    /// Plaintext that is there already. `None`: nothing, read the socket. An end without close_notify counts as an
    /// end, as in libpq: PostgreSQL's frames carry their lengths, and a cut conversation is seen there.
    fn take_plaintext(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self.connection.reader().read(buf) {
            Ok(read) => Ok(Some(read)),
            Err(error) if would_block(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    pub(super) fn try_read(&mut self, tcp: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(read) = self.take_plaintext(buf)? {
                return Ok(read);
            }
            self.fill(tcp)?;
        }
    }

    pub(super) fn poll_read(
        &mut self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_read(tcp, buf) {
                Err(error) if would_block(&error) => ready!(self.poll_socket(tcp, cx))?,
                done => return Poll::Ready(done),
            }
        }
    }

    /// Ready when a read may find something: plaintext is buffered or the socket has bytes.
    pub(super) fn poll_read_ready(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.connection.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => self.poll_socket(tcp, cx),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
        }
    }

    /// Waits for the socket, and lets rustls say first what it has to say (a key update, a ticket).
    fn poll_socket(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_flush(tcp, cx) {
            return Poll::Ready(Err(error));
        }
        tcp.poll_read_ready(cx)
    }

    /// Takes plaintext only when all earlier records are on the socket, so that at most one buffer's worth of
    /// ciphertext (64 KiB) is ever held for a peer that does not read.
    pub(super) fn poll_write(
        &mut self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(tcp, cx))?;
        let taken = self.connection.writer().write_vectored(bufs)?;
        if let Poll::Ready(Err(error)) = self.poll_flush(tcp, cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    pub(super) fn poll_flush(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut NoWait(tcp)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if would_block(&error) => ready!(tcp.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_handshake(&mut self, tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(tcp, cx))?;
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            match self.fill(tcp) {
                Ok(0) => {
                    let text = "the peer closed the connection during the TLS handshake";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
                Ok(_) => {}
                Err(error) if would_block(&error) => ready!(tcp.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Queues close_notify; a flush sends it.
    pub(super) fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
    }
}
