//! Blocks (SESSIONS R12), pipelines (R13) and what a standby refuses (R11).

use crate::common;
use crate::common::raw::{Frame, RawClient, bind, describe, execute, parse, query, sync, tags, values};
use crate::tools::{code, extended, on_standbys, run, series, state, tag, value};

const ANY: &str = "consistency = \"eventual\"\nstatement_level = true\nread_only_functions = [\"server\", \"liar\", \"hides\", \"next\"]";
/// A read that tells which server ran it.
const SERVER: &str = "SELECT server(), count(*) FROM t WHERE n <= 10";

/// How many of `servers` are standbys.
fn standbys(servers: &[String]) -> usize {
    servers.iter().filter(|name| name.starts_with("standby")).count()
}

fn filled(purpose: &str, size: u32, routing: &str) -> Option<(common::proxy::Proxy, String, RawClient)> {
    let (proxy, db) = on_standbys(purpose, size, routing)?;
    let mut client = RawClient::login(proxy.port(), &db);
    let setup = "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 10); \
        CREATE FUNCTION server() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('cluster_name') $$";
    run(&mut client, setup);
    common::cluster()?.wait_replayed(common::SOON).expect("standbys follow");
    common::eventually("the catalog is known and reads leave the primary", || {
        common::direct() || standbys(&client.values(SERVER)) == 1
    });
    Some((proxy, db, client))
}

#[test]
fn r12_reads_of_a_block_run_on_a_standby_and_the_client_cannot_tell() {
    let Some((_proxy, _db, mut a)) = filled("r12", 2, ANY) else { return };
    let mut servers = Vec::new();
    {
        for begin in ["BEGIN", "START TRANSACTION READ ONLY", "BEGIN ISOLATION LEVEL READ COMMITTED", "begin work"] {
            for _ in 0..10 {
                let frames = run(&mut a, begin);
                assert_eq!((tags(&frames).as_str(), state(&frames)), ("CZ", 'T'));
                let frames = run(&mut a, SERVER);
                assert_eq!(state(&frames), 'T');
                servers.extend(values(&frames));
                let frames = extended(&mut a, "SELECT n FROM t WHERE n = 3");
                assert_eq!((values(&frames).concat().as_str(), state(&frames)), ("3", 'T'), "{frames:?}");
                let frames = run(&mut a, "COMMIT");
                assert_eq!((tag(&frames).as_str(), state(&frames)), ("COMMIT", 'I'));
            }
        }
    }
    assert!(common::direct() || standbys(&servers) == 40, "reads in blocks were on {servers:?}");
}

#[test]
fn r12_an_error_fails_the_block_wherever_it_happened() {
    let Some((_proxy, _db, mut a)) = filled("r12", 2, ANY) else { return };
    for wrong in [
        "SELECT 1/(n-n) FROM t",
        "SELECT n FROM nowhere",
        "SELECT 'x'::int FROM t",
        "SELEC",
        "SELECT pg_cancel_backend('x')",
    ] {
        run(&mut a, "BEGIN");
        run(&mut a, "SELECT count(*) FROM t");
        let frames = a.query(wrong);
        assert!(code(&frames).is_some(), "{wrong}: {frames:?}");
        assert_eq!(state(&frames), 'E', "{wrong}");
        for next in ["SELECT 1", "SELECT count(*) FROM t", "INSERT INTO t VALUES (11)", "SAVEPOINT s", "BEGIN"] {
            let frames = a.query(next);
            assert_eq!((code(&frames).as_deref(), state(&frames)), (Some("25P02"), 'E'), "{next} after {wrong}");
            let frames = extended(&mut a, next);
            assert_eq!((code(&frames).as_deref(), state(&frames)), (Some("25P02"), 'E'), "{next} after {wrong}");
        }
        let frames = run(&mut a, "COMMIT");
        assert_eq!((tag(&frames).as_str(), state(&frames)), ("ROLLBACK", 'I'), "{wrong}");
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "10");
    }
}

#[test]
fn r12_a_write_binds_the_block() {
    let Some((_proxy, _db, mut a)) = filled("r12", 2, ANY) else { return };
    for _ in 0..20 {
        run(&mut a, "BEGIN");
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "10");
        run(&mut a, "DELETE FROM t WHERE n > 5");
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "5", "its own write is seen within the block");
        run(&mut a, "SAVEPOINT s");
        run(&mut a, "DELETE FROM t");
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "0");
        let frames = a.query("SELECT 1/0");
        assert_eq!(state(&frames), 'E');
        let frames = run(&mut a, "ROLLBACK TO s");
        assert_eq!(state(&frames), 'T');
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "5");
        run(&mut a, "ROLLBACK");
    }
}

