//! A private PostgreSQL cluster: one primary, streaming standbys, in a temporary folder.
//!
//! Owned by `pgherd demo` and by tests, which start one and drop it. Everyone on this machine may log in to it: it
//! must never hold data that matters.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::folder::{Folder, Owner};
use super::ports::PortLock;
use super::programs::{self, Programs};
use super::server::Server;
use super::{Error, SUPERUSER};
use crate::cluster::Lsn;
use crate::support::clock;

/// How long each program of the start may take on a slow machine.
const STEP: Duration = Duration::from_secs(60);
/// How often a standby is asked for its position.
const POLL: Duration = Duration::from_millis(20);

/// What a cluster shall be like.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many standbys stream from the primary.
    pub standbys: usize,
    /// `max_connections` of every server.
    pub max_connections: u32,
    /// Further lines for every server's `postgresql.conf`: name and value, the value quoted as SQL would be.
    pub settings: Vec<(String, String)>,
    /// Where its folder is made; `None`: in the temporary folder.
    pub parent: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { standbys: 2, max_connections: 100, settings: Vec::new(), parent: None }
    }
}

/// A running cluster. Dropping it stops the servers at once and removes their data; so does the end of the process.
#[derive(Debug)]
pub struct Cluster {
    // Before the folder: fields are dropped in this order, and the folder's end takes the servers along.
    servers: Vec<Server>,
    folder: Folder,
    programs: Programs,
}

impl Cluster {
    /// Creates and starts a cluster; returns when all its servers accept connections.
    ///
    /// # Errors
    /// [`Error::NoPostgres`], or what went wrong, with what the program in question said.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let programs = Programs::find()?;
        let parent = options.parent.clone().unwrap_or_else(std::env::temp_dir);
        let folder = Folder::new_in(&parent, Owner::unprivileged()?)?;
        let primary = create_primary(&programs, &folder, options)?;
        primary.start()?;
        let copies: Vec<Result<Server, Error>> = std::thread::scope(|scope| {
            let create = |number| {
                let (programs, folder, primary) = (&programs, &folder, &primary);
                scope.spawn(move || create_standby(programs, folder, options, primary, number))
            };
            let running: Vec<_> = (1..=options.standbys).map(create).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        let mut servers = vec![primary];
        for copy in copies {
            servers.push(copy?);
        }
        Ok(Self { servers, folder, programs })
    }

    /// The server that was started as primary.
    pub fn primary(&self) -> &Server {
        &self.servers[0]
    }

    /// Standby `number`, from 0.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn standby(&self, number: usize) -> &Server {
        &self.servers[number + 1]
    }

    /// The primary, then the standbys.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The programs that it was made with.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The temporary folder; what is put there goes away with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The user that its processes run as.
    pub fn owner(&self) -> Owner {
        self.folder.owner()
    }

