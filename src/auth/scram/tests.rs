//! SCRAM against RFC 7677, against independent implementations, and against peers that lie.

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::*;

const RFC_CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const RFC_SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const RFC_SERVER_FIRST: &[u8] =
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const RFC_CLIENT_FINAL: &[u8] =
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const RFC_SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn rfc_salt() -> Vec<u8> {
    base64::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64")
}

#[test]
fn r22_rfc_7677_client() {
    let (first, message) = ClientFirst::with_name(Binding::None, RFC_CLIENT_NONCE.into(), "user");
    assert_eq!(message, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let challenge = first.challenge(RFC_SERVER_FIRST).expect("a challenge");
    assert_eq!((&*challenge.salt, challenge.iterations), (&*rfc_salt(), 4096));
    let keys = derive(b"pencil", &challenge.salt, challenge.iterations);
    let (last, message) = challenge.answer(&keys);
    assert_eq!(message, RFC_CLIENT_FINAL);
    last.verify(RFC_SERVER_FINAL).expect("the signature");
}

#[test]
fn r22_rfc_7677_server() {
    let verifier = Verifier::from_password(b"pencil", &rfc_salt(), 4096);
    let start = ServerStart::new(verifier, None);
    let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let (state, message) = start.first(SCRAM.as_bytes(), first, RFC_SERVER_NONCE).expect("a challenge");
    assert_eq!(message, RFC_SERVER_FIRST);
    let accepted = state.finish(RFC_CLIENT_FINAL).expect("the proof");
    assert_eq!(accepted.message, RFC_SERVER_FINAL);
    // The key that the server saw is the one that the client has.
    assert_eq!(accepted.keys.keys, derive(b"pencil", &rfc_salt(), 4096));
}

#[test]
fn r22_verifier_text_is_postgresqls() {
    let text = postgres_protocol::password::scram_sha_256(b"secret");
    let verifier = Verifier::parse(&text).expect("a verifier");
    assert_eq!(verifier.to_text(), text);
    assert!(verifier.matches(&derive(b"secret", &verifier.salt, verifier.iterations)));
    assert!(!verifier.matches(&derive(b"Secret", &verifier.salt, verifier.iterations)));
    let good = "SCRAM-SHA-256$4096:AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(Verifier::parse(good).is_some());
    for (from, to) in
        [("4096", "0"), ("4096", "1000001"), ("4096", "+4096"), ("AAAA$", "$"), ("256$", "1$"), ("=:A", ":A")]
    {
        assert_eq!(Verifier::parse(&good.replacen(from, to, 1)), None, "{from} → {to}");
    }
    assert_eq!(Verifier::parse(&good[..good.len() - 4]), None);
}

/// An independent client logs in to our server side; `binding` is given to the server as its channel.
fn foreign_client(password: &[u8], stored: &[u8], ours: Option<&[u8]>, theirs: ChannelBinding) -> Result<(), String> {
    let mechanism = if ours.is_some() { SCRAM_PLUS } else { SCRAM };
    let verifier = Verifier::from_password(stored, b"0123456789abcdef", 4096);
    let mut client = ScramSha256::new(password, theirs);
    let start = ServerStart::new(verifier, ours);
    let (state, message) =
        start.first(mechanism.as_bytes(), client.message(), &fresh_nonce()).map_err(|error| error.to_string())?;
    client.update(&message).map_err(|error| error.to_string())?;
    let accepted = state.finish(client.message()).map_err(|error| error.to_string())?;
    client.finish(&accepted.message).map_err(|error| error.to_string())
}

#[test]
fn r22_an_independent_client_logs_in() {
    foreign_client(b"secret", b"secret", None, ChannelBinding::unsupported()).expect("logged in");
    foreign_client(b"secret", b"secret", None, ChannelBinding::unrequested()).expect("y without TLS here is fine");
    assert!(foreign_client(b"secret", b"other", None, ChannelBinding::unsupported()).is_err());
    let hash = [7u8; 32];
    let bound = || ChannelBinding::tls_server_end_point(hash.to_vec());
    foreign_client(b"secret", b"secret", Some(&hash), bound()).expect("bound");
    let other = foreign_client(b"secret", b"secret", Some(&[8; 32]), bound()).expect_err("another channel");
    assert!(other.contains("channel binding check failed"), "{other}");
}

#[test]
fn r22_saslprep_and_its_raw_fallback_agree_with_another_implementation() {
    // ROMAN NUMERAL NINE → "IX"; SOFT HYPHEN → nothing; a forbidden character and bytes that are not UTF-8 stay raw.
    for (typed, stored) in [
        ("\u{2168}".as_bytes(), b"IX".as_slice()),
        ("I\u{ad}X".as_bytes(), b"IX"),
        ("a\u{a0}b".as_bytes(), b"a b"),
        (b"bell\x07", b"bell\x07"),
        ("\u{627}1".as_bytes(), "\u{627}1".as_bytes()),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"", b""),
    ] {
        foreign_client(typed, stored, None, ChannelBinding::unsupported()).expect("same password");
    }
    assert_eq!(&*prepared("\u{ad}".as_bytes()), "\u{ad}".as_bytes(), "nothing left: raw");
}

