//! A partner that has the key and means harm: whatever it says, the others go on, and do nothing that an administrator could not have ordered.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use pgherd::cluster::Errand;
use pgherd::support::clock::now;
use pgherd::watchdog::message::{Claim, Fitness, Kind, MemberId, Message, Part, Shared, State, Term};
use pgherd::watchdog::seal::{MAX_FRAME, Opened, Seal};
use pgherd::watchdog::word::{Report, Word};

use crate::common::raw::{RawClient, query};
use crate::common::{self, SOON, eventually};
use crate::group::{Group, KEY, NAMES};

/// One of the three, played by the test, as another one hears it.
struct Impostor {
    seal: Seal,
    begun: std::time::Instant,
    to: &'static str,
    out: TcpStream,
    back: TcpStream,
}

/// The session of the impostor's process.
const SESSION: u64 = 0x1234_5678;

impl Impostor {
    /// Takes the place of `of`, which has been killed, and makes itself known to `to`.
    fn new(group: &Group, of: usize, to: usize) -> Self {
        let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != NAMES[of]).collect();
        let mut seal = Seal::new(KEY.trim_end().as_bytes(), NAMES[of], SESSION, &others).expect("it fits");
        let listener = TcpListener::bind(std::net::SocketAddr::from(group.place(of))).expect("its port is free");
        let out = TcpStream::connect(std::net::SocketAddr::from(group.place(to))).expect("connected");
        out.set_write_timeout(Some(SOON)).expect("set");
        let begun = now();
        // Both others connect; whose connection it is shows by what opens.
        loop {
            let (back, _) = listener.accept().expect("it connects");
            back.set_read_timeout(Some(SOON)).expect("set");
            let mut made = Self { seal, begun, to: NAMES[to], out: out.try_clone().expect("a handle"), back };
            if made.listen() {
                return made;
            }
            seal = made.seal;
        }
    }

    /// The next message of the other side for the engine.
    fn hear(&mut self) -> Message {
        loop {
            self.say(b"");
            let mut length = [0; 4];
            self.back.read_exact(&mut length).expect("it speaks");
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            self.back.read_exact(&mut frame).expect("a frame");
            let Ok(Opened::Text { text, .. }) = self.seal.open(&frame, self.begun.elapsed()) else { continue };
            if let Ok(message) = Message::decode(text) {
                return message;
            }
        }
    }

    /// Joins, and says what uses up the numbers that all share, or speaks for another one.
    fn exhaust(&mut self) {
        let heard = self.hear();
        assert_eq!(heard.state, State::Leader);
        let mut number = 0;
        let mut say = |term: Term, promised: u64, part: Part| {
            number += 1;
            let message = Message {
                incarnation: SESSION,
                number,
                heard: heard.number,
                digest: heard.digest,
                state: State::Standby,
                term,
                priority: i64::MAX,
                fitness: Fitness::default(),
                sights: Vec::new(),
                promised,
                shared: (Term(0), 0),
                stuck: None,
                part,
            };
            self.say(&message.encode().expect("it fits"));
        };
        let claim = |kind, term| Part::Claim(Claim { kind, term, seq: u64::MAX, prepare: u64::MAX });
        let shared = |version, epoch| {
            Part::Shared(Box::new(Shared { version, epoch, claimed: epoch, body: "not a journal".to_owned() }))
        };
        let (last, own) = (Term(u64::MAX), heard.term);
        say(own, 0, Part::Beat);
        say(last, 0, Part::Beat);
        say(own, u64::MAX, Part::Beat);
        say(own, 0, claim(Kind::Elect, own.next(own.owner())));
        say(own, 0, Part::Yield(own.next(own.owner()), Some(MemberId(9))));
        say(own, 0, Part::Yield(last, None));
        say(own, 0, shared((last, u64::MAX), 1));
        say(own, 0, shared((own, u64::MAX), 1));
        say(own, 0, shared((own, u64::MAX), u64::MAX));
        for kind in [Kind::Probe, Kind::Elect, Kind::Renew] {
            say(own, 0, claim(kind, last));
        }
    }

    /// Reads until the other side's session is known; false: this connection is another one's.
    fn listen(&mut self) -> bool {
        for _ in 0..200 {
            self.say(b"");
            let mut length = [0; 4];
            if self.back.read_exact(&mut length).is_err() {
                return false;
            }
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            self.back.read_exact(&mut frame).expect("a frame");
            match self.seal.open(&frame, self.begun.elapsed()) {
                Ok(Opened::Text { from, .. }) => return from == self.to,
                Ok(Opened::Greeting { from }) if from == self.to => {}
                _ => return false,
            }
        }
        false
    }

    fn say(&mut self, text: &[u8]) -> Vec<u8> {
        let frame = self.seal.seal(self.to, text, self.begun.elapsed()).expect("it fits");
        self.raw(&frame);
        frame
    }

    fn raw(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).expect("short");
        let sent = self.out.write_all(&[&length.to_be_bytes()[..], frame].concat());
        sent.expect("it is read");
    }
}

