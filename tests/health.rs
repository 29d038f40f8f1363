//! The monitor against a real primary and two standbys: what it finds, how fast it notices, what a sample proves.

mod common;
#[path = "health/facts.rs"]
mod facts;
#[path = "health/streams.rs"]
mod streams;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::auth::Credentials;
use pgherd::cluster::{Epoch, Knowledge, Known, Life, NodeId, NodeView, Role, Status};
use pgherd::health::catalogs;
use pgherd::health::connection::{Account, Dialer};
use pgherd::health::engine::{Fixed, NodeSettings, Thresholds};
use pgherd::health::runner::{self, Reader};
use pgherd::net::{ClientTls, DialTarget, Endpoint, SocketOptions, SslMode};
use pgherd::routing::Catalog;
use pgherd::routing::catalog::Function;
use pgherd::support::clock;

const PRIMARY: NodeId = NodeId(0);
const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);
const SOON: Duration = Duration::from_secs(20);

fn target(host: &str, port: u16) -> DialTarget {
    DialTarget {
        endpoint: Endpoint::new(host, port),
        timeout: Thresholds::default().timeout,
        tls: Arc::new(ClientTls::new(SslMode::Disable, None).expect("no files to read")),
        options: SocketOptions::default(),
        known: pgherd::net::Known::default(),
    }
}

/// pgherd's own monitor connections.
fn dialer(cluster: &Cluster, user: &str) -> Dialer {
    let targets = cluster.servers().iter().zip(0..);
    let targets = targets.map(|(server, id)| (NodeId(id), target("127.0.0.1", server.port()))).collect();
    let account = Account { user: user.to_owned(), database: "postgres".to_owned(), credentials: Credentials::None };
    Dialer {
        account: Arc::new(ArcSwap::from_pointee(account)),
        keys: Arc::default(),
        targets: Arc::new(ArcSwap::from_pointee(targets)),
    }
}

fn settings(id: NodeId, weight: f64) -> NodeSettings {
    NodeSettings { id, name: format!("node{id}"), weight, fixed: Fixed::Auto, thresholds: Thresholds::default() }
}

