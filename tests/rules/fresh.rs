//! What a read may miss (SESSIONS R7): nothing that its session wrote, nothing that it saw before, by choice nothing at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgherd::app::demo::cluster::{self, Cluster};

use crate::common::proxy::Proxy;
use crate::common::raw::{RawClient, bind, execute, parse, query, values};
use crate::common::{self, Random, SOON, database, eventually};
use crate::tools::{
    HERE, Over, breakable, code, counter, extended, is_standby, on_standbys, ran_on_standby, reading, run, series,
    table, value, wait_for_catalog, with_here,
};

/// Writes a number and reads it at once, so often; how many reads did not see it.
fn missed(port: u16, db: &str, rounds: u32) -> u32 {
    let mut client = RawClient::login(port, db);
    let mut missed = 0;
    for number in 1..=rounds {
        let seen = if number % 2 == 0 {
            run(&mut client, &format!("INSERT INTO t VALUES ({number})"));
            value(&mut client, "SELECT max(n) FROM t")
        } else {
            let text = number.to_string();
            let insert = [parse("", "INSERT INTO t VALUES ($1)", &[23]), bind("", "", &[Some(&text)]), execute("", 0)];
            assert_eq!(code(&series(&mut client, &insert)), None);
            values(&extended(&mut client, "SELECT max(n) FROM t"))[0].clone()
        };
        missed += u32::from(seen != number.to_string());
    }
    missed
}

#[test]
fn r07_two_thousand_writes_are_read_by_their_session_at_once() {
    let Some((proxy, db)) = on_standbys("r07", 4, "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE t (n int)");
    common::cluster().expect("it runs").wait_replayed(SOON).expect("standbys follow");
    assert_eq!(missed(proxy.port(), &db, 2_000), 0);
    if !common::direct() {
        wait_for_catalog(&mut client);
        let kept = counter(&mut client, "kept");
        assert!(kept > 100, "the reads were kept on the primary, and counted: {kept}");
    }
}

#[test]
fn r07_eventual_misses_what_session_does_not() {
    let Some((proxy, db)) = with_here("r07", "consistency = \"eventual\"") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE t (n int)");
    common::cluster().expect("it runs").wait_replayed(SOON).expect("standbys follow");
    eventually("the reads go to a standby", || {
        let (place, _) = crate::tools::route(&mut client, "SELECT max(n) FROM t");
        place.starts_with("standby")
    });
    let missed = missed(proxy.port(), &db, 2_000);
    assert!(missed > 0, "a standby was never behind: the test of the rule proves nothing");
    assert_eq!(counter(&mut client, "kept"), 0);
}

#[test]
fn r07_reads_return_to_the_standbys_and_miss_nothing() {
    let Some((proxy, db)) = with_here("r07", "") else { return };
    let cluster = common::cluster().expect("it runs");
    run(
        &mut RawClient::login(proxy.port(), &db),
        "CREATE TABLE marks AS SELECT id, 0 AS n FROM generate_series(1, 6) AS id",
    );
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut RawClient::login(proxy.port(), &db));
    std::thread::scope(|scope| {
        for id in 1..=6_u32 {
            let (port, db) = (proxy.port(), &db);
            scope.spawn(move || {
                let mut client = RawClient::login(port, db);
                let mut random = Random::new(u64::from(id));
                for round in 1..=25 {
                    run(&mut client, &format!("UPDATE marks SET n = {round} WHERE id = {id}"));
                    // However long it takes on this machine, the reads come back to a standby in the end.
                    let deadline = Instant::now() + SOON;
                    loop {
                        let frames = run(&mut client, &format!("SELECT here(), n FROM marks WHERE id = {id}"));
                        let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row").columns();
                        assert_eq!(row[1], Some(round.to_string()), "session {id}, at {row:?}");
                        if row[0].as_deref().is_some_and(|port| is_standby(cluster, port)) {
                            break;
                        }
                        assert!(Instant::now() < deadline, "round {round} of {id} stays on the primary");
                        std::thread::sleep(Duration::from_millis(random.below(30) as u64));
                    }
                }
            });
        }
    });
}

