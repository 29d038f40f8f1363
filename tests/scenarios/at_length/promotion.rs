//! Whether somebody may be promoted, and whether writes may go on then (SCENARIOS S38, S39; HA H2, H9).

use std::time::Duration;

use crate::clients::Clients;
use crate::common::eventually;
use crate::common::raw::RawClient;
use crate::table;
use crate::world::{Setup, World};

#[test]
fn ledger_with_asynchronous_replication_loses_only_what_no_standby_had() {
    crate::ledger::asynchronous();
}

#[test]
fn h02_nobody_is_promoted_while_a_standby_still_hears_the_primary() {
    let Some(world) = World::usual() else { return };
    let mut clients = Clients::start(&world);
    clients.fault();
    world.part(0);
    eventually("it is noticed that the primary lives", || world.events("primary_gray") > 0);
    clients.go_on(Duration::from_secs(4));
    assert_eq!((world.events("promoted"), world.primary()), (0, None));
    for id in [1, 2] {
        assert_eq!(world.told(id, "SELECT pg_is_in_recovery()"), "t");
    }
    world.join(0);
    world.wait_status(&[(0, "up"), (1, "up"), (2, "up")]);
    clients.go_on(Duration::from_secs(2));
    assert_eq!((world.events("promoted"), world.primary()), (0, Some(0)));
    let report = clients.stop(&world);
    report.bounded();
    table::line(
        "H2",
        "the proxy alone is cut off from the primary, for some 9 s",
        &format!("nobody promoted, event `primary_gray`; writes held: gap {}", table::seconds(report.gap())),
        "no promotion",
        &report.to_string(),
    );
}

#[test]
fn h09_writes_wait_for_synchronous_standbys_of_the_new_primary() {
    let settings = &[("synchronous_standby_names", "ANY 2 (*)")];
    let Some(world) = World::start(&Setup { failover: "promote = \"builtin\"", settings, ..Setup::default() }) else {
        return;
    };
    let mut clients = Clients::start(&world);
    clients.fault();
    world.server(0).kill9().expect("killed");
    let primary = world.wait_promoted(0);
    eventually("the shortage is told", || world.events("sync_shortage") > 0);
    clients.go_on(Duration::from_secs(5));
    assert_eq!(world.events("failover_done"), 0, "writes go on although they cannot be acknowledged");
    world.rebuild(0, primary);
    world.wait_follows(0, primary);
    eventually("writes go on", || world.events("failover_done") > 0);
    clients.go_on(Duration::from_secs(1));
    let report = clients.stop(&world);
    report.bounded();
    table::line(
        "H9",
        "primary killed under `ANY 2 (*)`: one standby is left, until the old primary is back as one",
        &format!("writes held meanwhile: gap {}", table::seconds(report.gap())),
        "0 errors, 0 rows lost",
        &report.to_string(),
    );
}

#[test]
fn h09_or_the_demand_is_relaxed() {
    let settings = &[("synchronous_standby_names", "ANY 2 (*)")];
    let failover = "promote = \"builtin\"\non_sync_shortage = \"relax\"";
    let Some(world) = World::start(&Setup { failover, settings, ..Setup::default() }) else { return };
    let mut clients = Clients::start(&world);
    clients.fault();
    world.server(0).kill9().expect("killed");
    let primary = world.wait_promoted(0);
    eventually("writes go on", || world.events("failover_done") > 0);
    clients.go_on(Duration::from_secs(1));
    assert!(world.events("sync_relaxed") > 0, "it is not told");
    assert_eq!(world.told(primary, "SHOW synchronous_standby_names"), "");
    let report = clients.stop(&world);
    report.bounded();
    table::gap("H9", "the same with `on_sync_shortage = \"relax\"`", Duration::from_secs(6), &report);
}

