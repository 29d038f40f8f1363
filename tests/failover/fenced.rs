//! The fence (HA H8): once another server takes the primary's place, nothing that the old one still says reaches a client.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::eventually;
use crate::common::raw::{Frame, query};
use crate::herd::Herd;

const BUILTIN: &str = "promote = \"builtin\"";

/// How many of its own rows a server has.
fn has(herd: &Herd, id: u16, row: u32) -> bool {
    let asked = format!("SELECT count(*) FROM t WHERE n = {row}");
    herd.server(id).psql("postgres", &asked).is_ok_and(|said| said.trim() == "1")
}

/// Bytes that wait to be read from connections to this port of this host, and bytes that wait to be sent from it.
fn waiting(port: u16) -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let (mut unread, mut unsent) = (0, 0);
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is = |address: &str| address.rsplit_once(':').is_some_and(|(_, hex)| hex == format!("{port:04X}"));
        let (sent, read) = fields[4].split_once(':').expect("two queues");
        unread += if is(fields[2]) { u64::from_str_radix(read, 16).expect("a number") } else { 0 };
        unsent += if is(fields[1]) { u64::from_str_radix(sent, 16).expect("a number") } else { 0 };
    }
    (unread, unsent)
}

#[test]
fn h08_what_waits_in_a_socket_is_not_passed_on_after_the_fence() {
    let Some(herd) = Herd::start(BUILTIN, &[]) else { return };
    herd.write_again(1);
    let mut client = herd.client();
    client.query("SELECT 1");
    let port = herd.server(0).port();
    let mut row = 1_000;
    // A client that sends ahead and does not read: answers fill its own socket first, and wait in the server's then.
    while waiting(port).0 < 20_000 {
        row += 1;
        client.send(&query("SELECT repeat('x', 1000) FROM generate_series(1, 100) FOR UPDATE")).expect("sent");
        client.send(&query(&format!("INSERT INTO t VALUES ({row})"))).expect("sent");
        eventually("the old primary commits", || has(&herd, 0, row));
        assert!(row < 2_000, "the client's socket takes everything");
    }
    client.send(&query("INSERT INTO t VALUES (2000)")).expect("sent");
    eventually("the old primary commits", || has(&herd, 0, 2_000));
    eventually("it has said so", || waiting(port).1 == 0);
    herd.server(0).freeze().expect("frozen");
    eventually("another is primary", || herd.primary().is_some_and(|id| id != 0));
    client.patience(Duration::from_secs(20));
    let (sent, begun) = (row - 1_000 + 1, Instant::now());
    let (mut acknowledged, mut codes, mut ready) = (0, Vec::new(), 0);
    while ready < 2 * sent - 1 {
        // In the middle of a row nothing but the end can be told.
        let Ok(frame) = client.frame() else { break };
        acknowledged += u32::from(frame.tag == b'C' && frame.body.starts_with(b"INSERT"));
        codes.extend(frame.sqlstate());
        ready += u32::from(frame.tag == b'Z');
    }
    println!("read in {:?}", begun.elapsed());
    println!("of {sent} writes {acknowledged} were acknowledged; errors {codes:?}, {ready} requests answered");
    assert!(acknowledged < sent, "the old primary's word was passed on after the fence");
    assert!(codes.iter().all(|code| code == "08007"), "{codes:?}");
}

#[test]
fn h08_a_backend_that_outlives_its_postmaster_acknowledges_nothing_any_more() {
    let Some(herd) = Herd::start(BUILTIN, &[]) else { return };
    herd.write_again(1);
    let mut client = herd.client();
    client.patience(Duration::from_secs(30));
    client.query("SELECT 1");
    // Busy, so that it does not notice that its postmaster is gone.
    client.send(&query("INSERT INTO t SELECT 78 + 0 * count(*) FROM generate_series(1, 40000000)")).expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    let postmaster = i32::try_from(herd.server(0).pid().expect("it runs")).expect("small");
    kill(Pid::from_raw(postmaster), Signal::SIGKILL).expect("killed");
    let frames = client.until_ready().expect("the session stays");
    let told = begun.elapsed();
    let code = frames.iter().find_map(Frame::sqlstate);
    println!("told {code:?} after {told:?}");
    assert_eq!(code.as_deref(), Some("08007"), "{frames:?}");
    assert_ne!(herd.primary(), None);
    herd.write_again(100);
    let primary = herd.primary().expect("there is one");
    assert!(primary != 0 && !has(&herd, primary, 78));
    // The session is as it was.
    assert_eq!(client.values("SELECT 7"), ["7"]);
}