fn start(binding: Option<&[u8]>) -> ServerStart {
    ServerStart::new(Verifier::from_password(b"x", b"salt", 1), binding)
}

#[test]
fn r22_server_refuses_bad_first_messages() {
    let hash: &[u8] = &[1; 32];
    for (binding, mechanism, message) in [
        (None, SCRAM, b"".as_slice()),
        (None, SCRAM, b"n,,"),
        (None, SCRAM, b"n,a=admin,n=,r=abc"),
        (None, SCRAM, b"n,,m=ext,n=,r=abc"),
        (None, SCRAM, b"n,,n=,r="),
        (None, SCRAM, b"n,,n=,r=a\x01"),
        (None, SCRAM, b"n,,n=,r=a\0"),
        (None, SCRAM, b"n,,n=,r=abc,"),
        (None, SCRAM, b"n,,n=,r=abc,junk"),
        (None, SCRAM, b"z,,n=,r=abc"),
        (None, SCRAM, b"p=tls-server-end-point,,n=,r=abc"),
        (None, SCRAM_PLUS, b"p=tls-server-end-point,,n=,r=abc"),
        (None, "SCRAM-SHA-1", b"n,,n=,r=abc"),
        // TLS: a client that could bind and was told that we cannot.
        (Some(hash), SCRAM, b"y,,n=,r=abc"),
        (Some(hash), SCRAM_PLUS, b"n,,n=,r=abc"),
        (Some(hash), SCRAM_PLUS, b"p=tls-unique,,n=,r=abc"),
    ] {
        let outcome = start(binding).first(mechanism.as_bytes(), message, "xyz");
        assert!(outcome.is_err(), "{mechanism} {}", message.escape_ascii());
    }
    // Without binding on TLS is allowed, as PostgreSQL allows it; extensions are ignored.
    assert!(start(Some(hash)).first(SCRAM.as_bytes(), b"n,,n=,r=abc,z=later", "xyz").is_ok());
}

#[test]
fn r22_server_refuses_bad_final_messages() {
    let proof = base64::encode(&[0; 32]);
    for message in [
        String::new(),
        "c=biws,r=abcxyz".to_owned(),
        format!("c=biws,r=abc,p={proof}"),
        format!("c=eSws,r=abcxyz,p={proof}"),
        format!("c=biws,r=abcxyz,p={proof},x=1"),
        "c=biws,r=abcxyz,p=AAAA".to_owned(),
        format!("r=abcxyz,p={proof}"),
    ] {
        let (state, _) = start(None).first(SCRAM.as_bytes(), b"n,,n=,r=abc", "xyz").expect("a challenge");
        let error = state.finish(message.as_bytes()).expect_err("refused");
        assert!(!matches!(error, ScramError::Proof(_)), "{message}: {error}");
    }
    let (state, _) = start(None).first(SCRAM.as_bytes(), b"n,,n=,r=abc", "xyz").expect("a challenge");
    let error = state.finish(format!("c=biws,r=abcxyz,p={proof}").as_bytes()).expect_err("a wrong proof");
    assert!(matches!(error, ScramError::Proof(_)), "{error}");
}

