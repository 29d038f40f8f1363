//! The group as it truly is: true time, processes, what each has on disk, and the rules that are looked at after each event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgherd::cluster::NodeId;
use pgherd::watchdog::engine::{
    Action, Duty, Engine, Event, Kept, Member, MemberId, Message, OnQuorumLoss, Settings, Sight, Standing, Third,
    Ticket, Writes,
};
use pgherd::watchdog::timings::Timings;

pub(crate) use super::group::{Group, Tally};
use super::links::Links;
use super::servers::Servers;
use super::{consent_by_majority, converges, faults, one_address, one_leader};
use crate::world::Random;

/// True time, in microseconds.
pub(crate) type Time = u64;
pub(crate) const MILLI: Time = 1_000;
pub(crate) const SECOND: Time = 1_000 * MILLI;

/// What is going to happen.
#[derive(Debug, Clone)]
pub(crate) enum Next {
    Deliver { from: usize, to: usize, message: Box<Message> },
    Tell { to: usize, incarnation: u64, event: Event },
    Synced { to: usize, incarnation: u64, number: u64, kept: Box<Kept> },
    Lock { by: usize, incarnation: u64, node: usize, sent: Instant },
    Set { by: usize, incarnation: u64, until: Instant, first: bool },
    Delete { by: usize, incarnation: u64 },
    Wake { to: usize, incarnation: u64, ticket: u64 },
    Thaw(usize),
    Start(usize),
    Fault,
    Mend(faults::Mend),
    Heal,
    Ask(usize),
}

pub(crate) struct Process {
    pub(crate) engine: Engine,
    pub(crate) standing: Standing,
    wake: u64,
    /// Consent that was given and not recorded yet.
    pub(crate) consent: Option<u64>,
}

pub(crate) struct Host {
    pub(crate) process: Option<Process>,
    pub(crate) incarnation: u64,
    pub(crate) disk: Kept,
    pub(crate) frozen: Option<Time>,
    /// What happens, in this order, when it goes on.
    pub(crate) deferred: Vec<Next>,
    /// Its clock: parts per thousand, and what it showed at the beginning.
    rate: u64,
    origin: Instant,
    /// The kernel has the address until then.
    pub(crate) address: Option<Time>,
    /// Until then the orders about it take.
    pub(crate) ordered: Time,
    /// The kernel does not let it be there.
    pub(crate) refuses: bool,
    /// The newest of them is to delete it.
    pub(crate) gives_up: bool,
    pub(crate) slow_disk: bool,
    /// Its disk does not answer.
    pub(crate) stuck: bool,
    /// The newest order to it meanwhile.
    waiting: Option<(u64, u64, Box<Kept>)>,
    pub(crate) sights: Vec<Sight>,
    /// Asks for consent to replace node 0.
    pub(crate) asking: bool,
    pub(crate) vanished: bool,
    pub(crate) left: bool,
}

pub(crate) struct World {
    pub(crate) group: Group,
    pub(crate) now: Time,
    pub(crate) random: Random,
    pub(crate) hosts: Vec<Host>,
    pub(crate) links: Links,
    pub(crate) servers: Servers,
    pub(crate) trusted_up: bool,
    pub(crate) timings: Timings,
    pub(crate) tally: Tally,
    pub(crate) healed: bool,
    pub(crate) forgets: bool,
    /// Nothing goes wrong by itself.
    pub(crate) calm: bool,
    pub(crate) consents: BTreeMap<u64, usize>,
    /// When anybody last saw node 0 dead.
    pub(crate) dead_at: Option<Time>,
    /// When each voter last gave its word to whom.
    pub(crate) words: BTreeMap<(usize, usize), Time>,
    queue: BTreeMap<(Time, u64), Next>,
    order: u64,
    verbose: bool,
}

pub(crate) fn id(member: usize) -> MemberId {
    MemberId(u8::try_from(member).expect("few"))
}