/// Reads a number that only grows, for some seconds, while another session makes it grow and one standby stands still. How often it went
/// back, and the standbys that were read from.
fn goes_back(cluster: &Cluster, proxy: &Proxy, db: &str, stands_still: usize) -> (u32, Vec<String>) {
    let over = AtomicBool::new(false);
    let paused = cluster.standby(stands_still);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = RawClient::login(proxy.port(), db);
            while !over.load(Ordering::Relaxed) {
                run(&mut writer, "INSERT INTO t VALUES (1)");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let end = Over(&over);
        let (mut back, mut last, mut rounds, mut ports) = (0, 0, 0, Vec::new());
        let mut client = RawClient::login(proxy.port(), db);
        let begun = Instant::now();
        let mut still = false;
        while begun.elapsed() < Duration::from_secs(5) {
            if !still && begun.elapsed() > Duration::from_millis(500) {
                paused.psql("postgres", "SELECT pg_wal_replay_pause()").expect("paused");
                still = true;
            }
            let frames = run(&mut client, "SELECT here(), count(*) FROM t");
            let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row").columns();
            let count: u64 = row[1].as_deref().and_then(|count| count.parse().ok()).expect("a number");
            back += u32::from(count < last);
            last = count;
            rounds += 1;
            if rounds % 50 == 0 {
                // Without a sample that is newer than its last read it stays where it is.
                std::thread::sleep(Duration::from_millis(250));
            }
            let port = row[0].clone().unwrap_or_default();
            if is_standby(cluster, &port) && !ports.contains(&port) {
                ports.push(port);
            }
        }
        drop(end);
        (back, ports)
    });
    paused.psql("postgres", "SELECT pg_wal_replay_resume()").expect("resumed");
    result
}

#[test]
fn r07_reads_never_go_back_in_time() {
    if common::direct() {
        return;
    }
    let Some(guard) = breakable() else { return };
    let cluster = guard.as_ref().expect("it runs");
    for (consistency, may_go_back) in [("session", false), ("eventual", true)] {
        let routing =
            format!("statement_level = true\nconsistency = \"{consistency}\"\nread_only_functions = [\"here\"]");
        let proxy = Proxy::start(cluster, &reading(4, &routing));
        let db = database(cluster, "r07");
        let mut client = RawClient::login(proxy.port(), &db);
        run(&mut client, HERE);
        run(&mut client, "CREATE TABLE t (n int)");
        cluster.wait_replayed(SOON).expect("standbys follow");
        wait_for_catalog(&mut client);
        let (back, ports) = goes_back(cluster, &proxy, &db, 0);
        assert_eq!(back > 0, may_go_back, "{consistency}: {back} times");
        assert!(ports.contains(&cluster.standby(1).port().to_string()), "{consistency}: read on {ports:?} only");
        cluster.wait_replayed(SOON).expect("standbys follow");
    }
}

#[test]
fn r07_a_session_does_not_move_to_a_standby_behind_the_one_it_read_last() {
    if common::direct() {
        return;
    }
    let Some(guard) = breakable() else { return };
    let cluster = guard.as_ref().expect("it runs");
    let proxy = Proxy::start(cluster, &reading(4, "read_only_functions = [\"here\"]"));
    let db = database(cluster, "r07");
    let mut writer = RawClient::login(proxy.port(), &db);
    run(&mut writer, HERE);
    run(&mut writer, "CREATE TABLE t (n int)");
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut writer);
    let mut reader = RawClient::login(proxy.port(), &db);
    let read = |reader: &mut RawClient| {
        let frames = run(reader, "SELECT here(), count(*) FROM t");
        let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row").columns();
        (row[0].clone().unwrap_or_default(), row[1].clone().unwrap_or_default())
    };
    let (own, _) = read(&mut reader);
    assert!(is_standby(cluster, &own), "it has written nothing: a standby");
    let own = usize::from(cluster.standby(1).port().to_string() == own);
    let other = cluster.standby(1 - own);
    other.psql("postgres", "SELECT pg_wal_replay_pause()").expect("paused");
    eventually("it is paused", || {
        other.psql("postgres", "SELECT pg_get_wal_replay_pause_state()").is_ok_and(|state| state == "paused")
    });
    run(&mut writer, "INSERT INTO t VALUES (1)");
    eventually("the session's own standby has it", || read(&mut reader).1 == "1");
    cluster.standby(own).stop_fast().expect("stopped");
    let seen: Vec<_> = (0..20)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            read(&mut reader)
        })
        .collect();
    let fresh = RawClient::try_login(proxy.port(), "postgres", &db).map(|mut fresh| read(&mut fresh));
    other.psql("postgres", "SELECT pg_wal_replay_resume()").expect("resumed");
    cluster.standby(own).start().expect("started again");
    assert!(seen.iter().all(|(_, count)| count == "1"), "{seen:?}");
    assert!(seen.iter().all(|(port, _)| !is_standby(cluster, port)), "it waits on the primary: {seen:?}");
    let (port, count) = fresh.expect("a login");
    assert_eq!((is_standby(cluster, &port), count.as_str()), (true, "0"), "one that has seen nothing may read there");
    eventually("the standbys are back", || cluster.wait_replayed(Duration::from_secs(1)).is_ok());
}