/// A cluster, or none where PostgreSQL is missing and that is allowed.
fn cluster() -> Option<Cluster> {
    let settings = vec![("wal_keep_size".to_owned(), "256MB".to_owned())];
    match Cluster::start(&Options { settings, ..Options::default() }) {
        Ok(cluster) => Some(cluster),
        Err(Error::NoPostgres) if std::env::var_os("STRICT").is_none() => {
            println!("SKIP health: no PostgreSQL programs");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A cluster and a monitor that watches it on a thread of its own.
struct Watched {
    cluster: Cluster,
    reader: Reader,
    knowledge: Arc<Knowledge<Catalog>>,
    catalogs: tokio::sync::mpsc::Sender<Box<str>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watched {
    fn start(cluster: Cluster, user: &str) -> Self {
        let nodes = [PRIMARY, FIRST, SECOND].map(|id| settings(id, 1.0)).to_vec();
        let dialer = dialer(&cluster, user);
        Self::watch(cluster, dialer, nodes)
    }

    fn watch(cluster: Cluster, dialer: Dialer, nodes: Vec<NodeSettings>) -> Self {
        let (monitor, reader) = runner::channel();
        let knowledge = Arc::new(Knowledge::default());
        let (loader, catalogs) = catalogs::channel(knowledge.clone(), reader.shared.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let dialer = Rc::new(dialer);
            runtime.block_on(async {
                tokio::select! {
                    () = monitor.run(nodes, dialer.clone()) => {}
                    () = loader.run(dialer.clone()) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { cluster, reader, knowledge, catalogs, stop: Some(stop), thread: Some(thread) }
    }

    fn new() -> Option<Self> {
        let watched = Self::start(cluster()?, "postgres");
        watched.wait(PRIMARY, |node| node.usable() && node.role == Role::Primary);
        watched.wait(FIRST, NodeView::usable);
        watched.wait(SECOND, NodeView::usable);
        Some(watched)
    }

    fn node(&self, id: NodeId) -> NodeView {
        self.reader.shared.view().node(id).cloned().expect("configured")
    }

    /// Waits for a state of a node and returns how long it took.
    fn wait(&self, id: NodeId, wanted: impl Fn(&NodeView) -> bool) -> Duration {
        let started = clock::now();
        loop {
            let view = self.reader.shared.snapshot();
            if view.node(id).is_some_and(&wanted) {
                return started.elapsed();
            }
            assert!(started.elapsed() < SOON, "node {id} is not as wanted: {view:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Writes a row, then waits for samples that prove it to be readable on the first standby.
    fn write_and_wait(&self, row: u32) -> Duration {
        self.cluster.primary().psql("postgres", &format!("INSERT INTO seen VALUES ({row})")).expect("inserts");
        let written = clock::now();
        let shared = &self.reader.shared;
        loop {
            shared.samples.want(clock::now());
            if let Some(primary) = shared.primary_sample().filter(|sample| sample.asked > written)
                && shared.standby_sample(FIRST).is_some_and(|standby| standby.lsn >= primary.lsn)
            {
                return written.elapsed();
            }
            assert!(written.elapsed() < SOON, "never replayed: {:#?}", shared.snapshot());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Watched {
    fn ask_for(&self, database: &str) -> Arc<Known<Catalog>> {
        let known = self.knowledge.database(database);
        assert!(known.want(), "nobody has asked since");
        self.catalogs.try_send(database.into()).expect("room in the queue");
        known
    }

    fn wait_known(&self, known: &Known<Catalog>, wanted: impl Fn(&Catalog) -> bool) {
        let started = clock::now();
        while !known.get().as_deref().is_some_and(&wanted) {
            assert!(started.elapsed() < SOON, "not known: {:?}", known.get().as_deref().map(Catalog::size));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("was started").expect("the monitor did not panic");
        }
    }
}

#[test]
fn r07_a_sample_proves_what_a_standby_has() {
    let Some(watched) = Watched::new() else { return };
    watched.cluster.primary().psql("postgres", "CREATE TABLE seen (row int)").expect("creates");
    let mut times = Vec::new();
    for row in 0..20 {
        times.push(watched.write_and_wait(row));
        let count =
            watched.cluster.standby(0).psql("postgres", &format!("SELECT count(*) FROM seen WHERE row = {row}"));
        assert_eq!(count.expect("reads").trim(), "1", "the sample lied");
    }
    times.sort();
    println!(
        "a write is known on a standby after {:?} (median), {:?} (longest)",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert!(times[times.len() / 2] < Duration::from_millis(250), "{times:?}");
    // A standby that was restarted may come back behind its old position: what was sampled before must not count.
    assert!(watched.reader.shared.samples.newest(FIRST).is_some());
    watched.cluster.standby(0).kill9().expect("killed");
    watched.wait(FIRST, |_| watched.reader.shared.samples.newest(FIRST).is_none());
}

#[test]
fn a_standby_that_goes_is_noticed_and_one_that_comes_back_is_used() {
    let Some(watched) = Watched::new() else { return };
    let generation = watched.reader.shared.view().generation;
    watched.cluster.standby(0).stop().expect("stops");
    let took = watched.wait(FIRST, |node| node.status == Status::Down);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(watched.node(SECOND).status, Status::Up);
    assert!(watched.reader.shared.view().generation > generation);
    assert_eq!(*watched.reader.generation.borrow(), watched.reader.shared.view().generation);
    watched.cluster.standby(0).start().expect("starts");
    let took = watched.wait(FIRST, NodeView::usable);
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn h01_a_frozen_standby_is_down_within_the_bound() {
    let Some(watched) = Watched::new() else { return };
    watched.cluster.standby(1).freeze().expect("frozen");
    let took = watched.wait(SECOND, |node| node.status == Status::Down);
    // 4.6 s, and what a loaded machine adds.
    assert!(took > Duration::from_millis(1500) && took < Duration::from_millis(5600), "{took:?}");
    assert_eq!(watched.node(FIRST).status, Status::Up);
    watched.cluster.standby(1).thaw().expect("thawed");
    watched.wait(SECOND, NodeView::usable);
}

#[test]
fn h10_a_promotion_by_hand_is_followed_and_only_the_new_timeline_is_served() {
    let Some(watched) = Watched::new() else { return };
    assert_eq!(watched.reader.shared.view().epoch, Epoch(1));
    watched.cluster.primary().stop().expect("stops");
    watched.wait(PRIMARY, |node| node.status == Status::Down);
    assert_eq!(watched.reader.shared.view().primary, Some(PRIMARY), "stays named");
    assert_eq!((watched.node(FIRST).status, watched.node(SECOND).status), (Status::Up, Status::Up));
    watched.cluster.standby(0).psql("postgres", "SELECT pg_promote()").expect("promotes");
    watched.wait(FIRST, |node| node.usable() && node.role == Role::Primary);
    {
        let view = watched.reader.shared.view();
        assert_eq!((view.primary, view.epoch), (Some(FIRST), Epoch(2)));
        assert_eq!(watched.reader.shared.standby_sample(SECOND).filter(|sample| sample.epoch < Epoch(2)), None);
    }
    watched.wait(SECOND, |node| node.status == Status::Quarantined);
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", watched.cluster.standby(0).port());
    let second = watched.cluster.standby(1);
    second.psql("postgres", &format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'")).expect("altered");
    second.psql("postgres", "ALTER SYSTEM SET primary_slot_name = ''").expect("altered");
    second.psql("postgres", "SELECT pg_reload_conf()").expect("reloaded");
    watched.wait(SECOND, NodeView::usable);
    // The old primary comes back as a primary of the past.
    watched.cluster.primary().start().expect("starts");
    watched.wait(PRIMARY, |node| node.status == Status::Quarantined);
    assert_eq!(watched.reader.shared.view().primary, Some(FIRST));
}

#[test]
fn a_plain_role_with_pg_monitor_is_enough_and_without_it_no_standby_is_trusted() {
    let Some(cluster) = cluster() else { return };
    cluster.primary().psql("postgres", "CREATE ROLE watcher LOGIN").expect("creates");
    cluster.wait_replayed(SOON).expect("replays");
    let watched = Watched::start(cluster, "watcher");
    watched.wait(PRIMARY, NodeView::usable);
    watched.wait(FIRST, |node| node.status == Status::Quarantined && node.reason.contains("pg_monitor"));
    watched.cluster.primary().psql("postgres", "GRANT pg_monitor TO watcher").expect("grants");
    watched.wait(FIRST, NodeView::usable);
    watched.wait(SECOND, NodeView::usable);
}

#[test]
fn r09_a_catalog_is_read_on_request_and_again_after_a_change() {
    let Some(watched) = Watched::new() else { return };
    let primary = watched.cluster.primary();
    let sql = "CREATE TABLE seen (row int); CREATE FUNCTION quiet() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'";
    primary.psql("postgres", sql).expect("creates");
    let known = watched.ask_for("postgres");
    watched.wait_known(&known, |c| c.relation("seen").is_some() && c.function("quiet") == Some(Function::Reads));
    primary.psql("postgres", "ALTER FUNCTION quiet() VOLATILE; CREATE TABLE later (row int)").expect("alters");
    known.changed();
    assert!(known.get().is_none(), "what was known may be wrong now");
    let same = watched.ask_for("postgres");
    watched.wait_known(&same, |c| c.function("quiet") == Some(Function::Writes) && c.relation("later").is_some());
    // Between two sessions of an application it is read on.
    drop((known, same));
    primary.psql("postgres", "CREATE TABLE meanwhile (row int)").expect("creates");
    watched.catalogs.try_send("postgres".into()).expect("room in the queue");
    let asked = clock::now();
    while watched.knowledge.database("postgres").get().as_deref().is_none_or(|c| c.relation("meanwhile").is_none()) {
        assert!(asked.elapsed() < SOON, "not read");
        std::thread::sleep(Duration::from_millis(20));
    }
    let known = watched.knowledge.database("postgres");
    // While the primary is down a standby tells; what it does not know goes to the primary anyway.
    primary.stop().expect("stops");
    watched.wait(PRIMARY, |node| node.status == Status::Down);
    known.changed();
    let same = watched.ask_for("postgres");
    watched.wait_known(&same, |c| c.relation("later").is_some());
}

#[test]
fn r22_a_database_closed_to_the_monitor_role_is_known_as_empty() {
    let Some(cluster) = cluster() else { return };
    let sql = "CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE DATABASE closed; REVOKE CONNECT ON DATABASE closed FROM PUBLIC";
    for statement in sql.split("; ") {
        cluster.primary().psql("postgres", statement).expect("runs");
    }
    cluster.primary().psql("closed", "CREATE TABLE secret (row int)").expect("creates");
    cluster.wait_replayed(SOON).expect("replays");
    let watched = Watched::start(cluster, "watcher");
    watched.wait(PRIMARY, NodeView::usable);
    let (closed, open) = (watched.ask_for("closed"), watched.ask_for("template1"));
    watched.wait_known(&closed, |c| c.size() == (0, 0));
    watched.wait_known(&open, |_| true);
}

#[test]
fn a_reload_removes_and_adds_nodes_while_the_others_stay_in_use() {
    let Some(watched) = Watched::new() else { return };
    let reload = |nodes: Vec<NodeSettings>| watched.reader.reloads.try_send(nodes).expect("the last one was taken");
    reload(vec![settings(PRIMARY, 1.0), settings(FIRST, 7.0)]);
    let started = clock::now();
    while watched.reader.shared.view().node(SECOND).is_some() {
        assert!(started.elapsed() < SOON, "still there");
        assert!(watched.reader.shared.view().node(PRIMARY).is_some_and(NodeView::usable), "a reload disturbs nobody");
        std::thread::sleep(Duration::from_millis(1));
    }
    watched.wait(FIRST, |node| node.usable() && (node.weight - 7.0).abs() < f64::EPSILON);
    reload(vec![settings(PRIMARY, 1.0), settings(FIRST, 1.0), settings(SECOND, 1.0)]);
    watched.wait(SECOND, NodeView::usable);
    assert_eq!(watched.reader.shared.view().epoch, Epoch(1));
    // The new tasks notice what happens as the old ones did.
    watched.cluster.standby(1).stop().expect("stops");
    watched.wait(SECOND, |node| node.status == Status::Down);
}
