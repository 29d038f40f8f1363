//! Long texts and slow logins hold nobody up (SESSIONS R14): what a data thread reads itself, what its helpers do for it.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgherd::auth::scram::Verifier;

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, query};
use crate::common::{self, SOON, database, eventually};
use crate::tools::{HERE, Over, code, extended, is_standby, ran_on_standby, reading, run, wait_for_catalog, with_here};

/// A read of about `size` bytes whose form nobody has sent before. The values of literals would not do: they are no part of a form.
fn read_of(size: usize, unique: &str) -> String {
    let mut text = format!("SELECT here(), 1 AS {unique} WHERE 1 IN (1");
    let mut number = 0;
    while text.len() < size {
        write!(text, ", {number}").expect("memory");
        number += 1;
    }
    text + ")"
}

#[test]
fn r14_short_texts_go_to_a_standby_at_once() {
    let Some((proxy, db)) = with_here("r14", "") else { return };
    let cluster = common::cluster().expect("it runs");
    for size in [50, 500, 1_000, 1_900] {
        for by_series in [false, true] {
            let mut client = RawClient::login(proxy.port(), &db);
            let text = read_of(size, &format!("short{size}{by_series}"));
            assert!(text.len() <= 2_048);
            let frames = if by_series { extended(&mut client, &text) } else { run(&mut client, &text) };
            assert!(is_standby(cluster, &crate::common::raw::values(&frames)[0]), "{size} bytes, the first time");
        }
    }
}

#[test]
fn r14_longer_texts_go_there_once_the_helper_has_read_them() {
    let Some((proxy, db)) = with_here("r14", "") else { return };
    let cluster = common::cluster().expect("it runs");
    for size in [2_500, 8_000, 31_000] {
        for by_series in [false, true] {
            let mut client = RawClient::login(proxy.port(), &db);
            let text = read_of(size, &format!("longer{size}{by_series}"));
            assert!(text.len() > 2_048 && text.len() <= 32_768);
            let frames = if by_series { extended(&mut client, &text) } else { run(&mut client, &text) };
            assert_eq!(code(&frames), None);
            assert!(!is_standby(cluster, &crate::common::raw::values(&frames)[0]), "{size} bytes, the first time");
            eventually("the helper has read it", || ran_on_standby(cluster, &mut client, &text));
            assert!(ran_on_standby(cluster, &mut client, &text), "{size} bytes, from then on");
        }
    }
}

#[test]
fn r14_very_long_texts_stay_on_the_primary() {
    let Some((proxy, db)) = with_here("r14", "") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut client = RawClient::login(proxy.port(), &db);
    for size in [33_500, 60_000] {
        let text = read_of(size, &format!("verylong{size}"));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            assert!(!ran_on_standby(cluster, &mut client, &text), "{size} bytes are not parsed");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn r14_what_a_long_text_writes_is_known_without_the_parser() {
    let Some((proxy, db)) = with_here("r14", "consistency = \"eventual\"") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE t (n int); CREATE SEQUENCE s");
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut client);
    for size in [2_500, 20_000, 40_000] {
        let writes = [" AND nextval('s') > 0", " AND pg_backend_pid() > 0", " FOR UPDATE"];
        for (number, write) in writes.into_iter().enumerate() {
            let text = format!("{}{write}", read_of(size, &format!("w{size}n{number}")));
            for _ in 0..3 {
                let mut fresh = RawClient::login(proxy.port(), &db);
                let frames = fresh.query(&text);
                assert_eq!(code(&frames), None, "{write}: {frames:?}");
                let ports = crate::common::raw::values(&frames);
                assert!(ports.iter().all(|port| !is_standby(cluster, port)), "{write}, {size} bytes");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// A proxy with one data thread.
fn one_thread(purpose: &str, options: Options) -> Option<(Proxy, String)> {
    if common::direct() {
        return None;
    }
    let cluster = common::cluster()?;
    let proxy = Proxy::start(cluster, &Options { listen: "threads = 1".to_owned(), ..options });
    let db = database(cluster, purpose);
    run(&mut RawClient::login(proxy.port(), &db), HERE);
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut RawClient::login(proxy.port(), &db));
    Some((proxy, db))
}

/// How long the proxy's threads of that name have run so far, and how long they have waited for a processor.
fn busy(proxy: &Proxy, name: &str) -> (Duration, Duration) {
    let (mut ran, mut waited) = (0, 0);
    for task in std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("it runs").flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim_end() == name {
            let nanos: Vec<u64> = read("schedstat").split_whitespace().filter_map(|n| n.parse().ok()).collect();
            ran += nanos.first().copied().unwrap_or(0);
            waited += nanos.get(1).copied().unwrap_or(0);
        }
    }
    (Duration::from_nanos(ran), Duration::from_nanos(waited))
}

/// Latencies of a client that asks little, sorted, until `over`. What pgherd answers itself needs nobody but its data thread.
fn latencies(port: u16, db: &str, over: &AtomicBool) -> Vec<Duration> {
    let mut client = RawClient::login(port, db);
    let mut all = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        run(&mut client, "SHOW POOL_VERSION");
        all.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    all.sort_unstable();
    all
}

#[test]
fn r14_a_client_with_long_texts_does_not_hold_up_its_thread() {
    let options = reading(6, "read_only_functions = [\"here\"]");
    let Some((proxy, db)) = one_thread("r14", options) else { return };
    let over = AtomicBool::new(false);
    let enough = AtomicU32::new(0);
    let before = (busy(&proxy, "data 0"), busy(&proxy, "parser"));
    let (all, sent) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| latencies(proxy.port(), &db, &over));
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let (port, db, over, enough) = (proxy.port(), &db, &over, &enough);
                scope.spawn(move || {
                    let mut client = RawClient::login(port, db);
                    let mut sent = 0;
                    while !over.load(Ordering::Relaxed) {
                        // Those that would take a parser longest; each is new.
                        let text = read_of(30_000, &format!("s{sender}n{sent}"));
                        client.send(&query(&text)).expect("sent");
                        client.until_ready().expect("an answer");
                        sent += 1;
                        enough.fetch_add(1, Ordering::Relaxed);
                    }
                    sent
                })
            })
            .collect();
        let (begun, end) = (Instant::now(), Over(&over));
        while begun.elapsed() < Duration::from_secs(6)
            || (enough.load(Ordering::Relaxed) < 30 && begun.elapsed() < SOON)
        {
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(end);
        let sent: u32 = senders.into_iter().map(|sender| sender.join().expect("answered")).sum();
        (watching.join().expect("answered"), sent)
    });
    let p99 = all[all.len() * 99 / 100];
    let (data, starved) = busy(&proxy, "data 0");
    let (data, starved) = (data - before.0.0, starved - before.0.1);
    let parser = busy(&proxy, "parser").0 - before.1.0;
    let median = all[all.len() / 2];
    println!(
        "{sent} long texts: the data thread {data:?} and {starved:?} without a processor, the parser {parser:?}; \
         {} short ones: {median:?}, p99 {p99:?}",
        all.len()
    );
    assert!(sent > 5 && all.len() > 5, "{sent} long texts and {} short ones", all.len());
    // Whatever else this machine does, the parser's work is not the data thread's.
    assert!(parser > Duration::from_millis(3) * sent, "{sent} long texts took the parser {parser:?}");
    // Without optimization the lexer takes twenty times as long.
    let slow = if cfg!(debug_assertions) { 3 } else { 1 };
    assert!(data / sent < Duration::from_millis(20) * slow, "{sent} long texts took the data thread {data:?}");
    // Where the thread waits for a processor for longer than it works, its clients' waits say nothing about it.
    assert!(p99 < Duration::from_millis(50) * slow || starved > data, "p99 of the other client: {p99:?}");
}

