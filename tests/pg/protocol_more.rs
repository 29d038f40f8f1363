//! Message by message, further: portals, copies, a Query in the middle, and what is odd but legal.

use super::protocol::{BY_KEY, compare, frames, ready, ready_times};
use crate::common::raw::{
    bind, bind_with, close, copy_data, copy_done, copy_fail, describe, execute, flush, message, parse, query, sync,
};

#[test]
fn portals_and_row_limits_answer_alike() {
    const MANY: &str = "SELECT n, v FROM t ORDER BY n";
    compare(&[
        (
            "row limit, in one series",
            vec![ready(&[
                parse("", MANY, &[]),
                bind("p", "", &[]),
                execute("p", 3),
                execute("p", 3),
                execute("p", 0),
                execute("p", 0),
                sync(),
            ])],
        ),
        (
            "row limit with flushes",
            vec![
                frames(6, &[parse("", MANY, &[]), bind("p", "", &[]), execute("p", 3), flush()]),
                frames(3, &[execute("p", 2), flush()]),
                ready(&[close(b'P', "p"), sync()]),
            ],
        ),
        (
            "two portals interleaved",
            vec![ready(&[
                parse("a", MANY, &[]),
                parse("b", BY_KEY, &[]),
                bind("pa", "a", &[]),
                bind("pb", "b", &[Some("3")]),
                execute("pa", 2),
                execute("pb", 1),
                execute("pa", 2),
                execute("pb", 1),
                sync(),
            ])],
        ),
        (
            "a portal dies with its transaction",
            vec![
                ready(&[parse("", MANY, &[]), bind("p", "", &[]), execute("p", 1), sync()]),
                ready(&[execute("p", 1), sync()]),
            ],
        ),
        (
            "a portal lives in a block",
            vec![
                ready(&[query("BEGIN")]),
                ready(&[parse("", MANY, &[]), bind("p", "", &[]), execute("p", 1), sync()]),
                ready(&[execute("p", 2), sync()]),
                ready(&[query("FETCH 2 FROM p")]),
                ready(&[describe(b'P', "p"), execute("p", 0), sync()]),
                ready(&[query("COMMIT")]),
            ],
        ),
        (
            "a cursor by SQL, executed by protocol",
            vec![
                ready(&[query("BEGIN; DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n")]),
                ready(&[execute("c", 2), sync()]),
                ready(&[query("MOVE 3 FROM c; FETCH ALL FROM c")]),
                ready(&[query("CLOSE c; COMMIT")]),
            ],
        ),
        (
            "the same portal name twice",
            vec![ready(&[parse("", MANY, &[]), bind("p", "", &[]), bind("p", "", &[]), sync()])],
        ),
        (
            "limit reached exactly",
            vec![ready(&[
                parse("", "SELECT n FROM t WHERE n <= 3 ORDER BY n", &[]),
                bind("", "", &[]),
                execute("", 3),
                execute("", 3),
                sync(),
            ])],
        ),
        (
            "with hold",
            vec![
                ready(&[query("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT n FROM t ORDER BY n; COMMIT")]),
                ready(&[query("FETCH 2 FROM h")]),
                ready(&[query("CLOSE h")]),
            ],
        ),
    ]);
}

