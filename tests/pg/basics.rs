//! What every user does first: psql, several statements, COPY, errors, notifications, function calls.

use std::time::Duration;

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{self, RawClient, tags, values};
use crate::common::{self, database, psql, psql_error};
use pgherd::app::demo::programs;

#[test]
fn psql_reads_writes_and_sees_its_errors() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "basics");
    let run = |sql: &str| psql(cluster, proxy.port(), &db, sql);
    assert_eq!(run("SELECT 1"), "1");
    run("CREATE TABLE t (id serial PRIMARY KEY, v text)");
    assert_eq!(run("INSERT INTO t (v) VALUES ('a'), ('b') RETURNING id"), "1\n2");
    // Read at once what was just written, from other sessions, too: never an unknown table.
    assert_eq!(run("INSERT INTO t (v) VALUES ('c'); SELECT count(*) FROM t"), "3");
    assert!(run("\\d t").contains("id|integer"));
    assert!(psql_error(cluster, proxy.port(), &db, "SELECT nonsense").contains("42703"));
    assert!(psql_error(cluster, proxy.port(), &db, "SELECT 1/0").contains("22012"));
    assert!(psql_error(cluster, proxy.port(), "no_such_database", "SELECT 1").contains("does not exist"));
    let block = "BEGIN; INSERT INTO t (v) VALUES ('d'); ROLLBACK; SELECT count(*) FROM t";
    assert_eq!(run(block), "3");
    let savepoint = "BEGIN; SAVEPOINT s; INSERT INTO t (v) VALUES ('e'); ROLLBACK TO s; \
                     INSERT INTO t (v) VALUES ('f'); COMMIT; SELECT string_agg(v, ',' ORDER BY v) FROM t";
    assert_eq!(run(savepoint), "a,b,c,f");
}

#[test]
fn several_statements_in_one_string_are_one_transaction() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "basics");
    let mut client = RawClient::login(proxy.port(), &db);
    client.query("CREATE TABLE t (n int)");
    assert_eq!(tags(&client.query("INSERT INTO t VALUES (1); SELECT * FROM t; SELECT 2 AS two")), "CTDCTDCZ");
    let failed = client.query("INSERT INTO t VALUES (2); SELECT 1/0; INSERT INTO t VALUES (3)");
    assert_eq!(tags(&failed), "CEZ");
    assert_eq!(client.values("SELECT count(*) FROM t"), ["1"]);
    assert_eq!(tags(&client.query("")), "IZ");
    assert_eq!(tags(&client.query(";;")), "IZ");
    assert_eq!(tags(&client.query("-- nothing at all")), "IZ");
    let mixed = client.query("BEGIN; INSERT INTO t VALUES (4); COMMIT; SELECT 1/0");
    assert_eq!(tags(&mixed), "CCCEZ");
    assert_eq!(client.values("SELECT count(*) FROM t"), ["2"]);
}

#[test]
fn copy_goes_both_ways() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "basics");
    let run = |sql: &str| psql(cluster, proxy.port(), &db, sql);
    run("CREATE TABLE t (n int, v text)");
    run("COPY t FROM STDIN;\n1\tone\n2\ttwo\n\\.\n");
    assert_eq!(run("COPY t TO STDOUT"), "1\tone\n2\ttwo");
    assert_eq!(run("COPY (SELECT n * 2 FROM t ORDER BY n) TO STDOUT WITH (FORMAT csv, HEADER)"), "?column?\n2\n4");
    let mut client = RawClient::login(proxy.port(), &db);
    client.send(&raw::query("COPY t FROM STDIN")).expect("sent");
    assert_eq!(client.frame().expect("an answer").tag, b'G');
    client.send(&[raw::copy_data(b"3\tth"), raw::copy_data(b"ree\n"), raw::copy_done()].concat()).expect("sent");
    assert_eq!(tags(&client.until_ready().expect("an end")), "CZ");
    client.send(&raw::query("COPY t FROM STDIN")).expect("sent");
    assert_eq!(client.frame().expect("an answer").tag, b'G');
    client.send(&[raw::copy_data(b"4\tfour\n"), raw::copy_fail("changed my mind")].concat()).expect("sent");
    let failed = client.until_ready().expect("an end");
    assert_eq!(failed[0].sqlstate().as_deref(), Some("57014"), "{failed:?}");
    client.send(&raw::query("COPY t FROM STDIN")).expect("sent");
    assert_eq!(client.frame().expect("an answer").tag, b'G');
    client.send(&[raw::copy_data(b"not a number\tx\n"), raw::copy_done()].concat()).expect("sent");
    assert_eq!(client.until_ready().expect("an end")[0].sqlstate().as_deref(), Some("22P02"));
    assert_eq!(client.values("SELECT count(*) FROM t"), ["3"]);
    // Two COPYs and a SELECT in one string.
    client.send(&raw::query("COPY t FROM STDIN; COPY t TO STDOUT; SELECT 5")).expect("sent");
    assert_eq!(client.frame().expect("an answer").tag, b'G');
    client.send(&[raw::copy_data(b"5\tfive\n"), raw::copy_done()].concat()).expect("sent");
    assert_eq!(tags(&client.until_ready().expect("an end")), "CHddddcCTDCZ");
}

