//! Getting a server connection and making it the session's: the wait, and the setup that comes before any byte of the client
//! (SESSIONS R2, R15). A session that holds a lease never waits here for another.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::backend::{Carried, Expect, Lost, OpenError, Pool, Server, setup};
use crate::cluster::NodeId;
use crate::sql::{Effect, Facts, Kind};
use crate::support::clock::Duration;
use crate::wire::sqlstate;

use super::Session;
use super::again::Again;
use super::downstream::Downstream;
use super::local::Refusal;
use super::notes::Notes;
use super::prepared::Change;
use super::read::Resort;
use super::shown::Doing;
use super::upstream::Upstream;

/// Replies owed after which a server is asked for those that it keeps back.
const ASKED_EVERY: usize = 1024;
/// Longest time that a server may take over its setup or a probe.
pub(super) const ASK: Duration = Duration::from_secs(10);

/// A server connection in a session's hands, with what is on its way in both directions.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) server: Box<Server>,
    pub(super) up: Upstream,
    pub(super) down: Downstream,
    pub(super) notes: Notes,
    /// A statement of this transaction failed.
    pub(super) failed: bool,
    /// What happens to the server's answers on their way.
    pub(super) ways: Ways,
}

/// Particulars of a lease.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// ReadyForQuery is shown as in a block: the lease is for one read of a deferred block (SESSIONS R12).
    pub(super) masked: bool,
    /// A number of this transaction's own once it has changed settings, which only its end makes the session's; else 0.
    pub(super) unsettled: u64,
    /// What becomes of a read that is lost.
    pub(super) resort: Resort,
    /// A write that may be run again if it is lost, as long as nothing was heard since it was sent.
    pub(super) again: Option<Box<Again>>,
    /// Statements that make the session forget its names.
    forgets: Forgets,
}

/// DEALLOCATE ALL and DISCARD ALL: whether they were carried out is known from their answers alone (SESSIONS R3).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Forgets {
    /// There is none in this transaction.
    #[default]
    No,
    /// There is one, which is not under way.
    Known,
    /// Something was sent that may be it. Holds how many replies had been expected ever when they were last asked for.
    Sent(u64),
}

impl Leased {
    /// In memory of its own: a session at rest, which has none, is to be small (SESSIONS R23).
    pub(super) fn new(server: Box<Server>) -> Box<Self> {
        Box::new(Self {
            server,
            up: Upstream::default(),
            down: Downstream::default(),
            notes: Notes::default(),
            failed: false,
            ways: Ways::default(),
        })
    }

    /// Nothing of the server is on its way to the client.
    pub(super) fn quiet(&self) -> bool {
        self.down.pass == 0 && self.down.left == 0
    }

    /// A text cannot be read before a change of how texts are read is answered (SESSIONS R10). The end of its transaction, or of a part
    /// of it, changes that again.
    pub(super) fn lexing_unsettled(&self) -> bool {
        self.notes.flags.has(crate::sql::Flags::CHANGES_LEXING) && self.server.expected.owes()
    }

    /// What a message had to wait for is known.
    pub(super) fn decided(&self) -> bool {
        let expected = &self.server.expected;
        !expected.undecided() && !expected.awaits_begin() && !self.lexing_unsettled()
    }

    /// A statement is about to be sent or bound that may make the session forget its names.
    pub(super) fn may_forget(&mut self, facts: &Facts) {
        let forgets = |effect: &Effect| matches!(effect, Effect::DiscardAll | Effect::Deallocate { name: None });
        // What was not read may be anything.
        let may = facts.kind == Kind::Opaque || facts.effects.iter().any(forgets);
        if may && self.ways.forgets == Forgets::No {
            self.ways.forgets = Forgets::Known;
        }
    }

    /// A statement or portal is about to be executed.
    pub(super) fn executes(&mut self) {
        if self.ways.forgets != Forgets::No {
            self.ways.forgets = Forgets::Sent(0);
        }
    }

    /// The tags of completed statements tell whether names are to be forgotten.
    pub(super) fn may_have_forgotten(&self) -> bool {
        self.ways.forgets != Forgets::No
    }

    /// What is owed decides what the session's names stand for.
    pub(super) fn names_unknown(&self) -> bool {
        let expected = &self.server.expected;
        let sent = matches!(self.ways.forgets, Forgets::Sent(_));
        expected.undecided() || (sent && expected.owes())
    }

