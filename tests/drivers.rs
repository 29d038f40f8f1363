//! Real drivers, each by a small program of its own that knows nothing of a proxy.
//!
//! What they need is put below `target/drivers/` by the language's own installer; what cannot be had is a skip.

mod common;

#[path = "drivers/tokio_postgres/mod.rs"]
mod tokio_postgres;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::database;
use common::proxy::{Options, Proxy};
use pgherd::app::demo::cluster::Cluster;
use pgherd::app::demo::programs;

/// How long a driver's program may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long its installer may take.
const INSTALL: Duration = Duration::from_secs(300);
/// Debian's package libpostgresql-jdbc-java.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// Where the program of `driver` is.
fn source(driver: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(driver)
}

/// A folder below `target/`, kept between runs.
fn installed(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("drivers").join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Whether a program of the installation worked; else why not.
fn worked(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match programs::run(command, &[], INSTALL) {
        Ok(finished) if finished.status.success() => Ok(()),
        Ok(finished) => Err(format!("{name}: {}", finished.complaint().lines().last().unwrap_or("no reason given"))),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Runs `work` for each way of sharing server connections, with few of them, each in a database of its own.
fn each_mode(cluster: &Cluster, purpose: &str, work: impl Fn(u16, &str)) {
    for mode in ["transaction", "session"] {
        // asyncpg's and node's pools hold 15 connections, which in session mode are 15 of a server's.
        let size = if mode == "session" { 30 } else { 6 };
        let proxy = Proxy::start(cluster, &Options { mode, size, ..Options::default() });
        work(proxy.port(), &database(cluster, purpose));
        proxy.stop();
    }
}

/// Runs the program that `command` makes; it must say `ok`.
fn says_ok(cluster: &Cluster, driver: &str, command: impl Fn() -> Command) {
    each_mode(cluster, driver, |port, db| {
        let mut program = command();
        programs::without_surroundings(&mut program);
        let finished = programs::run(program.arg(port.to_string()).arg(db), &[], LIMIT).expect("it ends");
        let said = format!("{}{}", finished.text(), finished.complaint());
        assert!(finished.status.success() && finished.text().trim_end().ends_with("ok"), "{driver}: {said}");
    });
}

/// Runs `driver`'s Python program in an environment of its own with the packages it asks for.
fn python(driver: &str) {
    let Some(cluster) = common::cluster() else { return };
    let folder = installed(driver);
    let python = folder.join("bin/python");
    let requirements = source(driver).join("requirements.txt");
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&folder);
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"]).arg(&requirements);
    if let Err(reason) = worked(&mut make).and_then(|()| worked(&mut install)) {
        return common::skip(driver, &reason);
    }
    says_ok(cluster, driver, || {
        let mut command = Command::new(&python);
        command.arg(source(driver).join("main.py"));
        command
    });
}

#[test]
fn psycopg() {
    python("psycopg");
}

#[test]
fn asyncpg() {
    python("asyncpg");
}

#[test]
fn node_postgres() {
    let Some(cluster) = common::cluster() else { return };
    let folder = installed("node");
    for name in ["package.json", "main.js"] {
        std::fs::copy(source("node").join(name), folder.join(name)).expect("copied");
    }
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
    if let Err(reason) = worked(&mut install) {
        return common::skip("node_postgres", &reason);
    }
    says_ok(cluster, "node", || {
        let mut command = Command::new("node");
        command.arg(folder.join("main.js"));
        command
    });
}

#[test]
fn pgjdbc() {
    let Some(cluster) = common::cluster() else { return };
    if !Path::new(JDBC).exists() {
        return common::skip("pgjdbc", "no libpostgresql-jdbc-java");
    }
    let classes = installed("pgjdbc");
    let mut compile = Command::new("javac");
    compile.args(["-cp", JDBC, "-d"]).arg(&classes).arg(source("pgjdbc").join("Main.java"));
    if let Err(reason) = worked(&mut compile) {
        return common::skip("pgjdbc", &reason);
    }
    says_ok(cluster, "pgjdbc", || {
        let mut command = Command::new("java");
        command.arg("-cp").arg(format!("{JDBC}:{}", classes.display())).arg("Main");
        command
    });
}

#[test]
fn tokio_postgres() {
    let Some(cluster) = common::cluster() else { return };
    each_mode(cluster, "tokio_postgres", tokio_postgres::run);
}
