//! Servers lost under reads (SESSIONS R19) and in blocks (R20).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::cluster::Cluster;

use crate::common::fake::{FakeBackend, MARK, Malice};
use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, bind, execute, parse, query, sync, values};
use crate::common::{self, SOON, database, eventually};
use crate::tools::{breakable, code, extended, is_opaque, on_primary, reading, run, state, tag, value};

/// Reads until `over`; each must succeed and be right.
fn reader(port: u16, db: &str, over: &AtomicBool) -> usize {
    let mut client = RawClient::login(port, db);
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let number = count % 100 + 1;
        let sql = format!("SELECT n FROM t WHERE n = {number}");
        let frames = if count % 2 == 0 { client.query(&sql) } else { extended(&mut client, &sql) };
        assert_eq!(code(&frames), None, "read {count}: {frames:?}");
        assert_eq!(values(&frames), [number.to_string()], "read {count}");
        count += 1;
    }
    count
}

#[test]
fn r19_standbys_that_die_under_reads_cause_no_error() {
    if common::direct() {
        return;
    }
    let Some(guard) = breakable() else { return };
    let cluster = guard.as_ref().expect("it runs");
    let proxy = Proxy::start(cluster, &reading(4, "statement_level = true"));
    let db = database(cluster, "r19");
    run(&mut RawClient::login(proxy.port(), &db), "CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    cluster.wait_replayed(SOON).expect("standbys follow");
    let over = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6).map(|_| scope.spawn(|| reader(proxy.port(), &db, &over))).collect();
        std::thread::sleep(Duration::from_secs(1));
        for round in 0..3 {
            let standby = cluster.standby(round % 2);
            match round {
                0 => standby.kill9().expect("killed"),
                1 => standby.stop().expect("stopped at once"),
                _ => standby.stop_fast().expect("stopped"),
            }
            std::thread::sleep(Duration::from_millis(700));
            standby.start().expect("started again");
            std::thread::sleep(Duration::from_millis(700));
        }
        // One backend alone: the whole server restarts.
        let pids = cluster
            .standby(0)
            .psql("postgres", &format!("SELECT pid FROM pg_stat_activity WHERE datname = '{db}' LIMIT 1"));
        if let Some(pid) = pids.expect("asked").lines().next().and_then(|pid| pid.parse::<i32>().ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("killed");
        }
        std::thread::sleep(Duration::from_secs(1));
        over.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join()).collect::<Vec<_>>()
    });
    for count in counts {
        assert!(count.expect("no error") > 20);
    }
    eventually("the standbys are back", || cluster.wait_replayed(Duration::from_secs(1)).is_ok());
}

#[test]
fn r19_a_read_in_flight_runs_again_elsewhere() {
    if common::direct() {
        return;
    }
    let Some(guard) = breakable() else { return };
    let cluster = guard.as_ref().expect("it runs");
    let proxy = Proxy::start(cluster, &reading(4, ""));
    let db = database(cluster, "r19");
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    cluster.wait_replayed(SOON).expect("standbys follow");
    let sql = "SELECT count(*) FROM t, (SELECT pg_sleep(1)) AS s";
    let running = |number: usize| {
        let ask = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}' AND query LIKE '%pg_sleep(1)%' AND state = 'active'"
        );
        cluster.standby(number).psql("postgres", &ask).is_ok_and(|count| count == "1")
    };
    let mut found = None;
    eventually("a read runs on a standby", || {
        let mut fresh = RawClient::login(proxy.port(), &db);
        fresh.send(&query(sql)).expect("sent");
        std::thread::sleep(Duration::from_millis(150));
        found = (0..2).find(|number| running(*number)).map(|number| (number, fresh));
        found.is_some()
    });
    let (number, mut fresh) = found.expect("it runs");
    let kill = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{db}' AND query LIKE '%pg_sleep(1)%' AND pid <> pg_backend_pid()"
    );
    cluster.standby(number).psql("postgres", &kill).expect("terminated");
    let frames = fresh.until_ready().expect("an answer");
    assert_eq!((code(&frames), values(&frames)), (None, vec!["100".to_owned()]), "{frames:?}");
}

