//! Messages there and back, and bytes that are none. Owned by `message`.

use super::*;

fn message(part: Part) -> Message {
    Message {
        incarnation: u64::MAX,
        number: 7,
        heard: 3,
        digest: 0xDEAD_BEEF,
        state: State::Leader,
        term: Term(0).next(MemberId(1)),
        priority: -5,
        fitness: Fitness { trusted: true, hold: Hold::Unable, primary: false, nodes: 3, trial: Trial::Due },
        sights: vec![(0, Sight::Dead), (9, Sight::Alive)],
        promised: 4,
        shared: (Term(257), 2),
        stuck: Some((Term(257), 3)),
        part,
    }
}

fn all() -> Vec<Message> {
    let claim = Claim { kind: Kind::Elect, term: Term(513), seq: 9, prepare: 5 };
    let verdict = Verdict { kind: Kind::Probe, term: Term(513), seq: 9, granted: true, hold: 1_250, wait: 0 };
    let shared =
        Shared { version: (Term(257), 3), epoch: 4, claimed: 5, body: "{\"epoch\":4,\"name\":\"ü\\n\"}".to_owned() };
    let parts = [
        Part::Beat,
        Part::Claim(claim),
        Part::Verdict(verdict),
        Part::Yield(Term(257), Some(MemberId(2))),
        Part::Bye,
        Part::Settings(BTreeMap::from([("virtual_ip".to_owned(), "192.0.2.10".to_owned())])),
        Part::Shared(Box::new(shared)),
    ];
    parts.into_iter().map(message).collect()
}

#[test]
fn what_is_written_is_read() {
    for message in all() {
        let bytes = message.encode().expect("small");
        assert_eq!(Message::decode(&bytes), Ok(message));
    }
}

#[test]
fn terms_grow_and_belong_to_one() {
    let first = Term::default().next(MemberId(3));
    let second = first.next(MemberId(0));
    assert!(second > first && first.owner() == MemberId(3) && second.owner() == MemberId(0) && second.count() == 2);
}

#[test]
fn no_cut_and_no_changed_byte_makes_a_panic() {
    for message in all() {
        let good = message.encode().expect("small");
        for at in 0..good.len() {
            assert!(Message::decode(&good[..at]).is_err(), "cut at {at}");
            for change in [0, b'"', b'9', b'}', b'[', 0xFF] {
                let mut bad = good.clone();
                bad[at] = change;
                if let Ok(read) = Message::decode(&bad) {
                    assert!(read.encode().is_ok(), "what is read can be written");
                }
            }
        }
    }
}

#[test]
fn what_is_too_large_is_refused() {
    assert_eq!(Message::decode(&vec![b' '; MAX_BYTES + 1]), Err(Malformed::TooLong(MAX_BYTES + 1)));
    assert!(matches!(Message::decode(&[b'['; 4_096]), Err(Malformed::Syntax(_))), "nothing is nested so deeply");
    let mut crowd = message(Part::Beat);
    crowd.sights = vec![(1, Sight::Alive); MAX_NODES + 1];
    assert_eq!(crowd.encode(), Err(Malformed::Bounds("nodes")));
    let bytes = serde_json::to_vec(&crowd).expect("JSON");
    assert_eq!(Message::decode(&bytes), Err(Malformed::Bounds("nodes")));
    let body = Shared { body: "x".repeat(MAX_BODY + 1), ..Shared::default() };
    assert!(message(Part::Shared(Box::new(body))).encode().is_err());
    let many: BTreeMap<_, _> = (0..=MAX_SETTINGS).map(|n| (n.to_string(), String::new())).collect();
    assert!(message(Part::Settings(many)).encode().is_err());
    let long = BTreeMap::from([("a".to_owned(), "x".repeat(MAX_TEXT + 1))]);
    assert!(message(Part::Settings(long)).encode().is_err());
}
