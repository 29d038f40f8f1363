//! What others may see of a session while it lives: kept in its handle by the session itself, at the price of a few plain stores, and
//! copied out only when somebody asks its thread. Must not be asked for anything that decides.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::backend::{Carried, Server};
use crate::cluster::NodeId;
use crate::net::PeerAddr;
use crate::support::clock::Instant;
use crate::wire::TxStatus;

use super::Session;
use super::context::{Context, Who};
use super::lease::Leased;

/// Sessions that one thread describes at a time; those that are doing something go before those that only wait for their client.
const MOST: usize = 2_000;

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Waiting for its client, outside a transaction.
    Idle,
    /// A request of its client is under way.
    Active,
    /// Waiting for its client, inside a transaction.
    InTransaction,
    /// The same, and the transaction has failed.
    InFailedTransaction,
    /// Waiting for a server connection, or for a primary.
    Waiting,
}

impl Doing {
    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::InTransaction => "in transaction",
            Self::InFailedTransaction => "in failed transaction",
            Self::Waiting => "waiting for a server",
        }
    }

    /// pgpool-II's word; its `Wait for connection`, a process without a client, has no like here.
    pub fn pgpool_word(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Active => "Execute command",
            Self::InTransaction | Self::InFailedTransaction => "Idle in transaction",
            Self::Waiting => "Connecting",
        }
    }

    fn between_statements(status: TxStatus) -> Self {
        match status {
            TxStatus::Idle => Self::Idle,
            TxStatus::InBlock => Self::InTransaction,
            TxStatus::Failed => Self::InFailedTransaction,
        }
    }
}

/// The part of a session that can be seen from its thread.
#[derive(Debug)]
pub(super) struct Shown {
    id: i32,
    who: Rc<Who>,
    peer: PeerAddr,
    doing: Cell<Doing>,
    /// By the thread's clock that ticks with its housekeeping: a quarter of a second more or less.
    doing_since: Cell<Instant>,
    settings: RefCell<Rc<Carried>>,
    pinned: RefCell<Option<Rc<str>>>,
    /// The server connection in its hands: node and process.
    server: Cell<Option<(NodeId, i32)>>,
    pub(super) probes: Cell<u32>,
    pub(super) retries: Cell<u32>,
}

/// One session, as others may see it.
#[derive(Debug, Clone)]
pub struct Description {
    /// The number that its client has for cancels.
    pub id: i32,
    /// The data thread that it lives on.
    pub thread: usize,
    /// Its user.
    pub user: Arc<str>,
    /// Its database.
    pub database: Arc<str>,
    /// What the application calls itself; empty if it does not.
    pub application_name: String,
    /// Where its client is.
    pub client: PeerAddr,
    /// When it logged in.
    pub since: Instant,
    /// What it is doing.
    pub doing: Doing,
    /// Since when, within a quarter of a second.
    pub doing_since: Instant,
    /// Why it keeps its server connection between transactions, if it does (SESSIONS R5).
    pub pinned: Option<String>,
    /// Settings that follow it from server to server; names only.
    pub carried: Vec<String>,
    /// The node of the server connection in its hands, and the process there.
    pub server: Option<(NodeId, i32)>,
    /// Questions put to servers about what its transactions have done to it.
    pub probes: u32,
    /// Its reads that a standby refused and the primary answered.
    pub retries: u32,
}

impl Description {
    /// The fields of pgpool-II 4.3 for a process with one slot of its pool, in its order: that of SHOW POOL_POOLS and of PCP's ProcessInfo.
    /// The slot holds the server connection in the session's hands, if any; `stamp` shows a time.
    pub fn pgpool_fields(
        &self,
        primary: Option<NodeId>,
        now: Instant,
        stamp: impl Fn(Instant) -> String,
    ) -> [String; 17] {
        let waits = matches!(self.doing, Doing::Idle | Doing::InTransaction | Doing::InFailedTransaction);
        let idle = if waits { now.saturating_duration_since(self.doing_since).as_secs() } else { 0 };
        let (node, process) = self.server.map_or((primary, 0), |(node, process)| (Some(node), process));
        let (since, held) = (stamp(self.since), u8::from(self.server.is_some()).to_string());
        [
            self.id.to_string(),
            since.clone(),
            "1".to_owned(),
            "0".to_owned(),
            node.map_or(0, |node| node.0).to_string(),
            self.database.to_string(),
            self.user.to_string(),
            self.server.map_or(String::new(), |_| stamp(self.doing_since)),
            since,
            String::new(),
            idle.to_string(),
            "3".to_owned(),
            "0".to_owned(),
            held.clone(),
            process.to_string(),
            held,
            self.doing.pgpool_word().to_owned(),
        ]
    }
}

