//! A proxy under test: the real engines of `health` and `failover`, wired as their runners wire them, and the connections of its clients.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgherd::cluster::{ClusterView, Epoch, Life, NodeId};
use pgherd::failover::engine::{
    self as failover, Action, Company, Duty, Event, FenceRule, Hook, Journal, Member, Mode, Order, Settings, Ticket,
};
use pgherd::health::engine::{self as health, Fixed, NodeSettings, Thresholds};
use pgherd::health::reading::Failure;

use crate::h03_a_majority_sees_it_dead as h03;
use crate::h10_diverged_is_never_served as h10;
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
    /// An operator has ordered it to move the primary's role.
    pub(crate) ordered: bool,
    /// An operator has attached a node, which may count in a majority that was had before.
    pub(crate) attached: bool,
}

pub(crate) struct Proxy {
    pub(crate) process: Option<Process>,
    /// The number of its process, among those of all proxies.
    pub(crate) incarnation: u64,
    pub(crate) disk: Journal,
    pub(crate) view: Arc<ClusterView>,
    pub(crate) consent: bool,
    /// Nothing goes wrong by itself any more.
    pub(crate) steady: bool,
    pub(crate) connections: Vec<Connection>,
    /// Servers that it cannot reach.
    pub(crate) cut: BTreeSet<usize>,
    pub(crate) settings: Settings,
    next: u64,
    starts: Tick,
    base: Instant,
}

/// What the configuration says, the same for all proxies.
pub(crate) fn settings(random: &mut Random, mode: Mode, count: usize, company: Company) -> Settings {
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
    Settings {
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
        company,
        drain: Duration::from_secs(15),
    }
}

