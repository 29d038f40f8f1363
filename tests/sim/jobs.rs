//! What the runner does on the simulated servers: each job takes its time, may fail half-way, and jobs on one node keep their order.

use pgherd::cluster::{NodeId, Role, Timeline};
use pgherd::failover::engine::{Event, Hook, Job, Mode, Opinion, Outcome, Standing, Ticket};

use crate::proxy::TICK;
use crate::server::{Lock, Tick};
use crate::world::{SECOND, World};
use crate::{
    h02_no_promotion_while_a_standby_hears_it as h02, h03_a_majority_sees_it_dead as h03,
    h04_held_and_written_down_before_promoted as h04, h06_the_furthest_is_promoted as h06,
    h08_fenced_before_promoted as h08, h12_a_switchover_loses_nothing as h12,
};

/// `idle_session_timeout` of a session that holds a lock.
const IDLE: Tick = 5 * SECOND;
/// A session that was given up.
const NOBODY: u64 = 0;
/// A session whose process is gone ends as late as that.
const KEEPALIVE: Tick = 3 * SECOND;

/// A job under way.
#[derive(Debug)]
pub(crate) struct Running {
    ticket: Ticket,
    job: Job,
    /// When it does what it does; none while it waits for its turn.
    acts: Option<Tick>,
    /// When it gives up.
    ends: Tick,
    /// It has acted and waits for what comes of it.
    acted: bool,
    outcome: Option<(Tick, Outcome)>,
    /// `Record`: what a majority is to have.
    version: (u64, u64),
}

/// The node whose order a job must keep.
fn target(job: &Job) -> Option<NodeId> {
    match job {
        Job::Recruit { node, .. } | Job::Restore(node) | Job::Promote { node, .. } | Job::Follow { node, .. } => {
            Some(*node)
        }
        Job::Await(node)
        | Job::Relax(node)
        | Job::Ready(node)
        | Job::Checkpoint { node, .. }
        | Job::CatchUp { node, .. } => Some(*node),
        // The disk is one, and hooks do not wait.
        Job::Record(_) => Some(NodeId(u16::MAX)),
        Job::Barrier
        | Job::Consent { .. }
        | Job::Resume
        | Job::Opinions(_)
        | Job::Fence(_)
        | Job::Hook { .. }
        | Job::Drain(_) => None,
    }
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed(why.to_owned())
}

fn late(job: &Job) -> Outcome {
    match job {
        Job::Promote { .. } | Job::Await(_) => Outcome::Late("too late".to_owned()),
        _ => failed("too late"),
    }
}

impl World {
    pub(crate) fn start_job(&mut self, by: usize, ticket: Ticket, job: Job) {
        self.say(|_| format!("{by} {ticket:?} {}", short(&job)));
        match job {
            // Whoever asks for leave after it lives on nothing that was prepared before.
            Job::Resume => self.give_back(by),
            Job::Barrier => h02::begins(self, by),
            _ => {}
        }
        let ends = self.now + self.proxies[by].settings.limit(&job).as_secs() * SECOND;
        let Some(process) = &mut self.proxies[by].process else { return };
        process.jobs.push(Running { ticket, job, acts: None, ends, acted: false, outcome: None, version: (0, 0) });
    }

    /// Somebody else acts now: with the sessions go the locks of recruits, where that is heard of.
    pub(crate) fn drop_jobs(&mut self, by: usize, tickets: &[Ticket]) {
        let own = self.proxies[by].incarnation;
        if let Some(process) = &mut self.proxies[by].process {
            process.jobs.retain(|one| !tickets.contains(&one.ticket));
        }
        for id in 0..self.servers.len() {
            if let Some(lock) = self.servers[id].lock.filter(|lock| lock.holder == own) {
                // Where it is not heard of, nothing is said in that session any more.
                let stays = !self.answers(by, id);
                self.servers[id].lock = stays.then_some(Lock { holder: NOBODY, ..lock });
            }
        }
    }

    /// Sessions end with their process, or when nothing was said in them for too long, and locks with them.
    pub(crate) fn end_sessions(&mut self) {
        for id in 0..self.servers.len() {
            let Some(Lock { holder, heard }) = self.servers[id].lock else { continue };
            let alive =
                (0..self.proxies.len()).find(|by| self.proxies[*by].alive() && self.proxies[*by].incarnation == holder);
            let heard = if alive.is_some_and(|by| self.answers(by, id)) { self.now } else { heard };
            let limit = if alive.is_some() { IDLE } else { KEEPALIVE };
            self.servers[id].lock = (self.now <= heard + limit).then_some(Lock { holder, heard });
        }
    }

