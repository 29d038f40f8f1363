//! Sequences (SESSIONS R4) and pins (R5): what only one server connection can hold for its session.

use crate::common;
use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{self, RawClient, message, values};
use crate::tools::{code, extended, is_opaque, on_primary, on_standbys, run, state, value};

const SEQUENCES: &str = "CREATE SEQUENCE s; CREATE SEQUENCE t; CREATE TABLE rows (id serial, owner text)";

#[test]
fn r04_lastval_is_never_another_sessions() {
    let Some((proxy, db)) = on_primary("r04", 1, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, SEQUENCES);
    let mine = value(&mut a, "INSERT INTO rows (owner) VALUES ('a') RETURNING id");
    let other = value(&mut b, "INSERT INTO rows (owner) VALUES ('b') RETURNING id");
    assert_ne!(mine, other);
    let frames = a.query("SELECT lastval()");
    match code(&frames).as_deref() {
        None => assert_eq!(values(&frames), std::slice::from_ref(&mine)),
        Some(error) => assert_eq!((error, common::direct()), ("55000", false), "{frames:?}"),
    }
    let frames = extended(&mut a, "SELECT currval('rows_id_seq')");
    match code(&frames).as_deref() {
        None => assert_eq!(values(&frames), [mine]),
        Some(error) => assert_eq!((error, common::direct()), ("55000", false), "{frames:?}"),
    }
}

#[test]
fn r04_one_that_never_wrote_has_no_lastval() {
    let Some((proxy, db)) = on_primary("r04", 1, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, SEQUENCES);
    run(&mut a, "SELECT nextval('s'); INSERT INTO rows (owner) VALUES ('a')");
    let mut b = RawClient::login(proxy.port(), &db);
    let asks = [
        "SELECT lastval()",
        "SELECT currval('s')",
        "SELECT currval('rows_id_seq'::regclass)",
        "INSERT INTO rows SELECT lastval()",
    ];
    for ask in asks {
        assert_eq!(code(&b.query(ask)).as_deref(), Some("55000"), "{ask}");
        assert_eq!(code(&extended(&mut b, ask)).as_deref(), Some("55000"), "{ask}, extended");
        run(&mut b, "BEGIN");
        assert_eq!(code(&b.query(ask)).as_deref(), Some("55000"), "{ask} in a block");
        run(&mut b, "ROLLBACK");
        assert_eq!(code(&b.query(&format!("BEGIN; {ask}; COMMIT"))).as_deref(), Some("55000"), "{ask} in one text");
        run(&mut b, "ROLLBACK");
    }
}

#[test]
fn r04_ones_own_value_while_nobody_came_between() {
    let Some((proxy, db)) = on_primary("r04", 3, "max_pinned = 2") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, SEQUENCES);
    for round in 0..10 {
        let id = value(&mut a, "INSERT INTO rows (owner) VALUES ('a') RETURNING id");
        assert_eq!(value(&mut a, "SELECT lastval()"), id, "round {round}");
        assert_eq!(value(&mut a, "SELECT currval('rows_id_seq')"), id, "round {round}");
    }
    run(&mut a, "BEGIN");
    let id = value(&mut a, "SELECT nextval('s')");
    assert_eq!(value(&mut a, "SELECT currval('s')"), id);
    run(&mut a, "COMMIT");
}

#[test]
fn r04_who_uses_lastval_has_its_own_from_the_next_write_on() {
    let Some((proxy, db)) = on_primary("r04", 4, "max_pinned = 3") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, SEQUENCES);
    run(&mut a, "INSERT INTO rows (owner) VALUES ('a')");
    a.query("SELECT lastval()");
    for _ in 0..10 {
        let id = value(&mut a, "INSERT INTO rows (owner) VALUES ('a') RETURNING id");
        let mut others: Vec<RawClient> = (0..3).map(|_| RawClient::login(proxy.port(), &db)).collect();
        for other in &mut others {
            run(other, "INSERT INTO rows (owner) VALUES ('other')");
        }
        assert_eq!(value(&mut a, "SELECT lastval()"), id, "it is pinned by now");
    }
}

/// One server connection, which `a` used and left; `b` keeps it.
fn after_another(mode: &'static str, keep: &str) -> Option<(Proxy, RawClient)> {
    let cluster = common::cluster()?;
    let options =
        Options { mode, size: 1, weights: vec![1.0, 0.0, 0.0], pool: "max_pinned = 1".into(), ..Options::default() };
    let proxy = Proxy::start(cluster, &options);
    let db = common::database(cluster, "r04");
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, SEQUENCES);
    run(&mut a, "SELECT nextval('s'); INSERT INTO rows (owner) VALUES ('a'); CREATE TABLE plain (n int)");
    a.send(&raw::terminate()).expect("sent");
    assert!(a.ended());
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut b, keep);
    Some((proxy, b))
}