#[test]
fn a_hostile_partner_with_the_key_stops_nobody() {
    let Some(cluster) = common::cluster() else { return };
    let mut group = Group::start(cluster, "");
    let leader = group.leader();
    let gone = (leader + 1) % 3;
    let mut victim = RawClient::login(group.port(leader), "postgres");
    group.members[gone].proxy.kill9();
    let mut evil = Impostor::new(&group, gone, leader);
    victim.send(&query("SELECT pg_sleep(3), 'mine'")).expect("sent");
    let session = i32::from_be_bytes(victim.key[..4].try_into().expect("four bytes"));
    let junk = [&b"!"[..], b"!{}", b"{}", b"!{\"Ask\":{}}", &[b'['; 90_000], &[b'!'; 90_000], &[0xFF; 1_000]];
    for round in 0..100_u64 {
        for text in junk {
            evil.say(text);
        }
        // Every guess of a secret would be a proof of its own.
        let guess = evil.seal.proof(NAMES[leader], session, &round.to_be_bytes()[4..]);
        evil.say(&Word::Cancel { session, proof: guess }.encode());
        evil.say(&Word::Told { number: round, answer: Ok("x".repeat(100_000)) }.encode());
        evil.say(&Word::Still { number: u64::MAX - round, how: "\u{1b}[2J".repeat(500) }.encode());
        let report = Report {
            wall: i64::MIN,
            echo: Some((i64::MAX, u32::MAX)),
            leader: Some("\u{1b}[2J".repeat(500)),
            term: u64::MAX,
            epoch: u64::MAX,
            holds_ip: true,
        };
        evil.say(&Word::Report(report).encode());
        let errand = Errand::Keep { node: 60_000, conninfo: "x".into(), source: "../../x".into() };
        evil.say(&Word::Ask { number: round, errand, who: "\n2026 INFO forged".into() }.encode());
        for node in [9, 60_000] {
            let who = "nobody\n".repeat(1_000);
            evil.say(&Word::Ask { number: round, errand: Errand::Rest(node), who: who.clone() }.encode());
            evil.say(&Word::Ask { number: round, errand: Errand::Detach(node), who }.encode());
        }
    }
    let term = || group.watchdog(leader).expect("it answers")["term"].clone();
    let before = term();
    evil.exhaust();
    let frame = evil.say(b"");
    (0..50).for_each(|_| evil.raw(&frame));
    let frames = victim.until_ready().expect("an answer");
    assert!(frames.iter().all(|frame| frame.tag != b'E'), "no guess hits: {frames:?}");
    let told = || group.watchdog(leader).expect("it answers");
    eventually("what came twice is refused", || told()["refused"]["replayed"].as_u64() >= Some(50));
    assert!(told()["cancels"]["refused"].as_u64() >= Some(100) && told()["cancels"]["obeyed"] == 0, "{:#}", told());
    eventually("it still leads", || told()["leader"] == NAMES[leader]);
    eventually("it is told", || group.log(leader).contains("its epoch is too far ahead"));
    for why in ["a term of another member", "its term is too far ahead"] {
        assert!(group.log(leader).contains(why), "{why}");
    }
    assert_eq!(term(), before, "in the same term");
    group.own(leader, &["detach_node", "2"]).expect("what it decides is written down by a majority");
    group.own(leader, &["attach_node", "2"]).expect("and taken back");
    eventually("it is used again", || group.status(leader, 2) == "up");
    let log = group.log(leader);
    assert!(log.contains("nobody nobody"), "who orders is told");
    assert!(!log.lines().any(|line| line.starts_with("nobody")), "no line of the log is a partner's");
    let shown = group.own_text(leader, &["watchdog_info"]).out;
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    for node in 0..3 {
        assert_eq!(group.status(leader, node), "up");
    }
    // A length that no frame has ends that connection, and nothing else.
    let _ = evil.out.write_all(&u32::try_from(MAX_FRAME + 1).expect("small").to_be_bytes());
    evil.out.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    assert!(matches!(evil.out.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert_eq!(RawClient::login(group.port(leader), "postgres").values("SELECT 1"), ["1"]);
    group.own(leader, &["reload_config"]).expect("administrators are served");
}