    /// Waits until every running standby has replayed what the primary has written by now.
    ///
    /// # Errors
    /// [`Error::NotReplayed`] when one has not after `limit`.
    pub fn wait_replayed(&self, limit: Duration) -> Result<(), Error> {
        let deadline = clock::now() + limit;
        let written = self.primary().psql("postgres", "SELECT pg_current_wal_insert_lsn()")?;
        let target = record_end(Lsn::parse(&written).unwrap_or_default());
        for standby in self.servers[1..].iter().filter(|standby| standby.is_running()) {
            loop {
                let said = standby.psql("postgres", "SELECT pg_last_wal_replay_lsn()")?;
                if Lsn::parse(&said).is_some_and(|replayed| replayed >= target) {
                    break;
                }
                if clock::now() >= deadline {
                    return Err(Error::NotReplayed { server: standby.name().to_owned(), written, replayed: said });
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

/// Where the last record ends, of a position at which the next one is to begin: on a fresh page that is behind the page's header, which
/// standbys do not replay before a record follows. For servers built with the usual sizes of pages (8 kB) and segments (16 MB).
fn record_end(insert: Lsn) -> Lsn {
    const PAGE: u64 = 8192;
    const SEGMENT: u64 = 16 << 20;
    let header = if insert.0 % SEGMENT < PAGE { 40 } else { 24 };
    if insert.0 % PAGE == header { Lsn(insert.0 - header) } else { insert }
}

/// `initdb` and configuration of the primary; not started yet.
fn create_primary(programs: &Programs, folder: &Folder, options: &Options) -> Result<Server, Error> {
    let data = folder.path().join("primary");
    let mut initdb = Command::new(programs.path("initdb"));
    initdb.args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-D"]).arg(&data);
    run_as_owner(&mut initdb, folder)?;
    let server = Server::new(programs, folder.owner(), "primary", data, PortLock::any()?);
    configure(&server, folder, options)?;
    Ok(server)
}

/// Copies the primary into standby `number` and starts it.
fn create_standby(
    programs: &Programs,
    folder: &Folder,
    options: &Options,
    primary: &Server,
    number: usize,
) -> Result<Server, Error> {
    let name = format!("standby{number}");
    let data = folder.path().join(&name);
    let mut copy = Command::new(programs.path("pg_basebackup"));
    copy.args(["-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-C", "-S", &name, "-D"]).arg(&data);
    copy.arg("-d").arg(format!(
        "host=127.0.0.1 port={} user={SUPERUSER} application_name={name} sslmode=disable",
        primary.port()
    ));
    run_as_owner(&mut copy, folder)?;
    let server = Server::new(programs, folder.owner(), &name, data, PortLock::any()?);
    configure(&server, folder, options)?;
    server.start()?;
    Ok(server)
}

/// Runs one of the programs that make a data folder.
fn run_as_owner(command: &mut Command, folder: &Folder) -> Result<(), Error> {
    programs::without_surroundings(command);
    folder.owner().dress(command);
    command.current_dir(folder.path());
    programs::succeed(command, &[], STEP).map(drop)
}

/// Writes `server.conf`, which the copied `postgresql.conf` includes last.
fn configure(server: &Server, folder: &Folder, options: &Options) -> Result<(), Error> {
    let written = |path: PathBuf| move |source| Error::File { path, source };
    let main = server.data().join("postgresql.conf");
    let include = "\ninclude_if_exists 'server.conf'\n";
    let mut text = std::fs::read_to_string(&main).map_err(written(main.clone()))?;
    if !text.ends_with(include) {
        text.push_str(include);
        std::fs::write(&main, text).map_err(written(main))?;
    }
    let own = server.data().join("server.conf");
    std::fs::write(&own, settings(server, folder, options)).map_err(written(own.clone()))?;
    folder.owner().take(&own)
}

/// The lines of `server.conf`. Data is thrown away, so nothing is synced to disk; trouble between the servers is
/// noticed within seconds; memory is small because three servers and their load share one machine.
fn settings(server: &Server, folder: &Folder, options: &Options) -> String {
    let (port, name) = (server.port().to_string(), server.name().to_owned());
    let (most, sockets) = (options.max_connections.to_string(), folder.path().display().to_string());
    // A Unix socket's path is limited to 107 bytes.
    let sockets = if sockets.len() < 80 { sockets } else { String::new() };
    let fixed: [(&str, &str); 23] = [
        ("listen_addresses", "127.0.0.1"),
        ("port", &port),
        ("unix_socket_directories", &sockets),
        ("cluster_name", &name),
        ("max_connections", &most),
        ("shared_buffers", "32MB"),
        ("dynamic_shared_memory_type", "mmap"),
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("hot_standby", "on"),
        ("max_wal_senders", "20"),
        ("max_replication_slots", "20"),
        ("max_slot_wal_keep_size", "4GB"),
        ("wal_keep_size", "256MB"),
        ("max_prepared_transactions", "20"),
        ("wal_sender_timeout", "2s"),
        ("wal_receiver_timeout", "2s"),
        ("wal_receiver_status_interval", "500ms"),
        ("wal_retrieve_retry_interval", "200ms"),
        ("max_wal_size", "2GB"),
        ("logging_collector", "off"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
        ("ssl", "off"),
    ];
    let own = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let line = |(name, value): (&str, &str)| format!("{name} = '{}'\n", value.replace('\'', "''"));
    fixed.into_iter().chain(own).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_starts_replicates_and_leaves_nothing_behind() {
        let begun = clock::now();
        let cluster = match Cluster::start(&Options::default()) {
            Ok(cluster) => cluster,
            Err(Error::NoPostgres) if std::env::var_os("STRICT").is_none() => {
                return println!("SKIP a_cluster_starts: no PostgreSQL programs");
            }
            Err(error) => panic!("{error}"),
        };
        println!("started in {:?}", clock::now() - begun);
        let folder = cluster.folder().to_owned();
        cluster.primary().psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 10) AS n").expect("a write");
        cluster.wait_replayed(Duration::from_secs(20)).expect("both replay");
        for number in 0..2 {
            assert_eq!(cluster.standby(number).psql("postgres", "SELECT sum(n) FROM t").expect("a read"), "55");
            let refused = cluster.standby(number).psql("postgres", "DELETE FROM t").expect_err("a standby");
            assert!(refused.to_string().contains("read-only transaction"), "{refused}");
        }
        cluster.standby(1).kill9().expect("killed");
        assert!(cluster.standby(1).psql("postgres", "SELECT 1").is_err());
        cluster.standby(1).start().expect("starts again after a crash");
        cluster.standby(1).freeze().expect("frozen");
        cluster.primary().stop().expect("stopped at once");
        assert!(!cluster.primary().is_running() && cluster.standby(0).is_running());
        drop(cluster);
        assert!(!folder.exists(), "the folder is left");
    }

    #[test]
    fn a_fresh_page_begins_where_the_last_record_ended() {
        for (insert, end) in [
            ("0/A8A8018", "0/A8A8000"),
            ("0/A000028", "0/A000000"),
            ("0/A000018", "0/A000018"),
            ("0/A8A8028", "0/A8A8028"),
            ("0/A8A8000", "0/A8A8000"),
        ] {
            let parse = |text| Lsn::parse(text).expect("a position");
            assert_eq!(record_end(parse(insert)), parse(end), "{insert}");
        }
    }
}
