//! The primary dies, freezes, or is cut off (SCENARIOS S11, S12, S15, S17): sessions stay, writes wait and succeed.

#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::time::Duration;

use crate::clients::Clients;
use crate::common::eventually;
use crate::table;
use crate::world::World;

/// The primary is lost, the clients work on, the other standby follows; which one is primary now.
pub fn lost(world: &World, clients: &mut Clients, break_it: impl FnOnce(&World)) -> usize {
    clients.fault();
    break_it(world);
    let primary = world.wait_promoted(0);
    world.wait_follows(3 - primary, primary);
    clients.go_on(Duration::from_secs(2));
    primary
}

#[test]
fn s17_s12_a_primary_that_is_cut_off_is_replaced_and_not_used_when_it_is_back() {
    let Some(world) = World::usual() else { return };
    let mut clients = Clients::start(&world);
    let primary = lost(&world, &mut clients, |world| world.net.cut("db1"));
    let report = clients.stop(&world);
    report.bounded();
    table::gap("S17", "primary's network cut", Duration::from_secs(6), &report);

    let clients = Clients::start(&world);
    world.net.mend("db1");
    eventually("it is refused", || world.nodes()[&0]["status"].starts_with("quarantine"));
    clients.go_on(Duration::from_secs(2));
    assert_eq!(world.primary(), Some(primary));
    let report = clients.stop(&world);
    report.unharmed();
    table::gap("S12", "the old primary comes back as a primary", Duration::from_secs(1), &report);
    assert!(world.told(0, "SELECT pg_is_in_recovery()") == "f", "it still believes that it is primary");
}
