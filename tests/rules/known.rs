//! Verdicts (SESSIONS R9): what may share one and what may not, and what is known of a database when that changes.

use crate::common::raw::{RawClient, query, values};
use crate::common::{self, SOON, database, eventually};
use crate::tools::{
    HERE, code, extended, is_standby, named, on_primary, ran_on_standby, reading, route, run, shown, value,
    wait_for_catalog, with_here,
};

#[test]
fn r09_literals_of_data_statements_share_a_verdict_and_keep_their_values() {
    let Some((proxy, db)) = with_here("r09", "") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut setup = RawClient::login(proxy.port(), &db);
    run(&mut setup, "CREATE TABLE t (n int, v text)");
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut setup);
    let mut client = RawClient::login(proxy.port(), &db);
    for (number, text) in
        [(17, "a"), (18, "it''s"), (-3, "; DROP TABLE t"), (0, "/*NO LOAD BALANCE*/"), (9, "nextval(s)")]
    {
        for by_series in [false, true] {
            let sql = format!("SELECT here(), {number} + 1, '{text}' -- {number}");
            let frames = if by_series { extended(&mut client, &sql) } else { run(&mut client, &sql) };
            let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row").columns();
            assert!(row[0].as_deref().is_some_and(|port| is_standby(cluster, port)), "{sql}: {row:?}");
            assert_eq!(
                (row[1].clone(), row[2].clone()),
                (Some((number + 1).to_string()), Some(text.replace("''", "'")))
            );
        }
    }
    assert_eq!(value(&mut setup, "SELECT count(*) FROM t"), "0");
}

#[test]
fn r09_comments_are_nothing_and_hints_are_something() {
    let Some((proxy, db)) = with_here("r09", "") else { return };
    let cluster = common::cluster().expect("it runs");
    // In both orders: whichever is looked at first must not decide for the other.
    for (column, order) in [("x", [false, true]), ("y", [true, false])] {
        for hint in order {
            for (before, behind) in [("/*NO LOAD BALANCE*/ ", ""), ("/* no load balance */", "")] {
                let (before, behind) =
                    if hint { (before, behind) } else { ("/* any other remark */ ", " -- NO LOAD BALANCE") };
                let sql = format!("{before}SELECT here(), 1 AS {column}{behind}");
                let mut client = RawClient::login(proxy.port(), &db);
                assert_eq!(ran_on_standby(cluster, &mut client, &sql), !hint, "{sql}");
                let ran = values(&extended(&mut client, &sql)).remove(0);
                assert_eq!(is_standby(cluster, &ran), !hint, "{sql}");
            }
        }
    }
    // In a literal it is none.
    let mut client = RawClient::login(proxy.port(), &db);
    assert!(ran_on_standby(cluster, &mut client, "SELECT here(), '/*NO LOAD BALANCE*/'"));
}

#[test]
fn r09_literals_of_settings_are_no_literals() {
    let Some((proxy, db)) = on_primary("r09", 1, "") else { return };
    let mut one = RawClient::login(proxy.port(), &db);
    let mut two = RawClient::login(proxy.port(), &db);
    for number in 1..=5 {
        for (set, name) in [
            (format!("SET work_mem = {}", 1000 + number), "work_mem"),
            (format!("SET app.one = '{number}'"), "app.one"),
            (format!("SELECT set_config('app.two', '{number}', false)"), "app.two"),
            (format!("SELECT \"set_config\"('app.three', '{number}', false)"), "app.three"),
            (format!("SELECT pg_catalog.set_config('app.four{number}', 'x', false)"), ""),
            (format!("SET application_name TO 'n{number}'"), "application_name"),
        ] {
            let frames = if number % 2 == 0 { extended(&mut one, &set) } else { one.query(&set) };
            assert_eq!(code(&frames), None, "{set}: {frames:?}");
            run(&mut two, "SELECT 1");
            let name = if name.is_empty() { format!("app.four{number}") } else { name.to_owned() };
            let got = value(&mut one, &format!("SELECT current_setting('{name}')"));
            let want = match &*name {
                "work_mem" => format!("{}kB", 1000 + number),
                "application_name" => format!("n{number}"),
                name if name.starts_with("app.four") => "x".to_owned(),
                _ => number.to_string(),
            };
            assert_eq!(got, want, "{set}");
            let other = value(&mut two, &format!("SELECT coalesce(current_setting('{name}', true), '')"));
            assert_ne!(other, want, "{set} is seen by another session");
        }
    }
    // What may be set is what the text says, not what a text of the same form said before.
    run(&mut one, "SELECT set_config('app.local', 'a', true)");
    run(&mut two, "SELECT 1");
    assert_eq!(value(&mut one, "SELECT coalesce(current_setting('app.local', true), '')"), "");
    run(&mut one, "SELECT set_config('app.local', 'a', false)");
    run(&mut two, "SELECT 1");
    assert_eq!(value(&mut one, "SELECT current_setting('app.local', true)"), "a");
}

