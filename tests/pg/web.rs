//! HTTP for machines: the metrics as promtool and a real Prometheus take them, Patroni's paths, limits, and what a scrape costs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pgherd::app::demo::folder::{Folder, Owner};
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::programs;

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::RawClient;
use crate::common::{self, database, eventually};

/// A proxy with a web server, and the port of that.
fn start(more: &str) -> Option<(Proxy, PortLock)> {
    let cluster = common::cluster()?;
    if common::direct() {
        return None;
    }
    let port = PortLock::any().expect("a port");
    let auth = format!("[web]\nport = {}\n{more}", port.port());
    let options = Options { weights: vec![0.0, 1.0, 1.0], auth, ..Options::default() };
    Some((Proxy::start(cluster, &options), port))
}

/// Status, head and body of one request on a connection of its own.
fn request(port: u16, method: &str, target: &str, accept: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let text = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn get(port: u16, target: &str) -> (u16, String) {
    let (status, _, body) = request(port, "GET", target, "*/*");
    (status, body)
}

/// The samples of a page by their name and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').expect("a value"))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

fn conf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

/// The path of a program, or an outcry that it is missing.
fn program(test: &str, name: &str) -> Option<PathBuf> {
    let found = programs::on_path(name);
    if found.is_none() {
        common::skip(test, &format!("without {name}"));
    }
    found
}

#[test]
fn metrics_pass_promtool_in_and_tell_the_truth() {
    let Some((proxy, web)) = start("[log]\ntimed_every = 1\n") else { return };
    let cluster = common::cluster().expect("it is there");
    let db = database(cluster, "web");
    let mut client = RawClient::login(proxy.port(), &db);
    client.query("CREATE TABLE t (n int)");
    for number in 0..50 {
        client.query(&format!("INSERT INTO t VALUES ({number})"));
    }
    client.query("SELECT nothing");
    let page = || samples(&get(web.port(), "/metrics").1);
    eventually("all servers are up", || {
        (0..3).all(|node| {
            page()
                .iter()
                .any(|(name, value)| name.starts_with(&format!("pgherd_node_up{{node=\"{node}\"")) && *value == 1.0)
        })
    });
    let upstream = format!("127.0.0.1:{}", cluster.primary().port());
    let stream = format!(
        "pgherd_node_replication{{node=\"1\",state=\"streaming\",sync_state=\"async\",upstream=\"{upstream}\",slot=\"standby1\"}}"
    );
    eventually("a standby's stream is known", || page().get(&stream) == Some(&1.0));
    let all = page();
    let value = |name: &str| *all.get(name).unwrap_or_else(|| panic!("no {name} in {all:#?}"));
    assert_eq!(value("pgherd_statements_total{node=\"0\",kind=\"insert\"}"), 50.0);
    assert_eq!(value("pgherd_statement_seconds_count{node=\"0\",kind=\"write\",phase=\"total\"}"), 50.0);
    assert!(value("pgherd_statement_seconds_sum{node=\"0\",kind=\"write\",phase=\"server\"}") > 0.0);
    assert!(value("pgherd_server_errors_total{node=\"0\",severity=\"error\"}") >= 1.0);
    assert!(value("pgherd_health_probe_seconds_count{node=\"2\"}") >= 1.0);
    assert!(value("pgherd_connect_seconds_count{node=\"0\"}") >= 1.0);
    assert!(value("pgherd_events_total{event=\"primary\",severity=\"info\"}") >= 1.0);
    assert!(value(&format!("pgherd_pool_open{{node=\"0\",database=\"{db}\",user=\"postgres\"}}")) >= 1.0);
    assert!(value("pgherd_requests_total{target=\"primary\",reason=\"write\"}") >= 50.0);
    assert_eq!([value("pgherd_clients"), value("pgherd_primary_known"), value("pgherd_writes_open")], [1.0; 3]);

    let open = request(web.port(), "GET", "/metrics", "application/openmetrics-text; version=1.0.0,text/plain;q=0.5");
    assert!(open.1.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", open.1);
    assert!(open.2.ends_with("# EOF\n") && open.2.contains("# TYPE pgherd_statements counter\n"), "{}", open.2);

    let Some(promtool) = program("metrics_pass_promtool_in_and_tell_the_truth", "promtool") else { return };
    let text = get(web.port(), "/metrics").1;
    let checked =
        programs::run(Command::new(promtool).args(["check", "metrics"]), text.as_bytes(), Duration::from_secs(20));
    let checked = checked.expect("promtool ends");
    assert!(checked.status.success(), "{}{}", checked.text(), checked.complaint());
    assert_eq!(
        format!("{}{}", checked.text(), checked.complaint()).trim(),
        "",
        "promtool has nothing to complain about"
    );
}

#[test]
fn a_real_prometheus_scrapes_it_and_loads_the_rules() {
    const TEST: &str = "a_real_prometheus_scrapes_it_and_loads_the_rules";
    let Some((_proxy, web)) = start("") else { return };
    let (Some(prometheus), Some(promtool)) = (program(TEST, "prometheus"), program(TEST, "promtool")) else { return };
    for arguments in [["check", "rules"], ["check", "config"]] {
        let file = if arguments[1] == "rules" { "prometheus/alerts.yml" } else { "prometheus/prometheus.yml" };
        let mut command = Command::new(&promtool);
        programs::succeed(command.args(arguments).arg(conf(file)), b"", Duration::from_secs(20)).expect(file);
    }
    let folder = Folder::new(Owner::unprivileged().expect("an owner")).expect("a folder");
    let port = PortLock::any().expect("a port");
    let text = std::fs::read_to_string(conf("prometheus/prometheus.yml")).expect("the example");
    let text = text.replace("127.0.0.1:9899", &format!("127.0.0.1:{}", web.port())).replace("15s", "1s");
    std::fs::write(folder.path().join("prometheus.yml"), text).expect("written");
    std::fs::copy(conf("prometheus/alerts.yml"), folder.path().join("alerts.yml")).expect("copied");
    let log = std::fs::File::create(folder.path().join("log")).expect("a log");
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{}", port.port()));
    command.stdout(log.try_clone().expect("a handle")).stderr(log);
    let mut process = command.spawn().expect("it starts");
    let ask = |target: &str| -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port.port())) else { return String::new() };
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
        let text = format!("GET {target} HTTP/1.0\r\nHost: test\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        answer
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("it has scraped", || ask("/api/v1/query?query=pgherd_node_up").matches("\"value\":").count() == 3);
        eventually("the rules are loaded and well", || {
            let rules = ask("/api/v1/rules");
            rules.contains("PgherdNoPrimary") && rules.matches("\"health\":\"ok\"").count() == 13
        });
        dashboard(&ask);
    }));
    let _ = process.kill();
    let _ = process.wait();
    if let Err(panic) = outcome {
        eprintln!("{}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
        std::panic::resume_unwind(panic);
    }
}

