//! `replication=` connections are passed through to the primary.

use std::process::Command;

use pgherd::app::demo::programs;

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{self, RawClient, tags};
use crate::common::{self, SOON, database, psql};

#[test]
fn commands_of_the_replication_protocol_are_answered_by_the_primary() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "replication");
    for (replication, sql_works) in [("database", true), ("true", false)] {
        let parameters = [("user", "postgres"), ("database", &*db), ("replication", replication)];
        let mut client = RawClient::try_login_with(proxy.port(), &parameters).expect("a login");
        let frames = client.query("IDENTIFY_SYSTEM");
        assert_eq!(tags(&frames), "TDCZ", "{frames:?}");
        let sql = "SELECT system_identifier FROM pg_control_system()";
        let system = cluster.primary().psql("postgres", sql).expect("an answer");
        assert_eq!(frames[1].columns()[0].as_deref(), Some(&*system));
        let frames = client.query("SELECT pg_is_in_recovery()");
        assert_eq!(frames.iter().any(|frame| frame.tag == b'D'), sql_works, "{frames:?}");
    }
}

#[test]
fn pg_basebackup_and_pg_receivewal_work_through_it() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "replication");
    let port = proxy.port().to_string();
    let backup = cluster.folder().join("backup");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(cluster.programs().path(program));
        programs::without_surroundings(&mut command);
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port]).args(arguments);
        programs::succeed(&mut command, &[], 6 * SOON).unwrap_or_else(|error| panic!("{program}: {error}"))
    };
    run("pg_basebackup", &["-X", "stream", "--checkpoint=fast", "--no-sync", "-D", &backup.display().to_string()]);
    assert!(backup.join("PG_VERSION").is_file());
    let wal = cluster.folder().join("wal");
    std::fs::create_dir(&wal).expect("a folder");
    psql(cluster, cluster.primary().port(), &db, "CREATE TABLE t AS SELECT generate_series(1, 1000)");
    // It starts with the segment of now, and finds nothing to do if another has begun since `end`.
    common::eventually("a segment was received", || {
        let end = psql(cluster, cluster.primary().port(), "postgres", "SELECT pg_current_wal_lsn()");
        run("pg_receivewal", &["--no-loop", "-E", &end, "-D", &wal.display().to_string()]);
        std::fs::read_dir(&wal).expect("a folder").count() > 0
    });
}

#[test]
fn r18_a_replicating_client_can_cancel() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "replication");
    let parameters = [("user", "postgres"), ("database", &*db), ("replication", "database")];
    let mut client = RawClient::try_login_with(proxy.port(), &parameters).expect("a login");
    client.send(&raw::query("SELECT pg_sleep(60)")).expect("it is sent");
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
    common::eventually("it runs", || psql(cluster, cluster.primary().port(), &db, asleep) != "0");
    client.cancel(proxy.port());
    let frames = client.until_ready().expect("the statement ends");
    assert!(frames.iter().any(|frame| frame.body.windows(5).any(|code| code == b"57014")), "{frames:?}");
}

#[test]
fn r21_a_replicating_client_counts_among_the_nodes_connections() {
    let Some(cluster) = common::cluster() else { return };
    let options = Options { size: 1, node: "max_connections = 1".to_owned(), ..Options::default() };
    let proxy = Proxy::start(cluster, &options);
    let db = database(cluster, "replication");
    let parameters = [("user", "postgres"), ("database", &*db), ("replication", "database")];
    let first = RawClient::try_login_with(proxy.port(), &parameters).expect("a login");
    let refused = RawClient::try_login_with(proxy.port(), &parameters).expect_err("there is no place");
    assert!(refused.to_string().contains("53300"), "{refused}");
    drop(first);
    common::eventually("its place is free", || RawClient::try_login_with(proxy.port(), &parameters).is_ok());
}
