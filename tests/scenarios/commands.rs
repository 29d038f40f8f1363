//! Programs of the operator's work on the address (HA H19, H21): as they should, failing, hanging, lying. At no instant do two hosts have it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::eventually;
use crate::group::{Group, VIP};
use crate::pair::said;

const UP: &str =
    "ip addr replace $_IP_$/24 dev $_IF_$ label $_IF_$:vip valid_lft $_LIFETIME_$ preferred_lft $_LIFETIME_$";
/// As pgpool-II has it: nothing ends this address.
const FOR_EVER: &str = "ip addr add $_IP_$/24 dev $_IF_$";
const DOWN: &str = "ip addr del $_IP_$/24 dev $_IF_$";

/// Lines of `[watchdog]`.
fn programs(up: &str, down: &str) -> String {
    format!("vip_on = \"interface\"\ninterface = \"lan0\"\nif_up_cmd = \"{up}\"\nif_down_cmd = \"{down}\"\n")
}

/// A pair and a witness: `one` with these lines, and preferred; `two` with the usual programs.
fn group(a: &str) -> Option<Group> {
    let mut group = Group::pair()?;
    group.configure("one", &format!("{a}priority = 2\n"));
    group.configure("two", &programs(UP, DOWN));
    group.configure("witness", &programs(UP, DOWN));
    group.start("witness", "witness");
    group.start("one", "run");
    Some(group)
}

/// How the address is held on a host, in `ip`'s words.
fn held(group: &Group, name: &str) -> String {
    let all = said(&group.place(name), "ip", &["-o", "addr", "show"]);
    all.lines().filter(|line| line.contains(&format!("{VIP}/"))).collect::<Vec<_>>().join("\n")
}

/// The address ends by itself.
fn has_lifetime(line: &str) -> bool {
    let left = line.split("valid_lft ").nth(1).and_then(|rest| rest.split("sec").next()).map(str::parse::<u32>);
    matches!(left, Some(Ok(0..=3)))
}

#[test]
fn h19_the_operators_programs_hold_the_address_announce_it_and_hear_of_leading() {
    let hooks = "arping_cmd = \"./arping.sh $_IP_$ $_IF_$\"\nescalation_command = \"./told.sh leads $_IP_$\"\n\
        de_escalation_command = \"./told.sh leads_no_more $_IP_$\"\n";
    let Some(mut group) = group(&(programs(UP, DOWN) + hooks)) else { return };
    group.write("told.sh", "#!/bin/sh\necho \"$1 $2 $PGHERD_HOOK $PGHERD_MEMBER\" >> told\n", 0o755);
    group.write(
        "arping.sh",
        "#!/bin/sh\necho \"$1 $2\" >> announced\nexec /usr/bin/arping -q -U $1 -w 1 -I $2\n",
        0o755,
    );
    group.wait_holder("one");
    group.start("two", "run");
    group.wait_states("one", &["LEADER", "STANDBY", "STANDBY"]);
    let line = held(&group, "one");
    assert!(line.contains(&format!("{VIP}/24")) && line.contains("lan0:vip") && has_lifetime(&line), "{line}");
    eventually("it is announced", || group.read("announced").contains(&format!("{VIP} lan0")));
    assert_eq!(group.read("told"), format!("leads {VIP} escalation_command one\n"));
    // Longer than the address lives by itself: it is renewed.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert!(has_lifetime(&held(&group, "one")), "{}", held(&group, "one"));
        std::thread::sleep(Duration::from_millis(100));
    }
    // Other programs from now on.
    group.configure(
        "one",
        &(programs(UP, &format!("./down.sh {DOWN}"))
            + "escalation_command = \"./told.sh leads $_IP_$\"\nde_escalation_command = \"./told.sh reloaded $_IP_$\"\npriority = 2\n"),
    );
    group.write("down.sh", "#!/bin/sh\necho down >> downs\nexec \"$@\"\n", 0o755);
    group.signal("one", Signal::SIGHUP);
    eventually("it is reloaded", || group.log("one").contains("event=\"reloaded\""));
    assert_eq!(group.end("one", Signal::SIGINT), Some(0));
    assert_eq!(group.read("told").lines().last(), Some(format!("reloaded {VIP} de_escalation_command one").as_str()));
    assert_eq!(group.read("downs"), "down\n");
    group.wait_holder("two");
    assert_eq!(held(&group, "one"), "");
    // Killed, it can run nothing: the kernel ends the address before anybody takes it.
    group.start("one", "run");
    group.wait_states("two", &["STANDBY", "LEADER", "STANDBY"]);
    group.end("two", Signal::SIGKILL);
    group.wait_holder("one");
    assert_eq!(group.read("told").lines().last(), Some(format!("leads {VIP} escalation_command one").as_str()));
    group.watch.judge();
}

