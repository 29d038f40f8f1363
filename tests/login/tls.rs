//! The front door and TLS without an SSLRequest, or with bytes in plain text where none belong. Needs no PostgreSQL.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgherd::net::{PeerAddr, ServerTls};
use pgherd::session::login::{Admission, Arrival, LoginPolicy, Turned, log_in};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::world::{Authority, block_on, policy};

/// Certificates in a folder that goes away.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn door(name: &str) -> (Folder, LoginPolicy) {
    let folder = std::env::temp_dir().join(format!("pgherd-login-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (certificate, key) = Authority::new(&folder, "ca").sign("door", "door", &["localhost"]);
    let tls = ServerTls::new(&certificate, &key, None).expect("settings");
    (Folder(folder), policy("hostssl all all all trust", "", Some(tls)))
}

/// Runs the door against a client on a thread of its own.
fn knock<T: Send + 'static>(
    policy: &LoginPolicy,
    client: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Result<Arrival, Turned>, T) {
    block_on(async {
        let listener = pgherd::net::bind_tcp("127.0.0.1:0".parse().expect("an address"), 1).expect("bound");
        let PeerAddr::Ip(address) = listener.address() else { panic!("TCP") };
        let client = tokio::task::spawn_blocking(move || client(TcpStream::connect(address).expect("connected")));
        let (stream, peer) = listener.attend().expect("attended").accept().await.expect("a client");
        let mut outcome = log_in(stream, peer, policy, Admission::Open).await;
        if let Ok(Arrival::Client(client)) = &mut outcome {
            client.stream.write_all(&client.accepted).await.expect("sent");
        }
        (outcome, client.await.expect("no panic"))
    })
}

const START: &[u8] = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
const OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

fn tls_client(tcp: TcpStream, ca: &Path, protocols: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("a CA");
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), tcp)
}

/// What the door says to a startup packet inside TLS; empty if it says nothing.
fn inside(tcp: TcpStream, ca: &Path, protocols: &[&[u8]]) -> Vec<u8> {
    let mut stream = tls_client(tcp, ca, protocols);
    let mut answer = vec![0; OK.len()];
    match stream.write_all(START).and_then(|()| stream.read_exact(&mut answer)) {
        Ok(()) => answer,
        Err(_) => Vec::new(),
    }
}

#[test]
fn r22_direct_tls_needs_the_protocols_name() {
    let (folder, policy) = door("direct");
    const OFFERS: [(&[&[u8]], bool); 3] = [(&[b"postgresql"], true), (&[], false), (&[b"h2"], false)];
    for (protocols, good) in OFFERS {
        let ca = folder.0.join("ca.pem");
        let (outcome, answer) = knock(&policy, move |tcp| inside(tcp, &ca, protocols));
        assert_eq!(answer == OK, good, "{protocols:?}");
        match outcome {
            Ok(Arrival::Client(client)) if good => assert!(client.stream.is_tls()),
            Err(Turned::Protocol) if !good => {}
            other => panic!("{protocols:?}: {other:?}"),
        }
    }
}

#[test]
fn r22_tls_after_an_ssl_request() {
    let (folder, policy) = door("asked");
    let ca = folder.0.join("ca.pem");
    let (outcome, answer) = knock(&policy, move |mut tcp| {
        tcp.write_all(&SSL_REQUEST).expect("sent");
        let mut byte = [0];
        tcp.read_exact(&mut byte).expect("an answer");
        assert_eq!(&byte, b"S");
        inside(tcp, &ca, &[])
    });
    assert_eq!(answer, OK);
    assert!(matches!(outcome, Ok(Arrival::Client(_))));
}

#[test]
fn r22_plain_text_behind_an_ssl_request_is_refused() {
    let (_folder, policy) = door("injected");
    let (outcome, answer) = knock(&policy, |mut tcp| {
        tcp.write_all(&[&SSL_REQUEST, START].concat()).expect("sent");
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).expect("the end");
        answer
    });
    assert!(matches!(outcome, Err(Turned::Protocol)), "{outcome:?}");
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.first() == Some(&b'E') && text.contains("unencrypted data"), "{text}");
}

#[test]
fn r22_plain_text_where_a_handshake_belongs_is_refused() {
    let (_folder, policy) = door("plain");
    let (outcome, ()) = knock(&policy, |mut tcp| {
        tcp.write_all(&SSL_REQUEST).expect("sent");
        tcp.read_exact(&mut [0]).expect("an answer");
        tcp.write_all(START).expect("sent");
        // An alert of TLS may come; nothing of PostgreSQL's.
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"R"), "{}", answer.escape_ascii());
    });
    assert!(matches!(outcome, Err(Turned::Protocol)), "{outcome:?}");
}