impl Proxy {
    pub(crate) fn new(settings: Settings, base: Instant) -> Self {
        Self {
            process: None,
            incarnation: 0,
            disk: Journal::default(),
            view: Arc::new(ClusterView::empty()),
            consent: true,
            steady: false,
            connections: Vec::new(),
            cut: BTreeSet::new(),
            settings,
            next: 1,
            starts: 1,
            base,
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
    pub(crate) fn proxy_dies(&mut self, by: usize) {
        let busy = !self.proxies[by].at_rest();
        if self.proxies[by].process.take().is_none() {
            return;
        }
        self.tally.proxy_deaths += 1;
        self.tally.deposed += u64::from(busy && self.leader() == Some(by));
        let starts = self.now + 10 + self.random.below(4 * SECOND);
        let proxy = &mut self.proxies[by];
        proxy.connections.clear();
        proxy.starts = starts;
    }

    fn proxy_starts(&mut self, by: usize) {
        self.processes += 1;
        let proxy = &mut self.proxies[by];
        let now = proxy.instant(self.now);
        proxy.incarnation = self.processes;
        proxy.view = Arc::new(ClusterView::empty());
        let nodes = proxy.settings.members.iter().map(node_settings).collect();
        let failover = failover::Engine::new(proxy.settings.clone(), proxy.disk.clone(), now);
        let ruling = failover.ruling().clone();
        proxy.process = Some(Process {
            health: health::Engine::new(nodes, self.seed ^ self.processes, now),
            failover,
            probes: Vec::new(),
            wakeup: now,
            jobs: Vec::new(),
            ordered: false,
            attached: false,
        });
        self.member_starts(by);
        self.say(|world| format!("proxy {by}.{} starts with {:?}", world.processes, world.proxies[by].disk));
        self.probe_event(by, health::Event::Ruling(ruling));
        self.tell(by, Event::Tick);
    }

    /// One tick of a proxy.
    pub(crate) fn proxy_turn(&mut self, by: usize) {
        if !self.proxies[by].alive() {
            if self.now >= self.proxies[by].starts {
                self.proxy_starts(by);
            }
            return;
        }
        self.end_probes(by);
        self.turn_jobs(by);
        let now = self.proxies[by].instant(self.now);
        let Some(process) = &self.proxies[by].process else { return };
        if process.health.wakeup().is_some_and(|at| at <= now) {
            self.probe_event(by, health::Event::Tick);
        }
        if self.proxies[by].process.as_ref().is_some_and(|process| process.wakeup <= now) {
            self.tell(by, Event::Tick);
        }
    }

    fn end_probes(&mut self, by: usize) {
        let Some(process) = &mut self.proxies[by].process else { return };
        let now = self.now;
        let due: Vec<_> = process.probes.extract_if(.., |(ends, ..)| *ends <= now).collect();
        for (_, began, node) in due {
            let id = usize::from(node.0);
            let event = if self.answers(by, id) {
                let asked = self.proxies[by].instant(began);
                health::Event::Answered { node, asked, reading: self.servers[id].reading(now) }
            } else if self.refuses(by, id) {
                health::Event::Failed { node, failure: Failure::Refused }
            } else if now >= began + SECOND {
                health::Event::Failed { node, failure: Failure::TimedOut }
            } else {
                if let Some(process) = &mut self.proxies[by].process {
                    process.probes.push((began + SECOND, began, node));
                }
                continue;
            };
            self.probe_event(by, event);
        }
    }

    /// Gives `health` an event and does what it wants.
    fn probe_event(&mut self, by: usize, event: health::Event) {
        let now = self.proxies[by].instant(self.now);
        let Some(process) = &mut self.proxies[by].process else { return };
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
            let old = (self.proxies[by].view.epoch, self.proxies[by].view.primary);
            if old != (view.epoch, view.primary) {
                self.say(|_| format!("view {by}: epoch {} primary {:?}", view.epoch.0, view.primary));
            }
            // Partners may go back from a candidate that they have not agreed on: nothing was written in its epoch.
            let written =
                |(_, _, epoch, ..): &(u32, NodeId, Epoch, Tick, usize)| *epoch > view.epoch && *epoch <= old.0;
            let unused = self.group.is_some() && !self.history.sent.iter().any(written);
            assert!(
                view.primary.is_none() || view.epoch >= old.0 || unused,
                "the epoch goes back from {:?} to {:?}",
                old.0,
                view.epoch
            );
            let acts = self.group.is_none() || self.leader() == Some(by);
            if let Some(primary) = view.primary_node().filter(|node| acts && node.life == Life::Well) {
                let well = usize::from(primary.id.0);
                self.history.promoting_hooks.remove(&well);
            }
            self.proxies[by].view = view.clone();
            h10::check(self, by, &view);
            h14::learn(self, by, &view);
            self.tell(by, Event::View(view));
        }
    }

    /// Gives `failover` an event and does what it wants.
    pub(crate) fn tell(&mut self, by: usize, event: Event) {
        let now = self.proxies[by].instant(self.now);
        let Some(process) = &mut self.proxies[by].process else { return };
        let actions = process.failover.step(event, now);
        process.wakeup = process.failover.wakeup(now);
        for action in actions {
            match action {
                Action::Rule(ruling) => {
                    self.say(|_| format!("{by} rules {ruling:?}"));
                    self.probe_event(by, health::Event::Ruling(ruling));
                }
                Action::Do(ticket, job) => {
                    h03::begins(self, by, &job);
                    self.start_job(by, ticket, job);
                }
                Action::Note(note) => {
                    self.tally.switchovers += u64::from(note.event == "switchover_done");
                    self.tally.withdrawn += u64::from(note.why == "the partners see the primary again");
                    self.say(|_| format!("{by} event {note:?}"));
                }
                Action::Drop(tickets) => self.drop_jobs(by, &tickets),
                Action::Reply(_, answer) => self.say(|_| format!("{by} reply {answer:?}")),
            }
        }
    }

    /// To whoever leads, or to any other.
    pub(crate) fn order(&mut self, by: usize, order: Order) {
        self.say(|_| format!("{by} order {order:?}"));
        if let (Order::Promote(_) | Order::SwitchOver(_), Some(process)) = (order, &mut self.proxies[by].process) {
            process.ordered = true;
        }
        if let (Order::Attach(_), Some(process)) = (order, &mut self.proxies[by].process) {
            process.attached = true;
        }
        self.tell(by, Event::Order(Ticket(0), order));
    }
}
