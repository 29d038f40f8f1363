//! More ways for a primary to be lost (SCENARIOS S11, S15, S31).

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clients::Clients;
use crate::common::{SOON, eventually};
use crate::primary::lost;
use crate::table;
use crate::world::{Setup, World};

#[test]
fn s11_a_primary_that_loses_power_is_replaced() {
    let Some(world) = World::usual() else { return };
    let mut clients = Clients::start(&world);
    lost(&world, &mut clients, |world| world.power_lost(0));
    let report = clients.stop(&world);
    report.bounded();
    table::gap("S11", "primary frozen, its packets vanish", Duration::from_secs(6), &report);
}

#[test]
fn s15_a_primary_that_is_stopped_at_once_is_replaced() {
    let Some(world) = World::usual() else { return };
    let mut clients = Clients::start(&world);
    lost(&world, &mut clients, |world| world.server(0).stop().expect("stopped"));
    let report = clients.stop(&world);
    report.bounded();
    table::gap("S15", "primary stopped (`immediate`)", Duration::from_secs(2), &report);
}

#[test]
fn s15_a_late_answer_of_a_primary_whose_postmaster_was_killed_reaches_nobody() {
    let Some(world) = World::usual() else { return };
    let mut clients = Clients::start(&world);
    world.told(0, "CREATE TABLE long_one (n int)");
    let (mut long, mut direct) = (world.client(), world.client());
    long.patience(Duration::from_secs(60));
    // Its backend is at work, and does not look at its postmaster, for seconds.
    let statement = "INSERT INTO long_one SELECT n FROM generate_series(1, 4000000) AS n";
    let waiting = std::thread::spawn(move || long.query(statement));
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO long_one%' AND state = 'active'";
    eventually("it is at work", || world.told(0, at_work) == "1");
    let primary = lost(&world, &mut clients, |world| {
        let postmaster = world.server(0).pid().expect("it runs");
        kill(Pid::from_raw(i32::try_from(postmaster).expect("a pid")), Signal::SIGKILL).expect("killed");
    });
    let report = clients.stop(&world);
    report.bounded();
    let answer = waiting.join().expect("it is answered");
    let code = answer.iter().find_map(crate::common::raw::Frame::sqlstate);
    assert!(["08007", "40001"].contains(&code.as_deref().unwrap_or_default()), "{answer:?}");
    assert_eq!(direct.values("SELECT count(*) FROM long_one"), ["0"]);
    assert_ne!(primary, 0);
    table::gap(
        "S15",
        "postmaster of the primary killed (`kill -9`), a long INSERT at work",
        Duration::from_secs(2),
        &report,
    );
}

#[test]
fn s31_without_enough_standbys_reads_go_on_and_the_primary_comes_back_by_itself() {
    let failover = "promote = \"builtin\"\nhold_timeout = \"3s\"";
    let Some(world) = World::start(&Setup { failover, ..Setup::default() }) else { return };
    world.server(1).stop().expect("stopped");
    world.wait_status(&[(1, "down")]);
    let mut clients = Clients::start(&world);
    clients.fault();
    world.server(0).stop().expect("stopped");
    eventually("writes are refused", || {
        let mut client = world.client();
        client.patience(SOON);
        let said = client.query("INSERT INTO ledger (client, n) VALUES (200, 1)");
        said.iter().find_map(crate::common::raw::Frame::sqlstate).as_deref() == Some("57P03")
    });
    clients.go_on(Duration::from_secs(3));
    world.start_server(0);
    world.wait_status(&[(0, "up")]);
    eventually("writes go on", || {
        let said = world.client().query("UPDATE shared SET n = n");
        said.iter().all(|frame| frame.tag != b'E')
    });
    clients.go_on(Duration::from_secs(1));
    let report = clients.stop(&world);
    for failure in report.failures() {
        let known = ["57P03", "08006", "08007", "40001"].iter().any(|code| failure.what.starts_with(code));
        assert!(known, "{failure:?}\n{report}");
    }
    report.whole();
    assert_eq!(world.primary(), Some(0));
    let reads = report.gap_of_reads();
    table::line(
        "S31",
        "primary stopped, one standby of two is left (`hold_timeout` 3 s)",
        &format!("reads: gap {}; writes: 57P03 while it lasts, then again", table::seconds(reads)),
        "clear errors, reads served, recovers by itself",
        &report.to_string(),
    );
    // A read that was on its way to the primary goes elsewhere as soon as that one is known to be gone; all others are served.
    assert!(reads < Duration::from_secs(2), "reads were not served: {report}");
}
