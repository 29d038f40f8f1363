//! Orders about nodes, given with pgpool-II's programs and with pgherd's own: detach, attach, promote, switch-over (HA H12, H25).

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgherd::app::demo::cluster::{Cluster, Options};

use crate::common::raw::RawClient;
use crate::common::{self, eventually};
use crate::world::{World, has_pgpool};

fn status(world: &World<'_>, node: usize) -> String {
    let told = world.own(&["node_info"]).expect("told");
    told["nodes"][node]["status"].as_str().expect("a status").to_owned()
}

#[test]
fn h25_a_standby_is_detached_and_attached_and_a_primary_that_answers_is_not() {
    if !has_pgpool("orders about nodes") {
        return;
    }
    let Some(world) = World::start("") else { return };
    let done = world.stock("pcp_detach_node -n 2");
    assert_eq!(
        (done.code, done.out.as_str(), done.err.as_str()),
        (Some(0), "pcp_detach_node -- Command Successful", "")
    );
    eventually("it is detached", || status(&world, 2) == "detached");
    let told = world.stock("pcp_node_info -n 2").out;
    assert_eq!(told.split_whitespace().nth(4), Some("down"), "{told}");
    let done = world.stock("pcp_attach_node -n 2");
    assert_eq!((done.code, done.out.as_str()), (Some(0), "pcp_attach_node -- Command Successful"));
    eventually("it is used again", || status(&world, 2) == "up");
    for order in
        ["pcp_detach_node -n 0", "pcp_detach_node -n 0 -g", "pcp_promote_node -n 1", "pcp_promote_node -n 1 -g"]
    {
        let refused = world.stock(order);
        assert!(refused.out.is_empty() && refused.err.contains("--switchover"), "{order}: {refused:?}");
    }
    let refused = world.stock("pcp_promote_node -n 1 -s");
    assert!(refused.err.contains("failover.demote_command"), "{refused:?}");
    let refused = world.stock("pcp_promote_node -n 0");
    assert!(refused.err.contains("specified node is already primary node"), "{refused:?}");
    // Ours say so by their status.
    for order in [
        &["detach_node", "0"][..],
        &["promote_node", "1"],
        &["switch_over"],
        &["attach_node", "9"],
        &["recovery_node", "1"],
    ] {
        assert_eq!(world.own(order).expect_err("refused").code, Some(1), "{order:?}");
    }
    let events = world.own(&["events"]).expect("told");
    let names: Vec<&str> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["event"].as_str().expect("a name"))
        .collect();
    for name in ["order_detach", "detached", "order_attach", "attached", "order_refused"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[test]
fn h25_a_graceful_detach_waits_for_the_transaction() {
    let Some(world) = World::start("[recovery]\ntimeout = \"20s\"") else { return };
    let (database, stop) = (common::database(world.cluster, "graceful"), AtomicBool::new(false));
    // Each session draws its server: sooner or later one draws node 1.
    let read = || {
        while !stop.load(Ordering::Relaxed) {
            let mut client = RawClient::login(world.proxy.port(), &database);
            let frames = client.query("SELECT count(*) FROM generate_series(1, 1000000) n");
            assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
        }
    };
    let busy = || {
        let told = world.own(&["proc_info"]).expect("told");
        told["sessions"].as_array().expect("sessions").iter().any(|one| one["node"] == 1)
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6).map(|_| scope.spawn(read)).collect();
        // They end whatever happens here: the scope waits for them.
        let works = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eventually("node 1 works", busy)));
        stop.fetch_or(works.is_err(), Ordering::Relaxed);
        works.expect("node 1 works");
        let done = world.own(&["detach_node", "1", "-g"]);
        let after = busy();
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("all reads end well"));
        done.expect("detached");
        assert!(!after, "nobody has a connection to it");
    });
    assert_eq!(status(&world, 1), "detached");
    world.own(&["attach_node", "1"]).expect("attached");
}

/// A cluster that may be broken; none without PostgreSQL.
fn own_cluster() -> Option<Cluster> {
    match Cluster::start(&Options::default()) {
        Ok(cluster) => {
            cluster.wait_replayed(common::SOON).expect("standbys follow");
            Some(cluster)
        }
        Err(pgherd::app::demo::Error::NoPostgres) => {
            common::skip("orders to a cluster of one's own", "no PostgreSQL");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn h25_without_a_primary_questions_are_answered_and_the_real_program_promotes() {
    if !has_pgpool("a promotion by hand") {
        return;
    }
    let Some(cluster) = own_cluster() else { return };
    let world = World::on(&cluster, "[failover]\npromote = \"never\"");
    let mut client = RawClient::login(world.proxy.port(), "postgres");
    client.query("CREATE TABLE kept (n int)");
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    cluster.primary().kill9().expect("killed");
    // Whatever state it is in, it says so, and does not make the administrator wait.
    let begun = Instant::now();
    while status(&world, 0) != "down" {
        let asked = Instant::now();
        assert_eq!(world.stock("pcp_node_info").out.lines().count(), 3);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(begun.elapsed() < common::SOON, "it is noticed");
    }
    let told = world.own(&["overview"]).expect("told");
    assert_ne!(told["writes"], "open", "{told}");
    client.send(&crate::common::raw::query("INSERT INTO kept VALUES (1)")).expect("sent");
    // A moment later it is dead for good, and may be replaced.
    eventually("it is promoted", || {
        world.stock("pcp_promote_node -n 1").out == "pcp_promote_node -- Command Successful"
    });
    let told = world.stock("pcp_node_info -n 1").out;
    assert!(told.contains(" primary primary "), "{told}");
    let frames = client.until_ready().expect("the write that has waited is answered");
    assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    assert_eq!(client.values("SELECT count(*) FROM kept"), ["1"]);
}

#[test]
fn h12_a_switch_over_is_ordered_and_its_progress_is_seen() {
    let Some(cluster) = own_cluster() else { return };
    let world = World::on(&cluster, &format!("[failover]\ndemote_command = \"{}\"", demote(&cluster)));
    let stop = AtomicBool::new(false);
    let (world, stop) = (&world, &stop);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut client = RawClient::login(world.proxy.port(), "postgres");
            client.query("CREATE TABLE moved (n int)");
            let mut rows = 0;
            while !stop.load(Ordering::Relaxed) {
                rows += 1;
                let frames = client.query(&format!("INSERT INTO moved VALUES ({rows})"));
                assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
            }
            rows
        });
        let ran = world.own_text(&["promote_node", "--switchover", "1"]);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(writer.join().expect("every write is taken") > 0);
        for event in ["order_switch_over", "promoted"] {
            assert!(ran.err.contains(event), "{event} in {ran:?}");
        }
    });
    let told = world.own(&["node_info", "-n", "1"]).expect("told");
    assert_eq!(told["nodes"][0]["role"], "primary", "{told}");
}

/// A script that stops the server of a data directory.
pub(crate) fn demote(cluster: &Cluster) -> String {
    let script = cluster.folder().join("demote.sh");
    let data = cluster.primary().data().display();
    let text = format!(
        "#!/bin/sh\nkill -INT $(head -1 '{data}/postmaster.pid') || exit 1\nwhile [ -e '{data}/postmaster.pid' ]; do sleep 0.05; done\n"
    );
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("executable");
    script.display().to_string()
}
