//! Reset values and what the client is told of the server's parameters (SESSIONS R6).

use crate::common::eventually;
use crate::common::raw::{self, Frame, RawClient};
use crate::tools::{code, extended, on_primary, on_standbys, run, value};

/// The parameters that `frames` tell of.
fn told(frames: &[Frame]) -> Vec<(String, String)> {
    let parameters = frames.iter().filter(|frame| frame.tag == b'S');
    parameters
        .map(|frame| {
            let text = String::from_utf8_lossy(&frame.body).into_owned();
            let mut parts = text.split('\0').map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        })
        .collect()
}

fn login(port: u16, db: &str, more: &[(&str, &str)]) -> RawClient {
    let parameters = [&[("user", "postgres"), ("database", db)], more].concat();
    RawClient::try_login_with(port, &parameters).expect("a login")
}

const OPTIONS: [(&str, &str); 3] = [
    ("DateStyle", "German"),
    ("application_name", "r06"),
    ("options", "-c statement_timeout=12s -c app.mine=start -c extra_float_digits=2"),
];
const SHOWN: &str = "SELECT concat_ws('|', current_setting('DateStyle'), current_setting('application_name'), \
    current_setting('statement_timeout'), current_setting('app.mine', true), current_setting('extra_float_digits'))";
const AT_START: &str = "German, DMY|r06|12s|start|2";

#[test]
fn r06_set_local_to_default_is_the_reset_value_for_one_transaction() {
    let Some((proxy, db)) = on_primary("r06", 1, "") else { return };
    let mut a = login(proxy.port(), &db, &OPTIONS);
    let style = "SELECT current_setting('DateStyle')";
    run(&mut a, "SET DateStyle = 'ISO, MDY'");
    for default in ["SET LOCAL DateStyle TO DEFAULT", "SET LOCAL DateStyle = DEFAULT"] {
        for simple in [true, false] {
            run(&mut a, "BEGIN");
            if simple {
                run(&mut a, default)
            } else {
                extended(&mut a, default)
            };
            assert_eq!(value(&mut a, style), "German, DMY", "{default}");
            run(&mut a, "SET LOCAL DateStyle = 'SQL, DMY'");
            assert_eq!(value(&mut a, style), "SQL, DMY", "{default}");
            run(&mut a, "COMMIT");
            assert_eq!(value(&mut a, style), "ISO, MDY", "{default}");
        }
    }
}

#[test]
fn r06_startup_options_are_the_reset_values() {
    let Some((proxy, db)) = on_primary("r06", 1, "max_pinned = 1") else { return };
    let mut a = login(proxy.port(), &db, &OPTIONS);
    let mut b = RawClient::login(proxy.port(), &db);
    assert_eq!(value(&mut a, SHOWN), AT_START);
    let change = "SET DateStyle = 'ISO, MDY'; SET application_name = 'changed'; SET statement_timeout = '99s'; \
        SET app.mine = 'changed'; SET extra_float_digits = 0";
    let resets = [
        "RESET DateStyle; RESET application_name; RESET statement_timeout; RESET app.mine; RESET extra_float_digits",
        "RESET ALL",
        "DISCARD ALL",
        "SET DateStyle TO DEFAULT; SET application_name = DEFAULT; SET statement_timeout TO DEFAULT; SET app.mine TO DEFAULT; \
         SET extra_float_digits TO DEFAULT",
        "BEGIN; RESET ALL; COMMIT",
    ];
    for reset in resets {
        run(&mut a, change);
        run(&mut b, "SELECT 1");
        assert_eq!(value(&mut a, SHOWN), "ISO, MDY|changed|99s|changed|0", "{reset}");
        run(&mut a, reset);
        assert_eq!(value(&mut a, SHOWN), AT_START, "{reset}");
        assert_eq!(
            value(&mut b, "SELECT concat_ws('|', current_setting('DateStyle'), current_setting('statement_timeout'))"),
            "ISO, MDY|0"
        );
        assert_eq!(value(&mut a, SHOWN), AT_START, "{reset}, on another lease");
    }
    // One that fails or is rolled back resets nothing.
    run(&mut a, change);
    run(&mut a, "BEGIN; RESET ALL; ROLLBACK");
    assert_eq!(value(&mut a, SHOWN), "ISO, MDY|changed|99s|changed|0");
}

