//! Mixed load for a while, with clients that vanish and servers' processes that are killed: no leaked connection, flat memory, and every
//! client finds its own answers and its own settings. `SOAK_SECONDS` says how long (20 by default; a release is tried for 1 200).

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::proxy::{Options, Proxy};
use common::raw::{Frame, RawClient, bind, copy_data, describe, execute, parse, query, sync, values};
use common::{Random, database, eventually};
use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{self, Cluster};

/// Clients at a time; the first `PINNING` of them make what pins.
const CLIENTS: usize = 12;
const PINNING: usize = 3;
/// Connections of the pool to each server.
const SIZE: u32 = 8;
/// By how much the proxy may have grown since it was warm, in bytes: buffers are kept in steps of 64 KiB.
const GROWTH: u64 = 6 << 20;
/// What a client may be told when a process under it is killed, or its server starts again.
const FORGIVEN: &[&str] = &["40001", "08006", "08007", "57P01", "57P03", "25P02"];

/// What happened.
#[derive(Default)]
struct Tally {
    good: AtomicU64,
    forgiven: AtomicU64,
    vanished: AtomicU64,
    killed: AtomicU64,
}

/// One client and what it knows of its row.
struct Worker<'a> {
    port: u16,
    db: &'a str,
    id: usize,
    random: Random,
    tally: &'a Tally,
    client: Option<RawClient>,
    /// Its row is between these.
    least: u64,
    most: u64,
    /// What it has set.
    mark: String,
    /// It sees its own temporary table.
    temporary: bool,
}

