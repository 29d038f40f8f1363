//! `pgherd run --once` (SCENARIOS S1, S2, S4): what another start waits for ends this one with a message and a status; and where all is well it serves.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::eventually;
use crate::group::{Group, VIP};
use crate::pair::said;

/// Starts `one`, which must end by itself with an error; what it says last.
fn fails(group: &mut Group, what: &str, bound: Duration) -> String {
    let before = group.log("one").len();
    let begun = Instant::now();
    group.start("one", "run --once");
    assert_eq!(group.ended("one"), Some(1), "{what}");
    assert!(begun.elapsed() < bound, "{what}: it took {:?}", begun.elapsed());
    assert!(group.watch.holders().is_empty(), "{what}");
    let log = group.log("one");
    let last = log[before..].lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("pgherd: not started, and not tried again (--once): "), "{what}: {last}");
    last
}

#[test]
fn s01_s02_a_start_that_is_tried_once_ends_with_the_reason() {
    const SERVERS: &str = "trusted_servers = [\"10.77.3.200\", \"10.77.3.201\"]\n";
    let Some(mut group) = Group::pair() else { return };
    group.configure("one", SERVERS);
    group.configure("witness", "");
    let why = fails(&mut group, "no trusted server", Duration::from_secs(4));
    assert!(why.contains("no trusted server answers: 10.77.3.200, 10.77.3.201"), "{why}");
    // Nobody else is there.
    group.configure("one", "");
    let why = fails(&mut group, "no majority", Duration::from_secs(14));
    assert!(why.contains("no majority has confirmed a leader"), "{why}");
    group.start("witness", "witness");
    group.configure("one", "interface = \"nowhere0\"\nvip_on = \"interface\"\n");
    let why = fails(&mut group, "no interface", Duration::from_secs(4));
    assert!(why.contains("nowhere0"), "{why}");
    group.configure("one", "lease = \"3s\"\n");
    let text = group.read("one.toml").replacen("lease = \"2s\"\n", "", 1);
    group.write("one.toml", &text, 0o600);
    let why = fails(&mut group, "other settings", Duration::from_secs(4));
    assert!(why.contains("watchdog.lease"), "{why}");
    group.configure("one", "");
    let stranger = |group: &Group, what: &str| {
        said(&group.place("client"), "ip", &["addr", what, &format!("{VIP}/32"), "dev", "lan0"]);
    };
    stranger(&group, "add");
    let link = said(&group.place("client"), "ip", &["-o", "link", "show", "lan0"]);
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("it has one");
    let why = fails(&mut group, "the address is somebody else's", Duration::from_secs(10));
    assert!(why.contains(mac) && why.contains(VIP), "{why}");
    stranger(&group, "del");
    group.start("one", "run --once");
    group.wait_holder("one");
    eventually("it serves", || group.states("one").first().is_some_and(|state| state == "LEADER"));
    // From now on it waits like any other: for its voter to come back.
    group.end("witness", Signal::SIGKILL);
    eventually("it leads no more", || group.watch.holders().is_empty());
    group.start("witness", "witness");
    group.wait_holder("one");
}
