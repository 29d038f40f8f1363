//! Strangers at the administration port: wrong bytes, wrong passwords, silence, floods. It answers others meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pgherd::pcp::admins::respond;

use crate::common::Random;
use crate::world::{PASSWORD, USER, World};

fn connect(world: &World<'_>) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", world.pcp.port())).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream
}

/// All that comes until the other side closes.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Closed with unread bytes of ours: the kernel says so by a reset.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as i32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Logs in with that password; what was answered, which is empty if the connection was closed.
fn log_in(stream: &mut TcpStream, user: &str, password: &str) -> Vec<u8> {
    stream.write_all(&frame(b'M', b"")).expect("sent");
    let mut challenge = [0; 9];
    if stream.read_exact(&mut challenge).is_err() {
        return Vec::new();
    }
    if challenge[0] != b'm' {
        return challenge.into_iter().chain(rest(stream)).collect();
    }
    let salt = [challenge[5], challenge[6], challenge[7], challenge[8]];
    stream.write_all(&frame(b'R', format!("{user}\0{}\0", respond(user, password, salt)).as_bytes())).expect("sent");
    let mut answer = [0; 5];
    if stream.read_exact(&mut answer).is_err() {
        return Vec::new();
    }
    let length = i32::from_be_bytes([answer[1], answer[2], answer[3], answer[4]]) as usize - 4;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the rest");
    answer.into_iter().chain(body).collect()
}

fn answers(world: &World<'_>) {
    assert_eq!(world.own_text(&["node_count"]).out, "3");
}

#[test]
fn nothing_but_a_login_gets_anything() {
    let Some(world) = World::start("") else { return };
    for kind in 0..=u8::MAX {
        let mut stream = connect(&world);
        stream.write_all(&frame(kind, b"0\0")).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let answer = rest(&mut stream);
        match kind {
            b'M' => assert_eq!((answer[0], answer.len()), (b'm', 9)),
            b'X' => assert!(answer.is_empty()),
            _ => assert!(answer.starts_with(b"E") && answer.ends_with(b"Dconnection not authorized\0\0"), "{kind}"),
        }
    }
    answers(&world);
}

#[test]
fn lengths_are_not_believed_before_the_login_and_behind_it() {
    let Some(world) = World::start("") else { return };
    for length in [0_i32, 3, -1, i32::MIN, i32::MAX, 260, 1 << 20] {
        for inside in [false, true] {
            let mut stream = connect(&world);
            if inside {
                assert!(log_in(&mut stream, USER, PASSWORD).starts_with(b"r"));
            }
            stream.write_all(&[&b"I"[..], &length.to_be_bytes()].concat()).expect("sent");
            let answer = rest(&mut stream);
            assert!(
                answer.starts_with(b"E") && answer.windows(9).any(|part| part == b"incorrect"),
                "{length}: {answer:?}"
            );
        }
    }
    let mut stream = connect(&world);
    assert!(log_in(&mut stream, USER, PASSWORD).starts_with(b"r"));
    stream.write_all(&frame(b'Q', b"")).expect("sent");
    assert!(String::from_utf8_lossy(&rest(&mut stream)).contains("unknown PCP packet type \"Q\""));
    answers(&world);
}

#[test]
fn random_requests_of_an_administrator_break_nothing() {
    let Some(world) = World::start("") else { return };
    let mut random = Random::new(7);
    // Not those that stop it, or wait for a stop.
    let kinds = b"ABCDFGHIJLNOPVWZdj#\x00\xff";
    for _ in 0..150 {
        let mut stream = connect(&world);
        assert!(log_in(&mut stream, USER, PASSWORD).starts_with(b"r"));
        let mut bytes = Vec::new();
        for _ in 0..=random.below(5) {
            let body: Vec<u8> = (0..random.below(200)).map(|_| random.below(256) as u8).collect();
            bytes.extend(frame(random.pick(kinds), &body));
        }
        bytes.extend(frame(b'X', b""));
        stream.write_all(&bytes).expect("sent");
        rest(&mut stream);
    }
    answers(&world);
}

#[test]
fn guessing_is_answered_with_a_lock_out_that_ends() {
    let Some(world) = World::start("") else { return };
    let told = |answer: &[u8]| String::from_utf8_lossy(answer).into_owned();
    for guess in 0..5 {
        let answer = told(&log_in(&mut connect(&world), USER, "guess"));
        assert!(answer.contains("password does not match"), "{guess}: {answer}");
    }
    let locked = Instant::now();
    // The right one is of no use now, and its owner hears why.
    let answer = told(&log_in(&mut connect(&world), USER, PASSWORD));
    assert!(answer.contains("too many failed logins") && answer.contains("try again in"), "{answer}");
    // Who comes over the Unix socket is somebody else.
    let ran = world.own_local(&["events"]);
    assert!(ran.code == Some(0) && ran.out.contains("pcp_locked_out"), "{ran:?}");
    while told(&log_in(&mut connect(&world), USER, PASSWORD)).contains("too many") {
        assert!(locked.elapsed() < Duration::from_secs(20), "it ends after ten seconds");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(locked.elapsed() > Duration::from_secs(8), "{:?}", locked.elapsed());
    answers(&world);
}

#[test]
fn silent_connections_are_bounded_end_and_keep_nobody_out() {
    let Some(world) = World::start("") else { return };
    let begun = Instant::now();
    let mut silent: Vec<_> = (0..80).map(|_| connect(&world)).collect();
    // They are many, and they are silent; administrators from the same host come in at once.
    for _ in 0..5 {
        answers(&world);
    }
    // From the moment of the last one they would have ten seconds.
    let mut held: Vec<_> = (0..80).map(|_| connect(&world)).collect();
    answers(&world);
    let open = held.iter_mut().map(is_open).filter(|open| *open).count();
    assert!((1..=16).contains(&open), "{open} of one host wait for their login");
    for stream in silent.iter_mut().chain(&mut held) {
        assert!(rest(stream).is_empty());
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let log = world.proxy.log();
    assert_eq!(log.matches("gave way before their login").count(), 1, "{log}");
}

/// It was not closed by the other side.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("set");
    let open = matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("set");
    open
}

#[test]
fn administrators_are_bounded_and_told_so() {
    let Some(world) = World::start("") else { return };
    let mut open = Vec::new();
    for _ in 0..32 {
        let mut stream = connect(&world);
        assert!(log_in(&mut stream, USER, PASSWORD).starts_with(b"r"));
        open.push(stream);
    }
    let ran = world.own_text(&["node_count"]);
    assert!(ran.code == Some(1) && ran.err.contains("too many administrators"), "{ran:?}");
    drop(open);
    crate::common::eventually("there is room again", || world.own_text(&["node_count"]).code == Some(0));
}