#[test]
fn r12_now_is_one_moment_in_a_block() {
    let Some((_proxy, _db, mut a)) = filled("r12", 2, ANY) else { return };
    for now in [
        "now()",
        "CURRENT_TIMESTAMP",
        "transaction_timestamp()",
        "'now'::timestamptz - now()",
        "LOCALTIME",
        "current_date",
    ] {
        run(&mut a, "BEGIN");
        let first = value(&mut a, &format!("SELECT {now}"));
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "10");
        if now != "'now'::timestamptz - now()" {
            assert_eq!(value(&mut a, &format!("SELECT {now} FROM t LIMIT 1")), first, "{now}");
        }
        run(&mut a, "COMMIT");
    }
    run(&mut a, "BEGIN");
    let first = value(&mut a, "SELECT now()");
    run(&mut a, "INSERT INTO t SELECT 11");
    assert_eq!(value(&mut a, "SELECT now()"), first);
    run(&mut a, "ROLLBACK");
}

#[test]
fn r12_repeatable_read_has_one_snapshot() {
    let Some((proxy, db, mut a)) = filled("r12", 3, ANY) else { return };
    let mut b = RawClient::login(proxy.port(), &db);
    for begin in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
        "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    ] {
        run(&mut a, begin);
        let before = value(&mut a, "SELECT count(*) FROM t");
        run(&mut b, "INSERT INTO t VALUES (12)");
        for _ in 0..3 {
            assert_eq!(value(&mut a, "SELECT count(*) FROM t"), before, "{begin}");
        }
        run(&mut a, "COMMIT");
    }
    run(&mut a, "BEGIN");
    run(&mut a, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
    assert_eq!(value(&mut a, "SHOW transaction_isolation"), "serializable");
    run(&mut a, "COMMIT");
}

#[test]
fn r12_what_only_looks_like_a_plain_block() {
    let Some((_proxy, _db, mut a)) = filled("r12", 2, ANY) else { return };
    // Empty blocks, and what PostgreSQL says to a BEGIN or COMMIT out of place.
    assert_eq!(tag(&run(&mut a, "BEGIN")), "BEGIN");
    assert_eq!(tag(&run(&mut a, "END")), "COMMIT");
    assert_eq!(tag(&run(&mut a, "START TRANSACTION")), "START TRANSACTION");
    assert_eq!(tag(&run(&mut a, "ABORT")), "ROLLBACK");
    let warns = |frames: &[Frame]| frames.iter().find(|frame| frame.tag == b'N').and_then(|frame| frame.field(b'C'));
    assert_eq!(warns(&run(&mut a, "COMMIT")).as_deref(), Some("25P01"));
    assert_eq!(warns(&run(&mut a, "ROLLBACK")).as_deref(), Some("25P01"));
    run(&mut a, "BEGIN");
    let frames = run(&mut a, "BEGIN");
    assert_eq!((warns(&frames).as_deref(), state(&frames)), (Some("25001"), 'T'));
    run(&mut a, "COMMIT");
    assert_eq!(code(&a.query("SAVEPOINT s")).as_deref(), Some("25P01"));
    run(&mut a, "BEGIN");
    run(&mut a, "SAVEPOINT s");
    run(&mut a, "SELECT count(*) FROM t");
    run(&mut a, "RELEASE s");
    run(&mut a, "COMMIT AND CHAIN");
    let frames = run(&mut a, "SELECT 1");
    assert_eq!(state(&frames), 'T', "AND CHAIN begins another one");
    run(&mut a, "ROLLBACK");
    run(&mut a, "BEGIN READ ONLY");
    assert_eq!(code(&a.query("INSERT INTO t VALUES (1)")).as_deref(), Some("25006"));
    run(&mut a, "ROLLBACK");
    assert_eq!(code(&a.query("BEGIN ISOLATION LEVEL NONSENSE")).as_deref(), Some("42601"));
    run(&mut a, "BEGIN");
    run(&mut a, "SET LOCAL app.x = 'local'");
    assert_eq!(value(&mut a, "SELECT current_setting('app.x')"), "local");
    assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "10");
    run(&mut a, "COMMIT");
    assert_eq!(value(&mut a, "SELECT current_setting('app.x', true)"), "");
    run(&mut a, "BEGIN");
    run(&mut a, "DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n");
    assert_eq!(a.values("FETCH 2 FROM c"), ["1", "2"]);
    assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "10");
    assert_eq!(a.values("FETCH 2 FROM c"), ["3", "4"]);
    run(&mut a, "COMMIT");
}

