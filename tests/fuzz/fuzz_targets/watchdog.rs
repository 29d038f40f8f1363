//! What comes from the network for the watchdog, by TCP and by UDP: before the seal (anybody may send it) never a panic and nothing believed; behind
//! it (a partner that means harm) words and messages within their bounds, and an engine that takes any of them without a panic.
#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use pgherd::cluster::NodeId;
use pgherd::watchdog::engine::{
    Action, Address, AddressIs, Duty, Engine, Event, Kept, Locked, Member, MemberId, Message, OnQuorumLoss, Settings,
    Third,
};
use pgherd::watchdog::message::MAX_BYTES;
use pgherd::watchdog::seal::{MAX_FRAME, Opened, Seal};
use pgherd::watchdog::timings::Timings;
use pgherd::watchdog::word::{MAX_WORD, Word};

const KEY: &[u8] = b"a key that all of these have";

fuzz_target!(|bytes: &[u8]| {
    stranger(bytes);
    let partner = partner(bytes);
    let _ = text(bytes);
    behind(partner);
});

/// Nobody's bytes, and bytes that follow a true frame: without the key nothing is opened.
fn stranger(bytes: &[u8]) {
    let mut seal = Seal::new(KEY, "a", 7, &["b", "c"]).expect("a good key");
    assert!(seal.open(bytes, Duration::from_secs(1)).is_err());
    let mut frame =
        Seal::new(KEY, "b", 9, &["a"]).expect("a good key").seal("a", b"{}", Duration::ZERO).expect("short");
    if let Some((at, change)) = bytes.split_first().filter(|(_, change)| !change.is_empty()) {
        let at = usize::from(*at) % frame.len();
        let end = frame.len().min(at + change.len());
        let before = frame.clone();
        frame[at..end].copy_from_slice(&change[..end - at]);
        assert!(seal.open(&frame, Duration::from_secs(1)).is_err() || frame == before);
    }
}

/// The same bytes said by a partner: they come out as they went in, once.
fn partner(bytes: &[u8]) -> &[u8] {
    let mut here = Seal::new(KEY, "a", 7, &["b", "c"]).expect("a good key");
    let mut there = Seal::new(KEY, "b", 9, &["a"]).expect("a good key");
    let greeting = here.seal("b", b"", Duration::ZERO).expect("short");
    let _ = there.open(&greeting, Duration::ZERO);
    let Some(frame) = there.seal("a", bytes, Duration::from_millis(5)) else {
        assert!(bytes.len() > MAX_BYTES);
        return &[];
    };
    assert!(frame.len() <= MAX_FRAME);
    assert_eq!(here.open(&frame, Duration::from_millis(9)), Ok(Opened::Text { from: "b", session: 9, text: bytes }));
    assert!(here.open(&frame, Duration::from_millis(9)).is_err(), "opened twice");
    bytes
}

/// What is read is within its bounds, and what is written of it is read again.
fn text(bytes: &[u8]) -> Option<Message> {
    if Word::is_one(bytes) {
        if let Ok(word) = Word::decode(bytes) {
            let again = word.clone().encode();
            assert!(again.len() <= MAX_WORD && Word::decode(&again) == Ok(word));
        }
        assert!(Message::decode(bytes).is_err(), "both a word and a message");
        return None;
    }
    let message = Message::decode(bytes).ok()?;
    // Its text may be longer than ours was: escapes.
    if let Ok(again) = message.encode() {
        assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
    }
    Some(message)
}

/// Lines of words and messages, each `who` and then the text: an engine hears them, at times that the bytes say, mostly as from somebody
/// whose settings agree.
fn behind(bytes: &[u8]) {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let mut now = *ORIGIN.get_or_init(Instant::now);
    let mut engine = Engine::new(settings(bytes.first().copied().unwrap_or_default()), Kept::default(), 7, now);
    let mut ours = None;
    obey(&mut engine, Event::Tick, now, &mut ours);
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let Some((&who, rest)) = line.split_first() else { continue };
        now += Duration::from_millis(u64::from(who >> 2) * 100);
        let heard = |mut message: Message| {
            if message.digest != 0 {
                message.digest = ours.unwrap_or_default();
            }
            Event::Heard(MemberId(who & 3), Box::new(message))
        };
        let event = text(rest).map_or(Event::Tick, heard);
        obey(&mut engine, event, now, &mut ours);
        let wakeup = engine.wakeup(now);
        assert!(wakeup >= now, "it never sleeps");
    }
}

/// Carries out what the engine wants, as a machine on which all is well; `ours` is the digest that it sends.
fn obey(engine: &mut Engine, event: Event, now: Instant, ours: &mut Option<u64>) {
    let mut queue = vec![event];
    let mut steps = 0;
    while let Some(event) = queue.pop() {
        steps += 1;
        assert!(steps < 1_000, "it wants more and more");
        for action in engine.step(event, now) {
            match action {
                Action::Send(to, message) => {
                    assert!(to != MemberId(0));
                    *ours = Some(message.digest);
                    // A part that is too large is told of, and not sent.
                    let _ = message.encode();
                }
                Action::Persist(number, _) => queue.push(Event::Persisted(number)),
                Action::Lock(node) => queue.push(Event::Lock { node, sent: now, locked: Locked::Busy }),
                Action::Ping => queue.push(Event::Trusted { sent: now, answered: true }),
                Action::Address(Address::Take { .. }) => queue.push(Event::Address(AddressIs::Taken)),
                Action::Address(Address::Release) => queue.push(Event::Address(AddressIs::Released)),
                Action::Stop(epoch) => queue.push(Event::Stopped(epoch)),
                _ => {}
            }
        }
    }
}

fn settings(choice: u8) -> Settings {
    let names = if choice & 1 == 0 { ["a", "b", "c"].as_slice() } else { &["a", "b"] };
    Settings {
        me: MemberId(0),
        members: names.iter().map(|name| Member { name: (*name).to_owned(), duty: Duty::Proxy }).collect(),
        priority: 1,
        timings: Timings::of(Duration::from_secs(3)),
        third: match choice & 7 {
            1 | 5 => Third::Nodes(vec![NodeId(0), NodeId(1), NodeId(2)]),
            3 | 7 => Third::Trusted,
            _ => Third::None,
        },
        address: true,
        trusted: choice & 7 == 3,
        on_quorum_loss: OnQuorumLoss::Stop,
        agreed: BTreeMap::from([("watchdog.virtual_ip".to_owned(), "192.0.2.10".to_owned())]),
    }
}
