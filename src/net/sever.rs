//! Ends every connection of this process to one peer at once, whoever holds it: what a fence needs (HA H8). The kernel refuses whatever
//! the peer still sends. Must not decide whom.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use nix::sys::socket::{Shutdown, SockaddrLike, SockaddrStorage, getpeername, getsockname, shutdown};

use super::{DialTarget, Endpoint};
use crate::support::clock;

/// Where a peer is, as its connections see it.
enum Peer {
    Tcp(Vec<SocketAddr>),
    Unix(std::path::PathBuf),
}

/// Shuts down every connection of this process to `target`, in both directions; whoever reads from one finds its end. Returns how many.
///
/// # Errors
/// The endpoint's name cannot be resolved, or the process cannot see its own descriptors.
pub async fn sever(target: &DialTarget) -> io::Result<usize> {
    let peer = match &target.endpoint {
        Endpoint::Tcp { .. } => {
            let found = target.addresses(clock::now() + target.timeout).await;
            Peer::Tcp(found.map_err(|(_, reason)| io::Error::other(reason))?)
        }
        Endpoint::Unix { directory, port } => Peer::Unix(directory.join(format!(".s.PGSQL.{port}"))),
    };
    let mut severed = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        // What is no socket, or not connected, has no peer. A descriptor that is closed and opened anew between these two calls may be
        // another connection's, which then is lost too: a client's retry, never a wrong answer.
        let Ok(address) = getpeername::<SockaddrStorage>(fd) else { continue };
        if is(&peer, &address) && shutdown(fd, Shutdown::Both).is_ok() {
            severed += 1;
        }
    }
    Ok(severed)
}

/// Shuts down every connection of this process that was accepted at `address`, or goes out from it; whoever reads from one finds its end.
/// Returns how many.
///
/// # Errors
/// The process cannot see its own descriptors.
pub fn sever_here(address: IpAddr) -> io::Result<usize> {
    let mut severed = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        let Ok(own) = getsockname::<SockaddrStorage>(fd) else { continue };
        let four = own.as_sockaddr_in().map(|own| IpAddr::from(own.ip()));
        let six = own.as_sockaddr_in6().map(|own| IpAddr::from(own.ip()).to_canonical());
        // One that listens has no peer, and goes on.
        let connected = four.or(six) == Some(address) && getpeername::<SockaddrStorage>(fd).is_ok();
        if connected && shutdown(fd, Shutdown::Both).is_ok() {
            severed += 1;
        }
    }
    Ok(severed)
}

fn is(peer: &Peer, address: &SockaddrStorage) -> bool {
    match peer {
        Peer::Tcp(addresses) => {
            let four = address.as_sockaddr_in().map(|address| SocketAddr::from(*address));
            let six = address.as_sockaddr_in6().map(|address| SocketAddr::from(*address));
            four.or(six).is_some_and(|address| {
                addresses.iter().any(|one| one.ip() == address.ip().to_canonical() && one.port() == address.port())
            })
        }
        Peer::Unix(path) => address.len() > 2 && address.as_unix_addr().and_then(|unix| unix.path()) == Some(path),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn h08_only_connections_to_that_peer_end_and_nothing_comes_later() {
        let (one, other) = (
            TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            TcpListener::bind("127.0.0.1:0").await.expect("a port"),
        );
        let dial = async |listener: &TcpListener| {
            let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
            (client, listener.accept().await.expect("accepts").0)
        };
        let (mut client, mut server) = dial(&one).await;
        let (mut left, mut kept) = dial(&other).await;
        let target = crate::net::DialTarget {
            endpoint: Endpoint::new("127.0.0.1", one.local_addr().expect("bound").port()),
            timeout: std::time::Duration::from_secs(1),
            tls: std::sync::Arc::new(crate::net::ClientTls::disabled()),
            options: crate::net::SocketOptions::default(),
            known: crate::net::Known::default(),
        };
        assert_eq!(sever(&target).await.expect("severed"), 1);
        // Too late, or refused: either way nobody hears it.
        let _ = server.write_all(b"late").await;
        let mut heard = Vec::new();
        let _ = client.read_to_end(&mut heard).await;
        assert!(heard.is_empty(), "{heard:?}");
        kept.write_all(b"x").await.expect("open");
        assert_eq!(left.read_u8().await.expect("open"), b'x');
    }
}
