//! A simulated PostgreSQL server: a log, a timeline, a role, locks, a WAL receiver. Must not know the proxy's engine.

use std::sync::Arc;

use pgherd::cluster::{History, Lsn, Role, Timeline};
use pgherd::health::reading::{Reading, Receipt, Receiver};

/// Moments: 25 ms each.
pub(crate) type Tick = u64;

/// A statement of a client on its way.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) row: u32,
    /// The proxy, and its connection, that it came by.
    pub(crate) proxy: usize,
    pub(crate) connection: u64,
    pub(crate) arrives: Tick,
    /// Where its commit stands in the log, once written.
    pub(crate) written: Option<usize>,
}

/// What survives in `primary_conninfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) upstream: usize,
    pub(crate) incarnation: u32,
    pub(crate) timeline: u32,
}

/// An advisory lock, held by a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lock {
    /// The process of a proxy.
    pub(crate) holder: u64,
    /// When something came by that session last.
    pub(crate) heard: Tick,
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) alive: bool,
    pub(crate) frozen: bool,
    /// Other servers cannot reach it.
    pub(crate) isolated: bool,
    pub(crate) role: Role,
    pub(crate) timeline: u32,
    pub(crate) log: Vec<u32>,
    pub(crate) upstream: usize,
    /// Our marker is in its `primary_conninfo`.
    pub(crate) marker: bool,
    /// Who recruits it.
    pub(crate) lock: Option<Lock>,
    /// `pg_promote()` was called: when it takes effect.
    pub(crate) promotes: Option<Tick>,
    pub(crate) incarnation: u32,
    pub(crate) stream: Option<Stream>,
    /// When its WAL receiver last heard anything.
    pub(crate) heard: Tick,
    /// The same by its own clock.
    pub(crate) heard_at: i64,
    /// Microseconds that its clock is ahead.
    pub(crate) skew: i64,
    /// The timelines that it has been on, and where each was left.
    pub(crate) ancestors: Vec<(Timeline, Lsn)>,
    /// `synchronous_standby_names`: how many, and whose.
    pub(crate) sync: Option<(usize, Vec<usize>)>,
    pub(crate) inbox: Vec<Write>,
    /// It streams, but nothing comes through.
    pub(crate) slow: bool,
    /// Stopped in order by `demote_command`: it waits to be started as a standby.
    pub(crate) demoted: bool,
}

impl Server {
    pub(crate) fn new(id: usize) -> Self {
        Self {
            alive: true,
            frozen: false,
            isolated: false,
            role: if id == 0 { Role::Primary } else { Role::Standby },
            timeline: 1,
            log: Vec::new(),
            upstream: 0,
            marker: false,
            lock: None,
            promotes: None,
            incarnation: 0,
            stream: None,
            heard: 0,
            heard_at: 0,
            skew: 0,
            ancestors: Vec::new(),
            sync: None,
            inbox: Vec::new(),
            slow: false,
            demoted: false,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.alive && !self.frozen
    }

    pub(crate) fn lsn(&self) -> Lsn {
        Lsn(position(self.log.len()))
    }

    pub(crate) fn kill(&mut self) {
        self.alive = false;
        self.frozen = false;
        self.lock = None;
        self.promotes = None;
        self.stream = None;
        self.inbox.clear();
    }

    /// A restart forgets what `pg_promote()` has asked for.
    pub(crate) fn start(&mut self) {
        if self.alive {
            return;
        }
        self.alive = true;
        self.demoted = false;
        self.incarnation += 1;
    }

    /// What its clock shows.
    pub(crate) fn clock(&self, now: Tick) -> i64 {
        1_000_000_000 + i64::try_from(now * 25_000).expect("a short history") + self.skew
    }

    pub(crate) fn reading(&self, now: Tick) -> Reading {
        let primary = self.role == Role::Primary;
        let timeline = if primary { self.timeline } else { self.stream.map_or(0, |_| self.timeline) };
        let names = |list: &Vec<usize>| list.iter().map(|id| format!("node{id}")).collect::<Vec<_>>().join(",");
        let sync = self.sync.as_ref().map_or(String::new(), |(count, list)| format!("ANY {count} ({})", names(list)));
        Reading {
            role: self.role,
            lsn: self.lsn(),
            received: (!primary).then_some(self.lsn()),
            timeline: Timeline(timeline),
            checkpoint_timeline: Timeline(self.timeline),
            receiver: if self.stream.is_some() { Receiver::Streaming } else { Receiver::Absent },
            system: 7,
            version: 150_000,
            delay: None,
            synchronous: primary.then(|| sync.into()),
            clock: self.clock(now),
            receipt: self.stream.map(|_| Receipt { flushed: self.lsn(), at: self.heard_at }),
            stream: None,
            senders: None,
            refused: None,
            history: (timeline > 0).then(|| Arc::new(History::new(Timeline(timeline), self.ancestors.clone()))),
        }
    }
}

/// The position behind so many records.
pub(crate) fn position(records: usize) -> u64 {
    (records as u64 + 1) * 100
}

/// How many records are before a position.
pub(crate) fn records(position: Lsn) -> usize {
    usize::try_from(position.0 / 100).expect("a short history").saturating_sub(1)
}