impl World {
    pub(crate) fn new(seed: u64, group: Group, verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let count = match group {
            Group::PairNodes(_) | Group::PairTrusted => 2,
            Group::PairWitness => 3,
            Group::Voters(count) => count,
        };
        let nodes = if let Group::PairNodes(nodes) = group { nodes } else { 3 };
        let origin = Instant::now();
        let host = |random: &mut Random| Host {
            process: None,
            incarnation: 0,
            disk: Kept::default(),
            frozen: None,
            deferred: Vec::new(),
            rate: 980 + random.below(41),
            origin: origin + Duration::from_secs(random.below(100_000)),
            address: None,
            ordered: 0,
            refuses: false,
            gives_up: false,
            slow_disk: false,
            stuck: false,
            waiting: None,
            sights: vec![Sight::Alive; nodes],
            asking: false,
            vanished: false,
            left: false,
        };
        let hosts = (0..count).map(|_| host(&mut random)).collect();
        let mut world = Self {
            group,
            now: 0,
            hosts,
            links: Links::new(count),
            servers: Servers::new(nodes, count),
            trusted_up: true,
            timings: Timings::of(Duration::from_secs(3)),
            tally: Tally::default(),
            healed: false,
            forgets: false,
            calm: false,
            consents: BTreeMap::new(),
            dead_at: None,
            words: BTreeMap::new(),
            queue: BTreeMap::new(),
            order: 0,
            verbose,
            random,
        };
        for member in 0..count {
            let at = world.random.below(2 * SECOND);
            world.at(at, Next::Start(member));
        }
        world
    }

    pub(crate) fn say(&self, text: impl Fn(&Self) -> String) {
        if self.verbose {
            println!("{:9.4} {}", self.now as f64 / SECOND as f64, text(self));
        }
    }

    pub(crate) fn at(&mut self, time: Time, next: Next) {
        self.order += 1;
        self.queue.insert((time.max(self.now), self.order), next);
    }

    pub(crate) fn after(&mut self, delay: Time, next: Next) {
        self.at(self.now + delay, next);
    }

    /// Faults for a while, then all is mended, and the group must be whole again.
    pub(crate) fn history(mut self) -> Tally {
        let faults = (12 + self.random.below(10)) * SECOND;
        self.after(6 * SECOND, Next::Fault);
        self.at(faults, Next::Heal);
        self.run(faults + converges::WITHIN);
        converges::check(&self);
        self.tally
    }

