//! What must not be taken for a dead primary: a busy machine, a full server, crash recovery, failing names, a wrong password. Each lasts
//! `NO_FALSE_SECONDS` (12).

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::programs;

use crate::clients::{Clients, Report};
use crate::common::raw::RawClient;
use crate::table;
use crate::world::{Setup, World};

const SYNCHRONOUS: &[(&str, &str)] = &[("synchronous_standby_names", "ANY 1 (*)")];

pub(super) fn time() -> Duration {
    let given = std::env::var("NO_FALSE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(12))
}

/// Clients work while `trouble` lasts; then everything is as before, and nobody was promoted.
fn endured<T>(world: &World, what: &str, trouble: impl FnOnce(&World) -> T, over: impl FnOnce(&World, T)) -> Report {
    let (clients, begun) = (Clients::start(world), Instant::now());
    let kept = trouble(world);
    clients.go_on(time().saturating_sub(begun.elapsed()));
    over(world, kept);
    world.wait_status(&[(0, "up"), (1, "up"), (2, "up")]);
    clients.go_on(Duration::from_secs(1));
    let report = clients.stop(world);
    println!("{what}: {report}");
    for event in ["failover_begins", "candidate_chosen", "promoted"] {
        assert_eq!(world.events(event), 0, "{what}: {:?}", world.last_event(event));
    }
    assert_eq!(world.primary(), Some(0), "{what}");
    report.whole();
    let measured = format!("no failover in {} s; gap {}", time().as_secs(), table::seconds(report.gap()));
    table::line("No false failover", what, &measured, "no failover", &report.to_string());
    report
}

pub(super) struct Hog(Child);

impl Drop for Hog {
    fn drop(&mut self) {
        programs::kill_group(&mut self.0);
    }
}

pub(super) fn hog() -> Hog {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do :; done"]).process_group(0).stdin(Stdio::null());
    Hog(command.spawn().expect("a hog"))
}

#[test]
fn a_busy_machine_is_no_dead_primary() {
    let Some(world) = World::usual() else { return };
    let hogs = |_: &World| (0..16).map(|_| hog()).collect::<Vec<_>>();
    let report = endured(&world, "16 processes burn all cores", hogs, |_, hogs| drop(hogs));
    for failure in report.failures() {
        assert!(failure.what.starts_with("login:"), "only a probe's second may be too short: {failure:?}");
    }
}

#[test]
fn a_full_server_is_no_dead_primary() {
    let Some(world) = World::usual() else { return };
    let fill = |world: &World| {
        let port = world.server(0).port();
        world.net.host("db1").inside(|| {
            let mut all = Vec::new();
            while let Ok(one) = RawClient::try_login(port, "postgres", "postgres") {
                all.push(one);
            }
            all
        })
    };
    let report = endured(&world, "`max_connections` of the primary is exhausted", fill, |_, all| drop(all));
    for failure in report.failures() {
        assert!(failure.what.starts_with("53300"), "{failure:?}");
    }
}

#[test]
fn crash_recovery_is_no_death() {
    let settings = &[("synchronous_standby_names", "ANY 1 (*)"), ("checkpoint_timeout", "1h"), ("max_wal_size", "8GB")];
    let Some(world) = World::start(&Setup { failover: "promote = \"builtin\"", settings, ..Setup::default() }) else {
        return;
    };
    world.told(0, "CREATE TABLE much AS SELECT n, md5(n::text) AS text FROM generate_series(1, 1500000) AS n");
    let crash = |world: &World| {
        let writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'";
        let pid = world.told(0, writer);
        kill(Pid::from_raw(pid.parse().expect("a pid")), Signal::SIGKILL).expect("killed");
        let begun = Instant::now();
        while !world.ask(0, writer).is_ok_and(|now| !now.is_empty() && now != pid) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not recover");
        }
        println!("recovered after {:?}", begun.elapsed());
    };
    let again = |world: &World| {
        let begun = Instant::now();
        crash(world);
        while begun.elapsed() < time() {
            world.told(0, "INSERT INTO much SELECT n, md5(n::text) FROM generate_series(1, 500000) AS n");
            crash(world);
        }
    };
    let report = endured(&world, "primary in crash recovery, again and again", again, |_, ()| ());
    for failure in report.failures() {
        assert!(["08007", "40001"].iter().any(|code| failure.what.starts_with(code)), "{failure:?}");
    }
}

#[test]
fn names_that_cannot_be_resolved_are_no_dead_servers() {
    let failover = "promote = \"builtin\"";
    let setup = Setup { failover, settings: SYNCHRONOUS, names: true, ..Setup::default() };
    let Some(world) = World::start(&setup) else { return };
    let file = world.hosts_file();
    let hosts = std::fs::read(&file).expect("it has one");
    let fail = |_: &World| std::fs::write(&file, "").expect("emptied");
    let report =
        endured(&world, "no name can be resolved", fail, |_, ()| std::fs::write(&file, &hosts).expect("mended"));
    report.unharmed();
}

#[test]
fn a_wrong_password_is_no_dead_primary() {
    let monitor = "user = \"herder\"\npassword_file = \"users\"";
    let setup = Setup { failover: "promote = \"builtin\"", settings: SYNCHRONOUS, monitor, ..Setup::default() };
    let Some(world) = World::start(&setup) else { return };
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'herder'";
    let change = |world: &World| {
        world.told(0, "ALTER ROLE herder PASSWORD 'another'");
        (0..3).for_each(|id| drop(world.told(id, end)));
    };
    let back = |world: &World, ()| drop(world.told(0, "ALTER ROLE herder PASSWORD 'secret'"));
    let report = endured(&world, "the monitor's password is wrong", change, back);
    report.unharmed();
}
