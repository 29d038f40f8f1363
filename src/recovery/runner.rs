//! Runs the engine on the control thread: carries views and requests in, does what it wants, writes the event log, tells how far it is. Owner:
//! `app`, which starts it and ends it by dropping its future. Must not decide.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until};

use super::engine::{Action, Engine, Event, Job, Means, Note, Plan};
use crate::cluster::{self, NodeId, Shared};
use crate::config::Settings;
use crate::support::clock;

/// Requests that may wait.
pub const MAX_REQUESTS: usize = 4;
/// How often it is told how far a recovery is.
const TELLING: Duration = Duration::from_secs(2);
/// For one look at how far a copy has come.
const ASKING: Duration = Duration::from_secs(2);
/// "recv" as a number: with the node's number, the advisory lock on the primary that one recovery of a node at a time has.
const LOCK: u32 = 0x7265_6376;
/// What the primary says of base backups under way.
const BACKUPS: &str = "SELECT phase || CASE WHEN backup_total > 0 THEN ', ' || backup_streamed * 100 / backup_total || ' %' ELSE '' END \
    FROM pg_catalog.pg_stat_progress_basebackup ORDER BY pid DESC LIMIT 1";

/// The schema of pgpool's extension, quoted; no row without it.
pub const EXTENSION: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pgpool_recovery'";

/// A request and where its answer goes.
pub type Asked = (NodeId, oneshot::Sender<Result<String, String>>);

/// What it needs of the rest of the process.
pub trait Hands {
    /// A session on a server, as the role of `[recovery]`.
    type Session;

    /// The settings that hold now.
    fn settings(&self) -> Arc<Settings>;

    /// Logs in. The caller sets a deadline.
    ///
    /// # Errors
    /// For people.
    fn open(&self, node: NodeId) -> impl Future<Output = Result<Self::Session, String>>;

    /// The first field of the first row. Not cancel safe: who drops the future drops the session.
    ///
    /// # Errors
    /// What the server said, or what became of the connection.
    fn ask(&self, session: &mut Self::Session, sql: &str) -> impl Future<Output = Result<Option<String>, String>>;

    /// Runs `recovery.command`, and returns the end of what it said; dropped, it ends with all its children.
    ///
    /// # Errors
    /// It could not be run, or failed, or took longer.
    fn hook(&self, node: NodeId, primary: NodeId, limit: Duration) -> impl Future<Output = Result<String, String>>;

    /// Tells `failover` that a node is out, or may be used.
    ///
    /// # Errors
    /// Why not.
    fn place(&self, node: NodeId, used: bool) -> impl Future<Output = Result<(), String>>;
}

/// What it works with.
pub struct Parts<H> {
    /// The rest of the process.
    pub hands: H,
    /// The view.
    pub shared: Arc<Shared>,
    /// Changes with each view.
    pub published: watch::Receiver<()>,
    /// Who wants what.
    pub requests: mpsc::Receiver<Asked>,
    /// What is under way, for people; empty: nothing.
    pub told: watch::Sender<String>,
}

/// What is asked for, by the settings that hold now.
fn plan(node: NodeId, settings: &Settings) -> Plan {
    let recovery = &settings.recovery;
    let means = match (&recovery.command, &recovery.first_stage_command) {
        (Some(_), _) => Some(Means::Hook),
        (None, Some(_)) => Some(Means::Extension),
        (None, None) => None,
    };
    Plan { node, means, copy: recovery.copy_timeout, arrive: recovery.timeout }
}

/// The job under way: it gives the session back.
type Task<S> = Pin<Box<dyn Future<Output = (Option<S>, Result<String, String>)>>>;

/// Runs until the future is dropped. Needs a runtime with time and net.
pub async fn run<H: Hands + 'static>(parts: Parts<H>) {
    let Parts { hands, shared, mut published, mut requests, told } = parts;
    let hands = std::rc::Rc::new(hands);
    let mut engine = Engine::default();
    let mut waiting: Vec<(u64, oneshot::Sender<Result<String, String>>)> = Vec::new();
    let (mut number, mut open) = (0, true);
    let (mut session, mut task): (Option<H::Session>, Option<Task<H::Session>>) = (None, None);
    let mut telling: Option<Pin<Box<dyn Future<Output = String>>>> = None;
    let mut event = Event::View(shared.snapshot());
    loop {
        for action in engine.step(event, clock::now()) {
            match action {
                Action::Do(job) => task = Some(Box::pin(work(hands.clone(), job, session.take()))),
                Action::Cancel => task = None,
                Action::Close => session = None,
                Action::Note(note) => record(&shared, &note),
                Action::Reply(asked, answer) => {
                    let found = waiting.iter().position(|(number, _)| *number == asked);
                    // Who asked may have given up.
                    found.map(|at| waiting.swap_remove(at).1.send(answer));
                }
            }
        }
        match engine.status() {
            Some(status) if telling.is_none() => telling = Some(Box::pin(tell(hands.clone(), shared.clone(), status))),
            Some(_) => {}
            None => {
                telling = None;
                told.send_if_modified(|told| !std::mem::take(told).is_empty());
            }
        }
        event = tokio::select! {
            biased;
            (kept, result) = one(&mut task) => {
                (session, task) = (kept, None);
                Event::Done(result)
            }
            request = requests.recv(), if open => match request {
                Some((node, answer)) => {
                    number += 1;
                    waiting.push((number, answer));
                    Event::Begin(number, plan(node, &hands.settings()))
                }
                None => { open = false; Event::Tick }
            },
            Ok(()) = published.changed() => Event::View(shared.snapshot()),
            () = wait(engine.wakeup()) => Event::Tick,
            text = one(&mut telling) => {
                telling = None;
                told.send_replace(text);
                Event::Tick
            }
        };
    }
}

