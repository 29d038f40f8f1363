//! Prepared statements follow their session over server connections, and answer as if it had one of its own (SESSIONS R3).

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{self, RawClient, bind, close, describe, execute, parse, sync, tags, values};
use crate::common::{self, SOON, database, eventually, psql};
use crate::tools::{
    code, counter, execute_named, extended, on_primary, on_standbys, prepare, route, run, series, state, value,
    wait_for_catalog,
};

const DAY: &str = "SELECT '01/02/2024'::date - '2024-01-01'::date";

fn named(client: &mut RawClient, name: &str) -> String {
    let frames = execute_named(client, name, &[]);
    assert_eq!(code(&frames), None, "{frames:?}");
    values(&frames).concat()
}

#[test]
fn r03_a_literal_is_read_in_the_date_style_of_its_session() {
    let Some((proxy, db)) = on_primary("r03", 1, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, "SET DateStyle = 'ISO, MDY'");
    prepare(&mut a, "day", DAY);
    assert_eq!(named(&mut a, "day"), "1");
    if !common::direct() {
        let mut b = RawClient::login(proxy.port(), &db);
        run(&mut b, "SET DateStyle = 'ISO, DMY'");
        prepare(&mut b, "day", DAY);
        for _ in 0..5 {
            assert_eq!(named(&mut b, "day"), "31");
            assert_eq!(named(&mut a, "day"), "1");
        }
    }
    // What PostgreSQL does after a later SET depends on when it read the literal; both ways are the session's own.
    run(&mut a, "SET DateStyle = 'ISO, DMY'");
    prepare(&mut a, "later", DAY);
    assert_eq!(named(&mut a, "later"), "31");
}

#[test]
fn r03_a_statement_follows_its_own_search_path() {
    let Some((proxy, db)) = on_primary("r03", 1, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let setup = "CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.t AS SELECT 1 AS n; \
        CREATE TABLE two.t AS SELECT 'two'::text AS n, true AS more";
    run(&mut a, setup);
    if common::direct() {
        return;
    }
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, "SET search_path = one");
    run(&mut b, "SET search_path = two");
    prepare(&mut a, "all", "SELECT * FROM t");
    prepare(&mut b, "all", "SELECT * FROM t");
    for _ in 0..5 {
        assert_eq!(named(&mut a, "all"), "1");
        assert_eq!(named(&mut b, "all"), "two");
    }
}

#[test]
fn r03_deallocate_all_is_about_ones_own_statements() {
    let Some((proxy, db)) = on_primary("r03", 1, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    prepare(&mut a, "s", "SELECT 1");
    for all in ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE PREPARE ALL"] {
        prepare(&mut a, "t", "SELECT 2");
        if !common::direct() {
            let mut b = RawClient::login(proxy.port(), &db);
            prepare(&mut b, "s", "SELECT 3");
            run(&mut a, all);
            assert_eq!(named(&mut b, "s"), "3", "{all}");
            run(&mut b, all);
        } else {
            run(&mut a, all);
        }
        assert_eq!(code(&execute_named(&mut a, "t", &[])).as_deref(), Some("26000"), "{all}");
        assert_eq!(code(&execute_named(&mut a, "s", &[])).as_deref(), Some("26000"), "{all}");
        prepare(&mut a, "s", "SELECT 4");
        assert_eq!(named(&mut a, "s"), "4", "{all}");
    }
    prepare(&mut a, "one more", "SELECT 5");
    run(&mut a, "DEALLOCATE \"one more\"");
    assert_eq!(code(&execute_named(&mut a, "one more", &[])).as_deref(), Some("26000"));
    assert_eq!(code(&a.query("DEALLOCATE nobody")).as_deref(), Some("26000"));
}

