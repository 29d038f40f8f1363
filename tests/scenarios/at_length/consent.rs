//! A primary that one of two proxies alone has lost, proxies that do not see each other, two sides of a cut (SCENARIOS S34 to S36).

use std::time::{Duration, Instant};

use crate::clients::{Clients, TABLES};
use crate::common::raw::RawClient;
use crate::common::{SOON, eventually};
use crate::consent::{events, primary};
use crate::pair::{Both, PROXIES, Pair};
use crate::proxies::safe;
use crate::table;

#[test]
fn s35_s34_who_alone_loses_the_primary_promotes_nobody() {
    let Some(both) = Both::start(&Pair::default()) else { return };
    // (a) The standby proxy alone does not reach it.
    let clients = Clients::start(&both.world);
    both.world.net.part(crate::world::HOSTS[0], (PROXIES[1].0, PROXIES[1].1));
    eventually("it is alone", || both.log(1).contains("event=\"quarantined_here\""));
    clients.go_on(Duration::from_secs(5));
    both.world.net.join(crate::world::HOSTS[0], (PROXIES[1].0, PROXIES[1].1));
    eventually("it is found", || primary(&both, 1).is_some());
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    table::gap("S34", "(a) the standby proxy alone loses the primary", Duration::from_secs(1), &report);
    let clients = Clients::start(&both.world);
    // S35: they do not see each other, by any network; everything else they do.
    both.cut_heartbeats(true);
    both.world.net.part((PROXIES[0].0, PROXIES[0].1), (PROXIES[1].0, PROXIES[1].1));
    clients.go_on(Duration::from_secs(10));
    assert_eq!(both.holder(), Some(0), "the locks of the servers stay with who has them");
    both.cut_heartbeats(false);
    both.world.net.join((PROXIES[0].0, PROXIES[0].1), (PROXIES[1].0, PROXIES[1].1));
    eventually("they see each other", || both.state(0, 1) == "STANDBY" && both.state(1, 0) == "LEADER");
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    assert_eq!(events(&both, "promoted"), [0, 0]);
    table::gap("S35", "the two proxies see all but each other", Duration::from_secs(1), &report);
}

/// So long writes are tried on the minority's side behind the other side's promotion.
const BEHIND: Duration = Duration::from_secs(5);

#[test]
fn s36_of_two_sides_one_at_most_takes_writes() {
    let Some(both) = Both::start(&Pair::default()) else { return };
    both.world.told(0, TABLES);
    let port = both.world.proxy.port();
    // A client on each side, writing to the proxy of its side.
    let near = |of: usize| {
        let address = format!("127.0.0.1:{port}").parse().expect("an address");
        both.place(of).inside(|| RawClient::login_at(address, SOON))
    };
    let mut left = near(0).expect("served");
    left.patience(Duration::from_secs(2));
    assert!(left.try_query("INSERT INTO shared VALUES (1)").is_ok_and(|frames| frames.iter().all(|f| f.tag != b'E')));
    let cut = Instant::now();
    both.cut_heartbeats(true);
    let (db1, one) = (crate::world::HOSTS[0], (PROXIES[0].0, PROXIES[0].1));
    for far in [crate::world::HOSTS[1], crate::world::HOSTS[2], (PROXIES[1].0, PROXIES[1].1), crate::world::HOSTS[5]] {
        both.world.net.part(one, far);
        both.world.net.part(db1, far);
    }
    // Whoever is on the minority's side is acknowledged nothing behind the end of the lease.
    let mut last = None;
    let mut promoted = None;
    while cut.elapsed() < Duration::from_secs(60) && promoted.is_none() {
        let sent = Instant::now();
        let done = near(0).and_then(|mut client| {
            client.patience(Duration::from_secs(1));
            client.try_query("BEGIN; SET LOCAL synchronous_commit = off; INSERT INTO shared VALUES (2); COMMIT")
        });
        if done.is_ok_and(|frames| frames.iter().all(|frame| frame.tag != b'E')) {
            last = Some((sent, Instant::now()));
        }
        promoted = (1..=2).find(|id| both.world.ask(*id, "SELECT pg_is_in_recovery()").is_ok_and(|said| said == "f"));
    }
    let new = promoted.expect("the majority's side has promoted");
    // Nor behind the promotion, whatever is tried there.
    let (since, mut tried) = (Instant::now(), 0);
    while since.elapsed() < BEHIND {
        let said = near(0).and_then(|mut client| {
            client.patience(Duration::from_secs(1));
            client.try_query("BEGIN; SET LOCAL synchronous_commit = off; INSERT INTO shared VALUES (3); COMMIT")
        });
        assert!(!said.is_ok_and(|frames| frames.iter().all(|frame| frame.tag != b'E')), "acknowledged by the minority");
        tried += 1;
    }
    let row = "SELECT count(*) FROM shared WHERE n = 3";
    assert!(tried >= 3 && both.world.told(0, row) == "0", "{tried} tried, {} are there", both.world.told(0, row));
    let end = last.map_or(Duration::ZERO, |(_, answered)| answered - cut);
    assert!(end < Duration::from_secs(4), "acknowledged {end:?} after the cut");
    eventually("the majority's side takes writes", || {
        primary(&both, 1).is_some_and(|(node, _)| node == new.to_string())
    });
    both.watch.judge();
    for far in [crate::world::HOSTS[1], crate::world::HOSTS[2], (PROXIES[1].0, PROXIES[1].1), crate::world::HOSTS[5]] {
        both.world.net.join(one, far);
        both.world.net.join(db1, far);
    }
    both.cut_heartbeats(false);
    eventually("both agree", || primary(&both, 0).is_some() && primary(&both, 0) == primary(&both, 1));
    both.watch.judge();
    table::line(
        "S36",
        "{proxy1, db1 (primary)} cut from {proxy2, db2, db3, upstream}, later mended",
        &format!(
            "the minority acknowledged nothing later than {} behind the cut, and refused {tried} writes in {} behind the promotion of node {new}",
            table::seconds(end),
            table::seconds(BEHIND)
        ),
        "one side at most takes writes in an epoch",
        "asynchronous writes to the minority's side throughout",
    );
}
