//! The other ways in which one of two proxies goes (SCENARIOS S6, S7, S19, S21, S25, S29).

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::clients::{Clients, Report};
use crate::commands;
use crate::common::eventually;
use crate::pair::{Both, Pair};
use crate::proxies::{replaced, safe};
use crate::table;

#[test]
fn s06_s07_an_active_proxy_that_stops_in_order_is_replaced_at_once() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    let report = replaced(&mut both, |both| {
        both.signal(0, Signal::SIGINT);
        assert_eq!(both.proxy(0).ended(), Some(0));
    });
    handed_over("active proxy stopped in order", &report);
    let clients = Clients::start(&both.world);
    both.restart(0);
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    table::gap("S7", "it starts again", Duration::from_secs(1), &report);
    assert_eq!(both.holder(), Some(1));
    // Who waits for the last client would keep it from coming by the partner.
    let mut clients = Clients::start(&both.world);
    clients.fault();
    both.signal(1, Signal::SIGTERM);
    assert_eq!(both.proxy(1).ended(), Some(0));
    both.wait_holder(0);
    clients.go_on(Duration::from_secs(3));
    let report = clients.stop(&both.world);
    safe(&both, &report);
    handed_over("the same with SIGTERM (`smart`)", &report);
}

/// Sessions ended between statements, one probe at most failed, and everybody was served again within a second.
fn handed_over(fault: &str, report: &Report) {
    let failed = report.all.iter().filter(|seen| seen.client >= 100).map(|seen| seen.failures.len()).max();
    assert!(failed <= Some(1), "{report}");
    for failure in report.failures() {
        let what = &failure.what;
        assert!(["57P01", "login:"].iter().any(|known| what.starts_with(known)), "inside a statement: {failure:?}");
    }
    table::gap("S6", fault, Duration::from_secs(1), report);
}

#[test]
fn s19_s25_a_standby_proxy_that_is_killed_or_cut_off_disturbs_nobody() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    let clients = Clients::start(&both.world);
    both.proxy(1).kill9();
    eventually("it is missed", || both.state(0, 1) == "LOST");
    clients.go_on(Duration::from_secs(5));
    both.restart(1);
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    table::gap("S19", "standby proxy killed (`kill -9`), started again", Duration::from_secs(1), &report);
    // The TCP link goes over the service network: heartbeats are not all.
    let clients = Clients::start(&both.world);
    both.cut_heartbeats(true);
    clients.go_on(Duration::from_secs(8));
    both.cut_heartbeats(false);
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    assert_eq!(both.holder(), Some(0));
    table::gap("S25", "both heartbeat networks cut", Duration::from_secs(1), &report);
}

#[test]
fn s21_an_active_proxy_that_freezes_loses_the_address() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    let report = replaced(&mut both, |both| both.signal(0, Signal::SIGSTOP));
    table::gap("S21", "active proxy frozen (SIGSTOP), later it goes on", Duration::from_secs(6), &report);
    both.signal(0, Signal::SIGCONT);
    eventually("it is a standby", || both.state(0, 0) == "STANDBY");
    both.watch.judge();
    assert_eq!(both.holder(), Some(1));
}

#[test]
fn s29_an_active_proxy_whose_host_vanishes_is_replaced() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    let report = replaced(&mut both, |both| {
        for lan in ["hba", "hbb"] {
            both.world.net.cut_also(lan, "proxy1", true);
        }
        both.world.net.cut("proxy1");
        both.signal(0, Signal::SIGSTOP);
    });
    table::gap("S29", "active proxy's host vanishes: frozen, all its packets lost", Duration::from_secs(6), &report);
    both.world.net.mend("proxy1");
    both.signal(0, Signal::SIGCONT);
    eventually("it is a standby", || both.state(0, 0) == "STANDBY");
    both.watch.judge();
}

#[test]
fn h19_an_address_from_a_program_without_a_lifetime_gets_one() {
    commands::h19_an_address_from_a_program_without_a_lifetime_gets_one();
}
