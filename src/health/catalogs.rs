//! Reads the catalogs of databases for `routing`, on the control thread: on request, after changes, and every minute while a
//! database is used and for a while after. Owner: `app`, which starts it and ends it by dropping its future. Must not decide what a
//! statement may do.
//!
//! The order rule is kept by [`Known`]: a reading counts only for changes that were seen before it was *sent*. An overtaken reading is
//! repeated. Where the monitor role may not connect, or a catalog is too large, an empty one is published: every name in
//! it is unknown, and what is unknown goes to the primary (SESSIONS R22).

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep_until, timeout};

use super::node::{Connector, ProbeClient, ProbeError};
use super::reading::{Failure, Row};
use crate::cluster::{Knowledge, Known, NodeId, Shared};
use crate::routing::Catalog;
use crate::routing::catalog::queries;
use crate::sql::HELPER_STACK;
use crate::support::clock;

/// Databases whose catalogs are kept fresh; statements in further ones go to the primary.
pub const MAX_DATABASES: usize = 64;

/// Functions, and relations, of a catalog that is used; a larger one is taken for unknown.
pub const MAX_ROWS: usize = 200_000;

/// From one reading of a used database to the next, without any request: what others changed is noticed by then.
pub const REFRESH: Duration = Duration::from_secs(60);

/// How long a database that no session is connected to is read all the same: applications that connect for each request must not find
/// nothing known whenever a reading was due between two of them.
const LINGER: Duration = Duration::from_secs(600);

/// Two readings of one database start at least this far apart: a migration of a thousand statements is not read a thousand times.
const GAP: Duration = Duration::from_millis(250);

/// Readings at the same time.
const AT_ONCE: usize = 4;

/// To read the definition of a view locks what it names, until the end of the query: a DROP … CASCADE that comes in between must not
/// die of a deadlock with it, which servers look for after a second. The reading fails first, and is repeated.
const GIVE_WAY: &str = "SET lock_timeout = '500ms'";

/// Of one reading, from the dial to the last row.
const DEADLINE: Duration = Duration::from_secs(30);

/// Requests that may wait. A sender that finds the queue full loses nothing but time: unknown is found at the next refresh.
const MAX_REQUESTS: usize = 256;

/// Handles to a database that are none of a session: the map's, and the one that counts.
const OWN_HANDLES: usize = 2;

/// One database.
#[derive(Debug)]
struct Entry {
    known: Arc<Known<Catalog>>,
    /// When it is to be read next.
    due: Instant,
    /// When a session was last seen to use it.
    used: Instant,
    started: Option<Instant>,
    running: bool,
    /// Failures in a row.
    failures: u32,
}

impl Entry {
    /// A session holds it too.
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.known) > OWN_HANDLES
    }
}

/// What became of a reading.
#[derive(Debug)]
enum Outcome {
    Loaded,
    /// A change came in between.
    Overtaken,
    /// The monitor role may not connect there.
    Refused(String),
    TooLarge,
    Failed(String),
}

/// The reading end, to be run on the control thread.
#[derive(Debug)]
pub struct Loader {
    knowledge: Arc<Knowledge<Catalog>>,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Box<str>>,
    entries: HashMap<Box<str>, Entry>,
    /// Databases that a warning was written about.
    warned: HashSet<Box<str>>,
    /// When `knowledge` is searched for what was never asked for with success.
    search: Instant,
}

/// A loader, and where sessions ask by `try_send` for a database to be read.
pub fn channel(knowledge: Arc<Knowledge<Catalog>>, shared: Arc<Shared>) -> (Loader, mpsc::Sender<Box<str>>) {
    let (sender, requests) = mpsc::channel(MAX_REQUESTS);
    let (entries, warned, search) = (HashMap::new(), HashSet::new(), clock::now() + REFRESH);
    (Loader { knowledge, shared, requests, entries, warned, search }, sender)
}

