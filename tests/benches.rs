//! The tools that measure do run, and one statement costs no more than what is kept of it. Speed itself is not tested here: a busy
//! machine would decide.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pgherd::app::demo::programs::{self, Finished};

/// Runs a script of `benches/` with the binary under test and a temporary folder of its own, which must be empty at the end.
fn script(name: &str, arguments: &[&str]) -> Finished {
    let folder = scratch();
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(name));
    command.args(["--pgherd", env!("CARGO_BIN_EXE_pgherd")]).args(arguments).env("TMPDIR", &folder);
    let finished = programs::run(&mut command, &[], Duration::from_secs(300)).expect("the script ends");
    let left: Vec<_> = std::fs::read_dir(&folder).expect("our folder").flatten().map(|entry| entry.path()).collect();
    std::fs::remove_dir_all(&folder).expect("our folder");
    println!("{}\n{}", finished.text(), finished.complaint());
    assert!(left.is_empty(), "{name} left {left:?}");
    finished
}

/// A folder that servers may look into, whoever they run as.
fn scratch() -> PathBuf {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("pgherd-benches-{}-{number}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&folder, open).expect("our folder");
    folder
}

/// Whether the programs are there; says aloud if not.
fn there(test: &str, names: &[&str]) -> bool {
    let missing: Vec<_> = names.iter().filter(|name| programs::on_path(name).is_none()).collect();
    if !missing.is_empty() {
        common::skip(test, &format!("without {missing:?}"));
        return false;
    }
    match programs::Programs::find() {
        Ok(_) => true,
        Err(error) => {
            common::skip(test, &error.to_string());
            false
        }
    }
}

#[test]
fn a_statement_costs_no_more_instructions_than_what_is_kept() {
    if !there("a_statement_costs_no_more_instructions_than_what_is_kept", &["python3", "valgrind"]) {
        return;
    }
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let finished = script("instructions/run.py", &["--build", build, "--transactions", "1000"]);
    let hint = "if it is meant to, benches/instructions/run.py --write keeps the new count";
    assert!(finished.status.success(), "{}{}\n{hint}", finished.text(), finished.complaint());
    assert!(!finished.text().contains("new"), "a case is not kept yet: {}\n{hint}", finished.text());
}

#[test]
fn the_comparison_runs_and_tells_of_pgherd() {
    if !there("the_comparison_runs_and_tells_of_pgherd", &["python3", "openssl"]) {
        return;
    }
    let short = ["--rounds", "1", "--seconds", "1", "--clients", "2", "--gigabytes", "0.01", "--scale", "1"];
    let few =
        ["--idle", "50", "--storm", "50", "--pgpool", "", "--only", "simple,tls,reconnect-scram,bulk,storm,memory"];
    let finished = script("compare/run.py", &[&short[..], &few[..]].concat());
    let said = finished.text();
    assert!(finished.status.success(), "{said}{}", finished.complaint());
    for line in
        ["| 2 clients | pgherd |", "| rows | pgherd |", "| 50 | pgherd | 50 | 0 |", "| 50 idle clients, TLS | pgherd |"]
    {
        let found = said.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("no {line} in {said}"));
        let rest = &found[line.len()..];
        assert!(rest.contains(|c: char| c.is_ascii_digit()), "nothing was measured: {found}");
    }
}
