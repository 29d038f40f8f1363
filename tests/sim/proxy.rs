//! The proxy under test: the real engines of `health` and `failover`, wired as their runners wire them, and the connections of its clients.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgherd::cluster::{ClusterView, Life, NodeId};
use pgherd::failover::engine::{
    self as failover, Action, Company, Duty, Event, FenceRule, Hook, Journal, Member, Mode, Order, Settings, Ticket,
};
use pgherd::health::engine::{self as health, Fixed, NodeSettings, Thresholds};
use pgherd::health::reading::Failure;

use crate::h14_what_is_missed_is_missing as h14;
use crate::jobs::Running;
use crate::server::Tick;
use crate::world::{Random, SECOND, World};

/// One tick of time.
pub(crate) const TICK: Duration = Duration::from_millis(25);

/// A connection of the proxy to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) node: usize,
    pub(crate) epoch: u64,
    pub(crate) open: bool,
    pub(crate) busy: bool,
}

/// What ends with the process.
pub(crate) struct Process {
    pub(crate) health: health::Engine,
    pub(crate) failover: failover::Engine,
    /// When a probe ends, when it began, at whom.
    probes: Vec<(Tick, Tick, NodeId)>,
    /// When `failover` wants to be looked at.
    wakeup: Instant,
    pub(crate) jobs: Vec<Running>,
}

pub(crate) struct Proxy {
    pub(crate) process: Option<Process>,
    /// Counts processes.
    pub(crate) incarnation: u64,
    pub(crate) disk: Journal,
    pub(crate) view: Arc<ClusterView>,
    pub(crate) consent: bool,
    /// Nothing goes wrong by itself any more.
    pub(crate) steady: bool,
    pub(crate) connections: Vec<Connection>,
    pub(crate) settings: Settings,
    next: u64,
    starts: Tick,
    pub(crate) died: Tick,
    base: Instant,
}

impl Proxy {
    pub(crate) fn new(random: &mut Random, mode: Mode, count: usize) -> Self {
        let member = |id: usize| Member {
            id: NodeId(u16::try_from(id).expect("few")),
            duty: Duty::Any,
            application_name: format!("node{id}"),
            addresses: vec![(format!("10.0.0.{id}"), 5432)],
        };
        let mut hooks = BTreeSet::from([Hook::Demote, Hook::Follow]);
        if mode == Mode::Command || random.one_in(2) {
            hooks.insert(Hook::Failover);
        }
        if random.one_in(4) {
            hooks.insert(Hook::Fence);
        }
        let settings = Settings {
            mode,
            members: (0..count).map(member).collect(),
            hold_timeout: Duration::from_secs(5 + random.below(26)),
            max_lag: None,
            allow_data_loss: false,
            relax_sync: false,
            fence: if random.one_in(2) { FenceRule::Required } else { FenceRule::BestEffort },
            hooks,
            hook_timeout: Duration::from_secs(10),
            auto_failback: random.one_in(2).then(|| Duration::from_secs(random.below(5))),
            company: Company::Alone,
            drain: Duration::from_secs(15),
        };
        Self {
            process: None,
            incarnation: 0,
            disk: Journal::default(),
            view: Arc::new(ClusterView::empty()),
            consent: true,
            steady: false,
            connections: Vec::new(),
            settings,
            next: 1,
            starts: 1,
            died: 0,
            base: Instant::now(),
        }
    }

    pub(crate) fn alive(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn at_rest(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.failover.at_rest() && process.jobs.is_empty())
    }

    pub(crate) fn describe(&self) -> String {
        format!("{:?} {:#?}", self.process.as_ref().map(|process| &process.failover), self.view)
    }

    pub(crate) fn instant(&self, tick: Tick) -> Instant {
        self.base + TICK * u32::try_from(tick).expect("a short history")
    }

    /// A connection to write by: one of this epoch that is free, or a new one.
    pub(crate) fn connection(&mut self, node: usize, epoch: u64, reachable: bool) -> Option<u64> {
        let free =
            self.connections.iter_mut().find(|one| one.open && !one.busy && (one.node, one.epoch) == (node, epoch));
        if let Some(free) = free {
            free.busy = true;
            return Some(free.id);
        }
        let open = self.connections.iter().filter(|one| one.open && one.node == node).count();
        if !reachable || open >= 5 {
            return None;
        }
        self.next += 1;
        self.connections.push(Connection { id: self.next, node, epoch, open: true, busy: true });
        Some(self.next)
    }

    /// An answer arrives: the epoch under which its statement was sent, if anybody still listens.
    pub(crate) fn answered(&mut self, connection: u64) -> Option<u64> {
        let found = self.connections.iter_mut().find(|one| one.id == connection && one.open)?;
        found.busy = false;
        Some(found.epoch)
    }

    pub(crate) fn fence(&mut self, node: usize) {
        self.connections.retain(|one| one.node != node);
    }
}

fn node_settings(member: &Member) -> NodeSettings {
    NodeSettings {
        id: member.id,
        name: member.application_name.clone(),
        weight: 1.0,
        fixed: Fixed::Auto,
        thresholds: Thresholds::default(),
    }
}

