//! The clients that run through every scenario: (a) a probe with a new connection and a read each second, (b) the same with a write, (c)
//! eight sessions that read and write each 100 ms, and (d) twelve that only read, for what a session writes keeps its reads on the primary
//! for a moment. Must not know what goes wrong.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::common::raw::RawClient;
use crate::world::{World, table};

/// How long a new connection may take, login included, as in the report.
const CONNECT: Duration = Duration::from_secs(1);
/// Longer than statements are held.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of clients of an address that moves: a host that has vanished never ends a session.
const IMPATIENT: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(100);
/// Numbers of the clients: 0 to 7 are sessions (c), up to 19 sessions (d).
const SESSIONS: usize = 8;
const ALL_SESSIONS: usize = 20;
const READER: usize = 100;
const WRITER: usize = 101;

/// A row that was acknowledged: by which server, on which timeline, and when it was sent and answered.
#[derive(Debug, Clone)]
pub struct Row {
    pub client: usize,
    pub number: u64,
    pub server: String,
    pub timeline: String,
    pub sent: Instant,
    pub answered: Instant,
}

/// What failed, and when it was sent.
#[derive(Debug, Clone)]
pub struct Failure {
    pub sent: Instant,
    pub what: String,
}

/// What one client saw.
#[derive(Debug)]
pub struct Seen {
    pub client: usize,
    pub good: u64,
    pub failures: Vec<Failure>,
    /// Its session ended.
    pub dropped: u32,
    pub rows: Vec<Row>,
    /// Numbers of writes whose outcome it was told to be unknown.
    pub unknown: BTreeSet<u64>,
    /// When reads, and when writes, succeeded.
    pub successes: [Vec<Instant>; 2],
    begun: Instant,
    ended: Instant,
}

impl Seen {
    fn new(client: usize) -> Self {
        let (begun, ended) = (Instant::now(), Instant::now());
        let (failures, rows, unknown) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { client, good: 0, failures, dropped: 0, rows, unknown, successes: [Vec::new(), Vec::new()], begun, ended }
    }

    /// The longest time without a success of either kind.
    fn longest(&self) -> Duration {
        let kinds = self.successes.iter().filter(|times| !times.is_empty());
        let gaps = kinds.flat_map(|times| {
            let ends = times.iter().copied().chain([self.ended]);
            [self.begun].into_iter().chain(times.iter().copied()).zip(ends).map(|(from, to)| to - from)
        });
        gaps.max().unwrap_or(self.ended - self.begun)
    }

    fn note(&mut self, sent: Instant, what: String) {
        self.failures.push(Failure { sent, what });
    }

    /// One statement, and what came of it; `None`: it failed.
    fn run(&mut self, client: &mut RawClient, sql: &str, write: Option<u64>) -> std::io::Result<()> {
        let sent = Instant::now();
        let frames = match client.try_query(sql) {
            Ok(frames) => frames,
            Err(error) => {
                self.unknown.extend(write);
                self.note(sent, format!("{:?}", error.kind()));
                return Err(error);
            }
        };
        let answered = Instant::now();
        if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
            let code = error.sqlstate().unwrap_or_default();
            if code == "08007" {
                self.unknown.extend(write);
            }
            let fatal = error.field(b'S').is_some_and(|severity| severity == "FATAL");
            self.note(sent, format!("{code} {}", error.field(b'M').unwrap_or_default()));
            return if fatal { Err(std::io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) };
        }
        self.good += 1;
        self.successes[usize::from(write.is_some())].push(answered);
        if let (Some(number), Some(row)) = (write, frames.iter().find(|frame| frame.tag == b'D')) {
            let mut columns = row.columns().into_iter().map(Option::unwrap_or_default);
            let mut next = || columns.next().unwrap_or_default();
            let (server, timeline) = (next(), next());
            self.rows.push(Row { client: self.client, number, server, timeline, sent, answered });
        }
        Ok(())
    }
}

/// The tables that they work on; a row tells which server took it, and on which timeline.
pub const TABLES: &str = "CREATE TABLE ledger (client int, n int, node text DEFAULT current_setting('cluster_name'), \
    timeline text DEFAULT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)); CREATE INDEX ON ledger (client, n); \
    CREATE TABLE shared (n int); INSERT INTO shared VALUES (0)";

