//! What the proxy tells of itself by SQL: pgpool-II's tables, its own, and parameters; by both protocols, in and out of transactions.

use std::process::Command;
use std::time::Duration;

use pgherd::app::demo::cluster::Cluster;
use pgherd::app::demo::folder::Folder;
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::programs;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{Frame, RawClient};
use crate::common::{self, database, eventually, psql, psql_error};

/// pgpool-II's tables with the columns of its version 4.3.5.
const TABLES: [(&str, &str); 8] = [
    ("POOL_STATUS", "item|value|description"),
    (
        "POOL_NODES",
        "node_id|hostname|port|status|pg_status|lb_weight|role|pg_role|select_cnt|load_balance_node|replication_delay\
         |replication_state|replication_sync_state|last_status_change",
    ),
    (
        "POOL_PROCESSES",
        "pool_pid|start_time|client_connection_count|database|username|backend_connection_time|pool_counter|status",
    ),
    (
        "POOL_POOLS",
        "pool_pid|start_time|client_connection_count|pool_id|backend_id|database|username|backend_connection_time\
         |client_connection_time|client_disconnection_time|client_idle_duration|majorversion|minorversion|pool_counter\
         |pool_backendpid|pool_connected|status",
    ),
    ("POOL_VERSION", "pool_version"),
    (
        "POOL_CACHE",
        "num_cache_hits|num_selects|cache_hit_ratio|num_hash_entries|used_hash_entries|num_cache_entries\
         |used_cache_entries_size|free_cache_entries_size|fragment_cache_entries_size",
    ),
    (
        "POOL_HEALTH_CHECK_STATS",
        "node_id|hostname|port|status|role|last_status_change|total_count|success_count|fail_count|skip_count|retry_count\
         |average_retry_count|max_retry_count|max_duration|min_duration|average_duration|last_health_check\
         |last_successful_health_check|last_skip_health_check|last_failed_health_check",
    ),
    (
        "POOL_BACKEND_STATS",
        "node_id|hostname|port|status|role|select_cnt|insert_cnt|update_cnt|delete_cnt|ddl_cnt|other_cnt|panic_cnt|fatal_cnt\
         |error_cnt",
    ),
];

/// A table as psql prints it: names of columns, then values, separated by bars.
fn table(cluster: &Cluster, port: u16, database: &str, sql: &str) -> Vec<Vec<String>> {
    let mut command = programs::psql(cluster.programs(), port, database);
    command.args([
        "-X",
        "-A",
        "-F",
        "|",
        "-P",
        "footer=off",
        "-P",
        "tuples_only=off",
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-c",
        sql,
    ]);
    let text = programs::succeed(&mut command, b"", Duration::from_secs(30)).expect("psql").text();
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

/// Starts with one of each node's weight, on its own database.
fn start(purpose: &str, auth: &str) -> Option<(&'static Cluster, Proxy, String)> {
    let cluster = common::cluster()?;
    if common::direct() {
        return None;
    }
    let options = Options { weights: vec![0.0, 1.0, 1.0], auth: auth.to_owned(), ..Options::default() };
    Some((cluster, Proxy::start(cluster, &options), database(cluster, purpose)))
}

/// The value of a row's column, both by name.
fn cell<'a>(table: &'a [Vec<String>], row: usize, column: &str) -> &'a str {
    let at = table[0].iter().position(|name| name == column).unwrap_or_else(|| panic!("no {column} in {:?}", table[0]));
    &table[row + 1][at]
}