#[test]
fn r09_options_of_explain_are_no_literals() {
    let Some((proxy, db)) = with_here("r09", "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE t (n int); CREATE SEQUENCE s");
    common::cluster().expect("it runs").wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut client);
    for (options, runs) in [
        ("(COSTS 0)", false),
        ("(COSTS 1)", false),
        ("(COSTS OFF, VERBOSE 1)", false),
        ("(ANALYZE 1)", true),
        ("(ANALYZE 'on')", true),
        ("(BUFFERS 1, ANALYZE true)", true),
        ("ANALYZE", true),
        ("(COSTS 0)", false),
    ] {
        let mut fresh = RawClient::login(proxy.port(), &db);
        let (place, _) = route(&mut fresh, &format!("EXPLAIN {options} SELECT 1 FROM t"));
        assert_eq!(place == "primary", runs, "{options}: {place}");
        assert_eq!(code(&fresh.query(&format!("EXPLAIN {options} SELECT nextval('s')"))), None, "{options}");
    }
    let mut straight = RawClient::login(common::cluster().expect("it runs").primary().port(), &db);
    assert_eq!(value(&mut straight, "SELECT last_value FROM s"), "4", "EXPLAIN without ANALYZE runs nothing");
}

#[test]
fn r09_two_databases_have_two_verdicts() {
    let Some((proxy, one)) = with_here("r09", "") else { return };
    let cluster = common::cluster().expect("it runs");
    let two = database(cluster, "r09");
    let (mut a, mut b) = (RawClient::login(proxy.port(), &one), RawClient::login(proxy.port(), &two));
    run(&mut b, HERE);
    for client in [&mut a, &mut b] {
        run(client, "CREATE SCHEMA other; CREATE TABLE t (n int); CREATE SEQUENCE s");
        run(client, "CREATE FUNCTION calc(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1 + 1'");
        run(client, "CREATE FUNCTION norm(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'");
    }
    // In any schema, with any arguments: one volatile overload makes a write.
    run(&mut b, "CREATE FUNCTION other.calc(text) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT nextval(''s'')'");
    run(&mut b, "CREATE FUNCTION abs(t) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT nextval(''s'')'");
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut a);
    wait_for_catalog(&mut b);
    let texts = [
        "SELECT here(), calc(1)",
        "SELECT here(), public.calc(2)",
        "SELECT here(), abs(-1)",
        "SELECT here(), abs(-1.5)",
    ];
    for round in 0..3 {
        for text in texts {
            // Each by sessions that have written nothing, in both orders.
            let mut in_one = RawClient::login(proxy.port(), &one);
            let mut in_two = RawClient::login(proxy.port(), &two);
            if round % 2 == 0 {
                assert!(!ran_on_standby(cluster, &mut in_two, text), "{text} in the database with the overload");
            }
            assert!(ran_on_standby(cluster, &mut in_one, text), "{text} in the database without it");
            assert!(!ran_on_standby(cluster, &mut in_two, text), "{text} in the database with the overload");
            for common in ["SELECT here(), norm('X')", "SELECT here(), count(*) FROM t"] {
                for db in [&one, &two] {
                    let mut fresh = RawClient::login(proxy.port(), db);
                    assert!(ran_on_standby(cluster, &mut fresh, common), "{common} in {db}");
                }
            }
        }
    }
}