impl Loader {
    /// Reads catalogs until the future is dropped. Needs a runtime with time and net, current thread.
    pub async fn run<C: Connector + 'static>(self, connector: C) {
        let local = LocalSet::new();
        local.run_until(self.serve(Rc::new(connector))).await;
    }

    async fn serve<C: Connector + 'static>(mut self, connector: Rc<C>) {
        let mut running: JoinSet<(Box<str>, Outcome)> = JoinSet::new();
        let mut open = true;
        loop {
            self.start_due(&mut running, &connector);
            let wakeup = self.wakeup(running.len());
            tokio::select! {
                request = self.requests.recv(), if open => match request {
                    Some(database) => self.requested(&database),
                    None => open = false,
                },
                Some(ended) = running.join_next() => match ended {
                    Ok((database, outcome)) => self.ended(&database, outcome),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = sleep_until(wakeup.into()) => self.search(),
            }
        }
    }

    fn wakeup(&self, running: usize) -> Instant {
        let free = running < AT_ONCE;
        let due = self.entries.values().filter(|entry| free && !entry.running).map(|entry| entry.due).min();
        due.map_or(self.search, |due| due.min(self.search))
    }

    fn requested(&mut self, database: &str) {
        let now = clock::now();
        if let Some(entry) = self.entries.get_mut(database) {
            entry.due = entry.due.min(entry.started.map_or(now, |started| started + GAP)).max(now);
            return;
        }
        if self.entries.len() >= MAX_DATABASES && !self.make_room() {
            self.warn(database, "the catalogs of too many databases are kept");
            return;
        }
        let known = self.knowledge.database(database);
        self.entries
            .insert(database.into(), Entry { known, due: now, used: now, started: None, running: false, failures: 0 });
    }

    fn start_due<C: Connector + 'static>(&mut self, running: &mut JoinSet<(Box<str>, Outcome)>, connector: &Rc<C>) {
        let now = clock::now();
        let mut unused = Vec::new();
        for (name, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.running && entry.due <= now) {
            if entry.in_use() {
                entry.used = now;
            }
            if now.saturating_duration_since(entry.used) >= LINGER {
                unused.push(name.clone());
            } else if running.len() < AT_ONCE {
                entry.started = Some(now);
                entry.running = true;
                // What is requested from now on needs another reading.
                entry.due = now + REFRESH;
                let (name, known) = (name.clone(), entry.known.clone());
                let (shared, connector) = (self.shared.clone(), connector.clone());
                running.spawn_local(async move { (name, read(&shared, &*connector, &known).await) });
            }
        }
        for name in unused {
            self.drop_entry(&name);
        }
    }

    /// Drops a database that nobody uses now. Returns whether there was one.
    fn make_room(&mut self) -> bool {
        let unused = |entry: &&Entry| !entry.running && !entry.in_use();
        let longest = self.entries.values().filter(unused).min_by_key(|entry| entry.used);
        let Some(name) = longest.map(|entry| entry.known.database.clone()) else { return false };
        self.drop_entry(&name);
        true
    }

    /// Who comes back finds nothing rather than what was known long ago, and asks.
    fn drop_entry(&mut self, database: &str) {
        if let Some(entry) = self.entries.remove(database) {
            entry.known.changed();
        }
    }

    fn ended(&mut self, database: &str, outcome: Outcome) {
        let now = clock::now();
        let Some(entry) = self.entries.get_mut(database) else { return };
        entry.running = false;
        let soon = entry.started.map_or(now, |started| started + GAP).max(now);
        match outcome {
            Outcome::Loaded => entry.failures = 0,
            Outcome::Overtaken => entry.due = soon,
            Outcome::Refused(detail) => self.warn(database, &detail),
            Outcome::TooLarge => self.warn(database, "its catalog is too large"),
            Outcome::Failed(detail) => {
                tracing::debug!(database, detail, "the catalog could not be read");
                let pause = Duration::from_secs(1 << entry.failures.min(5));
                entry.failures += 1;
                entry.due = entry.due.min(now + pause).max(soon);
            }
        }
    }

    /// Looks for databases that are used and unknown, and that nobody asks for: their request found a full queue or table.
    fn search(&mut self) {
        let now = clock::now();
        if now < self.search {
            return;
        }
        self.search = now + REFRESH;
        for known in self.knowledge.all() {
            if known.get().is_none()
                && Arc::strong_count(&known) > OWN_HANDLES
                && !self.entries.contains_key(&known.database)
            {
                self.requested(&known.database.clone());
            }
        }
    }

    /// Once per database (SESSIONS R22).
    fn warn(&mut self, database: &str, reason: &str) {
        if self.warned.len() < 1000 && self.warned.insert(database.into()) {
            tracing::warn!(
                event = "primary_only",
                database,
                reason,
                "statements of this database go to the primary only"
            );
        }
    }
}

async fn read<C: Connector>(shared: &Shared, connector: &C, known: &Known<Catalog>) -> Outcome {
    match timeout(DEADLINE, read_without_limit(shared, connector, known)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) if error.failure == Failure::LoginRefused => {
            let reading = known.begin();
            known.publish(reading, Catalog::default());
            Outcome::Refused(error.detail)
        }
        Ok(Err(error)) => Outcome::Failed(error.detail),
        Err(_) => Outcome::Failed("timed out".to_owned()),
    }
}

async fn read_without_limit<C: Connector>(
    shared: &Shared,
    connector: &C,
    known: &Known<Catalog>,
) -> Result<Outcome, ProbeError> {
    let Some((node, version)) = source(shared) else { return Ok(Outcome::Failed("no server is up".to_owned())) };
    let mut client = connector.connect(node, Some(&known.database)).await?;
    client.query(GIVE_WAY).await?;
    let (generation, reading) = (known.generation(), known.begin());
    let functions = client.query(queries::functions(version)).await?;
    let relations = client.query(queries::RELATIONS).await?;
    drop(client);
    let too_large = functions.len() > MAX_ROWS || relations.len() > MAX_ROWS;
    let catalog = if too_large { Some(Catalog::default()) } else { build(generation, functions, relations).await };
    let Some(catalog) = catalog else { return Ok(Outcome::Failed("no thread to read it".to_owned())) };
    Ok(match (known.publish(reading, catalog), too_large) {
        (false, _) => Outcome::Overtaken,
        (true, true) => Outcome::TooLarge,
        (true, false) => Outcome::Loaded,
    })
}

/// The primary; while it is down, a standby: no change can come in meanwhile, and one that the standby lacks is at worst a name
/// that is unknown, or a read that the standby refuses.
fn source(shared: &Shared) -> Option<(NodeId, u32)> {
    let view = shared.view();
    let primary = view.primary_node().filter(|node| node.usable());
    primary.or_else(|| view.usable_standbys().next()).map(|node| (node.id, node.version))
}

/// On a thread of its own: function bodies and views take their time and a deep stack, and heartbeats must not wait for them.
async fn build(generation: u64, functions: Vec<Row>, relations: Vec<Row>) -> Option<Catalog> {
    let (sender, built) = oneshot::channel();
    let work = move || {
        // Nobody waits any more if this fails.
        let _ = sender.send(Catalog::build(generation, &functions, &relations));
    };
    std::thread::Builder::new().name("catalog".to_owned()).stack_size(HELPER_STACK).spawn(work).ok()?;
    built.await.ok()
}
