//! Links of two proxies that go, one at a time, and members that do not fit (SCENARIOS S4, S22 to S24, S34).

use std::time::Duration;

use crate::clients::Clients;
use crate::common::eventually;
use crate::pair::{Both, PROXIES, Pair, VIP, said};
use crate::proxies::{replaced, safe};
use crate::table;
use crate::world::HOSTS;

const TRUSTED: &str = "trusted_servers = [\"10.77.0.100\"]";

#[test]
fn s23_an_active_proxy_without_its_service_network_hands_over() {
    let Some(mut both) = Both::start(&Pair { watchdog: TRUSTED, ..Pair::default() }) else { return };
    let report = replaced(&mut both, |both| both.world.net.cut(PROXIES[0].0));
    table::gap("S23", "active proxy's service network cut", Duration::from_secs(6), &report);
    both.world.net.mend(PROXIES[0].0);
    eventually("it is a standby", || both.state(0, 0) == "STANDBY");
    safe(&both, &report);
}

/// With the servers' locks as the third vote: it is not asked for, since the partner still hears us by the heartbeat networks.
#[test]
fn h03_an_active_proxy_whose_cable_is_pulled_hands_over() {
    let watchdog = "vip_on = \"interface\"\ninterface = \"lan0\"";
    let Some(mut both) = Both::start(&Pair { watchdog, ..Pair::default() }) else { return };
    let report = replaced(&mut both, |both| both.world.net.unplug(PROXIES[0].0));
    assert!(both.log(0).contains("event=\"link_down\"") && both.log(0).contains("event=\"yielded\""));
    let primary = |seen: bool| {
        let told = both.pcp(1, env!("CARGO_BIN_EXE_pgherd"), &["pcp", "--json", "watchdog-info"]).expect("it answers");
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        told["members"][0]["reaches_primary"] == seen
    };
    assert!(primary(false), "without a carrier it counts as reaching nobody");
    table::gap("H3", "`arbiter = \"nodes\"`: the active proxy's cable is pulled", Duration::from_secs(2), &report);
    both.world.net.mend(PROXIES[0].0);
    eventually("it is fit again", || both.state(1, 0) == "STANDBY" && primary(true));
    both.watch.judge();
}

#[test]
fn s34_an_active_proxy_that_alone_loses_the_primary_hands_over() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    let report = replaced(&mut both, |both| both.world.net.part(HOSTS[0], (PROXIES[0].0, PROXIES[0].1)));
    assert!(!both.log(0).contains("event=\"promoted\"") && !both.log(1).contains("event=\"promoted\""));
    table::gap("S34", "(b) the active proxy alone loses the primary", Duration::from_secs(6), &report);
}

#[test]
fn s22_s24_a_standby_proxy_without_a_network_disturbs_nobody() {
    let Some(both) = Both::start(&Pair { watchdog: TRUSTED, ..Pair::default() }) else { return };
    let clients = Clients::start(&both.world);
    both.world.net.cut(PROXIES[1].0);
    clients.go_on(Duration::from_secs(8));
    both.world.net.mend(PROXIES[1].0);
    eventually("it is a standby again", || both.state(0, 1) == "STANDBY" && both.state(1, 1) == "STANDBY");
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    assert_eq!(both.holder(), Some(0));
    table::gap("S22", "standby proxy's service network cut, mended", Duration::from_secs(1), &report);

    let warnings = || [0, 1].map(|of| both.log(of).matches("event=\"heartbeat_lost\"").count());
    let before = warnings();
    let clients = Clients::start(&both.world);
    both.world.net.cut_also("hba", PROXIES[1].0, true);
    clients.go_on(Duration::from_secs(5));
    both.world.net.cut_also("hba", PROXIES[1].0, false);
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    assert_eq!(both.holder(), Some(0));
    assert_eq!(warnings(), before.map(|count| count + 1), "one at each proxy");
    table::gap("S24", "one heartbeat network cut: one warning at each proxy", Duration::from_secs(1), &report);
}

#[test]
fn s02_an_address_that_somebody_else_has_is_not_taken() {
    let stranger = |both: &Both, what: &str| {
        said(&both.world.net.host("db3"), "ip", &["addr", what, &format!("{VIP}/32"), "dev", "lan0"])
    };
    let Some(both) = Both::start(&Pair::default()) else { return };
    let clients = Clients::start(&both.world);
    drop(clients.stop(&both.world));
    // While nobody has it a stranger takes it: neither of the two does then.
    let mut both = both;
    stranger(&both, "add");
    both.proxy(0).kill9();
    eventually("it is told", || both.log(1).contains("event=\"address_occupied\""));
    let link = said(&both.world.net.host("db3"), "ip", &["-o", "link", "show", "lan0"]);
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("it has one");
    let log = both.log(1);
    let line = log.lines().find(|line| line.contains("address_occupied")).expect("told");
    assert!(line.contains(mac) && line.contains(VIP), "{line} {mac}");
    assert_eq!(both.holder(), None);
    stranger(&both, "del");
    both.wait_holder(1);
    both.watch.judge();
    table::line(
        "S2",
        "the address answers on the network, and its holder is no partner",
        "not taken; the message names address and MAC; taken when it is free",
        "as S1",
        "–",
    );
    both.restart(0);
}
