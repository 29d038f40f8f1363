//! Single writes that were sent and not answered when the primary was lost (HA H14): run again if the history that goes on certainly lacks
//! them, and never if it may have them.

use std::time::{Duration, Instant};

use pgherd::app::demo::server::Server;

use crate::common::eventually;
use crate::common::raw::{Frame, RawClient, bind, describe, execute, parse, query, sync};
use crate::herd::Herd;

/// Nobody is there who could acknowledge; what was written streams all the same.
const LOSS: &str = "promote = \"builtin\"\nallow_data_loss = true";

/// A view shows a primary that is late as suspect after this at the earliest; from then on nothing is sent.
const UNNOTICED: Duration = Duration::from_millis(280);

fn rewrites(herd: &Herd) -> u64 {
    herd.running().counters().iter().map(|one| one.rewrites.get()).sum()
}

/// How often a server has this row.
fn count(server: &Server, row: u32) -> u32 {
    let said = server.psql("postgres", &format!("SELECT count(*) FROM u WHERE n = {row}"));
    said.ok().and_then(|said| said.trim().parse().ok()).unwrap_or(u32::MAX)
}

/// A herd whose primary waits for ever where a session asks for synchronous commits, and a session of it that has committed a row
/// without an answer: all servers have it.
fn unanswered() -> Option<(Herd, RawClient)> {
    let herd = Herd::start(LOSS, &[])?;
    for sql in [
        "CREATE TABLE u (n int)",
        "ALTER DATABASE postgres SET synchronous_commit = local",
        "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
        "SELECT pg_reload_conf()",
    ] {
        herd.server(0).psql("postgres", sql).expect(sql);
    }
    let mut client = herd.client();
    client.patience(Duration::from_secs(30));
    client.query("SET synchronous_commit = on");
    eventually("a commit would wait", || client.values("SHOW synchronous_standby_names") == ["nobody"]);
    client.send(&query("INSERT INTO u VALUES (900)")).expect("sent");
    // A standby does not wait for the acknowledgement before it shows the row.
    eventually("the standbys have it", || count(herd.server(1), 900) == 1 && count(herd.server(2), 900) == 1);
    Some((herd, client))
}

fn code(client: &mut RawClient) -> Option<String> {
    let frames = client.until_ready().expect("the session stays");
    frames.iter().find_map(Frame::sqlstate)
}

#[test]
fn h14_what_was_sent_to_a_frozen_primary_runs_again_and_what_it_had_written_before_does_not() {
    let Some((herd, mut committed)) = unanswered() else { return };
    // Each has used a server connection of its own.
    let mut clients: Vec<RawClient> = (0..4).map(|_| herd.client()).collect();
    for client in &mut clients {
        client.patience(Duration::from_secs(30));
        client.send(&query("INSERT INTO u SELECT 1 FROM pg_sleep(0.5)")).expect("sent");
    }
    for client in &mut clients {
        assert_eq!(code(client), None);
    }
    let named = [parse("mine", "INSERT INTO u SELECT $1::int", &[]), sync()].concat();
    clients[2].send(&named).expect("sent");
    assert_eq!(code(&mut clients[2]), None);
    // The standbys' newest answers are about all of that.
    std::thread::sleep(Duration::from_millis(1_200));
    herd.server(0).freeze().expect("frozen");
    let frozen = Instant::now();
    std::thread::sleep(Duration::from_millis(120));
    let unnamed = |row: &str| {
        let all = [
            parse("", "INSERT INTO u VALUES ($1::int) RETURNING n", &[]),
            bind("", "", &[Some(row)]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ];
        all.concat()
    };
    clients[0].send(&query("INSERT INTO u VALUES (10) RETURNING n")).expect("sent");
    clients[1].send(&unnamed("11")).expect("sent");
    clients[2].send(&[bind("", "mine", &[Some("12")]), execute("", 0), sync()].concat()).expect("sent");
    // Two requests at once: which of them came to what nobody keeps apart.
    clients[3].send(&[query("INSERT INTO u VALUES (13)"), query("INSERT INTO u VALUES (14)")].concat()).expect("sent");
    let in_time = frozen.elapsed() < UNNOTICED;
    let answers: Vec<Option<String>> = clients.iter_mut().take(3).map(code).collect();
    println!("answered {:?} after the freeze, sent in time: {in_time}", frozen.elapsed());
    assert_eq!(answers, [None, None, None], "an answer of each");
    if in_time {
        assert_eq!(rewrites(&herd), 3);
        assert_eq!(code(&mut clients[3]).as_deref(), Some("08007"));
        assert_eq!(code(&mut clients[3]).as_deref(), Some("08007"));
    }
    assert_eq!(code(&mut committed).as_deref(), Some("08007"), "it is there, and nobody knows");
    let primary = herd.primary().expect("there is one");
    assert_ne!(primary, 0);
    for row in [10, 11, 12, 900] {
        assert_eq!(count(herd.server(primary), row), 1, "row {row}");
    }
    // The old one does them now, where nobody looks.
    herd.server(0).thaw().expect("goes on");
    std::thread::sleep(Duration::from_millis(500));
    for row in [10, 11, 12] {
        assert_eq!(count(herd.server(primary), row), 1, "row {row}");
    }
    assert_eq!(clients[2].values("SELECT n FROM u WHERE n = 12"), ["12"]);
}

#[test]
fn h14_what_a_killed_primary_had_written_does_not_run_again() {
    let Some((herd, mut committed)) = unanswered() else { return };
    herd.server(0).kill9().expect("killed");
    let killed = Instant::now();
    assert_eq!(code(&mut committed).as_deref(), Some("08007"));
    println!("told after {:?}", killed.elapsed());
    herd.write_again(1);
    let primary = herd.primary().expect("there is one");
    assert!(primary != 0 && rewrites(&herd) == 0);
    assert_eq!(count(herd.server(primary), 900), 1);
    assert_eq!(committed.values("SELECT 7"), ["7"]);
}

#[test]
fn h14_a_write_whose_connection_alone_is_lost_is_told_at_once() {
    let Some((herd, mut committed)) = unanswered() else { return };
    let writer = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let pid: i32 = herd.server(0).psql("postgres", writer).expect("asked").trim().parse().expect("one");
    // As a cut would do it: the server's side says nothing more.
    let begun = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("killed");
    assert_eq!(code(&mut committed).as_deref(), Some("08007"));
    println!("told after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(15) && rewrites(&herd) == 0);
    eventually("it recovers by itself", || herd.try_sql("INSERT INTO u VALUES (1)").is_ok());
    assert_eq!(herd.primary(), Some(0));
    assert_eq!(count(herd.server(0), 900), 1);
}
