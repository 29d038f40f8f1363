//! Runs the engine on the control thread: carries views, answers and orders in, does what it wants, writes the event log. Owner: `app`,
//! which starts it and ends it by dropping its future. Must not decide.

pub mod hook;
mod jobs;
mod recruit;
mod standby;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::sleep_until;

use super::engine::{Action, Company, Engine, Event, Job, Journal, Note, Order, Outcome, Settings, Ticket};
use super::journal::Store;
use crate::cluster::{self, Accord, Consensus, FailoverRequest, NodeId, Ruling, Shared, Timeline};
use crate::config;
use crate::support::clock;

/// Orders of operators that may wait.
pub const MAX_ORDERS: usize = 16;
/// A switch-over waits for transactions half as long as new ones may wait for it, within these bounds.
const SHORTEST_DRAIN: Duration = Duration::from_secs(1);
const LONGEST_DRAIN: Duration = Duration::from_secs(15);
/// Answers of jobs that may wait; each job has one.
const MAX_ANSWERS: usize = 256;

/// A row as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// A logged-in connection of the monitor role.
pub trait Sql {
    /// Runs one query by simple protocol. Not cancel safe: who drops the future drops the connection.
    ///
    /// # Errors
    /// What the server said, or what became of the connection.
    fn query(&mut self, sql: &str) -> impl Future<Output = Result<Vec<Row>, String>>;
}

/// Reaches the servers as the monitor role.
pub trait Servers {
    /// What it makes.
    type Sql: Sql;

    /// Logs in to the monitor's database. The caller sets a deadline.
    ///
    /// # Errors
    /// For people.
    fn connect(&self, node: NodeId) -> impl Future<Output = Result<Self::Sql, String>>;

    /// The timeline that `IDENTIFY_SYSTEM` tells on a replication connection (HA H6).
    ///
    /// # Errors
    /// For people.
    fn timeline(&self, node: NodeId) -> impl Future<Output = Result<Timeline, String>>;

    /// Has a server begin to stop in order, by pgpool-II's extension.
    ///
    /// # Errors
    /// For people.
    fn stop(&self, node: NodeId) -> impl Future<Output = Result<(), String>>;
}

/// The data threads, as far as a failover needs them.
pub trait Threads {
    /// Every data thread has seen the present view, and lets nothing through that it decided before.
    ///
    /// # Errors
    /// One does not answer.
    fn barrier(&self) -> impl Future<Output = Result<(), String>>;

    /// Every server connection to this node is closed, and no later answer of it goes to a client (HA H8).
    ///
    /// # Errors
    /// It is not known to be so.
    fn fence(&self, node: NodeId) -> impl Future<Output = Result<(), String>>;

    /// How many connections to this node are at work: those that sessions keep between two transactions do not count.
    ///
    /// # Errors
    /// A data thread does not answer.
    fn busy(&self, node: NodeId) -> impl Future<Output = Result<u32, String>>;
}

/// An order and where its answer goes.
pub type Asked = (Order, oneshot::Sender<Result<String, String>>);

/// What it works with.
pub struct Parts<S, T> {
    /// The nodes and hooks, as configured.
    pub config: config::Settings,
    /// How servers are reached.
    pub servers: S,
    /// The data threads.
    pub threads: T,
    /// Who must agree.
    pub consensus: Box<dyn Consensus + Send>,
    /// Where the journal is.
    pub store: Store,
    /// What the process before has left there.
    pub journal: Journal,
    /// The view.
    pub shared: Arc<Shared>,
    /// Changes with each view.
    pub published: watch::Receiver<()>,
    /// To `health`.
    pub rulings: watch::Sender<Ruling>,
    /// To `health`: look at once.
    pub requests: mpsc::Sender<FailoverRequest>,
    /// Of operators.
    pub orders: mpsc::Receiver<Asked>,
    /// Other settings.
    pub reloads: mpsc::Receiver<config::Settings>,
    /// What partner proxies have agreed on.
    pub accord: watch::Receiver<Accord>,
}

/// What is kept of one node between its jobs, which take their turns.
struct Place<Q> {
    /// The session that holds the advisory lock.
    session: Option<Q>,
}

/// What jobs share.
struct World<S: Servers, T> {
    config: std::cell::RefCell<Rc<config::Settings>>,
    servers: S,
    threads: T,
    consensus: Box<dyn Consensus + Send>,
    store: Store,
    /// Journals are written in the order in which they were given.
    disk: Arc<Mutex<()>>,
    shared: Arc<Shared>,
    published: watch::Receiver<()>,
    rulings: watch::Sender<Ruling>,
    requests: mpsc::Sender<FailoverRequest>,
    places: std::cell::RefCell<HashMap<NodeId, Rc<Mutex<Place<S::Sql>>>>>,
}

