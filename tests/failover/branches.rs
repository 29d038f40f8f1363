//! Timelines of the same number, or a greater one, that are not what they seem (HA H6, H10, H13).

use std::time::Duration;

use pgherd::cluster::{NodeId, Status, Timeline, Writes};
use pgherd::failover::engine::Order;

use crate::common::eventually;
use crate::herd::Herd;

const BUILTIN: &str = "promote = \"builtin\"";

fn timeline(herd: &Herd, id: u16) -> Timeline {
    herd.node(id).position.map_or(Timeline(0), |position| position.timeline)
}

/// Makes a server that is stopped begin a timeline of its own, and stops it in order.
fn branch_off(herd: &Herd, id: u16) {
    std::fs::write(herd.server(id).data().join("standby.signal"), "").expect("written");
    herd.server(id).start().expect("starts");
    herd.server(id).psql("postgres", "SELECT pg_promote()").expect("promoted");
}

#[test]
fn h06_a_greater_timeline_of_another_branch_does_not_become_primary() {
    let Some(mut herd) = Herd::start(BUILTIN, &[]) else { return };
    herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    herd.write_again(2);
    let primary = herd.primary().expect("there is one");
    assert_eq!((timeline(&herd, primary), primary != 0), (Timeline(2), true));
    let other = 3 - primary;
    herd.follow(&[other], primary);
    let history = herd.node(primary).position.and_then(|position| position.history).expect("it was asked for");
    assert_eq!(history.timeline(), Timeline(2));
    assert!(history.left(Timeline(1)).is_some());
    // Nobody is left but the first primary, which begins timeline 2 and then timeline 3, without what was written since.
    herd.server(primary).stop().expect("stopped");
    herd.server(other).stop().expect("stopped");
    eventually("writes wait", || matches!(herd.writes(), Writes::Held { .. }));
    herd.server(0).start().expect("starts");
    herd.server(0).psql("postgres", "CREATE TABLE astray ()").expect("written");
    herd.server(0).stop_fast().expect("stopped");
    branch_off(&herd, 0);
    herd.server(0).stop_fast().expect("stopped");
    branch_off(&herd, 0);
    eventually("it is seen", || timeline(&herd, 0) == Timeline(3));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(herd.primary(), Some(primary), "a server that lacks rows has become primary");
    assert_eq!(herd.node(0).status, Status::Quarantined);
    for id in [primary, other] {
        herd.server(id).start().expect("starts");
    }
    let (row, _) = herd.write_again(3);
    assert_eq!((herd.primary(), timeline(&herd, primary)), (Some(primary), Timeline(2)));
    let both = format!("SELECT count(*) FROM t WHERE n IN (2, {row})");
    assert_eq!(herd.server(primary).psql("postgres", &both).expect("asked").trim(), "2");
    // It also does not keep another one from being promoted.
    herd.wait_status(other, Status::Up);
    herd.running().order(Order::Detach(NodeId(0))).expect("taken out");
    herd.server(primary).kill9().expect("killed");
    herd.write_again(row + 1);
    assert_eq!(herd.primary(), Some(other));
    // Without a memory of its own a process begins no older epoch than the servers have seen.
    assert_eq!(timeline(&herd, other), Timeline(3));
    let epoch = herd.epoch();
    herd.running = None;
    let state = herd.folder.path().join("pgherd.state");
    eventually("nothing is written any more", || std::fs::remove_dir_all(&state).is_ok());
    herd.server(0).stop().expect("stopped");
    herd.begin_without(&[0, primary]);
    assert_eq!(herd.primary(), Some(other));
    assert!(epoch >= 3 && herd.epoch() >= 3, "{epoch}, then {}", herd.epoch());
}