impl Worker<'_> {
    fn work(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            if self.client.is_none() {
                self.arrive();
            }
            let steps = if self.id < PINNING { 10 } else { 8 };
            match self.random.below(steps) {
                0 | 1 => self.look(),
                2 => self.write(),
                3 => self.undo(),
                4 => self.settings(),
                5 => self.prepared(),
                6 if self.random.below(4) == 0 => self.vanish(),
                8 => self.pin(),
                9 => self.unpin(),
                _ => self.sum(),
            }
        }
        self.settle();
    }

    fn arrive(&mut self) {
        self.client = RawClient::try_login(self.port, "postgres", self.db).ok();
        self.mark = String::new();
        self.temporary = false;
        if self.client.is_none() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends and reads one answer. None: it was an error that a killed process explains, or the end of the connection.
    fn ask(&mut self, bytes: &[u8]) -> Option<Vec<Frame>> {
        let client = self.client.as_mut()?;
        let answer = client.send(bytes).and_then(|()| client.until_ready());
        let Ok(frames) = answer else {
            self.client = None;
            self.tally.forgiven.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let Some(code) = frames.iter().find_map(Frame::sqlstate) else {
            self.tally.good.fetch_add(1, Ordering::Relaxed);
            return Some(frames);
        };
        assert!(FORGIVEN.contains(&code.as_str()), "client {}: {frames:?}", self.id);
        self.tally.forgiven.fetch_add(1, Ordering::Relaxed);
        match frames.last() {
            Some(last) if last.tag == b'Z' && last.body[0] != b'I' => {
                self.ask(&query("ROLLBACK"));
            }
            Some(last) if last.tag == b'Z' => {}
            _ => self.client = None,
        }
        None
    }

    fn value(&mut self, sql: &str) -> Option<String> {
        self.ask(&query(sql)).map(|frames| values(&frames).join(" "))
    }

    /// Its row is as it has left it (SESSIONS R7).
    fn look(&mut self) {
        let Some(value) = self.value(&format!("SELECT n FROM ledger WHERE id = {}", self.id)) else { return };
        let value: u64 = value.parse().expect("a number");
        assert!((self.least..=self.most).contains(&value), "{value} is not in {}..={}", self.least, self.most);
        (self.least, self.most) = (value, value);
    }

    fn write(&mut self) {
        let sql = format!("UPDATE ledger SET n = n + 1 WHERE id = {}", self.id);
        self.most += 1;
        let done = match self.random.below(3) {
            0 => self.ask(&query(&sql)).is_some(),
            1 => self.ask(&[parse("", &sql, &[]), bind("", "", &[]), execute("", 0), sync()].concat()).is_some(),
            _ => {
                self.ask(&query("BEGIN")).is_some()
                    && self.ask(&query(&sql)).is_some()
                    && self.ask(&query("COMMIT")).is_some()
            }
        };
        self.least += u64::from(done);
    }

    fn undo(&mut self) {
        let sql = format!("UPDATE ledger SET n = n + 100 WHERE id = {}", self.id);
        if self.ask(&query("BEGIN")).is_some() && self.ask(&query(&sql)).is_some() {
            self.ask(&query("ROLLBACK"));
        }
    }

    fn settings(&mut self) {
        let found = self.value("SELECT coalesce(current_setting('app.mark', true), '')");
        assert!(
            found.as_ref().is_none_or(|found| *found == self.mark),
            "client {}: {found:?}, not {}",
            self.id,
            self.mark
        );
        let mark = format!("client {} {}", self.id, self.random.below(1000));
        if self.ask(&query(&format!("SET app.mark = '{mark}'"))).is_some() {
            self.mark = mark;
        }
    }

    fn prepared(&mut self) {
        let run = [bind("", "mine", &[Some("20")]), describe(b'P', ""), execute("", 0), sync()].concat();
        let text = format!("SELECT {} + $1::int", self.id);
        let again = [common::raw::close(b'S', "mine"), parse("mine", &text, &[]), sync()].concat();
        if self.ask(&again).is_some()
            && let Some(frames) = self.ask(&run)
        {
            assert_eq!(values(&frames), [(self.id + 20).to_string()]);
        }
    }

    fn sum(&mut self) {
        if let Some(sum) = self.value("SELECT count(*) FROM ledger") {
            assert_eq!(sum, CLIENTS.to_string());
        }
    }

    fn pin(&mut self) {
        let sql = format!("CREATE TEMP TABLE IF NOT EXISTS own AS SELECT {} AS id", self.id);
        if self.ask(&query(&sql)).is_some() {
            self.temporary = true;
        }
        let lock = format!("SELECT pg_try_advisory_lock({})", self.id);
        // The session that this client left by vanishing may hold it for as long as its server needs to be cleaned.
        let asked = Instant::now();
        while let Some(got) = self.value(&lock).filter(|got| got != "t") {
            if asked.elapsed() > common::SOON {
                let mut observer = RawClient::login(self.port, self.db);
                let holders = observer.query(
                    "SELECT l.pid, l.objid, a.state, a.query, a.query_start, a.backend_start, now() FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE l.locktype = 'advisory'",
                );
                let sessions = observer.query("PGPOOL SHOW SESSIONS");
                panic!("somebody else has the lock of client {}: {got}, {holders:#?} {sessions:#?}", self.id);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.temporary
            && let Some(found) = self.value("SELECT id FROM own")
        {
            assert_eq!(found, self.id.to_string());
        }
    }

    fn unpin(&mut self) {
        self.ask(&query("DISCARD TEMP; SELECT pg_advisory_unlock_all()"));
        self.temporary = false;
    }

    /// Leaves in the middle of something that must come to nothing.
    fn vanish(&mut self) {
        self.tally.vanished.fetch_add(1, Ordering::Relaxed);
        let Some(mut client) = self.client.take() else { return };
        let bytes = match self.random.below(5) {
            0 => query(&format!("BEGIN; UPDATE ledger SET n = n + 1000 WHERE id = {}", self.id)),
            1 => query("SELECT count(*) FROM ledger, (SELECT pg_sleep(0.05)) AS s"),
            2 => [query("COPY copied FROM STDIN"), copy_data(b"1\n")].concat(),
            3 => parse("gone", "SELECT 1", &[]),
            _ => query("SELECT repeat('x', 1000000) FROM generate_series(1, 20)")[..20].to_vec(),
        };
        // It may have been thrown out already.
        drop(client.send(&bytes));
    }

    /// Its row at the end, once nothing under way can change it any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.arrive();
            self.look();
            if self.least == self.most {
                return;
            }
        }
        panic!("client {} could not look at its row", self.id);
    }
}

/// Kills single server processes at random, softly and, now and then, hard.
fn killer(cluster: &Cluster, db: &str, over: &AtomicBool, tally: &Tally) {
    let mut random = Random::new(7);
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        round += 1;
        std::thread::sleep(Duration::from_millis(200 + random.below(300) as u64));
        let server = &cluster.servers()[random.below(3)];
        let pick = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{db}' ORDER BY random() LIMIT 1");
        let Ok(pid) = server.psql("postgres", &pick).map(|pid| pid.trim().to_owned()) else { continue };
        let Ok(number) = pid.parse::<i32>() else { continue };
        tally.killed.fetch_add(1, Ordering::Relaxed);
        if round % 50 == 0 {
            // The whole server starts again after this.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGKILL);
        } else {
            drop(server.psql("postgres", &format!("SELECT pg_terminate_backend({pid})")));
        }
    }
}

