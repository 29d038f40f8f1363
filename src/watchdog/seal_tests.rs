//! Frames that are believed and frames that are not. Owned by `seal`.

use super::*;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn seal(me: &str, session: u64) -> Seal {
    let peers: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != me).collect();
    Seal::new(KEY, me, session, &peers).expect("a good key")
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two that know each other's sessions.
fn pair() -> (Seal, Seal) {
    let (mut a, mut b) = (seal("a", 11), seal("b", 22));
    let hello = a.seal("b", b"hello", at(0)).expect("short");
    assert_eq!(b.open(&hello, at(0)), Ok(Opened::Greeting { from: "a" }));
    let answer = b.seal("a", b"answer", at(1)).expect("short");
    assert_eq!(a.open(&answer, at(1)), Ok(Opened::Text { from: "b", session: 22, text: b"answer" }));
    let third = a.seal("b", b"third", at(2)).expect("short");
    assert_eq!(b.open(&third, at(2)), Ok(Opened::Text { from: "a", session: 11, text: b"third" }));
    (a, b)
}

#[test]
fn no_frame_counts_twice() {
    let (mut a, mut b) = pair();
    let frames: Vec<_> = (0..300).map(|n| a.seal("b", format!("{n}").as_bytes(), at(n)).expect("short")).collect();
    assert!(b.open(&frames[5], at(300)).is_ok());
    assert!(b.open(&frames[3], at(300)).is_ok(), "overtaken, but new");
    for twice in [5, 3] {
        assert_eq!(b.open(&frames[twice], at(300)), Err(Refusal::Replayed));
    }
    assert!(b.open(&frames[299], at(300)).is_ok());
    assert_eq!(b.open(&frames[100], at(300)), Err(Refusal::Replayed), "too old to tell");
    assert!(b.open(&frames[250], at(300)).is_ok());
    assert_eq!(b.refusals(), Refusals { replayed: 3, ..Refusals::default() });
}

#[test]
fn a_recorded_session_is_not_believed_after_a_restart() {
    let (mut a, mut b) = pair();
    let recorded = a.seal("b", b"I lead", at(3)).expect("short");
    assert!(b.open(&recorded, at(3)).is_ok());
    let mut again = seal("b", 23);
    assert_eq!(again.open(&recorded, at(0)), Ok(Opened::Greeting { from: "a" }), "it greets, and says nothing");
    // Nor does it throw the present session of `a` out where that is known.
    let mut next = seal("a", 12);
    let hello = next.seal("b", b"hello", at(0)).expect("short");
    assert_eq!(b.open(&hello, at(4)), Ok(Opened::Greeting { from: "a" }));
    let text = a.seal("b", b"still here", at(5)).expect("short");
    assert!(matches!(b.open(&text, at(5)), Ok(Opened::Text { session: 11, .. })));
}

#[test]
fn other_keys_other_receivers_and_held_back_frames_are_refused_and_counted() {
    let (mut a, mut b) = pair();
    let mut stranger = Seal::new(b"another key, long enough", "a", 11, &["b"]).expect("long enough");
    let forged = stranger.seal("b", b"I lead", at(3)).expect("short");
    assert_eq!(b.open(&forged, at(3)), Err(Refusal::Forged));
    let other = a.seal("c", b"for c", at(3)).expect("short");
    assert_eq!(b.open(&other, at(3)), Err(Refusal::Stranger));
    let reflected = b.seal("a", b"for a", at(3)).expect("short");
    assert_eq!(b.open(&reflected, at(3)), Err(Refusal::Stranger));
    let held = a.seal("b", b"late", at(4)).expect("short");
    assert_eq!(b.open(&held, at(6_000)), Err(Refusal::Stale));
    assert_eq!(b.refusals(), Refusals { forged: 1, strangers: 2, stale: 1, ..Refusals::default() });
}

#[test]
fn clocks_that_run_apart_make_nothing_stale() {
    let (mut a, mut b) = pair();
    // An hour at which our clock gains 4 percent on the sender's.
    for second in 1..3_600 {
        let frame = a.seal("b", b"beat", at(second * 1_000)).expect("short");
        assert!(b.open(&frame, at(second * 1_040)).is_ok(), "second {second}");
    }
}

/// Frames of `a`, one each tenth of a second of both clocks; the sender's was behind by so much at `from`, and stays so.
fn beats(a: &mut Seal, from: u64, count: u64, behind: u64) -> Vec<(u64, Vec<u8>)> {
    let one = |n| (from + n * 100, a.seal("b", b"beat", at(from + n * 100 - behind)).expect("short"));
    (0..count).map(one).collect()
}

