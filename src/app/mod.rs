//! Wiring: the only place that knows everyone. Starts the threads, gives each what it needs, and stops them.

mod batches;
mod control;
mod data;
pub mod demo;
mod failover;
mod files;
mod hall;
mod handing;
pub mod hatch;
mod listen;
pub mod log;
mod once;
mod parser;
mod passthrough;
mod pcp;
mod priority;
mod recovery;
mod servers;
mod service;
mod signals;
pub(crate) mod watchdog;
pub mod witness;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::auth::FileError;
use crate::auth::hba::HbaError;
use crate::auth::scram::SaltMaker;
use crate::backend::Registry;
use crate::cluster::{Knowledge, Life, NodeId, Shared};
use crate::config::{self, Settings};
use crate::failover::engine::Order;
use crate::health::connection::Dialer;
use crate::health::{catalogs, runner};
use crate::net::TlsError;
use crate::pcp::Reloaded;
use crate::routing::{Policy, PolicyError};
use crate::session::{
    Counters, Description, Global, Held, HoldLimits, Pause, SessionSettings, StatementLog, Stop, Texts,
};
use crate::support::clock::{self, Duration, now};

use control::Duties;
use data::{Common, MAILBOX, Secrets, ThreadMail};
use files::{Prints, login_policy, users};
use listen::Passed;
use servers::Servers;

/// How long a reload waits for a view without the nodes that it removed.
const TURNING: Duration = Duration::from_secs(2);

