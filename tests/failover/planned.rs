//! Switch-over (HA H12, SCENARIOS S13).

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use pgherd::cluster::{NodeId, Status, Writes};
use pgherd::failover::engine::Order;

use crate::common::eventually;
use crate::herd::Herd;

/// Moves the role to `to`, and the old primary behind it.
fn switch(herd: &Herd, to: u16) {
    let from = herd.primary().expect("there is one");
    let epoch = herd.epoch();
    let begun = Instant::now();
    herd.running().order(Order::SwitchOver(Some(NodeId(to)))).expect("switched");
    println!("switch-over from {from} to {to} took {:?}", begun.elapsed());
    assert_eq!((herd.primary(), herd.epoch()), (Some(to), epoch + 1));
    eventually("writes are open", || herd.writes() == Writes::Open);
    // What the demote_command's owner does next: start it as a standby. It knows whom to follow.
    let old = herd.server(from);
    let signal = old.data().join("standby.signal");
    std::fs::write(&signal, "").expect("written");
    herd.cluster.owner().take(&signal).expect("its own");
    eventually("its process has ended", || !old.is_running());
    old.start().expect("starts as a standby");
    let others: Vec<u16> = (0..3).filter(|id| *id != to).collect();
    herd.follow(&others, to);
    for id in others {
        herd.wait_status(id, Status::Up);
    }
}

#[test]
fn s13_roles_are_switched_and_switched_back_and_nothing_is_rebuilt() {
    let failover = "promote = \"never\"\ndemote_command = \"./demote.sh '%D'\"";
    let Some(herd) = Herd::start(failover, &[]) else { return };
    let script = herd.folder.path().join("demote.sh");
    let text = "#!/bin/sh\nkill -INT $(head -1 \"$1/postmaster.pid\") || exit 1\nwhile [ -e \"$1/postmaster.pid\" ]; do sleep 0.05; done\n";
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("executable");
    let (row, _) = herd.write_again(1);
    switch(&herd, 2);
    let (row, gap) = herd.write_again(row + 1);
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    switch(&herd, 0);
    let (row, _) = herd.write_again(row + 1);
    let rows = herd.try_sql("SELECT count(*) FROM t").expect("a read");
    assert_eq!(rows, [row.to_string()], "every row is there");
    for id in 0..3 {
        eventually("all have all rows", || {
            herd.server(id).psql("postgres", "SELECT count(*) FROM t").is_ok_and(|said| said.trim() == row.to_string())
        });
    }
}

#[test]
fn h12_without_a_means_to_stop_it_or_with_one_that_fails_the_primary_stays() {
    let Some(herd) = Herd::start("promote = \"builtin\"\ndemote_command = \"false\"", &[]) else { return };
    herd.write_again(1);
    let epoch = herd.epoch();
    let why = herd.running().order(Order::SwitchOver(None)).expect_err("it cannot be stopped");
    assert!(why.contains("stays the primary"), "{why}");
    eventually("writes are open", || herd.writes() == Writes::Open);
    herd.write_again(2);
    assert_eq!((herd.primary(), herd.epoch()), (Some(0), epoch));
    drop(herd);
    let Some(herd) = Herd::start("promote = \"builtin\"", &[]) else { return };
    let why = herd.running().order(Order::SwitchOver(None)).expect_err("no means");
    assert!(why.contains("demote_command"), "{why}");
}
