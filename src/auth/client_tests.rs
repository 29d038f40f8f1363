//! Our side of a client's login, played against independent implementations of clients.

use postgres_protocol::authentication::{md5_hash, sasl};
use proptest::prelude::*;

use super::*;

/// What the client types, through whichever exchange it is asked for.
fn log_in(question: &Question<'_>, password: &[u8]) -> Result<Option<Credentials>, Refusal> {
    let mut client = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
    let mut step = begin(question);
    loop {
        step = match step {
            Step::Accepted { bodies, learned } => {
                assert_eq!(bodies.last().map(Vec::as_slice), Some(&[0, 0, 0, 0][..]));
                if let [last, _ok] = bodies.as_slice() {
                    client.finish(&last[4..]).expect("we proved ourselves");
                }
                return Ok(learned);
            }
            Step::Derive { order, next } => next.with_keys(&order.run())?,
            Step::Send { body, next } => next.answer(&reply(&body, question.user, password, &mut client))?,
        };
    }
}

fn reply(body: &[u8], user: &str, password: &[u8], client: &mut sasl::ScramSha256) -> Vec<u8> {
    match body {
        [0, 0, 0, 3] => [password, b"\0"].concat(),
        [0, 0, 0, 5, salt @ ..] => {
            let salt = salt.try_into().expect("four bytes");
            format!("{}\0", md5_hash(user.as_bytes(), password, salt)).into_bytes()
        }
        [0, 0, 0, 10, list @ ..] => {
            assert_eq!(list, b"SCRAM-SHA-256\0\0");
            let first = client.message();
            let length = u32::try_from(first.len()).expect("short").to_be_bytes();
            [b"SCRAM-SHA-256\0", &length[..], first].concat()
        }
        [0, 0, 0, 11, challenge @ ..] => {
            client.update(challenge).expect("understood");
            client.message().to_vec()
        }
        _ => panic!("unexpected {}", body.escape_ascii()),
    }
}

fn stored(kind: &str) -> Stored {
    match kind {
        "plain" => Stored::Plain(Password::new("secret")),
        "md5" => Stored::Md5(Md5Hash::of_password(b"secret", "alice")),
        _ => Stored::Scram(Verifier::from_password(b"secret", b"0123456789abcdef", 4096)),
    }
}

fn question<'a>(method: Method, stored: Option<&'a Stored>, salts: &'a SaltMaker) -> Question<'a> {
    Question { user: "alice", method, stored, typical: Typical::Scram, salts, channel: None }
}

#[test]
fn r22_every_method_with_every_stored_form() {
    let salts = SaltMaker::new();
    for method in [Method::Password, Method::Md5, Method::ScramSha256] {
        for kind in ["plain", "md5", "scram"] {
            let stored = stored(kind);
            let question = question(method, Some(&stored), &salts);
            let possible = !(method == Method::ScramSha256 && kind == "md5");
            let outcome = log_in(&question, b"secret");
            assert_eq!(outcome.is_ok(), possible, "{method:?} {kind}: {outcome:?}");
            if let Err(refusal) = outcome {
                assert!(refusal.detail.contains("md5 hash"), "the log says why: {refusal:?}");
            }
            let refusal = log_in(&question, b"Secret").expect_err("a wrong password");
            assert_eq!(refusal.sqlstate, "28P01");
            assert_eq!(refusal.message, "password authentication failed for user \"alice\"");
        }
    }
}

#[test]
fn r22_what_a_login_teaches_logs_in_to_servers() {
    let salts = SaltMaker::new();
    let verifier = stored("scram");
    let Ok(Some(Credentials::Scram(keys))) = log_in(&question(Method::ScramSha256, Some(&verifier), &salts), b"secret")
    else {
        panic!("keys expected")
    };
    assert_eq!(
        keys.keys,
        Derivation { password: Password::new("secret"), salt: keys.salt.clone(), iterations: 4096 }.run()
    );
    let learned = log_in(&question(Method::Password, Some(&verifier), &salts), b"secret").expect("logged in");
    assert_eq!(learned, Some(Credentials::Password(Password::new("secret"))));
    assert!(matches!(begin(&question(Method::Trust, None, &salts)), Step::Accepted { learned: None, .. }));
}

#[test]
fn r22_a_user_who_does_not_exist_looks_like_one_who_does() {
    let salts = SaltMaker::new();
    let verifier = stored("scram");
    for method in [Method::Password, Method::Md5, Method::ScramSha256] {
        for typical in [Typical::Scram, Typical::Md5] {
            let hash = stored("md5");
            let known = if typical == Typical::Md5 && method != Method::ScramSha256 { &hash } else { &verifier };
            let known = Question { typical, ..question(method, Some(known), &salts) };
            let ghost = Question { typical, ..question(method, None, &salts) };
            let (Step::Send { body: one, .. }, Step::Send { body: other, .. }) = (begin(&known), begin(&ghost)) else {
                panic!("both are asked")
            };
            assert_eq!((one.len(), &one[..4]), (other.len(), &other[..4]), "{method:?} {typical:?}");
            let refusal = log_in(&ghost, b"secret").expect_err("a ghost");
            assert_eq!(
                (refusal.message, refusal.detail.as_str()),
                (log_in(&known, b"x").expect_err("wrong").message, NO_ENTRY)
            );
        }
    }
}

#[test]
fn r22_malformed_answers_are_protocol_errors() {
    let salts = SaltMaker::new();
    let verifier = stored("scram");
    let waiting = |method| match begin(&question(method, Some(&verifier), &salts)) {
        Step::Send { next, .. } => next,
        other => panic!("{other:?}"),
    };
    for (message, sqlstate) in
        [(b"".as_slice(), "08P01"), (b"secret", "08P01"), (b"sec\0ret\0", "08P01"), (b"\0", "28P01")]
    {
        assert_eq!(waiting(Method::Password).answer(message).expect_err("malformed").sqlstate, sqlstate);
    }
    for message in [
        b"".as_slice(),
        b"SCRAM-SHA-256",
        b"SCRAM-SHA-256\0",
        b"SCRAM-SHA-256\0\xff\xff\xff\xff",
        b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=a",
        b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,n=,r=a",
        b"PLAIN\0\0\0\0\x09n,,n=,r=a",
    ] {
        let refusal = waiting(Method::ScramSha256).answer(message).expect_err("malformed");
        assert_eq!(refusal.sqlstate, "08P01", "{}", message.escape_ascii());
    }
}

proptest! {
    #[test]
    fn r22_no_answer_of_a_client_panics(message in proptest::collection::vec(any::<u8>(), 0..100), which in 0..3usize) {
        let salts = SaltMaker::new();
        let stored = Stored::Md5(Md5Hash::of_password(b"x", "alice"));
        let method = [Method::Password, Method::Md5, Method::ScramSha256][which];
        if let Step::Send { next, .. } = begin(&question(method, Some(&stored), &salts)) {
            let step = next.answer(&message);
            let accepted = matches!(step, Ok(Step::Accepted { .. }));
            prop_assert!(!accepted);
        }
    }
}
