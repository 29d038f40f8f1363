//! Clients that vanish in the middle of anything leave nothing behind.

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, bind, copy_data, execute, flush, message, parse, query, tags, terminate};
use crate::common::{self, SOON, database, eventually};

const BUSY: &str = "in a statement that runs for long";

/// How each client leaves: what it sends, and how many frames it reads before it is gone.
fn departures() -> Vec<(&'static str, Vec<u8>, usize)> {
    let series = [parse("", "INSERT INTO t VALUES (1)", &[]), bind("", "", &[]), execute("", 0)].concat();
    vec![
        ("in a block", query("BEGIN; INSERT INTO t VALUES (1)"), 3),
        ("in a failed block", query("BEGIN; INSERT INTO t VALUES (1); SELECT 1/0"), 4),
        ("in a block, politely", [query("BEGIN; INSERT INTO t VALUES (1)"), terminate()].concat(), 3),
        ("in a copy in", [query("COPY t FROM STDIN"), copy_data(b"1\n")].concat(), 1),
        ("in a copy in, half a message", [query("COPY t FROM STDIN"), copy_data(b"1\n")[..6].to_vec()].concat(), 1),
        ("in a copy out", query("COPY (SELECT generate_series(1, 1000000)) TO STDOUT"), 10),
        ("in a large result", query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"), 10),
        ("in a series without a sync", series.clone(), 0),
        ("in a series with a flush", [series, flush()].concat(), 3),
        ("in half a query", query("INSERT INTO t VALUES (1)")[..12].to_vec(), 0),
        (
            "in half a series",
            [parse("", "INSERT INTO t VALUES (1)", &[]), message(b'B', b"\0\0")[..3].to_vec()].concat(),
            0,
        ),
        (BUSY, query("SELECT pg_sleep(60)"), 0),
        ("with a temporary table", query("CREATE TEMP TABLE mine (n int)"), 2),
        ("with a lock", query("SELECT pg_advisory_lock(1)"), 4),
        (
            "with a portal open",
            [
                query("BEGIN"),
                parse("", "SELECT generate_series(1, 99)", &[]),
                bind("p", "", &[]),
                execute("p", 2),
                flush(),
            ]
            .concat(),
            7,
        ),
        ("listening", query("LISTEN x"), 2),
    ]
}

#[test]
fn a_client_that_vanishes_leaves_a_clean_pool() {
    let Some(cluster) = common::cluster() else { return };
    for mode in ["transaction", "session"] {
        let options = Options { mode, size: 1, weights: vec![1.0, 0.0, 0.0], ..Options::default() };
        let proxy = Proxy::start(cluster, &options);
        let db = database(cluster, "vanish");
        RawClient::login(proxy.port(), &db).query("CREATE TABLE t (n int)");
        for (how, bytes, frames) in departures() {
            if common::direct() && how == BUSY {
                // PostgreSQL itself does not notice before the statement ends.
                continue;
            }
            let mut client = RawClient::login(proxy.port(), &db);
            client.send(&bytes).expect("sent");
            for _ in 0..frames {
                client.frame().unwrap_or_else(|error| panic!("{mode}, {how}: {error}"));
            }
            drop(client);
            // The pool has one connection: what the vanished client held must come back, and clean.
            let mut next = RawClient::login(proxy.port(), &db);
            next.patience(SOON);
            let seen = next.values(
                "SELECT concat_ws('|', (SELECT count(*) FROM t), (SELECT count(*) FROM pg_class WHERE relpersistence = 't'))",
            );
            assert_eq!(seen, ["0|0"], "{mode}, {how}");
            assert_eq!(tags(&next.query("BEGIN")), "CZ", "{mode}, {how}");
        }
        let held = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}' AND state <> 'idle'");
        eventually("no server process is left busy", || {
            cluster.primary().psql("postgres", &held).expect("counted") == "0"
        });
    }
}

#[test]
fn many_vanishing_clients_leak_no_connection() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 3, ..Options::default() });
    let db = database(cluster, "vanish");
    RawClient::login(proxy.port(), &db).query("CREATE TABLE t (n int)");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for (_, bytes, _) in departures().iter().filter(|(how, ..)| *how != BUSY) {
                    for _ in 0..3 {
                        let mut client = RawClient::login(proxy.port(), &db);
                        client.send(bytes).expect("sent");
                    }
                }
            });
        }
    });
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}'");
    for server in cluster.servers() {
        eventually("the pools are within their size", || {
            let count: u32 = server.psql("postgres", &sql).expect("counted").parse().expect("a number");
            count <= 3 || common::direct()
        });
    }
    assert_eq!(RawClient::login(proxy.port(), &db).values("SELECT count(*) >= 0 FROM t"), ["t"]);
}
