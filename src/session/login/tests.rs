//! The front door, knocked at with exact bytes: order of requests, versions, rules, refusals, hostile clients.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::auth::scram::{Binding, ClientFirst, derive, fresh_nonce};
use crate::wire::{ErrorFields, Reader};

fn policy(hba: &str, users: &str) -> LoginPolicy {
    let no_lists = |_: &Path| Err("no lists".to_owned());
    LoginPolicy {
        hba: Hba::parse(hba, Path::new("hba"), &no_lists).expect("rules"),
        users: Users::parse(users, Path::new("users")).expect("users"),
        tls: None,
        timeout: Duration::from_secs(5),
        salts: Arc::default(),
        keys: Arc::default(),
    }
}

fn trust() -> &'static LoginPolicy {
    Box::leak(Box::new(policy("host all,replication all all trust", "")))
}

/// Runs the door against a client.
async fn knock<C>(policy: &LoginPolicy, admission: Admission, client: C) -> Result<Arrival, Turned>
where
    C: AsyncFnOnce(&mut TcpStream),
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = async {
        let (stream, peer) = listener.accept().await.expect("a client");
        let mut outcome = log_in(stream.into(), PeerAddr::Ip(peer), policy, admission).await;
        if let Ok(Arrival::Client(client)) = &mut outcome {
            client.stream.write_all(&client.accepted).await.expect("sent");
        }
        outcome
    };
    let client = async {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        client(&mut stream).await;
    };
    tokio::join!(server, client).0
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).expect("short");
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const V3: u32 = 3 << 16;

fn start(body: &[u8]) -> Vec<u8> {
    packet(V3, body)
}

async fn message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let tag = stream.read_u8().await.expect("a message");
    let length = stream.read_u32().await.expect("a length");
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await.expect("a body");
    (tag, body)
}

/// Expects an ErrorResponse and the end, and gives SQLSTATE and text.
async fn refusal(stream: &mut TcpStream) -> (String, String) {
    let (tag, body) = message(stream).await;
    assert_eq!(tag, b'E', "{}", body.escape_ascii());
    assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
    let fields = ErrorFields::parse(&body);
    assert!(fields.is_fatal());
    (String::from_utf8_lossy(fields.code).into(), String::from_utf8_lossy(fields.message).into())
}

/// Sends `bytes` at once and expects to be refused so.
async fn refused(policy: &LoginPolicy, bytes: &[u8], sqlstate: &str, text: &str) -> Turned {
    let outcome = knock(policy, Admission::Open, async |stream: &mut TcpStream| {
        stream.write_all(bytes).await.expect("sent");
        let (code, message) = refusal(stream).await;
        assert_eq!(code, sqlstate, "{message}");
        assert!(message.contains(text), "{message}");
    });
    outcome.await.expect_err("refused")
}

fn client(arrival: Result<Arrival, Turned>) -> ClientLogin {
    match arrival {
        Ok(Arrival::Client(client)) => *client,
        other => panic!("a client expected: {other:?}"),
    }
}

async fn ok(stream: &mut TcpStream) {
    assert_eq!(message(stream).await, (b'R', vec![0, 0, 0, 0]));
}

