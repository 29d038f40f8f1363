//! Pools: bounded, clean between sessions, repaired, visible in `pg_stat_activity`.

use std::time::{Duration, Instant};

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, query, tags};
use crate::common::{self, database, eventually};

/// Everything on the primary, in one pool of `size`.
fn small(size: u32, pool: &str) -> Options {
    Options { size, weights: vec![1.0, 0.0, 0.0], pool: pool.to_owned(), ..Options::default() }
}

#[test]
fn r21_a_full_pool_says_so_after_its_deadline() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    let proxy = Proxy::start(cluster, &small(1, "queue_timeout = \"500ms\""));
    let db = database(cluster, "pools");
    let mut holder = RawClient::login(proxy.port(), &db);
    let mut waiter = RawClient::login(proxy.port(), &db);
    holder.query("BEGIN; CREATE TABLE t ()");
    let begun = Instant::now();
    let frames = waiter.query("CREATE TABLE u ()");
    assert_eq!(frames[0].sqlstate().as_deref(), Some("53300"), "{frames:?}");
    assert!(begun.elapsed() >= Duration::from_millis(450) && begun.elapsed() < Duration::from_secs(5));
    assert_eq!(frames.last().map(|frame| frame.tag), Some(b'Z'), "the session stays");
    holder.query("COMMIT");
    assert_eq!(tags(&waiter.query("CREATE TABLE u ()")), "CZ");
}

#[test]
fn r15_two_sessions_with_pools_of_one_do_not_deadlock() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 1, ..Options::default() });
    let db = database(cluster, "pools");
    RawClient::login(proxy.port(), &db).query("CREATE TABLE t (n int); INSERT INTO t VALUES (0)");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = RawClient::login(proxy.port(), &db);
                for _ in 0..30 {
                    assert_eq!(tags(&client.query("BEGIN")), "CZ");
                    assert_eq!(client.values("SELECT count(*) FROM t"), ["1"]);
                    assert_eq!(tags(&client.query("UPDATE t SET n = n + 1")), "CZ");
                    assert_eq!(client.values("SELECT count(*) FROM t"), ["1"]);
                    assert_eq!(tags(&client.query("COMMIT")), "CZ");
                }
            });
        }
    });
    assert_eq!(RawClient::login(proxy.port(), &db).values("SELECT n FROM t"), ["180"]);
}

#[test]
fn r01_nothing_of_one_session_is_seen_by_the_next() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &small(1, "max_pinned = 1"));
    let db = database(cluster, "pools");
    let leave = [
        "SET search_path = nowhere",
        "SET app.tenant = 'mine'",
        "SELECT set_config('app.tenant', 'mine', false)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', 'mine', false); \
         CREATE TEMP TABLE hidden (); PERFORM pg_advisory_lock(7); RETURN 1; END $$",
        "SELECT f()",
        "CREATE TEMP TABLE mine (n int)",
        "SELECT pg_advisory_lock(42)",
        "LISTEN gossip",
        "PREPARE p AS SELECT 1",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "SET SESSION AUTHORIZATION pg_read_all_data",
        "BEGIN; SELECT 1/0",
        "SET ROLE pg_monitor",
    ];
    for sql in leave {
        let mut first = RawClient::login(proxy.port(), &db);
        first.query(sql);
        first.send(&crate::common::raw::terminate()).expect("sent");
        drop(first);
        let mut second = RawClient::login(proxy.port(), &db);
        let seen = second.values(
            "SELECT concat_ws('|', current_setting('search_path'), current_setting('app.tenant', true), session_user, \
             current_user, (SELECT count(*) FROM pg_class WHERE relpersistence = 't'), \
             (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
             (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors))",
        );
        assert!(
            ["\"$user\", public||postgres|postgres|0|0|0|0", "\"$user\", public|postgres|postgres|0|0|0|0"]
                .contains(&seen[0].as_str()),
            "{sql} left {seen:?}"
        );
    }
}

