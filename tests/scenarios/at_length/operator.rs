//! Where an operator is needed (SCENARIOS S13, S32).

use std::time::Duration;

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