#[test]
fn tables_have_pgpools_columns_and_true_values() {
    let Some((cluster, proxy, db)) = start("show", "") else { return };
    let show = |name: &str| table(cluster, proxy.port(), &db, &format!("SHOW {name}"));
    for (name, columns) in TABLES {
        let rows = show(name);
        assert_eq!(rows[0].join("|"), columns, "{name}");
        assert!(rows.len() > 1, "{name} is empty");
    }
    eventually("all nodes are up and were checked twice", || {
        let (nodes, checks) = (show("POOL_NODES"), show("POOL_HEALTH_CHECK_STATS"));
        (0..3).all(|node| cell(&nodes, node, "status") == "up")
            && (0..3).all(|node| cell(&checks, node, "success_count").parse::<u32>().expect("a number") >= 2)
    });
    let nodes = show("POOL_NODES");
    let roles: Vec<_> = (0..3).map(|node| cell(&nodes, node, "role")).collect();
    assert_eq!(roles, ["primary", "standby", "standby"]);
    assert_eq!([cell(&nodes, 0, "lb_weight"), cell(&nodes, 1, "lb_weight")], ["0.000000", "0.500000"]);
    assert_eq!(
        [cell(&nodes, 1, "replication_state"), cell(&nodes, 1, "replication_sync_state")],
        ["streaming", "async"]
    );
    assert!(cell(&nodes, 0, "last_status_change").starts_with("20"), "{nodes:?}");
    let own = table(cluster, proxy.port(), &db, "PGPOOL SHOW NODES");
    assert_eq!(["slot", "sync_state", "why"].map(|name| cell(&own, 1, name)), ["standby1", "async", ""]);
    let checks = show("POOL_HEALTH_CHECK_STATS");
    assert_eq!([cell(&checks, 0, "fail_count"), cell(&checks, 0, "skip_count")], ["0", "0"]);
    assert!(cell(&show("POOL_VERSION"), 0, "pool_version").starts_with("4.3.5 (pgherd"));
    let status = show("POOL_STATUS");
    let port = status.iter().find(|row| row[0] == "port").expect("the port");
    assert_eq!(port[1], proxy.port().to_string());
    let processes = show("POOL_PROCESSES");
    assert!(cell(&processes, 0, "pool_pid").parse::<u32>().expect("a number") > 4_194_304);
    assert!((0..processes.len() - 1).any(|row| cell(&processes, row, "status") == "Execute command"));
}

#[test]
fn statements_are_counted_by_node_kind_and_reason() {
    let Some((cluster, proxy, db)) = start("counted", "[log]\ntimed_every = 1") else { return };
    let port = proxy.port();
    let mut client = RawClient::login(port, &db);
    for sql in
        ["CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)", "UPDATE t SET n = 2", "DELETE FROM t", "SELECT nothing"]
    {
        client.query(sql);
    }
    for number in 0..20 {
        client.query(&format!("SELECT 'a secret {number}', n FROM t WHERE n = {number} FOR UPDATE"));
    }
    let stats = table(cluster, port, &db, "SHOW POOL_BACKEND_STATS");
    let count = |column: &str| cell(&stats, 0, column).parse::<u32>().expect("a number");
    assert_eq!([count("ddl_cnt"), count("insert_cnt"), count("update_cnt"), count("delete_cnt")], [1, 1, 1, 1]);
    assert!(count("select_cnt") >= 20 && count("error_cnt") >= 1, "{stats:?}");
    let routing = table(cluster, port, &db, "PGPOOL SHOW ROUTING");
    let locks = routing.iter().find(|row| row[0] == "primary" && row[1] == "lock").expect("row locks");
    assert_eq!(locks[2], "20");
    let top = table(cluster, port, &db, "PGPOOL SHOW STATEMENTS 100");
    let locked: Vec<_> = top.iter().filter(|row| row[7].contains("FOR UPDATE")).collect();
    assert_eq!(locked.len(), 1, "one shape: {top:?}");
    assert_eq!((locked[0][2].as_str(), locked[0][7].as_str()), ("20", "SELECT ?, n FROM t WHERE n = ? FOR UPDATE"));
    let mean: f64 = locked[0][4].parse().expect("a number");
    let slowest: f64 = locked[0][6].parse().expect("a number");
    assert!(mean > 0.0 && slowest >= mean, "{locked:?}");
    assert!(!format!("{top:?}").contains("secret"));
    let pools = table(cluster, port, &db, "PGPOOL SHOW POOLS");
    assert!(pools.iter().any(|row| row[0] == "0" && row[1] == db && row[3] == "20" && row[6] == "0"), "{pools:?}");
    let events = table(cluster, port, &db, "PGPOOL SHOW EVENTS 100");
    assert!(events.iter().any(|row| row[3] == "primary" && row[5] == "0" && row[4] == "health"), "{events:?}");
}