#[test]
fn r03_prepared_statements_follow_their_session() {
    use crate::common::raw::{bind, execute, parse, sync};
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &small(2, ""));
    let db = database(cluster, "pools");
    let mut clients: Vec<RawClient> = (0..6).map(|_| RawClient::login(proxy.port(), &db)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let sql = format!("SELECT {number} + $1::int");
        client.send(&[parse("same", &sql, &[]), sync()].concat()).expect("sent");
        assert_eq!(tags(&client.until_ready().expect("an answer")), "1Z");
    }
    for round in 0..10 {
        for (number, client) in clients.iter_mut().enumerate() {
            let text = round.to_string();
            client.send(&[bind("", "same", &[Some(&text)]), execute("", 0), sync()].concat()).expect("sent");
            let frames = client.until_ready().expect("an answer");
            assert_eq!(tags(&frames), "2DCZ", "{frames:?}");
            assert_eq!(crate::common::raw::values(&frames), [(number + round).to_string()]);
        }
    }
    // Prepared under one date style and executed under another: R3's trap.
    let client = &mut clients[0];
    client.query("SET DateStyle = 'ISO, MDY'");
    client.send(&[parse("day", "SELECT '01/02/2024'::date::text", &[]), sync()].concat()).expect("sent");
    client.until_ready().expect("an answer");
    let other = &mut clients[1];
    other.query("SET DateStyle = 'ISO, DMY'");
    other.send(&[parse("day", "SELECT '01/02/2024'::date::text", &[]), sync()].concat()).expect("sent");
    other.until_ready().expect("an answer");
    for (number, day) in [(0, "2024-01-02"), (1, "2024-02-01"), (0, "2024-01-02")] {
        clients[number].send(&[bind("", "day", &[]), execute("", 0), sync()].concat()).expect("sent");
        assert_eq!(crate::common::raw::values(&clients[number].until_ready().expect("an answer")), [day]);
    }
}

#[test]
fn a_broken_server_connection_is_replaced_unseen() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    let proxy = Proxy::start(cluster, &small(3, ""));
    let db = database(cluster, "pools");
    let mut clients: Vec<RawClient> = (0..3).map(|_| RawClient::login(proxy.port(), &db)).collect();
    for _ in 0..5 {
        clients.iter_mut().for_each(|client| assert_eq!(client.values("SELECT 1"), ["1"]));
        let kill = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{db}'");
        cluster.primary().psql("postgres", &kill).expect("killed");
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}'");
        eventually("backends end", || cluster.primary().psql("postgres", &gone).expect("counted") == "0");
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.values("SELECT 1"), ["1"]));
}

#[test]
fn statement_mode_refuses_blocks() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    let proxy = Proxy::start(cluster, &Options { mode: "statement", ..Options::default() });
    let db = database(cluster, "pools");
    let mut client = RawClient::login(proxy.port(), &db);
    assert_eq!(tags(&client.query("CREATE TABLE t ()")), "CZ");
    for sql in ["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "LISTEN x"] {
        let frames = client.query(sql);
        assert_eq!(frames[0].sqlstate().as_deref(), Some("0A000"), "{sql}: {frames:?}");
    }
    assert_eq!(client.values("SELECT count(*) FROM t"), ["0"]);
}

#[test]
fn r17_a_client_that_does_not_read_stops_only_itself() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &small(4, ""));
    let db = database(cluster, "pools");
    let before = proxy.resident();
    let mut lazy: Vec<RawClient> = (0..3).map(|_| RawClient::login(proxy.port(), &db)).collect();
    for client in &mut lazy {
        client.send(&query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)")).expect("sent");
    }
    std::thread::sleep(Duration::from_secs(1));
    let mut other = RawClient::login(proxy.port(), &db);
    assert_eq!(other.values("SELECT 1"), ["1"]);
    if let (Some(before), Some(now)) = (before, proxy.resident()) {
        assert!(now < before + (40 << 20), "300 MB of unread rows made the proxy grow from {before} to {now}");
    }
    for client in &mut lazy {
        let mut rows = 0;
        while let (tag, _) = client.skim().expect("a message")
            && tag != b'Z'
        {
            rows += u32::from(tag == b'D');
        }
        assert_eq!(rows, 100_000);
    }
}