#[test]
fn r09_an_unknown_name_goes_to_the_primary_and_is_looked_up() {
    let Some((proxy, db)) = with_here("r09", "") else { return };
    let cluster = common::cluster().expect("it runs");
    let make = [
        (
            "CREATE FUNCTION late() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
            "SELECT here(), late()",
            "unknown_function",
        ),
        ("CREATE TABLE late_table AS SELECT 1 AS n", "SELECT here(), n FROM late_table", "unknown_relation"),
        ("CREATE VIEW late_view AS SELECT 1 AS n", "SELECT here(), n FROM late_view", "unknown_relation"),
    ];
    let mut client = RawClient::login(proxy.port(), &db);
    for (sql, reads, reason) in make {
        // Behind our back.
        cluster.primary().psql(&db, sql).expect("made");
        cluster.wait_replayed(SOON).expect("standbys follow");
        assert_eq!(route(&mut client, reads), ("primary".to_owned(), reason.to_owned()), "{reads}");
        // Asking has caused it to be looked up, long before the next regular reading in a minute.
        let begun = std::time::Instant::now();
        eventually("it is known", || ran_on_standby(cluster, &mut client, reads));
        assert!(begun.elapsed() < SOON);
    }
    // A name that does not exist anywhere stays with the primary, whose error the client gets.
    let frames = client.query("SELECT no_such_function()");
    assert_eq!(code(&frames).as_deref(), Some("42883"));
}

/// What makes a text a write, what makes it a read again, and the text. Steps are divided by `;;`.
const CHANGES: &[(&str, &str, &str)] = &[
    (
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
        "SELECT here(), f()",
    ),
    ("ALTER FUNCTION f() VOLATILE", "ALTER FUNCTION f() STABLE", "SELECT here(), f()"),
    (
        "CREATE FUNCTION f(text) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        "DROP FUNCTION f(text)",
        "SELECT here(), f()",
    ),
    (
        "CREATE FUNCTION upper(t) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        "DROP FUNCTION upper(t)",
        "SELECT here(), upper('a')",
    ),
    ("ALTER TABLE t SET UNLOGGED", "ALTER TABLE t SET LOGGED", "SELECT here(), count(*) FROM t"),
    (
        "CREATE OR REPLACE VIEW v AS SELECT writes() AS n",
        "CREATE OR REPLACE VIEW v AS SELECT 1 AS n",
        "SELECT here(), n FROM v",
    ),
    (
        "BEGIN ;; ALTER FUNCTION f() VOLATILE ;; COMMIT",
        "BEGIN ;; SELECT 1 ;; ALTER FUNCTION f() STABLE ;; COMMIT",
        "SELECT here(), f()",
    ),
    (
        "BEGIN ;; ALTER FUNCTION f() VOLATILE ;; PREPARE TRANSACTION 'r09' ;; COMMIT PREPARED 'r09'",
        "ALTER FUNCTION f() STABLE",
        "SELECT here(), f()",
    ),
    (
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        "SELECT here(), count(*) FROM t",
    ),
];

#[test]
fn r09_a_change_through_us_changes_the_verdict_at_once() {
    let Some((proxy, db)) = with_here("r09", "consistency = \"eventual\"") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut changer = RawClient::login(proxy.port(), &db);
    run(&mut changer, "CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'");
    run(&mut changer, "CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'");
    run(&mut changer, "CREATE TABLE t (n int); CREATE VIEW v AS SELECT 1 AS n");
    let mut user = RawClient::login(proxy.port(), &db);
    for (makes, unmakes, text) in CHANGES {
        for round in 0..4 {
            eventually("it is a read", || ran_on_standby(cluster, &mut user, text));
            for part in makes.split(" ;; ") {
                match round % 2 {
                    0 => run(&mut changer, part),
                    _ => extended(&mut changer, part),
                };
            }
            // At once: a verdict that was kept from before would take it to a standby.
            assert!(!ran_on_standby(cluster, &mut user, text), "{makes}, round {round}");
            for part in unmakes.split(" ;; ") {
                run(&mut changer, part);
            }
            cluster.wait_replayed(SOON).expect("standbys follow");
        }
    }
}

#[test]
fn r09_a_change_counts_before_anyone_hears_of_it() {
    let Some((proxy, db)) = with_here("r09", "consistency = \"eventual\"") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut changer = RawClient::login(proxy.port(), &db);
    run(&mut changer, "CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'");
    let mut user = RawClient::login(proxy.port(), &db);
    for round in 0..20 {
        eventually("it is a read", || ran_on_standby(cluster, &mut user, "SELECT here(), f()"));
        // The answer to the change comes while the changer's connection still has work to do.
        changer.send(&[query("ALTER FUNCTION f() VOLATILE"), query("SELECT pg_sleep(0.2)")].concat()).expect("sent");
        assert_eq!(code(&changer.until_ready().expect("an answer")), None);
        assert!(!ran_on_standby(cluster, &mut user, "SELECT here(), f()"), "round {round}");
        changer.until_ready().expect("an answer");
        run(&mut changer, "ALTER FUNCTION f() STABLE");
        cluster.wait_replayed(SOON).expect("standbys follow");
    }
}