/// Each query of the dashboard is one that Prometheus takes.
fn dashboard(ask: &dyn Fn(&str) -> String) {
    let text = std::fs::read_to_string(conf("grafana/pgherd.json")).expect("the dashboard");
    let board: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = 0;
    for panel in board["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("queries") {
            let query =
                target["expr"].as_str().expect("a query").replace("$instance", ".*").replace("$__rate_interval", "1m");
            let bytes: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let answer = ask(&format!("/api/v1/query?query={bytes}"));
            assert!(answer.contains("\"status\":\"success\""), "{query}: {answer}");
            queries += 1;
        }
    }
    assert!(queries > 20);
}

#[test]
fn patronis_paths_have_its_status_codes() {
    let Some((_proxy, web)) = start("") else { return };
    let status = |target: &str| get(web.port(), target).0;
    eventually("all servers are used", || (0..3).all(|node| status(&format!("/health?node={node}")) == 200));
    for (target, wanted) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/primary", 200),
        ("/leader", 200),
        ("/", 200),
        ("/replica", 200),
        ("/read-only", 200),
        ("/health", 200),
        ("/liveness", 200),
        ("/cluster", 200),
        ("/primary?node=0", 200),
        ("/replica?node=0", 503),
        ("/read-only?node=0", 200),
        ("/primary?node=1", 503),
        ("/replica?node=standby1", 200),
        ("/replica?node=1&lag=10GB", 200),
        ("/replica?lag=much", 400),
        ("/asynchronous?node=1", 200),
        ("/synchronous?node=1", 503),
        ("/quorum?node=1", 503),
        ("/read-only-sync?node=0", 200),
        ("/read-only-sync?node=1", 503),
        ("/read-only-quorum", 200),
        ("/standby-leader", 503),
        ("/standby_leader?node=1", 503),
        ("/read-write", 200),
        ("/readiness", 200),
        ("/patroni", 200),
        ("/patroni?node=2", 200),
        ("/patroni?node=9", 404),
        ("/primary?node=9", 404),
        ("/nosuch", 404),
    ] {
        let (got, body) = get(web.port(), target);
        assert_eq!(got, wanted, "{target}: {body}");
    }
    let cluster: serde_json::Value = serde_json::from_str(&get(web.port(), "/cluster").1).expect("JSON");
    let roles: Vec<_> =
        cluster["members"].as_array().expect("members").iter().map(|one| one["role"].as_str()).collect();
    assert_eq!(roles, [Some("leader"), Some("replica"), Some("replica")]);
    assert_eq!(cluster["members"][1]["state"], "streaming");
    assert_eq!(
        [&cluster["members"][0]["slot"], &cluster["members"][1]["slot"]],
        [&serde_json::Value::Null, &"standby1".into()]
    );
    let (status, head, body) = request(web.port(), "HEAD", "/primary", "*/*");
    assert!(status == 200 && body.is_empty() && head.contains("content-length:"), "{head}");
    for (method, target, wanted) in [
        ("OPTIONS", "/replica", 200),
        ("OPTIONS", "/standby-leader", 503),
        ("HEAD", "/standby-leader", 503),
        ("HEAD", "/patroni", 200),
    ] {
        let (status, head, body) = request(web.port(), method, target, "*/*");
        assert!(status == wanted && body.is_empty(), "{method} {target}: {head} {body}");
    }
    assert_eq!(request(web.port(), "POST", "/primary", "*/*").0, 405);
}