#[test]
fn queries_between_and_pipelines_answer_alike() {
    let insert = |what: &str| {
        [parse("", "INSERT INTO log (what) VALUES ($1)", &[]), bind("", "", &[Some(what)]), execute("", 0)].concat()
    };
    let read =
        |n: &str| [parse("", BY_KEY, &[]), bind("", "", &[Some(n)]), describe(b'P', ""), execute("", 0)].concat();
    compare(&[
        (
            "a query in the middle of a series",
            vec![ready_times(
                2,
                &[
                    parse("s", BY_KEY, &[]),
                    bind("", "s", &[Some("1")]),
                    query("SELECT 'between'"),
                    bind("", "s", &[Some("2")]),
                    execute("", 0),
                    sync(),
                ],
            )],
        ),
        (
            "queries in a row",
            vec![ready_times(
                4,
                &[
                    query("SELECT 1"),
                    query("INSERT INTO log (what) VALUES ('q')"),
                    query("SELECT v FROM t WHERE n = 2"),
                    query("SELECT 1/0"),
                ],
            )],
        ),
        (
            "blocks in a row, unanswered",
            vec![ready_times(
                5,
                &[
                    query("BEGIN"),
                    query("SELECT v FROM t WHERE n = 3"),
                    query("INSERT INTO log (what) VALUES ('b')"),
                    query("COMMIT"),
                    query("SELECT v FROM t WHERE n = 4"),
                ],
            )],
        ),
        (
            "reads and writes in one pipeline",
            vec![
                ready(&[read("1"), insert("p1"), read("2"), insert("p2"), sync()]),
                ready(&[query("SELECT string_agg(what, ',' ORDER BY what) FROM log WHERE what LIKE 'p_'")]),
            ],
        ),
        (
            "many syncs at once",
            vec![ready(&[
                read("1"),
                sync(),
                insert("m1"),
                sync(),
                read("2"),
                sync(),
                parse("", "SELECT 1/0", &[]),
                bind("", "", &[]),
                execute("", 0),
                sync(),
                read("3"),
                sync(),
            ])],
        ),
        (
            "a long pipeline of reads",
            vec![ready(&(0..300).flat_map(|n| [read(&(n % 60).to_string()), sync()]).collect::<Vec<_>>())],
        ),
        (
            "flush, then wait, then go on",
            vec![
                frames(1, &[parse("f", BY_KEY, &[]), flush()]),
                frames(2, &[describe(b'S', "f"), flush()]),
                frames(3, &[bind("", "f", &[Some("9")]), execute("", 0), flush()]),
                ready(&[sync()]),
            ],
        ),
        (
            "set and read in one pipeline",
            vec![ready_times(
                4,
                &[
                    query("SET app.x = 'one'"),
                    query("SELECT current_setting('app.x')"),
                    query("RESET app.x"),
                    query("SELECT current_setting('app.x', true)"),
                ],
            )],
        ),
        ("a failing role, pipelined", vec![ready_times(2, &[query("SET ROLE nosuch"), query("SELECT current_user")])]),
        (
            "set by the extended protocol",
            vec![
                ready(&[parse("", "SET DateStyle = 'German'", &[]), bind("", "", &[]), execute("", 0), sync()]),
                ready(&[query("SELECT '2024-02-01'::date")]),
            ],
        ),
        (
            "set rolled back",
            vec![
                ready(&[query("BEGIN")]),
                ready(&[query("SET DateStyle = 'German'")]),
                ready(&[query("ROLLBACK")]),
                ready(&[query("SELECT '2024-02-01'::date")]),
            ],
        ),
        (
            "set local",
            vec![
                ready(&[query("BEGIN")]),
                ready(&[query("SET LOCAL DateStyle = 'German'")]),
                ready(&[query("SELECT '2024-02-01'::date")]),
                ready(&[query("COMMIT")]),
                ready(&[query("SELECT '2024-02-01'::date")]),
            ],
        ),
        (
            "transaction modes",
            vec![
                ready(&[query("BEGIN READ ONLY")]),
                ready(&[query("SELECT v FROM t WHERE n = 1")]),
                ready(&[query("INSERT INTO log (what) VALUES ('no')")]),
                ready(&[query("ROLLBACK")]),
                ready(&[query("BEGIN ISOLATION LEVEL SERIALIZABLE")]),
                ready(&[query("SHOW transaction_isolation")]),
                ready(&[query("COMMIT AND CHAIN")]),
                ready(&[query("SHOW transaction_isolation")]),
                ready(&[query("ROLLBACK")]),
            ],
        ),
        (
            "prepared transactions",
            vec![
                ready(&[query("BEGIN; INSERT INTO log (what) VALUES ('2pc')")]),
                ready(&[query("PREPARE TRANSACTION 'one'")]),
                ready(&[query("ROLLBACK PREPARED 'one'")]),
            ],
        ),
    ]);
}

