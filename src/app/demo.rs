//! A private cluster to play with, and the same one for tests.
//!
//! Owned by the command line (`pgherd demo`) and by the tests. Must not touch servers, folders or ports that it did not
//! make itself.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

pub mod cluster;
pub mod folder;
pub mod load;
pub mod play;
pub mod ports;
pub mod programs;
pub mod server;
pub mod stage;

/// The superuser of a private cluster.
pub const SUPERUSER: &str = "postgres";

/// Why a private cluster could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PostgreSQL programs of version 13 or later were found.
    #[error("no PostgreSQL {} or later found; on Debian and Ubuntu: apt-get install postgresql", programs::OLDEST)]
    NoPostgres,
    /// We are root, and there is no user to run PostgreSQL as.
    #[error("PostgreSQL does not run as root, and there is no user `nobody`")]
    NoOwner,
    /// The port for clients is taken, or not ours to take.
    #[error(
        "cannot listen on 127.0.0.1:{port}: {source}; choose another port: make demo PORT=9998, or pgherd demo --port 9998"
    )]
    Port {
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The proxy did not start.
    #[error(transparent)]
    Proxy(#[from] super::Error),
    /// The proxy does not see all servers.
    #[error("pgherd runs, but it does not see a primary and all standbys")]
    NotSeen,
    /// Signals cannot be received.
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    /// All ports of our range are taken.
    #[error("no free port found on 127.0.0.1")]
    NoPort,
    /// A file or folder could not be made, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be started or waited for.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// Its output and complaints.
        said: String,
    },
    /// A program had to be killed.
    #[error("{program} did not end within {limit:?}; it said: {said}")]
    Late {
        /// The program.
        program: String,
        /// How long it had.
        limit: Duration,
        /// Its output and complaints until then.
        said: String,
    },
    /// A server did not come up.
    #[error("PostgreSQL server {server} did not start; its log ends:\n{log}")]
    NotStarted {
        /// Its name in the cluster.
        server: String,
        /// The end of its log.
        log: String,
    },
    /// A server could not be signalled.
    #[error("PostgreSQL server {server} cannot be signalled: {source}")]
    Signal {
        /// Its name in the cluster.
        server: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A standby did not catch up.
    #[error("{server} has replayed {replayed}, but {written} was written")]
    NotReplayed {
        /// Its name in the cluster.
        server: String,
        /// The primary's position.
        written: String,
        /// The standby's position.
        replayed: String,
    },
}
