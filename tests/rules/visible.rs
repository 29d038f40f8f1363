//! What can be seen of sessions: which is pinned and why, what it carries, what was asked and tried for it (SESSIONS R1, R5, R7).

use crate::common::raw::{RawClient, query};
use crate::common::{self, eventually};
use crate::tools::{
    code, counter, extended, named, on_primary, on_standbys, run, shown, table, value, wait_for_catalog,
};

/// What pins, what ends it, and the words for it.
const PINS: &[(&str, &str, &str)] = &[
    ("CREATE TEMP TABLE mine (n int)", "DROP TABLE mine", "temporary objects"),
    ("LISTEN gossip", "UNLISTEN *", "LISTEN"),
    ("SELECT pg_advisory_lock(3)", "SELECT pg_advisory_unlock(3)", "session advisory locks"),
    ("PREPARE mine AS SELECT 1", "DEALLOCATE mine", "SQL-level PREPARE"),
    ("BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT 1; COMMIT", "CLOSE mine", "WITH HOLD cursors"),
    ("LISTEN gossip; CREATE TEMP TABLE mine (n int)", "UNLISTEN *; DROP TABLE mine", "temporary objects, LISTEN"),
    ("SELECT hides()", "SELECT pg_advisory_unlock_all(); DISCARD TEMP", "temporary objects, session advisory locks"),
];

#[test]
fn r05_the_reason_of_a_pin_is_shown() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r05", 3, "max_pinned = 2") else { return };
    let mut observer = RawClient::login(proxy.port(), &db);
    let hides = "CREATE FUNCTION hides() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE hidden (); \
        PERFORM pg_advisory_lock(7); RETURN 1; END $$";
    run(&mut observer, hides);
    let mut pinned = named(proxy.port(), &db, "pinned");
    let before = counter(&mut observer, "pins");
    for (make, end, reason) in PINS {
        run(&mut pinned, make);
        eventually("it is pinned", || shown(&mut observer, "pinned").contains_key("pinned"));
        let row = shown(&mut observer, "pinned");
        assert_eq!((row["pinned"].as_str(), row["state"].as_str()), (*reason, "idle"), "{make}");
        assert_eq!(row["node_id"], "0");
        assert_eq!(row["server_pid"], value(&mut pinned, "SELECT pg_backend_pid()"), "{make}");
        // It sees itself, between its transactions and in the extended protocol too.
        assert_eq!(shown(&mut pinned, "pinned")["pinned"], *reason);
        assert_eq!(code(&extended(&mut pinned, "PGPOOL SHOW SESSIONS")), None);
        run(&mut pinned, end);
        eventually("the pin is gone", || !shown(&mut observer, "pinned").contains_key("pinned"));
        assert!(!shown(&mut observer, "pinned").contains_key("server_pid"), "{make}");
    }
    assert_eq!(counter(&mut observer, "pins") - before, PINS.len() as u64);
    run(&mut pinned, "SELECT setseed(0.5)");
    eventually("for good", || shown(&mut observer, "pinned").get("pinned").is_some_and(|why| why == "setseed"));
    // Inside a block that a server holds the other threads cannot be waited for.
    run(&mut pinned, "BEGIN; SELECT 1");
    assert_eq!(code(&pinned.query("PGPOOL SHOW SESSIONS")).as_deref(), Some("55000"));
    run(&mut pinned, "ROLLBACK");
}