impl World {
    pub(crate) fn proxy_dies(&mut self) {
        if self.proxy.process.take().is_none() {
            return;
        }
        self.tally.proxy_deaths += 1;
        self.proxy.connections.clear();
        self.proxy.died = self.now;
        self.proxy.starts = self.now + 10 + self.random.below(4 * SECOND);
    }

    fn proxy_starts(&mut self) {
        let now = self.proxy.instant(self.now);
        self.proxy.incarnation += 1;
        self.proxy.view = Arc::new(ClusterView::empty());
        let nodes = self.proxy.settings.members.iter().map(node_settings).collect();
        let failover = failover::Engine::new(self.proxy.settings.clone(), self.proxy.disk.clone(), now);
        let ruling = failover.ruling().clone();
        self.proxy.process = Some(Process {
            health: health::Engine::new(nodes, self.seed ^ self.proxy.incarnation, now),
            failover,
            probes: Vec::new(),
            wakeup: now,
            jobs: Vec::new(),
        });
        self.say(|world| format!("proxy {} starts with {:?}", world.proxy.incarnation, world.proxy.disk));
        self.probe_event(health::Event::Ruling(ruling));
        self.tell(Event::Tick);
    }

    /// One tick of the proxy.
    pub(crate) fn proxy_turn(&mut self) {
        // The sessions of a process that is gone end after a while, and their locks with them.
        if self.now > self.proxy.died + 3 * SECOND {
            let current = self.proxy.incarnation;
            for server in &mut self.servers {
                server.lock = server.lock.filter(|lock| *lock == current);
            }
        }
        if !self.proxy.alive() {
            if self.now >= self.proxy.starts {
                self.proxy_starts();
            }
            return;
        }
        self.end_probes();
        self.turn_jobs();
        let now = self.proxy.instant(self.now);
        let Some(process) = &self.proxy.process else { return };
        if process.health.wakeup().is_some_and(|at| at <= now) {
            self.probe_event(health::Event::Tick);
        }
        if self.proxy.process.as_ref().is_some_and(|process| process.wakeup <= now) {
            self.tell(Event::Tick);
        }
    }

    fn end_probes(&mut self) {
        let Some(process) = &mut self.proxy.process else { return };
        let now = self.now;
        let due: Vec<_> = process.probes.extract_if(.., |(ends, ..)| *ends <= now).collect();
        for (_, began, node) in due {
            let server = &self.servers[usize::from(node.0)];
            let event = if server.answers() {
                let asked = self.proxy.instant(began);
                health::Event::Answered { node, asked, reading: server.reading(now) }
            } else if !server.alive && !server.cut {
                health::Event::Failed { node, failure: Failure::Refused }
            } else if now >= began + SECOND {
                health::Event::Failed { node, failure: Failure::TimedOut }
            } else {
                if let Some(process) = &mut self.proxy.process {
                    process.probes.push((began + SECOND, began, node));
                }
                continue;
            };
            self.probe_event(event);
        }
    }

    /// Gives `health` an event and does what it wants.
    fn probe_event(&mut self, event: health::Event) {
        let now = self.proxy.instant(self.now);
        let Some(process) = &mut self.proxy.process else { return };
        let actions = process.health.step(event, now);
        let mut views = Vec::new();
        for action in actions {
            match action {
                health::Action::Probe { node, .. } => process.probes.push((self.now + 1, self.now, node)),
                health::Action::Publish(view) => views.push(Arc::new(view)),
                health::Action::Note(_) => {}
            }
        }
        for view in views {
            let old = (self.proxy.view.epoch, self.proxy.view.primary);
            if old != (view.epoch, view.primary) {
                self.say(|_| format!("view: epoch {} primary {:?}", view.epoch.0, view.primary));
            }
            assert!(
                view.primary.is_none() || view.epoch >= old.0,
                "the epoch goes back from {:?} to {:?}",
                old.0,
                view.epoch
            );
            if let Some(primary) = view.primary_node().filter(|node| node.life == Life::Well) {
                let well = usize::from(primary.id.0);
                self.history.promoting_hooks.retain(|(old, _), _| *old != well);
            }
            self.proxy.view = view.clone();
            h14::learn(self, &view);
            self.tell(Event::View(view));
        }
    }

    /// Gives `failover` an event and does what it wants.
    pub(crate) fn tell(&mut self, event: Event) {
        let now = self.proxy.instant(self.now);
        let Some(process) = &mut self.proxy.process else { return };
        let actions = process.failover.step(event, now);
        process.wakeup = process.failover.wakeup(now);
        for action in actions {
            match action {
                Action::Rule(ruling) => {
                    self.say(|_| format!("rules {ruling:?}"));
                    self.probe_event(health::Event::Ruling(ruling));
                }
                Action::Do(ticket, job) => self.start_job(ticket, job),
                Action::Note(note) => {
                    if note.event == "switchover_done" {
                        self.tally.switchovers += 1;
                    }
                    self.say(|_| format!("event {note:?}"));
                }
                Action::Drop(_) => unreachable!("no partners"),
                Action::Reply(_, answer) => self.say(|_| format!("reply {answer:?}")),
            }
        }
    }

    pub(crate) fn order(&mut self, order: Order) {
        self.say(|_| format!("order {order:?}"));
        self.tell(Event::Order(Ticket(0), order));
    }
}
