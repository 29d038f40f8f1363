//! A standby dies, freezes, or is cut off (SCENARIOS S8, S9, S14, S16): clients do not notice.

use std::time::Duration;

use crate::clients::Clients;
use crate::table;
use crate::world::World;

const BOUND: Duration = Duration::from_millis(5500);

#[test]
fn s08_s09_s14_s16_nobody_notices_a_standby_that_is_killed_frozen_or_cut_off() {
    let Some(world) = World::usual() else { return };

    let mut clients = Clients::start(&world);
    clients.fault();
    world.server(1).stop().expect("stopped");
    clients.go_on(Duration::from_secs(3));
    world.start_server(1);
    world.wait_follows(1, 0);
    let report = clients.stop(&world);
    report.unharmed();
    table::gap("S14", "standby stopped (`immediate`)", Duration::from_secs(1), &report);

    let mut clients = Clients::start(&world);
    clients.fault();
    world.net.cut("db3");
    world.wait_status(&[(2, "down")]);
    clients.go_on(Duration::from_secs(2));
    world.net.mend("db3");
    world.wait_follows(2, 0);
    let report = clients.stop(&world);
    report.unharmed();
    table::gap("S16", "standby's network cut, later mended", BOUND, &report);

    let mut clients = Clients::start(&world);
    clients.fault();
    world.power_lost(1);
    world.wait_status(&[(1, "down")]);
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&world);
    report.unharmed();
    table::gap("S8", "standby frozen, its packets vanish", BOUND, &report);

    let clients = Clients::start(&world);
    world.server(1).thaw().expect("goes on");
    world.net.mend("db2");
    world.wait_follows(1, 0);
    let report = clients.stop(&world);
    report.unharmed();
    table::gap("S9", "that standby comes back", Duration::from_secs(1), &report);
}