impl Shown {
    pub(super) fn new(id: i32, who: Rc<Who>, peer: PeerAddr, since: Instant) -> Self {
        Self {
            id,
            who,
            peer,
            doing: Cell::new(Doing::Active),
            doing_since: Cell::new(since),
            settings: RefCell::new(Carried::none()),
            pinned: RefCell::new(None),
            server: Cell::new(None),
            probes: Cell::new(0),
            retries: Cell::new(0),
        }
    }

    pub(super) fn peer(&self) -> PeerAddr {
        self.peer
    }

    /// `now` may be a little old.
    pub(super) fn does(&self, doing: Doing, now: Instant) {
        if self.doing.replace(doing) != doing {
            self.doing_since.set(now);
        }
    }

    pub(super) fn carries(&self, settings: &Rc<Carried>) {
        self.settings.replace(settings.clone());
    }

    fn is_pinned(&self, reason: Option<&Rc<str>>) {
        let mut known = self.pinned.borrow_mut();
        let same = match (&*known, reason) {
            (None, None) => true,
            (Some(known), Some(reason)) => Rc::ptr_eq(known, reason),
            _ => false,
        };
        if !same {
            *known = reason.cloned();
        }
    }

    pub(super) fn holds(&self, server: &Server) {
        self.server.set(Some((server.identity.node, server.identity.key.pid)));
    }

    /// It only waits for its client, and holds nothing.
    fn is_quiet(&self) -> bool {
        self.doing.get() == Doing::Idle && self.server.get().is_none()
    }

    fn describe(&self, thread: usize, since: Instant) -> Description {
        let settings = self.settings.borrow();
        let name = settings.get("application_name").unwrap_or_default();
        Description {
            id: self.id,
            thread,
            user: self.who.user.clone(),
            database: self.who.database.clone(),
            application_name: String::from_utf8_lossy(name).into_owned(),
            client: self.peer,
            since,
            doing: self.doing.get(),
            doing_since: self.doing_since.get(),
            pinned: self.pinned.borrow().as_deref().map(str::to_owned),
            carried: settings.names().filter(|name| *name != "application_name").map(str::to_owned).collect(),
            server: self.server.get(),
            probes: self.probes.get(),
            retries: self.retries.get(),
        }
    }
}

impl Session {
    /// It waits for its client: what it keeps meanwhile is all that it has.
    pub(super) fn show_rest(&self) {
        let shown = &self.control.shown;
        shown.is_pinned(self.pin.as_ref().map(|pin| &pin.reason));
        let status = match &self.lease {
            Some(lease) => lease.server.status,
            None => {
                shown.server.set(None);
                self.shown_status()
            }
        };
        shown.does(Doing::between_statements(status), self.context.tick.get());
    }

    /// A relay waits for one of its sides.
    pub(super) fn show_relay(&self, lease: &Leased) {
        let between = lease.server.expected.is_empty() && lease.quiet() && self.client.output.is_empty();
        let doing = match lease.server.status {
            TxStatus::Idle => Doing::Active,
            status if between => Doing::between_statements(status),
            _ => Doing::Active,
        };
        self.control.shown.does(doing, self.context.tick.get());
    }

    /// A request is under way, or a server connection is waited for.
    pub(super) fn show(&self, doing: Doing) {
        self.control.shown.does(doing, self.context.tick.get());
    }
}

impl Context {
    /// The sessions of this thread, at most 2 000 of them.
    pub fn describe(&self) -> Vec<Description> {
        let sessions = self.sessions.borrow();
        let (quiet, busy): (Vec<_>, Vec<_>) = sessions.values().partition(|control| control.shown.is_quiet());
        let chosen = busy.into_iter().chain(quiet).take(MOST);
        chosen.map(|control| control.shown.describe(self.hub.thread, control.since)).collect()
    }
}
