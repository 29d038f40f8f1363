//! Where an operator is needed (SCENARIOS S13, S32).

use std::time::{Duration, Instant};

use crate::clients::Clients;
use crate::common::eventually;
use crate::table;
use crate::world::{Setup, World};

#[test]
fn s32_a_hook_that_cannot_be_run_is_told_and_nobody_is_promoted() {
    let failover = "promote = \"command\"\nfailover_command = \"./missing.sh %d %m\"\nhold_timeout = \"3s\"";
    let Some(world) = World::start(&Setup { failover, ..Setup::default() }) else { return };
    let mut clients = Clients::start(&world);
    clients.fault();
    world.server(0).stop().expect("stopped");
    eventually("the hook was tried", || world.events("hook_failed") > 0);
    clients.go_on(Duration::from_secs(3));
    let said = world.last_event("hook_failed").expect("it was told");
    assert!(said.contains("missing.sh") || said.contains("No such file"), "{said}");
    let nodes = world.nodes();
    assert_eq!((nodes[&0]["status"].as_str(), world.primary()), ("down", None), "nobody was promoted: {nodes:?}");
    for id in [1, 2] {
        assert_eq!(world.told(id, "SELECT pg_is_in_recovery()"), "t");
    }
    // The operator mends what was wrong with the primary.
    world.start_server(0);
    world.wait_status(&[(0, "up")]);
    eventually("writes go on", || {
        world.client().query("UPDATE shared SET n = n").iter().all(|frame| frame.tag != b'E')
    });
    let report = clients.stop(&world);
    for failure in report.failures() {
        let known = ["57P03", "08007", "40001"].iter().any(|code| failure.what.starts_with(code));
        assert!(known, "{failure:?}\n{report}");
    }
    report.whole();
    table::line(
        "S32",
        "primary stopped, `failover_command` cannot be run",
        "event `hook_failed` names it, SHOW POOL_NODES shows the primary down, nobody is promoted",
        "told, not silent",
        &report.to_string(),
    );
}

#[test]
fn s32_the_operator_promotes_by_command() {
    let failover = "promote = \"command\"\nfailover_command = \"./missing.sh %d %m\"";
    let Some(world) = World::start(&Setup { failover, ..Setup::default() }) else { return };
    let mut clients = Clients::start(&world);
    clients.fault();
    world.server(0).stop().expect("stopped");
    eventually("the hook was tried", || world.events("hook_failed") > 0);
    let begun = Instant::now();
    let said = world.order(&["promote_node", "2"]).expect("promoted");
    let took = begun.elapsed();
    assert!(said.contains("node 2 is the primary now"), "{said}");
    world.wait_follows(1, 2);
    clients.go_on(Duration::from_secs(1));
    assert_eq!((world.primary(), world.events("promoted")), (Some(2), 1));
    let report = clients.stop(&world);
    report.bounded();
    table::line(
        "S32",
        "the same; then the operator promotes node 2 with `pgherd pcp promote_node 2`",
        &format!(
            "primary {} after the command, the other standby follows, writes held meanwhile",
            table::seconds(took)
        ),
        "one command",
        &report.to_string(),
    );
}

#[test]
fn s13_roles_are_switched_and_switched_back_by_one_command_each() {
    let settings = &[("synchronous_standby_names", "ANY 1 (*)")];
    let Some(world) = World::start(&Setup { settings, ..Setup::default() }) else { return };
    let mut clients = Clients::start(&world);
    clients.fault();
    let mut took = Vec::new();
    for (from, to) in [(0, 1), (1, 0)] {
        let begun = Instant::now();
        world.order(&["switch_over", &to.to_string()]).expect("moved");
        took.push(begun.elapsed());
        world.start_demoted(from);
        world.wait_follows(from, to);
        world.wait_follows(2, to);
        clients.go_on(Duration::from_secs(1));
    }
    let report = clients.stop(&world);
    assert_eq!(report.failures().count(), 0, "{report}");
    report.whole();
    table::line(
        "S13",
        "roles switched, and switched back, by `pgherd pcp switch_over`; the old primary is started as a standby each time",
        &format!(
            "{} and {}; nothing rebuilt; gap {}",
            table::seconds(took[0]),
            table::seconds(took[1]),
            table::seconds(report.gap())
        ),
        "0 errors",
        &report.to_string(),
    );
}
