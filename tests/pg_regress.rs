//! PostgreSQL's own regression scripts, straight on PostgreSQL and through the proxy: the same output, byte by byte.
//!
//! Nothing is normalised: each run has a cluster of its own, made like the others, so that even database names, role names and
//! OIDs agree. Outputs are left in `target/tmp/pg_regress/`, to compare them with `diff -r`.

mod common;

#[path = "pg_regress/known.rs"]
mod known;
#[path = "pg_regress/run.rs"]
mod run;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pgherd::app::demo::Error;

use common::proxy::{Options, Proxy};
use known::known;
use run::{Outputs, run_all};

/// Fewest scripts that must say the same in this mode, and fewest statements that each standby must have been sent: without them nothing
/// would be tested. Most statements of these scripts write, stand in a block, or read what was written a moment ago.
const BARS: [(&str, usize, usize); 2] = [("session", 115, 20), ("transaction", 110, 500)];
/// What the scripts printed through the proxy in one mode, and how many statements each server got.
struct Run {
    outputs: Outputs,
    statements: Vec<usize>,
}

fn folder(label: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("pg_regress").join(label)
}

/// Not captured by the test harness.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn straight() -> Result<Outputs, Error> {
    let cluster = run::cluster(0, false)?;
    Ok(run_all(&cluster, cluster.primary().port(), &folder("straight")))
}

fn through(mode: &'static str) -> Result<Run, Error> {
    // In session mode as a user has it: who has just written reads on the primary for a moment, which most of these scripts never
    // leave. In transaction mode each commit waits for both standbys, so that what may be read there is read there at once.
    let routing = match mode {
        "session" => "",
        _ => "consistency = \"eventual\"\nstatement_level = true",
    };
    let cluster = run::cluster(2, !routing.is_empty())?;
    let weights = vec![0.0, 1.0, 1.0];
    let proxy = Proxy::start(&cluster, &Options { mode, weights, routing: routing.to_owned(), ..Options::default() });
    let outputs = run_all(&cluster, proxy.port(), &folder(mode));
    proxy.stop();
    Ok(Run { outputs, statements: run::statements(&cluster) })
}

/// Checks one mode against `expected`.
fn compare((mode, bar, share): (&str, usize, usize), expected: &Outputs, run: &Run) {
    let differs = |(name, said): (&String, &Vec<u8>)| (run.outputs.get(name) != Some(said)).then(|| name.clone());
    let different: Vec<String> = expected.iter().filter_map(differs).collect();
    let same = expected.len() - different.len();
    let (all, servers) = (expected.len(), &run.statements);
    say(&format!("{mode} mode: {same} of {all} the same, different: {different:?}; statements by server: {servers:?}"));
    let unknown: Vec<&String> = different.iter().filter(|name| !known(name, mode)).collect();
    let outputs = folder("");
    assert!(unknown.is_empty(), "{mode} mode: {unknown:?} must not differ; see diff -r in {}", outputs.display());
    assert!(same >= bar, "{mode} mode: {same} of {all} are the same, not {bar}");
    let starved = servers[1..].iter().any(|sent| *sent < share);
    assert!(!starved, "{mode} mode: a standby was hardly asked: {servers:?}");
}

#[test]
fn regression_scripts_say_the_same_through_the_proxy() {
    let begun = Instant::now();
    let runs = std::thread::scope(|scope| {
        let modes = BARS.map(|(mode, ..)| scope.spawn(move || through(mode)));
        let expected = straight()?;
        let runs = modes.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Ok((expected, runs.into_iter().collect::<Result<Vec<Run>, Error>>()?))
    });
    let (expected, runs) = match runs {
        Ok(runs) => runs,
        Err(Error::NoPostgres) => return common::skip("pg_regress", "no PostgreSQL programs of version 13 or later"),
        Err(error) => panic!("{error}"),
    };
    say(&format!("{} scripts, three times, in {:?}", expected.len(), begun.elapsed()));
    assert_eq!(expected.len(), 119);
    for (bar, run) in BARS.into_iter().zip(&runs) {
        compare(bar, &expected, run);
    }
}