#[test]
fn function_calls_are_answered() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "basics");
    let mut client = RawClient::login(proxy.port(), &db);
    let oid: u32 = client.values("SELECT 'int4pl(int4,int4)'::regprocedure::oid")[0].parse().expect("an oid");
    client.send(&raw::function_call(oid, &["40", "2"])).expect("sent");
    let frames = client.until_ready().expect("an answer");
    assert_eq!(tags(&frames), "VZ");
    assert_eq!(&frames[0].body[4..], b"42");
    client.send(&raw::function_call(4_000_000, &["1"])).expect("sent");
    assert_eq!(tags(&client.until_ready().expect("an answer")), "EZ");
    // In a block, and in a failed block.
    client.query("BEGIN");
    client.send(&raw::function_call(oid, &["1", "1"])).expect("sent");
    assert_eq!(client.until_ready().expect("an answer")[1].body, b"T");
    client.query("SELECT 1/0");
    client.send(&raw::function_call(oid, &["1", "1"])).expect("sent");
    let frames = client.until_ready().expect("an answer");
    assert_eq!((frames[0].sqlstate().as_deref(), &frames[1].body[..]), (Some("25P02"), &b"E"[..]));
    assert_eq!(tags(&client.query("ROLLBACK")), "CZ");
}

#[test]
fn r05_notifications_reach_a_listener_that_says_nothing() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "basics");
    let mut listener = RawClient::login(proxy.port(), &db);
    assert_eq!(tags(&listener.query("LISTEN news")), "CZ");
    let mut speaker = RawClient::login(proxy.port(), &db);
    for number in 0..20 {
        assert_eq!(tags(&speaker.query(&format!("NOTIFY news, 'item {number}'"))), "CZ");
    }
    for number in 0..20 {
        let frame = listener.frame().expect("a notification");
        assert_eq!(frame.tag, b'A', "{frame:?}");
        assert_eq!(&frame.body[4..], format!("news\0item {number}\0").as_bytes());
    }
    assert_eq!(tags(&listener.query("UNLISTEN news")), "CZ");
    speaker.query("NOTIFY news, 'late'");
    listener.patience(Duration::from_millis(300));
    assert!(listener.frame().is_err(), "a notification after UNLISTEN");
    listener.patience(common::SOON);
    assert_eq!(tags(&listener.query("LISTEN own; NOTIFY own")), "CCAZ");
}

#[test]
fn notices_and_parameter_changes_come_through() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "basics");
    let mut client = RawClient::login(proxy.port(), &db);
    let frames = client.query("DO $$ BEGIN RAISE NOTICE 'heard'; END $$");
    assert_eq!(tags(&frames), "NCZ");
    assert_eq!(frames[0].field(b'M').as_deref(), Some("heard"));
    let frames = client.query("SET application_name = 'renamed'");
    assert_eq!(tags(&frames), "CSZ");
    assert_eq!(frames[1].body, b"application_name\0renamed\0");
    assert_eq!(client.values("SHOW application_name"), ["renamed"]);
    let names: Vec<String> = client.greeting.iter().filter(|frame| frame.tag == b'S').map(name_of).collect();
    for name in ["server_version", "client_encoding", "DateStyle", "standard_conforming_strings", "in_hot_standby"] {
        assert!(names.iter().any(|known| known == name), "{name} is missing in {names:?}");
    }
}