/// Why pgherd cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A list of the routing section.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The file of users, or of administrators.
    #[error(transparent)]
    Passwords(#[from] FileError),
    /// The HBA file.
    #[error(transparent)]
    Hba(#[from] HbaError),
    /// A certificate or key.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// A listening socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What a failover must keep.
    #[error("failover.state_directory {}: {source}", folder.display())]
    State {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The watchdog's section.
    #[error("watchdog: {0}")]
    Watchdog(String),
    /// What would be unsafe: a reload that takes from a failover what it stands on, a promise that nobody keeps.
    #[error("{0}")]
    Unsafe(&'static str),
    /// `--once`, and it would have to be tried again.
    #[error("not started, and not tried again (--once): {0}")]
    Once(String),
    /// A thread or runtime could not be made.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
}

/// A running proxy. Stopped by [`stop`](Self::stop) or when dropped.
pub struct Running {
    common: Arc<Common>,
    settings: Settings,
    /// Those of the start.
    began: Settings,
    /// What the files that they name hold.
    prints: Prints,
    threads: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    end: Option<mpsc::Sender<()>>,
    deaf: Option<watch::Sender<()>>,
    desk: failover::Desk,
    /// Of the administration port.
    office: pcp::Ends,
    port: u16,
    policies: u64,
    /// What failovers must remember survives this process.
    keeps: bool,
}

impl Running {
    /// The TCP port that clients connect to; 0 if there is none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is known of the servers.
    pub fn cluster(&self) -> &Shared {
        &self.common.global.cluster
    }

    /// What each data thread counts.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.common.global.counters
    }

    /// Takes an operator's order to the failover engine; the answer is there when it is over (HA H25). Blocks: not for a runtime's thread.
    ///
    /// # Errors
    /// Why it is refused, or failed, for people.
    pub fn order(&self, order: Order) -> Result<String, String> {
        let (answer, told) = tokio::sync::oneshot::channel();
        self.desk.orders.blocking_send((order, answer)).map_err(|_| "the control thread has ended".to_owned())?;
        told.blocking_recv().map_err(|_| "the control thread has ended".to_owned())?
    }

    /// Clients that are connected, those that still log in included.
    pub fn clients(&self) -> usize {
        self.common.clients.load(Ordering::Acquire)
    }

    /// Its sessions; none if a thread does not say.
    async fn describe(&self) -> Option<Vec<Description>> {
        (self.common.global.describe)().await
    }

    /// What administrators ask of the main thread, for whoever serves it; once.
    fn wishes(&mut self) -> mpsc::Receiver<pcp::Wish> {
        std::mem::replace(&mut self.office.wishes, mpsc::channel(1).1)
    }

    /// Applies other settings to everything but listening sockets. Returns what has changed, and what waits for a restart.
    ///
    /// # Errors
    /// Nothing was applied.
    pub fn reload(&mut self, settings: Settings) -> Result<Reloaded, Error> {
        self.is_safe(&settings)?;
        let (changes, prints) = (changes(&self.settings, &self.began, &settings), Prints::of(&settings));
        let users = users(&settings)?;
        let door = self.common.door.load();
        let door = login_policy(&settings, users.clone(), door.salts.clone(), door.keys.clone())?;
        let mut targets = servers::targets(&settings)?;
        servers::remember(&self.common.servers.targets.load(), &mut targets);
        let (admins, left) = (pcp::admins(&settings)?, self.office.left(&settings));
        self.policies += 1;
        let policy = Policy::new(&settings.routing, self.policies)?;
        let common = &self.common;
        self.office.admins.store(Arc::new(admins));
        common.door.store(Arc::new(door));
        let moved = servers::moved(&common.servers.targets.load(), &targets) || self.secures_otherwise(&settings);
        common.servers.targets.store(Arc::new(targets));
        common.servers.monitor.store(Arc::new(servers::account(&settings)));
        common.servers.users.store(Arc::new(users));
        common.servers.most_statements.store(settings.pool.max_prepared_statements, Ordering::Relaxed);
        common.max_clients.store(settings.listen.max_clients as usize, Ordering::Relaxed);
        for mail in &common.mail {
            let parts = Box::new((policy.clone(), session_settings(&settings)));
            let _ = mail.blocking_send(ThreadMail::Reload(parts));
        }
        // A data thread knows a node before the view does.
        let _ = self.desk.nodes.blocking_send(runner::node_settings(&settings.nodes));
        let _ = self.desk.reloads.blocking_send(settings.clone());
        self.desk.group.reload(&settings);
        self.forget(&settings);
        if moved {
            for mail in &common.mail {
                let _ = mail.blocking_send(ThreadMail::Retire);
            }
        }
        common.global.settings.store(Arc::new(settings.clone()));
        let changes = prints.changed(&self.prints, changes);
        (self.settings, self.prints) = (settings, prints);
        Ok(Reloaded { changes, left })
    }

    /// Can failovers go on by these settings?
    fn is_safe(&self, settings: &Settings) -> Result<(), Error> {
        if settings.failover.promote != config::Promote::Never && !self.keeps {
            let text =
                "failover.promote needs failover.state_directory, which could not be used at the start: start anew";
            return Err(Error::Unsafe(text));
        }
        let view = self.cluster().view();
        let dead = view.primary_node().filter(|node| matches!(node.life, Life::Dead(_)));
        if dead.is_some_and(|primary| settings.node(primary.id).is_none()) {
            let text = "the dead primary is not replaced yet: promote a standby first, then remove its [[node]]";
            return Err(Error::Unsafe(text));
        }
        Ok(())
    }

    /// The same server is to be spoken to with other TLS than before.
    fn secures_otherwise(&self, settings: &Settings) -> bool {
        let tls = |node: &config::Node| (node.sslmode, node.ca.clone());
        self.settings.nodes.iter().any(|old| settings.node(old.id).is_some_and(|new| tls(new) != tls(old)))
    }

    /// Ends the connections to nodes that are configured no more, once no view names them any more.
    fn forget(&self, settings: &Settings) {
        let gone = |id: NodeId| settings.node(id).is_none();
        let deadline = now() + TURNING;
        while self.cluster().view().nodes.iter().any(|node| gone(node.id)) && now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        for node in self.settings.nodes.iter().map(|node| node.id).filter(|id| gone(*id)) {
            for mail in &self.common.mail {
                let _ = mail.blocking_send(ThreadMail::Forget(node));
            }
        }
    }

    /// The settings that hold.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// No more clients from now on.
    pub fn stop_listening(&mut self) {
        // Load balancers ask whether clients are still served.
        self.common.stopping.store(true, Ordering::Release);
        self.deaf = None;
    }

    /// No more clients; sessions end as `stop` says. Waits for them up to `limit`, then ends them.
    pub fn stop(mut self, stop: Stop, limit: Duration) {
        self.shut(stop, limit);
    }

    fn shut(&mut self, stop: Stop, limit: Duration) {
        self.common.stopping.store(true, Ordering::Release);
        self.deaf = None;
        self.tell(stop);
        let deadline = now() + limit;
        while self.threads.iter().any(|thread| !thread.is_finished()) && now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.tell(Stop::Now);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.desk.group.leave();
        self.end = None;
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
    }

    fn tell(&self, stop: Stop) {
        for mail in &self.common.mail {
            let _ = mail.blocking_send(ThreadMail::Stop(stop));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.control.is_some() {
            self.shut(Stop::Now, Duration::ZERO);
        }
    }
}

/// What differs from what holds, and what has differed from the start on and still waits for the next one.
fn changes(held: &Settings, began: &Settings, settings: &Settings) -> Vec<config::Change> {
    let waits = |change: &config::Change| change.class == config::Reload::Restart;
    let mut changes = Settings::diff(held, settings);
    changes.retain(|change| !waits(change));
    changes.extend(Settings::diff(began, settings).into_iter().filter(waits));
    changes
}

/// Starts a proxy with these settings, at sockets of its own.
///
/// # Errors
/// A file that the settings name cannot be used, or a socket cannot be had.
pub fn start(settings: Settings) -> Result<Running, Error> {
    start_at(settings, Passed::default())
}

fn start_at(settings: Settings, mut passed: Passed) -> Result<Running, Error> {
    let threads = threads(&settings);
    let kept = (watchdog::kept(&settings)?, failover::store(&settings)?);
    let keeps = kept.1.0.keeps();
    let registry = Arc::new(Registry::new(threads));
    let (monitor, health) = runner::channel();
    let users = users(&settings)?;
    let servers = Arc::new(Servers::new(&settings, users.clone(), registry.clone(), health.shared.clone())?);
    let knowledge = Arc::<Knowledge<_>>::default();
    let (loader, wanted) = catalogs::channel(knowledge.clone(), health.shared.clone());
    let (policy, salts) = (Policy::new(&settings.routing, 1)?, Arc::new(SaltMaker::new()));
    let door = login_policy(&settings, users, salts, servers.keys.clone())?;
    let (mail, inboxes): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::channel(MAILBOX)).unzip();
    let global = global(&settings, (&servers, &registry), &health, knowledge, wanted, mail.clone())?;
    let common = Arc::new(Common {
        global: Arc::new(global),
        servers: servers.clone(),
        door: ArcSwap::from_pointee(door),
        max_clients: AtomicUsize::new(settings.listen.max_clients as usize),
        clients: Arc::default(),
        secrets: Secrets::new(&settings),
        partners: data::Partners::default(),
        mail,
        load: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
        stopping: AtomicBool::new(false),
    });
    let (end, end_told) = mpsc::channel(1);
    let runtime = control::runtime()?;
    let ((listeners, port), administrators) = (passed.clients(&settings, threads)?, passed.pcp(&settings)?);
    let inside = runtime.enter();
    let (watchdog, group) = watchdog::parts((&settings, kept.0), &kept.1.0, &health, dialer(&servers), &common);
    let (parts, desk) = failover::parts((&settings, group), kept.1, &health, dialer(&servers), &common);
    drop(inside);
    let (recovery, bell) = recovery::parts(&common, &health, desk.orders.clone());
    let (seed, office) = pcp::parts(&settings, &common, (&desk, bell), administrators)?;
    let duties = Duties {
        pcp: seed,
        recovery,
        failover: parts,
        watchdog,
        monitor,
        nodes: runner::node_settings(&settings.nodes),
        prober: dialer(&servers),
        loader,
        reader: dialer(&servers),
        generation: health.generation.clone(),
        web: passed.web(&settings, &common)?,
        common: common.clone(),
        end: end_told,
    };
    let (seats, deaf) = data::seats(inboxes, listeners);
    let threads = data::start(&common, &settings, &policy, seats)?;
    let control = Some(start_control(runtime, duties)?);
    control::told_started(&common, port);
    Ok(Running {
        common,
        began: settings.clone(),
        prints: Prints::of(&settings),
        settings,
        threads,
        control,
        end: Some(end),
        deaf: Some(deaf),
        desk,
        office,
        port,
        policies: 1,
        keeps,
    })
}

/// What the control thread has begun to write may take so long at the end.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// Data threads that these settings ask for.
fn threads(settings: &Settings) -> usize {
    match settings.listen.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn start_control(runtime: tokio::runtime::Runtime, duties: Duties) -> Result<JoinHandle<()>, Error> {
    let run = move || {
        priority::raise("control");
        runtime.block_on(duties.run());
        // What is being written to the state directory is there before another process reads it. A name that is being looked up, or a disk
        // that hangs, may take longer than anybody's patience.
        runtime.shutdown_timeout(LAST_WRITE);
    };
    std::thread::Builder::new().name("control".to_owned()).spawn(run).map_err(Error::Start)
}

fn global(
    settings: &Settings,
    (servers, registry): (&Arc<Servers>, &Arc<Registry>),
    health: &runner::Reader,
    knowledge: Arc<Knowledge<crate::routing::Catalog>>,
    wanted: mpsc::Sender<Box<str>>,
    mail: Vec<mpsc::Sender<ThreadMail>>,
) -> Result<Global, Error> {
    let (parser, _ends_by_itself) = parser::start(mail.clone()).map_err(Error::Start)?;
    let requests = health.requests.clone();
    let cancelling = servers.clone();
    Ok(Global {
        cluster: health.shared.clone(),
        knowledge,
        // What does not fit is asked for again by the next who needs it.
        want_catalog: Box::new(move |known| {
            if wanted.try_send(known.database.clone()).is_err() {
                known.begin();
            }
        }),
        // A full queue means that the probes are hurried already.
        report: Box::new(move |request| {
            let _ = requests.try_send(request);
        }),
        registry: registry.clone(),
        texts: Texts::default(),
        hasher: std::hash::RandomState::new(),
        numbers: AtomicU64::new(1),
        wrote: AtomicU64::new(0),
        started: now(),
        born: clock::wall(),
        settings: ArcSwap::from_pointee(settings.clone()),
        held: Held::new(health.generation.clone()),
        pause: Pause::new(now()),
        analyze: Box::new(move |thread, text| {
            let _ = parser.try_send((thread, text));
        }),
        counters: mail.iter().map(|_| Arc::default()).collect(),
        describe: data::describer(mail.clone()),
        retire: Box::new(move || mail.iter().for_each(|mail| drop(mail.try_send(ThreadMail::Retire)))),
        cancel: Box::new(move |node: NodeId, key| {
            let servers = cancelling.clone();
            Box::pin(async move { servers.cancel(node, key).await })
        }),
    })
}

fn session_settings(settings: &Settings) -> SessionSettings {
    SessionSettings {
        pool: settings.pool.clone(),
        nodes: settings.nodes.iter().map(|node| (node.id, node.max_connections)).collect(),
        client_idle_limit: settings.listen.client_idle_limit,
        hold: HoldLimits {
            timeout: settings.failover.hold_timeout,
            most: settings.failover.max_held,
            memory: settings.failover.max_held_memory,
        },
        monitor: settings.monitor.user.clone(),
        admins: settings.auth.admin_users.clone(),
        observers: settings.auth.stats_users.clone(),
        log_connections: settings.log.of.connections,
        log: StatementLog {
            statements: settings.log.of.statements,
            sample: settings.log.statement_sample,
            slow: settings.log.slow_statements,
            hide_literals: settings.log.hide_literals,
            timed_every: settings.log.timed_every,
        },
    }
}

fn dialer(servers: &Servers) -> Dialer {
    Dialer { account: servers.monitor.clone(), keys: servers.keys.clone(), targets: servers.targets.clone() }
}

/// Runs until a signal ends it: SIGTERM waits for clients to leave, SIGINT for transactions, SIGQUIT for nobody; SIGHUP
/// reloads.
///
/// # Errors
/// It could not start.
pub fn run(config: PathBuf, once: bool) -> Result<(), Error> {
    let passed = Passed::take()?;
    let settings = Settings::load(&config)?;
    let dial = log::to_stderr(&settings.log);
    let running = start_at(settings, passed)?;
    signals::serve(running, &config, &dial, once)
}
