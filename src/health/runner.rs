//! Runs the engine on the control thread: carries events in and actions out, publishes views, writes the event log. Owner:
//! `app`, which starts it on a single-threaded runtime and ends it by dropping its future. Must not decide.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep_until;

use super::engine::{Action, Engine, Event, Fixed, NodeSettings, Note, Thresholds};
use super::node::{Connector, NodeTask, Origin};
use super::tally::Tally;
use crate::cluster::{self, ClusterView, Epoch, FailoverRequest, NodeId, Ruling, Shared, Status};
use crate::config;
use crate::support::clock;

/// Requests that may wait; a full queue means that the probes are already hurried, so that senders may drop theirs.
pub const MAX_REQUESTS: usize = 1024;

/// The engine's clock is looked at this often even if it wishes nothing.
const IDLE: Duration = Duration::from_secs(1);

/// Who is named in the event log.
const WHO: &str = "health";

/// Events of node tasks that may wait.
const MAX_EVENTS: usize = 256;

/// What the data threads hold of the health of the cluster.
#[derive(Debug, Clone)]
pub struct Reader {
    /// The newest view and samples.
    pub shared: Arc<Shared>,
    /// The generation of the newest view: to wait for a change.
    pub generation: watch::Receiver<u64>,
    /// What they noticed, by `try_send`: a full queue loses nothing that matters.
    pub requests: mpsc::Sender<FailoverRequest>,
    /// A reload's new nodes; the connector must know them before.
    pub reloads: mpsc::Sender<Vec<NodeSettings>>,
    /// Changes with every view, also with those of the same generation.
    pub published: watch::Receiver<()>,
    /// What `failover` decides; laid over the view that follows.
    pub rulings: watch::Sender<Ruling>,
}

/// The writing end, to be run on the control thread.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    generation: watch::Sender<u64>,
    published: watch::Sender<()>,
    requests: mpsc::Receiver<FailoverRequest>,
    reloads: mpsc::Receiver<Vec<NodeSettings>>,
    rulings: watch::Receiver<Ruling>,
    tally: Tally,
}

/// What the configuration says of the nodes. `ALWAYS_PRIMARY` is a fixed primary: it still has to say that it is one.
pub fn node_settings(nodes: &[config::Node]) -> Vec<NodeSettings> {
    let settings = |node: &config::Node| NodeSettings {
        id: node.id,
        name: node.name.clone(),
        weight: node.weight,
        fixed: match node.role {
            config::NodeRole::Primary => Fixed::Primary,
            config::NodeRole::Auto if node.flags.always_primary => Fixed::Primary,
            config::NodeRole::Auto => Fixed::Auto,
            config::NodeRole::Standby => Fixed::Standby,
        },
        thresholds: Thresholds {
            period: node.health_check.period,
            timeout: node.health_check.timeout,
            max_retries: node.health_check.max_retries,
            retry_delay: node.health_check.retry_delay,
            successes: node.health_check.successes,
        },
    };
    nodes.iter().map(settings).collect()
}

/// Both ends, nothing known yet.
pub fn channel() -> (Monitor, Reader) {
    let shared = Arc::new(Shared::new(clock::now()));
    let (generation, seen) = watch::channel(0);
    let (publish, published) = watch::channel(());
    let (sender, requests) = mpsc::channel(MAX_REQUESTS);
    let (reload, reloads) = mpsc::channel(1);
    let (rule, rulings) = watch::channel(Ruling::default());
    let reader = Reader {
        shared: shared.clone(),
        generation: seen,
        requests: sender,
        reloads: reload,
        published,
        rulings: rule,
    };
    (Monitor { shared, generation, published: publish, requests, reloads, rulings, tally: Tally::default() }, reader)
}