#[test]
fn r03_a_deallocate_that_fails_takes_nothing_away() {
    let Some((proxy, db)) = on_primary("r03", 2, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    prepare(&mut a, "s", "SELECT 1");
    for all in ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE s"] {
        run(&mut a, "BEGIN");
        assert_eq!(code(&a.query("SELECT 1/0")).as_deref(), Some("22012"));
        assert_eq!(code(&a.query(all)).as_deref(), Some("25P02"), "{all}");
        run(&mut a, "ROLLBACK");
        assert_eq!(named(&mut a, "s"), "1", "{all}");
    }
    run(&mut a, "BEGIN; CREATE TABLE t ()");
    assert_eq!(code(&a.query("DISCARD ALL")).as_deref(), Some("25001"));
    run(&mut a, "ROLLBACK");
    assert_eq!(named(&mut a, "s"), "1");
}

#[test]
fn r03_close_and_a_name_used_twice() {
    let Some((proxy, db)) = on_primary("r03", 1, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    prepare(&mut a, "s", "SELECT 1");
    assert_eq!(code(&series(&mut a, &[parse("s", "SELECT 2", &[])])).as_deref(), Some("42P05"));
    assert_eq!(named(&mut a, "s"), "1", "the first one stays");
    run(&mut a, "BEGIN; CREATE TEMP TABLE x () ON COMMIT DROP");
    let frames = series(&mut a, &[parse("s", "SELECT 2", &[])]);
    assert_eq!((code(&frames).as_deref(), state(&frames)), (Some("42P05"), 'E'));
    run(&mut a, "ROLLBACK");
    assert_eq!(tags(&series(&mut a, &[close(b'S', "s")])), "3Z");
    assert_eq!(tags(&series(&mut a, &[close(b'S', "never was")])), "3Z");
    assert_eq!(code(&execute_named(&mut a, "s", &[])).as_deref(), Some("26000"));
    prepare(&mut a, "s", "SELECT 3");
    assert_eq!(named(&mut a, "s"), "3");
    // Close and Parse again in one series, with an error behind them: statements are not rolled back, skipped ones never were.
    let frames = series(
        &mut a,
        &[
            close(b'S', "s"),
            parse("s", "SELECT 4", &[]),
            parse("", "SELECT nonsense", &[]),
            parse("t", "SELECT 5", &[]),
        ],
    );
    assert_eq!(tags(&frames), "31EZ");
    assert_eq!(named(&mut a, "s"), "4");
    assert_eq!(code(&execute_named(&mut a, "t", &[])).as_deref(), Some("26000"));
    assert_eq!(code(&series(&mut a, &[parse("bad", "SELECT FROM WHERE", &[])])).as_deref(), Some("42601"));
    assert_eq!(code(&execute_named(&mut a, "bad", &[])).as_deref(), Some("26000"));
}

#[test]
fn r03_more_statements_than_a_server_keeps() {
    let Some((proxy, db)) = on_primary("r03", 2, "max_prepared_statements = 5") else { return };
    let mut clients: Vec<RawClient> = (0..3).map(|_| RawClient::login(proxy.port(), &db)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        for statement in 0..20 {
            prepare(client, &format!("s{statement}"), &format!("SELECT {number} * 100 + {statement} + $1::int"));
        }
    }
    for round in 0..60 {
        for (number, client) in clients.iter_mut().enumerate() {
            let statement = (round * 7 + number * 3) % 20;
            let frames = execute_named(client, &format!("s{statement}"), &[Some("1000")]);
            assert_eq!(values(&frames), [(1000 + number * 100 + statement).to_string()], "{frames:?}");
        }
    }
    if !common::direct() {
        let held = "SELECT count(*) <= 5 FROM pg_prepared_statements WHERE NOT from_sql";
        assert_eq!(value(&mut clients[0], held), "t");
    }
}

#[test]
fn r03_one_series_with_more_statements_than_a_server_keeps() {
    let Some((proxy, db)) = on_primary("r03", 1, "max_prepared_statements = 3") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    for statement in 0..10 {
        prepare(&mut a, &format!("s{statement}"), &format!("SELECT {statement}"));
    }
    let binds: Vec<Vec<u8>> =
        (0..10).map(|statement| bind(&format!("p{statement}"), &format!("s{statement}"), &[])).collect();
    let executes: Vec<Vec<u8>> = (0..10).map(|statement| execute(&format!("p{statement}"), 0)).collect();
    let frames = series(&mut a, &[binds, executes].concat());
    assert_eq!(values(&frames), (0..10).map(|n| n.to_string()).collect::<Vec<_>>(), "{frames:?}");
}

#[test]
fn r03_the_unnamed_statement_lives_over_leases() {
    let Some((proxy, db)) = on_primary("r03", 1, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    assert_eq!(tags(&series(&mut a, &[parse("", "SELECT 'a' || $1", &[25])])), "1Z");
    if !common::direct() {
        let mut b = RawClient::login(proxy.port(), &db);
        assert_eq!(values(&extended(&mut b, "SELECT 'b'")), ["b"]);
        run(&mut b, "SELECT 1");
    }
    for word in ["x", "y"] {
        let frames = series(&mut a, &[bind("", "", &[Some(word)]), describe(b'S', ""), execute("", 0)]);
        assert_eq!(values(&frames), [format!("a{word}")], "{frames:?}");
    }
    // Its own simple query ends it, as in PostgreSQL.
    run(&mut a, "SELECT 1");
    assert_eq!(code(&series(&mut a, &[bind("", "", &[Some("x")])])).as_deref(), Some("26000"));
}

#[test]
fn r03_what_a_server_has_forgotten_is_parsed_again() {
    for weights in [vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0]] {
        let Some(cluster) = common::cluster().filter(|_| !common::direct()) else { return };
        let proxy = Proxy::start(cluster, &Options { size: 1, weights: weights.clone(), ..Options::default() });
        let (db, primary) = (database(cluster, "r03"), cluster.primary().port());
        psql(cluster, primary, &db, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
        let mut a = RawClient::login(proxy.port(), &db);
        wait_for_catalog(&mut a);
        // Until the standby has the table, and that is known, it is read on the primary.
        let on_primary = weights[0] > 0.0;
        eventually("its place", || (route(&mut a, "SELECT * FROM t").0 == "primary") == on_primary);
        prepare(&mut a, "all", "SELECT * FROM t");
        assert_eq!(named(&mut a, "all"), "1");
        // Nobody told pgherd of it.
        run(&mut a, "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$");
        assert_eq!(named(&mut a, "all"), "1", "{weights:?}");
        psql(cluster, primary, &db, "ALTER TABLE t ADD more text DEFAULT 'x'");
        cluster.wait_replayed(SOON).expect("the standbys follow");
        // Who knows the columns of before must hear that they have changed, as from PostgreSQL.
        let frames = execute_named(&mut a, "all", &[]);
        let columns = |frame: &&raw::Frame| frame.tag == b'D' && frame.columns().len() != 1;
        assert!(!frames.iter().any(|frame| columns(&frame)), "{weights:?}: {frames:?}");
        let mut b = RawClient::login(proxy.port(), &db);
        prepare(&mut b, "all", "SELECT * FROM t");
        let frames = series(&mut b, &[describe(b'S', "all"), bind("", "all", &[]), execute("", 0)]);
        assert_eq!(code(&frames), None, "{weights:?}: {frames:?}");
        let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row");
        assert_eq!(row.columns().len(), 2, "{weights:?}");
        // On the standby the one who heard of it has had it forgotten already.
        assert!(counter(&mut b, "retries") > 0 || weights[0] == 0.0, "no server has forgotten anything");
    }
}

#[test]
fn r03_a_plan_does_not_outlive_its_table() {
    let Some((proxy, db)) = on_primary("r03", 2, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    prepare(&mut a, "all", "SELECT * FROM t");
    assert_eq!(named(&mut a, "all"), "1");
    run(&mut b, "ALTER TABLE t ADD more text DEFAULT 'x'");
    // PostgreSQL itself refuses a statement whose columns have changed; on a server that did not know it, it has the new ones.
    let frames = execute_named(&mut a, "all", &[]);
    assert!(code(&frames).is_none_or(|code| code == "0A000"), "{frames:?}");
    for client in [&mut a, &mut b] {
        let frames = series(
            client,
            &[parse("new", "SELECT * FROM t", &[]), describe(b'S', "new"), bind("", "new", &[]), execute("", 0)],
        );
        assert_eq!(code(&frames), None, "{frames:?}");
        let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row");
        assert_eq!(row.columns().len(), 2);
        series(client, &[close(b'S', "new")]);
    }
}

#[test]
fn r03_statements_are_the_same_on_every_server() {
    let Some((proxy, db)) = on_standbys("r03", 2, "consistency = \"eventual\"\nstatement_level = true") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    prepare(&mut a, "one", "SELECT n FROM t WHERE n = $1");
    prepare(&mut a, "put", "INSERT INTO t VALUES ($1)");
    for round in 1..=60 {
        let text = round.to_string();
        assert_eq!(values(&execute_named(&mut a, "one", &[Some(&text)])), std::slice::from_ref(&text));
        if round % 5 == 0 {
            assert_eq!(code(&execute_named(&mut a, "put", &[Some("1000")])), None);
        }
    }
    // A parse that fails on the standby as on the primary leaves no name.
    assert_eq!(code(&series(&mut a, &[parse("bad", "SELECT nothing FROM t", &[])])).as_deref(), Some("42703"));
    assert_eq!(code(&execute_named(&mut a, "bad", &[])).as_deref(), Some("26000"));
}

#[test]
fn r03_sql_prepare_keeps_its_connection_until_deallocate() {
    let Some((proxy, db)) = on_primary("r03", 2, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, "PREPARE p AS SELECT 'mine'");
    for _ in 0..3 {
        assert_eq!(code(&b.query("EXECUTE p")).as_deref(), Some("26000"));
        assert_eq!(value(&mut a, "EXECUTE p"), "mine");
    }
    assert_eq!(values(&execute_named(&mut a, "p", &[])), ["mine"], "SQL's and the protocol's names are the same");
    run(&mut a, "DEALLOCATE p");
    assert_eq!(code(&a.query("EXECUTE p")).as_deref(), Some("26000"));
    run(&mut b, "PREPARE p AS SELECT 'other'");
    assert_eq!(value(&mut b, "EXECUTE p"), "other");
    let mut c = RawClient::login(proxy.port(), &db);
    c.send(&sync()).expect("sent");
    assert_eq!(tags(&c.until_ready().expect("an answer")), "Z");
}

#[test]
fn r03_a_statement_keeps_the_settings_of_its_parse() {
    for reads in [false, true] {
        let started = if reads { on_standbys("r03", 2, "") } else { on_primary("r03", 2, "") };
        let Some((proxy, db)) = started else { return };
        let mut a = RawClient::login(proxy.port(), &db);
        let mut b = RawClient::login(proxy.port(), &db);
        run(&mut b, "CREATE TABLE t (n int)");
        run(&mut a, "SET DateStyle = 'ISO, DMY'");
        prepare(&mut a, "day", DAY);
        assert_eq!(named(&mut a, "day"), "31");
        run(&mut a, "SET DateStyle = 'ISO, MDY'");
        for _ in 0..3 {
            // The other client holds the connection that has the statement, whichever it is.
            run(&mut b, "BEGIN; INSERT INTO t VALUES (1)");
            assert_eq!(named(&mut a, "day"), "31", "reads elsewhere: {reads}");
            run(&mut a, "BEGIN; SET LOCAL app.mark = 'x'");
            assert_eq!(named(&mut a, "day"), "31", "in a block, reads elsewhere: {reads}");
            run(&mut a, "ROLLBACK");
            run(&mut b, "ROLLBACK");
        }
        // Nobody else's statement of that text has become this one.
        prepare(&mut b, "mine", DAY);
        assert_eq!(named(&mut b, "mine"), "1");
        prepare(&mut a, "now", DAY);
        assert_eq!((named(&mut a, "now"), named(&mut a, "day")), ("1".to_owned(), "31".to_owned()));
        assert_eq!(value(&mut a, "SHOW DateStyle"), "ISO, MDY");
    }
}