#[test]
fn r04_a_kept_connection_has_ones_own_values() {
    for (mode, keep) in [("session", "SELECT 1"), ("transaction", "CREATE TEMP TABLE mine (n int)")] {
        let Some((_proxy, mut b)) = after_another(mode, keep) else { return };
        assert_eq!(value(&mut b, "SELECT nextval('s')"), "2", "{mode}");
        assert_eq!(value(&mut b, "SELECT currval('s')"), "2", "{mode}");
        let id = value(&mut b, "INSERT INTO rows (owner) VALUES ('b') RETURNING id");
        assert_eq!(value(&mut b, "SELECT lastval()"), id, "{mode}");
    }
}

#[test]
fn r04_a_kept_connection_has_nobody_elses_values() {
    for (mode, keep) in [("session", "SELECT 1"), ("transaction", "CREATE TEMP TABLE mine (n int)")] {
        let Some((_proxy, mut b)) = after_another(mode, keep) else { return };
        for write in ["INSERT INTO plain VALUES (1)", "BEGIN; INSERT INTO plain VALUES (1)"] {
            run(&mut b, write);
            assert_eq!(code(&b.query("SELECT currval('s')")).as_deref(), Some("55000"), "{mode}, {write}");
            run(&mut b, "ROLLBACK");
            assert_eq!(code(&b.query("SELECT lastval()")).as_deref(), Some("55000"), "{mode}, {write}");
        }
    }
}

#[test]
fn r04_setseed_is_ones_own() {
    let Some((proxy, db)) = on_primary("r04", 2, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, "SELECT setseed(0.5)");
    let first = value(&mut a, "SELECT random()");
    run(&mut a, "SELECT setseed(0.5)");
    for _ in 0..3 {
        run(&mut b, "SELECT random()");
    }
    assert_eq!(value(&mut a, "SELECT random()"), first);
}

