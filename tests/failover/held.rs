//! What sessions see of a failover (DESIGN §4, SCENARIOS S11, S15, S31; HA H14): they stay, statements wait and succeed, a lost
//! commit is never told as a failure.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::common::raw::{Frame, RawClient, query, values};
use crate::herd::Herd;

/// What one persistent session saw.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: Vec<u32>,
    unknown: Vec<u32>,
    /// When, since the fault, and with which code a statement failed.
    errors: Vec<(Duration, String)>,
    longest: Duration,
}

/// Writes, and reads before it if `reads`, until told to stop, on one connection that must never end.
fn session(mut client: RawClient, reads: bool, rows: &AtomicU32, stop: &AtomicBool, fault: Instant) -> Seen {
    client.patience(Duration::from_secs(40));
    let mut seen = Seen::default();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let row = rows.fetch_add(1, Ordering::Relaxed);
        let read = reads.then(|| "SELECT count(*) FROM t WHERE n = 0".to_owned());
        for statement in read.into_iter().chain([format!("INSERT INTO t VALUES ({row})")]) {
            let writes = statement.starts_with("INSERT");
            let sent = Instant::now();
            let frames = client.try_query(&statement).unwrap_or_else(|error| panic!("the session ended: {error}"));
            match frames.iter().find_map(Frame::sqlstate) {
                None if writes => seen.acknowledged.push(row),
                None => {}
                Some(code) => {
                    seen.errors.push((sent.saturating_duration_since(fault), code.clone()));
                    if writes && code == "08007" {
                        seen.unknown.push(row);
                    }
                    continue;
                }
            }
            if writes {
                seen.longest = seen.longest.max(last.elapsed());
                last = Instant::now();
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    seen
}

/// Sessions at work while the primary dies and another takes over.
fn survived(how: &str, kill: impl Fn(&Herd), limit: Duration) {
    // With synchronous replication nothing that was acknowledged may be lost.
    let Some(herd) = Herd::start("promote = \"builtin\"", &[("synchronous_standby_names", "ANY 1 (*)")]) else {
        return;
    };
    let (rows, stop) = (AtomicU32::new(1_000), AtomicBool::new(false));
    let fault = Instant::now() + Duration::from_secs(1);
    let all: Vec<Seen> = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..6)
            .map(|number| (herd.client(), number % 2 == 0, &rows, &stop))
            .map(|(client, reads, rows, stop)| scope.spawn(move || session(client, reads, rows, stop, fault)))
            .collect();
        std::thread::sleep(fault.saturating_duration_since(Instant::now()));
        kill(&herd);
        eventually("another is primary", || herd.primary().is_some_and(|id| id != 0));
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        sessions.into_iter().map(|session| session.join().expect("a session must survive")).collect()
    });
    let primary = herd.primary().expect("there is one");
    for seen in &all {
        println!("{how}: longest gap {:?}, errors {:?}", seen.longest, seen.errors);
        assert!(seen.longest < limit, "{how}: {seen:?}");
        for (after, code) in &seen.errors {
            assert!(["08007", "40001"].contains(&code.as_str()), "{how}: {code} after {after:?}");
            assert!(*after < Duration::from_millis(1500), "{how}: a statement sent {after:?} after the fault fails");
        }
        for row in &seen.acknowledged {
            let count = herd.server(primary).psql("postgres", &format!("SELECT count(*) FROM t WHERE n = {row}"));
            assert_eq!(count.expect("it runs").trim(), "1", "{how}: acknowledged row {row}");
        }
    }
    assert!(all.iter().all(|seen| !seen.acknowledged.is_empty()));
    let failed: usize = all.iter().map(|seen| seen.errors.len()).sum();
    let unknown: usize = all.iter().map(|seen| seen.unknown.len()).sum();
    println!("{how}: {failed} statements failed, {unknown} of them with an unknown outcome");
}

#[test]
fn s15_r19_sessions_survive_a_killed_primary_and_writes_wait() {
    survived("kill -9", |herd| herd.server(0).kill9().expect("killed"), Duration::from_secs(6));
}

#[test]
fn s11_r19_sessions_survive_a_frozen_primary_and_writes_wait() {
    survived("SIGSTOP", |herd| herd.server(0).freeze().expect("frozen"), Duration::from_secs(9));
}

