//! Short words for what these tests do often. Must not contain tests.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use pgherd::app::demo::cluster::{self, Cluster};

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{Frame, RawClient, bind, execute, parse, sync, values};
use crate::common::{self, database};

/// A proxy that uses the primary alone, with `size` connections, and a database of its own.
pub fn on_primary(purpose: &str, size: u32, pool: &str) -> Option<(Proxy, String)> {
    let cluster = common::cluster()?;
    let options = Options { size, weights: vec![1.0, 0.0, 0.0], pool: pool.to_owned(), ..Options::default() };
    Some((Proxy::start(cluster, &options), database(cluster, purpose)))
}

/// A proxy whose reads go to the standbys whenever they may, with a database of its own.
pub fn on_standbys(purpose: &str, size: u32, routing: &str) -> Option<(Proxy, String)> {
    let cluster = common::cluster()?;
    Some((Proxy::start(cluster, &reading(size, routing)), database(cluster, purpose)))
}

/// Options by which reads go to the standbys.
pub fn reading(size: u32, routing: &str) -> Options {
    Options { size, weights: vec![0.0, 1.0, 1.0], routing: routing.to_owned(), ..Options::default() }
}

/// A cluster for tests that break it, one at a time; each must leave it whole.
pub fn breakable() -> Option<MutexGuard<'static, Option<Cluster>>> {
    static CLUSTER: OnceLock<Mutex<Option<Cluster>>> = OnceLock::new();
    // The first cluster also says whether there is a PostgreSQL at all.
    common::cluster()?;
    let start = || {
        let options = cluster::Options { max_connections: 100, ..cluster::Options::default() };
        Mutex::new(Some(Cluster::start(&options).expect("a second cluster")))
    };
    Some(CLUSTER.get_or_init(start).lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// The SQLSTATE of the first error.
pub fn code(frames: &[Frame]) -> Option<String> {
    frames.iter().find_map(Frame::sqlstate)
}

/// The tag of the last CommandComplete.
pub fn tag(frames: &[Frame]) -> String {
    let complete = frames.iter().rev().find(|frame| frame.tag == b'C').unwrap_or_else(|| panic!("{frames:?}"));
    String::from_utf8_lossy(&complete.body[..complete.body.len() - 1]).into_owned()
}

/// The transaction's state by the last ReadyForQuery.
pub fn state(frames: &[Frame]) -> char {
    let last = frames.last().filter(|frame| frame.tag == b'Z').unwrap_or_else(|| panic!("{frames:?}"));
    last.body[0] as char
}

/// Runs `sql`, which must succeed.
pub fn run(client: &mut RawClient, sql: &str) -> Vec<Frame> {
    let frames = client.query(sql);
    assert_eq!(code(&frames), None, "{sql}: {frames:?}");
    frames
}

/// The one value that `sql` returns.
pub fn value(client: &mut RawClient, sql: &str) -> String {
    let values = client.values(sql);
    assert_eq!(values.len(), 1, "{sql}: {values:?}");
    values.into_iter().next().unwrap_or_default()
}

/// Sends `messages` with a Sync behind them and returns all answers.
pub fn series(client: &mut RawClient, messages: &[Vec<u8>]) -> Vec<Frame> {
    client.send(&[messages.concat(), sync()].concat()).expect("sent");
    client.until_ready().expect("an answer")
}

/// Prepares `name` by the protocol.
pub fn prepare(client: &mut RawClient, name: &str, sql: &str) {
    let frames = series(client, &[parse(name, sql, &[])]);
    assert_eq!(code(&frames), None, "{sql}: {frames:?}");
}

/// Executes a statement prepared as `name`.
pub fn execute_named(client: &mut RawClient, name: &str, parameters: &[Option<&str>]) -> Vec<Frame> {
    series(client, &[bind("", name, parameters), execute("", 0)])
}

/// Runs `sql` as one series of an unnamed statement.
pub fn extended(client: &mut RawClient, sql: &str) -> Vec<Frame> {
    series(client, &[parse("", sql, &[]), bind("", "", &[]), execute("", 0)])
}

/// Rows by the names of their columns; NULL is left out.
pub fn table(frames: &[Frame]) -> Vec<BTreeMap<String, String>> {
    let described = frames.iter().find(|frame| frame.tag == b'T').unwrap_or_else(|| panic!("no columns: {frames:?}"));
    let (mut names, mut rest) = (Vec::new(), &described.body[2..]);
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        // Behind each name: table, column, type, length, modifier, format.
        rest = &rest[end + 19..];
    }
    let row = |frame: &Frame| {
        let cells = frame.columns().into_iter().zip(&names);
        cells.filter_map(|(cell, name)| Some((name.clone(), cell?))).collect()
    };
    frames.iter().filter(|frame| frame.tag == b'D').map(row).collect()
}

