//! Cancel requests: they end the statement of their own session and nothing else (SESSIONS R18).

use std::time::{Duration, Instant};

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, query};
use crate::common::{self, database};

#[test]
fn r18_a_running_statement_is_cancelled() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "cancel");
    let mut client = RawClient::login(proxy.port(), &db);
    // The first one may run on a standby, the second is a write.
    for sql in ["SELECT pg_sleep(30)", "CREATE TABLE t AS SELECT 1 FROM pg_sleep(30)", "BEGIN; SELECT pg_sleep(30)"] {
        let begun = Instant::now();
        client.send(&query(sql)).expect("sent");
        std::thread::sleep(Duration::from_millis(300));
        client.cancel(proxy.port());
        let frames = client.until_ready().expect("an answer");
        let error = frames.iter().find_map(|frame| frame.sqlstate());
        assert_eq!(error.as_deref(), Some("57014"), "{sql}: {frames:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    client.query("ROLLBACK");
    assert_eq!(client.values("SELECT 1"), ["1"]);
}

#[test]
fn r18_a_cancel_hits_no_other_session() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 1, weights: vec![1.0, 0.0, 0.0], ..Options::default() });
    let db = database(cluster, "cancel");
    let mut idle = RawClient::login(proxy.port(), &db);
    let mut busy = RawClient::login(proxy.port(), &db);
    assert_eq!(idle.values("SELECT 1"), ["1"]);
    for _ in 0..20 {
        busy.send(&query("SELECT pg_sleep(0.1)")).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        idle.cancel(proxy.port());
        let frames = busy.until_ready().expect("an answer");
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "cancelled by a stranger: {frames:?}");
    }
    let mut forged = RawClient::login(proxy.port(), &db);
    *forged.key.last_mut().expect("a key") ^= 0xFF;
    forged.cancel(proxy.port());
    forged.key.truncate(5);
    forged.cancel(proxy.port());
    assert_eq!(forged.values("SELECT 1"), ["1"]);
}

#[test]
fn r18_a_waiting_statement_is_cancelled() {
    if common::direct() {
        return;
    }
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 1, weights: vec![1.0, 0.0, 0.0], ..Options::default() });
    let db = database(cluster, "cancel");
    let mut holder = RawClient::login(proxy.port(), &db);
    let mut waiter = RawClient::login(proxy.port(), &db);
    holder.query("BEGIN; CREATE TABLE t ()");
    waiter.send(&query("CREATE TABLE u ()")).expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    waiter.cancel(proxy.port());
    let frames = waiter.until_ready().expect("an answer");
    assert_eq!(frames[0].sqlstate().as_deref(), Some("57014"), "{frames:?}");
    holder.query("COMMIT");
    assert_eq!(waiter.values("SELECT count(*) FROM pg_class WHERE relname IN ('t', 'u')"), ["1"]);
}
