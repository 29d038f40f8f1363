//! Hostile input from both sides: an error or a close, no panic, no growth, and others are served meanwhile.

use std::time::{Duration, Instant};

use crate::common::fake::{FakeBackend, MARK, Malice};
use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{self, RawClient, message, query};
use crate::common::{self, Random, database};

/// Headers that no client should send: a kind and a length.
fn bad_lengths() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for tag in *b"QPBEDCSHXFdcfp" {
        for length in [0_u32, 3, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] {
            all.push([&[tag][..], &length.to_be_bytes(), b"some more bytes"].concat());
        }
    }
    for tag in 0..=255_u8 {
        if !b"QPBEDCSHXFdcfp".contains(&tag) {
            all.push(message(tag, b"unknown"));
        }
    }
    // Bodies that lie about their own insides.
    all.push(message(b'Q', b"no end"));
    all.push(message(b'Q', b""));
    all.push(message(b'P', b"name\0text\0\xFF\xFF"));
    all.push(message(b'P', b"no end"));
    all.push(message(b'B', b"\0\0\0\x01\0\x01\0\x01\x7F\xFF\xFF\xFF"));
    all.push(message(b'B', b"\0\0\xFF\xFF"));
    all.push(message(b'D', b"Znothing\0"));
    all.push(message(b'D', b""));
    all.push(message(b'C', b"S"));
    all.push(message(b'E', b"\0\0"));
    all.push(message(b'F', b"\0\0"));
    all
}

/// What is sent before a login.
fn before_login() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for length in [0_u32, 3, 4, 7, 10_001, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] {
        all.push([&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"user\0x\0\0"].concat());
    }
    all.push(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
    all.push(b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03".to_vec());
    all.push(raw::untyped(b""));
    all.push(raw::untyped(&196_608_u32.to_be_bytes()));
    all.push(raw::untyped(&[&196_608_u32.to_be_bytes()[..], b"user"].concat()));
    all.push(raw::untyped(&[&196_608_u32.to_be_bytes()[..], b"user\0"].concat()));
    all.push(raw::untyped(&[&196_608_u32.to_be_bytes()[..], b"database\0postgres\0\0"].concat()));
    all.push(raw::untyped(&[&196_608_u32.to_be_bytes()[..], &[b'a'; 9_000], b"\0b\0\0"].concat()));
    all.push(raw::startup(196_608, &[("user", "no_such_user"), ("database", "postgres")]));
    all.push(raw::startup(0x0009_0000, &[("user", "postgres")]));
    all.push(raw::cancel_request(b""));
    all.push(raw::cancel_request(&[0; 300]));
    // Plaintext behind an SSLRequest must never be taken for the first encrypted bytes.
    all.push([raw::ssl_request(), raw::startup(196_608, &[("user", "postgres"), ("database", "postgres")])].concat());
    all.push([raw::ssl_request(), query("SELECT 1")].concat());
    all.push([raw::ssl_request(), raw::ssl_request(), raw::ssl_request()].concat());
    all.push([raw::gss_request(), b"garbage".to_vec()].concat());
    let mut random = Random::new(7);
    all.extend((0..100).map(|size| (0..=size).map(|_| random.below(256) as u8).collect()));
    all
}

#[test]
fn hostile_bytes_before_login_end_in_an_error_or_a_close() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    for bytes in before_login() {
        let mut client = RawClient::connect(proxy.port()).expect("a connection");
        // It may close before it has read all.
        drop(client.send(&bytes));
        client.finish_sending();
        assert!(client.ended(), "still open after {}", bytes.escape_ascii());
    }
    assert_eq!(RawClient::login(proxy.port(), "postgres").values("SELECT 1"), ["1"]);
    proxy.stop();
}

#[test]
fn hostile_bytes_after_login_end_in_an_error_or_a_close() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 3, ..Options::default() });
    let db = database(cluster, "hostile");
    let mut neighbour = RawClient::login(proxy.port(), &db);
    let mut all = bad_lengths();
    let mut random = Random::new(8);
    all.extend((0..60).map(|size| (0..=size * 7).map(|_| random.below(256) as u8).collect::<Vec<u8>>()));
    let frame = query("SELECT 'a statement that is cut off'");
    all.extend((1..frame.len()).map(|length| frame[..length].to_vec()));
    for bytes in all {
        let mut client = RawClient::login(proxy.port(), &db);
        drop(client.send(&bytes));
        client.finish_sending();
        assert!(client.ended(), "still open after {}", bytes.escape_ascii());
        assert_eq!(neighbour.values("SELECT 1"), ["1"], "after {}", bytes.escape_ascii());
    }
    proxy.stop();
}

