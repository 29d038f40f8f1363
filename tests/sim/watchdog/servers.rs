//! Database servers as far as the watchdog uses them: one advisory lock each, in sessions that end when they are idle.

use std::time::{Duration, Instant};

use pgherd::watchdog::engine::{Event, Locked};

use super::world::{MILLI, Next, SECOND, Time, World, node};

/// A session of a member's process.
type Session = (usize, u64);

#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    pub(crate) down: bool,
    holder: Option<(Session, Time)>,
    started: Time,
    /// What each member saw at its last look: when, and how long the holder had been idle.
    looks: Vec<Option<(Time, Time)>>,
}

#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) servers: Vec<Server>,
    /// Member, server.
    pub(crate) cut: Vec<Vec<bool>>,
}

impl Servers {
    pub(crate) fn new(nodes: usize, members: usize) -> Self {
        let server = Server { looks: vec![None; members], ..Server::default() };
        Self { servers: vec![server; nodes], cut: vec![vec![false; nodes]; members] }
    }

    /// A process has ended: servers that hear of it end its sessions.
    pub(crate) fn hang_up(&mut self, member: usize, incarnation: u64, _now: Time) {
        for (at, server) in self.servers.iter_mut().enumerate() {
            if !self.cut[member][at] {
                server.holder = server.holder.filter(|(session, _)| *session != (member, incarnation));
            }
        }
    }

    pub(crate) fn unlock(&mut self, node: usize, member: usize) {
        if !self.cut[member][node] {
            let server = &mut self.servers[node];
            server.holder = server.holder.filter(|((holder, _), _)| *holder != member);
        }
    }

    pub(crate) fn restart(&mut self, node: usize, now: Time) {
        let server = &mut self.servers[node];
        (server.holder, server.started, server.down) = (None, now, false);
    }

    /// An operator ends the session that holds the lock.
    pub(crate) fn terminate(&mut self, node: usize) {
        self.servers[node].holder = None;
    }

    pub(crate) fn mend(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.servers.iter_mut().for_each(|server| server.down = false);
    }

    /// The holder, if its session has not been idle for too long.
    fn holder(&mut self, node: usize, now: Time, limit: Time) -> Option<(Session, Time)> {
        let server = &mut self.servers[node];
        server.holder = server.holder.filter(|(_, last)| now < last + limit);
        server.holder
    }

    pub(crate) fn held_by(&mut self, member: usize, now: Time, limit: Time) -> usize {
        let nodes = self.servers.len();
        (0..nodes).filter(|at| self.holder(*at, now, limit).is_some_and(|((holder, _), _)| holder == member)).count()
    }
}

impl World {
    pub(crate) fn try_lock(&mut self, by: usize, incarnation: u64, node: usize) {
        let sent = self.local(by, self.now);
        let delay = MILLI / 5 + self.random.below(3 * MILLI);
        self.after(delay, Next::Lock { by, incarnation, node, sent });
    }

    /// The attempt arrives at the server.
    pub(crate) fn lock(&mut self, by: usize, incarnation: u64, at: usize, sent: Instant) {
        if !self.is(by, incarnation) {
            return;
        }
        let unheard = self.servers.cut[by][at] || self.hosts[by].vanished;
        let locked =
            if unheard || self.servers.servers[at].down { Locked::Failed } else { self.attempt(by, incarnation, at) };
        let delay = if locked == Locked::Failed { 500 * MILLI } else { MILLI / 5 + self.random.below(3 * MILLI) };
        let event = Event::Lock { node: node(at), sent, locked };
        self.after(delay, Next::Tell { to: by, incarnation, event });
    }

    fn attempt(&mut self, by: usize, incarnation: u64, at: usize) -> Locked {
        let (now, limit) = (self.now, self.session_limit());
        let holder = self.servers.holder(at, now, limit);
        let server = &mut self.servers.servers[at];
        match holder {
            Some((session, _)) if session == (by, incarnation) => {
                server.holder = Some((session, now));
                Locked::Mine
            }
            Some((_, last)) => {
                server.looks[by] = Some((now, now - last));
                Locked::Busy
            }
            None => {
                // What can be known: how idle the holder was at the last look, a moment ago, of the same server process.
                let known = server.looks[by].take().filter(|(look, _)| now - look < SECOND && server.started < *look);
                server.holder = Some(((by, incarnation), now));
                Locked::Obtained(Duration::from_micros(known.map_or(0, |(_, idle)| idle)))
            }
        }
    }

    /// `idle_session_timeout`.
    pub(crate) fn session_limit(&self) -> Time {
        u64::try_from(self.timings.session.as_micros()).expect("short")
    }
}
