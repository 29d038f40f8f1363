//! Dials against real sockets and against small servers that answer the SSLRequest in good and bad ways.

use tokio::net::TcpListener;

use super::*;

use crate::net::stream::tests::Certificates;

fn target(host: &str, port: u16, tls: ClientTls) -> DialTarget {
    let timeout = Duration::from_secs(5);
    DialTarget {
        endpoint: Endpoint::new(host, port),
        timeout,
        tls: Arc::new(tls),
        options: SocketOptions::default(),
        known: Known::default(),
    }
}

/// A server that answers `connections` SSLRequests with `answer`, then does what is right for it.
async fn answering(answer: &'static [u8], names: &[&str], connections: usize) -> (u16, Certificates) {
    let certificates = Certificates::new(names);
    let tls = certificates.server();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        for _ in 0..connections {
            let mut stream = Stream::from(listener.accept().await.expect("a client").0);
            let mut buf = [0; 8];
            if stream.read(&mut buf).await.expect("a request") == 0 {
                continue;
            }
            if buf != SSL_REQUEST {
                stream.write_all(b"plain").await.expect("written");
                continue;
            }
            stream.write_all(answer).await.expect("written");
            if answer == b"S" {
                // A client that saw enough may be gone by now.
                if let Ok(mut stream) = stream.accept_tls(&tls, &[]).await {
                    let _ = stream.write_all(b"hello").await;
                    let _ = stream.shutdown().await;
                }
            }
        }
    });
    (port, certificates)
}

fn client(mode: SslMode, certificates: &Certificates) -> ClientTls {
    ClientTls::new(mode, Some(&certificates.file("ca.pem"))).expect("settings")
}

#[tokio::test]
async fn r22_sslmode_is_obeyed_with_a_server_that_has_tls() {
    for (mode, host, good) in [
        (SslMode::Prefer, "127.0.0.1", true),
        (SslMode::Require, "127.0.0.1", true),
        (SslMode::VerifyCa, "127.0.0.1", true),
        (SslMode::VerifyFull, "localhost", true),
        (SslMode::VerifyFull, "127.0.0.1", false),
    ] {
        let (port, certificates) = answering(b"S", &["localhost"], 1).await;
        let dialed = dial(&target(host, port, client(mode, &certificates))).await;
        assert_eq!(dialed.is_ok(), good, "{mode:?} {host}: {dialed:?}");
        match dialed {
            Ok(mut stream) => {
                assert!(stream.is_tls());
                assert_eq!(stream.read(&mut [0; 10]).await.expect("bytes"), 5);
            }
            Err(error) => assert_eq!(error.fault, DialFault::Tls, "{error}"),
        }
    }
}

#[tokio::test]
async fn r22_a_certificate_of_another_ca_is_refused() {
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        let (port, _certificates) = answering(b"S", &["localhost"], 1).await;
        let strangers = Certificates::new(&["localhost"]);
        let error = dial(&target("localhost", port, client(mode, &strangers))).await.expect_err("another CA");
        assert_eq!(error.fault, DialFault::Tls, "{mode:?}: {error}");
    }
}

#[tokio::test]
async fn r22_a_pinned_self_signed_certificate_is_good_for_its_name() {
    let (port, certificates) = answering(b"S", &["localhost"], 3).await;
    // The CA file holds the server's own certificate.
    for (mode, host, good) in [
        (SslMode::VerifyCa, "127.0.0.1", true),
        (SslMode::VerifyFull, "localhost", true),
        (SslMode::VerifyFull, "127.0.0.1", false),
    ] {
        let tls = ClientTls::new(mode, Some(&certificates.file("server.pem"))).expect("settings");
        assert_eq!(dial(&target(host, port, tls)).await.is_ok(), good, "{mode:?} {host}");
    }
}