/// A block's read, as simple or extended protocol, is sent to a standby and does not come back from there.
fn lose_in_block(cluster: &Cluster, port: u16, db: &str, (begin, by_series, signal): (&str, bool, Signal)) {
    let sql = "SELECT count(*) FROM t, (SELECT pg_sleep(1)) AS s";
    let running = |number: usize| {
        let ask = format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{db}' AND query LIKE '%pg_sleep(1)%' AND state = 'active'"
        );
        cluster.standby(number).psql("postgres", &ask).ok()?.trim().parse::<i32>().ok()
    };
    let mut found = None;
    eventually("a read runs on a standby", || {
        let mut fresh = RawClient::login(port, db);
        run(&mut fresh, begin);
        let message = if by_series {
            [parse("", sql, &[]), bind("", "", &[]), execute("", 0), sync()].concat()
        } else {
            query(sql)
        };
        fresh.send(&message).expect("sent");
        std::thread::sleep(Duration::from_millis(150));
        match (0..2).find_map(running) {
            Some(pid) => found = Some((pid, fresh)),
            // On the primary: nobody else's is found next time.
            None => drop(fresh.until_ready()),
        }
        found.is_some()
    });
    let (pid, mut client) = found.expect("it runs");
    kill(Pid::from_raw(pid), signal).expect("signalled");
    let what = format!("{begin}, {by_series}, {signal}");
    let frames = client.until_ready().expect("an answer");
    assert_eq!(
        (code(&frames), values(&frames), state(&frames)),
        (None, vec!["100".to_owned()], 'T'),
        "{what}: {frames:?}"
    );
    // The block goes on, and ends as any other.
    let frames = run(&mut client, "INSERT INTO t VALUES (0)");
    assert_eq!(state(&frames), 'T', "{what}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "101", "{what}");
    let frames = run(&mut client, "ROLLBACK");
    assert_eq!((tag(&frames).as_str(), state(&frames)), ("ROLLBACK", 'I'), "{what}");
}

#[test]
fn r19_a_read_in_flight_in_a_block_runs_again_elsewhere_and_the_block_goes_on() {
    if common::direct() {
        return;
    }
    let Some(guard) = breakable() else { return };
    let cluster = guard.as_ref().expect("it runs");
    let proxy = Proxy::start(cluster, &reading(4, ""));
    let db = database(cluster, "r19");
    run(&mut RawClient::login(proxy.port(), &db), "CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    cluster.wait_replayed(SOON).expect("standbys follow");
    for begin in ["BEGIN", "START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"] {
        for by_series in [false, true] {
            lose_in_block(cluster, proxy.port(), &db, (begin, by_series, Signal::SIGTERM));
        }
    }
    // The whole server restarts.
    lose_in_block(cluster, proxy.port(), &db, ("BEGIN", false, Signal::SIGKILL));
    eventually("the standbys are back", || cluster.wait_replayed(Duration::from_secs(1)).is_ok());
}

/// Ends every server process of `db` on the primary.
fn terminate_all(db: &str) {
    let kill = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{db}'");
    common::cluster().expect("it runs").primary().psql("postgres", &kill).expect("terminated");
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}'");
    eventually("they are gone", || {
        common::cluster().is_some_and(|cluster| cluster.primary().psql("postgres", &gone).expect("asked") == "0")
    });
}

#[test]
fn r20_the_block_of_a_lost_server_fails_and_the_session_lives() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r20", 2, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE t (n int); SET app.mine = 'kept'");
    for (end, by_series) in [("ROLLBACK", false), ("COMMIT", false), ("END", true), ("ABORT", true)] {
        let ask = |client: &mut RawClient, sql: &str| if by_series { extended(client, sql) } else { client.query(sql) };
        run(&mut a, "BEGIN");
        run(&mut a, "INSERT INTO t VALUES (1)");
        run(&mut a, "SAVEPOINT s");
        terminate_all(&db);
        let frames = ask(&mut a, "INSERT INTO t VALUES (2)");
        assert_eq!((code(&frames).as_deref(), state(&frames)), (Some("40001"), 'E'), "{frames:?}");
        for next in ["SELECT 1", "ROLLBACK TO s", "INSERT INTO t VALUES (3)", "RELEASE s", "BEGIN"] {
            let frames = ask(&mut a, next);
            assert_eq!((code(&frames).as_deref(), state(&frames)), (Some("25P02"), 'E'), "{next}: {frames:?}");
        }
        let frames = ask(&mut a, end);
        assert_eq!((tag(&frames).as_str(), state(&frames)), ("ROLLBACK", 'I'), "{end}");
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "0");
        assert_eq!(value(&mut a, "SHOW app.mine"), "kept");
    }
    // While it is idle outside a block nobody notices, unless the server was still to be asked what its transaction has left.
    eventually("the table is known", || !is_opaque(&mut a, "INSERT INTO t VALUES (4)"));
    for _ in 0..3 {
        terminate_all(&db);
        run(&mut a, "INSERT INTO t VALUES (4)");
    }
    assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "3");
}

