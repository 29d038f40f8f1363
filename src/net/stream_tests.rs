//! Streams over real sockets: bytes through TLS with a peer that reads slowly, moving between runtimes, ends.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpListener;

use super::*;
use crate::net::SslMode;

/// Certificates of one test in a folder of their own: `server.pem`, `server.key`, `ca.pem`.
pub(in crate::net) struct Certificates(pub(in crate::net) PathBuf);

impl Certificates {
    pub(in crate::net) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A CA and a server certificate for `names` signed by it.
    pub(in crate::net) fn new(names: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pgherd-net-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let leaf = rcgen::CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a leaf");
        let made = Self(folder);
        std::fs::write(made.file("ca.pem"), ca_certificate.pem()).expect("written");
        std::fs::write(made.file("server.pem"), leaf.pem()).expect("written");
        std::fs::write(made.file("server.key"), key.serialize_pem()).expect("written");
        made
    }

    pub(in crate::net) fn server(&self) -> ServerTls {
        ServerTls::new(&self.file("server.pem"), &self.file("server.key"), None).expect("settings")
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(in crate::net) async fn tcp_pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connected").into(), server.expect("accepted").0.into())
}

async fn tls_pair() -> (Stream, Stream) {
    let certificates = Certificates::new(&["localhost"]);
    let server_tls = certificates.server();
    let client_tls = ClientTls::new(SslMode::VerifyFull, Some(&certificates.file("ca.pem"))).expect("settings");
    let (client, server) = tcp_pair().await;
    let name = ServerName::try_from("localhost").expect("a name");
    let (client, server) = tokio::join!(client.connect_tls(&client_tls, name), server.accept_tls(&server_tls, &[]));
    (client.expect("client side"), server.expect("server side"))
}

async fn read_exactly(stream: &mut Stream, length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length);
    let mut buf = [0; 9000];
    while all.len() < length {
        let want = (length - all.len()).min(buf.len());
        match stream.read(&mut buf[..want]).await.expect("bytes") {
            0 => panic!("the end after {} of {length}", all.len()),
            read => all.extend_from_slice(&buf[..read]),
        }
    }
    all
}

/// 8 MiB each way at once: more than sockets and TLS buffers hold, so both directions run into a full socket.
async fn exchange(mut one: Stream, mut other: Stream) {
    let payload: Vec<u8> = (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let there = async {
        one.write_all(&payload).await.expect("written");
        let back = read_exactly(&mut one, payload.len()).await;
        assert!(back == payload, "bytes changed on the way");
        one.shutdown().await.expect("shut down");
    };
    let back = async {
        let got = read_exactly(&mut other, payload.len()).await;
        other.write_all(&got).await.expect("written");
        assert_eq!(other.read(&mut [0; 10]).await.expect("the end"), 0);
    };
    tokio::join!(there, back);
}

#[tokio::test]
async fn r17_large_exchange_over_plain_tcp() {
    let (one, other) = tcp_pair().await;
    exchange(one, other).await;
}

#[tokio::test]
async fn r17_large_exchange_over_tls() {
    let (one, other) = tls_pair().await;
    exchange(one, other).await;
}

#[tokio::test]
async fn r17_large_exchange_over_unix() {
    let (one, other) = UnixStream::pair().expect("a pair");
    exchange(one.into(), other.into()).await;
}

#[tokio::test]
async fn r22_binding_is_the_same_on_both_sides() {
    let (client, server) = tls_pair().await;
    assert!(client.is_tls() && server.is_tls());
    assert_eq!(client.channel_binding().expect("a hash"), server.channel_binding().expect("a hash"));
    assert_eq!(client.alpn(), Some(super::super::tls::ALPN));
}

#[tokio::test]
async fn try_read_never_waits_and_sees_buffered_plaintext() {
    let (mut client, mut server) = tls_pair().await;
    let mut buf = [0; 4];
    // Tickets of the handshake may lie there; they are no plaintext.
    assert_eq!(client.try_read(&mut buf).expect_err("nothing sent").kind(), io::ErrorKind::WouldBlock);
    server.write_all(b"12345678").await.expect("written");
    assert_eq!(read_exactly(&mut client, 4).await, b"1234");
    // The other half of the record is in rustls's buffer, not in the socket.
    poll_fn(|cx| match client.poll_read_ready(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => panic!("plaintext is there"),
    })
    .await
    .expect("ready");
    assert_eq!(client.try_read(&mut buf).expect("the rest"), 4);
    assert_eq!(&buf, b"5678");
    server.close();
    assert_eq!(client.read(&mut buf).await.expect("the end"), 0);
    assert_eq!(client.read(&mut buf).await.expect("still the end"), 0);
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_end() {
    let (mut client, server) = tls_pair().await;
    drop(server);
    assert_eq!(client.read(&mut [0; 4]).await.expect("the end"), 0);
}

/// The client's end goes to another runtime on another thread and works on there.
fn moves_between_runtimes(tls: bool) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (first, second) = (runtime(), runtime());
    let (detached, mut server) = first.block_on(async {
        let (client, server) = if tls { tls_pair().await } else { tcp_pair().await };
        (client.detach().expect("detached"), server)
    });
    let mover = std::thread::spawn(move || {
        second.block_on(async {
            let mut client = detached.attach().expect("attached");
            assert_eq!(client.is_tls(), tls);
            client.write_all(b"ping").await.expect("written");
            assert_eq!(read_exactly(&mut client, 4).await, b"pong");
        });
    });
    first.block_on(async {
        assert_eq!(read_exactly(&mut server, 4).await, b"ping");
        server.write_all(b"pong").await.expect("written");
    });
    mover.join().expect("no panic");
}

#[test]
fn r16_a_plain_connection_moves_between_runtimes() {
    moves_between_runtimes(false);
}

#[test]
fn r16_a_tls_connection_moves_between_runtimes() {
    moves_between_runtimes(true);
}

#[tokio::test]
async fn options_reach_the_socket() {
    let (client, _server) = tcp_pair().await;
    let keepalive = Keepalive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), count: 4 };
    let options = SocketOptions { keepalive: Some(keepalive), user_timeout: Some(Duration::from_secs(9)) };
    client.set_options(&options).expect("set");
    let Stream::Tcp(tcp) = &client else { panic!("plain") };
    let socket = SockRef::from(tcp);
    assert!(socket.tcp_nodelay().expect("readable"));
    assert_eq!(socket.tcp_keepalive_time().expect("readable"), keepalive.idle);
    assert_eq!(socket.tcp_keepalive_interval().expect("readable"), keepalive.interval);
    assert_eq!(socket.tcp_keepalive_retries().expect("readable"), keepalive.count);
    assert_eq!(socket.tcp_user_timeout().expect("readable"), options.user_timeout);
}
