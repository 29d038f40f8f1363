//! The other ways in which one of two proxies goes (SCENARIOS S6, S7, S19, S21, S25, S29).

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::clients::{Clients, Report};
use crate::commands;
use crate::common::eventually;
use crate::common::raw::RawClient;
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

#[test]
fn s06_a_transaction_that_stays_open_keeps_nobody_else_out() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    let mut clients = Clients::start(&both.world);
    let mut long = open(&both, 1);
    let begun = Instant::now();
    clients.fault();
    both.signal(0, Signal::SIGINT);
    clients.go_on(Duration::from_secs(10));
    assert_eq!(both.holder(), Some(0), "the address goes while a transaction is open");
    assert_eq!(long.query("COMMIT").iter().filter(|frame| frame.tag == b'E').count(), 0, "it ends well");
    both.wait_holder(1);
    let gone = begun.elapsed() - Duration::from_secs(10);
    assert!(gone < Duration::from_secs(2), "the address goes {gone:?} after the last transaction");
    assert_eq!(both.proxy(0).ended(), Some(0));
    clients.go_on(Duration::from_secs(3));
    let report = clients.stop(&both.world);
    safe(&both, &report);
    handed_over("the same with a transaction that stays open for 10 s, and ends well", &report);
    // One that does not end is told so at `stop_timeout`.
    let file = both.proxy(1).folder().join("pgherd.toml");
    let text = std::fs::read_to_string(&file).expect("it has one");
    std::fs::write(&file, text.replace("[listen]\n", "[listen]\nstop_timeout = \"4s\"\n")).expect("written");
    both.signal(1, Signal::SIGHUP);
    eventually("reloaded", || both.log(1).contains("event=\"reloaded\""));
    both.restart(0);
    let mut clients = Clients::start(&both.world);
    let mut long = open(&both, 2);
    clients.fault();
    let begun = Instant::now();
    both.signal(1, Signal::SIGTERM);
    let said = long.until(|frame| frame.tag == b'E').expect("it is told");
    let told = begun.elapsed();
    let code = said.last().and_then(|frame| frame.sqlstate());
    assert_eq!(code.as_deref(), Some("57P01"), "{said:?}");
    assert!(told > Duration::from_millis(3_900) && told < Duration::from_secs(5), "told after {told:?}");
    both.wait_holder(0);
    assert_eq!(both.proxy(1).ended(), Some(0));
    clients.go_on(Duration::from_secs(3));
    let report = clients.stop(&both.world);
    safe(&both, &report);
    handed_over("the same with one that does not end within `stop_timeout`, here 4 s: it ends with 57P01", &report);
}

/// A session with a transaction that has written.
fn open(both: &Both, number: u64) -> RawClient {
    let mut client = both.world.client();
    for sql in ["BEGIN".to_owned(), format!("INSERT INTO ledger (client, n) VALUES (200, {number})")] {
        assert!(client.query(&sql).iter().all(|frame| frame.tag != b'E'), "{sql}");
    }
    client
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