/// What pgherd shows of the session whose application has that name.
pub fn shown(observer: &mut RawClient, application: &str) -> BTreeMap<String, String> {
    let all = table(&run(observer, "PGPOOL SHOW SESSIONS"));
    let found = all.iter().find(|row| row.get("application_name").is_some_and(|name| name == application));
    found.cloned().unwrap_or_else(|| panic!("no {application} in {all:?}"))
}

/// A counter of pgherd.
pub fn counter(observer: &mut RawClient, name: &str) -> u64 {
    let all = table(&run(observer, "PGPOOL SHOW COUNTERS"));
    let found = all.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {all:?}"));
    found["value"].parse().expect("a number")
}

/// Where pgherd would send `sql` now (`primary` or `standby N`), and the name of the reason.
pub fn route(client: &mut RawClient, sql: &str) -> (String, String) {
    let row = show_route(client, sql);
    (row["target"].clone(), row["reason"].clone())
}

/// Could `sql` change the session unseen, for all that pgherd knows?
pub fn is_opaque(client: &mut RawClient, sql: &str) -> bool {
    show_route(client, sql)["opaque"] == "yes"
}

fn show_route(client: &mut RawClient, sql: &str) -> BTreeMap<String, String> {
    table(&run(client, &format!("PGPOOL SHOW ROUTE '{}'", sql.replace('\'', "''")))).remove(0)
}

/// Waits until the functions and relations of the client's database are known to pgherd.
pub fn wait_for_catalog(client: &mut RawClient) {
    common::eventually("the catalog is known", || route(client, "SELECT 1 WHERE lower('A') = 'a'").1 != "no_catalog");
}

/// A session whose application has that name.
pub fn named(port: u16, db: &str, application: &str) -> RawClient {
    let parameters = [("user", "postgres"), ("database", db), ("application_name", application)];
    RawClient::try_login_with(port, &parameters).expect("a login")
}

/// A function that says on which server it runs, and that standbys may run: the port.
pub const HERE: &str =
    "CREATE FUNCTION here() RETURNS text LANGUAGE sql STABLE AS 'SELECT pg_catalog.inet_server_port()::text'";

/// As [`on_standbys`] with [`HERE`] in the database and its catalog known; `None` also without a proxy in between.
pub fn with_here(purpose: &str, routing: &str) -> Option<(Proxy, String)> {
    if common::direct() {
        return None;
    }
    let (proxy, db) = on_standbys(purpose, 10, &format!("read_only_functions = [\"here\"]\n{routing}"))?;
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, HERE);
    common::cluster()?.wait_replayed(common::SOON).expect("standbys follow");
    wait_for_catalog(&mut client);
    Some((proxy, db))
}

/// Is that the port of a standby? Panics if it is none of the cluster's.
pub fn is_standby(cluster: &Cluster, port: &str) -> bool {
    let at = cluster.servers().iter().position(|server| server.port().to_string() == *port);
    at.unwrap_or_else(|| panic!("a server's port, not {port:?}")) > 0
}

/// Runs a query whose first column is `here()`: does it run on a standby?
pub fn ran_on_standby(cluster: &Cluster, client: &mut RawClient, sql: &str) -> bool {
    let frames = run(client, sql);
    is_standby(cluster, &values(&frames)[0])
}

/// Says that it is over when it goes out of scope, also by a panic: other threads of a scope would be waited for for ever.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