fn insert(client: usize, number: u64) -> String {
    format!("INSERT INTO ledger (client, n) VALUES ({client}, {number}) RETURNING node, timeline")
}

/// Clients at work.
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
    fault: Option<Instant>,
}

impl Clients {
    /// Makes the tables if they are missing, starts all clients, and waits until each is at work.
    pub fn start(world: &World) -> Self {
        let primary = world.primary().expect("there is one");
        if world.told(primary, "SELECT to_regclass('ledger') IS NULL") == "t" {
            world.told(primary, TABLES);
        }
        let highest: u64 = world.told(primary, "SELECT coalesce(max(n), 0) FROM ledger").parse().expect("a number");
        let (stop, address) = (Arc::new(AtomicBool::new(false)), world.address());
        let patience = if world.vip.is_some() { IMPATIENT } else { PATIENCE };
        let place = world.upstream();
        let (ready, readies) = std::sync::mpsc::channel();
        let begin = |client: usize| {
            let (stop, place, ready) = (stop.clone(), place.clone(), ready.clone());
            std::thread::spawn(move || {
                place.enter();
                let seen = Seen::new(client);
                let worker = Worker { address, seen, next: highest + 1, stop, ready: Some(ready), patience };
                if client < ALL_SESSIONS { worker.session() } else { worker.probe() }
            })
        };
        let threads: Vec<_> = (0..ALL_SESSIONS).chain([READER, WRITER]).map(begin).collect();
        for _ in &threads {
            readies.recv_timeout(crate::common::SOON).expect("each client has a success");
        }
        // New tables are looked up first; until then everything goes to the primary and may have left state there.
        eventually("reads go to a standby", || {
            let route = table(&world.client().query("PGPOOL SHOW ROUTE 'SELECT count(*) FROM ledger WHERE n = 1'"));
            route[0]["target"].starts_with("standby")
        });
        std::thread::sleep(SECOND);
        Self { stop, threads, fault: None }
    }

    /// Now something goes wrong.
    pub fn fault(&mut self) {
        self.fault = Some(Instant::now());
    }

    /// Lets them work on for a while.
    pub fn go_on(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Ends them and looks for each row on the server that is primary now.
    pub fn stop(self, world: &World) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let all: Vec<Seen> = self.threads.into_iter().map(|thread| thread.join().expect("a client ends")).collect();
        Report::new(all, self.fault, world)
    }
}

struct Worker {
    address: SocketAddr,
    seen: Seen,
    next: u64,
    stop: Arc<AtomicBool>,
    ready: Option<std::sync::mpsc::Sender<()>>,
    /// How long an answer is waited for.
    patience: Duration,
}

impl Worker {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Tells once that it works, and counts from there.
    fn told(&mut self) {
        if self.seen.good > 0
            && let Some(ready) = self.ready.take()
        {
            self.seen.begun = Instant::now();
            let _ = ready.send(());
        }
    }

    fn login(&mut self) -> Option<RawClient> {
        let begun = Instant::now();
        match RawClient::login_at(self.address, CONNECT) {
            Ok(mut client) => {
                client.patience(self.patience);
                Some(client)
            }
            Err(error) => {
                self.seen.note(begun, format!("login: {error}"));
                None
            }
        }
    }

    /// Clients (a) and (b). Periods run from start to start.
    fn probe(mut self) -> Seen {
        while !self.stopped() {
            let next = Instant::now() + SECOND;
            let write = (self.seen.client == WRITER).then(|| self.number());
            let sql = write.map_or_else(|| "SELECT now()".to_owned(), |number| insert(WRITER, number));
            if let Some(mut client) = self.login() {
                drop(self.seen.run(&mut client, &sql, write));
                drop(client.send(&crate::common::raw::terminate()));
            }
            self.told();
            while Instant::now() < next && !self.stopped() {
                std::thread::sleep(Duration::from_millis(10).min(next.saturating_duration_since(Instant::now())));
            }
        }
        self.end()
    }