/// One session writes and another reads at once; how many reads did not see it.
fn others_missed(proxy: &Proxy, db: &str, rounds: u32) -> u32 {
    let mut writer = RawClient::login(proxy.port(), db);
    let mut reader = RawClient::login(proxy.port(), db);
    let mut missed = 0;
    for number in 1..=rounds {
        run(&mut writer, &format!("INSERT INTO t VALUES ({number})"));
        missed += u32::from(value(&mut reader, "SELECT max(n) FROM t") != number.to_string());
    }
    missed
}

#[test]
fn r07_proxy_consistency_shows_every_session_what_any_session_wrote() {
    for (consistency, misses) in [("proxy", false), ("session", true)] {
        let Some((proxy, db)) = with_here("r07", &format!("consistency = \"{consistency}\"")) else { return };
        run(&mut RawClient::login(proxy.port(), &db), "CREATE TABLE t (n int)");
        let cluster = common::cluster().expect("it runs");
        cluster.wait_replayed(SOON).expect("standbys follow");
        wait_for_catalog(&mut RawClient::login(proxy.port(), &db));
        let missed = others_missed(&proxy, &db, 2_000);
        assert_eq!(missed > 0, misses, "{consistency}: {missed}");
        // The reads come back to the standbys when nobody writes.
        let mut reader = RawClient::login(proxy.port(), &db);
        eventually("a standby has it all", || ran_on_standby(cluster, &mut reader, "SELECT here(), max(n) FROM t"));
    }
}

#[test]
fn r07_a_write_counts_before_anyone_hears_of_it() {
    let Some((proxy, db)) = with_here("r07", "consistency = \"proxy\"") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut writer = RawClient::login(proxy.port(), &db);
    run(&mut writer, "CREATE TABLE t (n int)");
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut writer);
    let mut reader = RawClient::login(proxy.port(), &db);
    for number in 1..=15 {
        eventually("it reads on a standby", || ran_on_standby(cluster, &mut reader, "SELECT here(), max(n) FROM t"));
        // The answer to the write comes while the writer's connection still has work to do.
        let insert = query(&format!("INSERT INTO t VALUES ({number})"));
        writer.send(&[insert, query("SELECT pg_sleep(0.2)")].concat()).expect("sent");
        assert_eq!(code(&writer.until_ready().expect("an answer")), None);
        let frames = run(&mut reader, "SELECT here(), max(n) FROM t");
        let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row").columns();
        assert_eq!(row[1], Some(number.to_string()));
        assert!(!is_standby(cluster, row[0].as_deref().unwrap_or_default()), "no sample can be as new");
        writer.until_ready().expect("an answer");
    }
}