    /// A server keeps answers back until it is asked for them.
    pub(super) fn ask_for_names(&mut self) {
        let sent = self.server.expected.sent();
        if matches!(self.ways.forgets, Forgets::Sent(asked) if asked != sent) {
            self.ways.forgets = Forgets::Sent(sent);
            crate::wire::write::empty(&mut self.server.output, crate::wire::front::FLUSH);
        }
    }

    /// The transaction has ended, and its portals with it.
    pub(super) fn settle(&mut self) {
        self.ways.unsettled = 0;
        self.ways.forgets = Forgets::No;
    }

    /// Every statement on the server is parsed again from now on; the old ones are dropped with the end of the transaction.
    pub(super) fn forget_statements(&mut self) {
        self.server.statements.clear();
        self.notes.unseen.forget_statements = true;
    }

    /// Queues what is expected; what the server will skip is taken back at once.
    pub(super) fn undo(&mut self, expect: Expect, session: &mut Session) {
        if let Some(undo) = self.server.expected.push(expect)
            && let Ok(change) = undo.downcast::<Change>()
        {
            session.take_back(&mut self.server, *change);
        }
        // What is made here waits behind what a server keeps back until it is asked: a client that never asks must not make the
        // queue grow.
        if self.server.expected.len() % ASKED_EVERY == ASKED_EVERY - 1 {
            crate::wire::write::empty(&mut self.server.output, crate::wire::front::FLUSH);
        }
    }
}

/// Why there is no lease.
#[derive(Debug)]
pub(super) enum NoLease {
    /// The client is to be told.
    Refused(Refusal),
    /// The server cannot be reached now.
    Unreachable(String),
    /// The client left while it waited.
    Gone,
}

impl Session {
    /// A server connection to `node` from this session's pool, waiting for it if need be.
    pub(super) async fn lease(&mut self, node: NodeId) -> Result<Box<Server>, NoLease> {
        let Some(pool) = self.pool(node) else {
            return Err(NoLease::Unreachable(format!("node {node} is not configured")));
        };
        match pool.try_lease(&self.settings) {
            Some(server) => Ok(server),
            None => Box::pin(self.wait_for_lease(pool)).await,
        }
    }