impl<S: Servers, T> World<S, T> {
    fn place(&self, node: NodeId) -> Rc<Mutex<Place<S::Sql>>> {
        let make = || Rc::new(Mutex::new(Place { session: None }));
        self.places.borrow_mut().entry(node).or_insert_with(make).clone()
    }

    fn config(&self) -> Rc<config::Settings> {
        self.config.borrow().clone()
    }

    /// Works on the state directory, on a thread of its own: a disk that hangs must not hold up health checks. In the order of the calls;
    /// whoever gives up waiting does not end what has begun, and nobody else begins before.
    async fn on_disk<R: Send + 'static>(&self, work: impl FnOnce(&Store) -> R + Send + 'static) -> Result<R, String> {
        let (turn, store) = (self.disk.clone().lock_owned().await, self.store.clone());
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&store)
        });
        done.await.map_err(|error| error.to_string())
    }
}

/// What the configuration says, in the engine's words.
pub fn settings(config: &config::Settings) -> Settings {
    use super::engine::{Duty, FenceRule, Hook, Member, Mode};
    let appointed = config.nodes.iter().any(|node| node.role == config::NodeRole::Primary || node.flags.always_primary);
    let member = |node: &config::Node| Member {
        id: node.id,
        duty: match node.role {
            _ if node.flags.disallow_to_failover || node.flags.always_primary => Duty::Fixed,
            config::NodeRole::Primary => Duty::Fixed,
            // Beside a primary that the configuration names it keeps its role as that one does.
            config::NodeRole::Standby if appointed => Duty::Fixed,
            config::NodeRole::Standby => Duty::Standby,
            config::NodeRole::Auto => Duty::Any,
        },
        application_name: node.application_name.clone(),
        addresses: vec![(node.host.clone(), node.port), (node.replication_host.clone(), node.replication_port)],
    };
    let failover = &config.failover;
    let commands = &failover.commands;
    let hooks = [
        (Hook::Failover, &commands.failover),
        (Hook::Follow, &commands.follow_primary),
        (Hook::Failback, &commands.failback),
        (Hook::Fence, &commands.fence),
        (Hook::Demote, &commands.demote),
    ];
    let mut hooks: BTreeSet<Hook> =
        hooks.into_iter().filter(|(_, command)| command.is_some()).map(|(hook, _)| hook).collect();
    // Where pgpool-II's extension is, it can stop a primary, too.
    hooks.extend(config.recovery.first_stage_command.as_ref().map(|_| Hook::Demote));
    Settings {
        mode: match failover.promote {
            config::Promote::Never => Mode::Never,
            config::Promote::Builtin => Mode::Builtin,
            config::Promote::Command => Mode::Command,
        },
        members: config.nodes.iter().map(member).collect(),
        hold_timeout: failover.hold_timeout,
        max_lag: failover.max_lag_on_failover,
        allow_data_loss: failover.allow_data_loss,
        relax_sync: failover.on_sync_shortage == config::OnSyncShortage::Relax,
        fence: match failover.fence {
            config::Fence::Required => FenceRule::Required,
            config::Fence::BestEffort => FenceRule::BestEffort,
        },
        hooks,
        hook_timeout: commands.timeout,
        auto_failback: failover.auto_failback.then_some(failover.auto_failback_interval),
        company: if config.watchdog.is_some() { Company::Partners } else { Company::Alone },
        drain: (failover.hold_timeout / 2).clamp(SHORTEST_DRAIN, LONGEST_DRAIN),
    }
}

/// The first of `order`'s answers is `Event::Done`.
type Answer = (Ticket, Outcome);

/// Runs until the future is dropped. Needs a current-thread runtime with time and net.
pub async fn run<S: Servers + 'static, T: Threads + 'static>(parts: Parts<S, T>) {
    let local = LocalSet::new();
    local.run_until(follow(parts)).await;
}