fn connections(cluster: &Cluster, db: &str, condition: &str) -> Vec<u32> {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}' AND {condition}");
    let count = |server: &pgherd::app::demo::server::Server| {
        server.psql("postgres", &sql).ok().and_then(|count| count.trim().parse().ok()).unwrap_or(u32::MAX)
    };
    cluster.servers().iter().map(count).collect()
}

#[test]
fn mixed_load_with_killed_clients_and_servers() {
    if common::direct() {
        return;
    }
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    // A cluster of its own: its servers start again in between.
    let settings = vec![("wal_keep_size".to_owned(), "256MB".to_owned())];
    let options = cluster::Options { max_connections: 100, settings, ..cluster::Options::default() };
    let cluster = match Cluster::start(&options) {
        Err(Error::NoPostgres) => return common::skip("the soak test", "no PostgreSQL programs"),
        started => started.expect("a cluster"),
    };
    // A client that comes back with another session still must find what it wrote.
    let routing = "consistency = \"proxy\"".to_owned();
    let pool = format!("max_pinned = {}", 2 * PINNING);
    let options = Options { size: SIZE, pool, routing, ..Options::default() };
    let proxy = Proxy::start(&cluster, &options);
    let db = database(&cluster, "soak");
    let made = format!(
        "CREATE TABLE ledger (id int PRIMARY KEY, n bigint); CREATE TABLE copied (n int);
         INSERT INTO ledger SELECT g, 0 FROM generate_series(0, {}) AS g",
        CLIENTS - 1
    );
    cluster.primary().psql(&db, &made).expect("tables");
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    let (over, tally) = (AtomicBool::new(false), Tally::default());
    let mut sizes = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|id| {
                let (over, tally, db, port) = (&over, &tally, &*db, proxy.port());
                let random = Random::new(100 + id as u64);
                scope.spawn(move || {
                    let (client, mark) = (None, String::new());
                    let mut worker =
                        Worker { port, db, id, random, tally, client, least: 0, most: 0, mark, temporary: false };
                    worker.work(over);
                })
            })
            .collect();
        scope.spawn(|| killer(&cluster, &db, &over, &tally));
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !workers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_secs(1));
            sizes.extend(proxy.resident());
        }
        over.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|worker| worker.join().expect("a client's answers were its own"));
    });
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (warm, last) = (sizes[sizes.len() / 5], *sizes.last().expect("it was looked at"));
    println!(
        "{seconds} s: {} answers, {} forgiven errors, {} clients vanished, {} processes killed; {} kB warm, {} kB at the end",
        count(&tally.good),
        count(&tally.forgiven),
        count(&tally.vanished),
        count(&tally.killed),
        warm >> 10,
        last >> 10
    );
    assert!(count(&tally.good) > seconds * 50 && count(&tally.killed) > seconds / 2, "too little happened");
    assert!(last < warm + GROWTH, "it grew from {warm} to {last}: {sizes:?}");
    eventually("nothing is left open or held", || {
        let open = connections(&cluster, &db, "state <> 'idle'");
        let all = connections(&cluster, &db, "true");
        let locks = cluster.primary().psql(&db, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'");
        open == [0, 0, 0] && all.iter().all(|count| *count <= SIZE) && locks.is_ok_and(|locks| locks.trim() == "0")
    });
    let mut last = RawClient::login(proxy.port(), &db);
    assert_eq!(last.values("SELECT count(*) FROM copied"), ["0"]);
    let sessions = last.query("PGPOOL SHOW SESSIONS");
    assert_eq!(sessions.iter().filter(|frame| frame.tag == b'D').count(), 1, "a session is left: {sessions:?}");
}