/// The end of what is under way; never, without it. Cancel safe: it goes on.
async fn one<T>(task: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// Says how far it is, after a while: a recovery must not look as if it hung.
async fn tell<H: Hands>(
    hands: std::rc::Rc<H>,
    shared: Arc<Shared>,
    (node, what, since): (NodeId, &'static str, Instant),
) -> String {
    sleep(TELLING).await;
    let primary = shared.view().primary;
    let asked = async {
        let mut session = hands.open(primary?).await.ok()?;
        hands.ask(&mut session, BACKUPS).await.ok()?
    };
    let more = tokio::time::timeout(ASKING, asked).await.ok().flatten();
    let more = more.map_or(String::new(), |more| format!(", base backup: {more}"));
    let seconds = clock::now().saturating_duration_since(since).as_secs();
    format!("node {node}: {what}, {seconds} s{more}")
}

fn record(shared: &Shared, note: &Note) {
    let make = if note.bad { cluster::Event::error } else { cluster::Event::info };
    shared.events.record(make(note.event, "recovery").node(note.node).why(&note.why).took(note.took));
}

async fn work<H: Hands>(
    hands: std::rc::Rc<H>,
    job: Job,
    mut session: Option<H::Session>,
) -> (Option<H::Session>, Result<String, String>) {
    let nothing = |()| String::new();
    let result = match job {
        Job::Open { node, primary, means } => match opened(&*hands, node, primary, means).await {
            Ok(opened) => {
                session = Some(opened);
                Ok(String::new())
            }
            Err(why) => Err(why),
        },
        Job::Detach(node) => hands.place(node, false).await.map(nothing),
        Job::Attach(node) => hands.place(node, true).await.map(nothing),
        Job::Copy { node, primary, means: Means::Hook } => {
            hands.hook(node, primary, hands.settings().recovery.copy_timeout).await
        }
        Job::Copy { node, primary, means: Means::Extension } => {
            let sql = copy_call(&hands.settings(), node, primary);
            called(&*hands, &mut session, sql).await.map(nothing)
        }
        Job::Start(node) => {
            let sql = start_call(&hands.settings(), node);
            called(&*hands, &mut session, sql).await.map(nothing)
        }
    };
    (session, result)
}

/// A session with the lock, on a server that has what the means need.
async fn opened<H: Hands>(hands: &H, node: NodeId, primary: NodeId, means: Means) -> Result<H::Session, String> {
    let mut session = hands.open(primary).await?;
    let lock = format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK}, {node})");
    if hands.ask(&mut session, &lock).await?.as_deref() != Some("t") {
        return Err(format!(
            "another recovery of node {node} is under way on node {primary}: its session holds the advisory lock {LOCK}, {node}"
        ));
    }
    if means == Means::Extension {
        schema(hands, &mut session).await?;
        copy_call(&hands.settings(), node, primary)?;
    }
    Ok(session)
}

/// Where the extension's functions are: what stands before theirs in the search path is not to be called.
async fn schema<H: Hands>(hands: &H, session: &mut H::Session) -> Result<String, String> {
    let found = hands.ask(session, EXTENSION).await?;
    let database = &hands.settings().recovery.database;
    found.ok_or_else(|| format!("the primary lacks pgpool's extension: CREATE EXTENSION pgpool_recovery in {database}"))
}

/// Calls a function of the extension.
async fn called<H: Hands>(
    hands: &H,
    session: &mut Option<H::Session>,
    call: Result<String, String>,
) -> Result<(), String> {
    let session = session.as_mut().ok_or("there is no session on the primary")?;
    let sql = format!("SELECT {}.{}", schema(hands, session).await?, call?);
    match hands.ask(session, &sql).await?.as_deref() {
        Some("t") => Ok(()),
        other => Err(format!("it said {}", other.unwrap_or("nothing"))),
    }
}

/// `pgpool_recovery(script, host, data folder, the primary's port, node, port, the primary's host)`.
fn copy_call(settings: &Settings, node: NodeId, primary: NodeId) -> Result<String, String> {
    let (own, other) = (found(settings, node)?, found(settings, primary)?);
    let script = settings.recovery.first_stage_command.as_deref().ok_or("recovery.first_stage_command is gone")?;
    Ok(format!(
        "pgpool_recovery({}, {}, {}, {}, {node}, {}, {})",
        literal(script),
        literal(&own.host),
        literal(folder(own)?),
        literal(&other.replication_port.to_string()),
        literal(&own.port.to_string()),
        literal(&other.replication_host),
    ))
}

fn start_call(settings: &Settings, node: NodeId) -> Result<String, String> {
    let own = found(settings, node)?;
    Ok(format!("pgpool_remote_start({}, {})", literal(&own.host), literal(folder(own)?)))
}

fn found(settings: &Settings, node: NodeId) -> Result<&crate::config::Node, String> {
    settings.node(node).ok_or_else(|| format!("node {node} is configured no more"))
}

fn folder(node: &crate::config::Node) -> Result<&str, String> {
    node.data_directory.as_deref().ok_or_else(|| format!("node {} has no data_directory in the configuration", node.id))
}

/// A text as an SQL literal, whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}