#[test]
fn s38_a_promotion_that_a_long_reader_delays_is_waited_for() {
    let settings = &[
        ("max_standby_streaming_delay", "-1"),
        ("hot_standby_feedback", "off"),
        ("synchronous_standby_names", "ANY 1 (*)"),
    ];
    let Some(world) = World::start(&Setup { failover: "promote = \"builtin\"", settings, ..Setup::default() }) else {
        return;
    };
    world.told(0, "CREATE TABLE seen AS SELECT generate_series(1, 100) AS n");
    let mut clients = Clients::start(&world);
    clients.go_on(Duration::from_secs(1));
    let reader = |id: usize| {
        let port = world.server(id).port();
        let mut reader = world.net.host(world.name(id)).inside(|| RawClient::login(port, "postgres"));
        reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
        assert_eq!(reader.values("SELECT count(*) FROM seen"), ["100"]);
        reader
    };
    let readers = [1, 2].map(reader);
    world.told(0, "DELETE FROM seen");
    world.told(0, "VACUUM seen");
    clients.go_on(Duration::from_secs(1));
    clients.fault();
    world.server(0).kill9().expect("killed");
    eventually("one is chosen", || world.events("candidate_chosen") > 0);
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(500));
        let stand = [1, 2].map(|id| world.told(id, "SELECT pg_is_in_recovery()") == "t");
        assert!(stand == [true, true], "promoted although it cannot replay");
    }
    drop(readers);
    let primary = world.wait_promoted(0);
    assert_eq!(world.told(3 - primary, "SELECT pg_is_in_recovery()"), "t", "two were promoted");
    world.wait_follows(3 - primary, primary);
    clients.go_on(Duration::from_secs(1));
    let report = clients.stop(&world);
    report.bounded();
    table::line(
        "S38",
        "primary killed; a reader holds up replay on both standbys for 6 s",
        &format!("one promotion, when the reader ends: gap {}", table::seconds(report.gap())),
        "never two primaries",
        &report.to_string(),
    );
}

#[test]
fn s39_nobody_is_promoted_where_a_commit_may_be_missing_unless_loss_is_allowed() {
    let settings = &[("synchronous_standby_names", "ANY 1 (standby1, standby2, standby3)")];
    let failover = "promote = \"builtin\"\nallow_data_loss = false";
    let Some(world) = World::start(&Setup { standbys: 3, failover, settings, ..Setup::default() }) else { return };
    let mut clients = Clients::start(&world);
    clients.fault();
    world.net.cut("db1");
    world.net.cut("db4");
    eventually("it is told why nobody is promoted", || {
        world.last_event("failover_waits").is_some_and(|line| line.contains("a commit may be missing"))
    });
    clients.go_on(Duration::from_secs(3));
    assert_eq!((world.events("promoted"), world.primary()), (0, None));
    world.net.mend("db1");
    world.net.mend("db4");
    world.wait_status(&[(0, "up"), (1, "up"), (2, "up"), (3, "up")]);
    clients.go_on(Duration::from_secs(1));
    let report = clients.stop(&world);
    report.bounded();
    assert_eq!((world.events("promoted"), world.primary()), (0, Some(0)));
    table::line(
        "S39",
        "`ANY 1 (a, b, c)`: primary and c cut off together, for some 9 s",
        &format!("nobody promoted; writes held: gap {}", table::seconds(report.gap())),
        "no promotion unless loss is allowed",
        &report.to_string(),
    );

    world.proxy.reconfigure(&world.configuration().replace("allow_data_loss = false", "allow_data_loss = true"));
    let mut clients = Clients::start(&world);
    clients.fault();
    world.net.cut("db1");
    world.net.cut("db4");
    world.wait_promoted(0);
    eventually("writes go on", || world.events("failover_done") > 0);
    clients.go_on(Duration::from_secs(1));
    let report = clients.stop(&world);
    assert_eq!(report.dropped(), 0, "{report}");
    table::line(
        "S39",
        "the same with `allow_data_loss = true`",
        &format!("promoted: gap {}", table::seconds(report.gap())),
        "an operator's choice",
        &report.to_string(),
    );
}