/// Does what the file `mode` says.
const BAD: &str = "#!/bin/sh
case $(cat mode) in
fail) echo no such thing >&2; exit 3;;
lie) exit 0;;
elsewhere) exec ip addr add $1/32 dev lo;;
late) (sleep 5; ip addr add $1/24 dev $2) & sleep 60;;
hang) ip addr add $1/24 dev $2; sleep 60;;
*) exec ip addr add $1/24 dev $2;;
esac
";

#[test]
fn h19_programs_that_fail_lie_or_hang_make_no_second_owner_and_delay_no_end() {
    let Some(mut group) = group(&programs("./bad.sh $_IP_$ $_IF_$", "sleep 60")) else { return };
    group.write("bad.sh", BAD, 0o755);
    group.write("mode", "late", 0o644);
    eventually("it leads", || group.states("one").first().is_some_and(|state| state == "LEADER"));
    // Nobody could do better, so that it keeps trying.
    let term = group.told("one")["term"].clone();
    let begun = Instant::now();
    for (mode, why) in [
        ("late", "killed after"),
        ("fail", "no such thing"),
        ("lie", "lan0 does not have the address"),
        // Why is told once a minute; that it was run, each time.
        ("elsewhere", "if_down_cmd"),
        ("hang", "killed after"),
    ] {
        let before = group.log("one").len();
        group.write("mode", mode, 0o644);
        let told = |group: &Group| group.log("one").get(before..).is_some_and(|log| log.contains(why));
        eventually(&format!("{mode} is told"), || told(&group));
        eventually("nothing is left of it", || held(&group, "one").is_empty());
    }
    let log = group.log("one");
    assert!(log.contains("event=\"address_failed\"") && log.contains("event=\"hook_failed\""), "{log}");
    assert!(begun.elapsed() > Duration::from_secs(6), "the late one would have come by now");
    assert_eq!(group.told("one")["term"], term, "its lease was renewed all the time");
    group.write("mode", "well", 0o644);
    group.wait_holder("one");
    group.start("two", "run");
    group.wait_states("two", &["LEADER", "STANDBY", "STANDBY"]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(group.watch.holders(), ["one"]);
    // if_down_cmd hangs: the process ends all the same, and the address before anybody else has it.
    let begun = Instant::now();
    assert_eq!(group.end("one", Signal::SIGINT), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?} to end", begun.elapsed());
    group.wait_holder("two");
    assert_eq!(held(&group, "one"), "");
    group.watch.judge();
}

/// In `at_length`.
pub(crate) fn h19_an_address_from_a_program_without_a_lifetime_gets_one() {
    let Some(mut group) = group(&programs(FOR_EVER, DOWN)) else { return };
    group.wait_holder("one");
    group.start("two", "run");
    group.wait_states("two", &["LEADER", "STANDBY", "STANDBY"]);
    assert!(has_lifetime(&held(&group, "one")), "{}", held(&group, "one"));
    group.signal("one", Signal::SIGSTOP);
    group.wait_holder("two");
    group.signal("one", Signal::SIGCONT);
    group.wait_states("one", &["STANDBY", "LEADER", "STANDBY"]);
    group.watch.judge();
}

#[test]
fn h03_a_leader_whose_interface_has_no_carrier_hands_over_at_once() {
    let Some(mut group) = Group::pair() else { return };
    group.net.also("hb", &[("one", "10.77.4.1"), ("two", "10.77.4.2"), ("witness", "10.77.4.3")]);
    for name in ["one", "two", "witness"] {
        group.configure(
            name,
            if name == "one" { "monitoring_interfaces_list = [\"lan0\"]\npriority = 2\n" } else { "" },
        );
        let text = group.read(&format!("{name}.toml"));
        // A network besides, for heartbeats alone.
        let links = (1..=3).fold(text, |text, number| {
            let host = format!("host = \"10.77.3.{number}\"\n");
            text.replace(&host, &format!("{host}heartbeat = [\"10.77.3.{number}:9694\", \"10.77.4.{number}:9694\"]\n"))
        });
        group.write(&format!("{name}.toml"), &links, 0o600);
    }
    group.start("witness", "witness");
    group.start("one", "run");
    group.wait_holder("one");
    group.start("two", "run");
    group.wait_states("two", &["LEADER", "STANDBY", "STANDBY"]);
    let begun = Instant::now();
    group.net.unplug("one");
    group.wait_holder("two");
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1_500), "it took {took:?}");
    let log = group.log("one");
    assert!(log.contains("event=\"link_down\"") && log.contains("event=\"yielded\""), "{log}");
    group.net.mend("one");
    eventually("the carrier is back", || group.log("one").contains("event=\"link_up\""));
    group.watch.judge();
}