/// What `pgpool2_exporter` asks, word for word, and the columns that it makes labels and numbers of.
#[test]
fn pgpool2_exporters_queries_yield_its_labels_and_numbers() {
    const NODE: &str = "hostname port role";
    const ASKED: &[(&str, &str, &str)] = &[
        ("pool_nodes", NODE, "select_cnt replication_delay"),
        (
            "pool_backend_stats",
            NODE,
            "select_cnt insert_cnt update_cnt delete_cnt ddl_cnt other_cnt panic_cnt fatal_cnt error_cnt",
        ),
        (
            "pool_health_check_stats",
            NODE,
            "total_count success_count fail_count skip_count retry_count average_retry_count max_retry_count \
             max_duration min_duration average_duration",
        ),
        (
            "pool_cache",
            "",
            "cache_hit_ratio num_hash_entries used_hash_entries num_cache_entries used_cache_entries_size \
             free_cache_entries_size",
        ),
        ("pool_processes", "pool_pid database username", ""),
        ("pool_pools", "pool_pid pool_id backend_id username database", ""),
        ("POOL_VERSION", "pool_version", ""),
    ];
    let Some((_, proxy, db)) = start("exporter", "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    for (name, labels, numbers) in ASKED {
        let frames = client.query(&format!("SHOW {name};"));
        let description = frames.iter().find(|frame| frame.tag == b'T').expect("columns");
        let columns = columns_of(&description.body);
        let rows: Vec<_> = frames.iter().filter(|frame| frame.tag == b'D').map(|frame| frame.columns()).collect();
        assert!(!rows.is_empty(), "{name}");
        let at = |column: &str| columns.iter().position(|(known, _)| known == column);
        for column in labels.split_whitespace().chain(numbers.split_whitespace()) {
            let place = at(column).unwrap_or_else(|| panic!("{name} has no {column}: {columns:?}"));
            // Of any other type a driver would decode it.
            assert_eq!(columns[place].1, 25, "{name}.{column} is text");
            for row in &rows {
                let value = row[place].as_deref().unwrap_or_else(|| panic!("{name}.{column} is null"));
                assert!(labels.contains(column) || value.parse::<f64>().is_ok(), "{name}.{column}: {value}");
            }
        }
        if let Some(status) = at("status").filter(|_| labels == &NODE) {
            let known = |row: &Vec<Option<String>>| matches!(row[status].as_deref(), Some("up" | "waiting" | "down"));
            assert!(rows.iter().all(known), "{name}: {rows:?}");
        }
    }
}

/// Names and types of a RowDescription.
fn columns_of(mut body: &[u8]) -> Vec<(String, u32)> {
    let count = u16::from_be_bytes([body[0], body[1]]);
    body = &body[2..];
    let column = |_| {
        let end = body.iter().position(|byte| *byte == 0).expect("a name");
        let name = String::from_utf8_lossy(&body[..end]).into_owned();
        let fixed = &body[end + 1..];
        let kind = u32::from_be_bytes([fixed[6], fixed[7], fixed[8], fixed[9]]);
        body = &fixed[18..];
        (name, kind)
    };
    (0..count).map(column).collect()
}

#[test]
fn a_session_that_logs_takes_no_other_ones_turn_to_be_timed() {
    let Some(cluster) = common::cluster().filter(|_| !common::direct()) else { return };
    let (listen, auth) = ("threads = 1".to_owned(), "[log]\ntimed_every = 4".to_owned());
    let (proxy, db) =
        (Proxy::start(cluster, &Options { listen, auth, ..Options::default() }), database(cluster, "turns"));
    let (mut logs, mut quiet) = (RawClient::login(proxy.port(), &db), RawClient::login(proxy.port(), &db));
    logs.query("PGPOOL SET log_statement TO on");
    for _ in 0..100 {
        logs.query("SELECT 1 AS logs");
        quiet.query("SELECT 1 AS quiet");
        quiet.query("SELECT 1 AS quiet");
    }
    let top = table(cluster, proxy.port(), &db, "PGPOOL SHOW STATEMENTS 100");
    let calls = |name: &str| -> u32 {
        let found = top.iter().find(|row| row[7].ends_with(name)).unwrap_or_else(|| panic!("no {name}: {top:?}"));
        found[2].parse().expect("a number")
    };
    // One of four stands for four, whoever's it is.
    let (logs, quiet) = (calls("logs"), calls("quiet"));
    assert!((90..=110).contains(&logs) && (190..=210).contains(&quiet), "{logs} and {quiet}");
    assert_eq!(proxy.log().matches("AS logs").count(), 100);
}