#[test]
fn r06_the_reset_of_one_leaves_the_others_as_they_were_set() {
    let Some((proxy, db)) = on_primary("r06", 1, "max_pinned = 1") else { return };
    let mut a = login(proxy.port(), &db, &OPTIONS);
    run(&mut a, "SET DateStyle = 'ISO, MDY'");
    for reset in [
        "RESET enable_seqscan",
        "RESET app.mine",
        "SET statement_timeout TO DEFAULT",
        "RESET statement_timeout; SELECT 1",
    ] {
        run(&mut a, reset);
        assert_eq!(value(&mut a, "SHOW DateStyle"), "ISO, MDY", "{reset}");
        extended(&mut a, reset.split(';').next().expect("a statement"));
        assert_eq!(value(&mut a, "SHOW DateStyle"), "ISO, MDY", "{reset}, extended");
    }
    let series: Vec<u8> = ["RESET DateStyle", "SET DateStyle = 'SQL, DMY'"]
        .iter()
        .flat_map(|sql| [raw::parse("", sql, &[]), raw::bind("", "", &[]), raw::execute("", 0)].concat())
        .collect();
    a.send(&[series, raw::sync()].concat()).expect("sent");
    a.until_ready().expect("answers");
    assert_eq!(value(&mut a, "SHOW DateStyle"), "SQL, DMY");
    run(&mut a, "RESET DateStyle");
    assert_eq!(value(&mut a, SHOWN), AT_START);
}

#[test]
fn r06_reset_in_a_block_holds_at_once() {
    let Some((proxy, db)) = on_primary("r06", 1, "max_pinned = 1") else { return };
    let mut a = login(proxy.port(), &db, &OPTIONS);
    for reset in ["RESET ALL", "RESET DateStyle", "SET DateStyle TO DEFAULT"] {
        run(&mut a, "SET DateStyle = 'ISO, MDY'");
        run(&mut a, "BEGIN");
        run(&mut a, reset);
        assert_eq!(value(&mut a, "SHOW DateStyle"), "German, DMY", "{reset}");
        run(&mut a, "ROLLBACK");
        assert_eq!(value(&mut a, "SHOW DateStyle"), "ISO, MDY", "{reset}");
    }
}

