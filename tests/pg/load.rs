//! `pgbench` in all its ways; the books must balance afterwards.

use std::time::Duration;

use crate::common::proxy::{Options, Proxy};
use crate::common::{self, database, pgbench, psql};
use pgherd::app::demo::cluster::Cluster;

/// A database with pgbench's tables, on all servers.
fn bench_database(cluster: &Cluster, port: u16) -> String {
    let db = database(cluster, "load");
    pgbench(cluster, port, &db, "-i -q -s 2");
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    db
}

/// The four sums of pgbench must agree, and the history must have `transactions` rows.
fn assert_balanced(cluster: &Cluster, port: u16, db: &str, transactions: u32) {
    let sql = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
               (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history), \
               (SELECT count(*) FROM pgbench_history)";
    let row = psql(cluster, port, db, sql);
    let sums: Vec<&str> = row.split('|').collect();
    assert!(sums[..4].iter().all(|sum| *sum == sums[0]), "the books do not balance: {row}");
    assert_eq!(sums[4], transactions.to_string(), "transactions lost or doubled");
}

#[test]
fn every_protocol_and_script_of_pgbench_runs_and_balances() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 5, ..Options::default() });
    let db = bench_database(cluster, proxy.port());
    let mut written = 0;
    for protocol in ["simple", "extended", "prepared"] {
        // A thread of pgbench for each client: it prepares inside a block and waits for the answer, while its other
        // clients' blocks stand still with the connections that the answer needs.
        let run = |more: &str| pgbench(cluster, proxy.port(), &db, &format!("-n -M {protocol} -c 12 -j 12 {more}"));
        run("-S -t 200");
        run("-t 40");
        run("-S -C -t 10");
        run("-C -t 5");
        run("-N -t 20");
        written += 12 * (40 + 5 + 20);
    }
    // -N leaves tellers and branches alone, so it is not part of the balance; its history rows carry deltas.
    let sql = "SELECT count(*) FROM pgbench_history";
    assert_eq!(psql(cluster, proxy.port(), &db, sql), written.to_string());
}

#[test]
fn five_hundred_clients_share_twenty_server_connections() {
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    common::hostile_limits();
    let proxy =
        Proxy::start(cluster, &Options { size: 20, pool: "queue_timeout = \"60s\"".into(), ..Options::default() });
    let db = bench_database(cluster, proxy.port());
    let connections = || -> Vec<u32> {
        // The autovacuum of what pgbench has just filled is no connection of ours.
        let ours = "backend_type = 'client backend'";
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}' AND {ours}");
        cluster
            .servers()
            .iter()
            .map(|s| s.psql("postgres", &sql).expect("counted").parse().expect("a number"))
            .collect()
    };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            pgbench(cluster, proxy.port(), &db, "-n -S -M prepared -c 500 -j 4 -t 40");
            pgbench(cluster, proxy.port(), &db, "-n -M simple -c 500 -j 4 -t 3");
        });
        let mut most = 0;
        while !run.is_finished() {
            let now = connections();
            assert!(now.iter().all(|count| *count <= 20), "more than the pool's size: {now:?}");
            most = most.max(now.iter().sum());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(most > 0, "no pool was seen in pg_stat_activity");
    });
    assert_balanced(cluster, proxy.port(), &db, 1500);
}

#[test]
fn r05_pinned_and_shared_sessions_balance_together() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 4, ..Options::default() });
    let db = bench_database(cluster, proxy.port());
    std::thread::scope(|scope| {
        let run = |arguments: &'static str| {
            let (db, port) = (&db, proxy.port());
            scope.spawn(move || pgbench(cluster, port, db, arguments))
        };
        let all =
            [run("-n -M prepared -c 10 -j 10 -t 60"), run("-n -M simple -c 10 -j 10 -t 60"), run("-n -S -c 10 -t 200")];
        all.into_iter().for_each(|one| drop(one.join().expect("a run")));
    });
    assert_balanced(cluster, proxy.port(), &db, 1200);
}

#[test]
fn session_mode_runs_the_same_load() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { mode: "session", ..Options::default() });
    let db = bench_database(cluster, proxy.port());
    pgbench(cluster, proxy.port(), &db, "-n -M prepared -c 10 -t 50");
    pgbench(cluster, proxy.port(), &db, "-n -S -C -c 10 -t 20");
    assert_balanced(cluster, proxy.port(), &db, 500);
}

#[test]
fn pgbench_pipelines() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 3, ..Options::default() });
    let db = bench_database(cluster, proxy.port());
    let script = cluster.folder().join("pipeline.sql");
    let text = "\\set aid random(1, 200000)\n\\startpipeline\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
                UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n\
                SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\\endpipeline\n";
    std::fs::write(&script, text).expect("written");
    for protocol in ["extended", "prepared"] {
        let arguments = format!("-n -M {protocol} -c 8 -j 8 -t 100 -f {}", script.display());
        pgbench(cluster, proxy.port(), &db, &arguments);
    }
    assert_eq!(psql(cluster, proxy.port(), &db, "SELECT sum(abalance) FROM pgbench_accounts"), "1600");
}

/// What the standard loads cost beyond forwarding: nothing of them is opaque, asked about or pinned, and no read is kept on the primary
/// but behind a write.
#[test]
fn r01_r05_r07_the_standard_loads_pay_for_no_rule() {
    let Some(cluster) = common::cluster().filter(|_| !common::direct()) else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = bench_database(cluster, proxy.port());
    let counters = || {
        let text = psql(cluster, proxy.port(), &db, "PGPOOL SHOW COUNTERS");
        let pair = |line: &str| line.split_once('|').map(|(name, value)| (name.to_owned(), value.to_owned()));
        text.lines().filter_map(pair).collect::<std::collections::BTreeMap<_, _>>()
    };
    // Until its functions and relations are known, a database's statements are trusted with nothing.
    common::eventually("the tables are known", || {
        psql(cluster, proxy.port(), &db, "PGPOOL SHOW ROUTE 'UPDATE pgbench_accounts SET abalance = 0'").ends_with("no")
    });
    for load in ["-S -M simple", "-S -M extended", "-S -M prepared", "-M simple", "-M prepared", "-N -M simple"] {
        let before = counters();
        pgbench(cluster, proxy.port(), &db, &format!("-n {load} -c 8 -j 8 -t 100"));
        let after = counters();
        for name in ["opaque", "probes", "pins", "retries", "kept"] {
            assert_eq!(before[name], after[name], "{name} of {load}");
        }
        assert_ne!(before, after, "the counters count");
    }
}
