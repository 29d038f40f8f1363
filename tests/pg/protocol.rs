//! Message by message: the same bytes straight and through the proxy must be answered by the same frames.

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{Frame, RawClient, bind, bind_with, close, describe, execute, flush, parse, query, sync};
use crate::common::{self, database, database_like};

/// Bytes to send, and how many answers to wait for before going on.
pub(crate) struct Step {
    bytes: Vec<u8>,
    wait: Wait,
}

pub(crate) enum Wait {
    /// So many ReadyForQuery.
    Ready(usize),
    /// So many frames of any kind, after a Flush.
    Frames(usize),
}

pub(crate) fn ready(parts: &[Vec<u8>]) -> Step {
    let syncs = parts.iter().filter(|part| matches!(part[0], b'S' | b'Q')).count();
    Step { bytes: parts.concat(), wait: Wait::Ready(syncs) }
}

pub(crate) fn ready_times(count: usize, parts: &[Vec<u8>]) -> Step {
    Step { bytes: parts.concat(), wait: Wait::Ready(count) }
}

pub(crate) fn frames(count: usize, parts: &[Vec<u8>]) -> Step {
    Step { bytes: parts.concat(), wait: Wait::Frames(count) }
}

/// Every answer to `steps` on one connection.
fn play(port: u16, db: &str, name: &str, steps: &[Step]) -> Vec<Frame> {
    let mut client = RawClient::login(port, db);
    let mut all = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        client.send(&step.bytes).expect("sent");
        let mut left = match step.wait {
            Wait::Ready(count) | Wait::Frames(count) => count,
        };
        while left > 0 {
            let frame = client.frame().unwrap_or_else(|e| panic!("{name}, step {number}, port {port}: {e}\n{all:?}"));
            left -= usize::from(matches!(step.wait, Wait::Frames(_)) || frame.tag == b'Z');
            all.push(frame.without_source());
        }
    }
    all
}

