//! Cancels (SESSIONS R18): at random moments, on a pool of two, between neighbours that must never be hit.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, bind, execute, parse, query, sync, values};
use crate::common::{self, Random, database};
use crate::tools::{code, on_primary, run, state, value};

/// Cancels sent: 10 000 with `LONG` set.
fn cancels() -> usize {
    if std::env::var_os("LONG").is_some() { 10_000 } else { 500 }
}

/// A session whose statements are cancelled at random; what it gets is its own answer or 57014.
fn cancelled(port: u16, db: &str, seed: u64, sent: &AtomicUsize, most: usize) -> usize {
    let mut client = RawClient::login(port, db);
    let mut random = Random::new(seed);
    let (mut hits, mut number) = (0, 0);
    while sent.fetch_add(1, Ordering::Relaxed) < most {
        number += 1;
        let mark = format!("{seed}/{number}");
        let sleep = random.pick(&["0.001", "0.003", "0.006"]);
        let sql = match random.below(3) {
            0 => format!("SELECT '{mark}' FROM (SELECT pg_sleep({sleep})) AS s"),
            1 => format!("INSERT INTO marks SELECT '{mark}' FROM (SELECT pg_sleep({sleep})) AS s RETURNING mark"),
            _ => format!("BEGIN; SELECT '{mark}' FROM (SELECT pg_sleep({sleep})) AS s; COMMIT"),
        };
        client.send(&query(&sql)).expect("sent");
        std::thread::sleep(Duration::from_micros(random.below(5000) as u64));
        client.cancel(port);
        let frames = client.until_ready().expect("an answer");
        match code(&frames).as_deref() {
            None => assert_eq!(values(&frames), [mark], "{sql}"),
            Some(error) => {
                assert_eq!(error, "57014", "{sql}: {frames:?}");
                hits += 1;
                // A cancel that comes late may hit the session's own next statement, never another's.
                while code(&client.query("ROLLBACK")).is_some() {}
            }
        }
    }
    hits
}

fn neighbour(port: u16, db: &str, name: &str, over: &AtomicBool) -> usize {
    let mut client = RawClient::login(port, db);
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let mark = format!("{name}/{number}");
        let sql = format!("SELECT '{mark}' FROM (SELECT pg_sleep(0.001)) AS s");
        let frames = client.query(&sql);
        assert_eq!(code(&frames), None, "a neighbour was hit: {frames:?}");
        assert_eq!(values(&frames), [mark]);
        let frames = client.query(&format!("INSERT INTO marks VALUES ('{name}')"));
        assert_eq!(code(&frames), None, "a neighbour was hit: {frames:?}");
    }
    number
}

#[test]
fn r18_random_cancels_hit_no_neighbour() {
    let Some(cluster) = common::cluster() else { return };
    for weights in [vec![1.0, 0.0, 0.0], vec![1.0, 1.0, 1.0]] {
        let proxy = Proxy::start(cluster, &Options { size: 2, weights, ..Options::default() });
        let db = database(cluster, "r18");
        run(&mut RawClient::login(proxy.port(), &db), "CREATE TABLE marks (mark text)");
        let (over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (hits, quiet) = std::thread::scope(|scope| {
            let neighbours: Vec<_> = ["a", "b", "c"]
                .into_iter()
                .map(|name| {
                    let (over, db, port) = (&over, &db, proxy.port());
                    scope.spawn(move || neighbour(port, db, name, over))
                })
                .collect();
            let victims: Vec<_> = (1..=4)
                .map(|seed| {
                    let (sent, db, port) = (&sent, &db, proxy.port());
                    scope.spawn(move || cancelled(port, db, seed, sent, cancels() / 2))
                })
                .collect();
            let hits: Vec<_> = victims.into_iter().map(|thread| thread.join()).collect();
            over.store(true, Ordering::Relaxed);
            let quiet: Vec<_> = neighbours.into_iter().map(|thread| thread.join()).collect();
            (hits, quiet)
        });
        let hits: usize = hits.into_iter().map(|hits| hits.expect("a victim ends well")).sum();
        let quiet: usize = quiet.into_iter().map(|count| count.expect("no neighbour was hit")).sum();
        assert!(hits > 3 && quiet > 10, "{hits} cancels hit, neighbours ran {quiet} statements");
    }
}

#[test]
fn r18_a_cancel_of_a_waiting_statement_leaves_the_holder_alone() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r18", 1, "") else { return };
    let mut holder = RawClient::login(proxy.port(), &db);
    let mut waiter = RawClient::login(proxy.port(), &db);
    run(&mut holder, "BEGIN; CREATE TABLE t (n int)");
    for _ in 0..20 {
        waiter.send(&query("SELECT count(*) FROM pg_class WHERE relname = 't'")).expect("sent");
        holder.send(&query("SELECT pg_sleep(0.03)")).expect("sent");
        std::thread::sleep(Duration::from_millis(10));
        waiter.cancel(proxy.port());
        assert_eq!(code(&waiter.until_ready().expect("an answer")).as_deref(), Some("57014"));
        let frames = holder.until_ready().expect("an answer");
        assert_eq!(code(&frames), None, "{frames:?}");
    }
    run(&mut holder, "COMMIT");
    assert_eq!(value(&mut waiter, "SELECT count(*) FROM pg_class WHERE relname = 't'"), "1");
}

#[test]
fn r18_a_cancel_of_an_idle_session_is_ignored() {
    let Some((proxy, db)) = on_primary("r18", 1, "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    for _ in 0..10 {
        client.cancel(proxy.port());
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(value(&mut client, "SELECT 1"), "1");
        run(&mut client, "BEGIN");
        client.cancel(proxy.port());
        std::thread::sleep(Duration::from_millis(20));
        run(&mut client, "CREATE TEMP TABLE x (n int) ON COMMIT DROP");
        client.cancel(proxy.port());
        std::thread::sleep(Duration::from_millis(20));
        run(&mut client, "COMMIT");
    }
}

#[test]
fn r12_a_block_whose_begin_was_cancelled_runs_nothing_outside_of_it() {
    let Some((proxy, db)) = on_primary("r12", 2, "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE marks (mark text)");
    let mut random = Random::new(12);
    let mut hits = 0;
    for round in 0..cancels() {
        run(&mut client, "BEGIN");
        // The cancel is on its way when the statement is, and with it the BEGIN that the proxy has answered itself.
        let insert = if round % 2 == 0 {
            query("INSERT INTO marks VALUES ('here')")
        } else {
            [parse("", "INSERT INTO marks VALUES ('here')", &[]), bind("", "", &[]), execute("", 0), sync()].concat()
        };
        client.send(&insert).expect("sent");
        std::thread::sleep(Duration::from_micros(random.below(300) as u64));
        client.cancel(proxy.port());
        let frames = client.until_ready().expect("an answer");
        match code(&frames).as_deref() {
            None => assert_eq!(state(&frames), 'T', "{frames:?}"),
            Some(error) => {
                hits += 1;
                assert_eq!((error, state(&frames)), ("57014", 'E'), "{frames:?}");
            }
        }
        while code(&client.query("ROLLBACK")).is_some() {}
    }
    println!("{hits} statements were cancelled");
    let mut other = RawClient::login(proxy.port(), &db);
    assert_eq!(value(&mut other, "SELECT count(*) FROM marks"), "0", "a statement ran outside of its block");
}