#[tokio::test]
async fn r22_a_server_without_tls() {
    for (mode, good) in [(SslMode::Disable, true), (SslMode::Prefer, true), (SslMode::Require, false)] {
        let (port, _certificates) = answering(b"N", &["localhost"], 1).await;
        let dialed = dial(&target("127.0.0.1", port, ClientTls::new(mode, None).expect("settings"))).await;
        assert_eq!(dialed.as_ref().is_ok_and(|stream| !stream.is_tls()), good, "{mode:?} {dialed:?}");
    }
    for bad in [b"E".as_slice(), b"X"] {
        let (port, _certificates) = answering(bad, &["localhost"], 1).await;
        let error = dial(&target("127.0.0.1", port, ClientTls::new(SslMode::Require, None).expect("settings"))).await;
        assert_eq!(error.expect_err("no TLS").fault, DialFault::Tls);
    }
}

#[tokio::test]
async fn r22_bytes_in_plain_text_behind_the_answer_do_not_enter_the_conversation() {
    let (port, _certificates) = answering(b"S\x00plain text", &["localhost"], 1).await;
    let error = dial(&target("127.0.0.1", port, ClientTls::new(SslMode::Require, None).expect("settings"))).await;
    assert_eq!(error.expect_err("an injection").fault, DialFault::Tls);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let plain = || ClientTls::disabled();
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let error = dial(&target("127.0.0.1", free, plain())).await.expect_err("nobody listens");
    assert_eq!(error.fault, DialFault::Refused, "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{free}")), "{error}");
    let error = dial(&target("no-such-host.invalid", 1, plain())).await.expect_err("no such name");
    assert_eq!(error.fault, DialFault::Name, "{error}");
    let error = dial(&target("/nonexistent", 1, plain())).await.expect_err("no such socket");
    assert_eq!(error.fault, DialFault::Refused, "{error}");
    // Accepts, and then says nothing to the SSLRequest.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut late = target("127.0.0.1", silent.local_addr().expect("an address").port(), ClientTls::disabled());
    late.tls = Arc::new(ClientTls::new(SslMode::Prefer, None).expect("settings"));
    late.timeout = Duration::from_millis(100);
    let error = dial(&late).await.expect_err("silence");
    assert_eq!(error.fault, DialFault::TimedOut, "{error}");
}

#[tokio::test]
async fn a_silent_name_server_keeps_one_thread_and_takes_no_server() {
    let target = target("localhost", 5432, ClientTls::new(SslMode::Disable, None).expect("settings"));
    let soon = || clock::now() + Duration::from_secs(30);
    // As if a lookup were under way that never ends: others wait for it, each as long as it may, and ask nothing.
    let stuck = target.known.turn.clone().acquire_owned().await.expect("open");
    let late = target.addresses(clock::now() + Duration::from_millis(50)).await;
    assert_eq!(late.expect_err("nobody knows it").0, DialFault::TimedOut);
    let old: SocketAddr = "192.0.2.1:5432".parse().expect("an address");
    target.known.addresses.store(Arc::new(vec![old]));
    assert_eq!(target.addresses(soon()).await.expect("as before"), [old]);
    // Its answer counts for those who wait; who knows nothing waits for it however busy the machine is.
    target.known.addresses.store(Arc::default());
    let waits = tokio::spawn({
        let target = target.clone();
        async move { target.addresses(soon()).await }
    });
    tokio::task::yield_now().await;
    drop(stuck);
    let found = waits.await.expect("it ends").expect("found");
    assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
}

#[test]
fn a_unix_socket_that_takes_nobody_is_given_up() {
    let path = std::env::temp_dir().join(format!("pgherd-full-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::unix(&path).expect("an address")).expect("bound");
    socket.listen(0).expect("listens");
    let limit = Duration::from_millis(50);
    let waiting: Vec<_> = (0..10).map(|_| connect_unix(&path, limit)).collect();
    std::fs::remove_file(&path).expect("removed");
    let late = waiting.iter().filter_map(|one| one.as_ref().err()).map(io::Error::kind).collect::<Vec<_>>();
    assert!(!late.is_empty() && late.iter().all(|kind| *kind == io::ErrorKind::TimedOut), "{late:?}");
}