#[test]
fn parameters_are_shown_set_and_reset() {
    let Some((cluster, proxy, db)) = start("vars", "") else { return };
    let port = proxy.port();
    assert_eq!(psql(cluster, port, &db, "PGPOOL SHOW port"), port.to_string());
    assert_eq!(psql(cluster, port, &db, "PGPOOL SHOW pool.size"), "20");
    let group = table(cluster, port, &db, "PGPOOL SHOW backend_hostname");
    assert_eq!((group.len(), group[0].join("|").as_str()), (4, "item|value|description"));
    assert!(table(cluster, port, &db, "PGPOOL SHOW ALL").len() > 100);
    for (sql, message) in [
        ("PGPOOL SHOW nosuch", "config variable \"nosuch\" not found"),
        ("PGPOOL SET port TO 1", "invalid Context, value for parameter \"port\" cannot be changed"),
        ("PGPOOL SET log_statement = 'perhaps'", "invalid value for parameter"),
    ] {
        let said = psql_error(cluster, port, &db, sql);
        assert!(said.contains(message), "{sql}: {said}");
    }
    let mut client = RawClient::login(port, &db);
    let complete = |frames: &[Frame]| {
        let found = frames.iter().find(|frame| frame.tag == b'C').unwrap_or_else(|| panic!("{frames:?}"));
        String::from_utf8_lossy(&found.body).trim_end_matches('\0').to_owned()
    };
    assert_eq!(complete(&client.query("PGPOOL SET log_statement TO on")), "SET");
    assert_eq!(client.values("PGPOOL SHOW log_statement"), ["1"]);
    client.query("SELECT 'seen in the log'");
    eventually("the statement is logged", || proxy.log().contains("seen in the log"));
    assert_eq!(complete(&client.query("PGPOOL RESET log_statement")), "SET");
    client.query("SELECT 'not seen there'");
    assert_eq!(complete(&client.query("PGPOOL RESET ALL")), "RESET");
    assert_eq!(client.values("PGPOOL SHOW log_statement"), ["0"]);
    assert!(!proxy.log().contains("not seen there"));
}

#[test]
fn a_driver_gets_them_by_the_extended_protocol_in_and_out_of_transactions() {
    let Some((_, proxy, db)) = start("driver", "") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = format!("host=127.0.0.1 port={} user=postgres dbname={db}", proxy.port());
        let (mut client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("a login");
        let driving = tokio::spawn(connection);
        for (name, columns) in TABLES {
            let rows =
                client.query(&format!("SHOW {name}"), &[]).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            let names: Vec<_> = rows[0].columns().iter().map(|column| column.name()).collect();
            assert_eq!(names.join("|"), columns);
        }
        // Prepared before, executed in a transaction that a server holds, and again behind it.
        let nodes = client.prepare("SHOW POOL_NODES").await.expect("prepared");
        let block = client.transaction().await.expect("a transaction");
        block.execute("CREATE TABLE t (n int)", &[]).await.expect("created");
        let rows = block.query(&nodes, &[]).await.expect("in a transaction");
        assert_eq!((rows.len(), rows[0].get::<_, &str>("role")), (3, "primary"));
        let rows = block.query("PGPOOL SHOW pool.size", &[]).await.expect("unprepared");
        assert_eq!(rows[0].get::<_, &str>(0), "20");
        let simple = block.simple_query("SHOW POOL_VERSION").await.expect("by the simple protocol");
        assert!(simple.iter().any(|one| matches!(one, SimpleQueryMessage::Row(row) if row.get(0).is_some())));
        block.execute("INSERT INTO t VALUES (1)", &[]).await.expect("the transaction goes on");
        block.commit().await.expect("committed");
        assert_eq!(client.query(&nodes, &[]).await.expect("behind it").len(), 3);
        assert_eq!(client.query("SELECT n FROM t", &[]).await.expect("it was committed").len(), 1);
        let refused = client.query("PGPOOL SHOW nosuch", &[]).await.expect_err("unknown");
        assert_eq!(refused.code().map(|code| code.code()), Some("XX000"));
        assert_eq!(client.query("SELECT 1", &[]).await.expect("it goes on").len(), 1);
        drop(client);
        let _ = driving.await;
    });
}

