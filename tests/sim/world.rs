//! The cluster as it truly is, its clock, and what is known of everything that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use pgherd::cluster::{Epoch, NodeId, Role, Timeline, Writes};
use pgherd::failover::engine::{Company, Hook, Mode};

use crate::faults;
use crate::group::Group;
use crate::h02_no_promotion_while_a_standby_hears_it::Asked;
use crate::h03_a_majority_sees_it_dead::Grant;
use crate::proxy::{self, Proxy};
use crate::server::{Server, Stream, Tick, Write};
use crate::{
    h01_no_write_begins_at_a_suspect as h01, h05_no_node_is_left_recruited as h05, h07_one_primary_per_timeline as h07,
    h09_no_synchronous_row_is_lost as h09, h13_hooks_run_at_most_once as h13, h14_what_is_missed_is_missing as h14,
    h17_one_writer_per_epoch as h17, whole_when_faults_stop as whole,
};

/// Faults stop here: half a minute.
pub(crate) const FAULTS: Tick = 30 * SECOND;
/// The cluster must be whole by then.
pub(crate) const END: Tick = FAULTS + 150 * SECOND;
pub(crate) const SECOND: Tick = 40;
/// `wal_receiver_timeout`.
const RECEIVER_TIMEOUT: Tick = 2 * SECOND;

/// A pseudo-random sequence (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(0x51AB).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub(crate) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What happened, to see that something did.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) promotions: u64,
    pub(crate) switchovers: u64,
    pub(crate) acknowledged: u64,
    pub(crate) proxy_deaths: u64,
    pub(crate) lost: u64,
    pub(crate) missed: u64,
    /// Leaders of partners.
    pub(crate) leaders: u64,
    /// Those that stopped leading in the middle of something.
    pub(crate) deposed: u64,
    /// Consents that were not given.
    pub(crate) refused: u64,
    /// Runs that were given up since partners saw the primary.
    pub(crate) withdrawn: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.promotions += other.promotions;
        self.switchovers += other.switchovers;
        self.acknowledged += other.acknowledged;
        self.proxy_deaths += other.proxy_deaths;
        self.lost += other.lost;
        self.missed += other.missed;
        self.leaders += other.leaders;
        self.deposed += other.deposed;
        self.refused += other.refused;
        self.withdrawn += other.withdrawn;
    }
}

/// What the rules look at.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Rows that clients were told are committed, and whether synchronously.
    pub(crate) acknowledged: BTreeMap<u32, bool>,
    /// Each acknowledgement: epoch and node, in the order of arrival.
    pub(crate) writers: Vec<(u64, usize)>,
    /// Writes that were sent: which row, to whom, in which epoch, when, by which proxy.
    pub(crate) sent: Vec<(u32, NodeId, Epoch, Tick, usize)>,
    /// Those that are certainly in vain.
    pub(crate) missed: BTreeSet<u32>,
    /// Which server became primary of each timeline.
    pub(crate) leaders: BTreeMap<u32, BTreeSet<usize>>,
    /// Servers that `fence_command` has killed.
    pub(crate) fenced: BTreeSet<usize>,
    /// Hooks by number: which, for whom.
    pub(crate) hooks: BTreeMap<(Hook, u64, NodeId), u32>,
    /// Attempts to promote by `failover_command`, by the primary that is replaced, since it was seen well.
    pub(crate) promoting_hooks: BTreeMap<usize, u32>,
    /// Consents of partners, by epoch.
    pub(crate) grants: BTreeMap<u64, Grant>,
    /// The standbys that each process has asked whether the primary lives, in its last run.
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// The standby that each process has waited for in a switch-over, and the primary that was stopped.
    pub(crate) caught_up: BTreeMap<u64, (usize, usize)>,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Tick,
    pub(crate) random: Random,
    pub(crate) servers: Vec<Server>,
    pub(crate) mode: Mode,
    pub(crate) proxies: Vec<Proxy>,
    /// How the proxies agree, if there is more than one.
    pub(crate) group: Option<Group>,
    /// Processes of proxies so far.
    pub(crate) processes: u64,
    pub(crate) history: History,
    pub(crate) tally: Tally,
    /// When the primary and one standby are going to die together.
    pub(crate) plot: Option<(Tick, usize)>,
    /// The longest that a promotion may take, in ticks.
    pub(crate) slowest: Tick,
    next_row: u32,
    verbose: bool,
}

impl World {
    /// One proxy alone.
    pub(crate) fn alone(seed: u64, verbose: bool) -> Self {
        Self::new(seed, verbose, Random::new(seed), 1)
    }