async fn follow<S: Servers + 'static, T: Threads + 'static>(parts: Parts<S, T>) {
    let Parts { config, servers, threads, consensus, store, journal, shared, mut published, .. } = parts;
    let (rulings, requests, mut orders, mut reloads) = (parts.rulings, parts.requests, parts.orders, parts.reloads);
    let (mut accord, mut jobs, mut agreeing) = (parts.accord, HashMap::new(), true);
    accord.mark_changed();
    let mut engine = Engine::new(settings(&config), journal, clock::now());
    rulings.send_replace(engine.ruling().clone());
    let world = Rc::new(World {
        config: std::cell::RefCell::new(Rc::new(config)),
        servers,
        threads,
        consensus,
        store,
        disk: Arc::default(),
        shared,
        published: published.clone(),
        rulings,
        requests,
        places: std::cell::RefCell::default(),
    });
    tokio::task::spawn_local(world.clone().stay_fresh());
    let (sender, mut answers) = mpsc::channel(MAX_ANSWERS);
    let mut asked: HashMap<Ticket, oneshot::Sender<Result<String, String>>> = HashMap::new();
    let (mut next_order, mut ordering, mut reloading) = (1_u64 << 60, true, true);
    let mut event = Event::Tick;
    loop {
        for action in engine.step(event, clock::now()) {
            match action {
                Action::Rule(ruling) => drop(world.rulings.send_replace(ruling)),
                Action::Do(ticket, job) => drop(jobs.insert(ticket, start(&world, &engine, ticket, job, &sender))),
                Action::Drop(tickets) => give_up(&world, tickets.iter().filter_map(|ticket| jobs.remove(ticket))),
                Action::Note(note) => drop(world.shared.events.record(happened(&note))),
                Action::Reply(ticket, answer) => {
                    // Who asked may have given up.
                    asked.remove(&ticket).map(|asked| asked.send(answer));
                }
            }
        }
        let wakeup = engine.wakeup(clock::now());
        event = tokio::select! {
            biased;
            Some((ticket, outcome)) = answers.recv() => {
                jobs.remove(&ticket);
                Event::Done(ticket, outcome)
            }
            changed = accord.changed(), if agreeing => {
                agreeing = changed.is_ok();
                Event::Accord(accord.borrow_and_update().clone())
            }
            order = orders.recv(), if ordering => match order {
                Some((order, answer)) => {
                    next_order += 1;
                    asked.insert(Ticket(next_order), answer);
                    Event::Order(Ticket(next_order), order)
                }
                None => { ordering = false; Event::Tick }
            },
            reload = reloads.recv(), if reloading => match reload {
                Some(config) => {
                    let settings = settings(&config);
                    *world.config.borrow_mut() = Rc::new(config);
                    Event::Configure(settings)
                }
                None => { reloading = false; Event::Tick }
            },
            Ok(()) = published.changed() => Event::View(world.shared.snapshot()),
            () = sleep_until(wakeup.into()) => Event::Tick,
        };
    }
}

/// Each job is a task; those of one node take their turns in the order in which they were given.
fn start<S: Servers + 'static, T: Threads + 'static>(
    world: &Rc<World<S, T>>,
    engine: &Engine,
    ticket: Ticket,
    job: Job,
    answers: &mpsc::Sender<Answer>,
) -> AbortHandle {
    let (world, answers, limit) = (world.clone(), answers.clone(), engine.limit_of(&job));
    let task = tokio::task::spawn_local(async move {
        tracing::debug!(?job, ticket = ticket.0, "job");
        let outcome = match tokio::time::timeout(limit, world.work(&job)).await {
            Ok(outcome) => outcome,
            Err(_) => jobs::too_late(&job, limit),
        };
        tracing::debug!(?outcome, ticket = ticket.0, "job done");
        // Without a receiver the runner has ended.
        let _ = answers.send((ticket, outcome)).await;
    });
    task.abort_handle()
}

/// Somebody else acts now: with the sessions go the locks of recruits.
fn give_up<S: Servers, T>(world: &World<S, T>, jobs: impl Iterator<Item = AbortHandle>) {
    jobs.for_each(|job| job.abort());
    world.places.borrow_mut().clear();
}

/// One line per event: who, what, from whom to whom, why, in which epoch, after how long.
fn happened(note: &Note) -> cluster::Event {
    let id = |node: &Option<NodeId>| node.map_or(String::new(), |node| node.to_string());
    let Note { event, node, from, to, epoch, why, took } = note;
    let good = ["promoted", "follows", "failover_done", "switchover_done", "outage_over", "attached"].contains(event);
    let made = if good { cluster::Event::info(event, "failover") } else { cluster::Event::warn(event, "failover") };
    made.node(*node).change(id(from), id(to)).epoch(*epoch).why(why).took(*took)
}
