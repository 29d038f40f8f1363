//! The primary dies (SCENARIOS S11, S12, S15, S31).

use std::time::Duration;

use pgherd::app::demo::server::Server;
use pgherd::cluster::{Hold, NodeId, Status, Writes};
use pgherd::failover::engine::Order;

use crate::common::eventually;
use crate::common::raw::RawClient;
use crate::herd::Herd;

const BUILTIN: &str = "promote = \"builtin\"";

/// Kills the primary, and expects a standby in its place and the other one behind it; then lets the old one come back.
fn replaced(how: &str, kill: impl Fn(&Server), limit: Duration, back: impl Fn(&Server)) {
    let Some(herd) = Herd::start(BUILTIN, &[]) else { return };
    let (row, _) = herd.write_again(1);
    let epoch = herd.epoch();
    kill(herd.server(0));
    let (row, gap) = herd.write_again(row + 1);
    println!("{how}: writes again after {gap:?}");
    assert!(gap < limit, "{how}: {gap:?}");
    let primary = herd.primary().expect("there is one");
    assert!(primary != 0 && herd.epoch() == epoch + 1, "{how}: {primary} in epoch {}", herd.epoch());
    let other = 3 - primary;
    herd.follow(&[other], primary);
    herd.wait_status(other, Status::Up);
    let read = format!("SELECT n FROM t WHERE n = {row}");
    eventually("the row is read", || {
        let said = herd.try_sql(&read);
        said.as_ref().is_ok_and(|rows| *rows == [row.to_string()]) || {
            println!("{how}: read {said:?}");
            false
        }
    });
    // S12: it says that it is primary, on a timeline that is over.
    back(herd.server(0));
    herd.wait_status(0, Status::Quarantined);
    let (_, gap) = herd.write_again(row + 1);
    assert!(gap < Duration::from_secs(1), "{how}: the old primary disturbs: {gap:?}");
    assert_eq!((herd.primary(), herd.node(0).status), (Some(primary), Status::Quarantined));
    assert!(herd.node(0).reason.contains("primary"), "{}", herd.node(0).reason);
    let rows = herd.server(0).psql("postgres", &format!("SELECT count(*) FROM t WHERE n > {row}")).expect("it runs");
    assert_eq!(rows.trim(), "0", "{how}: a write went to the old primary");
}

#[test]
fn s15_a_primary_that_is_stopped_at_once_is_replaced_and_not_served_again() {
    let start = |server: &Server| server.start().expect("starts");
    replaced("immediate", |server| server.stop().expect("stopped"), Duration::from_secs(5), start);
}

#[test]
fn s15_a_primary_that_is_killed_is_replaced_and_not_served_again() {
    let start = |server: &Server| server.start().expect("starts");
    replaced("kill -9", |server| server.kill9().expect("killed"), Duration::from_secs(5), start);
}

#[test]
fn s11_a_primary_that_freezes_is_replaced_and_not_served_again() {
    let thaw = |server: &Server| server.thaw().expect("goes on");
    replaced("SIGSTOP", |server| server.freeze().expect("frozen"), Duration::from_secs(9), thaw);
}

#[test]
fn s31_without_a_standby_nobody_is_promoted_and_the_primary_comes_back_by_itself() {
    let Some(herd) = Herd::start("promote = \"builtin\"\nhold_timeout = \"2s\"", &[]) else { return };
    let epoch = herd.epoch();
    for id in [1, 2, 0] {
        herd.server(id).stop().expect("stopped");
    }
    eventually("writes are refused", || matches!(herd.writes(), Writes::Refused { .. }));
    assert_eq!((herd.primary(), herd.epoch()), (Some(0), epoch));
    for id in [0, 1, 2] {
        herd.server(id).start().expect("starts");
    }
    eventually("writes are open", || herd.writes() == Writes::Open);
    herd.write_again(1);
    assert_eq!((herd.primary(), herd.epoch()), (Some(0), epoch));
    herd.follow(&[1, 2], 0);
}

#[test]
fn h05_one_standby_of_two_is_no_majority_but_an_operator_may_promote_it() {
    let Some(herd) = Herd::start(BUILTIN, &[]) else { return };
    herd.write_again(1);
    herd.server(2).kill9().expect("killed");
    herd.wait_status(2, Status::Down);
    let refused = herd.running().order(Order::Promote(NodeId(1))).expect_err("the primary lives");
    assert!(refused.contains("promote_node --switchover 1"), "{refused}");
    herd.server(0).kill9().expect("killed");
    eventually("writes wait", || matches!(herd.writes(), Writes::Held { .. }));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(herd.primary(), Some(0), "promoted without a majority");
    herd.unmarked(1);
    herd.running().order(Order::Promote(NodeId(1))).expect("promoted");
    assert_eq!(herd.primary(), Some(1));
    herd.write_again(100);
    // The one that was away is told whom to follow when it is back.
    herd.server(2).start().expect("starts");
    herd.follow(&[2], 1);
    herd.running().order(Order::Attach(NodeId(2))).expect("attached");
    herd.wait_status(2, Status::Up);
}

