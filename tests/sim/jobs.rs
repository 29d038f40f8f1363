//! What the runner does on the simulated servers: each job takes its time, may fail half-way, and jobs on one node keep their order.

use pgherd::cluster::{NodeId, Role, Timeline};
use pgherd::failover::engine::{Event, Hook, Job, Mode, Opinion, Outcome, Standing, Ticket};

use crate::h08_fenced_before_promoted as h08;
use crate::proxy::TICK;
use crate::server::Tick;
use crate::world::{SECOND, World};

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

impl World {
    pub(crate) fn start_job(&mut self, ticket: Ticket, job: Job) {
        self.say(|_| format!("{ticket:?} {}", short(&job)));
        let Some(process) = &mut self.proxy.process else { return };
        process.jobs.push(Running { ticket, job, acts: None, ends: 0, acted: false, outcome: None });
    }

    pub(crate) fn turn_jobs(&mut self) {
        let Some(process) = &mut self.proxy.process else { return };
        let mut jobs = std::mem::take(&mut process.jobs);
        let mut done = Vec::new();
        for index in 0..jobs.len() {
            let (before, rest) = jobs.split_at_mut(index);
            let running = &mut rest[0];
            if running.acts.is_none() {
                let own = target(&running.job);
                let blocked = own.is_some() && before.iter().any(|one| target(&one.job) == own);
                if blocked {
                    continue;
                }
                let slow = if self.random.one_in(10) { SECOND / 2 } else { 3 };
                let seconds = self.proxy.settings.limit(&running.job).as_secs();
                running.acts = Some(self.now + self.random.below(slow));
                running.ends = self.now + seconds * SECOND;
            }
            self.turn_job(running);
            if running.outcome.as_ref().is_some_and(|(at, _)| *at <= self.now) {
                done.push(running.ticket);
            }
        }
        let over: Vec<Running> = jobs.extract_if(.., |one| done.contains(&one.ticket)).collect();
        if let Some(process) = &mut self.proxy.process {
            process.jobs.splice(0..0, jobs);
        }
        for one in over {
            let (_, outcome) = one.outcome.expect("it is over");
            self.say(|_| format!("{:?} done: {outcome:?}", one.ticket));
            self.tell(Event::Done(one.ticket, outcome));
        }
    }

    fn turn_job(&mut self, running: &mut Running) {
        if running.outcome.is_some() || running.acts.is_none_or(|at| at > self.now) {
            return;
        }
        let outcome = if running.acted { self.watch_job(&running.job) } else { self.act(&running.job) };
        running.acted = true;
        let late = || match running.job {
            Job::Promote { .. } | Job::Await(_) => Outcome::Late("too late".to_owned()),
            _ => failed("too late"),
        };
        let outcome = outcome.or_else(|| (self.now >= running.ends).then(late));
        let delay = self.random.below(3);
        running.outcome = outcome.map(|outcome| (self.now + delay, outcome));
    }

    /// Something goes wrong by itself now and then.
    fn mishap(&mut self, one_in: u64) -> bool {
        !self.proxy.steady && self.random.one_in(one_in)
    }

    /// The effect; no outcome yet if something must be waited for.
    fn act(&mut self, job: &Job) -> Option<Outcome> {
        match job {
            Job::Barrier | Job::Resume => Some(Outcome::Ok),
            Job::Consent { .. } => Some(if self.proxy.consent { Outcome::Ok } else { failed("refused") }),
            Job::Opinions(nodes) => Some(self.opinions(nodes)),
            Job::Recruit { node, lock_only, .. } => self.reach(*node, |world, id| world.recruit(id, *lock_only)),
            Job::Restore(node) => self.reach(*node, |world, id| world.restore(id, None)),
            Job::Follow { node, primary, .. } => {
                let primary = usize::from(primary.0);
                self.reach(*node, |world, id| world.restore(id, Some(primary)))
            }
            Job::Fence(node) => {
                self.proxy.fence(usize::from(node.0));
                Some(Outcome::Ok)
            }
            Job::Hook { hook, node, old, new, id } => {
                let outcome = self.hook(*hook, (*node, *old, *new), *id);
                // Whatever it did, it hangs until it is killed.
                (!self.mishap(12)).then_some(outcome)
            }
            Job::Record(journal) => {
                if self.mishap(50) {
                    return Some(failed("disk full"));
                }
                self.proxy.disk = (**journal).clone();
                Some(Outcome::Ok)
            }
            Job::Promote { node, recruits, again } => self.promote(*node, recruits, *again),
            Job::Relax(node) => self.reach(*node, |world, id| {
                world.servers[id].sync = None;
                Outcome::Ok
            }),
            Job::Checkpoint { node, follow } => {
                let follow = usize::from(follow.0);
                self.reach(*node, |world, id| {
                    world.servers[id].upstream = follow;
                    Outcome::Position(world.servers[id].lsn())
                })
            }
            Job::Ready(node) => self.reach(*node, |_, _| Outcome::Ok),
            Job::Await(_) | Job::Drain(_) | Job::CatchUp { .. } => self.watch_job(job),
        }
    }