#[test]
fn r05_discard_all_ends_what_no_probe_finds() {
    let Some((proxy, db)) = on_primary("r05", 2, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE SEQUENCE s");
    for statement in ["SELECT nextval('s')", "SELECT lastval()", "SELECT nextval('s')", "SELECT 1"] {
        run(&mut a, statement);
    }
    let mine = "CREATE TEMP TABLE mine (n int)";
    if !common::direct() {
        assert_eq!(code(&b.query(mine)).as_deref(), Some("53300"));
    }
    // Its end is known before its next statement.
    run(&mut a, "DISCARD ALL");
    run(&mut a, "SELECT 1");
    run(&mut b, mine);
    assert_eq!(code(&a.query("SELECT lastval()")).as_deref(), Some("55000"));
}

#[test]
fn r05_a_temporary_table_shadows_the_permanent_one() {
    let Some((proxy, db)) = on_standbys("r05", 3, "statement_level = true") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE users AS SELECT 'permanent'::text AS name");
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    let mut b = RawClient::login(proxy.port(), &db);
    for make in [
        "CREATE TEMP TABLE users AS SELECT 'temporary'::text AS name",
        "CREATE LOCAL TEMPORARY VIEW users AS SELECT 'temporary'::text AS name",
        "SELECT 'temporary'::text AS name INTO TEMP users",
        "CREATE TABLE pg_temp.users AS SELECT 'temporary'::text AS name",
    ] {
        run(&mut a, make);
        std::thread::sleep(std::time::Duration::from_millis(250));
        for _ in 0..5 {
            assert_eq!(value(&mut a, "SELECT name FROM users"), "temporary", "{make}");
            assert_eq!(values(&extended(&mut a, "SELECT name FROM users")), ["temporary"], "{make}");
            assert_eq!(value(&mut b, "SELECT name FROM users"), "permanent", "{make}");
        }
        run(&mut a, "BEGIN");
        assert_eq!(value(&mut a, "SELECT name FROM users"), "temporary", "{make}");
        run(&mut a, "COMMIT");
        let what = if make.contains("VIEW") { "VIEW" } else { "TABLE" };
        run(&mut a, &format!("DROP {what} pg_temp.users"));
        assert_eq!(value(&mut a, "SELECT name FROM users"), "permanent", "{make}");
    }
}

/// What pins, what ends it, and an error-free statement that shows that it is there.
const PINS: &[(&str, &str, &str)] = &[
    ("CREATE TEMP TABLE mine (n int)", "DROP TABLE mine", "SELECT * FROM mine"),
    ("CREATE TEMP SEQUENCE mine", "DROP SEQUENCE mine", "SELECT nextval('mine')"),
    ("CREATE TYPE pg_temp.mine AS (n int)", "DISCARD TEMP", "SELECT null::pg_temp.mine"),
    ("LISTEN gossip", "UNLISTEN gossip", "SELECT 1/count(*) FROM pg_listening_channels()"),
    ("LISTEN gossip", "UNLISTEN *", "SELECT 1/count(*) FROM pg_listening_channels()"),
    (
        "SELECT pg_advisory_lock(3)",
        "SELECT pg_advisory_unlock(3)",
        "SELECT 1/pg_advisory_unlock(3)::int, pg_advisory_lock(3)",
    ),
    ("SELECT pg_advisory_lock_shared(3)", "SELECT pg_advisory_unlock_all()", "SELECT 1"),
    ("PREPARE mine AS SELECT 1", "DEALLOCATE mine", "EXECUTE mine"),
    ("PREPARE mine AS SELECT 1", "DEALLOCATE ALL", "EXECUTE mine"),
    (
        "BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT 1 FROM generate_series(1, 99); COMMIT",
        "CLOSE mine",
        "FETCH 1 FROM mine",
    ),
    ("BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT 1; COMMIT", "CLOSE ALL", "MOVE 0 FROM mine"),
    ("CREATE TEMP TABLE mine (n int)", "DISCARD ALL", "SELECT * FROM mine"),
    ("LISTEN gossip", "DISCARD ALL", "SELECT 1/count(*) FROM pg_listening_channels()"),
];

#[test]
fn r05_a_pin_holds_and_ends() {
    let Some((proxy, db)) = on_primary("r05", 2, "max_pinned = 1\nqueue_timeout = \"5s\"") else { return };
    for (make, end, shows) in PINS {
        let mut a = RawClient::login(proxy.port(), &db);
        let mut b = RawClient::login(proxy.port(), &db);
        common::eventually("the pin of the one before is given up", || {
            let given = code(&a.query(make)).is_none();
            if !given {
                a.query("ROLLBACK");
            }
            given
        });
        for _ in 0..3 {
            run(&mut b, "SELECT 1");
            run(&mut a, shows);
        }
        if !common::direct() {
            let frames = b.query(make);
            assert_eq!(code(&frames).as_deref(), Some("53300"), "{make}: {frames:?}");
            b.query("ROLLBACK");
        }
        run(&mut a, end);
        common::eventually("the pin is given up: another session may have it", || {
            let frames = b.query(make);
            let given = code(&frames).is_none();
            if !given {
                b.query("ROLLBACK");
            }
            given
        });
        run(&mut b, shows);
        run(&mut b, end);
    }
}

#[test]
fn r05_too_many_pins_are_refused_with_the_reason() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r05", 4, "max_pinned = 2") else { return };
    let mut clients: Vec<RawClient> = (0..3).map(|_| RawClient::login(proxy.port(), &db)).collect();
    run(&mut clients[0], "CREATE TEMP TABLE mine (n int)");
    run(&mut clients[1], "LISTEN x");
    let frames = clients[2].query("CREATE TEMP TABLE mine (n int)");
    let error = frames.iter().find(|frame| frame.tag == b'E').expect("an error");
    assert_eq!(error.sqlstate().as_deref(), Some("53300"));
    assert!(error.field(b'M').is_some_and(|text| text.contains("2 of 2")), "{error:?}");
    // In a block the block fails with it.
    run(&mut clients[2], "BEGIN; CREATE TABLE t ()");
    let frames = clients[2].query("LISTEN x");
    assert_eq!((code(&frames).as_deref(), state(&frames)), (Some("53300"), 'E'), "{frames:?}");
    assert_eq!(code(&clients[2].query("SELECT 1")).as_deref(), Some("25P02"));
    run(&mut clients[2], "ROLLBACK");
    let frames = extended(&mut clients[2], "LISTEN x");
    assert_eq!(code(&frames).as_deref(), Some("53300"), "{frames:?}");
    assert_eq!(value(&mut clients[2], "SELECT count(*) FROM pg_class WHERE relname = 't'"), "0");
    // A client that leaves takes its pin with it.
    clients[1].send(&message(b'X', b"")).expect("sent");
    clients.remove(1);
    common::eventually("the pin of a client that left ends", || code(&clients[1].query("LISTEN x")).is_none());
}

