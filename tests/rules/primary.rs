//! What is about the server or the session is the primary's (SESSIONS R8), and so is what does harm on a standby without an error.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgherd::app::demo::cluster::Cluster;
use pgherd::app::demo::programs;
use pgherd::app::demo::server::Server;

use crate::common::raw::{RawClient, values};
use crate::common::{self, SOON, eventually};
use crate::tools::{
    code, execute_named, extended, is_standby, on_standbys, prepare, ran_on_standby, route, run, value, with_here,
};

/// Expressions whose answer differs between servers or sessions.
const ABOUT: &[&str] = &[
    "current_setting('transaction_read_only')",
    "current_setting('in_hot_standby', true)",
    "(SELECT setting FROM pg_settings WHERE name = 'port')",
    "(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'port')",
    "(SELECT count(*) FROM pg_file_settings)",
    "pg_is_in_recovery()",
    "pg_catalog.pg_is_in_recovery()",
    "\"pg_is_in_recovery\"()",
    "PG_IS_IN_RECOVERY ()",
    "inet_server_port()",
    "inet_server_addr()",
    "inet_client_port()",
    "inet_client_addr()",
    "pg_backend_pid()",
    "txid_current()",
    "txid_current_if_assigned()",
    "txid_current_snapshot()",
    "txid_status(5)",
    "pg_current_xact_id()",
    "pg_current_xact_id_if_assigned()",
    "pg_current_snapshot()",
    "pg_xact_status('5')",
    "pg_current_wal_lsn()",
    "pg_current_wal_insert_lsn()",
    "pg_current_wal_flush_lsn()",
    "pg_walfile_name(pg_current_wal_lsn())",
    "pg_last_wal_replay_lsn()",
    "pg_last_wal_receive_lsn()",
    "pg_last_xact_replay_timestamp()",
    "pg_postmaster_start_time()",
    "pg_conf_load_time()",
    "pg_my_temp_schema()",
    "pg_is_other_temp_schema(1)",
    "pg_export_snapshot()",
    "(SELECT count(*) FROM pg_listening_channels())",
    "(SELECT count(*) FROM pg_stat_activity)",
    "(SELECT count(*) FROM pg_stat_replication)",
    "(SELECT count(*) FROM pg_stat_wal_receiver)",
    "(SELECT count(*) FROM pg_locks)",
    "(SELECT count(*) FROM pg_cursors)",
    "(SELECT count(*) FROM pg_prepared_statements)",
    "(SELECT count(*) FROM pg_replication_slots)",
    "(SELECT count(*) FROM pg_stat_get_activity(NULL))",
    "pg_blocking_pids(1)",
    "pg_stat_get_db_numbackends(1)",
    "pg_read_file('PG_VERSION')",
    "(SELECT count(*) FROM pg_ls_dir('.'))",
    "(SELECT count(*) FROM pg_ls_waldir())",
    "pg_notification_queue_usage()",
    "random()",
    "version()",
    "pg_backend_pid() IS NULL AND false",
    "CASE WHEN false THEN pg_current_wal_lsn() END",
    "coalesce(NULL, pg_backend_pid())",
    "(WITH w AS (SELECT pg_backend_pid() AS p) SELECT p FROM w)",
    "(SELECT max(p) FROM pg_backend_pid() AS p)",
    "(SELECT 1 FROM generate_series(1, 2) AS g, LATERAL (SELECT inet_server_port() + g) AS l LIMIT 1)",
    "(SELECT count(*) FILTER (WHERE pg_is_in_recovery()) FROM generate_series(1, 2))",
    "(SELECT count(*) OVER (ORDER BY pg_backend_pid()) LIMIT 1)",
    "(SELECT 1 ORDER BY pg_backend_pid() LIMIT 1)",
    "ARRAY(SELECT pg_is_in_recovery())",
    "(VALUES (pg_backend_pid()))",
];

