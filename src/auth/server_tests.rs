//! The login to a server, played against our own server side (which is checked against others elsewhere) and against
//! servers that lie.

use proptest::prelude::*;

use super::*;
use crate::auth::client::{self, Question, Typical};
use crate::auth::hba::Method;
use crate::auth::scram::{LoginKeys, SaltMaker, Verifier, derive};
use crate::auth::{Password, Stored};

/// Both engines against each other; `Err` is the client side's own error or the server's refusal.
fn play(method: Method, stored: &Stored, credentials: &Credentials, channel: [Option<&[u8]>; 2]) -> Result<(), String> {
    let salts = SaltMaker::new();
    let question = Question {
        user: "alice",
        method,
        stored: Some(stored),
        typical: Typical::Scram,
        salts: &salts,
        channel: channel[0],
    };
    let mut login = ServerLogin::new("alice", credentials, channel[1]);
    let mut step = client::begin(&question);
    loop {
        let (body, waiting) = match step {
            client::Step::Derive { order, next } => {
                step = next.with_keys(&order.run()).map_err(|refusal| refusal.detail)?;
                continue;
            }
            client::Step::Accepted { bodies, .. } => {
                for body in bodies {
                    match login.authentication(&body).map_err(|error| error.to_string())? {
                        Step::Wait(next) => login = next,
                        Step::Done => return Ok(()),
                        other => panic!("{other:?}"),
                    }
                }
                panic!("no Ok came")
            }
            client::Step::Send { body, next } => (body, next),
        };
        let mut answer = login.authentication(&body).map_err(|error| error.to_string())?;
        if let Step::Derive { order, next } = answer {
            answer = next.with_keys(&order.run());
        }
        let Step::Send { body, next } = answer else { panic!("an answer expected") };
        login = next;
        step = waiting.answer(&body).map_err(|refusal| refusal.detail)?;
    }
}

fn verifier() -> Verifier {
    Verifier::from_password(b"secret", b"0123456789abcdef", 4096)
}

fn keys(password: &[u8], salt: &[u8], iterations: u32) -> Credentials {
    Credentials::Scram(LoginKeys { salt: salt.into(), iterations, keys: derive(password, salt, iterations) })
}

#[test]
fn r22_credentials_and_methods() {
    let password = Credentials::Password(Password::new("secret"));
    let md5 = Credentials::Md5(Md5Hash::of_password(b"secret", "alice"));
    let scram = keys(b"secret", b"0123456789abcdef", 4096);
    let plain = Stored::Plain(Password::new("secret"));
    let verifier = Stored::Scram(verifier());
    for (method, stored, credentials, outcome) in [
        (Method::Trust, &plain, &Credentials::None, ""),
        (Method::Password, &plain, &password, ""),
        (Method::Password, &plain, &md5, "only an md5 hash"),
        (Method::Password, &plain, &scram, "only SCRAM keys"),
        (Method::Password, &plain, &Credentials::None, "no password is known"),
        (Method::Md5, &plain, &password, ""),
        (Method::Md5, &plain, &md5, ""),
        (Method::Md5, &plain, &scram, "only SCRAM keys"),
        (Method::Md5, &plain, &Credentials::None, "no password is known"),
        (Method::ScramSha256, &verifier, &password, ""),
        (Method::ScramSha256, &verifier, &scram, ""),
        (Method::ScramSha256, &verifier, &keys(b"other", b"0123456789abcdef", 4096), "does not match"),
        (Method::ScramSha256, &verifier, &keys(b"secret", b"another salt", 4096), "verifier differs"),
        (Method::ScramSha256, &verifier, &keys(b"secret", b"0123456789abcdef", 4095), "verifier differs"),
        (Method::ScramSha256, &verifier, &md5, "only an md5 hash"),
        (Method::ScramSha256, &verifier, &Credentials::None, "no client with that name has logged in"),
    ] {
        let done = play(method, stored, credentials, [None, None]);
        match (outcome, &done) {
            ("", Ok(())) => {}
            (word, Err(told)) if !word.is_empty() && told.contains(word) => {}
            _ => panic!("{method:?} {credentials:?}: {done:?}"),
        }
    }
}

#[test]
fn r22_channel_binding_between_both_sides() {
    let stored = Stored::Scram(verifier());
    let password = Credentials::Password(Password::new("secret"));
    let run = |server, client| play(Method::ScramSha256, &stored, &password, [server, client]);
    let (one, other): (&[u8], &[u8]) = (&[1; 32], &[2; 32]);
    run(Some(one), Some(one)).expect("the same channel");
    run(None, Some(one)).expect("a server that cannot bind");
    run(Some(one), None).expect("a client that cannot bind");
    assert!(run(Some(one), Some(other)).expect_err("two channels").contains("channel binding"));
}

#[test]
fn r22_a_server_that_skips_its_proof_is_not_believed() {
    let password = Credentials::Password(Password::new("secret"));
    let login = ServerLogin::new("alice", &password, None);
    let offer = b"\0\0\0\x0aSCRAM-SHA-256\0\0";
    let Ok(Step::Send { next, .. }) = login.authentication(offer) else { panic!("an answer expected") };
    let error = next.authentication(&[0, 0, 0, 0]).expect_err("no proof");
    assert!(error.to_string().contains("before it proved"), "{error}");
}

#[test]
fn r22_methods_that_are_not_known_are_named() {
    for (body, word) in [
        (b"\0\0\0\x07".as_slice(), "GSSAPI"),
        (b"\0\0\0\x09", "GSSAPI"),
        (b"\0\0\0\x02", "number 2"),
        (b"\0\0\0\x0aOAUTHBEARER\0\0", "OAUTHBEARER"),
        (b"\0\0\0\x0bx", "number 11"),
        (b"\0\0\0", "short"),
        (b"\0\0\0\x05abc", "salt"),
    ] {
        let password = Credentials::Password(Password::new("secret"));
        let error = ServerLogin::new("alice", &password, None).authentication(body).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}

proptest! {
    #[test]
    fn r22_no_message_of_a_server_panics(first in 0u8..13, rest in proptest::collection::vec(any::<u8>(), 0..60)) {
        let body = [&[0, 0, 0, first][..], &rest].concat();
        let password = Credentials::Password(Password::new("secret"));
        let _ = ServerLogin::new("alice", &password, Some(&[1; 32])).authentication(&body);
        let begun = ServerLogin::new("alice", &password, None).authentication(b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        if let Ok(Step::Send { next, .. }) = begun {
            let done = matches!(next.authentication(&body), Ok(Step::Done));
            prop_assert!(!done);
        }
    }
}
