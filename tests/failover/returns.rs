//! A standby that died and comes back (SCENARIOS S9, S26, S27): who attaches it, when, and which hooks are run.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pgherd::cluster::{NodeId, Status};
use pgherd::failover::engine::Order;

use crate::common::eventually;
use crate::herd::Herd;

const HOOKS: &str = "failover_command = \"./note.sh lost %d %m %P\"\nfailback_command = \"./note.sh back %d %m %P\"";

fn start(settings: &str) -> Option<Herd> {
    let herd = Herd::start(&format!("{HOOKS}\n{settings}"), &[])?;
    let path = herd.folder.path().join("note.sh");
    std::fs::write(&path, "#!/bin/sh\necho \"$*\" >>log\n").expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    Some(herd)
}

fn log(herd: &Herd) -> Vec<String> {
    let text = std::fs::read_to_string(herd.folder.path().join("log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A standby dies and is started again.
fn restarted(herd: &Herd, id: u16) {
    herd.server(id).kill9().expect("killed");
    herd.wait_status(id, Status::Down);
    herd.server(id).start().expect("starts");
}

#[test]
fn s09_a_standby_that_died_is_detached_until_it_is_attached_or_the_process_is_another() {
    let Some(mut herd) = start("auto_failback = false") else { return };
    restarted(&herd, 1);
    eventually("the hook for its death has run", || log(&herd) == ["lost 1 0 0"]);
    herd.wait_status(1, Status::Detached);
    assert!(herd.node(1).reason.contains("attached"), "{}", herd.node(1).reason);
    herd.follow(&[1], 0);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(herd.node(1).status, Status::Detached, "it streams, and nobody has attached it");
    herd.running().order(Order::Attach(NodeId(1))).expect("attached");
    herd.wait_status(1, Status::Up);
    eventually("the hook for its return has run", || log(&herd) == ["lost 1 0 0", "back 1 0 0"]);
    // Taken out by hand while it is down: out is out, and its death was told once.
    herd.server(2).kill9().expect("killed");
    herd.wait_status(2, Status::Down);
    eventually("the hook for its death has run", || log(&herd).len() == 3);
    herd.running().order(Order::Detach(NodeId(2))).expect("detached");
    herd.server(2).start().expect("starts");
    restarted(&herd, 1);
    herd.wait_status(1, Status::Detached);
    // Another process does not hold it against a server that it was down; what was taken out by hand stays out (S30).
    herd.begin_without(&[2]);
    herd.wait_status(2, Status::Detached);
    assert_eq!(herd.node(1).status, Status::Up);
    assert_eq!(log(&herd), ["lost 1 0 0", "back 1 0 0", "lost 2 0 0", "lost 1 0 0"]);
}

#[test]
fn s09_with_auto_failback_a_standby_returns_once_it_streams_and_not_too_often() {
    let Some(herd) = start("auto_failback = true\nauto_failback_interval = \"1h\"") else { return };
    let original = herd.server(1).psql("postgres", "SHOW primary_conninfo").expect("shown");
    herd.server(1).psql("postgres", "ALTER SYSTEM SET primary_conninfo = 'port=1'").expect("set");
    restarted(&herd, 1);
    herd.wait_status(1, Status::Detached);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(herd.node(1).status, Status::Detached, "it does not stream");
    let back = format!("ALTER SYSTEM SET primary_conninfo = '{}'", original.trim().replace('\'', "''"));
    herd.server(1).psql("postgres", &back).expect("set");
    herd.server(1).reload().expect("reloaded");
    herd.follow(&[1], 0);
    herd.wait_status(1, Status::Up);
    eventually("both hooks have run", || log(&herd) == ["lost 1 0 0", "back 1 0 0"]);
    restarted(&herd, 1);
    herd.follow(&[1], 0);
    herd.wait_status(1, Status::Detached);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(herd.node(1).status, Status::Detached, "twice within an hour");
}

#[test]
fn s09_a_node_that_is_not_to_be_detached_comes_and_goes_and_is_never_replaced() {
    let Some(mut herd) = start("promote = \"builtin\"\nauto_failback = false") else { return };
    for (id, flag) in [(1, "DISALLOW_TO_FAILOVER"), (0, "DISALLOW_TO_FAILOVER"), (0, "ALWAYS_PRIMARY")] {
        herd.reload(|config| config.replace(&format!("id = {id}\n"), &format!("id = {id}\nflags = [\"{flag}\"]\n")));
        for id in 0..3 {
            herd.wait_status(id, Status::Up);
        }
        herd.server(id).kill9().expect("killed");
        herd.wait_status(id, Status::Down);
        // Long enough for a promotion.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(herd.primary(), Some(0), "{flag}");
        herd.server(id).start().expect("starts");
        for id in 0..3 {
            herd.wait_status(id, Status::Up);
        }
        assert_eq!(log(&herd), [""; 0], "{flag}: a hook was run");
    }
    herd.write_again(1);
}