/// Ways to write, the hidden ones included; a session that did one must see it.
const WAYS: &[&str] = &[
    "INSERT INTO t VALUES (1)",
    "WITH w AS (INSERT INTO t VALUES (2) RETURNING n) SELECT * FROM w",
    "SELECT adds()",
    "SELECT count(adds()) FROM generate_series(1, 3)",
    "SELECT * FROM adds()",
    "SELECT hides_it()",
    "DO $$ BEGIN PERFORM adds(); END $$",
    "CALL calls()",
    "SELECT * FROM writing_view",
    "INSERT INTO fires VALUES (1)",
    "COPY t FROM PROGRAM 'echo 7'",
    "EXPLAIN ANALYZE INSERT INTO t VALUES (5)",
    "EXPLAIN (ANALYZE) SELECT adds()",
    "SELECT 1; INSERT INTO t VALUES (6)",
    "INSERT INTO t VALUES (8); SELECT 1",
    "UPDATE t SET n = n + 1",
    "DELETE FROM t WHERE n = 1",
    "MERGE INTO t USING (SELECT 1 AS x) AS s ON false WHEN NOT MATCHED THEN INSERT VALUES (9)",
    "BEGIN; INSERT INTO t VALUES (10); COMMIT",
    "BEGIN; INSERT INTO t VALUES (11); PREPARE TRANSACTION 'r07'",
    "COMMIT PREPARED 'r07'",
    "ALTER TABLE t ADD COLUMN more int DEFAULT 3",
    "PREPARE p AS INSERT INTO t VALUES (12); EXECUTE p; DEALLOCATE p",
    "SELECT sum(n) AS n INTO u FROM t; INSERT INTO t SELECT n FROM u",
    "TRUNCATE t",
];

const WAYS_SETUP: &str = "CREATE TABLE t (n int); CREATE TABLE fires (n int); \
    CREATE FUNCTION adds() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (100); RETURN 1; END $$; \
    CREATE FUNCTION hides_it() RETURNS int LANGUAGE sql AS 'SELECT adds()'; \
    CREATE PROCEDURE calls() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (200); END $$; \
    CREATE VIEW writing_view AS SELECT adds(); \
    CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM adds(); RETURN NEW; END $$; \
    CREATE TRIGGER also AFTER INSERT ON fires FOR EACH ROW EXECUTE FUNCTION also()";

#[test]
fn r07_whatever_writes_counts_as_a_write() {
    if common::direct() {
        return;
    }
    let Some(guard) = breakable() else { return };
    let cluster = guard.as_ref().expect("it runs");
    let proxy = Proxy::start(cluster, &reading(60, "read_only_functions = [\"here\"]"));
    let db = database(cluster, "r07");
    let mut setup = RawClient::login(proxy.port(), &db);
    run(&mut setup, HERE);
    run(&mut setup, WAYS_SETUP);
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut setup);
    for number in 0..2 {
        cluster.standby(number).psql("postgres", "SELECT pg_wal_replay_pause()").expect("paused");
    }
    let look = "SELECT concat_ws(' ', count(*), sum(n)) FROM t";
    let mut straight = RawClient::login(cluster.primary().port(), &db);
    let mut wrong = Vec::new();
    for way in WAYS {
        let mut client = RawClient::login(proxy.port(), &db);
        if !ran_on_standby(cluster, &mut client, "SELECT here()") {
            wrong.push(format!("{way}: it has not written and reads on the primary"));
        }
        // Half of the sessions write by the extended protocol, where a text may hold one statement.
        let frames =
            if way.len() % 2 == 0 && !way.contains(';') { extended(&mut client, way) } else { client.query(way) };
        if let Some(error) = code(&frames) {
            wrong.push(format!("{way}: {error}"));
        }
        let want = value(&mut straight, look);
        let at_once = value(&mut client, look);
        std::thread::sleep(Duration::from_millis(250));
        let later = value(&mut client, look);
        if at_once != want || later != want {
            wrong.push(format!("{way}: {want} straight, but {at_once} at once and {later} later"));
        }
    }
    for number in 0..2 {
        cluster.standby(number).psql("postgres", "SELECT pg_wal_replay_resume()").expect("resumed");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.wait_replayed(SOON).expect("standbys follow");
    let mut client = RawClient::login(proxy.port(), &db);
    eventually("reads are on the standbys again", || ran_on_standby(cluster, &mut client, "SELECT here()"));
}