impl Monitor {
    /// Watches the nodes until the future is dropped. Needs a runtime with time and net, current thread.
    pub async fn run<C: Connector + 'static>(self, nodes: Vec<NodeSettings>, connector: C) {
        let local = LocalSet::new();
        local.run_until(self.watch(nodes, Rc::new(connector))).await;
    }

    async fn watch<C: Connector + 'static>(mut self, nodes: Vec<NodeSettings>, connector: Rc<C>) {
        let mut tasks = Tasks::start(&nodes, &connector, &self.shared);
        self.tally.configure(&nodes);
        let mut engine = Engine::new(nodes, RandomState::new().hash_one(0), clock::now());
        self.publish(engine.view().clone());
        // A closed channel gives nothing any more: the guards keep it from being asked for ever.
        let (mut troubles, mut reloading, mut ruled) = (true, true, true);
        // What was agreed on before a restart holds from the first view on.
        self.rulings.mark_changed();
        loop {
            let wakeup = engine.wakeup().unwrap_or_else(|| clock::now() + IDLE);
            let event = tokio::select! {
                biased;
                changed = self.rulings.changed(), if ruled => {
                    ruled = changed.is_ok();
                    Event::Ruling(self.rulings.borrow_and_update().clone())
                }
                event = tasks.next() => event,
                request = self.requests.recv(), if troubles => match request {
                    Some(request) => Event::Trouble(request),
                    None => {
                        troubles = false;
                        continue;
                    }
                },
                nodes = self.reloads.recv(), if reloading => {
                    reloading = nodes.is_some();
                    if let Some(nodes) = nodes {
                        tasks = Tasks::start(&nodes, &connector, &self.shared);
                        self.tally.configure(&nodes);
                        self.act(engine.configure(nodes, clock::now()), &tasks);
                    }
                    continue;
                }
                () = sleep_until(wakeup.into()) => Event::Tick,
            };
            self.count(&event);
            self.act(engine.step(event, clock::now()), &tasks);
        }
    }

    fn act(&mut self, actions: Vec<Action>, tasks: &Tasks) {
        for action in actions {
            match action {
                Action::Probe { node, fresh } => {
                    self.tally.started(node, clock::now());
                    tasks.probe(node, fresh);
                }
                Action::Publish(view) => self.publish(view),
                Action::Note(note) => self.note(note),
            }
        }
    }

    /// Health checks, for people.
    fn count(&mut self, event: &Event) {
        let (node, (took, ended)) = match event {
            Event::Answered { node, .. } => (*node, self.tally.answered(*node, clock::now())),
            Event::Failed { node, failure } => (*node, self.tally.failed(*node, *failure, clock::now())),
            _ => return,
        };
        self.shared.records.note(node, |record| {
            record.probes.observe(took);
            if let Some(ended) = ended {
                ended.count(&mut record.checks, clock::wall());
            }
        });
    }

    fn note(&self, note: Note) {
        let view = self.shared.view();
        let before = |node: NodeId| view.node(node).map_or(String::new(), |node| node.status.to_string());
        let event = match note {
            Note::Status(node, status, reason) => {
                self.shared.records.note(node, |record| record.changed = Some(clock::wall()));
                let event = match status {
                    Status::Up => cluster::Event::info("node_up", WHO).why("node is up"),
                    _ => cluster::Event::warn("node_out", WHO).why(format!("node is not used: {reason}")),
                };
                event.node(node).change(before(node), status)
            }
            Note::Failing(node, failure) => {
                let why = format!("probe failed: {}", failure.as_str());
                cluster::Event::warn("probe_failed", WHO).node(node).why(why)
            }
            Note::Asked(node) => {
                cluster::Event::info("probe_answered", WHO).node(node).why("the monitor role can ask this node again")
            }
            Note::Primary(node, epoch) => {
                let from = view.primary.map_or(String::new(), |node| node.to_string());
                let event = cluster::Event::info("primary", WHO).node(node).change(from, node);
                event.epoch(epoch).why("this node is the primary")
            }
            Note::Ambiguous => cluster::Event::error("ambiguous_primary", WHO).why(
                "several servers say that they are primary and none can be preferred: the present choice stays; set role = \"primary\" for one",
            ),
        };
        let event = if event.epoch.is_none() && view.epoch > Epoch(0) { event.epoch(view.epoch) } else { event };
        self.shared.events.record(event);
    }

    fn publish(&self, view: ClusterView) {
        let generation = view.generation;
        self.shared.publish(view);
        self.published.send_replace(());
        self.generation.send_if_modified(|seen| std::mem::replace(seen, generation) != generation);
    }
}

/// One task per node, ended together by dropping this.
struct Tasks {
    running: JoinSet<()>,
    commands: HashMap<NodeId, mpsc::Sender<bool>>,
    events: mpsc::Receiver<Event>,
}

impl Tasks {
    fn start<C: Connector + 'static>(nodes: &[NodeSettings], connector: &Rc<C>, shared: &Arc<Shared>) -> Self {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let (mut running, mut commands) = (JoinSet::new(), HashMap::new());
        for node in nodes {
            let (command, receiver) = mpsc::channel(1);
            commands.insert(node.id, command);
            let task = NodeTask {
                id: node.id,
                connector: connector.clone(),
                shared: shared.clone(),
                deadline: node.thresholds.timeout,
                commands: receiver,
                events: sender.clone(),
                client: None,
                origin: Origin::default(),
                refused: None,
            };
            running.spawn_local(task.run());
        }
        Self { running, commands, events }
    }

    /// The next event. Cancel safe. A panic of a task is a panic here: a node that nobody watches must not go unnoticed.
    async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => return event,
                Some(ended) = self.running.join_next() => {
                    if let Err(error) = ended && let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                else => std::future::pending::<()>().await,
            }
        }
    }

    fn probe(&self, node: NodeId, fresh: bool) {
        let sent = self.commands.get(&node).is_some_and(|command| command.try_send(fresh).is_ok());
        debug_assert!(sent, "the engine has one probe per node under way at most");
    }
}