    /// Two or three that must agree.
    pub(crate) fn partners(seed: u64, verbose: bool) -> Self {
        let mut random = Random::new(!seed);
        let proxies = 2 + usize::from(!random.one_in(3));
        Self::new(seed, verbose, random, proxies)
    }

    fn new(seed: u64, verbose: bool, mut random: Random, proxies: usize) -> Self {
        let count = 2 + random.below(4) as usize;
        let mut servers: Vec<Server> = (0..count).map(Server::new).collect();
        let mode = match random.below(8) {
            0 => Mode::Never,
            1 => Mode::Command,
            _ => Mode::Builtin,
        };
        for server in &mut servers {
            server.skew = random.below(20_000_000) as i64 - 10_000_000;
        }
        if count > 2 && random.one_in(2) {
            let most = count as u64 - 2;
            let sync = Some((1 + random.below(most) as usize, (0..count).collect::<Vec<_>>()));
            // Each server names all the others.
            for (id, server) in servers.iter_mut().enumerate() {
                server.sync =
                    sync.clone().map(|(k, list)| (k, list.into_iter().filter(|other| *other != id).collect()));
            }
        }
        let slowest = if random.one_in(3) { 30 * SECOND } else { SECOND / 2 };
        let company = if proxies > 1 { Company::Partners } else { Company::Alone };
        let settings = proxy::settings(&mut random, mode, count, company);
        let base = Instant::now();
        let mut world = Self {
            seed,
            now: 0,
            random,
            servers,
            mode,
            proxies: (0..proxies).map(|_| Proxy::new(settings.clone(), base)).collect(),
            group: (proxies > 1).then(|| Group::new(proxies)),
            processes: 0,
            history: History::default(),
            tally: Tally::default(),
            plot: None,
            slowest,
            next_row: 1,
            verbose,
        };
        world.history.leaders.entry(1).or_default().insert(0);
        world.say(|world| {
            format!("{proxies} proxies, {count} servers, {:?}, sync {:?}", world.mode, world.servers[0].sync)
        });
        world
    }

    pub(crate) fn say(&self, text: impl Fn(&Self) -> String) {
        if self.verbose {
            println!("{:8.3} {}", self.now as f64 / SECOND as f64, text(self));
        }
    }

    /// The whole history; panics where a rule is broken.
    pub(crate) fn run(mut self) -> Tally {
        while self.now < END {
            self.now += 1;
            if self.now < FAULTS {
                faults::maybe(&mut self);
            } else if self.now == FAULTS {
                faults::heal(&mut self);
            }
            // Who was fenced is started again by somebody.
            if self.now > FAULTS && self.now.is_multiple_of(30 * SECOND) {
                self.servers.iter_mut().for_each(Server::start);
                faults::attach(&mut self);
            }
            self.replicate();
            self.promotions();
            self.serve();
            self.end_sessions();
            self.group_turn();
            for by in 0..self.proxies.len() {
                self.proxy_turn(by);
                if self.now.is_multiple_of(4) {
                    self.write(by);
                }
            }
            h01::check(&self);
            h07::check(&self);
            h13::check(&self);
            h17::check(&self);
            if self.now > FAULTS + 5 * SECOND && self.now.is_multiple_of(SECOND / 2) && whole::is_whole(&self).is_ok() {
                break;
            }
        }
        whole::check(&self);
        h05::check(&self);
        h09::check(&mut self);
        h14::check(&self);
        self.tally.missed = self.history.missed.len() as u64;
        self.tally.acknowledged = self.history.acknowledged.len() as u64;
        self.tally
    }

    pub(crate) fn linked(&self, a: usize, b: usize) -> bool {
        !self.servers[a].isolated && !self.servers[b].isolated
    }

    /// This proxy can talk to this server.
    pub(crate) fn answers(&self, by: usize, id: usize) -> bool {
        self.servers[id].runs() && !self.proxies[by].cut.contains(&id)
    }

    /// Its host answers for a server that is not there.
    pub(crate) fn refuses(&self, by: usize, id: usize) -> bool {
        !self.servers[id].alive && !self.proxies[by].cut.contains(&id)
    }

    /// As the newest view has it.
    pub(crate) fn primary(&self) -> Option<NodeId> {
        self.proxies.iter().map(|proxy| &proxy.view).max_by_key(|view| view.epoch)?.primary
    }