#[test]
fn what_a_session_does_and_carries_is_shown() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("shown", 1, "queue_timeout = \"30s\"") else { return };
    let mut observer = named(proxy.port(), &db, "observer");
    let mut one = named(proxy.port(), &db, "one");
    let mut two = named(proxy.port(), &db, "two");
    let row = shown(&mut observer, "one");
    assert_eq!((row["state"].as_str(), row["username"].as_str(), row["database"].as_str()), ("idle", "postgres", &*db));
    assert!(row["client"].starts_with("127.0.0.1:"), "{row:?}");
    assert_eq!(shown(&mut observer, "observer")["state"], "active");

    run(&mut one, "SET work_mem = '8MB'");
    run(&mut one, "SET app.tenant = 'secret'");
    eventually("what it carries", || shown(&mut observer, "one")["carried"] == "app.tenant, work_mem");
    assert!(shown(&mut observer, "one")["probes"].parse::<u32>().expect("a number") >= 2);
    assert!(!format!("{:?}", run(&mut observer, "PGPOOL SHOW SESSIONS")).contains("secret"), "names, not values");
    let setups = counter(&mut observer, "setups");
    run(&mut two, "SELECT 1");
    assert!(counter(&mut observer, "setups") > setups, "the connection was made another session's");

    run(&mut one, "BEGIN; CREATE TABLE t ()");
    assert_eq!(shown(&mut observer, "one")["state"], "in transaction");
    two.send(&query("SELECT 2")).expect("sent");
    eventually("it waits", || shown(&mut observer, "two")["state"] == "waiting for a server");
    assert_eq!(code(&one.query("SELECT 1/0")).as_deref(), Some("22012"));
    assert_eq!(shown(&mut observer, "one")["state"], "in failed transaction");
    run(&mut one, "ROLLBACK");
    two.until_ready().expect("an answer");
    assert!(counter(&mut observer, "waits") > 0 && counter(&mut observer, "waited_us") > 0);
    // A block that no server knows of yet.
    run(&mut one, "BEGIN");
    let row = shown(&mut observer, "one");
    assert_eq!((row["state"].as_str(), row.get("server_pid")), ("in transaction", None));
    run(&mut one, "COMMIT");
    one.send(&query("SELECT pg_sleep(1)")).expect("sent");
    eventually("it is active", || shown(&mut observer, "one")["state"] == "active");
    one.until_ready().expect("an answer");
    drop(one);
    eventually("it is gone", || {
        !table(&run(&mut observer, "PGPOOL SHOW SESSIONS")).iter().any(|row| row["application_name"] == "one")
    });
}

#[test]
fn others_sessions_are_shown_by_name_alone_to_who_is_no_superuser() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("shown", 3, "") else { return };
    run(&mut RawClient::login(proxy.port(), &db), "DROP ROLE IF EXISTS humble; CREATE ROLE humble LOGIN");
    let mut own = RawClient::try_login(proxy.port(), "humble", &db).expect("a login");
    let _other = named(proxy.port(), &db, "secret");
    let mut all = Vec::new();
    eventually("whoever has left is gone, and nobody else has anything to do", || {
        all = table(&run(&mut own, "PGPOOL SHOW SESSIONS"));
        all.iter().all(|row| row["username"] == "humble" || row["state"] == "idle")
    });
    let (mine, others): (Vec<_>, Vec<_>) = all.iter().partition(|row| row["username"] == "humble");
    assert_eq!(mine.len(), 1, "{all:?}");
    assert!(mine[0].contains_key("client") && mine[0].contains_key("carried"), "{mine:?}");
    let hidden = |name: &str| others.iter().all(|row| !row.contains_key(name));
    assert!(!others.is_empty() && ["client", "application_name", "carried"].into_iter().all(hidden), "{others:?}");
}

#[test]
fn r11_retries_are_counted_for_their_session() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_standbys("r11", 3, "consistency = \"eventual\"") else { return };
    let mut writer = RawClient::login(proxy.port(), &db);
    let mut reader = named(proxy.port(), &db, "reader");
    run(&mut writer, "CREATE TABLE t (n int)");
    common::cluster().expect("it runs").wait_replayed(common::SOON).expect("standbys follow");
    wait_for_catalog(&mut writer);
    let before = counter(&mut writer, "retries");
    // A name that no server knows: the primary has its say.
    for _ in 0..3 {
        assert_eq!(code(&reader.query("SELECT no_such_column FROM t")).as_deref(), Some("42703"));
    }
    assert_eq!(counter(&mut writer, "retries") - before, 3);
    assert_eq!(shown(&mut writer, "reader")["retries"], "3");
}