    /// Clients (c) and (d).
    fn session(mut self) -> Seen {
        let mut session = None;
        while !self.stopped() {
            let next = Instant::now() + STEP;
            if session.is_none() {
                session = self.login();
            }
            if let Some(client) = session.as_mut() {
                let number = self.number();
                let read =
                    format!("SELECT count(*) FROM ledger WHERE client = {} AND n = {}", self.seen.client, number);
                let write =
                    format!("WITH touched AS (UPDATE shared SET n = n + 1) {}", insert(self.seen.client, number));
                let mut done = self.seen.run(client, &read, None);
                if done.is_ok() && self.seen.client < SESSIONS {
                    done = self.seen.run(client, &write, Some(number));
                }
                if done.is_err() {
                    self.seen.dropped += 1;
                    session = None;
                }
            }
            self.told();
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.end()
    }

    fn end(mut self) -> Seen {
        self.seen.ended = Instant::now();
        self.seen
    }
}

/// What all of them saw.
pub struct Report {
    pub all: Vec<Seen>,
    pub fault: Option<Instant>,
    /// Rows that were acknowledged and are not there.
    pub lost: Vec<Row>,
    /// Rows that are there more than once.
    pub doubled: Vec<(usize, u64)>,
}

impl Report {
    fn new(all: Vec<Seen>, fault: Option<Instant>, world: &World) -> Self {
        let primary = world.primary().expect("there is one");
        let said = world.told(primary, "SELECT client, n, count(*) FROM ledger GROUP BY client, n");
        let mut there = BTreeMap::new();
        for line in said.lines() {
            let mut numbers = line.split('|').map(|number| number.parse::<u64>().expect("a number"));
            let mut next = || numbers.next().expect("three columns");
            there.insert((next() as usize, next()), next());
        }
        let rows = all.iter().flat_map(|seen| &seen.rows);
        let lost = rows.filter(|row| !there.contains_key(&(row.client, row.number))).cloned().collect();
        let doubled = there.iter().filter(|(_, count)| **count > 1).map(|(row, _)| *row).collect();
        let shared = world.told(primary, "SELECT (SELECT n FROM shared) = count(*) FROM ledger WHERE client < 100");
        assert_eq!(shared, "t", "a statement was done by halves");
        Self { all, fault, lost, doubled }
    }

    /// The longest time for which one of the sessions had no read, or no write, that succeeded.
    pub fn gap(&self) -> Duration {
        self.longest(0..ALL_SESSIONS)
    }

    /// The same of gaps that began or went on at `moment`, or began up to 2 s later, less those that went on at the `next` one.
    pub fn gap_at(&self, moment: Instant, next: Option<Instant>) -> Duration {
        let sessions = self.all.iter().filter(|seen| seen.client < ALL_SESSIONS);
        let gaps = sessions.flat_map(|seen| &seen.successes).map(|times| gap_of(times, moment, next));
        gaps.max().unwrap_or_default()
    }

    /// The longest time without a success of those that only read: (a), less its second, and (d).
    pub fn gap_of_reads(&self) -> Duration {
        self.longest(READER..WRITER).saturating_sub(SECOND).max(self.longest(SESSIONS..ALL_SESSIONS))
    }

    fn longest(&self, clients: std::ops::Range<usize>) -> Duration {
        self.all.iter().filter(|seen| clients.contains(&seen.client)).map(Seen::longest).max().unwrap_or_default()
    }

    /// Everything that failed, of all clients.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.all.iter().flat_map(|seen| &seen.failures)
    }

    pub fn dropped(&self) -> u32 {
        self.all.iter().map(|seen| seen.dropped).sum()
    }