#[test]
fn who_may_look_is_a_setting() {
    let auth = "stats_users = [\"watcher\"]\nadmin_users = [\"chief\"]";
    let Some((cluster, proxy, db)) = start("may", auth) else { return };
    for role in ["watcher", "chief", "nobody_special"] {
        let sql = format!("DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
        cluster.primary().psql("postgres", &sql).expect("a role");
    }
    let login = |user: &str| RawClient::try_login(proxy.port(), user, &db).expect("a login");
    let mut other = login("nobody_special");
    let refused = other.query("SHOW POOL_NODES");
    assert_eq!(refused.iter().find_map(Frame::sqlstate).as_deref(), Some("42501"));
    assert!(!other.values("PGPOOL SHOW ROUTE 'SELECT 1'").is_empty(), "its own statements are its own");
    let mut watcher = login("watcher");
    assert!(!watcher.values("SHOW POOL_NODES").is_empty());
    let clients = |client: &mut RawClient| {
        let rows = client.query("PGPOOL SHOW SESSIONS");
        let rows: Vec<_> = rows.iter().filter(|frame| frame.tag == b'D').map(Frame::columns).collect();
        rows.into_iter()
            .filter(|row| row[3].as_deref() == Some("nobody_special"))
            .filter(|row| row[5].is_some())
            .count()
    };
    assert_eq!(clients(&mut watcher), 0, "others' addresses are not for it");
    assert_eq!(clients(&mut login("chief")), 1);
}

#[test]
fn the_log_is_json_and_tells_of_events_connections_and_statements() {
    let auth = "[log]\nformat = \"json\"\nconnections = true\nstatements = true\nhide_literals = true\nslow_statements = \"200ms\"";
    let Some((_, proxy, db)) = start("log", auth) else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    client.query("SELECT 'a secret', 1 FOR UPDATE");
    client.query("SELECT pg_sleep(0.3)");
    drop(client);
    assert!(RawClient::try_login(proxy.port(), "postgres", "no such database").is_err());
    let mut refused = RawClient::connect(proxy.port()).expect("it listens");
    refused.send(&crate::common::raw::startup(196_608, &[("database", "postgres")])).expect("sent");
    let lines = || -> Vec<serde_json::Value> {
        let log = proxy.log();
        let parsed =
            log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
        parsed.collect()
    };
    let find = |event: &str, text: &str| {
        lines()
            .into_iter()
            .find(|line| line["event"] == event && line["message"].as_str().is_some_and(|all| all.contains(text)))
    };
    eventually("all of it is told", || {
        find("disconnected", "the client has left").is_some() && find("slow_statement", "pg_sleep").is_some()
    });
    assert!(!proxy.log().contains("a secret"));
    let statement = find("statement", "SELECT ?, ? FOR UPDATE").expect("the statement");
    assert_eq!((statement["node"].as_u64(), statement["reason"].as_str()), (Some(0), Some("lock")), "{statement}");
    assert_eq!((statement["user"].as_str(), statement["database"].as_str()), (Some("postgres"), Some(&*db)));
    let slow = find("slow_statement", "pg_sleep").expect("the slow one");
    assert!(slow["ms"].as_f64().is_some_and(|ms| ms >= 300.0), "{slow}");
    assert!(
        find("connected", "").is_some_and(|line| line["client"].as_str().is_some_and(|from| from.starts_with("127.")))
    );
    let primary = find("primary", "").expect("the primary");
    assert_eq!(
        (primary["who"].as_str(), primary["node"].as_u64(), primary["epoch"].as_u64()),
        (Some("health"), Some(0), Some(1))
    );
    eventually("the one who was turned away is named", || {
        lines().iter().any(|line| line["event"] == "login_refused" && line["level"] == "WARN")
    });
}

/// The real pgpool-II in front of the same servers.
struct Pgpool {
    process: std::process::Child,
    folder: Folder,
    port: PortLock,
}

impl Pgpool {
    fn start(cluster: &Cluster) -> Option<Self> {
        let program = programs::on_path("pgpool").or_else(|| programs::on_path("/usr/sbin/pgpool"))?;
        let folder = Folder::new(cluster.owner()).expect("a folder");
        let (port, pcp) = (PortLock::any().expect("a port"), PortLock::any().expect("a port"));
        let path = folder.path().display();
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\npcp_listen_addresses = ''\npcp_port = {}\nsocket_dir = '{path}'\n\
             pcp_socket_dir = '{path}'\nlogdir = '{path}'\npid_file_name = '{path}/pgpool.pid'\nnum_init_children = 4\n\
             enable_pool_hba = off\nsr_check_user = 'postgres'\nhealth_check_user = 'postgres'\nhealth_check_period = 1\n\
             sr_check_period = 1\n",
            port.port(),
            pcp.port()
        );
        for (id, server) in cluster.servers().iter().enumerate() {
            let port = server.port();
            text += &format!("backend_hostname{id} = '127.0.0.1'\nbackend_port{id} = {port}\nbackend_weight{id} = 1\n");
        }
        std::fs::write(folder.path().join("pgpool.conf"), text).expect("written");
        std::fs::write(folder.path().join("pcp.conf"), "").expect("written");
        for name in ["pgpool.conf", "pcp.conf"] {
            cluster.owner().take(&folder.path().join(name)).expect("its owner's");
        }
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(program);
        command
            .arg("-n")
            .arg("-f")
            .arg(folder.path().join("pgpool.conf"))
            .arg("-F")
            .arg(folder.path().join("pcp.conf"));
        command.current_dir(folder.path()).stdout(log.try_clone().expect("a handle")).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        cluster.owner().dress(&mut command);
        let process = command.spawn().expect("pgpool starts");
        Some(Self { process, folder, port })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pgpool {
    fn drop(&mut self) {
        programs::kill_group(&mut self.process);
    }
}

#[test]
fn columns_are_those_of_a_real_pgpool_beside_it() {
    let Some((cluster, proxy, db)) = start("beside", "") else { return };
    let Some(pgpool) = Pgpool::start(cluster) else {
        return common::skip("columns_are_those_of_a_real_pgpool_beside_it", "without pgpool");
    };
    let ready = || {
        let mut command = programs::psql(cluster.programs(), pgpool.port.port(), &db);
        command.args(["-X", "-h", "127.0.0.1", "-U", "postgres", "-c", "SHOW POOL_NODES"]);
        programs::succeed(&mut command, b"", Duration::from_secs(10)).is_ok()
    };
    let deadline = std::time::Instant::now() + common::SOON;
    while !ready() {
        assert!(std::time::Instant::now() < deadline, "{}", pgpool.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let both = |sql: &str| [pgpool.port.port(), proxy.port()].map(|port| table(cluster, port, &db, sql));
    for (name, _) in TABLES {
        let [theirs, ours] = both(&format!("SHOW {name}"));
        assert_eq!(theirs[0], ours[0], "{name}");
    }
    let [theirs, ours] = both("SHOW POOL_STATUS");
    let names = |rows: &[Vec<String>]| rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    let (theirs, ours) = (names(&theirs), names(&ours));
    let common: Vec<_> = ours.iter().filter(|name| theirs.contains(name)).collect();
    let order: Vec<_> = theirs.iter().filter(|name| ours.contains(name)).collect();
    assert_eq!(common, order, "what both have comes in the same order");
    assert!(common.len() > 60, "{common:?}");
}