#[test]
fn r12_a_block_by_the_extended_protocol() {
    let Some((_proxy, _db, mut a)) = filled("r12", 2, ANY) else { return };
    let whole = |sql: &str| [parse("", sql, &[]), bind("", "", &[]), execute("", 0)].concat();
    for _ in 0..5 {
        let frames = extended(&mut a, "BEGIN");
        assert_eq!((tags(&frames).as_str(), state(&frames)), ("12CZ", 'T'));
        let frames = series(&mut a, &[whole("SELECT count(*) FROM t"), whole("SELECT max(n) FROM t")]);
        assert_eq!((tags(&frames).as_str(), state(&frames)), ("12DC12DCZ", 'T'));
        let frames = series(&mut a, &[whole("INSERT INTO t VALUES (77)"), whole("SELECT max(n) FROM t")]);
        assert_eq!((values(&frames).concat().as_str(), state(&frames)), ("77", 'T'));
        assert_eq!(state(&extended(&mut a, "ROLLBACK")), 'I');
        // All in one series.
        let frames = series(
            &mut a,
            &[whole("BEGIN"), whole("INSERT INTO t VALUES (78)"), whole("SELECT max(n) FROM t"), whole("ROLLBACK")],
        );
        assert_eq!((values(&frames).concat().as_str(), state(&frames)), ("78", 'I'), "{frames:?}");
    }
    // A portal with a row limit lives as long as its block.
    extended(&mut a, "BEGIN");
    let frames = series(&mut a, &[parse("", "SELECT n FROM t ORDER BY n", &[]), bind("p", "", &[]), execute("p", 2)]);
    assert_eq!(tags(&frames), "12DDsZ");
    let frames = series(&mut a, &[execute("p", 2)]);
    assert_eq!(values(&frames), ["3", "4"], "{frames:?}");
    extended(&mut a, "COMMIT");
}

#[test]
fn r13_pipelines_are_answered_in_order_wherever_they_run() {
    let Some((_proxy, _db, mut a)) = filled("r13", 2, ANY) else { return };
    let whole = |sql: &str| [parse("", sql, &[]), bind("", "", &[]), describe(b'P', ""), execute("", 0)].concat();
    let mut servers = Vec::new();
    {
        for round in 0..20 {
            // Many series at once: reads, a write in the middle, an error.
            let parts: Vec<Vec<u8>> = vec![
                [whole(SERVER), whole("SELECT min(n) FROM t"), sync()].concat(),
                [whole("SELECT 1/(n - n) FROM t"), whole("SELECT 'skipped'"), sync()].concat(),
                [whole("SELECT max(n) FROM t"), sync()].concat(),
                [whole(&format!("INSERT INTO t VALUES ({})", 100 + round)), whole("SELECT max(n) FROM t"), sync()]
                    .concat(),
                query("SELECT sum(1) FROM t WHERE n <= 10"),
                [whole("DELETE FROM t WHERE n > 10"), sync()].concat(),
            ];
            a.send(&parts.concat()).expect("sent");
            let answers: Vec<Vec<Frame>> = (0..6).map(|_| a.until_ready().expect("an answer")).collect();
            assert_eq!(values(&answers[0])[1], "1");
            servers.push(values(&answers[0])[0].clone());
            assert_eq!((code(&answers[1]).as_deref(), values(&answers[1]).len()), (Some("22012"), 0));
            assert_eq!(values(&answers[3]), [(100 + round).to_string()]);
            assert_eq!(values(&answers[4]), ["10"]);
            assert_eq!(tag(&answers[5]), "DELETE 1");
        }
    }
    assert!(common::direct() || standbys(&servers) == 20, "complete series of reads were on {servers:?}");
}

