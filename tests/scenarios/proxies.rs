//! Two proxies and one address: the active one is killed (SCENARIOS S3, S5, S20). The rest is in `at_length`.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::time::Duration;

use crate::clients::{Clients, Report};
use crate::common::{self, eventually};
use crate::pair::{Both, Pair, VIP, said};
use crate::table;

/// Nothing was lost or doubled, at no time did two hosts have the address, and at none did two servers take writes.
pub fn safe(both: &Both, report: &Report) {
    assert!(report.lost.is_empty() && report.doubled.is_empty(), "{report}");
    report.one_writer();
    both.watch.judge();
}

/// The active one is broken; the other one has the address and serves.
pub fn replaced(both: &mut Both, break_it: impl FnOnce(&mut Both)) -> Report {
    let mut clients = Clients::start(&both.world);
    clients.fault();
    break_it(both);
    both.wait_holder(1);
    both.wait_serving();
    clients.go_on(Duration::from_secs(3));
    let report = clients.stop(&both.world);
    safe(both, &report);
    report
}

#[test]
fn s03_s05_s20_a_killed_active_proxy_is_replaced() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    assert_eq!((both.holder(), both.state(0, 0), both.state(1, 0)), (Some(0), "LEADER".into(), "LEADER".into()));
    let neighbour = said(&both.world.upstream(), "ip", &["neigh", "show", VIP]);
    let own = said(&both.place(0), "ip", &["-o", "link", "show", "lan0"]);
    let mac = own.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("it has one");
    assert!(neighbour.contains(mac), "{neighbour} {mac}");
    told(&both);
    table::line("S3", "first proxy starts", "takes the address; its neighbour knows whose it is", "the same", "–");
    table::line("S5", "second proxy starts", "standby, no address, told by each", "the same", "–");
    let report = replaced(&mut both, |both| both.proxy(0).kill9());
    table::gap("S20", "active proxy killed (`kill -9`)", Duration::from_secs(4), &report);
    both.restart(0);
    assert_eq!(both.holder(), Some(1), "who comes back takes nothing");
}

/// pgpool-II's own program and ours tell the group, from each member.
fn told(both: &Both) {
    for of in 0..2 {
        let ours = || both.pcp(of, env!("CARGO_BIN_EXE_pgherd"), &["pcp", "watchdog-info"]).expect("it answers");
        // Each row has a name, behind a star if it is its own.
        let row = |line: &str, name: &str| line.split_whitespace().take(2).any(|word| word == name);
        let has = |text: &str, name: &str, what: &str| {
            text.lines().any(|line| row(line, name) && line.contains(" proxy ") && line.contains(what))
        };
        let told = |text: &str| has(text, "proxy1", "LEADER") && has(text, "proxy2", "STANDBY");
        // Partners tell each second what they hold.
        eventually("who leads and who holds the address is told", || {
            let text = ours();
            told(&text) && has(&text, "proxy1", VIP) && !has(&text, "proxy2", VIP)
        });
        let theirs = match both.pcp(of, "pcp_watchdog_info", &[]) {
            Ok(theirs) => theirs,
            Err(why) if why.contains("No such file") => return common::skip("pcp_watchdog_info", &why),
            Err(why) => panic!("{why}"),
        };
        let lines: Vec<&str> = theirs.lines().collect();
        let held = if of == 0 { "YES" } else { "NO" };
        assert_eq!(
            lines[0],
            format!("2 2 {held} proxy1 {}", if of == 0 { "0.0.0.0" } else { "10.77.0.1" }),
            "{theirs}"
        );
        assert!(theirs.contains("4 LEADER 0 MEMBER") && theirs.contains("7 STANDBY 0 MEMBER"), "{theirs}");
    }
}