    pub(crate) fn run(&mut self, end: Time) {
        while let Some(entry) = self.queue.first_entry() {
            let time = entry.key().0;
            if time > end {
                break;
            }
            let next = entry.remove();
            self.now = self.now.max(time);
            self.happen(next);
            if self.healed && matches!(self.queue.len() % 64, 0) && converges::is_whole(self).is_ok() {
                return;
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, next: Next) {
        match next {
            Next::Deliver { from, to, message } => self.deliver(from, to, message),
            Next::Tell { to, incarnation, event } => self.tell(to, incarnation, event),
            Next::Synced { to, incarnation, number, kept } => {
                if self.is(to, incarnation) {
                    self.hosts[to].disk = *kept;
                    self.tell(to, incarnation, Event::Persisted(number));
                }
            }
            Next::Lock { by, incarnation, node, sent } => self.lock(by, incarnation, node, sent),
            Next::Set { by, incarnation, until, first } => self.set(by, incarnation, until, first),
            Next::Delete { by, incarnation } => self.delete(by, incarnation),
            Next::Wake { to, incarnation, ticket } => {
                if self.hosts[to].process.as_ref().is_some_and(|process| process.wake == ticket) {
                    self.tell(to, incarnation, Event::Tick);
                }
            }
            Next::Thaw(member) => {
                if self.hosts[member].frozen.is_some_and(|until| until <= self.now) {
                    self.hosts[member].frozen = None;
                    self.say(|_| format!("{member} goes on"));
                    for next in std::mem::take(&mut self.hosts[member].deferred) {
                        self.at(self.now, next);
                    }
                }
            }
            Next::Start(member) => self.start(member),
            Next::Fault => faults::one(self),
            Next::Mend(mend) => faults::mend(self, mend),
            Next::Heal => faults::heal(self),
            Next::Ask(member) => self.ask(member),
        }
    }

    pub(crate) fn is(&self, member: usize, incarnation: u64) -> bool {
        self.hosts[member].process.is_some() && self.hosts[member].incarnation == incarnation
    }

    /// What a host's clock shows.
    pub(crate) fn local(&self, member: usize, at: Time) -> Instant {
        let host = &self.hosts[member];
        host.origin + Duration::from_micros(at * host.rate / 1_000)
    }

    /// When a host's clock shows that.
    pub(crate) fn truly(&self, member: usize, at: Instant) -> Time {
        let host = &self.hosts[member];
        let micros = u64::try_from(at.saturating_duration_since(host.origin).as_micros()).expect("soon");
        (micros * 1_000).div_ceil(host.rate)
    }

    pub(crate) fn settings(&self, member: usize) -> Settings {
        let duty = |id: usize| match (self.group, id) {
            (Group::PairWitness, 2) => Duty::Witness,
            _ => Duty::Proxy,
        };
        let third = match self.group {
            Group::PairNodes(count) => Third::Nodes((0..count).map(node).collect()),
            Group::PairTrusted => Third::Trusted,
            _ => Third::None,
        };
        Settings {
            me: id(member),
            members: (0..self.hosts.len()).map(|id| Member { name: format!("p{id}"), duty: duty(id) }).collect(),
            priority: 1,
            timings: self.timings,
            trusted: self.group.asks_trusted(),
            third,
            address: true,
            on_quorum_loss: OnQuorumLoss::Stop,
            agreed: BTreeMap::from([("virtual_ip".to_owned(), "192.0.2.10".to_owned())]),
        }
    }

    pub(crate) fn start(&mut self, member: usize) {
        if self.hosts[member].process.is_some() || self.hosts[member].vanished {
            return;
        }
        // It finds that out at its start, and is started again.
        if self.hosts[member].stuck {
            self.after(500 * MILLI, Next::Start(member));
            return;
        }
        self.hosts[member].incarnation += 1;
        let incarnation = self.hosts[member].incarnation;
        let engine = Engine::new(
            self.settings(member),
            self.hosts[member].disk.clone(),
            incarnation,
            self.local(member, self.now),
        );
        let standing = engine.standing();
        self.hosts[member].process = Some(Process { engine, standing, wake: 0, consent: None });
        (self.hosts[member].left, self.hosts[member].ordered) = (false, 0);
        self.hosts[member].gives_up = false;
        self.say(|_| format!("{member} starts"));
        self.see(member);
    }

    /// Tells a process what it sees of the nodes.
    pub(crate) fn see(&mut self, member: usize) {
        let sights = self.hosts[member].sights.iter().enumerate().map(|(at, sight)| (node(at), *sight)).collect();
        let event = Event::Sights(sights, Some(node(0)));
        self.tell(member, self.hosts[member].incarnation, event);
    }

    /// The process is gone, and its address with it.
    pub(crate) fn kill(&mut self, member: usize) {
        if self.hosts[member].process.take().is_none() {
            return;
        }
        self.say(|_| format!("{member} is killed"));
        self.tally.deaths += 1;
        let incarnation = self.hosts[member].incarnation;
        self.hosts[member].address = None;
        self.hosts[member].frozen = None;
        self.hosts[member].deferred.clear();
        self.hosts[member].waiting = None;
        self.servers.hang_up(member, incarnation, self.now);
        for other in 0..self.hosts.len() {
            // The kernel ends its links in order, and refuses new ones.
            let delay = MILLI + self.random.below(20 * MILLI);
            if other != member && !self.links.is_cut(member, other) && !self.links.is_cut(other, member) {
                let event = Event::Gone { member: id(member), incarnation, asked: self.local(other, self.now) };
                self.after(delay, Next::Tell { to: other, incarnation: self.hosts[other].incarnation, event });
            }
        }
    }

    pub(crate) fn tell(&mut self, to: usize, incarnation: u64, event: Event) {
        if !self.is(to, incarnation) {
            return;
        }
        if self.hosts[to].frozen.is_some() {
            self.hosts[to].deferred.push(Next::Tell { to, incarnation, event });
            return;
        }
        let now = self.local(to, self.now);
        self.tally.steps += 1;
        let Some(process) = &mut self.hosts[to].process else { return };
        let actions = process.engine.step(event, now);
        let wakeup = process.engine.wakeup(now);
        process.wake += 1;
        let ticket = process.wake;
        let at = self.truly(to, wakeup).max(self.now + 1);
        self.at(at, Next::Wake { to, incarnation, ticket });
        for action in actions {
            self.act(to, incarnation, action);
        }
    }

    fn act(&mut self, by: usize, incarnation: u64, action: Action) {
        match action {
            Action::Send(to, message) => self.send(by, usize::from(to.0), message),
            Action::Persist(number, kept) if self.hosts[by].stuck => {
                self.hosts[by].waiting = Some((incarnation, number, kept));
            }
            Action::Persist(number, kept) => {
                let delay = if self.hosts[by].slow_disk { 500 * MILLI } else { MILLI + self.random.below(8 * MILLI) };
                self.after(delay, Next::Synced { to: by, incarnation, number, kept });
            }
            Action::Lock(node) => self.try_lock(by, incarnation, usize::from(node.0)),
            Action::Unlock(node) => self.servers.unlock(usize::from(node.0), by),
            Action::Ping => self.ping(by, incarnation),
            Action::Address(order) => one_address::order(self, (by, incarnation), order),
            Action::Standing(standing) => {
                one_leader::check(self, by, &standing);
                if let Some(process) = &mut self.hosts[by].process {
                    process.standing = standing;
                }
            }
            Action::Reply(ticket, answer) => self.replied(by, incarnation, ticket, answer),
            Action::Note(note) => {
                self.tally.elections += u64::from(note.event == "leader");
                self.tally.hand_overs += u64::from(note.event == "yielded");
                self.tally.unfit += u64::from(note.event == "address_unfit");
                self.say(|_| format!("{by} {}: {} {:?} {:?}", note.event, note.why, note.member, note.term));
            }
            Action::Left => {
                self.say(|_| format!("{by} has left"));
                self.hosts[by].left = true;
                self.kill(by);
                self.tally.deaths -= 1;
                if self.healed || !self.calm {
                    self.after(3 * SECOND, Next::Start(by));
                }
            }
            // Connections are closed in a moment, or when the process goes on.
            Action::Stop(epoch) => {
                let delay = MILLI + self.random.below(100 * MILLI);
                self.after(delay, Next::Tell { to: by, incarnation, event: Event::Stopped(epoch) });
            }
            Action::Share(_) | Action::Quarantine(_) => {}
        }
    }

    fn ping(&mut self, by: usize, incarnation: u64) {
        let answered = self.trusted_up && !self.links.untrusted[by];
        let delay = if answered { MILLI } else { 500 * MILLI };
        let event = Event::Trusted { sent: self.local(by, self.now), answered };
        self.after(delay, Next::Tell { to: by, incarnation, event });
    }

    /// The failover engine of a leader wants to replace node 0 as long as it sees it dead.
    fn ask(&mut self, member: usize) {
        if self.hosts[member].process.is_some() && self.hosts[member].sights[0] == Sight::Dead {
            let event = Event::Consent { ticket: Ticket(1), node: node(0), planned: false };
            self.tell(member, self.hosts[member].incarnation, event);
        } else {
            self.hosts[member].asking = false;
            self.tell(member, self.hosts[member].incarnation, Event::Resume);
        }
    }

    fn replied(&mut self, by: usize, incarnation: u64, ticket: Ticket, answer: Result<u64, String>) {
        self.say(|_| format!("{by} is answered {ticket:?} {answer:?}"));
        match (ticket.0, answer) {
            (1, Ok(epoch)) => {
                consent_by_majority::check(self, by, epoch);
                self.tally.consents += 1;
                if let Some(process) = &mut self.hosts[by].process {
                    process.consent = Some(epoch);
                }
                let event = Event::Record(Ticket(2), epoch, format!("epoch {epoch}"));
                let delay = self.random.below(SECOND);
                self.after(delay, Next::Tell { to: by, incarnation, event });
            }
            (2, Ok(_)) => {
                self.tally.records += 1;
                faults::promoted(self);
            }
            (1 | 2, _) => self.after(SECOND, Next::Ask(by)),
            _ => {}
        }
    }

    /// A disk answers again, and takes the newest of what waited.
    pub(crate) fn unstick(&mut self, member: usize) {
        self.hosts[member].stuck = false;
        if let Some((incarnation, number, kept)) = self.hosts[member].waiting.take() {
            self.after(5 * MILLI, Next::Synced { to: member, incarnation, number, kept });
        }
    }

    pub(crate) fn is_witness(&self, member: usize) -> bool {
        self.group == Group::PairWitness && member == 2
    }

    /// Until when, truly, a process believes that it may write, and under which epoch.
    pub(crate) fn writes(&self, member: usize) -> Option<(u64, Time)> {
        let standing = self.hosts[member].process.as_ref()?.standing;
        match standing.writes {
            Writes::Until(until) => Some((standing.epoch, self.truly(member, until))),
            Writes::Course | Writes::Stop => None,
        }
    }

    /// Until when a member knows that it leads.
    pub(crate) fn leads_until(&self, member: usize) -> Option<Time> {
        Some(self.truly(member, self.hosts[member].process.as_ref()?.standing.leads?))
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|member| {
            let process = self.hosts[*member].process.as_ref();
            process.is_some_and(|process| process.standing.leader == Some(id(*member)))
        })
    }
}

pub(crate) fn node(at: usize) -> NodeId {
    NodeId(u16::try_from(at).expect("few"))
}
