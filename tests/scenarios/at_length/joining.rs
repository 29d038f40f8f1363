//! Who starts without its trusted servers, who joins with other settings, whose watchdog fails (SCENARIOS S1, S4, S18), and a pair on a machine
//! that is busy with something else (S28).

use std::time::Duration;

use nix::sys::signal::Signal;

use super::false_alarms::{hog, time};
use crate::clients::Clients;
use crate::common::eventually;
use crate::group::Group;
use crate::pair::{Both, Pair, said};
use crate::proxies::{replaced, safe};
use crate::table;
use crate::world::timed;

#[test]
fn s01_without_a_trusted_server_nobody_begins_to_lead() {
    let Some(mut group) = Group::pair() else { return };
    let servers = "trusted_servers = [\"10.77.3.200\", \"10.77.3.201\"]\n";
    group.configure("one", servers);
    group.configure("witness", servers);
    group.start("witness", "witness");
    group.start("one", "run");
    eventually("it says which it has tried", || {
        let log = group.log("one");
        log.contains("no trusted server answers: 10.77.3.200, 10.77.3.201") && log.contains("keeps trying")
    });
    std::thread::sleep(Duration::from_secs(8));
    assert!(group.watch.holders().is_empty() && !group.log("one").contains("event=\"leader\""), "{}", group.log("one"));
    assert!(group.told("one")["troubles"].to_string().contains("10.77.3.201"), "{}", group.told("one"));
    said(&group.place("client"), "ip", &["addr", "add", "10.77.3.201/24", "dev", "lan0"]);
    let took = timed("it leads", || group.watch.holders() == ["one"]);
    assert!(group.log("one").contains("event=\"trusted_answer\""));
    let measured = format!("not taken; both are named; taken {} behind the first answer", table::seconds(took));
    table::line(
        "S1",
        "start while no trusted server answers",
        &measured,
        "does not take the address, keeps trying",
        "–",
    );
}

#[test]
fn s04_who_joins_with_other_settings_is_refused_by_both() {
    let pair = Pair::default();
    let Some(mut both) = Both::start(&pair) else { return };
    let good = both.text(&pair, 1);
    let clients = Clients::start(&both.world);
    let node = good.find("[[node]]\nid = 2").expect("there is one");
    let rest = good[node..].find("\n[watchdog]").expect("behind the nodes");
    for (what, text, setting) in [
        ("another address", good.replace("\"10.77.0.10\"", "\"10.77.0.20\""), "watchdog.virtual_ip"),
        ("another list of nodes", format!("{}{}", &good[..node], &good[node + rest..]), "watchdog.nodes"),
    ] {
        both.signal(1, Signal::SIGINT);
        assert_eq!(both.proxy(1).ended(), Some(0), "{what}");
        let before = [both.log(0).len(), both.log(1).len()];
        both.begin(1, &text);
        for (of, before) in before.into_iter().enumerate() {
            eventually(&format!("{what}: {of} names {setting}"), || {
                both.log(of).get(before..).is_some_and(|log| log.contains(setting))
            });
        }
        eventually(&format!("{what} is refused"), || both.state(0, 1) == "REFUSED");
        assert_eq!(both.holder(), Some(0));
    }
    both.signal(1, Signal::SIGINT);
    assert_eq!(both.proxy(1).ended(), Some(0));
    both.begin(1, &good);
    eventually("it is a standby again", || both.state(0, 1) == "STANDBY" && both.state(1, 1) == "STANDBY");
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    let fault = "second proxy with another address, then with another list of nodes, joins";
    table::gap("S4", fault, Duration::from_secs(1), &report);
}

#[test]
fn s18_a_watchdog_that_fails_begins_anew() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    let clients = Clients::start(&both.world);
    both.fail(1);
    eventually("it is a standby again", || both.state(0, 1) == "STANDBY" && both.state(1, 1) == "STANDBY");
    clients.go_on(Duration::from_secs(5));
    let report = clients.stop(&both.world);
    report.unharmed();
    safe(&both, &report);
    assert_eq!(both.holder(), Some(0));
    table::gap("S18", "standby proxy: its watchdog fails (panic)", Duration::from_secs(1), &report);
    let pid = both.proxy(0).pid();
    let report = replaced(&mut both, |both| both.fail(0));
    assert_eq!(both.proxy(0).pid(), pid, "the process lives on");
    eventually("it is a standby", || both.state(0, 0) == "STANDBY" && both.state(1, 0) == "STANDBY");
    let fault = "active proxy: its watchdog fails (panic); the partner takes over";
    table::gap("S18", fault, Duration::from_secs(4), &report);
    // One of its tasks: that it has ended must not stay unnoticed.
    let mut clients = Clients::start(&both.world);
    clients.fault();
    both.fail_at(1, "fail-address");
    both.wait_holder(0);
    both.wait_serving();
    clients.go_on(Duration::from_secs(3));
    let report = clients.stop(&both.world);
    safe(&both, &report);
    let fault = "active proxy: the task that holds its address fails (panic)";
    table::gap("S18", fault, Duration::from_secs(4), &report);
    eventually("it is a standby", || both.state(0, 1) == "STANDBY" && both.state(1, 1) == "STANDBY");
}

#[test]
fn s28_a_pair_on_a_busy_machine() {
    let Some(mut both) = Both::start(&Pair::default()) else { return };
    let hogs: Vec<_> = (0..16).map(|_| hog()).collect();
    let bound = |seconds: u64| Duration::from_secs(2 * seconds);
    let clients = Clients::start(&both.world);
    clients.go_on(time());
    let report = clients.stop(&both.world);
    report.whole();
    for of in 0..2 {
        assert!(!both.log(of).contains("event=\"failover_begins\""), "{}", both.log(of));
    }
    assert_eq!(both.holder(), Some(0), "nobody takes over from who lives");
    let fault = format!("16 processes burn all cores; no fault for {} s", time().as_secs());
    table::gap("S28", &fault, Duration::from_secs(2), &report);

    let mut clients = Clients::start(&both.world);
    clients.fault();
    both.world.server(2).stop().expect("stopped");
    both.world.wait_status(&[(2, "down")]);
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&both.world);
    report.whole();
    table::gap("S28", "the same, S14: standby stopped (`immediate`)", bound(1), &report);
    both.world.start_server(2);
    both.world.wait_follows(2, 0);

    let report = replaced(&mut both, |both| both.proxy(0).kill9());
    table::gap("S28", "the same, S20: active proxy killed (`kill -9`)", bound(4), &report);
    both.restart(0);

    let mut clients = Clients::start(&both.world);
    clients.fault();
    both.signal(1, Signal::SIGINT);
    assert_eq!(both.proxy(1).ended(), Some(0));
    both.wait_holder(0);
    both.wait_serving();
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&both.world);
    safe(&both, &report);
    table::gap("S28", "the same, S6: active proxy stopped in order", bound(1), &report);
    both.restart(1);

    let mut clients = Clients::start(&both.world);
    clients.fault();
    both.world.server(0).stop().expect("stopped");
    both.world.wait_promoted(0);
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&both.world);
    // Clients of an address that moves wait for 2 s alone.
    safe(&both, &report);
    report.one_writer();
    table::gap("S28", "the same, S15: primary stopped (`immediate`)", bound(2), &report);
    drop(hogs);
    both.watch.judge();
}