#[test]
fn r20_a_statement_that_runs_when_its_server_dies() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r20", 2, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE t (n int)");
    // In a block: certainly rolled back. Alone, it may have been committed.
    for (begin, sql, want, after) in [
        ("BEGIN", "INSERT INTO t SELECT 1 FROM (SELECT pg_sleep(5)) AS s", "40001", 'E'),
        ("SELECT 1", "INSERT INTO t SELECT 1 FROM (SELECT pg_sleep(5)) AS s", "08007", 'I'),
        ("SELECT 1", "DO $$ BEGIN PERFORM pg_sleep(5); END $$", "08007", 'I'),
        ("SELECT 1", "INSERT INTO t VALUES (1); SELECT pg_sleep(5)", "08007", 'I'),
        ("BEGIN", "SELECT pg_sleep(5); COMMIT", "08007", 'I'),
    ] {
        run(&mut a, begin);
        a.send(&query(sql)).expect("sent");
        std::thread::sleep(Duration::from_millis(300));
        terminate_all(&db);
        let frames = a.until_ready().expect("an answer");
        let errors: Vec<_> = frames.iter().filter_map(|frame| frame.sqlstate()).collect();
        assert_eq!((errors, state(&frames)), (vec![want.to_owned()], after), "{sql}: {frames:?}");
        run(&mut a, "ROLLBACK");
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "0", "{sql}");
    }
}

#[test]
fn r20_a_lost_commit_is_unknown_never_failed() {
    if common::direct() {
        return;
    }
    let Some(cluster) = common::cluster() else { return };
    let fake = FakeBackend::start(cluster.primary().port(), Malice::SayAndClose(Vec::new()));
    let ports = vec![fake.port(), cluster.standby(0).port(), cluster.standby(1).port()];
    let proxy = Proxy::start(cluster, &Options { ports, weights: vec![1.0, 0.0, 0.0], size: 2, ..Options::default() });
    let db = database(cluster, "r20");
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE t (n int)");
    let mark = String::from_utf8_lossy(MARK).into_owned();
    for (begin, sql, want) in [
        ("BEGIN", format!("COMMIT /* {mark} */"), ("08007", 'I')),
        ("BEGIN", format!("END /* {mark} */"), ("08007", 'I')),
        ("BEGIN", format!("INSERT INTO t VALUES (1) /* {mark} */"), ("40001", 'E')),
        ("BEGIN", format!("PREPARE TRANSACTION '{mark}'"), ("08007", 'I')),
        ("SELECT 1", format!("INSERT INTO t VALUES (1) /* {mark} */"), ("08007", 'I')),
    ] {
        for by_series in [false, true] {
            run(&mut a, begin);
            if begin == "BEGIN" {
                run(&mut a, "INSERT INTO t VALUES (2)");
            }
            let frames = if by_series { extended(&mut a, &sql) } else { a.query(&sql) };
            assert_eq!(
                (code(&frames).as_deref(), state(&frames)),
                (Some(want.0), want.1),
                "{sql}, {by_series}: {frames:?}"
            );
            run(&mut a, "ROLLBACK");
        }
    }
    assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "0");
    assert!(fake.provoked() >= 10);
}

/// Makes what only its server connection holds, and looks whether it is there, while connections are terminated at any moment.
fn holder(port: u16, db: &str, over: &AtomicBool) -> (usize, usize) {
    let (mut kept, mut ended) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        let Ok(mut client) = RawClient::try_login(port, "postgres", db) else { continue };
        let mut ask = |sql: &str| client.try_query(sql).ok();
        let made = ["CREATE TEMP TABLE shadow AS SELECT 1 AS n", "SET search_path = pg_temp, public"];
        let frames: Vec<_> = made.into_iter().map_while(&mut ask).collect();
        if frames.len() < made.len() || frames.iter().any(|frames| code(frames).is_some()) {
            ended += 1;
            continue;
        }
        match ask("SELECT count(*) FROM shadow") {
            // The permanent table of that name is empty: the session would have lost its own without a word.
            Some(frames) if code(&frames).is_none() => assert_eq!(values(&frames), ["1"]),
            Some(frames) => {
                let code = code(&frames).unwrap_or_default();
                assert!(["08006", "40001", "53300"].contains(&code.as_str()), "{frames:?}");
            }
            None => {}
        }
        kept += 1;
    }
    (kept, ended)
}

#[test]
fn r20_state_that_is_lost_ends_its_session_with_the_reason() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r20", 8, "max_pinned = 8") else { return };
    let Some(cluster) = common::cluster() else { return };
    run(&mut RawClient::login(proxy.port(), &db), "CREATE TABLE shadow (n int)");
    let over = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        let holders: Vec<_> = (0..4).map(|_| scope.spawn(|| holder(proxy.port(), &db, &over))).collect();
        let mut killer = RawClient::login(cluster.primary().port(), "postgres");
        let kill = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{db}'");
        for round in 0..150 {
            killer.query(&kill);
            std::thread::sleep(Duration::from_millis(10 + 7 * (round % 9)));
        }
        over.store(true, Ordering::Relaxed);
        holders.into_iter().map(|holder| holder.join().expect("nothing was lost silently")).collect::<Vec<_>>()
    });
    let (kept, ended) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    assert!(kept > 20 && ended > 20, "{kept} kept, {ended} ended");
}