#[test]
fn r06_settings_follow_transactions() {
    let Some((proxy, db)) = on_primary("r06", 1, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    let mut check = |a: &mut RawClient, sql: &str, want: &str| {
        a.query(sql);
        run(&mut b, "SELECT 1");
        assert_eq!(value(a, "SELECT current_setting('app.x', true)"), want, "{sql}");
    };
    check(&mut a, "SET app.x = 'one'", "one");
    check(&mut a, "BEGIN; SET app.x = 'two'; ROLLBACK", "one");
    check(&mut a, "BEGIN; SET LOCAL app.x = 'three'; COMMIT", "one");
    check(&mut a, "BEGIN; SET app.x = 'four'; SET LOCAL app.x = 'five'; COMMIT", "four");
    check(&mut a, "BEGIN; SAVEPOINT s; SET app.x = 'six'; ROLLBACK TO s; COMMIT", "four");
    check(&mut a, "SET app.x = 'seven'; SELECT 1/0", "four");
    check(&mut a, "SELECT set_config('app.x', 'eight', false)", "eight");
    check(&mut a, "SELECT set_config('app.x', 'nine', true)", "eight");
    check(&mut a, "SET app.x = ''", "");
    check(&mut a, "SET app.x = 'it''s \\ ü'", "it's \\ ü");
    check(&mut a, "SET SESSION app.x FROM CURRENT", "it's \\ ü");
}

#[test]
fn r06_the_client_is_told_what_it_has() {
    let Some((proxy, db)) = on_standbys("r06", 1, "") else { return };
    let mut a = login(proxy.port(), &db, &OPTIONS);
    let greeting = told(&a.greeting);
    let of = |list: &[(String, String)], name: &str| {
        list.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    assert_eq!(of(&greeting, "DateStyle").as_deref(), Some("German, DMY"));
    assert_eq!(of(&greeting, "application_name").as_deref(), Some("r06"));
    assert_eq!(of(&greeting, "in_hot_standby").as_deref(), Some("off"));
    assert_eq!(of(&greeting, "session_authorization").as_deref(), Some("postgres"));
    for name in [
        "server_version",
        "server_encoding",
        "client_encoding",
        "integer_datetimes",
        "standard_conforming_strings",
        "TimeZone",
    ] {
        assert!(of(&greeting, name).is_some(), "{name} in {greeting:?}");
    }
    let frames = run(&mut a, "SET DateStyle = 'ISO, MDY'; SET TimeZone = 'Asia/Tokyo'");
    assert_eq!(
        told(&frames),
        [("DateStyle".to_owned(), "ISO, MDY".to_owned()), ("TimeZone".to_owned(), "Asia/Tokyo".to_owned())]
    );
    let mut b = RawClient::login(proxy.port(), &db);
    assert_ne!(of(&told(&b.greeting), "TimeZone").as_deref(), Some("Asia/Tokyo"));
    for _ in 0..10 {
        assert_eq!(told(&run(&mut a, "SELECT 1")), []);
        assert_eq!(told(&run(&mut b, "SELECT 1")), []);
    }
    let frames = run(&mut a, "RESET ALL");
    assert_eq!(of(&told(&frames), "TimeZone"), of(&greeting, "TimeZone"));
    let frames = run(&mut a, "SET application_name = 'other'");
    assert_eq!(told(&frames), [("application_name".to_owned(), "other".to_owned())]);
}

#[test]
fn r06_defaults_of_role_and_database_reach_new_sessions() {
    let Some((proxy, db)) = on_primary("r06", 2, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, &format!("CREATE ROLE r06_user LOGIN SUPERUSER; ALTER DATABASE {db} SET app.from_database = 'first'"));
    let fresh = |setting: &str| {
        let mut client = RawClient::try_login(proxy.port(), "r06_user", &db).expect("a login");
        value(&mut client, &format!("SELECT coalesce(current_setting('{setting}', true), '')"))
    };
    eventually("the database's default is there", || fresh("app.from_database") == "first");
    run(&mut a, "ALTER ROLE r06_user SET app.from_role = 'role'");
    eventually("the role's default is there", || fresh("app.from_role") == "role");
    run(&mut a, &format!("ALTER DATABASE {db} SET app.from_database = 'second'"));
    eventually("the database's new default is there", || fresh("app.from_database") == "second");
    run(&mut a, &format!("ALTER DATABASE {db} RESET app.from_database; DROP ROLE r06_user"));
}

#[test]
fn r06_defaults_of_isolation_hold() {
    let Some((proxy, db)) = on_standbys("r06", 2, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE t AS SELECT 1 AS n");
    run(&mut a, "SET default_transaction_isolation = 'repeatable read'");
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, "BEGIN");
    assert_eq!(value(&mut a, "SELECT n FROM t"), "1");
    run(&mut b, "UPDATE t SET n = 2");
    assert_eq!(value(&mut a, "SELECT n FROM t"), "1", "its snapshot is that of its first statement");
    run(&mut a, "COMMIT");
    assert_eq!(value(&mut a, "SELECT n FROM t"), "2");
    run(&mut a, "SET default_transaction_read_only = on");
    assert_eq!(code(&a.query("UPDATE t SET n = 3")).as_deref(), Some("25006"));
    run(&mut b, "UPDATE t SET n = 4");
    run(&mut a, "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE");
    run(&mut a, "UPDATE t SET n = 5");
    assert_eq!(value(&mut b, "SELECT n FROM t"), "5");
}