#[test]
fn a_clock_that_stood_still_is_believed_after_a_while_and_what_came_meanwhile_never_counts() {
    let (mut a, mut b) = pair();
    for (time, frame) in beats(&mut a, 1_000, 10, 0) {
        assert!(b.open(&frame, at(time)).is_ok());
    }
    // Its machine is paused for ten minutes.
    let frames = beats(&mut a, 602_000, 60, 600_000);
    let opened: Vec<bool> = frames.iter().map(|(time, frame)| b.open(frame, at(*time)).is_ok()).collect();
    let first = opened.iter().position(|opened| *opened).expect("it is heard again");
    assert_eq!(first, 30, "3 s later");
    assert!(opened[first..].iter().all(|opened| *opened), "and from then on");
    for (_, frame) in &frames {
        assert_eq!(b.open(frame, at(608_000)), Err(Refusal::Replayed));
    }
    let held = a.seal("b", b"late", at(8_000)).expect("short");
    assert_eq!(b.open(&held, at(616_000)), Err(Refusal::Stale), "what is late by the new time is late");
}

#[test]
fn frames_that_were_held_back_are_not_believed_while_one_comes_on_time_or_all_come_at_once() {
    let (mut a, mut b) = pair();
    let held = beats(&mut a, 1_000, 100, 0);
    let mut live = beats(&mut a, 70_000, 100, 0).into_iter();
    for (n, (_, frame)) in held.iter().enumerate() {
        // Played again at the pace at which they were recorded; each second one comes on time, and puts all before it behind.
        let time = 70_000 + n as u64 * 100;
        if n % 10 == 9 {
            let (_, frame) = live.nth(9).expect("enough");
            assert!(b.open(&frame, at(time)).is_ok());
        }
        assert!(b.open(frame, at(time)).is_err(), "{n}");
    }
    let (mut a, mut b) = pair();
    // A queue that was not read for a minute: everything at once, each as late as it has waited.
    for (_, frame) in beats(&mut a, 1_000, 600, 0) {
        let _ = b.open(&frame, at(61_000));
    }
    assert!(b.peers["a"].floor.is_some_and(|(floor, _)| floor < 10_000));
    // Some now and then, minutes apart.
    let (mut a, mut b) = pair();
    for n in 0..100 {
        let frame = a.seal("b", b"late", at(3)).expect("short");
        assert_eq!(b.open(&frame, at(100_000 + n * 3_000)), Err(Refusal::Stale));
    }
}

#[test]
fn any_changed_byte_and_any_cut_is_refused() {
    let (mut a, mut b) = pair();
    let good = a.seal("b", b"a text of some length", at(3)).expect("short");
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 1;
        assert!(b.open(&bad, at(3)).is_err(), "byte {position}");
        assert!(b.open(&good[..position], at(3)).is_err(), "cut at {position}");
    }
    assert!(b.open(&vec![b'p'; MAX_FRAME + 1], at(3)).is_err());
    assert!(b.open(&good, at(3)).is_ok(), "the good one is not spoilt");
}

#[test]
fn short_keys_and_long_names_are_refused() {
    assert!(Seal::new(b"short", "a", 1, &["b"]).is_err());
    assert!(Seal::new(KEY, "a", 1, &[&"x".repeat(MAX_NAME + 1)]).is_err());
    assert!(Seal::new(KEY, "", 1, &["b"]).is_err());
}

#[test]
fn h25_a_proof_shows_one_secret_of_one_session_to_one_member_and_tells_it_to_nobody() {
    let key = b"a key of at least sixteen bytes";
    let a = Seal::new(key, "a", 1, &["b", "c"]).expect("fits");
    let b = Seal::new(key, "b", 2, &["a", "c"]).expect("fits");
    let proof = a.proof("b", 4_194_306, b"four");
    assert!(b.proves(4_194_306, b"four", &proof));
    assert!(!b.proves(4_194_307, b"four", &proof) && !b.proves(4_194_306, b"fivE", &proof));
    assert!(!b.proves(4_194_306, b"four", &a.proof("c", 4_194_306, b"four")), "for another one");
    assert!(!b.proves(4_194_306, b"four", &[0; TAG]));
    let strange = Seal::new(b"another key of sixteen bytes", "a", 1, &["b"]).expect("fits");
    assert!(!b.proves(4_194_306, b"four", &strange.proof("b", 4_194_306, b"four")));
    assert!(!proof.windows(4).any(|bytes| bytes == b"four"));
}
