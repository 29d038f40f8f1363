//! How standbys receive, as the servers say it, and what is shown of a server that lives and cannot be asked.

use pgherd::cluster::Replication;

use super::*;

const THIRD: NodeId = NodeId(3);
const FOURTH: NodeId = NodeId(4);

impl Watched {
    fn sql(&self, id: NodeId, sql: &str) -> String {
        self.cluster.servers()[usize::from(id.0)].psql("postgres", sql).expect("it answers").trim().to_owned()
    }

    fn set(&self, id: NodeId, name: &str, value: &str) {
        self.sql(id, &format!("ALTER SYSTEM SET {name} = '{}'", value.replace('\'', "''")));
        self.sql(id, "SELECT pg_reload_conf()");
    }

    fn all(&self, ids: &[NodeId], wanted: impl Fn(&NodeView) -> bool) {
        for id in ids {
            self.wait(*id, &wanted);
        }
    }

    /// Waits until the standbys from 1 on are shown so, and PostgreSQL says the same of each that streams from the primary.
    fn counts(&self, wanted: &[&str]) {
        for (id, sync) in (1..).map(NodeId).zip(wanted) {
            self.wait(id, |node| node.replication.sync == *sync);
            let shown = self.node(id).replication;
            let said =
                format!("SELECT state, sync_state FROM pg_stat_replication WHERE application_name = 'standby{id}'");
            match self.sql(PRIMARY, &said).as_str() {
                "" => assert_eq!((shown.state, *sync), if sync.is_empty() { ("", "") } else { ("streaming", "async") }),
                said => assert_eq!(said, format!("{}|{}", shown.state, shown.sync), "node {id}"),
            }
        }
    }
}

fn four() -> Option<Watched> {
    match Cluster::start(&Options { standbys: 4, ..Options::default() }) {
        Ok(cluster) => {
            let dialer = dialer(&cluster, "postgres");
            let watched = Watched::watch(
                cluster,
                dialer,
                [PRIMARY, FIRST, SECOND, THIRD, FOURTH].map(|id| settings(id, 1.0)).to_vec(),
            );
            watched.all(&[FIRST, SECOND, THIRD, FOURTH], NodeView::usable);
            Some(watched)
        }
        Err(Error::NoPostgres) if std::env::var_os("STRICT").is_none() => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn who_acknowledges_commits_is_what_the_primary_says_and_not_the_order_of_names() {
    let Some(watched) = four() else { return };
    let port = |id: NodeId| watched.cluster.servers()[usize::from(id.0)].port();
    // The fourth cascades from the second.
    watched.set(FOURTH, "primary_slot_name", "");
    let conninfo = format!("host=127.0.0.1 port={} user=postgres application_name=standby4", port(SECOND));
    watched.set(FOURTH, "primary_conninfo", &conninfo);
    let upstream = format!("127.0.0.1:{}", port(SECOND));
    watched.wait(FOURTH, |node| node.replication.upstream.as_deref() == Some(&*upstream));
    watched.set(PRIMARY, "synchronous_standby_names", "FIRST 2 (standby1, standby2, standby3)");
    watched.counts(&["sync", "sync", "potential", "async"]);
    let told = watched.node(THIRD).replication;
    assert_eq!(told.upstream.as_deref(), Some(&*format!("127.0.0.1:{}", port(PRIMARY))));
    assert_eq!((told.slot.as_deref(), watched.node(FOURTH).replication.slot), (Some("standby3"), None));
    assert_eq!(watched.node(PRIMARY).replication, Replication::default());
    watched.cluster.standby(0).stop().expect("stops");
    watched.counts(&["", "sync", "sync", "async"]);
    // A setting that names nobody: who cascades counts for nothing all the same.
    watched.set(PRIMARY, "synchronous_standby_names", "ANY 1 (*)");
    watched.counts(&["", "quorum", "quorum", "async"]);
    watched.set(PRIMARY, "synchronous_standby_names", "");
    watched.counts(&["", "async", "async", "async"]);
}

#[test]
fn a_hostile_name_of_a_standby_hides_nobody() {
    let Some(watched) = four() else { return };
    for (id, name) in [(FIRST, "streaming sync  standby3"), (SECOND, "'; DROP \"x\" %s \\ | ="), (FOURTH, "standby3")] {
        let port = watched.cluster.primary().port();
        let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
        watched.set(
            id,
            "primary_conninfo",
            &format!("host=127.0.0.1 port={port} user=postgres application_name='{quoted}'"),
        );
    }
    watched.set(PRIMARY, "synchronous_standby_names", "ANY 1 (standby3, \"'; DROP \"\"x\"\" %s \\ | =\")");
    let sync =
        |id, sync| watched.wait(id, |node| node.replication.state == "streaming" && node.replication.sync == sync);
    sync(FIRST, "async");
    sync(SECOND, "quorum");
    // Two of one name, by two slots.
    sync(THIRD, "quorum");
    sync(FOURTH, "quorum");
    assert_eq!(watched.node(FOURTH).replication.slot.as_deref(), Some("standby4"));
    // Without slots as well.
    for id in [FIRST, SECOND, THIRD, FOURTH] {
        watched.set(id, "primary_slot_name", "");
        watched.wait(id, |node| node.replication.slot.is_none() && node.replication.state == "streaming");
    }
    sync(FIRST, "async");
    sync(SECOND, "quorum");
    sync(THIRD, "quorum");
}

#[test]
fn a_monitor_role_that_is_refused_is_told_for_as_long_as_it_is_and_kills_no_server() {
    let Some(cluster) = cluster() else { return };
    cluster.primary().psql("postgres", "CREATE ROLE watcher LOGIN IN ROLE pg_monitor").expect("creates");
    cluster.wait_replayed(SOON).expect("replays");
    let watched = Watched::start(cluster, "watcher");
    let all = [PRIMARY, FIRST, SECOND];
    watched.all(&all, NodeView::usable);
    let refused = |node: &NodeView| node.usable() && node.reason.contains("monitor role is refused");
    // The connections that are there go on answering.
    watched.sql(PRIMARY, "ALTER ROLE watcher NOLOGIN");
    watched.all(&all, refused);
    assert!(watched.node(FIRST).lag.is_some() && watched.node(SECOND).lag.is_some());
    for id in all {
        watched.sql(id, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watcher'");
    }
    let known = |node: &NodeView| node.lag.is_some() || !node.replication.state.is_empty();
    for id in [FIRST, SECOND] {
        let took = watched.wait(id, |node| !known(node));
        assert!(took < Duration::from_secs(6), "{took:?}");
    }
    std::thread::sleep(Duration::from_secs(5));
    for id in all {
        let node = watched.node(id);
        assert!(refused(&node) && node.life == Life::Well, "{node:?}");
        assert_eq!(watched.reader.shared.view().pgpool_node(id).server_status, "up");
    }
    watched.sql(PRIMARY, "ALTER ROLE watcher LOGIN");
    watched.all(&all, |node| node.usable() && node.reason.is_empty());
    watched.all(&all[1..], known);
    let count = |name: &str, id: NodeId| {
        let events = watched.reader.shared.events.since(0, 10_000);
        events.iter().filter(|event| event.name == name && event.node == Some(id)).count()
    };
    for id in all {
        assert_eq!(
            [count("probe_failed", id), count("probe_answered", id), count("node_out", id)],
            [1, 1, 0],
            "node {id}"
        );
    }
}