#[test]
fn r22_client_refuses_bad_servers() {
    let first = || ClientFirst::new(Binding::None, "abc".into()).0;
    for message in [
        b"".as_slice(),
        b"r=abc,s=AAAA,i=1",
        b"r=xbcd,s=AAAA,i=1",
        b"r=abcd,s=,i=1",
        b"r=abcd,s=!,i=1",
        b"r=abcd,s=AAAA,i=0",
        b"r=abcd,s=AAAA,i=-1",
        b"r=abcd,s=AAAA,i=1000001",
        b"r=abcd,s=AAAA,i=99999999999999999999999",
        b"r=abcd,s=AAAA",
        b"m=x,r=abcd,s=AAAA,i=1",
        b"e=other-error",
    ] {
        assert!(first().challenge(message).is_err(), "{}", message.escape_ascii());
    }
    let keys = derive(b"x", b"\0\0\0", 1);
    let last = || first().challenge(b"r=abcd,s=AAAA,i=1").expect("a challenge").answer(&keys).0;
    let wrong = format!("v={}", base64::encode(&[0; 32]));
    for message in [b"".as_slice(), b"v=", b"v=AAAA", b"e=invalid-proof", wrong.as_bytes()] {
        assert!(last().verify(message).is_err(), "{}", message.escape_ascii());
    }
}

#[test]
fn r22_an_unknown_user_gets_the_same_salt_each_time_and_nothing_fits() {
    let maker = SaltMaker::new();
    assert_eq!(maker.salt("ghost"), maker.salt("ghost"));
    assert_ne!(maker.salt("ghost"), maker.salt("other"));
    assert_ne!(maker.salt("ghost"), SaltMaker::new().salt("ghost"));
    let mock = maker.mock("ghost");
    assert_eq!((&*mock.salt, mock.iterations), (&maker.salt("ghost")[..], DEFAULT_ITERATIONS));
    assert!(!mock.matches(&derive(b"", &mock.salt, mock.iterations)));
}

#[test]
fn equal_is_equality() {
    assert!(equal(b"", b"") && equal(b"ab", b"ab"));
    assert!(!equal(b"ab", b"ac") && !equal(b"ab", b"bb") && !equal(b"ab", b"abc"));
}

proptest! {
    #[test]
    fn r22_no_message_of_a_peer_panics(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = start(None).first(SCRAM.as_bytes(), &message, "xyz");
        let (state, _) = start(None).first(SCRAM.as_bytes(), b"n,,n=,r=abc", "xyz").expect("a challenge");
        prop_assert!(state.finish(&message).is_err());
        let _ = ClientFirst::new(Binding::None, "abc".into()).0.challenge(&message);
        prop_assert!(ClientFinal::verify(last_state(), &message).is_err());
    }

    #[test]
    fn r22_no_message_of_attributes_panics(message in "([nycrpsiave]=[a-zA-Z0-9+/=,]{0,12},?){0,6}") {
        let _ = start(None).first(SCRAM.as_bytes(), message.as_bytes(), "xyz");
        let (state, _) = start(None).first(SCRAM.as_bytes(), b"n,,n=,r=abc", "xyz").expect("a challenge");
        prop_assert!(state.finish(message.as_bytes()).is_err());
        let _ = ClientFirst::new(Binding::None, "abc".into()).0.challenge(message.as_bytes());
    }

    #[test]
    fn r22_any_password_logs_in_and_another_does_not(password in ".{0,20}", other in "[a-z]{21}") {
        let verifier = Verifier::from_password(password.as_bytes(), b"salty", 2);
        for (typed, good) in [(&password, true), (&other, false)] {
            let (first, message) = ClientFirst::new(Binding::None, fresh_nonce());
            let start = ServerStart::new(verifier.clone(), None);
            let (state, message) = start.first(SCRAM.as_bytes(), &message, &fresh_nonce()).expect("a challenge");
            let challenge = first.challenge(&message).expect("understood");
            let keys = derive(typed.as_bytes(), &challenge.salt, challenge.iterations);
            let (last, message) = challenge.answer(&keys);
            let done = state.finish(&message);
            prop_assert_eq!(done.is_ok(), good);
            if let Ok(accepted) = done {
                prop_assert_eq!(&accepted.keys.keys, &keys);
                last.verify(&accepted.message).expect("the server knows");
            }
        }
    }
}

fn last_state() -> ClientFinal {
    let keys = derive(b"x", b"\0\0\0", 1);
    ClientFirst::new(Binding::None, "abc".into()).0.challenge(b"r=abcd,s=AAAA,i=1").expect("valid").answer(&keys).0
}
