//! Who cannot hold the address hands over, and what comes of it when nobody can (HA H3): programs that fail, a kernel that refuses, a device that
//! is gone. At no instant do two hosts have the address.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pgherd::watchdog::timings::Timings;

use crate::common::eventually;
use crate::group::{Group, VIP};
use crate::pair::said;
use crate::table;
use crate::world::timed;

/// An address that the kernel can be told to refuse.
const VIP6: &str = "fd00:77:3::10";
/// What becomes of a handed-over address within that is no matter of trying.
const AT_ONCE: Duration = Duration::from_millis(1_500);
/// The kernel refuses IPv6 there, or does not any more.
const REFUSE: &str = "/proc/sys/net/ipv6/conf/lan0/disable_ipv6";

/// Fails as long as a file says so.
const UP: &str = "#!/bin/sh
[ ! -e broken-$1 ] || { echo \"no such luck\" >&2; exit 3; }
exec ip addr replace $2/24 dev $3 valid_lft $4 preferred_lft $4
";

/// Lines of `[watchdog]` with programs.
fn programs(name: &str) -> String {
    format!(
        "vip_on = \"interface\"\ninterface = \"lan0\"\nif_up_cmd = \"./up.sh {name} $_IP_$ $_IF_$ $_LIFETIME_$\"\n\
         if_down_cmd = \"ip addr del $_IP_$/24 dev $_IF_$\"\n"
    )
}

/// A pair and a witness with these lines; `one` is preferred. The witness and `one` run.
fn group(lines: fn(&str) -> String, vip: &'static str) -> Option<Group> {
    let mut hosts = crate::group::MEMBERS.to_vec();
    hosts.push(("client", "10.77.3.100"));
    let mut group = Group::hosts(&hosts, &crate::group::MEMBERS.map(|member| member.0), vip)?;
    for (number, name) in (1..).zip(["one", "two", "witness"]) {
        let address = format!("fd00:77:3::{number}/64");
        said(&group.place(name), "ip", &["addr", "add", &address, "dev", "lan0", "nodad"]);
        let own = if name == "one" { "priority = 2\n" } else { "" };
        group.configure(name, &(lines(name) + own));
        let text = group.read(&format!("{name}.toml")).replace(&format!("\"{VIP}\""), &format!("\"{vip}\""));
        group.write(&format!("{name}.toml"), &text, 0o600);
    }
    group.write("up.sh", UP, 0o755);
    group.start("witness", "witness");
    Some(group)
}

/// Whether a member is told to be able to hold the address.
fn able(group: &Group, of: &str, member: usize) -> Option<bool> {
    group.told(of)["members"][member]["can_hold_virtual_ip"].as_bool()
}

#[test]
fn h03_whose_program_fails_for_ever_hands_over_and_is_called_back_when_it_is_mended() {
    let Some(mut group) = group(programs, VIP) else { return };
    group.write("broken-one", "", 0o644);
    group.start("one", "run");
    eventually("it finds itself unfit", || group.log("one").contains("event=\"address_unfit\""));
    // Nobody else is there: it leads, and keeps trying.
    assert_eq!(group.states("one").first().map(String::as_str), Some("LEADER"));
    group.start("two", "run");
    let took = timed("its partner takes over", || group.watch.holders() == ["two"]);
    // A voter that has just started is quiet for as long as a lease and the margin.
    let quiet = Timings::of(Duration::from_secs(2)).clear();
    assert!(took < quiet + AT_ONCE, "it took {took:?}");
    let log = group.log("one");
    assert!(log.contains("no such luck") && log.contains("event=\"hand_over\""), "{log}");
    eventually("both say so", || {
        ["one", "two"].iter().all(|of| (able(&group, of, 0), able(&group, of, 1)) == (Some(false), Some(true)))
    });
    assert!(group.told("one")["troubles"].to_string().contains("no such luck"), "{}", group.told("one"));
    // Its back-off is over, and its priority higher: no reason to take an address from where it is well.
    eventually("it may try again", || able(&group, "two", 0) == Some(true));
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(group.states("one"), ["STANDBY", "LEADER", "STANDBY"]);
    std::fs::remove_file(group.folder().join("broken-one")).expect("it is there");
    group.signal("one", Signal::SIGHUP);
    group.wait_holder("one");
    assert!(group.log("one").contains("event=\"address_fit\""));
    group.watch.judge();
}

#[test]
fn h03_two_whose_programs_fail_take_turns_until_one_is_mended() {
    let Some(mut group) = group(programs, VIP) else { return };
    for name in ["one", "two"] {
        group.write(&format!("broken-{name}"), "", 0o644);
        group.start(name, "run");
    }
    let unfit = |group: &Group, name: &str| group.log(name).matches("event=\"address_unfit\"").count();
    eventually("both have tried", || unfit(&group, "one") > 0 && unfit(&group, "two") > 0);
    let terms = group.told("one")["term"].as_u64().expect("told");
    std::thread::sleep(Duration::from_secs(10));
    let turns = group.told("one")["term"].as_u64().expect("told") - terms;
    assert!(turns <= 4, "{turns} terms in ten seconds");
    std::fs::remove_file(group.folder().join("broken-two")).expect("it is there");
    group.wait_holder("two");
    group.watch.judge();
}

#[test]
fn h03_a_leader_whose_kernel_refuses_the_address_hands_over() {
    let lines: fn(&str) -> String = |_| "vip_on = \"interface\"\ninterface = \"lan0\"\n".to_owned();
    let Some(mut group) = group(lines, VIP6) else { return };
    group.start("one", "run");
    group.wait_holder("one");
    group.start("two", "run");
    group.wait_states("two", &["LEADER", "STANDBY", "STANDBY"]);
    let begun = Instant::now();
    said(&group.place("one"), "sh", &["-c", &format!("echo 1 > {REFUSE}")]);
    group.wait_holder("two");
    let took = begun.elapsed();
    let bound = Duration::from_secs(2) + AT_ONCE;
    table::line(
        "H3",
        "IPv6: the kernel of the active proxy refuses the address",
        &format!("at its partner after {}", table::seconds(took)),
        &table::seconds(bound),
        "–",
    );
    assert!(took < bound, "it took {took:?}");
    let log = group.log("one");
    assert!(log.contains("event=\"address_unfit\"") && log.contains("event=\"yielded\""), "{log}");
    group.watch.judge();
}

#[test]
fn h19_a_device_or_interface_that_somebody_deletes_is_looked_for_anew() {
    let Some(mut group) = group(|_| String::new(), VIP) else { return };
    group.start("one", "run");
    group.wait_holder("one");
    let log = group.log("one");
    let device = said(&group.place("one"), "sh", &["-c", "ip -o link show | grep -o 'pgherd[0-9]*' | head -1"]);
    said(&group.place("one"), "ip", &["link", "del", device.trim()]);
    eventually("it is gone", || group.watch.holders().is_empty());
    let took = timed("it is there again", || group.watch.holders() == ["one"]);
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    assert!(!group.log("one")[log.len()..].contains("event=\"yielded\""), "nobody else is called");
    group.watch.judge();
}

#[test]
fn h03_who_reaches_no_trusted_server_by_the_operators_program_hands_over() {
    let lines = |name: &str| {
        format!("trusted_servers = [\"gateway\", \"other\"]\ntrusted_server_command = \"./ask.sh %h {name}\"\n")
    };
    let Some(mut group) = group(lines, VIP) else { return };
    group.write("ask.sh", "#!/bin/sh\necho who is $1\nexec test -e reaches-$2-$1\n", 0o755);
    for name in ["one", "two"] {
        group.write(&format!("reaches-{name}-gateway"), "", 0o644);
    }
    group.start("one", "run");
    group.wait_holder("one");
    group.start("two", "run");
    group.wait_states("one", &["LEADER", "STANDBY", "STANDBY"]);
    std::fs::remove_file(group.folder().join("reaches-one-gateway")).expect("it is there");
    let took = timed("its partner takes over", || group.watch.holders() == ["two"]);
    assert!(took < Duration::from_secs(6), "it took {took:?}");
    let log = group.log("one");
    assert!(log.contains("event=\"trusted_silent\"") && !log.contains("who is"), "{log}");
    group.write("reaches-one-other", "", 0o644);
    eventually("it is heard of", || group.log("one").contains("event=\"trusted_answer\""));
    group.watch.judge();
}