#[test]
fn r07_reads_kept_on_the_primary_and_the_age_of_samples_are_counted() {
    let Some((proxy, db)) = with_here("r07", "") else { return };
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "CREATE TABLE t (n int)");
    eventually("it reads on a standby", || {
        ran_on_standby(common::cluster().expect("it runs"), &mut client, "SELECT here(), count(*) FROM t")
    });
    let ages = |client: &mut RawClient| -> Vec<u64> {
        (0..3).map(|node| counter(client, &format!("sample_age_ms_node_{node}"))).collect()
    };
    assert!(ages(&mut client).iter().all(|&age| age < 5_000), "half a second apart, when nobody asks");
    let before = counter(&mut client, "kept");
    run(&mut client, "INSERT INTO t VALUES (1)");
    for _ in 0..5 {
        value(&mut client, "SELECT count(*) FROM t");
    }
    let kept = counter(&mut client, "kept") - before;
    assert!((1..=5).contains(&kept), "{kept}");
    // While somebody waits, samples are asked for ten times a second.
    let (mut youngest, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < Duration::from_secs(2) {
        run(&mut client, "INSERT INTO t VALUES (1)");
        value(&mut client, "SELECT count(*) FROM t");
        youngest.push(ages(&mut client)[0]);
    }
    youngest.sort_unstable();
    assert!(youngest[youngest.len() / 2] < 400, "{youngest:?}");
}

#[test]
fn r07_a_new_epoch_voids_old_samples() {
    if common::direct() || common::cluster().is_none() {
        return;
    }
    let cluster = Cluster::start(&cluster::Options::default()).expect("a cluster to promote");
    let proxy = Proxy::start(&cluster, &reading(4, "read_only_functions = [\"here\"]"));
    let db = database(&cluster, "r07");
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, HERE);
    run(&mut client, "CREATE TABLE t (n int)");
    cluster.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut client);
    eventually("it reads on a standby", || ran_on_standby(&cluster, &mut client, "SELECT here()"));
    let epoch = |client: &mut RawClient| {
        let nodes = table(&run(client, "PGPOOL SHOW NODES"));
        nodes[0]["epoch"].parse::<u64>().expect("a number")
    };
    let before = epoch(&mut client);
    // The last standby stays behind on the old timeline, whose positions say nothing about the new one.
    cluster.primary().kill9().expect("killed");
    cluster.standby(0).psql("postgres", "SELECT pg_promote()").expect("promoted");
    eventually("there is a primary again", || code(&client.query("INSERT INTO t VALUES (0)")).is_none());
    assert!(epoch(&mut client) > before);
    let old = table(&run(&mut client, "PGPOOL SHOW COUNTERS"));
    assert!(!old.iter().any(|row| row["name"] == "sample_age_ms_node_0"), "the dead primary's sample: {old:?}");
    for number in 1..=100 {
        run(&mut client, &format!("INSERT INTO t VALUES ({number})"));
        let frames = run(&mut client, "SELECT here(), max(n) FROM t");
        let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row").columns();
        assert_eq!(row[1], Some(number.to_string()), "{row:?}");
        std::thread::sleep(Duration::from_millis(15));
    }
    let follow = format!(
        "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port={} user=postgres sslmode=disable'; \
         ALTER SYSTEM SET primary_slot_name = ''",
        cluster.standby(0).port()
    );
    for statement in follow.split("; ") {
        cluster.standby(1).psql("postgres", statement).expect("told");
    }
    cluster.standby(1).reload().expect("reloaded");
    let last = cluster.standby(1).port().to_string();
    // When it is used again it streams, and may still lack rows: who has written before sees all of them.
    eventually("the other standby follows and serves", || {
        let mut fresh = RawClient::login(proxy.port(), &db);
        run(&mut fresh, "INSERT INTO t VALUES (100)");
        (0..20).any(|_| {
            let frames = run(&mut fresh, "SELECT here(), max(n) FROM t");
            let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row").columns();
            assert_eq!(row[1].as_deref(), Some("100"), "{row:?}");
            std::thread::sleep(Duration::from_millis(20));
            row[0].as_deref() == Some(&last)
        })
    });
}