    pub(crate) fn turn_jobs(&mut self, by: usize) {
        let Some(process) = &mut self.proxies[by].process else { return };
        let mut jobs = std::mem::take(&mut process.jobs);
        let mut done = Vec::new();
        for index in 0..jobs.len() {
            let (before, rest) = jobs.split_at_mut(index);
            let running = &mut rest[0];
            if running.acts.is_none() {
                let own = target(&running.job);
                let first =
                    |one: &Running| target(&one.job) == own && !(one.acted && matches!(one.job, Job::Record(_)));
                let blocked = own.is_some() && before.iter().any(first);
                if blocked && self.now < running.ends {
                    continue;
                }
                let slow = if self.random.one_in(10) { SECOND / 2 } else { 3 };
                running.acts = Some(self.now + self.random.below(slow));
                // Whoever waits for his turn for too long does nothing any more.
                running.outcome = blocked.then(|| (self.now, late(&running.job)));
            }
            self.turn_job(by, running);
            if running.outcome.as_ref().is_some_and(|(at, _)| *at <= self.now) {
                done.push(running.ticket);
            }
        }
        let over: Vec<Running> = jobs.extract_if(.., |one| done.contains(&one.ticket)).collect();
        if let Some(process) = &mut self.proxies[by].process {
            process.jobs.splice(0..0, jobs);
        }
        for one in over {
            let (_, outcome) = one.outcome.expect("it is over");
            self.say(|_| format!("{by} {:?} done: {outcome:?}", one.ticket));
            if matches!((&one.job, &outcome), (Job::Consent { .. }, Outcome::Failed(_))) {
                self.tally.refused += 1;
            }
            self.tell(by, Event::Done(one.ticket, outcome));
        }
    }

    fn turn_job(&mut self, by: usize, running: &mut Running) {
        if running.outcome.is_some() || running.acts.is_none_or(|at| at > self.now) {
            return;
        }
        let outcome = if running.acted { self.watch_job(by, running) } else { self.act(by, running) };
        running.acted = true;
        let outcome = outcome.or_else(|| (self.now >= running.ends).then(|| late(&running.job)));
        let delay = self.random.below(3);
        running.outcome = outcome.map(|outcome| (self.now + delay, outcome));
    }

    /// Something goes wrong by itself now and then.
    fn mishap(&mut self, by: usize, one_in: u64) -> bool {
        !self.proxies[by].steady && self.random.one_in(one_in)
    }

    /// The effect; no outcome yet if something must be waited for.
    fn act(&mut self, by: usize, running: &mut Running) -> Option<Outcome> {
        match &running.job {
            Job::Barrier | Job::Resume => Some(Outcome::Ok),
            Job::Consent { .. } if self.group.is_none() => {
                Some(if self.proxies[by].consent { Outcome::Ok } else { failed("refused") })
            }
            Job::Opinions(nodes) => Some(self.opinions(by, nodes)),
            Job::Recruit { node, lock_only, .. } => {
                self.reach(by, *node, |world, id| world.recruit(by, id, *lock_only))
            }
            Job::Restore(node) => self.reach(by, *node, |world, id| world.restore(by, id, None)),
            Job::Follow { node, primary, .. } => {
                let primary = usize::from(primary.0);
                self.reach(by, *node, |world, id| world.restore(by, id, Some(primary)))
            }
            Job::Fence(node) => {
                self.proxies[by].fence(usize::from(node.0));
                Some(Outcome::Ok)
            }
            Job::Hook { hook, node, old, new, id, locks } => {
                if let Some(lost) = self.lost_lock(by, locks) {
                    return Some(Outcome::LockLost(lost));
                }
                let outcome = self.hook(by, *hook, (*node, *old, *new), *id);
                // Whatever it did, it hangs until it is killed.
                (!self.mishap(by, 12)).then_some(outcome)
            }
            Job::Record(journal) => {
                if self.mishap(by, 50) {
                    return Some(failed("disk full"));
                }
                self.proxies[by].disk = (**journal).clone();
                if self.group.is_none() {
                    return Some(Outcome::Ok);
                }
                match self.put_forward(by, journal) {
                    Ok(version) => running.version = version,
                    Err(why) => return Some(Outcome::Failed(why)),
                }
                self.watch_job(by, running)
            }
            Job::Promote { node, recruits, again } => self.promote(by, *node, recruits, *again),
            Job::Relax(node) => self.reach(by, *node, |world, id| {
                world.servers[id].sync = None;
                Outcome::Ok
            }),
            Job::Checkpoint { node, follow } => {
                let follow = usize::from(follow.0);
                self.reach(by, *node, |world, id| {
                    world.servers[id].upstream = follow;
                    Outcome::Position(world.servers[id].lsn())
                })
            }
            Job::Ready(node) => self.reach(by, *node, |_, _| Outcome::Ok),
            Job::Consent { .. } | Job::Await(_) | Job::Drain(_) | Job::CatchUp { .. } => self.watch_job(by, running),
        }
    }

