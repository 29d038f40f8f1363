//! Logins to small servers that say exactly what a test wants; real servers are met in the integration tests.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::support::clock;

/// A server that sends `script` after the startup packet and then holds the connection or ends it.
async fn against(script: &[u8], ends: bool) -> Result<LoggedIn, LoginError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = async {
        let mut stream = Stream::from(listener.accept().await.expect("a client").0);
        assert_ne!(stream.read(&mut [0; 1000]).await.expect("a startup packet"), 0);
        // A client that saw enough may be gone.
        let _ = stream.write_all(script).await;
        if !ends {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    };
    let client = async {
        let stream = TcpStream::connect(address).await.expect("connected").into();
        let params = LoginParams { user: "u", database: "d", options: &[], replication: None };
        let deadline = clock::now() + Duration::from_secs(if ends { 5 } else { 1 });
        login(stream, &params, &Credentials::None, &KeyMaker::default(), deadline).await
    };
    tokio::select! {
        done = client => done,
        () = async { server.await; std::future::pending().await } => unreachable!("it waits for the client"),
    }
}

const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const KEY: &[u8] = b"K\0\0\0\x0c\0\0\0\x07abcd";
const READY: &[u8] = b"Z\0\0\0\x05I";

#[tokio::test]
async fn r22_a_plain_login_reports_parameters_and_key() {
    let script = [OK, b"S\0\0\0\x08a\0b\0", KEY, READY].concat();
    let done = against(&script, true).await.expect("logged in");
    assert_eq!(done.parameters, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(done.cancel, CancelKey { pid: 7, secret: b"abcd".as_slice().into() });
    assert_eq!(done.status, TxStatus::Idle);
}

#[tokio::test]
async fn r06_a_report_right_behind_ready_is_not_lost() {
    let script = [OK, KEY, READY, b"S\0\0\0\x08a\0c\0", b"N\0\0\0\x05\0"].concat();
    let done = against(&script, true).await.expect("logged in");
    assert_eq!(done.parameters, [("a".to_owned(), "c".to_owned())]);
}

#[tokio::test]
async fn r22_the_servers_own_error_keeps_its_words() {
    for (code, fault) in [
        ("57P03", LoginFault::NotAccepting),
        ("53300", LoginFault::Busy),
        ("3D000", LoginFault::Refused),
        ("28P01", LoginFault::Refused),
    ] {
        for before in [b"".as_slice(), OK] {
            let mut script = before.to_vec();
            write::error(&mut script, write::Severity::Fatal, code, "its words", None);
            let error = against(&script, true).await.expect_err(code);
            assert_eq!((error.sqlstate.as_str(), error.message.as_str(), error.fault), (code, "its words", fault));
        }
    }
}

#[tokio::test]
async fn r22_bad_servers_are_left() {
    for (script, fault) in [
        (b"".as_slice(), LoginFault::Lost),
        (b"R\0\0\0\x08\0\0\0", LoginFault::Lost),
        (b"R\0\0\0\x08\0\0\0\x03", LoginFault::Credentials),
        (b"R\0\0\0\x08\0\0\0\x07", LoginFault::Protocol),
        (b"R\0\0\0\x04", LoginFault::Protocol),
        (b"R\0\0\0\x03", LoginFault::Protocol),
        (b"R\x7f\0\0\0", LoginFault::Protocol),
        (b"E\x3f\0\0\0", LoginFault::Protocol),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", LoginFault::Protocol),
        (b"Z\0\0\0\x05I", LoginFault::Protocol),
        (b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05?", LoginFault::Protocol),
        (b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x04", LoginFault::Protocol),
        (b"R\0\0\0\x08\0\0\0\0K\0\0\0\x08\0\0\0\x01", LoginFault::Protocol),
        (b"R\0\0\0\x08\0\0\0\0S\0\0\0\x06ab", LoginFault::Protocol),
        (b"R\0\0\0\x08\0\0\0\0T\0\0\0\x04", LoginFault::Protocol),
    ] {
        let error = against(script, true).await.expect_err("refused");
        assert_eq!(error.fault, fault, "{}: {error}", script.escape_ascii());
    }
    assert_eq!(against(OK, false).await.expect_err("silence").fault, LoginFault::TimedOut);
}

#[test]
fn startup_packet_holds_what_was_given() {
    let options = [("application_name".to_owned(), "x".to_owned())];
    let params = LoginParams { user: "u", database: "", options: &options, replication: Some("true") };
    let packet = startup(&params);
    assert_eq!(&packet[8..], b"user\0u\0replication\0true\0application_name\0x\0\0");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(100))]
    #[test]
    fn r22_no_bytes_of_a_server_panic(
        head in proptest::prelude::prop_oneof![proptest::prelude::Just(vec![]), proptest::prelude::Just(OK.to_vec())],
        tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let done = runtime.block_on(against(&[head, tail].concat(), true));
        proptest::prop_assert!(done.is_err());
    }
}