#[test]
fn r08_questions_about_the_server_are_answered_by_the_primary() {
    let Some((proxy, db)) = with_here("r08", "") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut wrong = Vec::new();
    for about in ABOUT {
        let text = format!("SELECT here(), {about}");
        // One that has written nothing yet would read on a standby.
        for by_series in [false, true] {
            let mut client = RawClient::login(proxy.port(), &db);
            assert!(
                ran_on_standby(cluster, &mut client, "SELECT here(), 1"),
                "the test sees a standby when there is one"
            );
            let frames = if by_series { extended(&mut client, &text) } else { client.query(&text) };
            let ran = values(&frames);
            if code(&frames).is_some() || ran.iter().any(|port| is_standby(cluster, port)) {
                wrong.push(format!("{text}: {frames:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn r08_show_tells_of_the_primary() {
    let Some((proxy, db)) = with_here("r08", "") else { return };
    let cluster = common::cluster().expect("it runs");
    let primary = cluster.primary().port().to_string();
    for by_series in [false, true] {
        let mut client = RawClient::login(proxy.port(), &db);
        let mut ask = |sql: &str| values(&if by_series { extended(&mut client, sql) } else { run(&mut client, sql) });
        assert_eq!(ask("SHOW transaction_read_only"), ["off"]);
        assert_eq!(ask("SHOW in_hot_standby"), ["off"]);
        assert_eq!(ask("SHOW port"), [primary.as_str()]);
        assert_eq!(ask("SHOW TRANSACTION ISOLATION LEVEL"), ["read committed"]);
        assert_eq!(ask("SELECT pg_is_in_recovery()"), ["f"]);
        assert_eq!(ask("SELECT current_setting('transaction_read_only')"), ["off"]);
        assert_eq!(ask("SELECT setting FROM pg_settings WHERE name = 'port'"), [primary.as_str()]);
        assert_eq!(ask("SELECT inet_server_port()"), [primary.as_str()]);
    }
    let client = RawClient::login(proxy.port(), &db);
    let told = |name: &str| {
        let start = [name.as_bytes(), b"\0"].concat();
        let frames = client.greeting.iter().filter(|frame| frame.tag == b'S' && frame.body.starts_with(&start));
        frames.map(|frame| frame.body[start.len()..].to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(
        (told("in_hot_standby"), told("default_transaction_read_only")),
        (vec![b"off\0".to_vec()], vec![b"off\0".to_vec()])
    );
}

#[test]
fn r08_the_time_of_a_block_is_one() {
    let Some((proxy, db)) = with_here("r08", "") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut setup = RawClient::login(proxy.port(), &db);
    run(&mut setup, "CREATE TABLE t AS SELECT 1 AS n; CREATE VIEW clock AS SELECT now() AS at");
    run(&mut setup, "CREATE FUNCTION clock() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM clock'");
    cluster.wait_replayed(SOON).expect("standbys follow");
    crate::tools::wait_for_catalog(&mut setup);
    for now in [
        "now()",
        "transaction_timestamp()",
        "current_timestamp",
        "CURRENT_TIMESTAMP(3)",
        "localtimestamp",
        "localtime",
        "current_time",
        "'now'::timestamptz",
        "timestamp 'now'",
        "now() - interval '1 day'",
        "age(timestamp '2000-01-01')",
        "(SELECT at FROM clock)",
        "clock()",
    ] {
        let mut client = RawClient::login(proxy.port(), &db);
        run(&mut client, "BEGIN");
        assert!(ran_on_standby(cluster, &mut client, "SELECT here(), n FROM t"), "{now}: a read of a block");
        let ask = format!("SELECT ({now})::text, here()");
        let first = values(&run(&mut client, &ask));
        assert!(!ran_on_standby(cluster, &mut client, "SELECT here(), n FROM t"), "{now} binds the block");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(values(&extended(&mut client, &ask)), first, "{now} stands still in a block");
        run(&mut client, "COMMIT");
        // Outside of a block it may run anywhere.
        let mut fresh = RawClient::login(proxy.port(), &db);
        assert!(ran_on_standby(cluster, &mut fresh, &format!("SELECT here(), {now}")), "{now} outside");
    }
    // The value of a parameter may say so, too.
    let mut client = RawClient::login(proxy.port(), &db);
    prepare(&mut client, "at", "SELECT ($1::timestamptz)::text, here()");
    run(&mut client, "BEGIN");
    assert!(ran_on_standby(cluster, &mut client, "SELECT here(), n FROM t"));
    let first = values(&execute_named(&mut client, "at", &[Some("now")]));
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(values(&execute_named(&mut client, "at", &[Some(" NOW")])), first, "a parameter");
    run(&mut client, "COMMIT");
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "BEGIN");
    assert!(ran_on_standby(cluster, &mut client, "SELECT here(), clock_timestamp(), statement_timestamp()"));
    run(&mut client, "COMMIT");
}

/// What each server says.
fn each(cluster: &Cluster, db: &str, sql: &str) -> Vec<String> {
    let ask = |server: &Server| server.psql(db, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    cluster.servers().iter().map(ask).collect()
}

/// Statements that succeed on a standby and do there what nobody meant, with a question that shows where they ran.
const HARM: &[(&str, &str)] = &[
    (
        "SELECT pg_stat_reset()",
        "SELECT coalesce(stats_reset::text, '-') FROM pg_stat_database WHERE datname = current_database()",
    ),
    ("SELECT pg_reload_conf()", "SELECT pg_conf_load_time()"),
    ("SELECT pg_stat_reset_shared('bgwriter')", "SELECT stats_reset FROM pg_stat_bgwriter"),
    ("SELECT pg_stat_reset_slru('Xact')", "SELECT stats_reset FROM pg_stat_slru WHERE name = 'Xact'"),
    (
        "COPY (SELECT 1) TO PROGRAM 'cat > r08_program'",
        "SELECT count(*) FROM pg_ls_dir('.') AS f WHERE f = 'r08_program'",
    ),
    ("COPY (SELECT 1) TO '/proc/self/cwd/r08_file'", "SELECT count(*) FROM pg_ls_dir('.') AS f WHERE f = 'r08_file'"),
];

#[test]
fn r08_what_does_harm_on_a_standby_runs_on_the_primary_alone() {
    let Some((proxy, db)) = on_standbys("r08", 4, "") else { return };
    if common::direct() {
        return;
    }
    let Some(guard) = crate::tools::breakable() else { return };
    drop((proxy, db));
    let cluster = guard.as_ref().expect("it runs");
    let proxy = common::proxy::Proxy::start(cluster, &crate::tools::reading(4, ""));
    let db = common::database(cluster, "r08");
    for (harm, shows) in HARM {
        for by_series in [false, true] {
            let before = each(cluster, &db, shows);
            let mut client = RawClient::login(proxy.port(), &db);
            let frames = if by_series { extended(&mut client, harm) } else { client.query(harm) };
            assert_eq!(code(&frames), None, "{harm}: {frames:?}");
            let mut after = Vec::new();
            eventually("the primary shows it", || {
                after = each(cluster, &db, shows);
                after[0] != before[0] || (harm.starts_with("COPY") && after[0] == "1")
            });
            assert_eq!(after[1..], before[1..], "{harm} came to a standby");
        }
    }
    // A restart point is asked for by CHECKPOINT; the standbys' own come by time, five minutes apart.
    let asked = "SELECT checkpoints_req FROM pg_stat_bgwriter";
    let before = each(cluster, &db, asked);
    let mut client = RawClient::login(proxy.port(), &db);
    for _ in 0..3 {
        run(&mut client, "CHECKPOINT");
        assert_eq!(code(&extended(&mut client, "CHECKPOINT")), None);
    }
    let mut after = Vec::new();
    eventually("the primary shows it", || {
        after = each(cluster, &db, asked);
        after[0] != before[0]
    });
    assert_eq!(after[1..], before[1..], "CHECKPOINT came to a standby");
}

#[test]
fn r08_a_pid_names_the_same_process_to_everyone() {
    let Some((proxy, db)) = on_standbys("r08", 6, "") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut killer = RawClient::login(proxy.port(), &db);
    let mut readers: Vec<RawClient> = (0..4).map(|_| RawClient::login(proxy.port(), &db)).collect();
    let ask = format!("SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE datname = '{db}'");
    for reader in &mut readers {
        run(reader, "SELECT count(*) FROM pg_class WHERE relname = 'x'");
    }
    let standbys =
        || -> Vec<String> { (0..2).map(|n| cluster.standby(n).psql("postgres", &ask).expect("asked")).collect() };
    for by_series in [false, true] {
        let mut victim = RawClient::login(proxy.port(), &db);
        run(&mut victim, "BEGIN");
        let sql = "SELECT pg_backend_pid()";
        let pid = if by_series { values(&extended(&mut victim, sql)).remove(0) } else { value(&mut victim, sql) };
        let seen = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND datname = '{db}'");
        assert_eq!(cluster.primary().psql("postgres", &seen).expect("asked"), "1", "the pid is the primary's");
        let before = standbys();
        assert_eq!(value(&mut killer, &format!("SELECT pg_terminate_backend({pid})")), "t");
        eventually("the process ends", || cluster.primary().psql("postgres", &seen).expect("asked") == "0");
        assert_eq!(standbys(), before, "nobody else was hit");
        if !common::direct() {
            let frames = victim.query("SELECT 1");
            assert!(code(&frames).is_some(), "its block is lost: {frames:?}");
        }
    }
    // A question about others is not asked of a standby either.
    let activity = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}' AND pid = pg_backend_pid()");
    assert_eq!(value(&mut killer, &activity), "1");
}

#[test]
fn r08_libpq_takes_pgherd_for_a_primary() {
    let Some((proxy, db)) = on_standbys("r08", 4, "") else { return };
    let cluster = common::cluster().expect("it runs");
    for (wanted, connects) in [
        ("any", true),
        ("read-write", true),
        ("primary", true),
        ("prefer-standby", true),
        ("read-only", false),
        ("standby", false),
    ] {
        let mut command = programs::psql(cluster.programs(), proxy.port(), &db);
        command.args(["-c", "SELECT 'connected'"]).env("PGTARGETSESSIONATTRS", wanted);
        let finished = programs::run(&mut command, b"", SOON).expect("psql ends");
        let said = format!("{}{}", finished.text(), finished.complaint());
        assert_eq!(finished.status.success() && said.contains("connected"), connects, "{wanted}: {said}");
    }
}

#[test]
fn r08_pgjdbc_takes_pgherd_for_a_primary() {
    const JDBC: &str = "/usr/share/java/postgresql.jar";
    let Some((proxy, db)) = on_standbys("r08", 4, "") else { return };
    if !Path::new(JDBC).exists() {
        return common::skip("pgjdbc targetServerType", "no libpostgresql-jdbc-java");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/pgjdbc/TargetServerType.java");
    let mut command = Command::new("java");
    programs::without_surroundings(&mut command);
    command.args(["-cp", JDBC]).arg(source).arg(proxy.port().to_string()).arg(db);
    match programs::run(&mut command, b"", Duration::from_secs(120)) {
        Ok(finished) => {
            let said = format!("{}{}", finished.text(), finished.complaint());
            assert!(finished.status.success() && said.trim_end().ends_with("ok"), "{said}");
        }
        Err(error) => common::skip("pgjdbc targetServerType", &error.to_string()),
    }
}

/// Functions without arguments that run on standbys although their answer differs from call to call: the clock and chance.
const DIFFER: &[&str] =
    &["clock_timestamp", "statement_timestamp", "now", "transaction_timestamp", "timeofday", "gen_random_uuid"];

#[test]
fn r08_what_may_run_on_a_standby_answers_there_as_on_the_primary() {
    let Some((proxy, db)) = on_standbys("r08", 4, "") else { return };
    if common::direct() {
        return;
    }
    let cluster = common::cluster().expect("it runs");
    let mut client = RawClient::login(proxy.port(), &db);
    crate::tools::wait_for_catalog(&mut client);
    let query = "SELECT DISTINCT quote_ident(proname) FROM pg_proc WHERE oid < 12000 AND pronargs = pronargdefaults AND prokind = 'f' \
        AND pronamespace = 'pg_catalog'::regnamespace AND NOT proretset \
        AND prorettype <> ALL ('{trigger,event_trigger}'::regtype[]) ORDER BY 1";
    let mut straight: Vec<RawClient> =
        cluster.servers().iter().map(|server| RawClient::login(server.port(), &db)).collect();
    let (mut allowed, mut wrong) = (BTreeSet::new(), Vec::new());
    for name in straight[0].values(query) {
        let sql = format!("SELECT {name}()");
        let (place, reason) = route(&mut client, &sql);
        if !place.starts_with("standby") {
            assert_ne!(reason, "unknown_function", "{name}: PostgreSQL brings it along");
            continue;
        }
        allowed.insert(name.clone());
        let answers: Vec<_> =
            straight.iter_mut().map(|server| server.query(&sql)).map(|all| (code(&all), values(&all))).collect();
        if answers.iter().any(|answer| *answer != answers[0]) && !DIFFER.contains(&name.as_str()) {
            wrong.push(format!("{name}: {answers:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(DIFFER.iter().all(|name| allowed.contains(*name)) && allowed.len() > DIFFER.len(), "{allowed:?}");
}