    /// What was waited for.
    fn watch_job(&mut self, by: usize, running: &Running) -> Option<Outcome> {
        match &running.job {
            Job::Promote { node, .. } | Job::Await(node) => {
                let id = usize::from(node.0);
                let done = self.answers(by, id) && self.servers[id].role == Role::Primary;
                done.then(|| Outcome::Promoted(Timeline(self.servers[id].timeline)))
            }
            Job::Drain(node) => {
                let ours = |write: &crate::server::Write| write.proxy == by;
                (!self.servers[usize::from(node.0)].inbox.iter().any(ours)).then_some(Outcome::Ok)
            }
            Job::CatchUp { node, old, lsn } => {
                let [server, old] = [node, old].map(|node| usize::from(node.0));
                let stopped = !self.answers(by, old) || self.servers[old].role != Role::Primary;
                let done = self.answers(by, server) && self.servers[server].lsn() > *lsn && stopped;
                done.then(|| h12::caught_up(self, by, (server, old)))
            }
            Job::Record(_) => self.is_recorded(by, running.version).map(|done| match done {
                Ok(()) => Outcome::Ok,
                Err(why) => Outcome::Failed(why),
            }),
            Job::Consent { node, planned } => match self.consents(by, (*node, *planned))? {
                Ok((epoch, votes)) => Some(h03::granted(self, by, (*node, *planned), epoch, votes)),
                Err(why) => Some(Outcome::Failed(why)),
            },
            // Whom it cannot reach it waits for; who is dead says so at once.
            job => match target(job).map(|node| usize::from(node.0)) {
                Some(id) if self.answers(by, id) => Some(failed("connection lost")),
                Some(id) if self.refuses(by, id) => Some(failed("connection refused")),
                _ => None,
            },
        }
    }

    /// Does something on a server that can be reached now.
    fn reach(&mut self, by: usize, node: NodeId, effect: impl FnOnce(&mut Self, usize) -> Outcome) -> Option<Outcome> {
        let id = usize::from(node.0);
        if !self.answers(by, id) {
            return self.refuses(by, id).then(|| failed("connection refused"));
        }
        let outcome = effect(self, id);
        // Done, and the answer is lost.
        Some(if self.mishap(by, 20) { failed("connection lost") } else { outcome })
    }

    fn opinions(&mut self, by: usize, nodes: &[NodeId]) -> Outcome {
        h02::asks(self, by, nodes);
        let opinion = |node: &NodeId| {
            let server = &self.servers[usize::from(node.0)];
            let stream = server.stream.filter(|_| self.answers(by, usize::from(node.0)))?;
            let age = TICK * u32::try_from(self.now - server.heard).expect("short");
            Some((*node, Opinion { sender: (format!("10.0.0.{}", stream.upstream), 5432), age }))
        };
        Outcome::Opinions(nodes.iter().filter_map(opinion).collect())
    }

    fn recruit(&mut self, by: usize, id: usize, lock_only: bool) -> Outcome {
        h02::check(self, by, id);
        let (holder, heard) = (self.proxies[by].incarnation, self.now);
        let server = &mut self.servers[id];
        if server.lock.is_some_and(|lock| lock.holder != holder) {
            return failed("somebody else recruits");
        }
        if server.role == Role::Primary {
            return failed("it is a primary");
        }
        server.lock = Some(Lock { holder, heard });
        if !lock_only {
            server.marker = true;
            server.stream = None;
        }
        let standing = Standing {
            timeline: Timeline(server.timeline),
            lsn: server.lsn(),
            replayed: server.lsn(),
            started: i64::from(server.incarnation),
            slow: false,
        };
        Outcome::Recruited(standing)
    }

    fn restore(&mut self, by: usize, id: usize, follow: Option<usize>) -> Outcome {
        let own = self.proxies[by].incarnation;
        let server = &mut self.servers[id];
        if server.lock.is_some_and(|lock| lock.holder != own) {
            return failed("somebody else recruits");
        }
        server.marker = false;
        server.lock = None;
        if let Some(primary) = follow {
            server.upstream = primary;
        }
        Outcome::Ok
    }

    fn lost_lock(&self, by: usize, recruits: &[NodeId]) -> Option<NodeId> {
        let own = self.proxies[by].incarnation;
        let held = |node: &&NodeId| {
            let server = &self.servers[usize::from(node.0)];
            self.answers(by, usize::from(node.0)) && server.lock.is_some_and(|lock| lock.holder == own)
        };
        recruits.iter().find(|node| !held(node)).copied()
    }

