//! Large results beside small statements on one data thread, and clients that do not read (SESSIONS R17).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common;
use crate::common::proxy::Proxy;
use crate::common::raw::{RawClient, query};
use crate::order::crowded;

/// A statement at a time for so long: median, 99th percentile, longest.
fn small_statements(client: &mut RawClient, length: Duration) -> (Duration, Duration, Duration) {
    let over = Instant::now() + length;
    let mut took = Vec::new();
    while Instant::now() < over {
        let begun = Instant::now();
        assert_eq!(client.values("SELECT 1"), ["1"]);
        took.push(begun.elapsed());
    }
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1])
}

/// Reads whatever comes up to ReadyForQuery; how many bytes that were.
fn swallow(client: &mut RawClient) -> u64 {
    let mut bytes = 0;
    loop {
        let (tag, length) = client.skim().expect("a message");
        bytes += length;
        if tag == b'Z' {
            return bytes;
        }
    }
}

#[test]
fn r17_huge_results_do_not_delay_small_statements_of_the_same_thread() {
    let _alone = crate::alone();
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &crowded(1, 4));
    let db = common::database(cluster, "huge");
    let mut small = RawClient::login(proxy.port(), &db);
    let alone = small_statements(&mut small, Duration::from_secs(1));
    let over = AtomicBool::new(false);
    let (beside, moved) = std::thread::scope(|scope| {
        let bulk = |sql: &'static str| {
            let (port, db, over) = (proxy.port(), &db, &over);
            scope.spawn(move || {
                let mut client = RawClient::login(port, db);
                let mut moved = 0;
                while !over.load(Ordering::Relaxed) {
                    client.send(&query(sql)).expect("sent");
                    moved += swallow(&mut client);
                }
                moved
            })
        };
        let bulks = [
            bulk("SELECT repeat('x', 8000) FROM generate_series(1, 10000)"),
            bulk("SELECT repeat('x', 50000000)"),
            bulk("COPY (SELECT repeat('x', 8000) FROM generate_series(1, 10000)) TO STDOUT"),
        ];
        let beside = small_statements(&mut small, Duration::from_secs(4));
        over.store(true, Ordering::Relaxed);
        (beside, bulks.map(|bulk| bulk.join().expect("it ends")))
    });
    println!("alone {alone:?}, beside {moved:?} bytes {beside:?}");
    assert!(moved.iter().all(|bytes| *bytes >= 50_000_000), "the large results did not move: {moved:?}");
    assert!(beside.1 < Duration::from_millis(200), "median, p99, longest: alone {alone:?}, beside {beside:?}");
}

/// CPU time that a process has used, user and system.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks");
    // A hundredth of a second each on Linux.
    Duration::from_millis(ticks * 10)
}

#[test]
fn r17_clients_that_do_not_read_cost_nobody_else_anything() {
    let _alone = crate::alone();
    let Some(cluster) = common::cluster() else { return };
    if common::direct() {
        return;
    }
    let proxy = Proxy::start(cluster, &crowded(1, 16));
    let db = common::database(cluster, "lazy");
    let mut small = RawClient::login(proxy.port(), &db);
    let (alone, ..) = small_statements(&mut small, Duration::from_secs(1));
    let before = proxy.resident().expect("a proxy");
    let mut lazy: Vec<RawClient> = (0..12).map(|_| RawClient::login(proxy.port(), &db)).collect();
    for client in &mut lazy {
        client.send(&query("SELECT repeat('x', 1000) FROM generate_series(1, 50000)")).expect("sent");
    }
    // Until the sockets on both sides are full.
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu(proxy.pid());
    std::thread::sleep(Duration::from_secs(2));
    let idle = cpu(proxy.pid()) - used;
    let (beside, _, longest) = small_statements(&mut small, Duration::from_secs(2));
    let grown = proxy.resident().expect("a proxy").saturating_sub(before);
    println!(
        "alone {alone:?}, beside {beside:?}, longest {longest:?}; grown by {grown} bytes; {idle:?} of CPU in two seconds"
    );
    // Its health checks cost a little.
    assert!(idle < Duration::from_millis(400), "clients that do not read keep the proxy busy: {idle:?} in two seconds");
    assert!(
        beside < alone * 4 + Duration::from_millis(5),
        "a statement took {alone:?} alone and {beside:?} beside them"
    );
    assert!(grown < 12 << 20, "12 × 50 MB of unread rows made the proxy grow by {grown} bytes");
    // One that reads a little now and then gets all of it in the end.
    let mut slow = lazy.pop().expect("twelve");
    for _ in 0..20 {
        slow.skim().expect("a message");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(lazy);
    assert!(swallow(&mut slow) > 49_000_000, "rows were lost");
}
