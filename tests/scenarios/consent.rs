//! Two proxies and a primary that dies for both (SCENARIOS S33): one decision, one promotion, one hook run, the same epoch on both.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::time::Duration;

use crate::clients::Clients;
use crate::common::raw::RawClient;
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
