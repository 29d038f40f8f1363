//! A storm of logins: all are let in and served, server connections are opened a few at a time.

use std::time::{Duration, Instant};

use pgherd::app::demo::cluster::{Cluster, Options as ClusterOptions};

use crate::common;
use crate::common::proxy::Proxy;
use crate::common::raw::{RawClient, query, startup, values};
use crate::order::{crowded, displaced};

/// Clients that come at once.
const CLIENTS: usize = 600;
/// Server connections that one data thread opens at the same time, as `backend::pool` has it.
const AT_ONCE: i64 = 8;

/// Connects them all, each with its startup packet on the way, before anything is read.
fn rush(port: u16, db: &str) -> Vec<RawClient> {
    let hello = startup(196_608, &[("user", "postgres"), ("database", db)]);
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| RawClient::connect(port).expect("a connection")).collect();
    clients.iter_mut().for_each(|client| client.send(&hello).expect("sent"));
    for (number, client) in clients.iter_mut().enumerate() {
        let frames = client.until_ready().unwrap_or_else(|error| panic!("client {number}: {error}"));
        assert_eq!(frames.last().map(|frame| frame.tag), Some(b'Z'), "client {number}: {frames:?}");
    }
    clients
}

/// A proxy with one data thread in front of one server with a database for the storm.
fn behind_one_server() -> Option<(Cluster, Proxy)> {
    if common::direct() {
        return None;
    }
    // Says that there is no PostgreSQL, if so.
    common::cluster()?;
    common::hostile_limits();
    let options = ClusterOptions { standbys: 0, max_connections: 100, ..ClusterOptions::default() };
    let cluster = Cluster::start(&options).expect("a cluster of its own");
    let proxy = Proxy::start(&cluster, &crowded(1, 20));
    cluster.primary().psql("postgres", "CREATE DATABASE storm").expect("a database");
    Some((cluster, proxy))
}

/// From now on a login at the server takes a second, so that those at the same time can be told from those in turn.
fn slow_down(cluster: &Cluster) {
    cluster.primary().psql("postgres", "ALTER SYSTEM SET post_auth_delay = '1s'").expect("set");
    cluster.primary().reload().expect("reloaded");
}

#[test]
fn r16_a_storm_of_logins_asks_once_how_the_primary_greets() {
    let _alone = crate::alone();
    let Some((cluster, proxy)) = behind_one_server() else { return };
    slow_down(&cluster);
    let begun = Instant::now();
    let clients = rush(proxy.port(), "storm");
    assert!(begun.elapsed() < Duration::from_secs(10), "logged in after {:?}", begun.elapsed());
    let open = cluster.primary().psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'storm'");
    assert_eq!(open.expect("counted"), "1", "one login asks, {CLIENTS} are greeted");
    drop(clients);
}

#[test]
fn r16_a_storm_of_connects_is_served_in_order_over_connections_opened_a_few_at_a_time() {
    let _alone = crate::alone();
    let Some((cluster, proxy)) = behind_one_server() else { return };
    cluster.primary().psql("storm", "CREATE SEQUENCE turn").expect("a sequence");
    // The first login asks a server for its parameters; its connection stays.
    drop(RawClient::login(proxy.port(), "storm"));
    slow_down(&cluster);
    // Also so that the connection of that login is not counted with those of the storm.
    std::thread::sleep(Duration::from_secs(1));

    let begun = Instant::now();
    let mut clients = rush(proxy.port(), "storm");
    let inside = begun.elapsed();
    for client in &mut clients {
        client.send(&query("SELECT nextval('turn'), pg_sleep(0.05)")).expect("sent");
    }
    let turn = |client: &mut RawClient| {
        let frames = client.until_ready().expect("an answer");
        values(&frames).first().and_then(|turn| turn.parse().ok()).unwrap_or_else(|| panic!("{frames:?}"))
    };
    let turns: Vec<usize> = clients.iter_mut().map(turn).collect();
    let served = begun.elapsed();

    let most = displaced(&turns);
    assert!(most <= 150, "one was moved by {most} places of {CLIENTS}");
    let sql = "SELECT count(*) || ' ' || max(n) FROM (SELECT count(*) OVER (ORDER BY backend_start RANGE BETWEEN CURRENT ROW \
               AND '800 ms' FOLLOWING) AS n FROM pg_stat_activity WHERE datname = 'storm') AS w";
    let counted = cluster.primary().psql("postgres", sql).expect("counted");
    let (open, at_once) = counted.split_once(' ').expect("two numbers");
    println!("logged in after {inside:?}, served after {served:?}; {open} server connections, {at_once} within 800 ms");
    assert_eq!(open, "20", "as many as the pool may have");
    let at_once: i64 = at_once.parse().expect("a number");
    assert!(at_once <= AT_ONCE, "{at_once} server connections were opened at once");
    assert!(served < Duration::from_secs(20), "served after {served:?}");
}
