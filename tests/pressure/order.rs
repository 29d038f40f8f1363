//! The queue for server connections (SESSIONS R16): strict on one thread, fair over two, and throughput does not fall with its length.

use std::time::Duration;

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, query};
use crate::common::{self, pgbench, psql};

/// Everything on the primary, in one pool of `size`, on so many data threads.
pub(crate) fn crowded(threads: u32, size: u32) -> Options {
    Options {
        size,
        weights: vec![1.0, 0.0, 0.0],
        listen: format!("threads = {threads}"),
        pool: "queue_timeout = \"60s\"".into(),
        ..Options::default()
    }
}

/// How far the place of each in the order of service was from its place in the order of asking. Each client's answer is the
/// number that the server's sequence gave it.
pub(crate) fn displaced(places: &[usize]) -> usize {
    let mut sorted: Vec<usize> = (0..places.len()).collect();
    sorted.sort_by_key(|&client| places[client]);
    sorted.iter().enumerate().map(|(rank, &client)| rank.abs_diff(client)).max().unwrap_or(0)
}

/// `count` clients ask one after the other while the only server connection is taken, then it is given back.
fn asked_one_after_the_other(threads: u32, count: usize, pause: Duration) -> Option<Vec<usize>> {
    let cluster = common::cluster()?;
    common::hostile_limits();
    let proxy = Proxy::start(cluster, &crowded(threads, 1));
    let db = common::database(cluster, "order");
    let mut holder = RawClient::login(proxy.port(), &db);
    holder.query("CREATE SEQUENCE turn");
    let mut clients: Vec<RawClient> = (0..count).map(|_| RawClient::login(proxy.port(), &db)).collect();
    holder.query("BEGIN; LOCK TABLE pg_description IN ACCESS SHARE MODE");
    for client in &mut clients {
        client.send(&query("SELECT nextval('turn')")).expect("sent");
        std::thread::sleep(pause);
    }
    // Long enough for the last of them to have joined the queue.
    std::thread::sleep(Duration::from_millis(300));
    holder.query("COMMIT");
    let turn = |client: &mut RawClient| {
        let frames = client.until_ready().expect("an answer");
        common::raw::values(&frames).first().and_then(|turn| turn.parse().ok()).unwrap_or_else(|| panic!("{frames:?}"))
    };
    Some(clients.iter_mut().map(turn).collect())
}

#[test]
fn r16_five_hundred_waiters_of_one_thread_are_served_strictly_in_order() {
    let _alone = crate::alone();
    if common::direct() {
        return;
    }
    let Some(turns) = asked_one_after_the_other(1, 500, Duration::from_micros(200)) else { return };
    let expected: Vec<usize> = (1..=500).collect();
    assert_eq!(turns, expected, "at most {} places out of order", displaced(&turns));
}

#[test]
fn r16_waiters_of_two_threads_take_turns() {
    let _alone = crate::alone();
    if common::direct() {
        return;
    }
    let Some(turns) = asked_one_after_the_other(2, 300, Duration::from_millis(1)) else { return };
    // One thread that served all of its own first would move half of them by half the queue.
    let most = displaced(&turns);
    assert!(most <= 75, "one was moved by {most} places of 300: {turns:?}");
}

/// Mean, 99th percentile and longest latency in ms of all transactions that `pgbench` has logged.
fn latencies(folder: &std::path::Path, prefix: &str) -> (f64, f64, f64) {
    let mut all: Vec<f64> = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the cluster's folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let text = std::fs::read_to_string(entry.path()).expect("a log");
            let took = |line: &str| line.split(' ').nth(2).and_then(|field| field.parse::<f64>().ok());
            all.extend(text.lines().filter_map(took).map(|microseconds| microseconds / 1000.0));
        }
    }
    assert!(!all.is_empty(), "pgbench logged nothing");
    all.sort_by(f64::total_cmp);
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    (mean, all[all.len() * 99 / 100], all[all.len() - 1])
}

#[test]
fn r16_eight_hundred_clients_on_four_connections_wait_alike() {
    let _alone = crate::alone();
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    common::hostile_limits();
    let proxy = Proxy::start(cluster, &crowded(2, 4));
    let db = common::database(cluster, "alike");
    pgbench(cluster, proxy.port(), &db, "-i -q -s 1");
    let rate = |clients: u32, log: &str| -> f64 {
        let log = format!("{}/{log}", cluster.folder().display());
        let said = pgbench(cluster, proxy.port(), &db, &format!("-n -S -c {clients} -j 2 -T 4 -l --log-prefix={log}"));
        let line = said.lines().find_map(|line| line.strip_prefix("tps = ")).expect("a rate");
        line.split(' ').next().and_then(|rate| rate.parse().ok()).expect("a number")
    };
    let few = rate(16, "few");
    let many = rate(800, "many");
    let (mean, p99, longest) = latencies(cluster.folder(), "many");
    let figures =
        format!("{few:.0}/s with 16, {many:.0}/s with 800; mean {mean:.1} ms, p99 {p99:.1}, longest {longest:.1}");
    println!("{figures}");
    assert!(p99 <= 3.0 * mean, "p99 is more than three times the mean: {figures}");
    assert!(longest <= 8.0 * mean, "one waited much longer than the others: {figures}");
    assert!(many >= 0.5 * few, "throughput falls with the length of the queue: {figures}");
    assert_eq!(psql(cluster, proxy.port(), &db, "SELECT 1"), "1");
}
