//! Runs all scripts against one cluster, by `psql` as PostgreSQL's own `pg_regress` does, and keeps what they print.
//!
//! Owned by the test. Must not know what the outputs are compared with.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::app::demo::programs;

use crate::common;

/// The longest that a script may take, in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// What `pg_regress` makes of a database before the scripts see it. `{}`: how it is copied, where that can be said.
const CREATE: &str = "CREATE DATABASE regression TEMPLATE prepared{};
    ALTER DATABASE regression SET lc_messages TO 'C';
    ALTER DATABASE regression SET lc_monetary TO 'C';
    ALTER DATABASE regression SET lc_numeric TO 'C';
    ALTER DATABASE regression SET lc_time TO 'C';
    ALTER DATABASE regression SET bytea_output TO 'hex';
    ALTER DATABASE regression SET timezone_abbreviations TO 'Default'";

/// Output by script.
pub(crate) type Outputs = BTreeMap<String, Vec<u8>>;

/// A cluster for one run. All are made alike, so that they count OIDs alike, too. `synchronous`: a commit returns when both
/// standbys show it.
pub(crate) fn cluster(standbys: usize, synchronous: bool) -> Result<Cluster, pgherd::app::demo::Error> {
    let mut settings = vec![
        // Statistics that change at a moment of their own change plans and the order of rows.
        ("autovacuum", "off"),
        // Server logs tell which statements a server was sent.
        ("log_statement", "all"),
    ];
    if synchronous {
        settings.extend([
            ("synchronous_standby_names", "FIRST 2 (standby1, standby2)"),
            ("synchronous_commit", "remote_apply"),
        ]);
    }
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Cluster::start(&Options { standbys, settings, parent: memory(), ..Options::default() })
}

/// A folder in memory, if there is one with room for all clusters: seven servers copy a database for every script.
fn memory() -> Option<PathBuf> {
    let folder = PathBuf::from("/dev/shm");
    let status = nix::sys::statvfs::statvfs(&folder).ok()?;
    (status.blocks_available() * status.fragment_size() > 8 << 30).then_some(folder)
}

/// All scripts, the one that makes the tables of all others first.
pub(crate) fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pg_regress");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    found.sort_by_key(|path| (!path.ends_with("test_setup.sql"), path.clone()));
    found
}

/// What `psql` prints for a script, in the surroundings that `pg_regress` gives it.
fn output(cluster: &Cluster, port: u16, database: &str, script: &Path) -> Vec<u8> {
    let mut command = Command::new("sh");
    programs::without_surroundings(&mut command);
    command.args(["-c", "exec \"$0\" -X -a -q -h 127.0.0.1 -U postgres -p \"$1\" -d \"$2\" <\"$3\" 2>&1"]);
    command.arg(cluster.programs().path("psql")).arg(port.to_string()).arg(database).arg(script);
    command.env("PGTZ", "PST8PDT").env("PGDATESTYLE", "Postgres, MDY").env("LC_MESSAGES", "C");
    command.env("PGOPTIONS", "-c intervalstyle=postgres_verbose").env("PGAPPNAME", "pg_regress");
    // Files that come with PostgreSQL's source are not here: what needs them fails alike everywhere.
    for name in ["PG_ABS_SRCDIR", "PG_ABS_BUILDDIR", "PG_LIBDIR"] {
        command.env(name, "/nowhere");
    }
    command.env("PG_DLSUFFIX", ".so");
    match programs::run(&mut command, &[], LIMIT) {
        Ok(finished) => finished.stdout,
        Err(error) => format!("{error}").into_bytes(),
    }
}

/// Runs a file of ours straight on the primary, come what may.
fn run_file(cluster: &Cluster, database: &str, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pg_regress").join(file);
    output(cluster, cluster.primary().port(), database, &path);
}

/// Runs every script through `port`, each in a fresh database `regression` of `cluster`. The outputs are left in `folder`.
pub(crate) fn run_all(cluster: &Cluster, port: u16, folder: &Path) -> Outputs {
    std::fs::create_dir_all(folder).expect("a folder for outputs");
    let primary = cluster.primary();
    primary.psql("postgres", "CREATE DATABASE prepared TEMPLATE template0").expect("a database");
    let all = scripts();
    // Without a proxy: what the other scripts start from must be the same everywhere.
    output(cluster, primary.port(), "prepared", &all[0]);
    run_file(cluster, "prepared", "fill.sql");
    // Cheaper than to send all pages through the WAL to every standby.
    let create = CREATE.replace("{}", if cluster.programs().major() >= 15 { " STRATEGY file_copy" } else { "" });
    let mut outputs = Outputs::new();
    for script in &all {
        let name = script.file_stem().expect("a name").to_string_lossy().into_owned();
        primary.psql("postgres", &create).expect("a database");
        cluster.wait_replayed(common::SOON).expect("standbys follow");
        let said = output(cluster, port, "regression", script);
        std::fs::write(folder.join(format!("{name}.out")), &said).expect("written");
        outputs.insert(name.clone(), said);
        run_file(cluster, "regression", "clean.sql");
        let left = primary.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'regress%'");
        assert_eq!(left.expect("an answer"), "", "{name} left a database that cannot be dropped");
    }
    outputs
}

/// How many statements of the scripts each server was sent, the primary first.
pub(crate) fn statements(cluster: &Cluster) -> Vec<usize> {
    let count = |server: &pgherd::app::demo::server::Server| {
        use std::io::BufRead;
        let log = std::io::BufReader::new(File::open(server.log()).expect("a log"));
        let of_scripts = |line: &Vec<u8>| {
            let line = String::from_utf8_lossy(line);
            line.contains("@regression LOG:  statement: ") || line.contains("@regression LOG:  execute ")
        };
        log.split(b'\n').map(|line| line.expect("a line")).filter(of_scripts).count()
    };
    cluster.servers().iter().map(count).collect()
}