/// What another host is told.
fn from_elsewhere(port: u16) -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let address = |last: u8, port: u16| std::net::SocketAddr::from(([127, 0, 0, last], port)).into();
    socket.bind(&address(2, 0)).expect("bound");
    socket.connect(&address(1, port)).expect("it listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn hostile_clients_of_the_web_disturb_nobody() {
    let Some((proxy, web)) = start("") else { return };
    let connect = || TcpStream::connect(("127.0.0.1", web.port())).expect("it listens");
    let mut long = connect();
    let _ = long.write_all(&[b"GET /".to_vec(), vec![b'a'; 100_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat());
    let mut garbage = connect();
    let _ = garbage.write_all(b"\x16\x03\x01 not http at all\r\n\r\n");
    for mut stream in [long, garbage] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // A host that says nothing holds its own places, and no others.
    let silent: Vec<_> = (0..100).map(|_| connect()).collect();
    assert!(from_elsewhere(web.port()).starts_with("HTTP/1.1 200"));
    let mut client = RawClient::try_login(proxy.port(), "postgres", "postgres").expect("clients are served");
    assert_eq!(client.values("SELECT 1"), ["1"]);
    drop(silent);
    eventually("it answers again", || {
        std::panic::catch_unwind(|| get(web.port(), "/healthz")).is_ok_and(|answer| answer.0 == 200)
    });
}

#[test]
fn a_hundred_scrapes_a_second_are_answered_while_statements_run() {
    let Some((proxy, web)) = start("") else { return };
    let mut client = RawClient::try_login(proxy.port(), "postgres", "postgres").expect("a login");
    let begun = Instant::now();
    let (mut scrapes, mut statements) = (0, 0);
    while begun.elapsed() < Duration::from_secs(2) {
        while u128::from(scrapes as u64) * 10 <= begun.elapsed().as_millis() {
            assert_eq!(get(web.port(), "/metrics").0, 200);
            scrapes += 1;
        }
        assert_eq!(client.values("SELECT 1"), ["1"]);
        statements += 1;
    }
    // On a machine that does many other things at once this is what can be asked for; the counts say what it was.
    println!("{scrapes} scrapes and {statements} statements in two seconds");
    assert!(scrapes > 10 && statements > 10);
}
