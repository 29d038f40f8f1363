//! Two proxies and a primary that dies for both (SCENARIOS S33): one decision, one promotion, one hook run, the same epoch on both.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::time::{Duration, Instant};

use crate::clients::Clients;
use crate::common::raw::{Frame, RawClient, query};
use crate::common::{SOON, eventually};
use crate::pair::{Both, Pair};
use crate::proxies::safe;
use crate::table;
use crate::world::{Setup, table as rows};

/// What a proxy says, asked on its own host.
fn ask(both: &Both, of: usize, sql: &str) -> Vec<std::collections::BTreeMap<String, String>> {
    let port = both.world.proxy.port();
    both.place(of).inside(|| {
        let address = format!("127.0.0.1:{port}").parse().expect("an address");
        rows(&RawClient::login_at(address, SOON).expect("a login").query(sql))
    })
}

/// Who is primary in which epoch, for a proxy.
pub fn primary(both: &Both, of: usize) -> Option<(String, String)> {
    let nodes = ask(both, of, "PGPOOL SHOW NODES");
    let row = nodes.iter().find(|row| row["role"] == "primary" && row["status"] == "up")?;
    Some((row["node_id"].clone(), row["epoch"].clone()))
}

pub fn events(both: &Both, event: &str) -> [usize; 2] {
    [0, 1].map(|of| both.log(of).matches(&format!("event=\"{event}\"")).count())
}

#[test]
fn s33_a_primary_that_dies_for_both_is_replaced_once() {
    let hook = "promote = \"builtin\"\nfailover_command = \"/bin/sh -c 'echo $0 >> %D/../hooks' %d\"\ncommand_timeout = \"20s\"";
    let settings = &[("synchronous_standby_names", "ANY 1 (*)")];
    let setup = Setup { failover: hook, settings, ..Setup::default() };
    let Some(both) = Both::start(&Pair { setup, ..Pair::default() }) else { return };
    assert_eq!(primary(&both, 0), primary(&both, 1), "both agree from the start");
    let mut clients = Clients::start(&both.world);
    clients.fault();
    both.world.server(0).kill9().expect("killed");
    let new = both.world.wait_promoted(0);
    both.world.wait_follows(3 - new, new);
    eventually("both agree", || primary(&both, 0).is_some() && primary(&both, 0) == primary(&both, 1));
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&both.world);
    safe(&both, &report);
    report.bounded();
    let of = |event| events(&both, event);
    assert_eq!((of("failover_begins"), of("promoted"), of("hook_begins")), ([1, 0], [1, 0], [1, 0]), "one proxy acts");
    table::gap(
        "S33",
        "primary killed for both proxies of a pair: one promotion, by one of them",
        Duration::from_secs(2),
        &report,
    );
}

/// From then on a probe may have noticed that the primary is late, and writes are held.
const UNNOTICED: Duration = Duration::from_millis(250);

/// How many writes a proxy has run again.
fn rewrites(both: &Both, of: usize) -> String {
    let all = ask(both, of, "PGPOOL SHOW COUNTERS");
    all.iter().find(|row| row["name"] == "rewrites").expect("it is counted")["value"].clone()
}

#[test]
fn h14_what_was_sent_to_a_frozen_primary_runs_again_at_the_proxy_that_acts_and_at_its_partner() {
    let Some(both) = Both::start(&Pair::default()) else { return };
    both.world.client().query("CREATE TABLE u (n int)");
    let port = both.world.proxy.port();
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    let mut clients = [0, 1].map(|of| both.place(of).inside(|| RawClient::login_at(address, SOON).expect("a login")));
    for client in &mut clients {
        client.patience(Duration::from_secs(30));
        assert!(client.query("INSERT INTO u VALUES (0)").iter().all(|frame| frame.tag != b'E'));
    }
    // The standbys' newest answers are about all of that.
    std::thread::sleep(Duration::from_millis(1_200));
    both.world.server(0).freeze().expect("frozen");
    let frozen = Instant::now();
    std::thread::sleep(Duration::from_millis(100));
    for (client, row) in clients.iter_mut().zip([1, 2]) {
        client.send(&query(&format!("INSERT INTO u VALUES ({row})"))).expect("sent");
    }
    let in_time = frozen.elapsed() < UNNOTICED;
    for client in &mut clients {
        let answer = client.until_ready().expect("the session stays");
        assert_eq!(answer.iter().find_map(Frame::sqlstate), None, "{answer:?}");
    }
    println!("answered {:?} after the freeze, sent in time: {in_time}", frozen.elapsed());
    if in_time {
        assert_eq!([0, 1].map(|of| rewrites(&both, of)), ["1", "1"]);
    }
    let of = |event| events(&both, event);
    assert_eq!(of("promoted"), [1, 0], "one proxy acts");
    let new = both.world.wait_promoted(0);
    // The old one does them now, where nobody looks.
    both.world.server(0).thaw().expect("goes on");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(both.world.told(new, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM u WHERE n > 0"), "1 2");
}
