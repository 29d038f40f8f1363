//! What `pgherd demo` plays on: a private cluster with a database `demo`, and a proxy in front of it in this process.
//!
//! Owned by [`super::play`]. Must not print, and must not know signals.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::cluster::{Cluster, Options};
use super::ports::PortLock;
use super::{Error, SUPERUSER, programs};
use crate::app::{self, Running};
use crate::config::Settings;
use crate::session::Stop;
use crate::support::clock;

/// The database, and the role that owns it.
pub const DATABASE: &str = "demo";

/// How long pgbench may take to fill its tables on a slow machine.
const FILL: Duration = Duration::from_secs(120);
/// How long the standbys may take to have replayed, and the proxy to have seen all servers.
const READY: Duration = Duration::from_secs(60);
/// How long transactions of clients may take when it ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often the proxy's view of the servers is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A server's share of the work in the database `demo` since it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Transactions that were committed; each statement outside a block is one.
    pub transactions: u64,
    /// Rows inserted, updated and deleted.
    pub rows_written: u64,
}

impl Work {
    /// What came to it since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            transactions: self.transactions.saturating_sub(before.transactions),
            rows_written: self.rows_written.saturating_sub(before.rows_written),
        }
    }
}

/// Cluster and proxy. Dropping it ends both and removes all that they left on disk.
pub struct Stage {
    // Before the cluster: fields are dropped in this order.
    running: Option<Running>,
    cluster: Cluster,
    port: u16,
}

impl Stage {
    /// Starts everything; returns when the proxy has seen a primary and two standbys. Port 0: any free one.
    ///
    /// # Errors
    /// What could not be started, and what the program in question said.
    pub fn start(port: u16) -> Result<Self, Error> {
        let reserved = if port == 0 { Some(PortLock::any()?) } else { None };
        let port = reserved.as_ref().map_or(port, PortLock::port);
        let cluster = Cluster::start(&Options::default())?;
        fill(&cluster)?;
        cluster.wait_replayed(READY)?;
        let settings = configure(&cluster, port)?;
        app::log::to_stderr(&settings.log);
        let running = app::start(settings)?;
        let stage = Self { running: Some(running), cluster, port };
        stage.wait_ready()?;
        Ok(stage)
    }

    /// The proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The servers.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What each server has done so far, in the order of [`Cluster::servers`]. Servers tell it up to a second late, and
    /// up to ten for connections that idle.
    ///
    /// # Errors
    /// A server that does not answer.
    pub fn work(&self) -> Result<Vec<Work>, Error> {
        const SQL: &str = "SELECT xact_commit || ' ' || tup_inserted + tup_updated + tup_deleted \
            FROM pg_stat_database WHERE datname = 'demo'";
        let ask = |server: &super::server::Server| {
            let said = server.psql("postgres", SQL)?;
            let mut numbers = said.split_whitespace().map(|number| number.parse().unwrap_or(0));
            let mut next = || numbers.next().unwrap_or(0);
            Ok(Work { transactions: next(), rows_written: next() })
        };
        self.cluster.servers().iter().map(ask).collect()
    }

    /// Ends the proxy and its server connections; the servers go on.
    pub fn stop_proxy(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Stop::AtRest, FAREWELL);
        }
    }

    fn wait_ready(&self) -> Result<(), Error> {
        let deadline = clock::now() + READY;
        let standbys = self.cluster.servers().len() - 1;
        let ready = |running: &Running| {
            let view = running.cluster().view();
            view.primary.is_some() && view.usable_standbys().count() == standbys
        };
        while !self.running.as_ref().is_some_and(ready) {
            if clock::now() >= deadline {
                return Err(Error::NotSeen);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Creates role and database, and pgbench's tables in it.
fn fill(cluster: &Cluster) -> Result<(), Error> {
    let primary = cluster.primary();
    primary.psql("postgres", "CREATE ROLE demo LOGIN")?;
    primary.psql("postgres", "CREATE DATABASE demo OWNER demo")?;
    let mut command = pgbench(cluster, primary.port());
    command.args(["-q", "-i", "-s", "1"]).arg(DATABASE);
    programs::succeed(&mut command, &[], FILL).map(drop)
}

/// A pgbench that works in the cluster's folder, and so ends with it.
pub(super) fn pgbench(cluster: &Cluster, port: u16) -> Command {
    let mut command = Command::new(cluster.programs().path("pgbench"));
    programs::without_surroundings(&mut command);
    cluster.owner().dress(&mut command);
    command.current_dir(cluster.folder());
    command.args(["-h", "127.0.0.1", "-U", DATABASE, "-p"]).arg(port.to_string());
    command
}

/// Writes the proxy's files into the cluster's folder and reads them as `pgherd run` would.
fn configure(cluster: &Cluster, port: u16) -> Result<Settings, Error> {
    let write = |name: &str, text: &str| -> Result<PathBuf, Error> {
        let path = cluster.folder().join(name);
        std::fs::write(&path, text).map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(path)
    };
    write("hba.conf", "host demo demo 127.0.0.1/32 trust\n")?;
    let path = write("pgherd.toml", &configuration(cluster, port))?;
    Ok(Settings::load(&path).map_err(app::Error::from)?)
}

/// Only what must be said, so that everything else is as it comes.
fn configuration(cluster: &Cluster, port: u16) -> String {
    let mut text = format!(
        "pid_file = \"pgherd.pid\"\n\n\
         [listen]\naddresses = [\"127.0.0.1\"]\nport = {port}\nunix_socket_directories = []\n\n\
         [auth]\nhba_file = \"hba.conf\"\n\n\
         [monitor]\nuser = \"{SUPERUSER}\"\n\n\
         [log]\nlevel = \"error\"\n"
    );
    for (id, server) in cluster.servers().iter().enumerate() {
        let (name, port) = (server.name(), server.port());
        text.push_str(&format!(
            "\n[[node]]\nid = {id}\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\nsslmode = \"disable\"\n"
        ));
    }
    text
}