/// Plays every case on two equal databases, straight and through.
pub(crate) fn compare(cases: &[(&str, Vec<Step>)]) {
    let Some(cluster) = common::cluster() else { return };
    let straight = database(cluster, "protocol");
    let setup = "CREATE TABLE t (n int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 50) i; \
                 CREATE TABLE log (id serial, what text)";
    cluster.primary().psql(&straight, setup).expect("set up");
    let mut failures = Vec::new();
    for mode in ["session", "transaction"] {
        let fresh = database_like(cluster, "protocol", &straight);
        let twin = database_like(cluster, "protocol", &straight);
        let proxy = Proxy::start(cluster, &Options { mode, size: 2, ..Options::default() });
        for (name, steps) in cases {
            let expected = play(cluster.primary().port(), &fresh, name, steps);
            let played = std::panic::catch_unwind(|| play(proxy.port(), &twin, name, steps));
            match played {
                Ok(got) if got == expected => {}
                Ok(got) => failures.push(format!("{mode}, {name}:\n expected {expected:?}\n got      {got:?}")),
                Err(_) => failures.push(format!("{mode}, {name}: no answer\n expected {expected:?}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

impl Step {
    /// The same bytes, waiting for `count` ReadyForQuery.
    pub(crate) fn waiting(self, count: usize) -> Self {
        Self { wait: Wait::Ready(count), ..self }
    }
}

pub(crate) const BY_KEY: &str = "SELECT v FROM t WHERE n = $1";

#[test]
fn extended_series_answer_alike() {
    compare(&[
        (
            "the plain series",
            vec![ready(&[
                parse("", BY_KEY, &[23]),
                bind("", "", &[Some("7")]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ])],
        ),
        ("no describe", vec![ready(&[parse("", BY_KEY, &[]), bind("", "", &[Some("7")]), execute("", 0), sync()])]),
        ("sync alone", vec![ready(&[sync(), sync(), sync()])]),
        ("flush alone", vec![ready(&[flush(), flush(), sync()])]),
        (
            "named statement, used twice",
            vec![
                ready(&[parse("s1", BY_KEY, &[23]), describe(b'S', "s1"), sync()]),
                ready(&[
                    bind("", "s1", &[Some("1")]),
                    execute("", 0),
                    bind("", "s1", &[Some("2")]),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[bind("", "s1", &[None]), describe(b'P', ""), execute("", 0), sync()]),
                ready(&[close(b'S', "s1"), sync()]),
                ready(&[bind("", "s1", &[Some("1")]), execute("", 0), sync()]),
            ],
        ),
        (
            "describe before bind",
            vec![ready(&[
                parse("a", "SELECT $1::int, $2::text AS two", &[]),
                describe(b'S', "a"),
                bind("p", "a", &[Some("4"), Some("x")]),
                describe(b'P', "p"),
                execute("p", 0),
                close(b'P', "p"),
                sync(),
            ])],
        ),
        (
            "the unnamed statement survives sync",
            vec![
                ready(&[parse("", "SELECT 1 + $1::int", &[]), sync()]),
                ready(&[bind("", "", &[Some("2")]), execute("", 0), sync()]),
                ready(&[bind("", "", &[Some("3")]), execute("", 0), sync()]),
            ],
        ),
        (
            "a simple query drops the unnamed statement",
            vec![
                ready(&[parse("", "SELECT 1", &[]), sync()]),
                ready(&[query("SELECT 2")]),
                ready(&[bind("", "", &[]), execute("", 0), sync()]),
            ],
        ),
        (
            "no data",
            vec![ready(&[
                parse("", "INSERT INTO log (what) VALUES ('x')", &[]),
                describe(b'S', ""),
                bind("", "", &[]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ])],
        ),
        (
            "empty query",
            vec![ready(&[
                parse("", "", &[]),
                describe(b'S', ""),
                bind("", "", &[]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ])],
        ),
        (
            "binary results",
            vec![ready(&[
                parse("", "SELECT n, v FROM t WHERE n < 4 ORDER BY n", &[]),
                bind_with("", "", &[], &[1]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ])],
        ),
        (
            "mixed formats",
            vec![ready(&[
                parse("", "SELECT n, v FROM t WHERE n < 4 ORDER BY n", &[]),
                bind_with("", "", &[], &[1, 0]),
                execute("", 0),
                sync(),
            ])],
        ),
        (
            "re-parse of a name without close",
            vec![
                ready(&[parse("dup", "SELECT 1", &[]), sync()]),
                ready(&[parse("dup", "SELECT 2", &[]), sync()]),
                ready(&[
                    close(b'S', "dup"),
                    parse("dup", "SELECT 3", &[]),
                    bind("", "dup", &[]),
                    execute("", 0),
                    sync(),
                ]),
            ],
        ),
        (
            "returning",
            vec![ready(&[
                parse("", "INSERT INTO log (what) VALUES ($1) RETURNING id, what", &[]),
                bind("", "", &[Some("r")]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ])],
        ),
        ("closing what is not there", vec![ready(&[close(b'S', "ghost"), close(b'P', "ghost"), sync()])]),
        (
            "prepared by SQL, bound by protocol",
            vec![
                ready(&[query("PREPARE viasql AS SELECT 42")]),
                ready(&[bind("", "viasql", &[]), execute("", 0), sync()]),
                ready(&[query("DEALLOCATE viasql")]),
                ready(&[bind("", "viasql", &[]), sync()]),
            ],
        ),
        (
            // EXECUTE by SQL of what the protocol prepared is not among them: see tests/README.md.
            "prepared by protocol, deallocated by SQL",
            vec![
                ready(&[parse("viaproto", "SELECT 43", &[]), sync()]),
                ready(&[query("DEALLOCATE viaproto")]),
                ready(&[bind("", "viaproto", &[]), sync()]),
                ready(&[parse("one", "SELECT 1", &[]), parse("two", "SELECT 2", &[]), sync()]),
                ready(&[query("DEALLOCATE ALL")]),
                ready(&[bind("", "two", &[]), sync()]),
            ],
        ),
        (
            "discard all",
            vec![
                ready(&[parse("gone", "SELECT 1", &[]), sync()]),
                ready(&[query("DISCARD ALL")]),
                ready(&[bind("", "gone", &[]), execute("", 0), sync()]),
                ready(&[parse("gone", "SELECT 2", &[]), bind("", "gone", &[]), execute("", 0), sync()]),
            ],
        ),
    ]);
}

#[test]
fn errors_are_skipped_to_sync() {
    let good = || [parse("", "SELECT 1", &[]), bind("", "", &[]), execute("", 0)].concat();
    compare(&[
        (
            "error in parse",
            vec![
                ready(&[parse("", "SELEC 1", &[]), bind("", "", &[]), describe(b'P', ""), execute("", 0), sync()]),
                ready(&[good(), sync()]),
            ],
        ),
        (
            "error in bind",
            vec![
                ready(&[parse("", BY_KEY, &[]), bind("", "", &[Some("not a number")]), execute("", 0), sync()]),
                ready(&[good(), sync()]),
            ],
        ),
        ("too few parameters", vec![ready(&[parse("", BY_KEY, &[]), bind("", "", &[]), execute("", 0), sync()])]),
        (
            "error in execute",
            vec![
                ready(&[
                    parse("", "SELECT 1/n FROM (VALUES (1), (0)) AS x(n)", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    good(),
                    good(),
                    sync(),
                ]),
                ready(&[good(), sync()]),
            ],
        ),
        ("unknown statement", vec![ready(&[bind("", "nosuch", &[]), execute("", 0), sync()])]),
        ("unknown portal", vec![ready(&[execute("nosuch", 0), sync()]), ready(&[describe(b'P', "nosuch"), sync()])]),
        ("unknown statement described", vec![ready(&[describe(b'S', "nosuch"), sync()])]),
        ("several statements in parse", vec![ready(&[parse("", "SELECT 1; SELECT 2", &[]), sync()])]),
        (
            "error, then a query in the series",
            vec![ready_times(2, &[parse("", "SELEC", &[]), query("SELECT 5"), sync(), query("SELECT 6")])],
        ),
        (
            "error rolls the implicit transaction back",
            vec![
                ready(&[
                    parse("", "INSERT INTO log (what) VALUES ('lost')", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", "SELECT 1/0", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[query("SELECT count(*) FROM log WHERE what = 'lost'")]),
            ],
        ),
        (
            "each sync is a transaction of its own",
            vec![
                ready(&[
                    parse("", "INSERT INTO log (what) VALUES ('kept')", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                    parse("", "SELECT 1/0", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[query("SELECT count(*) FROM log WHERE what = 'kept'")]),
            ],
        ),
        (
            "a failed block",
            vec![
                ready(&[query("BEGIN")]),
                ready(&[query("SELECT 1/0")]),
                ready(&[good(), sync()]),
                ready(&[query("SELECT 1")]),
                ready(&[query("SAVEPOINT a")]),
                ready(&[query("COMMIT")]),
                ready(&[query("SELECT 1")]),
            ],
        ),
        (
            "savepoints",
            vec![
                ready(&[query("BEGIN")]),
                ready(&[query("SAVEPOINT a")]),
                ready(&[query("SELECT 1/0")]),
                ready(&[query("ROLLBACK TO a")]),
                ready(&[good(), sync()]),
                ready(&[query("END")]),
            ],
        ),
        (
            "statement names in errors",
            vec![
                ready(&[parse("n", "SELECT $1::int", &[]), bind("", "n", &[Some("x")]), sync()]),
                ready(&[parse("n", "SELECT 2", &[]), sync()]),
                ready(&[bind("", "n2", &[]), sync()]),
            ],
        ),
        (
            "empty block",
            vec![
                ready(&[query("BEGIN")]),
                ready(&[query("COMMIT")]),
                ready(&[query("BEGIN; COMMIT")]),
                ready(&[query("COMMIT")]),
                ready(&[query("BEGIN")]),
                ready(&[query("BEGIN")]),
                ready(&[query("ROLLBACK")]),
                ready(&[query("ABORT")]),
            ],
        ),
        (
            "block by the extended protocol",
            vec![
                ready(&[parse("", "BEGIN", &[]), bind("", "", &[]), execute("", 0), sync()]),
                ready(&[good(), sync()]),
                ready(&[parse("", "COMMIT", &[]), bind("", "", &[]), execute("", 0), sync()]),
                ready(&[
                    parse("", "BEGIN", &[]),
                    bind("", "", &[]),
                    describe(b'P', ""),
                    execute("", 0),
                    good(),
                    parse("", "COMMIT", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ]),
            ],
        ),
    ]);
}