    /// What was waited for.
    fn watch_job(&mut self, job: &Job) -> Option<Outcome> {
        match job {
            Job::Promote { node, .. } | Job::Await(node) => {
                let server = &self.servers[usize::from(node.0)];
                let done = server.answers() && server.role == Role::Primary;
                done.then_some(Outcome::Promoted(Timeline(server.timeline)))
            }
            Job::Drain(node) => self.servers[usize::from(node.0)].inbox.is_empty().then_some(Outcome::Ok),
            Job::CatchUp { node, old, lsn } => {
                let [server, old] = [node, old].map(|node| &self.servers[usize::from(node.0)]);
                let stopped = !old.answers() || old.role != Role::Primary;
                (server.answers() && server.lsn() > *lsn && stopped).then_some(Outcome::Ok)
            }
            // Whom it cannot reach it waits for; who is dead says so at once.
            job => match target(job).map(|node| &self.servers[usize::from(node.0)]) {
                Some(server) if server.answers() => Some(failed("connection lost")),
                Some(server) if !server.alive && !server.cut => Some(failed("connection refused")),
                _ => None,
            },
        }
    }

    /// Does something on a server that can be reached now.
    fn reach(&mut self, node: NodeId, effect: impl FnOnce(&mut Self, usize) -> Outcome) -> Option<Outcome> {
        let id = usize::from(node.0);
        if !self.servers[id].answers() {
            return (!self.servers[id].alive && !self.servers[id].cut).then(|| failed("connection refused"));
        }
        let outcome = effect(self, id);
        // Done, and the answer is lost.
        Some(if self.mishap(20) { failed("connection lost") } else { outcome })
    }

    fn opinions(&self, nodes: &[NodeId]) -> Outcome {
        let opinion = |node: &NodeId| {
            let server = &self.servers[usize::from(node.0)];
            let stream = server.stream.filter(|_| server.answers())?;
            let age = TICK * u32::try_from(self.now - server.heard).expect("short");
            Some((*node, Opinion { sender: (format!("10.0.0.{}", stream.upstream), 5432), age }))
        };
        Outcome::Opinions(nodes.iter().filter_map(opinion).collect())
    }

    fn recruit(&mut self, id: usize, lock_only: bool) -> Outcome {
        let own = self.proxy.incarnation;
        let server = &mut self.servers[id];
        if server.lock.is_some_and(|lock| lock != own) {
            return failed("somebody else recruits");
        }
        if server.role == Role::Primary {
            return failed("it is a primary");
        }
        server.lock = Some(own);
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

    fn restore(&mut self, id: usize, follow: Option<usize>) -> Outcome {
        let own = self.proxy.incarnation;
        let server = &mut self.servers[id];
        if server.lock.is_some_and(|lock| lock != own) {
            return failed("somebody else recruits");
        }
        server.marker = false;
        server.lock = None;
        if let Some(primary) = follow {
            server.upstream = primary;
        }
        Outcome::Ok
    }

    fn promote(&mut self, node: NodeId, recruits: &[NodeId], again: Option<i64>) -> Option<Outcome> {
        let (id, own) = (usize::from(node.0), self.proxy.incarnation);
        let held = |node: &NodeId| {
            let server = &self.servers[usize::from(node.0)];
            server.answers() && server.lock == Some(own)
        };
        if again.is_none() && !recruits.iter().all(held) {
            return Some(Outcome::NotSent("a lock was lost".to_owned()));
        }
        if !self.servers[id].answers() {
            let why = "it does not answer".to_owned();
            return Some(if again.is_some() { Outcome::Late(why) } else { Outcome::NotSent(why) });
        }
        if self.servers[id].role == Role::Primary {
            return Some(Outcome::Promoted(Timeline(self.servers[id].timeline)));
        }
        if again.is_some_and(|started| started != i64::from(self.servers[id].incarnation)) {
            return Some(Outcome::Restarted);
        }
        h08::check(self, node);
        let takes = 1 + self.random.below(self.slowest);
        self.servers[id].promotes.get_or_insert(self.now + takes);
        if self.mishap(20) { Some(Outcome::Late("connection lost".to_owned())) } else { None }
    }

    fn hook(&mut self, hook: Hook, (node, old, new): (NodeId, NodeId, Option<NodeId>), number: u64) -> Outcome {
        *self.history.hooks.entry((hook, number, node)).or_default() += 1;
        let (id, works) = (usize::from(node.0), !self.mishap(6));
        let successor = new.map(|new| usize::from(new.0)).filter(|_| works);
        match (hook, successor) {
            (Hook::Failover, successor) if self.mode == Mode::Command && node == old && new != Some(old) => {
                let epoch = self.proxy.disk.epoch;
                *self.history.promoting_hooks.entry((id, epoch)).or_default() += 1;
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
        if works && !self.mishap(10) { Outcome::Ok } else { failed("exit 1") }
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