    fn promote(&mut self, by: usize, node: NodeId, recruits: &[NodeId], again: Option<i64>) -> Option<Outcome> {
        let (id, own) = (usize::from(node.0), self.proxies[by].incarnation);
        if let Some(lost) = self.lost_lock(by, recruits).filter(|_| again.is_none()) {
            return Some(Outcome::LockLost(lost));
        }
        let unsent = |why: &str| {
            let why = why.to_owned();
            Some(if again.is_some() { Outcome::Late(why) } else { Outcome::NotSent(why) })
        };
        if !self.answers(by, id) {
            return unsent("it does not answer");
        }
        // Sent by the session that has its lock.
        if self.servers[id].lock.is_some_and(|lock| lock.holder != own) {
            return unsent("another proxy recruits it");
        }
        if self.servers[id].role == Role::Primary {
            return Some(Outcome::Promoted(Timeline(self.servers[id].timeline)));
        }
        if again.is_some_and(|started| started != i64::from(self.servers[id].incarnation)) {
            return Some(Outcome::Restarted);
        }
        if self.group.as_ref().is_some_and(|group| group.is_over(by, self.now)) {
            return unsent("this proxy leads no more");
        }
        h04::check(self, by, node, again.is_none());
        h08::check(self, by, node, again.is_none());
        if again.is_none() {
            h03::check(self, by);
            h06::check(self, by, node, recruits);
            h12::check(self, by, node);
        }
        let takes = 1 + self.random.below(self.slowest);
        self.servers[id].promotes.get_or_insert(self.now + takes);
        if self.mishap(by, 20) { Some(Outcome::Late("connection lost".to_owned())) } else { None }
    }

    fn hook(
        &mut self,
        by: usize,
        hook: Hook,
        (node, old, new): (NodeId, NodeId, Option<NodeId>),
        number: u64,
    ) -> Outcome {
        *self.history.hooks.entry((hook, number, node)).or_default() += 1;
        let (id, works) = (usize::from(node.0), !self.mishap(by, 6));
        let successor = new.map(|new| usize::from(new.0)).filter(|_| works);
        match (hook, successor) {
            (Hook::Failover, successor) if self.mode == Mode::Command && node == old && new != Some(old) => {
                // If it was promoted by hand meanwhile the hook only hears of it.
                let promoted = new.filter(|new| self.servers[usize::from(new.0)].role == Role::Standby);
                let promotes = promoted.is_some();
                if let Some(candidate) = promoted {
                    h04::check(self, by, candidate, true);
                    h08::check(self, by, candidate, true);
                }
                *self.history.promoting_hooks.entry(id).or_default() += u32::from(promotes);
                let Some(successor) = successor.filter(|id| self.servers[*id].runs()) else {
                    return failed("exit 1");
                };
                let takes = self.random.below(self.slowest);
                let server = &mut self.servers[successor];
                if server.role == Role::Standby {
                    server.promotes.get_or_insert(self.now + takes);
                }
            }
            (Hook::Follow, Some(successor)) => self.follow_by_hook(id, successor),
            (Hook::Demote, Some(_)) if !self.stop_in_order(id) => return failed("it does not answer"),
            (Hook::Fence, _) if works => {
                self.servers[id].kill();
                self.history.fenced.insert(id);
            }
            _ => {}
        }
        if works && !self.mishap(by, 10) { Outcome::Ok } else { failed("exit 1") }
    }

    fn follow_by_hook(&mut self, id: usize, primary: usize) {
        let server = &mut self.servers[id];
        if server.demoted {
            server.role = Role::Standby;
            server.start();
        }
        if server.role == Role::Standby {
            server.upstream = primary;
        }
    }

    /// A clean stop: whoever streams has all of it.
    fn stop_in_order(&mut self, id: usize) -> bool {
        if !self.servers[id].runs() || self.servers[id].role != Role::Primary {
            return false;
        }
        self.servers[id].log.push(0);
        for other in 0..self.servers.len() {
            let streams = self.servers[other].stream.is_some_and(|stream| stream.upstream == id);
            if streams && self.servers[other].runs() && !self.servers[other].slow && self.linked(id, other) {
                self.servers[other].log = self.servers[id].log.clone();
            }
        }
        self.servers[id].kill();
        self.servers[id].demoted = true;
        true
    }
}

fn short(job: &Job) -> String {
    match job {
        Job::Record(journal) => format!("Record(epoch {} {:?})", journal.epoch, journal.intent),
        other => format!("{other:?}"),
    }
}