#[test]
fn s31_r19_a_read_that_the_primary_would_have_answered_does_not_wait_for_another_one() {
    let Some(herd) = Herd::start("promote = \"never\"\nhold_timeout = \"30s\"", &[]) else { return };
    herd.write_again(1);
    // A third of them read from the primary, unless all sixteen are lucky.
    let mut clients: Vec<_> = (0..16).map(|_| herd.client()).collect();
    let known = |client: &mut RawClient| {
        let frames = client.query("PGPOOL SHOW ROUTE 'SELECT n FROM t WHERE n = 1'");
        let told: Vec<_> = frames.iter().filter(|frame| frame.tag == b'D').flat_map(Frame::columns).flatten().collect();
        let reads = ["It is a read.", "the primary takes this session's reads"];
        reads.iter().any(|why| told.iter().any(|said| said.contains(why)))
    };
    eventually("the table is known to all", || clients.iter_mut().all(known));
    // Some have written, and read only where that has been replayed.
    for (at, client) in clients.iter_mut().enumerate().filter(|(at, _)| at % 4 > 1) {
        let frames = client.query(&format!("INSERT INTO t VALUES ({})", 1_000 + at));
        assert_eq!(frames.iter().find_map(Frame::sqlstate), None, "{frames:?}");
    }
    let have = |id: u16| herd.server(id).psql("postgres", "SELECT count(*) FROM t WHERE n >= 1000");
    eventually("the standbys have it", || [1, 2].iter().all(|id| have(*id).is_ok_and(|said| said.trim() == "8")));
    // How far that was is known once the primary was probed again (SESSIONS R7).
    eventually("that is known", || clients.iter_mut().all(known));
    herd.server(0).kill9().expect("killed");
    let begun = Instant::now();
    for (at, client) in clients.iter_mut().enumerate() {
        // Every other one in a block that is not bound to any server yet.
        if at % 2 == 1 {
            client.query("BEGIN");
        }
        client.send(&query("SELECT n FROM t WHERE n = 1")).expect("sent");
    }
    for client in &mut clients {
        let frames = client.until_ready().expect("an answer");
        assert_eq!(frames.iter().find_map(Frame::sqlstate), None, "{frames:?}");
        assert!(frames.iter().any(|frame| frame.tag == b'D'), "{frames:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Clients that have done something, in front of servers that are all stopped since: their writes wait.
fn without_servers(settings: &str, count: usize) -> Option<(Herd, Vec<RawClient>)> {
    let herd = Herd::start(settings, &[])?;
    let mut clients: Vec<_> = (0..count).map(|_| herd.client()).collect();
    for client in &mut clients {
        client.query("SELECT 1");
    }
    for id in [1, 2, 0] {
        herd.server(id).stop().expect("stopped");
    }
    eventually("writes wait", || matches!(herd.writes(), pgherd::cluster::Writes::Held { .. }));
    Some((herd, clients))
}

/// So many statements wait now.
fn held(herd: &Herd, count: &str) -> bool {
    let said = herd.client().query("PGPOOL SHOW COUNTERS");
    let wanted = [Some("held_now".to_owned()), Some(count.to_owned())];
    said.iter().filter(|frame| frame.tag == b'D').any(|frame| frame.columns() == wanted)
}

#[test]
fn h14_a_hold_is_bounded_in_memory() {
    // A buffer of 8 kB fits, and what fits into the smallest one beside it.
    let settings = "promote = \"builtin\"\nhold_timeout = \"60s\"\nmax_held_memory = \"10kB\"";
    let Some((herd, mut clients)) = without_servers(settings, 3) else { return };
    let long = |row: u32| format!("INSERT INTO t VALUES ({row}) -- {}", "x".repeat(4_000));
    clients[0].send(&query(&long(0))).expect("sent");
    eventually("the long one is held", || held(&herd, "1"));
    let refused = clients[1].query(&long(1));
    assert_eq!(refused.iter().find_map(Frame::sqlstate).as_deref(), Some("57P03"), "{refused:?}");
    assert!(refused[0].field(b'M').is_some_and(|text| text.contains("max_held_memory")), "{refused:?}");
    clients[2].send(&query("INSERT INTO t VALUES (2)")).expect("sent");
    eventually("a short one is held beside it", || held(&herd, "2"));
    for id in [0, 1, 2] {
        herd.server(id).start().expect("starts");
    }
    for client in [0, 2] {
        let frames = clients[client].until_ready().expect("an answer");
        assert_eq!(frames.iter().find_map(Frame::sqlstate), None, "{frames:?}");
    }
    // What has left takes no room any more.
    clients[1].query("SELECT 1");
    let again = clients[1].query(&long(1));
    assert_eq!(again.iter().find_map(Frame::sqlstate), None, "{again:?}");
    assert_eq!(herd.try_sql("SELECT count(*) FROM t WHERE n < 3").expect("it answers"), ["3"]);
}

#[test]
fn h14_a_hold_is_bounded_in_time_and_number_and_can_be_cancelled() {
    let settings = "promote = \"builtin\"\nhold_timeout = \"4s\"\nmax_held = 2";
    let Some((herd, mut clients)) = without_servers(settings, 4) else { return };
    let begun = Instant::now();
    let code = |frames: &[Frame]| frames.iter().find_map(Frame::sqlstate);
    for (row, client) in clients.iter_mut().enumerate().take(2) {
        client.send(&query(&format!("INSERT INTO t VALUES ({row})"))).expect("sent");
    }
    eventually("two are held", || held(&herd, "2"));
    let third = clients[2].query("INSERT INTO t VALUES (2)");
    assert_eq!(code(&third).as_deref(), Some("57P03"), "{third:?}");
    assert!(third[0].field(b'M').is_some_and(|text| text.contains("max_held")), "{third:?}");
    // What is cancelled, and what nobody waits for any more, leaves its place and never runs.
    clients[0].cancel(herd.port());
    let cancelled = clients[0].until_ready().expect("an answer");
    assert_eq!(code(&cancelled).as_deref(), Some("57014"), "{cancelled:?}");
    let last = clients[3].query("INSERT INTO t VALUES (3)");
    assert_eq!(code(&last).as_deref(), Some("57P03"), "{last:?}");
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    clients.remove(1);
    for id in [0, 1, 2] {
        herd.server(id).start().expect("starts");
    }
    herd.write_again(100);
    let rows = herd.server(0).psql("postgres", "SELECT string_agg(n::text, ',') FROM t WHERE n < 10").expect("it runs");
    assert_eq!(rows.trim(), "", "a statement that was given up has run");
    // The sessions are as they were.
    for client in &mut clients {
        assert_eq!(values(&client.query("SELECT 7")), ["7"]);
    }
}

#[test]
fn h14_what_is_sent_ahead_shares_the_time_of_what_is_held_and_goes_with_its_client() {
    let Some(herd) = Herd::start("promote = \"never\"\nhold_timeout = \"3s\"", &[]) else { return };
    let (mut ahead, mut gone) = (herd.client(), herd.client());
    ahead.query("SELECT 1");
    gone.query("SELECT 1");
    herd.server(0).stop().expect("stopped");
    eventually("writes wait", || matches!(herd.writes(), pgherd::cluster::Writes::Held { .. }));
    let begun = Instant::now();
    // More than any buffer takes, so that the end of the client lies behind what is not read while the first one waits.
    let filler = "x".repeat(60);
    let many: Vec<u8> =
        (0..4_000).flat_map(|row| query(&format!("INSERT INTO t VALUES ({row}) -- {filler}"))).collect();
    gone.send(&many).expect("sent");
    drop(gone);
    for row in 10_000..10_005 {
        ahead.send(&query(&format!("INSERT INTO t VALUES ({row})"))).expect("sent");
    }
    for _ in 0..5 {
        let refused = ahead.until_ready().expect("an answer");
        assert_eq!(refused.iter().find_map(Frame::sqlstate).as_deref(), Some("57P03"), "{refused:?}");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(6), "each has waited for itself: {took:?}");
    herd.server(0).start().expect("starts");
    eventually("writes go on", || herd.writes() == pgherd::cluster::Writes::Open);
    assert_eq!(values(&ahead.query("INSERT INTO t VALUES (20000) RETURNING n")), ["20000"]);
    assert_eq!(herd.server(0).psql("postgres", "SELECT count(*) FROM t").expect("a read").trim(), "1");
}

#[test]
fn h04_what_was_held_is_released_in_the_pools_pace() {
    let Some(herd) = Herd::start("promote = \"builtin\"\n[pool]\nsize = 3", &[]) else { return };
    let mut clients: Vec<_> = (0..60).map(|_| herd.client()).collect();
    herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    eventually("writes wait", || matches!(herd.writes(), pgherd::cluster::Writes::Held { .. }));
    for (row, client) in clients.iter_mut().enumerate() {
        client.send(&query(&format!("INSERT INTO t SELECT {row} + 1000 FROM pg_sleep(0.05)"))).expect("sent");
    }
    eventually("another is primary", || herd.primary().is_some_and(|id| id != 0));
    let primary = herd.primary().expect("there is one");
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'postgres' AND query LIKE '%pg_sleep(0.05)' \
        AND pid <> pg_backend_pid()";
    let mut most = 0;
    while herd.server(primary).psql("postgres", "SELECT count(*) FROM t WHERE n >= 1000").expect("a read").trim()
        != "60"
    {
        let now = herd.server(primary).psql("postgres", asked).expect("a read").trim().parse().expect("a number");
        most = most.max(now);
    }
    assert!((1..=3).contains(&most), "{most} connections for a pool of 3");
    for client in &mut clients {
        let frames = client.until_ready().expect("an answer");
        assert_eq!(frames.iter().find_map(Frame::sqlstate), None, "{frames:?}");
    }
}