#[test]
fn r05_the_bound_holds_however_many_ask_at_once() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r05", 8, "max_pinned = 3") else { return };
    let most = std::sync::atomic::AtomicUsize::new(0);
    let now = std::sync::atomic::AtomicUsize::new(0);
    let refused = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (proxy, db, most, now, refused) = (&proxy, &db, &most, &now, &refused);
            scope.spawn(move || {
                use std::sync::atomic::Ordering::SeqCst;
                let mut client = RawClient::login(proxy.port(), db);
                for round in 0..40 {
                    // Alone, in a block, and by the extended protocol in a block.
                    let frames = match (number + round) % 3 {
                        0 => client.query("CREATE TEMP TABLE mine (n int)"),
                        1 => {
                            client.query("BEGIN; SELECT 1");
                            client.query("CREATE TEMP TABLE mine (n int)")
                        }
                        _ => {
                            client.query("BEGIN; SELECT 1");
                            extended(&mut client, "CREATE TEMP TABLE mine (n int)")
                        }
                    };
                    match code(&frames).as_deref() {
                        None => {
                            run(&mut client, "COMMIT");
                            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                            std::thread::sleep(std::time::Duration::from_millis(2));
                            now.fetch_sub(1, SeqCst);
                            run(&mut client, "DROP TABLE mine");
                        }
                        Some("53300") => {
                            refused.fetch_add(1, SeqCst);
                            client.query("ROLLBACK");
                        }
                        Some(_) => panic!("{frames:?}"),
                    }
                }
            });
        }
    });
    let (most, refused) = (most.into_inner(), refused.into_inner());
    assert!(most <= 3, "{most} sessions were pinned at a time");
    assert!(refused > 0, "nobody was refused");
}

#[test]
fn r05_notifications_are_heard() {
    let Some((proxy, db)) = on_primary("r05", 3, "max_pinned = 2") else { return };
    let mut ear = RawClient::login(proxy.port(), &db);
    let mut mouth = RawClient::login(proxy.port(), &db);
    run(&mut ear, "LISTEN gossip");
    for number in 0..20 {
        run(&mut mouth, &format!("NOTIFY gossip, '{number}'"));
        // While it is idle, and between its statements.
        if number % 2 == 0 {
            let frame = ear.frame().expect("a notification");
            assert_eq!(frame.tag, b'A', "{frame:?}");
            assert!(frame.body.ends_with(format!("gossip\0{number}\0").as_bytes()), "{frame:?}");
        } else {
            let frames = ear.until(|frame| frame.tag == b'A').expect("a notification");
            assert_eq!(frames.len(), 1);
        }
    }
}

#[test]
fn r04_the_first_who_asks_does_not_see_anothers_value() {
    if common::direct() {
        return;
    }
    for write in [
        // It takes nothing from any sequence.
        "UPDATE plain SET n = 2",
        "DELETE FROM numbered",
        // It might take a value, but does not.
        "INSERT INTO numbered VALUES (7)",
        "UPDATE numbered SET n = DEFAULT WHERE false",
        "SELECT silent()",
        "PREPARE maybe AS INSERT INTO numbered VALUES (7); EXECUTE maybe",
    ] {
        let Some((proxy, db)) = on_primary("r04", 1, "") else { return };
        let mut a = RawClient::login(proxy.port(), &db);
        run(&mut a, "CREATE TABLE plain (n int); CREATE TABLE numbered (n serial); INSERT INTO plain VALUES (1)");
        run(&mut a, "CREATE FUNCTION silent() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'");
        run(&mut a, "INSERT INTO numbered VALUES (DEFAULT)");
        let mut b = RawClient::login(proxy.port(), &db);
        run(&mut b, "BEGIN");
        run(&mut b, write);
        assert_eq!(code(&b.query("SELECT lastval()")).as_deref(), Some("55000"), "{write}");
    }
}

#[test]
fn r04_who_takes_nothing_leaves_anothers_values_alone() {
    let Some((proxy, db)) = on_primary("r04", 1, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE plain (n int); CREATE SEQUENCE s; INSERT INTO plain VALUES (1)");
    // Once the tables are known, what does not draw on a sequence is known not to.
    common::eventually("plain is known", || common::direct() || !is_opaque(&mut b, "INSERT INTO plain VALUES (1)"));
    // What was not known when it ran is cleaned up behind it, sequences and all.
    run(&mut b, "SELECT count(*) FROM plain");
    run(&mut a, "SELECT nextval('s')");
    for statement in ["INSERT INTO plain VALUES (2)", "UPDATE plain SET n = 3", "SELECT count(*) FROM plain"] {
        run(&mut b, statement);
    }
    assert_eq!(value(&mut a, "SELECT lastval()"), "1");
    assert_eq!(code(&b.query("SELECT lastval()")).as_deref(), (!common::direct()).then_some("55000"));
}

#[test]
fn r04_a_series_that_comes_in_parts_does_not_see_anothers_value() {
    let Some((proxy, db)) = on_primary("r04", 1, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE SEQUENCE s");
    run(&mut b, "SELECT 1");
    run(&mut a, "SELECT nextval('s')");
    run(&mut b, "BEGIN");
    b.send(&[raw::parse("", "SELECT lastval()", &[]), raw::describe(b'S', ""), raw::flush()].concat()).expect("sent");
    b.until(|frame| frame.tag == b'T').expect("its columns");
    b.send(&[raw::bind("", "", &[]), raw::execute("", 0), raw::sync()].concat()).expect("sent");
    let frames = b.until_ready().expect("an answer");
    assert_eq!(code(&frames).as_deref(), Some("55000"), "{frames:?}");
}