#[tokio::test]
async fn r22_trust_and_what_the_startup_packet_said() {
    let outcome = knock(trust(), Admission::Open, async |stream: &mut TcpStream| {
        let body = b"user\0me\0application_name\0a\0options\0-c geqo=off\0DateStyle\0ISO\0\0";
        // A client that is trusted may send its first query ahead.
        stream.write_all(&[start(body), b"Q\0\0\0\x05\0".to_vec()].concat()).await.expect("sent");
        ok(stream).await;
    });
    let client = client(outcome.await);
    assert_eq!((client.user.as_str(), client.database.as_str(), client.protocol_minor), ("me", "me", 0));
    let options = [("geqo", "off"), ("application_name", "a"), ("DateStyle", "ISO")];
    assert_eq!(client.options, options.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!((client.replication, client.learned), (Replication::No, None));
    assert_eq!(client.leftover, b"Q\0\0\0\x05\0");
}

#[tokio::test]
async fn r22_requests_for_encryption_are_declined_once_each_in_any_order() {
    for order in [[SSL, GSS], [GSS, SSL]] {
        let outcome = knock(trust(), Admission::Open, async |stream: &mut TcpStream| {
            for code in order {
                stream.write_all(&packet(code, b"")).await.expect("sent");
                assert_eq!(stream.read_u8().await.expect("an answer"), b'N');
            }
            stream.write_all(&start(b"user\0me\0\0")).await.expect("sent");
            ok(stream).await;
        });
        client(outcome.await);
    }
    for code in [SSL, GSS] {
        let outcome = knock(trust(), Admission::Open, async |stream: &mut TcpStream| {
            stream.write_all(&packet(code, b"")).await.expect("sent");
            assert_eq!(stream.read_u8().await.expect("an answer"), b'N');
            stream.write_all(&packet(code, b"")).await.expect("sent");
            assert_eq!(refusal(stream).await.0, "0A000");
        });
        assert_eq!(outcome.await.expect_err("twice"), Turned::Protocol);
        let behind = [packet(code, b""), start(b"user\0me\0\0")].concat();
        assert_eq!(refused(trust(), &behind, "08P01", "received unencrypted data").await, Turned::Protocol);
    }
}

#[tokio::test]
async fn r22_versions_are_negotiated() {
    for (version, body, agreed, told) in [
        (V3, b"user\0me\0\0".as_slice(), 0, None),
        (V3 | 2, b"user\0me\0\0", 2, None),
        (V3 | 9999, b"user\0me\0\0", 2, Some(b"\0\x03\0\x02\0\0\0\0".as_slice())),
        (V3, b"user\0me\0_pq_.new\0x\0\0", 0, Some(b"\0\x03\0\x02\0\0\0\x01_pq_.new\0")),
    ] {
        let outcome = knock(trust(), Admission::Open, async |stream: &mut TcpStream| {
            stream.write_all(&packet(version, body)).await.expect("sent");
            if let Some(told) = told {
                assert_eq!(message(stream).await, (b'v', told.to_vec()));
            }
            ok(stream).await;
        });
        let client = client(outcome.await);
        assert_eq!((client.protocol_minor, client.options.len()), (agreed, 0));
    }
    assert_eq!(refused(trust(), &packet(2 << 16, b""), "0A000", "2.0").await, Turned::Protocol);
}

#[tokio::test]
async fn r18_a_cancel_request_is_let_through_even_when_full() {
    let outcome = knock(trust(), Admission::Full, async |stream: &mut TcpStream| {
        stream.write_all(&packet(80_877_102, b"\0\0\0\x07secret")).await.expect("sent");
    });
    let Ok(Arrival::Cancel(key, _)) = outcome.await else { panic!("a cancel expected") };
    assert_eq!(key, CancelKey { pid: 7, secret: b"secret".as_slice().into() });
}

#[tokio::test]
async fn r21_no_room_is_said_in_postgresqls_words() {
    for (admission, code) in [(Admission::Full, "53300"), (Admission::Stopping, "57P03")] {
        let outcome = knock(trust(), admission, async |stream: &mut TcpStream| {
            stream.write_all(&start(b"user\0me\0\0")).await.expect("sent");
            assert_eq!(refusal(stream).await.0, code);
        });
        assert_eq!(outcome.await.expect_err("no room"), Turned::Refused);
    }
}

#[tokio::test]
async fn r22_bad_startup_packets() {
    for (body, code, text) in [
        (b"\0".as_slice(), "28000", "no PostgreSQL user name"),
        (b"user\0me", "08P01", "layout"),
        (b"user\0me\0options\0-B 10\0\0", "42601", "-B"),
        (b"user\0me\0replication\0maybe\0\0", "22023", "replication"),
    ] {
        assert_eq!(refused(trust(), &start(body), code, text).await, Turned::Protocol);
    }
}

#[tokio::test]
async fn r22_rules_are_obeyed() {
    let policy = policy("host all mallory all reject\nhost replication rep all trust\nhost app all all trust", "");
    let text = "no pg_hba.conf entry for host \"127.0.0.1\", user \"me\", database \"me\", no encryption";
    assert_eq!(refused(&policy, &start(b"user\0me\0\0"), "28000", text).await, Turned::Unauthorized);
    let text = "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"mallory\", database \"app\"";
    refused(&policy, &start(b"user\0mallory\0database\0app\0\0"), "28000", text).await;
    for (value, replication) in
        [("database", None), ("t", Some(Replication::Physical)), ("ON", Some(Replication::Physical))]
    {
        let body = format!("user\0rep\0replication\0{value}\0\0");
        let Some(replication) = replication else {
            refused(&policy, &start(body.as_bytes()), "28000", "no pg_hba.conf entry").await;
            continue;
        };
        let outcome = knock(&policy, Admission::Open, async |stream: &mut TcpStream| {
            stream.write_all(&start(body.as_bytes())).await.expect("sent");
            ok(stream).await;
        });
        let client = client(outcome.await);
        assert_eq!((client.replication, client.database.as_str()), (replication, ""));
    }
}

#[tokio::test]
async fn r22_samehost_is_this_host() {
    let samehost: &'static LoginPolicy = Box::leak(Box::new(policy("host all all samehost trust", "")));
    let outcome = knock(samehost, Admission::Open, async |stream: &mut TcpStream| {
        stream.write_all(&start(b"user\0me\0\0")).await.expect("sent");
        ok(stream).await;
    });
    client(outcome.await);
    // A stranger's address, as the accepting side would report it.
    let (one, other) = tokio::net::UnixStream::pair().expect("a pair");
    let stranger = PeerAddr::Ip("192.0.2.7:1".parse().expect("an address"));
    let (turned, ()) = tokio::join!(log_in(one.into(), stranger, samehost, Admission::Open), async {
        let mut other = other;
        other.write_all(&start(b"user\0me\0\0")).await.expect("sent");
        assert_eq!(other.read_u8().await.expect("an answer"), b'E');
    });
    assert_eq!(turned.expect_err("a stranger"), Turned::Unauthorized);
}

/// Logs in with SCRAM as a client would, with our own (elsewhere tested) client side.
async fn scram(stream: &mut TcpStream, password: &str) -> Result<(), (String, String)> {
    let (tag, body) = message(stream).await;
    assert_eq!((tag, body.as_slice()), (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0".as_slice()));
    let (first, text) = ClientFirst::new(Binding::None, fresh_nonce());
    let length = u32::try_from(text.len()).expect("short").to_be_bytes();
    let mut bytes = Vec::new();
    crate::wire::write::password(&mut bytes, &[b"SCRAM-SHA-256\0", &length[..], &text].concat());
    stream.write_all(&bytes).await.expect("sent");
    let (_, body) = message(stream).await;
    let challenge = first.challenge(&body[4..]).expect("a challenge");
    let keys = derive(password.as_bytes(), &challenge.salt, challenge.iterations);
    let (last, text) = challenge.answer(&keys);
    bytes.clear();
    crate::wire::write::password(&mut bytes, &text);
    stream.write_all(&bytes).await.expect("sent");
    let (tag, body) = message(stream).await;
    if tag == b'E' {
        let mut reader = Reader::new(&body);
        assert!(reader.byte().is_some());
        let fields = ErrorFields::parse(&body);
        return Err((String::from_utf8_lossy(fields.code).into(), String::from_utf8_lossy(fields.message).into()));
    }
    last.verify(&body[4..]).expect("the door proves itself");
    ok(stream).await;
    Ok(())
}

#[tokio::test]
async fn r22_scram_with_good_and_bad_passwords_and_without_a_user() {
    let users = format!("alice:{}\nbob:TEXTsecret", postgres_protocol::password::scram_sha_256(b"secret"));
    let mut policy = policy("", &users);
    policy.hba = Hba::default();
    for (user, password, good) in [
        ("alice", "secret", true),
        ("bob", "secret", true),
        ("alice", "x", false),
        ("bob", "x", false),
        ("eve", "x", false),
    ] {
        let outcome = knock(&policy, Admission::Open, async |stream: &mut TcpStream| {
            stream.write_all(&start(format!("user\0{user}\0\0").as_bytes())).await.expect("sent");
            let done = scram(stream, password).await;
            assert_eq!(done.is_ok(), good, "{user}");
            if let Err((code, message)) = done {
                assert_eq!(code, "28P01");
                assert_eq!(message, format!("password authentication failed for user \"{user}\""));
            }
        });
        match outcome.await {
            Ok(Arrival::Client(client)) if good => {
                assert!(matches!(client.learned, Some(Credentials::Scram(_))), "{user}");
            }
            Err(Turned::Unauthorized) if !good => {}
            other => panic!("{user}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn r22_something_else_instead_of_a_password() {
    let policy = policy("host all all all password", "me:secret");
    for (bytes, text) in [
        (b"Q\0\0\0\x0dSELECT 1\0".as_slice(), "message type 81"),
        (b"X\0\0\0\x04", "message type 88"),
        (b"?", "message type 63"),
        (b"p\x7f\xff\xff\xff", "invalid length"),
        (b"p\0\0\0\x03", "invalid length"),
        (b"p\0\0\0\x06ab", "password packet size"),
    ] {
        let outcome = knock(&policy, Admission::Open, async |stream: &mut TcpStream| {
            stream.write_all(&start(b"user\0me\0\0")).await.expect("sent");
            assert_eq!(message(stream).await, (b'R', vec![0, 0, 0, 3]));
            stream.write_all(bytes).await.expect("sent");
            let (code, message) = refusal(stream).await;
            assert_eq!(code, "08P01");
            assert!(message.contains(text), "{message}");
        });
        let turned = outcome.await.expect_err("refused");
        assert!(matches!(turned, Turned::Protocol | Turned::Unauthorized), "{turned:?}");
    }
}

#[tokio::test]
async fn r22_the_time_is_limited() {
    let mut policy = policy("host all all all password", "me:secret");
    policy.timeout = Duration::from_millis(50);
    // Says nothing; says half a packet: closed without a word.
    for bytes in [b"".as_slice(), b"\0\0\0", b"\0\0\x20\0\0\x03"] {
        let outcome = knock(&policy, Admission::Open, async |stream: &mut TcpStream| {
            stream.write_all(bytes).await.expect("sent");
            assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
        });
        assert_eq!(outcome.await.expect_err("late"), Turned::TimedOut);
    }
    let outcome = knock(&policy, Admission::Open, async |stream: &mut TcpStream| {
        stream.write_all(&start(b"user\0me\0\0")).await.expect("sent");
        assert_eq!(message(stream).await.0, b'R');
        let (code, message) = refusal(stream).await;
        assert_eq!((code.as_str(), message.as_str()), ("57014", "canceling authentication due to timeout"));
    });
    assert_eq!(outcome.await.expect_err("late"), Turned::TimedOut);
}

#[tokio::test]
async fn r22_garbage_is_closed_without_a_word() {
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"\0\0\0\0",
        b"\0\0\0\x07\0\0\0",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x16\x03\x01\0\x05hello",
    ] {
        let outcome = knock(trust(), Admission::Open, async |stream: &mut TcpStream| {
            stream.write_all(bytes).await.expect("sent");
        });
        assert_eq!(outcome.await.expect_err("garbage"), Turned::Protocol, "{}", bytes.escape_ascii());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn r22_no_bytes_of_a_stranger_panic_or_let_in(
        head in prop_oneof![Just(vec![]), Just(packet(SSL, b"")), Just(packet(GSS, b"")), Just(start(b"user\0me\0\0"))],
        tail in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        static POLICY: LazyLock<LoginPolicy> =
            LazyLock::new(|| policy("host all all all scram-sha-256", "me:secret"));
        let outcome = runtime.block_on(knock(&POLICY, Admission::Open, async |stream: &mut TcpStream| {
            // The door may have closed already.
            let _ = stream.write_all(&head).await;
            let _ = stream.write_all(&tail).await;
            let _ = stream.shutdown().await;
        }));
        let entered = matches!(outcome, Ok(Arrival::Client(_)));
        prop_assert!(!entered);
    }
}

#[tokio::test]
async fn r23_someone_who_only_knocks_costs_little() {
    let (one, _other) = tokio::net::UnixStream::pair().expect("a pair");
    let future = log_in(one.into(), PeerAddr::Unix, trust(), Admission::Open);
    let size = size_of_val(&future);
    assert!(size <= 4096, "the future of a login takes {size} bytes");
}