    /// Waits in the pool's queue: for the connection, the deadline, a cancel, or the client's end.
    async fn wait_for_lease(&mut self, pool: Rc<Pool>) -> Result<Box<Server>, NoLease> {
        let limit = self.who.limits.queue_timeout;
        self.show(Doing::Waiting);
        self.context.hub.buffers.tuck(&mut self.client.input);
        let mut ticket = pool.enqueue(limit);
        let result = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = ticket.poll(cx) {
                return Poll::Ready(result.map_err(|error| no_lease(error, &pool, limit)));
            }
            self.poll_interruption(cx).map(Err)
        })
        .await;
        self.show(Doing::Active);
        let result = match result {
            // The pool's deadline does not run while writes are held: the wait goes on elsewhere.
            Err(NoLease::Refused(_)) if ticket.is_over() && matches!(self.way(), super::hold::Way::Held(_)) => {
                Err(NoLease::Unreachable("writes are held".to_owned()))
            }
            result => result,
        };
        let waited = ticket.since().elapsed();
        self.context.waited(waited);
        result
    }

    /// Whatever ends a wait early: a cancel, pgherd's end, the client's end.
    pub(super) fn poll_interruption(&mut self, cx: &mut Context<'_>) -> Poll<NoLease> {
        self.control.register(cx);
        if self.control.take_cancel() {
            return Poll::Ready(NoLease::Refused(Refusal::cancelled()));
        }
        if self.control.stopping() {
            return Poll::Ready(NoLease::Refused(Refusal::stopping()));
        }
        if self.client.poll_flush(cx).is_ready() && !self.client.input.is_full() {
            let buffers = &self.context.hub.buffers;
            match self.client.poll_more(cx, buffers) {
                Poll::Ready(Ok(count)) if count > 0 => cx.waker().wake_by_ref(),
                Poll::Ready(_) => return Poll::Ready(NoLease::Gone),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Gives a server connection this session's settings. Nothing of the client's was written to it yet.
    /// On an error of the setup the connection is clean and unused, but not this session's.
    pub(super) async fn prepare(&mut self, server: &mut Server) -> Result<(), SetupError> {
        let dirty = server.leftovers.dirty && server.leftovers.session != self.number();
        if dirty || !Rc::ptr_eq(&server.applied, &self.settings) {
            let text = setup(&server.applied, &self.settings, dirty);
            if !text.is_empty() {
                Box::pin(self.run_setup(server, &text)).await?;
            }
            server.applied = self.settings.clone();
            if dirty {
                server.leftovers.dirty = false;
                server.leftovers.sequences = 0;
            }
        }
        server.leftovers.session = self.number();
        self.control.shown.holds(server);
        if self.prepared.as_deref().is_some_and(|set| set.mixed) {
            let provided = tokio::time::timeout(ASK, self.provide_old(server));
            Box::pin(provided).await.unwrap_or(Err(Lost::Timeout)).map_err(SetupError::Lost)?;
        }
        self.tell(server);
        Ok(())
    }

    async fn run_setup(&mut self, server: &mut Server, text: &[u8]) -> Result<(), SetupError> {
        self.context.counters.setups.add(1);
        let asked = server.ask(text, &self.context.hub.buffers);
        match tokio::time::timeout(ASK, asked).await {
            Err(_) => Err(SetupError::Lost(Lost::Timeout)),
            Ok(Err(lost)) => Err(SetupError::Lost(lost)),
            Ok(Ok(outcome)) => match outcome.error {
                None => Ok(()),
                Some((code, message)) => Err(SetupError::Refused(Refusal::new(&code, message))),
            },
        }
    }

    /// Tells the client of parameters that are other on this server than it knows (SESSIONS R6).
    pub(super) fn tell(&mut self, server: &Server) {
        if Rc::ptr_eq(&server.reported, &self.told) {
            return;
        }
        for (name, value) in server.reported.differing(&self.told) {
            crate::wire::write::frame(&mut self.client.output, b'S', |out| {
                crate::wire::write::cstr(out, name.as_bytes());
                crate::wire::write::cstr(out, value);
            });
        }
        self.set_told(server.reported.clone());
    }

    /// The pool of this session's database and user at a node.
    pub(super) fn pool(&self, node: NodeId) -> Option<Rc<Pool>> {
        self.context.pool(node, &self.who)
    }

    /// Gives a connection that is at rest back. One that a CancelRequest is under way for waits for its end first, so that it
    /// cannot hit the next session (SESSIONS R18).
    pub(super) fn give_back(&self, server: Box<Server>) {
        let Some(pool) = self.pool(server.identity.node) else { return server.close() };
        if !server.at_rest() {
            return pool.lost(server);
        }
        if server.cancels.get() == 0 {
            return pool.put(server);
        }
        super::reap::after_cancels(pool, server);
    }

    /// Carries other settings from now on.
    pub(super) fn carry(&mut self, settings: Rc<Carried>) {
        self.digest = if settings.is_empty() { 0 } else { settings.digest(&self.context.global.hasher) };
        self.control.shown.carries(&settings);
        self.settings = settings;
        if let Some(set) = self.prepared.as_deref_mut() {
            set.mixed = set.named.values().any(|prepared| prepared.digest != self.digest);
        }
    }
}

/// Why a connection could not be made this session's.
#[derive(Debug)]
pub(super) enum SetupError {
    /// The server refused a setting.
    Refused(Refusal),
    /// The connection is lost.
    Lost(Lost),
}

fn no_lease(error: OpenError, pool: &Pool, limit: Duration) -> NoLease {
    match error {
        OpenError::Late => NoLease::Refused(queue_timeout(pool, limit)),
        OpenError::Unreachable(text) => NoLease::Unreachable(text),
        OpenError::Busy(text) => NoLease::Refused(Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, text)),
        OpenError::Refused { code, message } => NoLease::Refused(Refusal::new(&code, message)),
    }
}

/// SESSIONS R21: the text names pool, size, waiters, pins.
fn queue_timeout(pool: &Pool, limit: Duration) -> Refusal {
    let (key, shared) = (pool.key(), pool.shared());
    let (size, open) = (shared.size.load(Ordering::Relaxed), shared.open());
    let (waiting, pinned) = (shared.waiting.load(Ordering::Relaxed), shared.pinned.load(Ordering::Relaxed));
    let message = format!(
        "no server connection within {limit:?}: pool {}/{} at node {} has {open} of {size} connections, {waiting} sessions \
         wait, {pinned} are pinned",
        key.database, key.user, key.node
    );
    Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, message)
        .with_hint("Raise pool.size or pool.queue_timeout, or look for long transactions.")
}