#[test]
fn r13_a_series_that_comes_in_pieces() {
    let Some((_proxy, _db, mut a)) = filled("r13", 2, ANY) else { return };
    let bytes = [
        parse("", "SELECT n FROM t WHERE n <= $1::int ORDER BY n", &[]),
        bind("", "", &[Some("2")]),
        describe(b'P', ""),
        execute("", 0),
        sync(),
    ]
    .concat();
    for cut in 1..bytes.len() {
        a.send(&bytes[..cut]).expect("sent");
        if cut % 7 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        a.send(&bytes[cut..]).expect("sent");
        let frames = a.until_ready().unwrap_or_else(|error| panic!("cut at {cut} of {}: {error}", bytes.len()));
        assert_eq!((tags(&frames).as_str(), values(&frames).len()), ("12TDDCZ", 2), "cut at {cut}: {frames:?}");
    }
}

#[test]
fn r11_what_a_standby_refuses_is_answered_by_the_primary() {
    let Some((proxy, db, mut a)) = filled("r11", 2, ANY) else { return };
    // Declared harmless and not: the standby finds out.
    let setup = "CREATE SEQUENCE s; CREATE TABLE kept (n int); \
        CREATE FUNCTION liar() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM t $$; \
        CREATE FUNCTION hides() RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN INSERT INTO kept VALUES (1); RETURN 7; END $$";
    run(&mut a, setup);
    let options = common::proxy::Options { routing: ANY.to_owned(), ..crate::tools::reading(2, "") };
    let cluster = common::cluster().expect("it runs");
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    let listed = common::proxy::Proxy::start(cluster, &options);
    for port in [proxy.port(), listed.port()] {
        let mut b = RawClient::login(port, &db);
        for _ in 0..5 {
            let frames = b.query("SELECT hides()");
            // An IMMUTABLE function that writes is refused by PostgreSQL itself, on any server.
            assert_eq!(code(&frames).as_deref(), Some("0A000"), "{frames:?}");
            assert_eq!(value(&mut b, "SELECT liar()"), "10");
        }
        assert_eq!(code(&b.query("SELECT 1/(n - n) FROM t")).as_deref(), Some("22012"));
        assert_eq!(code(&b.query("SELECT n FROM not_there")).as_deref(), Some("42P01"));
        assert_eq!(code(&extended(&mut b, "SELECT not_there FROM t")).as_deref(), Some("42703"));
    }
    assert_eq!(value(&mut a, "SELECT count(*) FROM kept"), "0");
}

#[test]
fn r11_a_refusal_is_remembered() {
    if common::direct() {
        return;
    }
    let Some(cluster) = common::cluster() else { return };
    let Some((_proxy, db, mut a)) = filled("r11", 2, ANY) else { return };
    run(
        &mut a,
        "CREATE SEQUENCE s; CREATE FUNCTION next() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN nextval('s'); END $$",
    );
    let options = common::proxy::Options { routing: ANY.to_owned(), ..crate::tools::reading(2, "") };
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    let listed = common::proxy::Proxy::start(cluster, &options);
    let refusals = || -> usize {
        let log = |n: usize| std::fs::read_to_string(cluster.standby(n).log()).unwrap_or_default();
        let of = |text: &str| {
            text.lines()
                .filter(|line| line.contains(&format!("@{db} ")) && line.contains("cannot execute nextval"))
                .count()
        };
        (0..2).map(|n| of(&log(n))).sum()
    };
    let mut b = RawClient::login(listed.port(), &db);
    for number in 1..=30 {
        assert_eq!(value(&mut b, "SELECT next()"), number.to_string(), "each runs once on the primary");
    }
    // One for each data thread that met it, at most; a few while the catalog was not known.
    assert!((1..=4).contains(&refusals()), "a standby was asked {} times", refusals());
}

#[test]
fn r12_the_modes_of_a_block_are_fixed_by_its_first_read() {
    let Some((proxy, db)) = on_standbys("r12", 2, "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE t (n int)");
    for mode in ["ISOLATION LEVEL REPEATABLE READ", "ISOLATION LEVEL SERIALIZABLE"] {
        run(&mut client, "BEGIN");
        run(&mut client, &format!("SET TRANSACTION {mode}"));
        run(&mut client, "SELECT count(*) FROM t");
        run(&mut client, "COMMIT");
        run(&mut client, "BEGIN");
        run(&mut client, "SELECT count(*) FROM t");
        let frames = client.query(&format!("SET TRANSACTION {mode}"));
        assert_eq!((code(&frames).as_deref(), state(&frames)), (Some("25001"), 'E'), "{mode}: {frames:?}");
        run(&mut client, "ROLLBACK");
    }
}
