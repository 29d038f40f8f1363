//! Writes on the primary, reads by weight over the standbys, and no refusal of a standby at a client.

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, tags};
use crate::common::{self, database, eventually, pgbench, psql};
use pgherd::app::demo::cluster::Cluster;

/// Committed transactions of `db` on each server, as PostgreSQL itself counts them.
fn commits(cluster: &Cluster, db: &str) -> Vec<f64> {
    let sql = format!("SELECT xact_commit FROM pg_stat_database WHERE datname = '{db}'");
    let read = |server: &pgherd::app::demo::server::Server| server.psql("postgres", &sql).expect("counted");
    cluster.servers().iter().map(|server| read(server).parse().expect("a number")).collect()
}

/// Runs `work`, and returns the share of each server in what came after it, which must be `transactions` at least.
fn shares(cluster: &Cluster, db: &str, transactions: f64, work: impl FnOnce()) -> Vec<f64> {
    let before = commits(cluster, db);
    work();
    let mut gained = Vec::new();
    // A server process reports its counts when it ends, or some seconds later.
    eventually("the counts arrive", || {
        gained = commits(cluster, db).iter().zip(&before).map(|(now, then)| now - then).collect();
        gained.iter().sum::<f64>() >= transactions
    });
    let all: f64 = gained.iter().sum();
    gained.iter().map(|count| count / all).collect()
}

#[test]
fn reads_are_spread_by_weight() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    for (weights, routing) in [
        // Reads of one session change their server at will only if they may go back in time.
        (vec![0.0, 1.0, 1.0], "statement_level = true\nconsistency = \"eventual\""),
        (vec![1.0, 1.0, 2.0], "statement_level = true\nconsistency = \"eventual\""),
        (vec![0.0, 1.0, 3.0], ""),
    ] {
        let options = Options { weights: weights.clone(), routing: routing.into(), size: 4, ..Options::default() };
        let proxy = Proxy::start(cluster, &options);
        let db = database(cluster, "routing");
        pgbench(cluster, proxy.port(), &db, "-i -q");
        cluster.wait_replayed(common::SOON).expect("standbys follow");
        // The first reads of a database stay on the primary until its catalog is known.
        let route = "PGPOOL SHOW ROUTE 'SELECT abalance FROM pgbench_accounts WHERE aid = 1'";
        eventually("the catalog is known", || psql(cluster, proxy.port(), &db, route).contains("|read|"));
        let got = shares(cluster, &db, 1580.0, || {
            if routing.is_empty() {
                pgbench(cluster, proxy.port(), &db, "-n -S -C -c 4 -t 400");
            } else {
                pgbench(cluster, proxy.port(), &db, "-n -S -c 4 -t 400");
            }
            drop(proxy);
        });
        let sum: f64 = weights.iter().sum();
        for (number, weight) in weights.iter().enumerate() {
            let (want, got) = (weight / sum, got[number]);
            assert!((want - got).abs() < 0.06, "server {number}: {got:.3} instead of {want:.3} by {weights:?}");
        }
    }
}

#[test]
fn writes_are_on_the_primary_and_read_at_once() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { weights: vec![0.0, 1.0, 1.0], ..Options::default() });
    let db = database(cluster, "routing");
    let mut client = RawClient::login(proxy.port(), &db);
    client.query("CREATE TABLE t (n int)");
    for number in 0..300 {
        assert_eq!(tags(&client.query(&format!("INSERT INTO t VALUES ({number})"))), "CZ");
        assert_eq!(client.values("SELECT max(n) FROM t"), [number.to_string()], "R7: read your writes");
    }
}

/// Reads by their first word which a standby refuses, or which would do harm there.
const WRITES: &[&str] = &[
    "SELECT nextval('s')",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR KEY SHARE",
    "SELECT n INTO TEMP copied FROM t",
    "WITH w AS (INSERT INTO t VALUES (1) RETURNING n) SELECT * FROM w",
    "SELECT writes()",
    "SELECT hidden_in_sql()",
    "SELECT txid_current()",
    "SELECT pg_current_xact_id()",
    "SELECT pg_export_snapshot()",
    "SELECT lo_create(0)",
    "SELECT pg_notify('a', 'b')",
    "SELECT setval('s', 7)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_current_wal_lsn()",
    "SELECT pg_create_restore_point('x')",
    "SELECT pg_switch_wal()",
    "SELECT query_to_xml('SELECT nextval(''s'')', true, true, '')",
    "EXPLAIN ANALYZE INSERT INTO t VALUES (3)",
    "TABLE v",
    "SELECT * FROM writing_view",
    "LISTEN x",
    "LOCK TABLE t",
    "BEGIN; LOCK TABLE t; COMMIT",
    "SELECT * FROM t TABLESAMPLE system (100) FOR SHARE",
    "VALUES (nextval('s'))",
    "SELECT count(*) FROM unlogged",
    "SELECT set_config('app.x', 'y', false)",
    "CHECKPOINT",
    "ANALYZE t",
    "SELECT pg_backend_pid() > 0",
    "SELECT pg_is_in_recovery()::int / 1",
];

#[test]
fn r08_r11_no_refusal_of_a_standby_reaches_a_client() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { weights: vec![0.0, 1.0, 1.0], ..Options::default() });
    let db = database(cluster, "routing");
    let mut client = RawClient::login(proxy.port(), &db);
    let setup = "CREATE SEQUENCE s; CREATE TABLE t (n int); CREATE UNLOGGED TABLE unlogged (n int); \
        CREATE VIEW v AS SELECT * FROM t; \
        CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (9); RETURN 1; END $$; \
        CREATE FUNCTION hidden_in_sql() RETURNS int LANGUAGE sql STABLE AS 'SELECT writes()'; \
        CREATE VIEW writing_view AS SELECT writes()";
    assert!(!tags(&client.query(setup)).contains('E'));
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    for sql in WRITES {
        // A session that has written nothing yet is the one that would read on a standby; the second time, the
        // proxy may remember what it learned from the first.
        for _ in 0..2 {
            let mut fresh = RawClient::login(proxy.port(), &db);
            let frames = fresh.query(sql);
            assert!(!tags(&frames).contains('E') || sql.starts_with("LOCK"), "{sql}: {frames:?}");
            fresh.query("DROP TABLE IF EXISTS copied; SELECT pg_advisory_unlock_all(); UNLISTEN *");
        }
    }
    assert_eq!(client.values("SELECT pg_is_in_recovery()"), ["f"], "R8: questions about the server go to the primary");
    assert_eq!(client.values("SHOW transaction_read_only"), ["off"]);
    assert_eq!(client.values("SHOW in_hot_standby"), ["off"]);
}

#[test]
fn r11_a_standby_that_lags_answers_by_the_primary() {
    let Some(cluster) = common::cluster() else { return };
    let routing = "consistency = \"eventual\"".to_owned();
    let proxy = Proxy::start(cluster, &Options { weights: vec![0.0, 1.0, 1.0], routing, ..Options::default() });
    let db = database(cluster, "routing");
    let mut writer = RawClient::login(proxy.port(), &db);
    let mut reader = RawClient::login(proxy.port(), &db);
    for number in 0..50 {
        assert_eq!(tags(&writer.query(&format!("CREATE TABLE t{number} (n int)"))), "CZ");
        assert_eq!(reader.values(&format!("SELECT count(*) FROM t{number}")), ["0"]);
    }
}
