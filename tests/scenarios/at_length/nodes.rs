//! Servers that are rebuilt, removed and added (SCENARIOS S10, S26, S27).

use std::time::Duration;

use crate::clients::Clients;
use crate::common::eventually;
use crate::table;
use crate::world::World;

#[test]
fn s10_s26_s27_nobody_notices_a_standby_that_is_copied_anew_removed_or_added() {
    let Some(world) = World::usual() else { return };

    world.server(1).kill9().expect("killed");
    world.wait_status(&[(1, "down")]);
    let clients = Clients::start(&world);
    // Whatever it has is gone: it can only be copied.
    std::fs::remove_file(world.server(1).data().join("global/pg_control")).expect("removed");
    assert!(!world.rebuild(1, 0), "there was nothing to rewind");
    world.wait_follows(1, 0);
    clients.go_on(Duration::from_secs(1));
    let report = clients.stop(&world);
    report.unharmed();
    table::gap("S10", "standby copied anew by `pg_basebackup`, by hand", Duration::from_secs(1), &report);

    let clients = Clients::start(&world);
    let (without, _) = world.configuration().rsplit_once("[[node]]").expect("nodes");
    world.proxy.reconfigure(without);
    eventually("it is there no more", || world.nodes().len() == 2);
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&world);
    report.unharmed();
    table::gap("S27", "standby removed by reload", Duration::from_secs(1), &report);

    world.server(2).stop_fast().expect("stopped");
    let clients = Clients::start(&world);
    world.proxy.reconfigure(world.configuration());
    eventually("it is known", || world.nodes().len() == 3);
    world.start_server(2);
    world.wait_follows(2, 0);
    let used = || world.told(2, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM ledger%'") != "0";
    eventually("it is read from", || {
        world.client().values("SELECT count(*) FROM ledger WHERE n = 1");
        used()
    });
    let report = clients.stop(&world);
    report.unharmed();
    table::gap("S26", "standby added by reload, then started", Duration::from_secs(1), &report);
}
