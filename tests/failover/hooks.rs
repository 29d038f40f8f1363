//! Hooks: one that cannot be run (SCENARIOS S32), one that promotes (S33), one that fences (HA H8).

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pgherd::cluster::{NodeId, Status, Writes};
use pgherd::failover::engine::Order;

use crate::common::eventually;
use crate::herd::Herd;

/// Writes an executable script into the configuration's folder, of which `LOG` is a file in it.
fn script(herd: &Herd, name: &str, text: &str) {
    let path = herd.folder.path().join(name);
    let text = text.replace("LOG", &herd.folder.path().join("log").display().to_string());
    let text = text.replace("PSQL", &herd.cluster.programs().path("psql").display().to_string());
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
}

fn log(herd: &Herd) -> String {
    std::fs::read_to_string(herd.folder.path().join("log")).unwrap_or_default()
}

#[test]
fn s32_a_hook_that_cannot_be_run_is_told_and_an_operator_promotes() {
    let Some(herd) = Herd::start("promote = \"command\"\nfailover_command = \"./missing.sh %d %m\"", &[]) else {
        return;
    };
    herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    eventually("writes wait", || matches!(herd.writes(), Writes::Held { .. }));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((herd.primary(), herd.node(0).status), (Some(0), Status::Down), "nobody was promoted");
    herd.unmarked(1);
    herd.running().order(Order::Promote(NodeId(1))).expect("promoted");
    assert_eq!(herd.primary(), Some(1));
    herd.write_again(2);
}

#[test]
fn s33_failover_command_promotes_once_and_follow_primary_command_is_run_for_the_other() {
    let failover = "promote = \"command\"\n\
        failover_command = \"./failover.sh %d %h %p '%D' %m %H %M %P %r '%R' %N %S\"\n\
        follow_primary_command = \"./follow.sh %d %m %P\"\n";
    let Some(herd) = Herd::start(failover, &[]) else { return };
    script(
        &herd,
        "failover.sh",
        "echo \"failover $PGHERD_FAILOVER_ID $*\" >>LOG\nexec PSQL -X -h $6 -p $9 -U postgres -c 'SELECT pg_promote()' postgres",
    );
    script(&herd, "follow.sh", "echo \"follow $*\" >>LOG");
    herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    let (_, gap) = herd.write_again(2);
    println!("by a hook: writes again after {gap:?}");
    let primary = herd.primary().expect("there is one");
    let other = 3 - primary;
    eventually("the hook for the other standby has run", || log(&herd).contains("follow"));
    std::thread::sleep(Duration::from_secs(2));
    let said = log(&herd);
    let lines: Vec<&str> = said.lines().collect();
    let (old, new) = (herd.server(0), herd.server(primary));
    let expected = format!(
        "failover 1 0 127.0.0.1 {} {} {primary} 127.0.0.1 0 0 {} {} 127.0.0.1 {}",
        old.port(),
        old.data().display(),
        new.port(),
        new.data().display(),
        old.port()
    );
    assert_eq!(lines, [expected, format!("follow {other} {primary} 0")], "each once");
    herd.unmarked(other);
}

#[test]
fn h08_a_fence_that_fails_stops_the_failover_unless_it_need_not_work() {
    for (rule, promoted) in [("required", false), ("best_effort", true)] {
        let failover = format!("promote = \"builtin\"\nfence = \"{rule}\"\nfence_command = \"./fence.sh %d\"");
        let Some(herd) = Herd::start(&failover, &[]) else { return };
        script(&herd, "fence.sh", "echo \"fence $*\" >>LOG; exit 3");
        herd.write_again(1);
        herd.server(0).kill9().expect("killed");
        eventually("the fence was tried", || log(&herd).contains("fence 0"));
        if promoted {
            herd.write_again(2);
            assert_ne!(herd.primary(), Some(0));
        } else {
            std::thread::sleep(Duration::from_secs(2));
            assert_eq!(herd.primary(), Some(0), "promoted beside a primary that may live");
        }
    }
}
