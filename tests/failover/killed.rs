//! The process that replaces a primary is killed at each of its steps (SCENARIOS S37): the next one undoes it or ends it.

use std::fs::{File, OpenOptions};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgherd::cluster::{NodeId, Status};
use pgherd::failover::engine::Order;

use crate::common::{SOON, eventually};
use crate::herd::Herd;

/// Runs the real binary, kills the primary, and kills pgherd as soon as it has begun `step`; the rest is another process's.
fn killed_at(step: &str) {
    let failover = "promote = \"builtin\"\n[log]\nlevel = \"debug\"";
    let Some(mut herd) = Herd::start(failover, &[]) else { return };
    let (row, _) = herd.write_again(1);
    herd.running = None;
    let path = herd.folder.path().join("pgherd.log");
    let output = File::create(&path).expect("a log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.arg("run").arg("--config").arg(herd.folder.path().join("pgherd.toml"));
    let mut process = command.stdin(Stdio::null()).stderr(output).spawn().expect("it starts");
    let log = || std::fs::read_to_string(&path).unwrap_or_default();
    let (row, _) = herd.write_again(row + 1);
    eventually("it has looked at all nodes", || log().matches("event=\"node_up\"").count() == 3);
    herd.server(0).kill9().expect("killed");
    let wanted = format!("job={step}");
    let begun = Instant::now();
    while !log().contains(&wanted) {
        assert!(begun.elapsed() < SOON, "{step} is never reached:\n{}", log());
        std::thread::sleep(Duration::from_millis(1));
    }
    process.kill().expect("it runs");
    process.wait().expect("our child");
    herd.begin_without(&[0]);
    let (_, gap) = herd.write_again(row + 1);
    println!("killed at {step}: the next process takes writes after {gap:?}");
    let primary = herd.primary().expect("there is one");
    assert_ne!(primary, 0, "{step}");
    herd.follow(&[3 - primary], primary);
    let leads =
        |id: u16| herd.server(id).psql("postgres", "SELECT pg_is_in_recovery()").is_ok_and(|said| said.trim() == "f");
    assert_eq!((leads(1), leads(2)), (primary == 1, primary == 2), "{step}: one primary");
}

#[test]
fn s37_killed_while_it_recruits() {
    killed_at("Recruit");
}

#[test]
fn s37_killed_while_it_fences() {
    killed_at("Fence");
}

#[test]
fn s37_killed_while_it_promotes() {
    killed_at("Promote");
}

#[test]
fn s37_killed_while_the_others_are_told_to_follow() {
    killed_at("Follow");
}

/// A disk that hangs: the file that the journal is written to is a pipe that nobody reads.
#[test]
fn h13_a_disk_that_hangs_delays_what_is_to_be_written_down_and_nothing_else() {
    let Some(herd) = Herd::start("promote = \"builtin\"", &[]) else { return };
    let path = herd.folder.path().join("pgherd.state/failover.json.new");
    // The file is there for a moment while the start is written down.
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU) {
        assert!(Instant::now() < until, "a pipe: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
    herd.running().order(Order::Detach(NodeId(2))).expect("detached");
    herd.wait_status(2, Status::Detached);
    herd.server(1).stop().expect("stopped");
    herd.wait_status(1, Status::Down);
    let (row, _) = herd.write_again(1);
    // Without the journal nobody is promoted: fsync goes before the act.
    herd.server(1).start().expect("starts");
    herd.running().order(Order::Attach(NodeId(1))).expect("attached");
    herd.wait_status(1, Status::Up);
    herd.server(0).kill9().expect("killed");
    std::thread::sleep(Duration::from_secs(4));
    let recovers =
        || herd.server(1).psql("postgres", "SELECT pg_is_in_recovery()").is_ok_and(|said| said.trim() == "t");
    assert!(recovers() && herd.primary() == Some(0), "promoted before that was written down");
    // It goes on: whoever waits to write into the pipe fails, and the next one finds a file.
    let pipe = OpenOptions::new().read(true).write(true).open(&path).expect("a pipe");
    std::fs::remove_file(&path).expect("removed");
    drop(pipe);
    herd.write_again(row + 1);
    assert_eq!(herd.primary(), Some(1));
}