#[test]
fn h05_a_primary_that_dies_with_one_standby_of_two_is_replaced_once_that_is_back_or_taken_out() {
    for back in [true, false] {
        let Some(herd) = Herd::start(BUILTIN, &[]) else { return };
        herd.write_again(1);
        herd.server(2).kill9().expect("killed");
        herd.server(0).kill9().expect("killed");
        eventually("both are missed", || {
            let events = herd.running().cluster().events.since(0, usize::MAX);
            events.iter().any(|event| event.why.contains("2 are needed; not there: 2 (detach"))
        });
        assert_eq!(herd.primary(), Some(0), "promoted without a majority");
        match back {
            true => herd.server(2).start().expect("starts"),
            false => drop(herd.running().order(Order::Detach(NodeId(2))).expect("taken out")),
        }
        herd.write_again(2);
        assert!(herd.primary().is_some_and(|id| id == 1 || (id == 2 && back)));
    }
}

#[test]
fn h13_a_new_process_knows_whom_to_replace_and_keeps_what_was_taken_out() {
    let Some(mut herd) = Herd::start(BUILTIN, &[]) else { return };
    herd.write_again(1);
    let refused = herd.running().order(Order::Detach(NodeId(0))).expect_err("the primary lives");
    assert!(refused.contains("--switchover"), "{refused}");
    let epoch = herd.epoch();
    // The process ends with its primary: the next one has never seen it.
    herd.running = None;
    herd.server(0).kill9().expect("killed");
    herd.begin_without(&[0]);
    let (_, gap) = herd.write_again(2);
    println!("restarted: writes again after {gap:?}");
    let primary = herd.primary().expect("there is one");
    assert!(primary != 0 && herd.epoch() > epoch);
    herd.follow(&[3 - primary], primary);
    let other = NodeId(3 - primary);
    herd.running().order(Order::Detach(other)).expect("taken out");
    herd.wait_status(other.0, Status::Detached);
    herd.begin_without(&[0, other.0]);
    herd.wait_status(other.0, Status::Detached);
    herd.running().order(Order::Attach(other)).expect("back");
    herd.wait_status(other.0, Status::Up);
}

#[test]
fn s38_a_promotion_that_a_long_reader_delays_is_waited_for_and_nobody_else_is_promoted() {
    let Some(herd) = Herd::start(BUILTIN, &[("max_standby_streaming_delay", "-1"), ("hot_standby_feedback", "off")])
    else {
        return;
    };
    let (row, _) = herd.write_again(1);
    herd.cluster.wait_replayed(crate::common::SOON).expect("standbys follow");
    // A snapshot on each standby, and on the primary a vacuum that takes away what it sees.
    let mut readers: Vec<RawClient> = [1, 2]
        .map(|id| {
            let mut reader = RawClient::login(herd.server(id).port(), "postgres");
            reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
            assert_eq!(reader.values("SELECT count(*) FROM t"), ["1"]);
            reader
        })
        .into();
    herd.server(0).psql("postgres", "DELETE FROM t").expect("deleted");
    herd.server(0).psql("postgres", "VACUUM t").expect("vacuumed");
    herd.server(0).psql("postgres", "INSERT INTO t VALUES (1000000)").expect("behind what cannot be replayed");
    // They have all of it, and replay none: only then the primary may die.
    let written = herd.server(0).psql("postgres", "SELECT pg_current_wal_flush_lsn()").expect("a position");
    let stuck = format!(
        "SELECT pg_last_wal_receive_lsn() >= '{0}' AND pg_last_wal_replay_lsn() < '{0}' AND EXISTS \
         (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event LIKE 'RecoveryConflict%')",
        written.trim()
    );
    for id in [1, 2] {
        eventually(&format!("node {id} cannot replay"), || {
            herd.server(id).psql("postgres", &stuck).is_ok_and(|said| said.trim() == "t")
        });
    }
    herd.server(0).kill9().expect("killed");
    eventually("a failover is under way", || matches!(herd.writes(), Writes::Held { why: Hold::Failover, .. }));
    let recovers =
        |id: u16| herd.server(id).psql("postgres", "SELECT pg_is_in_recovery()").is_ok_and(|said| said.trim() == "t");
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(500));
        assert!(recovers(1) && recovers(2) && herd.primary() == Some(0), "promoted although it cannot replay");
    }
    readers.clear();
    let (_, gap) = herd.write_again(row + 1);
    println!("after the reader: writes again after {gap:?}");
    let primary = herd.primary().expect("there is one");
    assert!(primary != 0 && recovers(3 - primary) && !recovers(primary));
    assert_eq!(
        herd.server(primary).psql("postgres", "SELECT n FROM t WHERE n = 1000000").expect("a read").trim(),
        "1000000"
    );
    herd.follow(&[3 - primary], primary);
}

#[test]
fn s15_sessions_survive_and_what_they_write_while_the_primary_is_replaced_succeeds() {
    let Some(herd) = Herd::start(BUILTIN, &[]) else { return };
    let mut session = herd.client();
    assert_eq!(session.values("SELECT 1"), ["1"]);
    herd.server(0).kill9().expect("killed");
    eventually("writes are held", || matches!(herd.writes(), Writes::Held { .. }));
    let begun = std::time::Instant::now();
    let frames = session.query("INSERT INTO t VALUES (1) RETURNING n");
    println!("held for {:?}", begun.elapsed());
    assert_eq!(crate::common::raw::values(&frames), ["1"], "{frames:?}");
    assert_eq!(session.values("SELECT n FROM t"), ["1"]);
    let primary = herd.primary().expect("there is one");
    assert_ne!(primary, 0);
    assert_eq!(herd.server(primary).psql("postgres", "SELECT n FROM t").expect("a read").trim(), "1");
}