/// One statement if a backslash is an ordinary character, three of which one writes if it is not.
const BACKSLASH: &str = "SELECT here(), 'a\\'' ; INSERT INTO t VALUES (1); --'";

#[test]
fn r09_standard_conforming_strings_decide_what_a_text_is() {
    let Some((proxy, db)) = with_here("r09", "") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut setup = RawClient::login(proxy.port(), &db);
    run(&mut setup, "CREATE TABLE t (n int)");
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut setup);
    let mut on = named(proxy.port(), &db, "on");
    let mut off = named(proxy.port(), &db, "off");
    run(&mut off, "SET standard_conforming_strings = off");
    run(&mut off, "SET escape_string_warning = off");
    for round in 1..=3 {
        assert!(ran_on_standby(cluster, &mut on, BACKSLASH), "one statement that reads");
        let frames = run(&mut off, BACKSLASH);
        assert_eq!(values(&frames).len(), 1, "{frames:?}");
        assert!(!is_standby(cluster, &values(&frames)[0]), "two statements, one of them a write");
        assert_eq!(value(&mut off, "SELECT count(*) FROM t"), round.to_string());
    }
    // The setting follows its session from server to server, and a startup option sets it as well.
    assert!(shown(&mut on, "off")["carried"].contains("standard_conforming_strings"));
    let parameters = [("user", "postgres"), ("database", &*db), ("options", "-c standard_conforming_strings=off")];
    let mut started = RawClient::try_login_with(proxy.port(), &parameters).expect("a login");
    assert!(!is_standby(cluster, &values(&run(&mut started, BACKSLASH))[0]));
    assert_eq!(value(&mut started, "SELECT count(*) FROM t"), "4");
    run(&mut off, "SET standard_conforming_strings = on");
    eventually("it reads on standbys again", || ran_on_standby(cluster, &mut off, BACKSLASH));
    assert_eq!(value(&mut off, "SELECT count(*) FROM t"), "4");
}

#[test]
fn r09_another_policy_means_other_verdicts() {
    let Some((proxy, db)) = with_here("r09", "") else { return };
    let cluster = common::cluster().expect("it runs");
    for (lists, reads) in [
        ("write_functions = [\"here\"]", false),
        ("read_only_functions = [\"here\"]", true),
        ("read_only_functions = [\"other\"]", false),
        ("read_only_functions = [\"public.here\"]", false),
        ("read_only_functions = [\"here\"]\nload_balance = false", false),
        ("read_only_functions = [\"here\"]", true),
    ] {
        proxy.reload(cluster, &reading(10, lists));
        // Sessions of both data threads, which keep their verdicts apart.
        let mut clients: Vec<RawClient> = (0..4).map(|_| RawClient::login(proxy.port(), &db)).collect();
        eventually("everyone goes by the new lists", || {
            clients.iter_mut().all(|client| ran_on_standby(cluster, client, "SELECT here()") == reads)
        });
    }
}

#[test]
fn r09_a_change_counts_whose_client_did_not_wait_for_it() {
    let Some((proxy, db)) = with_here("r09", "consistency = \"eventual\"") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut user = RawClient::login(proxy.port(), &db);
    run(&mut user, "CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'");
    for round in 0..5 {
        eventually("it is a read", || ran_on_standby(cluster, &mut user, "SELECT here(), f()"));
        let mut hasty = RawClient::login(proxy.port(), &db);
        hasty.send(&query("DO 'BEGIN PERFORM pg_sleep(0.3); END'; ALTER FUNCTION f() VOLATILE")).expect("sent");
        // It is gone while its statement runs, which PostgreSQL finishes all the same.
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(hasty);
        let volatile = "SELECT provolatile FROM pg_proc WHERE proname = 'f'";
        eventually("the change is there", || cluster.primary().psql(&db, volatile).is_ok_and(|kind| kind == "v"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!ran_on_standby(cluster, &mut user, "SELECT here(), f()"), "round {round}");
        run(&mut user, "ALTER FUNCTION f() STABLE");
        cluster.wait_replayed(SOON).expect("standbys follow");
    }
}