/// Makes a role with the password "slow", which takes `iterations` rounds to prove.
fn slow_role(name: &str, iterations: u32) {
    let verifier = Verifier::from_password(b"slow", name.as_bytes(), iterations).to_text();
    let sql = format!("DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN PASSWORD '{verifier}'");
    common::cluster().expect("it runs").primary().psql("postgres", &sql).expect("a role");
}

/// Ends the server connections of these roles and waits until they are gone.
fn terminate_all(db: &str, names: &[&str]) {
    let primary = common::cluster().expect("it runs").primary();
    let theirs = format!("FROM pg_stat_activity WHERE datname = '{db}' AND usename IN ('{}')", names.join("', '"));
    primary.psql("postgres", &format!("SELECT count(pg_terminate_backend(pid)) {theirs}")).expect("terminated");
    eventually("they are gone", || {
        primary.psql("postgres", &format!("SELECT count(*) {theirs}")).is_ok_and(|count| count == "0")
    });
}

#[test]
fn r14_deriving_keys_does_not_hold_up_the_data_thread() {
    const ITERATIONS: u32 = 400_000;
    if common::direct() || common::cluster().is_none() {
        return;
    }
    let cluster = common::cluster().expect("it runs");
    let names = ["r14_slow_a", "r14_slow_b", "r14_slow_c"];
    names.iter().for_each(|name| slow_role(name, ITERATIONS));
    let hba = cluster.primary().data().join("pg_hba.conf");
    let old = std::fs::read_to_string(&hba).expect("it has one");
    let lines: String = names.iter().map(|name| format!("host all {name} 127.0.0.1/32 scram-sha-256\n")).collect();
    std::fs::write(&hba, format!("{lines}{old}")).expect("written");
    cluster.primary().reload().expect("reloaded");
    let users: String = names.iter().map(|name| format!("{name}:slow\n")).collect();
    let options = Options { users, size: 4, weights: vec![1.0, 0.0, 0.0], ..Options::default() };
    let Some((proxy, db)) = one_thread("r14", options) else { return };
    let over = AtomicBool::new(false);
    let (all, took) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| latencies(proxy.port(), &db, &over));
        let end = Over(&over);
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        // One after the other; a key is derived for the first server connection of each.
        for name in names {
            RawClient::try_login(proxy.port(), name, &db).expect("a login");
        }
        let took = begun.elapsed();
        // Keys are kept: another server connection of the same role costs nothing more.
        terminate_all(&db, &names);
        let begun = Instant::now();
        for name in names {
            RawClient::try_login(proxy.port(), name, &db)
                .map(|mut client| run(&mut client, "SELECT txid_current()"))
                .expect("again");
        }
        let again = begun.elapsed();
        assert!(again < took / 3, "{took:?} the first time and {again:?} the second");
        drop(end);
        (watching.join().expect("answered"), took)
    });
    std::fs::write(&hba, old).expect("written");
    cluster.primary().reload().expect("reloaded");
    let longest = *all.last().expect("some");
    println!("{} logins in {took:?}; {} answers meanwhile, the slowest in {longest:?}", names.len(), all.len());
    let each = took / u32::try_from(names.len()).expect("few");
    assert!(each > Duration::from_millis(80), "the work must be long enough to be seen: {took:?}");
    assert!(longest < each / 2, "somebody waited {longest:?} while a key was derived, which takes {each:?}");
}