    fn replicate(&mut self) {
        for id in 0..self.servers.len() {
            let server = &self.servers[id];
            if server.role == Role::Primary || !server.runs() {
                continue;
            }
            let (upstream, target) = (server.upstream, &self.servers[server.upstream]);
            let now = Stream { upstream, incarnation: target.incarnation, timeline: target.timeline };
            let reaches = upstream != id && target.alive && self.linked(id, upstream) && !server.marker;
            let speaks = reaches && !target.frozen;
            // A receiver ends with its upstream's process, by our marker, or by its timeout.
            let ended = !target.alive && self.linked(id, upstream);
            let silent = self.now.saturating_sub(server.heard) > RECEIVER_TIMEOUT;
            if server.marker || ended || (server.stream.is_some() && !speaks && silent) {
                self.servers[id].stream = None;
            }
            if !speaks {
                continue;
            }
            if self.servers[id].stream != Some(now) {
                let fits = self.servers[upstream].log.starts_with(&self.servers[id].log)
                    && self.servers[id].timeline <= now.timeline;
                self.servers[id].stream = fits.then_some(now);
            }
            if self.servers[id].stream.is_some() {
                let from = self.servers[id].log.len();
                let most = if self.servers[id].slow { 0 } else { 3 };
                let news: Vec<u32> = self.servers[upstream].log[from..].iter().copied().take(most).collect();
                let ancestors = self.servers[upstream].ancestors.clone();
                let server = &mut self.servers[id];
                server.log.extend(news);
                (server.timeline, server.ancestors) = (now.timeline, ancestors);
                (server.heard, server.heard_at) = (self.now, server.clock(self.now));
            }
        }
    }

    fn promotions(&mut self) {
        for id in 0..self.servers.len() {
            let server = &mut self.servers[id];
            if server.runs() && server.role == Role::Standby && server.promotes.is_some_and(|at| at <= self.now) {
                server.role = Role::Primary;
                server.ancestors.push((Timeline(server.timeline), server.lsn()));
                server.timeline += 1;
                server.promotes = None;
                server.stream = None;
                let timeline = server.timeline;
                self.tally.promotions += 1;
                self.history.leaders.entry(timeline).or_default().insert(id);
                self.say(|_| format!("node {id} is promoted to timeline {timeline}"));
            }
        }
    }

    /// Servers execute what has arrived, and acknowledge what is safe.
    fn serve(&mut self) {
        for id in 0..self.servers.len() {
            if !self.servers[id].runs() {
                continue;
            }
            let mut inbox = std::mem::take(&mut self.servers[id].inbox);
            let mut kept = Vec::new();
            for mut write in inbox.drain(..) {
                if write.arrives > self.now {
                    kept.push(write);
                    continue;
                }
                if self.servers[id].role != Role::Primary {
                    self.proxies[write.proxy].answered(write.connection);
                    continue;
                }
                if write.written.is_none() {
                    self.servers[id].log.push(write.row);
                    write.written = Some(self.servers[id].log.len());
                }
                let committed = self.replicated(id, write.written.unwrap_or(0));
                if committed && self.answers(write.proxy, id) {
                    self.acknowledge(id, &write);
                } else {
                    kept.push(write);
                }
            }
            self.servers[id].inbox = kept;
        }
    }

    /// Enough of the named standbys have it.
    fn replicated(&self, id: usize, records: usize) -> bool {
        let Some((count, names)) = &self.servers[id].sync else { return true };
        let has = |other: &&usize| {
            let other = &self.servers[**other];
            other.stream.is_some_and(|stream| stream.upstream == id) && other.runs() && other.log.len() >= records
        };
        names.iter().filter(has).count() >= *count
    }

    fn acknowledge(&mut self, id: usize, write: &Write) {
        if let Some(epoch) = self.proxies[write.proxy].answered(write.connection) {
            self.history.acknowledged.insert(write.row, self.servers[id].sync.is_some());
            self.history.writers.push((epoch, id));
        }
    }

    /// May a client's statement begin on the primary of this epoch?
    pub(crate) fn may_begin(&self, by: usize, epoch: u64) -> bool {
        self.group.as_ref().is_none_or(|group| group.may_begin(by, epoch, self.now))
    }

    /// A client writes, if the proxy lets it.
    fn write(&mut self, by: usize) {
        let view = self.proxies[by].view.clone();
        let lets = self.proxies[by].alive() && view.writes == Writes::Open && self.may_begin(by, view.epoch.0);
        let Some(primary) = view.primary.filter(|_| lets) else { return };
        let id = usize::from(primary.0);
        let reachable = self.answers(by, id);
        let Some(connection) = self.proxies[by].connection(id, view.epoch.0, reachable) else { return };
        let (row, arrives) = (self.next_row, self.now + self.random.below(4));
        self.next_row += 1;
        self.history.sent.push((row, primary, view.epoch, self.now, by));
        self.servers[id].inbox.push(Write { row, proxy: by, connection, arrives, written: None });
    }
}