/// The name in a ParameterStatus.
fn name_of(frame: &raw::Frame) -> String {
    String::from_utf8_lossy(frame.body.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[test]
fn startup_parameters_hold_for_the_session() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options { size: 1, ..Options::default() });
    let db = database(cluster, "basics");
    let login = |name: &str, style: &str| {
        let parameters = [("user", "postgres"), ("database", &*db), ("application_name", name), ("options", style)];
        RawClient::try_login_with(proxy.port(), &parameters).expect("a login")
    };
    let mut first = login("one", "-c DateStyle=German");
    let mut second = login("two", "-c statement_timeout=7s");
    for _ in 0..3 {
        assert_eq!(first.values("SELECT '2024-02-01'::date::text"), ["01.02.2024"]);
        assert_eq!(second.values("SELECT '2024-02-01'::date::text"), ["2024-02-01"]);
        assert_eq!(second.values("SHOW statement_timeout"), ["7s"]);
        assert_eq!(first.values("SHOW statement_timeout"), ["0"]);
        assert_eq!(first.values("SHOW application_name"), ["one"]);
        assert_eq!(second.values("SHOW application_name"), ["two"]);
    }
    first.query("SET DateStyle = 'ISO'");
    assert_eq!(first.values("SELECT '2024-02-01'::date::text"), ["2024-02-01"]);
    first.query("RESET ALL");
    assert_eq!(first.values("SELECT '2024-02-01'::date::text"), ["01.02.2024"], "R6: the startup value comes back");
}

#[test]
fn protocol_versions_are_negotiated() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let parameters = [("user", "postgres"), ("database", "postgres"), ("_pq_.not_known", "1")];
    let mut client = RawClient::connect(proxy.port()).expect("a connection");
    client.send(&raw::startup(0x0003_0005, &parameters)).expect("sent");
    let frames = client.until_ready().expect("an answer");
    let negotiation = frames.iter().find(|frame| frame.tag == b'v').expect("NegotiateProtocolVersion");
    assert!(negotiation.body.ends_with(b"_pq_.not_known\0"), "{negotiation:?}");
    assert_eq!(values(&client.query("SELECT 1")), ["1"]);
    let mut old = RawClient::connect(proxy.port()).expect("a connection");
    old.send(&raw::startup(0x0002_0000, &parameters)).expect("sent");
    assert!(old.ended(), "protocol 2.0 is refused");
    // TLS and GSS are refused by one byte, after which the login goes on.
    let mut client = RawClient::connect(proxy.port()).expect("a connection");
    // PostgreSQL itself may be built with GSS.
    let requests = if common::direct() { vec![] } else { vec![raw::gss_request()] };
    for request in requests.into_iter().chain([raw::ssl_request()]) {
        client.send(&request).expect("sent");
        let mut answer = [0];
        std::io::Read::read_exact(client.stream(), &mut answer).expect("one byte");
        assert_eq!(&answer, b"N");
    }
    client.send(&raw::startup(196_608, &parameters[..2])).expect("sent");
    assert!(client.until_ready().is_ok());
}

#[test]
fn psql_describes_everything_without_an_error() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "basics");
    psql(cluster, proxy.port(), &db, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE VIEW w AS SELECT * FROM t");
    let commands = "\\l\n\\d\n\\d+ t\n\\d w\n\\dt+\n\\df+ pg_catalog.int4pl\n\\du\n\\dn+\n\\dx\n\\dT\n\\do =\n\\conninfo\n\\encoding\n";
    let mut command = programs::psql(cluster.programs(), proxy.port(), &db);
    let finished = programs::run(command.args(["-f", "-"]), commands.as_bytes(), common::SOON).expect("psql ends");
    assert!(finished.status.success() && finished.stderr.is_empty(), "{}", finished.complaint());
}
