//! Nodes that come and go by a reload while sessions are at work (SCENARIOS S26, S27): they do not notice.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pgherd::cluster::{NodeId, Status};

use crate::common::eventually;
use crate::common::raw::{Frame, RawClient};
use crate::herd::Herd;

/// The configuration without the entry of that node, which must not be the first.
fn without(config: &str, id: u16) -> String {
    let parts: Vec<&str> = config.split("[[node]]").collect();
    let kept = parts.iter().filter(|part| !part.starts_with(&format!("\nid = {id}\n")));
    kept.copied().collect::<Vec<_>>().join("[[node]]")
}

/// Reads and writes on one connection, without a single error.
fn session(mut client: RawClient, rows: &AtomicU32, stop: &AtomicBool) -> u32 {
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let row = rows.fetch_add(1, Ordering::Relaxed);
        for sql in ["SELECT count(*) FROM t WHERE n = 0", &format!("INSERT INTO t VALUES ({row})")] {
            let frames = client.try_query(sql).unwrap_or_else(|error| panic!("the session ended: {error}"));
            assert_eq!(frames.iter().find_map(Frame::sqlstate), None, "{sql}: {frames:?}");
        }
        done += 1;
    }
    done
}

fn known(herd: &Herd, id: u16) -> Option<Status> {
    Some(herd.running().cluster().view().node(NodeId(id))?.status)
}

/// Connections of pgherd's clients to a server.
fn connections(herd: &Herd, id: u16) -> u32 {
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND \
        pid <> pg_backend_pid() AND application_name <> 'pgherd monitor'";
    herd.server(id).psql("postgres", asked).expect("a read").trim().parse().expect("a number")
}

#[test]
fn s26_s27_nodes_are_added_and_removed_by_a_reload_and_nobody_notices() {
    let Some(mut herd) =
        Herd::start("promote = \"builtin\"\n[routing]\nstatement_level = true\nconsistency = \"eventual\"", &[])
    else {
        return;
    };
    let (rows, stop) = (AtomicU32::new(1), AtomicBool::new(false));
    let clients: Vec<RawClient> = (0..6).map(|_| herd.client()).collect();
    std::thread::scope(|scope| {
        let (rows, stop) = (&rows, &stop);
        let sessions: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(move || session(client, rows, stop))).collect();
        let ended = scopeguard(stop);
        eventually("node 2 is read from", || connections(&herd, 2) > 0);
        herd.reload(|config| without(config, 2));
        eventually("node 2 is configured no more", || known(&herd, 2).is_none());
        eventually("nobody has a connection to it", || connections(&herd, 2) == 0);
        assert_eq!((known(&herd, 0), known(&herd, 1)), (Some(Status::Up), Some(Status::Up)));
        // It comes back with no share of the reads, and then with one.
        herd.reload(|config| config.replace("id = 2\n", "id = 2\nweight = 0\n"));
        eventually("node 2 is used", || known(&herd, 2) == Some(Status::Up));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(connections(&herd, 2), 0, "it has no weight");
        herd.reload(str::to_owned);
        eventually("node 2 is read from", || connections(&herd, 2) > 0);
        drop(ended);
        for session in sessions {
            assert!(session.join().expect("a session must not fail") > 0);
        }
    });
    // The failover engine has learned of all of it: with one standby alone, that one is promoted.
    herd.reload(|config| without(config, 1));
    eventually("node 1 is configured no more", || known(&herd, 1).is_none());
    herd.server(0).kill9().expect("killed");
    herd.write_again(1_000_000);
    assert_eq!(herd.primary(), Some(2));
}

/// Ends the sessions also where a test fails: else nobody would ever wait for them in vain.
fn scopeguard(stop: &AtomicBool) -> impl Drop + '_ {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    Ends(stop)
}