#[test]
fn an_over_long_length_is_refused_without_waiting_for_the_bytes() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let header = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes()].concat();
    for bytes in [header(b'S', 5_000_000), header(b'E', 0x7FFF_FFFF), header(b'Q', 3), header(b'Q', 0xFFFF_FFFF)] {
        let mut client = RawClient::login(proxy.port(), "postgres");
        client.send(&bytes).expect("sent");
        let begun = Instant::now();
        assert!(client.ended(), "still open after {}", bytes.escape_ascii());
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn ten_thousand_connections_that_never_log_in_hurt_nobody() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    if common::hostile_limits() < 15_000 {
        return common::skip("ten_thousand_connections", "the limit of open files is below 15 000");
    }
    let listen = "authentication_timeout = \"60s\"\nmax_clients = 20000".to_owned();
    let proxy = Proxy::start(cluster, &Options { listen, ..Options::default() });
    let db = database(cluster, "hostile");
    let mut client = RawClient::login(proxy.port(), &db);
    let before = proxy.resident().expect("a proxy");
    let mut silent = Vec::new();
    for number in 0..10_000 {
        let mut one = RawClient::connect(proxy.port()).expect("a connection");
        if number % 2 == 0 {
            one.send(&[0, 0]).expect("sent");
        }
        silent.push(one);
        if number % 500 == 0 {
            assert_eq!(client.values("SELECT 1"), ["1"]);
            assert_eq!(RawClient::login(proxy.port(), &db).values("SELECT 2"), ["2"]);
        }
    }
    let each = proxy.resident().expect("a proxy").saturating_sub(before) / 10_000;
    // Unoptimized builds hold a larger future: 8.7 kB were measured.
    assert!(each < 12_288, "{each} bytes for a connection that has sent nothing");
    drop(silent);
    assert_eq!(client.values("SELECT 1"), ["1"]);
    proxy.stop();
}

#[test]
fn a_silent_connection_is_closed_after_the_deadline() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    let listen = "authentication_timeout = \"1s\"".to_owned();
    let proxy = Proxy::start(cluster, &Options { listen, ..Options::default() });
    let mut client = RawClient::connect(proxy.port()).expect("a connection");
    let begun = Instant::now();
    assert!(client.ended());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// What a hostile server says instead of an answer.
fn server_nonsense() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for tag in *b"TDCZEN12nsI" {
        for length in [0_u32, 3, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] {
            all.push([&[tag][..], &length.to_be_bytes()].concat());
        }
    }
    all.push(message(b'Z', b""));
    all.push(message(b'Z', b"X"));
    all.push(message(b'Z', b"III"));
    all.push(message(b'C', b"no end"));
    all.push(message(b'E', b""));
    all.push(message(b'E', b"SERROR"));
    all.push(message(b'S', b"no end"));
    all.push(message(b'R', &[0, 0, 0, 3]));
    all.push(message(b'T', &[0xFF, 0xFF]));
    all.push(message(b'D', &[0, 1, 0x7F, 0xFF, 0xFF, 0xFF]));
    all.push(message(b'1', b""));
    all.push(message(b'G', &[0, 0, 0]));
    all.push(message(b'?', b"what"));
    all.push([message(b'Z', b"I"), message(b'Z', b"I"), message(b'Z', b"I")].concat());
    let mut random = Random::new(9);
    all.extend((0..40).map(|size| (0..=size * 5).map(|_| random.below(256) as u8).collect::<Vec<u8>>()));
    all
}

#[test]
fn a_hostile_server_harms_only_the_client_that_asked() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    let db = database(cluster, "hostile");
    for bytes in server_nonsense() {
        let fake = FakeBackend::start(cluster.primary().port(), Malice::SayAndClose(bytes.clone()));
        let ports = vec![fake.port(), cluster.standby(0).port(), cluster.standby(1).port()];
        let proxy = Proxy::start(cluster, &Options { ports, weights: vec![1.0, 0.0, 0.0], ..Options::default() });
        let mut neighbour = RawClient::login(proxy.port(), &db);
        assert_eq!(neighbour.values("SELECT 1"), ["1"]);
        let mut client = RawClient::login(proxy.port(), &db);
        let provocation = format!("UPDATE pg_database SET datname = datname /* {} */", MARK.escape_ascii());
        client.send(&query(&provocation)).expect("sent");
        client.patience(Duration::from_secs(10));
        // Anything may come but silence: an answer, an error, or a close.
        drop(client.frame().map_err(|error| {
            let silent = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            assert!(!silent, "silence after the server said {}", bytes.escape_ascii());
        }));
        assert!(fake.provoked() > 0, "the server was never asked");
        assert_eq!(neighbour.values("SELECT 2"), ["2"], "after {}", bytes.escape_ascii());
        assert!(proxy.resident().expect("a proxy") < 300 << 20, "it believed a length");
        proxy.stop();
    }
}