#[test]
fn copies_answer_alike() {
    let table = "COPY log (what) FROM STDIN";
    compare(&[
        (
            "copy in",
            vec![frames(1, &[query(table)]), ready_times(1, &[copy_data(b"a\nb\n"), copy_data(b"c\n"), copy_done()])],
        ),
        ("copy in, all at once", vec![ready_times(1, &[query(table), copy_data(b"d\n"), copy_done()])]),
        (
            "copy in fails by the client",
            vec![ready_times(1, &[query(table), copy_data(b"e\n"), copy_fail("enough")]), ready(&[query("SELECT 1")])],
        ),
        (
            "copy in with syncs and flushes inside",
            vec![ready_times(1, &[query(table), flush(), copy_data(b"f\n"), sync(), copy_data(b"g\n"), copy_done()])],
        ),
        (
            "copy in fails by the server",
            vec![
                ready_times(1, &[query("COPY t (n, v) FROM STDIN"), copy_data(b"x\ty\n"), copy_done()]),
                ready(&[query("SELECT 1")]),
            ],
        ),
        (
            "data after the server's error is ignored",
            vec![ready_times(
                2,
                &[
                    query("COPY t (n, v) FROM STDIN"),
                    copy_data(b"x\ty\n"),
                    copy_data(b"1\t2\n"),
                    copy_data(b"2\t2\n"),
                    copy_done(),
                    query("SELECT 1"),
                ],
            )],
        ),
        (
            "copy out",
            vec![
                ready(&[query("COPY (SELECT * FROM t ORDER BY n) TO STDOUT")]),
                ready(&[query("COPY (SELECT * FROM t ORDER BY n) TO STDOUT (FORMAT binary)")]),
            ],
        ),
        (
            "copy in by the extended protocol",
            vec![
                frames(3, &[parse("", table, &[]), bind("", "", &[]), execute("", 0), flush()]),
                ready(&[copy_data(b"h\n"), copy_done(), sync()]),
            ],
        ),
        (
            "the same, all at once",
            vec![ready(&[
                parse("", table, &[]),
                bind("", "", &[]),
                execute("", 0),
                copy_data(b"i\n"),
                copy_done(),
                sync(),
            ])],
        ),
        (
            "the same, failing",
            vec![
                ready(&[
                    parse("", table, &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    copy_data(b"j\n"),
                    copy_fail("no"),
                    sync(),
                ]),
                ready(&[query("SELECT 1")]),
            ],
        ),
        (
            "copy out by the extended protocol",
            vec![ready(&[
                parse("", "COPY t TO STDOUT", &[]),
                bind("", "", &[]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ])],
        ),
        (
            "copy in a block",
            vec![
                ready(&[query("BEGIN")]),
                ready_times(1, &[query(table), copy_data(b"k\n"), copy_done()]),
                ready(&[query("SELECT count(*) FROM log")]),
                ready(&[query("ROLLBACK")]),
            ],
        ),
        ("stray copy messages", vec![ready(&[copy_data(b"nobody asked\n"), copy_done(), query("SELECT 1")])]),
        (
            "two copies and a query in one string",
            vec![ready_times(
                1,
                &[
                    query("COPY log (what) FROM STDIN; COPY log (what) FROM STDIN; SELECT 7"),
                    copy_data(b"l\n"),
                    copy_done(),
                    copy_data(b"m\n"),
                    copy_done(),
                ],
            )],
        ),
        (
            "copy of an unknown table",
            vec![ready_times(2, &[query("COPY nosuch FROM STDIN"), copy_data(b"x\n"), copy_done(), query("SELECT 1")])],
        ),
    ]);
}

#[test]
fn odd_but_legal_messages_answer_alike() {
    compare(&[
        (
            "an unterminated series before terminate",
            vec![ready(&[parse("", "SELECT 1", &[]), sync()]), frames(0, &[parse("", "SELECT 2", &[])])],
        ),
        ("a wrong describe kind", vec![ready(&[message(b'D', b"Xname\0"), sync()])]),
        ("a wrong close kind", vec![ready(&[message(b'C', b"Xname\0"), sync()])]),
        (
            "a bind with a bad format code",
            vec![ready(&[parse("", "SELECT 1", &[]), bind_with("", "", &[], &[7]), execute("", 0), sync()])],
        ),
        (
            "a bind with too many formats",
            vec![ready(&[parse("", "SELECT 1", &[]), bind_with("", "", &[], &[0, 0, 0]), execute("", 0), sync()])],
        ),
        ("invalid text", vec![ready(&[message(b'Q', b"SELECT '\xFF\xFE'\0")]), ready(&[query("SELECT 1")])]),
        (
            "unknown function",
            vec![ready(&[message(b'F', &[0x7F, 0, 0, 1, 0, 0, 0, 0, 0, 0])]).waiting(1), ready(&[query("SELECT 1")])],
        ),
        (
            "comments",
            vec![
                ready(&[query("/* a /* nested */ one */ SELECT 1 -- tail")]),
                ready(&[query("/*NO LOAD BALANCE*/ SELECT 2")]),
            ],
        ),
        (
            "long names",
            vec![ready(&[
                parse(&"n".repeat(200), "SELECT 1", &[]),
                bind(&"p".repeat(200), &"n".repeat(200), &[]),
                execute(&"p".repeat(200), 0),
                sync(),
            ])],
        ),
        (
            "notices",
            vec![ready(&[query("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$")]), ready(&[query("COMMIT")])],
        ),
        (
            "client_encoding",
            vec![
                ready(&[query("SET client_encoding = 'LATIN1'")]),
                ready(&[message(b'Q', b"SELECT 'gr\xFC\xDF'\0")]),
                ready(&[query("RESET client_encoding")]),
            ],
        ),
        (
            "reset all",
            vec![
                ready(&[query("SET TimeZone = 'Asia/Tokyo'")]),
                ready(&[query("RESET ALL")]),
                ready(&[query("SHOW TimeZone")]),
            ],
        ),
    ]);
}
