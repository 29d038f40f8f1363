//! The least that a proxy of this shape can cost: tokio, a thread with a runtime of its own per core, and bytes that go from a client to a server
//! connection of its own and back. It reads no message, knows no pool, and writes nothing down. What pgherd costs more than this is its own
//! work; what this costs more than PgBouncer no work on pgherd's code can save.
//!
//! `relay LISTEN TARGET THREADS`, each an address and port but the last. Owned by `benches/compare/run.py`; no part of the product.

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, thread};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

const BUFFER: usize = 8192;
const BACKLOG: i32 = 1024;

/// What is on its way in one direction.
struct Passing {
    buffer: Box<[u8]>,
    written: usize,
    read: usize,
}

impl Passing {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER].into(), written: 0, read: 0 }
    }

    /// Until one of them would have to wait, or is gone.
    fn poll(&mut self, from: &mut TcpStream, to: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.read {
                self.written += ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.written..self.read]))?;
            }
            let mut space = ReadBuf::new(&mut self.buffer);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut space))?;
            (self.written, self.read) = (0, space.filled().len());
            if self.read == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut there, mut back) = (Passing::new(), Passing::new());
    poll_fn(|cx| match there.poll(&mut client, &mut server, cx) {
        Poll::Pending => back.poll(&mut server, &mut client, cx),
        done => done,
    })
    .await
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// One data thread.
fn serve(address: SocketAddr, target: SocketAddr) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = listener(address)?;
        loop {
            let (client, _) = listener.accept().await?;
            tokio::spawn(pass(client, target));
        }
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, target, threads] = arguments.as_slice() else { return Err("relay LISTEN TARGET THREADS".into()) };
    let (address, target, threads): (SocketAddr, SocketAddr, usize) =
        (address.parse()?, target.parse()?, threads.parse()?);
    let serving: Vec<_> = (0..threads).map(|_| thread::spawn(move || serve(address, target))).collect();
    for thread in serving {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}
