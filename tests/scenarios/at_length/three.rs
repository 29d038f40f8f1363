//! Three proxies with one address: a majority of two leads, one alone does not; and pairs whose address is on an interface, or of IPv6.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::clients::Clients;
use crate::common::eventually;
use crate::pair::{Both, PROXIES, Pair, VIP6};
use crate::proxies::{replaced, safe};
use crate::table;

const FAULT: &str = "three proxies: the active one killed (`kill -9`)";

#[test]
fn h16_of_three_proxies_two_lead_and_one_alone_does_not() {
    let Some(mut both) = Both::start(&Pair { proxies: 3, ..Pair::default() }) else { return };
    let first = both.holder().expect("one of them");
    let name = PROXIES[first].0;
    // One that is cut off from everybody, the active one: the other two go on.
    let mut clients = Clients::start(&both.world);
    clients.fault();
    both.world.net.cut(name);
    for lan in ["hba", "hbb"] {
        both.world.net.cut_also(lan, name, true);
    }
    eventually("another one has the address", || both.holder().is_some_and(|holder| holder != first));
    both.wait_serving();
    clients.go_on(Duration::from_secs(2));
    assert_eq!(both.state(first, first), "STANDBY", "alone it leads nobody");
    both.world.net.mend(name);
    for lan in ["hba", "hbb"] {
        both.world.net.cut_also(lan, name, false);
    }
    let second = both.holder().expect("one of them");
    eventually("the one that was cut off is back", || both.state(second, first) == "STANDBY");
    let report = clients.stop(&both.world);
    safe(&both, &report);
    table::gap("S29", "three proxies: the active one cut off from everybody, mended", Duration::from_secs(6), &report);
    // The active one is killed: two of three are left.
    let mut clients = Clients::start(&both.world);
    clients.fault();
    both.proxy(second).kill9();
    eventually("another one has the address", || both.holder().is_some_and(|holder| holder != second));
    both.wait_serving();
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&both.world);
    safe(&both, &report);
    table::gap("S20", FAULT, Duration::from_secs(4), &report);
    // And the next one: one of three leads nobody, has no address, and acknowledges nothing.
    let third = both.holder().expect("one of them");
    let last = (0..3).find(|of| ![second, third].contains(of)).expect("one is left");
    both.proxy(third).kill9();
    eventually("nobody has the address", || both.watch.holders().is_empty());
    std::thread::sleep(Duration::from_secs(8));
    assert!(both.watch.holders().is_empty(), "{:?}", both.watch.holders());
    assert_eq!(both.state(last, last), "STANDBY");
    let log = both.log(last);
    assert!(!log.rsplit("member_lost").next().unwrap_or_default().contains("event=\"leader\""), "{log}");
    // One of the two comes back: a majority.
    both.restart(second);
    eventually("two of three lead again", || both.holder().is_some());
    both.wait_serving();
    both.watch.judge();
}

#[test]
fn s20_s21_a_pair_whose_address_is_on_an_interface_or_of_ipv6() {
    for (vip, what) in [(crate::pair::VIP, "`vip_on = \"interface\"`"), (VIP6, "IPv6")] {
        let watchdog = "vip_on = \"interface\"\ninterface = \"lan0\"";
        let Some(mut both) = Both::start(&Pair { watchdog, vip, ..Pair::default() }) else { return };
        let report = replaced(&mut both, |both| both.proxy(0).kill9());
        let fault = format!("{what}: active proxy killed (`kill -9`)");
        table::gap("S20", &fault, Duration::from_millis(5_500), &report);
        both.restart(0);
        let mut clients = Clients::start(&both.world);
        clients.fault();
        both.signal(1, Signal::SIGSTOP);
        both.wait_holder(0);
        both.wait_serving();
        clients.go_on(Duration::from_secs(2));
        both.signal(1, Signal::SIGCONT);
        let report = clients.stop(&both.world);
        safe(&both, &report);
        table::gap("S21", &format!("{what}: active proxy frozen (SIGSTOP)"), Duration::from_secs(6), &report);
        eventually("it is a standby", || both.state(1, 1) == "STANDBY");
        both.watch.judge();
    }
}
