//! Ways to fail that are told apart, each on a real server or socket, and thresholds of a node's own.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::server::Server;

use super::*;
use crate::common::raw::RawClient;

impl Watched {
    /// Waits until a probe of a node has failed in this way.
    fn fails(&self, id: NodeId, how: &str) {
        let started = clock::now();
        loop {
            let events = self.reader.shared.events.since(0, 10_000);
            let found = events
                .iter()
                .any(|event| event.name == "probe_failed" && event.node == Some(id) && event.why.contains(how));
            if found {
                return;
            }
            assert!(started.elapsed() < SOON, "node {id} has not failed by {how:?}: {events:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn signal(server: &Server, signal: Signal) {
    let pid = i32::try_from(server.pid().expect("it runs")).expect("small");
    kill(Pid::from_raw(pid), signal).expect("signalled");
}

fn alone(max_connections: u32) -> Option<Cluster> {
    match Cluster::start(&Options { standbys: 0, max_connections, ..Options::default() }) {
        Ok(cluster) => Some(cluster),
        Err(Error::NoPostgres) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn ways_to_fail_are_told_apart_and_only_some_mean_that_a_server_is_dead() {
    let (Some(cluster), Some(stranger), Some(crowded)) = (cluster(), alone(100), alone(10)) else { return };
    for server in [cluster.primary(), crowded.primary()] {
        server.psql("postgres", "CREATE ROLE watcher LOGIN IN ROLE pg_monitor").expect("creates");
    }
    cluster.wait_replayed(SOON).expect("replays");
    let crowd: Vec<RawClient> = (0..7).map(|_| RawClient::login(crowded.primary().port(), "postgres")).collect();
    let nobody = PortLock::any().expect("a free port");
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let silent_port = silent.local_addr().expect("bound").port();
    let [refused, unreachable, mute, unknown, full] = [10, 11, 12, 13, 14].map(NodeId);
    let dialer = dialer(&cluster, "watcher");
    let mut targets: HashMap<_, _> = (**dialer.targets.load()).clone();
    targets.extend([
        (refused, target("127.0.0.1", nobody.port())),
        // Nobody has a route for TCP to everybody.
        (unreachable, target("255.255.255.255", 5432)),
        (mute, target("127.0.0.1", silent_port)),
        (unknown, target("127.0.0.1", stranger.primary().port())),
        (full, target("127.0.0.1", crowded.primary().port())),
    ]);
    dialer.targets.store(Arc::new(targets));
    let nodes = [PRIMARY, FIRST, SECOND, refused, unreachable, mute, unknown, full];
    let watched = Watched::watch(cluster, dialer, nodes.map(|id| settings(id, 1.0)).to_vec());
    watched.fails(refused, "connection refused");
    watched.fails(unreachable, "unreachable");
    watched.fails(mute, "connecting timed out");
    watched.fails(unknown, "the monitor role is refused");
    watched.fails(full, "too many connections");
    for id in [PRIMARY, FIRST, SECOND] {
        watched.wait(id, NodeView::usable);
    }
    let life = |id| watched.node(id).life;
    for id in [refused, unreachable, mute] {
        watched.wait(id, |node| matches!(node.life, Life::Dead(_)));
    }
    assert_eq!((life(unknown), life(full)), (Life::Well, Life::Well), "they live, whatever they have against us");
    drop(crowd);
    // One with room again answers; it is another cluster's.
    watched.wait(full, |node| node.status == Status::Quarantined);
    // Frozen, after it had let us in.
    watched.cluster.standby(0).freeze().expect("frozen");
    watched.fails(FIRST, "connected, but does not answer");
    watched.cluster.standby(0).thaw().expect("thawed");
    // Going, as long as a client stays; coming, but for nobody.
    let standby = watched.cluster.standby(1);
    let stays = RawClient::login(standby.port(), "postgres");
    signal(standby, Signal::SIGTERM);
    watched.fails(SECOND, "shutting down");
    drop(stays);
    standby.psql("postgres", "SELECT 1").expect_err("it takes nobody");
    watched.fails(SECOND, "connection refused");
    let configuration = standby.data().join("postgresql.conf");
    let text = std::fs::read_to_string(&configuration).expect("read");
    std::fs::write(&configuration, format!("{text}\nhot_standby = off\n")).expect("written");
    assert!(!standby.is_running() || standby.stop().is_ok());
    standby.start().expect("starts");
    watched.fails(SECOND, "starting up");
    watched.wait(SECOND, |node| matches!(node.life, Life::Busy(_)));
}

#[test]
fn a_node_has_thresholds_of_its_own() {
    let Some(cluster) = cluster() else { return };
    let dialer = dialer(&cluster, "postgres");
    let mut nodes = [PRIMARY, FIRST, SECOND].map(|id| settings(id, 1.0)).to_vec();
    let short = Duration::from_millis(200);
    nodes[1].thresholds = Thresholds { period: short, timeout: short, max_retries: 0, ..Thresholds::default() };
    let watched = Watched::watch(cluster, dialer, nodes);
    for id in [PRIMARY, FIRST, SECOND] {
        watched.wait(id, NodeView::usable);
    }
    for standby in [watched.cluster.standby(0), watched.cluster.standby(1)] {
        standby.freeze().expect("frozen");
    }
    watched.wait(FIRST, |node| node.status == Status::Down);
    assert_eq!(watched.node(SECOND).status, Status::Up, "it has its retries left");
    watched.wait(SECOND, |node| node.status == Status::Down);
}
