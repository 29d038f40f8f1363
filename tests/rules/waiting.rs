//! Leases without deadlock (SESSIONS R15), in order (R16), and both directions at once (R17).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{RawClient, bind, execute, parse, query, sync};
use crate::common::{self, Random};
use crate::tools::{on_primary, run, value};

#[test]
fn r15_pools_of_one_and_many_sessions_never_wait_for_each_other() {
    let Some(cluster) = common::cluster() else { return };
    let options = Options { size: 1, pool: "queue_timeout = \"30s\"".into(), ..Options::default() };
    let proxy = Proxy::start(cluster, &options);
    let db = common::database(cluster, "r15");
    run(&mut RawClient::login(proxy.port(), &db), "CREATE TABLE t (n int); INSERT INTO t VALUES (0)");
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    std::thread::scope(|scope| {
        for seed in 1..=12 {
            let (port, db) = (proxy.port(), &db);
            scope.spawn(move || {
                let mut client = RawClient::login(port, db);
                let mut random = Random::new(seed);
                for _ in 0..25 {
                    let begin = random.pick(&[
                        "BEGIN",
                        "BEGIN ISOLATION LEVEL REPEATABLE READ",
                        "SELECT 1",
                        "START TRANSACTION",
                    ]);
                    run(&mut client, begin);
                    for _ in 0..random.below(4) {
                        match random.below(3) {
                            0 => drop(value(&mut client, "SELECT count(*) FROM t")),
                            1 => drop(value(&mut client, "SELECT max(n) FROM t")),
                            _ => drop(run(&mut client, "INSERT INTO t VALUES (1)")),
                        }
                    }
                    run(&mut client, "COMMIT");
                }
            });
        }
    });
}

#[test]
fn r16_fifty_clients_on_one_connection_are_all_served() {
    let Some((proxy, db)) = on_primary("r16", 1, "queue_timeout = \"60s\"") else { return };
    run(&mut RawClient::login(proxy.port(), &db), "CREATE TABLE t (n int)");
    let over = AtomicBool::new(false);
    let served: Vec<(u32, Duration)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let (port, db, over) = (proxy.port(), &db, &over);
                scope.spawn(move || {
                    let mut client = RawClient::login(port, db);
                    let (mut count, mut longest) = (0, Duration::ZERO);
                    while !over.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        run(&mut client, "SELECT pg_sleep(0.001)");
                        longest = longest.max(begun.elapsed());
                        count += 1;
                    }
                    (count, longest)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(4));
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("served")).collect()
    });
    let (least, most) = (served.iter().map(|s| s.0).min().unwrap_or(0), served.iter().map(|s| s.0).max().unwrap_or(0));
    let longest = served.iter().map(|s| s.1).max().unwrap_or_default();
    if !common::direct() {
        assert!(least * 3 >= most && least > 0, "between {least} and {most} statements for each");
        assert!(longest < Duration::from_secs(2), "one waited for {longest:?}");
    }
}

#[test]
fn r17_a_pipeline_that_is_not_read_meanwhile() {
    let Some((proxy, db)) = on_primary("r17", 2, "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    // 20 000 series of 100 bytes each are sent by one thread while another one reads the answers, twice as large.
    let one = [parse("", "SELECT repeat('x', 200), $1::int", &[]), bind("", "", &[Some("1")]), execute("", 0), sync()]
        .concat();
    let all: Vec<u8> = std::iter::repeat_n(one, 20_000).flatten().collect();
    let mut writer = client.stream().try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &all));
    // The client begins to read only after a while: the pipes are full by then.
    std::thread::sleep(Duration::from_millis(500));
    let mut rows = 0;
    for number in 0..20_000 {
        let frames = client.until_ready().unwrap_or_else(|error| panic!("answer {number}: {error}"));
        rows += frames.iter().filter(|frame| frame.tag == b'D').count();
    }
    sending.join().expect("it ends").expect("all was sent");
    assert_eq!(rows, 20_000);
    assert_eq!(value(&mut client, "SELECT 1"), "1");
}

#[test]
fn r17_copy_in_that_fails_early_is_heard_while_data_still_flows() {
    let Some((proxy, db)) = on_primary("r17", 2, "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE t (n int)");
    client.send(&query("COPY t FROM STDIN")).expect("sent");
    client.until(|frame| frame.tag == b'G').expect("copy in");
    let line = crate::common::raw::copy_data(&b"not a number\n".repeat(1000));
    for _ in 0..500 {
        client.send(&line).expect("sent");
    }
    client.send(&crate::common::raw::copy_done()).expect("sent");
    let frames = client.until_ready().expect("an answer");
    assert_eq!(crate::tools::code(&frames).as_deref(), Some("22P02"));
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "0");
}

#[test]
fn r17_a_slow_reader_stalls_only_itself() {
    let Some((proxy, db)) = on_primary("r17", 3, "") else { return };
    let mut slow = RawClient::login(proxy.port(), &db);
    slow.send(&query("SELECT repeat('x', 1000) FROM generate_series(1, 60000)")).expect("sent");
    let mut others: Vec<RawClient> = (0..8).map(|_| RawClient::login(proxy.port(), &db)).collect();
    let mut rows = 0;
    for _ in 0..100 {
        for _ in 0..50 {
            rows += u32::from(slow.skim().expect("a message").0 == b'D');
        }
        let begun = Instant::now();
        for other in &mut others {
            run(other, "SELECT 1");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "the others waited for {:?}", begun.elapsed());
    }
    loop {
        let (tag, _) = slow.skim().expect("a message");
        rows += u32::from(tag == b'D');
        if tag == b'Z' {
            break;
        }
    }
    assert_eq!(rows, 60_000);
}

#[test]
fn r17_who_says_goodbye_with_the_request_and_reads_slowly_gets_the_whole_answer() {
    let Some((proxy, db)) = on_primary("r17", 8, "") else { return };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Company: short answers go out together with others.
        for _ in 0..4 {
            let (port, db, over) = (proxy.port(), &db, &over);
            scope.spawn(move || {
                let mut client = RawClient::login(port, db);
                while !over.load(Ordering::Relaxed) {
                    run(&mut client, "SELECT 1");
                }
            });
        }
        for round in 0..6 {
            let mut slow = RawClient::login(proxy.port(), &db);
            let (count, terminate) = (20_000 + round, [b'X', 0, 0, 0, 4]);
            let text = format!("SELECT repeat('x', 1000) FROM generate_series(1, {count})");
            slow.send(&[query(&text), terminate.to_vec()].concat()).expect("sent");
            let (mut rows, mut last) = (0, 0);
            while let Ok((tag, _)) = slow.skim() {
                rows += u32::from(tag == b'D');
                last = tag;
                if rows % 200 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            assert_eq!((rows, last), (count, b'Z'));
        }
        over.store(true, Ordering::Relaxed);
    });
}
