//! What tests against real servers share: the cluster, the proxy under test, raw clients, hostile servers, programs.
//!
//! Owned by the test binaries. Must not contain tests, nor wait for anything without a deadline.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::app::demo::programs;

pub mod fake;
pub mod proxy;
pub mod raw;
pub mod sshd;

/// For whatever should take a moment.
pub const SOON: Duration = Duration::from_secs(20);

/// Says that a test did not run; under `STRICT=1` that is a failure. Not captured by the test harness.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("STRICT").is_none(), "SKIP {name}: {reason} (and STRICT is set)");
    drop(writeln!(std::io::stderr(), "SKIP {name}: {reason}"));
}

/// Whether the tests run straight against PostgreSQL, to check the tests themselves.
pub fn direct() -> bool {
    std::env::var_os("PGHERD_TEST_DIRECT").is_some()
}

/// One primary and two standbys for all tests of this binary; each test uses databases of its own.
pub fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    // Two base backups at a time: a segment that one of them waits for must not be recycled.
    let settings = vec![("wal_keep_size".to_owned(), "256MB".to_owned())];
    let start =
        || match Cluster::start(&Options { max_connections: 300, settings: settings.clone(), ..Options::default() }) {
            Ok(cluster) => Some(cluster),
            Err(Error::NoPostgres) => {
                skip("everything that needs PostgreSQL", "no PostgreSQL programs of version 13 or later");
                None
            }
            Err(error) => panic!("{error}"),
        };
    CLUSTER.get_or_init(start).as_ref()
}

/// Makes an empty database with a name of its own, present on all servers when this returns.
pub fn database(cluster: &Cluster, purpose: &str) -> String {
    database_like(cluster, purpose, "template0")
}

/// Makes a copy of `template`, which nobody may be connected to.
pub fn database_like(cluster: &Cluster, purpose: &str, template: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{purpose}_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
    cluster.primary().psql("postgres", &sql).expect("a new database");
    cluster.wait_replayed(SOON).expect("standbys follow");
    name
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A `psql` as in a script, for `port`; see [`programs::psql`].
pub fn psql(cluster: &Cluster, port: u16, database: &str, sql: &str) -> String {
    let mut command = programs::psql(cluster.programs(), port, database);
    command.args(["-f", "-"]);
    let finished = programs::run(&mut command, sql.as_bytes(), Duration::from_secs(120)).expect("psql ends");
    assert!(finished.status.success(), "psql: {}{}\nfor: {sql}", finished.text(), finished.complaint());
    finished.text()
}

/// The error text of a `psql` that must fail.
pub fn psql_error(cluster: &Cluster, port: u16, database: &str, sql: &str) -> String {
    let mut command = programs::psql(cluster.programs(), port, database);
    command.args(["-f", "-", "-v", "VERBOSITY=verbose"]);
    let finished = programs::run(&mut command, sql.as_bytes(), Duration::from_secs(120)).expect("psql ends");
    assert!(!finished.status.success(), "psql succeeded with {}\nfor: {sql}", finished.text());
    finished.complaint()
}

/// Runs `pgbench` with `arguments` (divided by spaces) and demands that it ends well and reports no failure.
pub fn pgbench(cluster: &Cluster, port: u16, database: &str, arguments: &str) -> String {
    let mut command = Command::new(cluster.programs().path("pgbench"));
    programs::without_surroundings(&mut command);
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
    command.args(arguments.split_whitespace()).arg(database);
    let finished = programs::run(&mut command, &[], Duration::from_secs(300)).expect("pgbench ends");
    let said = format!("{}\n{}", finished.text(), finished.complaint());
    assert!(finished.status.success(), "pgbench {arguments}: {said}");
    for bad in ["aborted", "ERROR", "FATAL"] {
        assert!(!said.contains(bad), "pgbench {arguments}: {said}");
    }
    said
}

/// A pseudo-random sequence that can be repeated from its seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from 0 to `bound` − 1.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        value as usize % bound
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Lets this process, and the proxy that it starts, open as many files as the system allows; how many that is.
pub fn hostile_limits() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    hard
}