    /// All acknowledged rows, in the order of their answers.
    pub fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.all.iter().flat_map(|seen| &seen.rows).collect();
        rows.sort_by_key(|row| row.answered);
        rows
    }

    /// Nothing failed, nothing was lost or doubled, no session ended.
    pub fn unharmed(&self) {
        let failures: Vec<_> = self.failures().collect();
        assert!(failures.is_empty(), "statements have failed: {failures:#?}\n{self}");
        self.whole();
    }

    /// Sessions have stayed, and only what was sent before writes were held has failed: 08007 or 40001, at most 1.5 s after the fault.
    pub fn bounded(&self) {
        let fault = self.fault.expect("there was one");
        for failure in self.failures() {
            let known = ["08007", "40001"].iter().any(|code| failure.what.starts_with(code));
            let after = failure.sent.saturating_duration_since(fault);
            let before = fault.saturating_duration_since(failure.sent);
            assert!(
                known && after < Duration::from_millis(1500),
                "sent {after:?} after the fault, {before:?} before it: {failure:?}\n{self}"
            );
        }
        self.whole();
    }

    /// Nothing was lost or doubled, no session ended.
    pub fn whole(&self) {
        assert_eq!(self.dropped(), 0, "sessions have ended: {self}");
        assert!(self.lost.is_empty(), "acknowledged rows are lost: {:#?}", self.lost);
        assert!(self.doubled.is_empty(), "rows are there twice: {:?}", self.doubled);
        self.one_writer();
        assert!(self.all.iter().all(|seen| seen.good > 0), "a client has done nothing");
    }

    /// A timeline is written by one server, and none but the newest from the first answer on it: never two primaries.
    pub fn one_writer(&self) {
        let mut writers: BTreeMap<&str, &Row> = BTreeMap::new();
        let mut newest: Option<&Row> = None;
        for row in self.rows() {
            let first = *writers.entry(&row.timeline).or_insert(row);
            assert_eq!(first.server, row.server, "two servers wrote on timeline {}", row.timeline);
            if let Some(newest) = newest.filter(|newest| newest.timeline > row.timeline) {
                assert!(row.sent < newest.answered, "{row:?} was taken after {newest:?}");
            }
            newest = newest.filter(|newest| newest.timeline >= row.timeline).or(Some(row));
        }
    }

    /// Failures by their first word, with how many each.
    fn kinds(failures: &[&Failure]) -> String {
        let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
        for failure in failures {
            *kinds.entry(failure.what.split(' ').next().unwrap_or_default()).or_default() += 1;
        }
        let all: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        if all.is_empty() { "0 errors".to_owned() } else { all.join(", ") }
    }
}

/// For the table: "(a) 9 good, 0 errors, gap 1.01 s; (b) …".
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("(a)", READER..WRITER),
            ("(b)", WRITER..WRITER + 1),
            ("(c)", 0..SESSIONS),
            ("(d)", SESSIONS..ALL_SESSIONS),
        ];
        for (name, range) in kinds {
            let of: Vec<_> = self.all.iter().filter(|seen| range.contains(&seen.client)).collect();
            let good: u64 = of.iter().map(|seen| seen.good).sum();
            let failures: Vec<_> = of.iter().flat_map(|seen| &seen.failures).collect();
            let gap = self.longest(range).as_secs_f64();
            write!(f, "{name} {good} good, {}, gap {gap:.2} s; ", Self::kinds(&failures))?;
        }
        write!(f, "{} sessions ended, {} rows lost, {} doubled", self.dropped(), self.lost.len(), self.doubled.len())
    }
}

/// The longest time between two successes that a fault at `moment` is to blame for, and not the one that came `next`.
fn gap_of(successes: &[Instant], moment: Instant, next: Option<Instant>) -> Duration {
    let pairs = successes.iter().zip(successes.iter().skip(1));
    let of_it = pairs.filter(|(from, to)| {
        **to > moment && **from < moment + Duration::from_secs(2) && next.is_none_or(|next| **to <= next)
    });
    of_it.map(|(from, to)| *to - *from).max().unwrap_or_default()
}

#[test]
fn a_gap_belongs_to_the_last_fault_before_its_end() {
    let base = Instant::now();
    let at = |ms: u64| base + Duration::from_millis(ms);
    // Half a second for the first fault, at 1 s, and 4 s for the second, soon behind it.
    let successes = [900, 1_000, 1_500, 1_600, 1_700, 5_700, 5_800].map(at);
    let (first, second) = (at(1_050), at(1_750));
    assert_eq!(gap_of(&successes, first, Some(second)), Duration::from_millis(500));
    assert_eq!(gap_of(&successes, second, None), Duration::from_secs(4));
    assert_eq!(gap_of(&successes, first, None), Duration::from_secs(4), "as long as nothing else is to blame");
}
