//! A cluster with pgherd in front of it, and what these tests ask of both. Must not contain tests.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::app::demo::folder::Folder;
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::server::Server;
use pgherd::app::{self, Running};
use pgherd::cluster::{NodeId, NodeView, Status, Writes};
use pgherd::config::Settings;

use crate::common::raw::{Frame, RawClient, values};
use crate::common::{self, SOON, eventually};

/// See the head of the file. Fields end in this order.
pub struct Herd {
    pub running: Option<Running>,
    pub cluster: Cluster,
    pub folder: Folder,
    port: PortLock,
    config: String,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Herd {
    /// `failover` are the lines of that section; none without PostgreSQL.
    pub fn start(failover: &str, settings: &[(&str, &str)]) -> Option<Self> {
        Self::start_as("postgres", "SELECT", failover, settings)
    }

    /// With a monitor role that `sql` makes.
    pub fn start_as(user: &str, sql: &str, failover: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let cluster = match Cluster::start(&Options { settings, ..Options::default() }) {
            Ok(cluster) => cluster,
            Err(Error::NoPostgres) => {
                common::skip("failover", "no PostgreSQL programs of version 13 or later");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        cluster.primary().psql("postgres", "CREATE TABLE t (n int PRIMARY KEY)").expect("a table");
        cluster.primary().psql("postgres", sql).expect("a role");
        cluster.wait_replayed(common::SOON).expect("standbys follow");
        let folder = Folder::new(cluster.owner()).expect("a folder");
        let port = PortLock::any().expect("a free port");
        let config = configuration(&cluster, port.port(), user, failover);
        std::fs::write(folder.path().join("hba.conf"), "host all all 127.0.0.1/32 trust\n").expect("written");
        let mut herd = Self { running: None, cluster, folder, port, config, _turn: turn };
        herd.begin();
        Some(herd)
    }

    /// Starts pgherd, or starts it again.
    pub fn begin(&mut self) {
        self.begin_without(&[]);
    }

    /// The same while these nodes are not there.
    pub fn begin_without(&mut self, missing: &[u16]) {
        self.running = None;
        // What it tells, for `--nocapture` and failures.
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_test_writer();
        let _ = subscriber.try_init();
        let path = self.folder.path().join("pgherd.toml");
        std::fs::write(&path, &self.config).expect("written");
        self.running = Some(app::start(Settings::load(&path).expect("a configuration")).expect("it starts"));
        eventually("all nodes are used", || {
            (0..3).filter(|id| !missing.contains(id)).all(|id| self.status(id) == Some(Status::Up))
        });
    }

    /// Takes over the configuration as `change` leaves it, without a restart.
    pub fn reload(&mut self, change: impl Fn(&str) -> String) {
        let path = self.folder.path().join("pgherd.toml");
        std::fs::write(&path, change(&self.config)).expect("written");
        let settings = Settings::load(&path).expect("a configuration");
        self.running.as_mut().expect("it runs").reload(settings).expect("reloaded");
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    pub fn server(&self, id: u16) -> &Server {
        &self.cluster.servers()[usize::from(id)]
    }

    pub fn node(&self, id: u16) -> NodeView {
        let view = self.running().cluster().snapshot();
        view.node(NodeId(id)).cloned().unwrap_or_else(|| panic!("node {id} in {view:?}"))
    }

    /// None before the first view.
    fn status(&self, id: u16) -> Option<Status> {
        Some(self.running().cluster().view().node(NodeId(id))?.status)
    }

    pub fn primary(&self) -> Option<u16> {
        self.running().cluster().view().primary.map(|id| id.0)
    }

    pub fn epoch(&self) -> u64 {
        self.running().cluster().view().epoch.0
    }

    /// What the newest event of that name says; empty: there is none.
    pub fn told(&self, name: &str) -> String {
        let events = self.running().cluster().events.since(0, usize::MAX);
        events.iter().rev().find(|event| event.name == name).map(|event| event.why.clone()).unwrap_or_default()
    }

    pub fn writes(&self) -> Writes {
        self.running().cluster().view().writes
    }

    /// Where pgherd listens.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// A session.
    pub fn client(&self) -> RawClient {
        RawClient::login(self.port(), "postgres")
    }

    /// One statement on a connection of its own; an error's text if it fails.
    pub fn try_sql(&self, sql: &str) -> Result<Vec<String>, String> {
        let mut client = RawClient::try_login(self.port.port(), "postgres", "postgres").map_err(|e| e.to_string())?;
        client.patience(Duration::from_secs(2));
        let frames = client.try_query(sql).map_err(|error| error.to_string())?;
        match frames.iter().find_map(Frame::sqlstate) {
            Some(code) => Err(code),
            None => Ok(values(&frames)),
        }
    }

    /// Writes one row after another until one is taken; the row, and how long that took.
    pub fn write_again(&self, first: u32) -> (u32, Duration) {
        let begun = Instant::now();
        for row in first.. {
            match self.try_sql(&format!("INSERT INTO t VALUES ({row})")) {
                Ok(_) => return (row, begun.elapsed()),
                Err(why) => assert!(begun.elapsed() < Duration::from_secs(30), "no write is taken: {why}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        unreachable!("there are enough numbers")
    }

    /// Every server of `ids` streams from `primary` and has no trace of a failover in its settings.
    pub fn follow(&self, ids: &[u16], primary: u16) {
        for id in ids {
            let (sql, port) = (
                "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'",
                self.server(primary).port(),
            );
            eventually(&format!("node {id} streams from node {primary}"), || {
                self.server(*id).psql("postgres", sql).is_ok_and(|said| said.trim() == port.to_string())
            });
        }
        for id in ids.iter().chain([&primary]) {
            self.unmarked(*id);
        }
    }

    /// It is not recruited any more, and nobody has its lock.
    pub fn unmarked(&self, id: u16) {
        let deadline = Instant::now() + SOON;
        loop {
            let asked = "SELECT current_setting('primary_conninfo') LIKE '%pgherd_recruited%', (SELECT json_agg(a) FROM pg_locks l \
                JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory')";
            let said = self.server(id).psql("postgres", asked).unwrap_or_else(|error| error.to_string());
            if said.trim() == "f|" {
                return;
            }
            let told = || {
                let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
                let own = read(self.server(id).data().join("postgresql.auto.conf"));
                format!("{own}\n{}", read(self.folder.path().join("pgherd.state/failover.json")))
            };
            assert!(Instant::now() < deadline, "node {id} is still recruited (marked, lock of): {said}; {}", told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_status(&self, id: u16, status: Status) {
        eventually(&format!("node {id} is {status}"), || self.status(id) == Some(status));
    }
}

/// Writes an executable script into the configuration's folder, of which `LOG` is a file in it.
pub fn script(herd: &Herd, name: &str, text: &str) {
    let path = herd.folder.path().join(name);
    let text = text.replace("LOG", &herd.folder.path().join("log").display().to_string());
    let text = text.replace("PSQL", &herd.cluster.programs().path("psql").display().to_string());
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
}

fn configuration(cluster: &Cluster, port: u16, user: &str, failover: &str) -> String {
    let mut text = format!(
        "[listen]\naddresses = [\"127.0.0.1\"]\nport = {port}\nunix_socket_directories = []\nthreads = 2\n\
         [auth]\nhba_file = \"hba.conf\"\n[monitor]\nuser = \"{user}\"\ndatabase = \"postgres\"\n\
         [failover]\n{failover}\n"
    );
    for (id, server) in cluster.servers().iter().enumerate() {
        let (name, port, data) = (server.name(), server.port(), server.data().display());
        text += &format!(
            "[[node]]\nid = {id}\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\ndata_directory = \"{data}\"\n"
        );
    }
    text
}
