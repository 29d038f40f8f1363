//! One client from the end of its login to its goodbye. Layer 4, data plane: must not import the control plane, and lives and dies
//! on one thread.
//!
//! A session waits without holding anything ([`Session::run`]), looks at a request when one has come (`survey`), and answers it here
//! (`local`), runs it on a standby (`read`) or leases the primary and relays until the transaction has ended (`relay`,
//! `upstream`, `downstream`, `finish`).

mod admin;
mod again;
mod block;
mod client;
mod context;
mod control;
mod counters;
mod diary;
mod dispatch;
mod downstream;
mod fence;
mod finish;
mod frames;
mod freshness;
mod greet;
mod hold;
mod lease;
mod local;
pub mod login;
mod look;
mod lost;
mod names;
mod notes;
mod parse;
mod pause;
mod place;
mod prepared;
mod read;
mod reap;
mod relay;
mod shown;
mod survey;
mod timing;
mod upstream;

use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use crate::backend::{Carried, Reported, Server};
use crate::cluster::{NodeId, Shared, Trouble};
use crate::net::{PeerAddr, Stream};
use crate::sql::{Fingerprint, LexMode};
use crate::support::clock::{Duration, now};
use crate::wire::Fault;
use crate::wire::write::Severity;

pub use context::{CancelServer, Cancelling, Context, DescribeAll, Describing, Global, LongText, SessionSettings, Who};
pub use control::{Control, Stop};
pub use counters::{Count, Counters, Faults, NodeCounts, Phases, Routed, Times};
pub use hold::{Held, HoldLimits};
pub use pause::Pause;
pub use prepared::Texts;
pub use shown::{Description, Doing};
pub use timing::{StatementLog, StatementStats, Statements, top};

use block::Block;
use client::Client;
use finish::Pin;
use freshness::Freshness;
use hold::Begin;
use lease::Leased;
use local::Refusal;
use look::Looked;
use prepared::PreparedSet;
use relay::RelayEnd;
use shown::Shown;
use survey::Survey;

/// How long a farewell may take to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a client that said goodbye may take to receive the end of its last answer.
const LINGER: Duration = Duration::from_secs(60);

/// A client whose login has succeeded.
#[derive(Debug)]
pub struct Arrival {
    /// Its connection.
    pub stream: Stream,
    /// Where it comes from.
    pub peer: PeerAddr,
    /// The user.
    pub user: String,
    /// The database.
    pub database: String,
    /// Startup parameters that are settings, in order.
    pub options: Vec<(String, String)>,
    /// Number by which a CancelRequest names the session.
    pub id: i32,
    /// Bytes that came behind the login.
    pub early: Vec<u8>,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    /// The client said goodbye or vanished.
    Client,
    /// The client broke the protocol.
    Fault(Fault),
    /// pgherd stops.
    Stopped,
    /// The client is told why.
    Fatal(Refusal),
}

/// What of the client's input is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    Nothing,
    /// Everything up to Sync.
    ToSync,
    /// One message.
    One,
}

impl Skip {
    /// The rest of a request that was refused before all of it was there.
    fn of(survey: &Survey) -> Self {
        if survey.series { Self::ToSync } else { Self::One }
    }
}

/// One client.
pub struct Session {
    context: Rc<Context>,
    client: Client,
    who: Rc<Who>,
    control: Rc<Control>,
    /// The number that a CancelRequest names.
    id: i32,
    /// Stands for the session in server connections; another one after DISCARD ALL.
    number: u64,
    /// Startup options: the reset values.
    base: Rc<Carried>,
    /// Settings as they are now.
    settings: Rc<Carried>,
    /// Digest of the settings, for prepared statements.
    digest: u64,
    /// What the client was told of the server's parameters.
    told: Rc<Reported>,
    lexing: LexMode,
    prepared: Option<Box<PreparedSet>>,
    block: Block,
    freshness: Freshness,
    preferred: Option<NodeId>,
    /// Kept between transactions: pinned, or session mode.
    lease: Option<Box<Leased>>,
    pin: Option<Box<Pin>>,
    /// A read that the primary answers in a standby's place.
    corrected: Option<Box<(Fingerprint, String)>>,
    /// What the text at the front of the input was found to be.
    ahead: Option<Looked>,
    /// The server connection of its last write (SESSIONS R4).
    last_server: u64,
    /// Since when requests of this client have been held, those that it had sent ahead included: their time is up together (HA H14).
    held_since: Option<crate::support::clock::Instant>,
    habits: Habits,
    /// The sessions of all threads, for the statement at the front of the input that asks for them.
    gathered: Option<Vec<Description>>,
    /// The request under way, if it is timed.
    timed: Option<Box<timing::Timed>>,
    /// What PGPOOL SET has changed for this session.
    own: admin::Own,
    /// Bytes of a message that nobody wants and that have not come yet.
    discard: usize,
    skip: Skip,
}

/// What a session once did and what follows from it for good.
#[derive(Debug, Default)]
struct Habits {
    /// It asked for `currval` or `lastval` (SESSIONS R4).
    uses_sequences: bool,
    /// Its pin has a reason that no probe finds.
    pinned: Unfound,
}

/// Reasons of a pin that no probe finds, by how they end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Unfound {
    #[default]
    None,
    /// With DISCARD ALL.
    UntilDiscard,
    /// With the session: PostgreSQL forgets a seed no sooner.
    ForGood,
}

impl Session {
    /// A session for a client that has logged in. It is greeted by [`run`](Self::run).
    pub fn new(context: Rc<Context>, arrival: Arrival) -> Self {
        let mut client = Client::new(arrival.stream);
        if !arrival.early.is_empty() {
            client.preload(&arrival.early, &context.hub.buffers);
        }
        let who = context.who(&arrival.database, &arrival.user);
        let options = arrival.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let base = Rc::new(Carried::from_options(options));
        let number = context.next_token();
        let since = now();
        let mut session = Self {
            client,
            control: Rc::new(Control::new(since, Shown::new(arrival.id, who.clone(), arrival.peer, since))),
            who,
            id: arrival.id,
            number,
            settings: Carried::none(),
            digest: 0,
            told: Rc::default(),
            lexing: LexMode::default(),
            prepared: None,
            block: Block::None,
            freshness: Freshness::default(),
            preferred: None,
            lease: None,
            pin: None,
            corrected: None,
            ahead: None,
            last_server: 0,
            held_since: None,
            habits: Habits::default(),
            gathered: None,
            timed: None,
            own: admin::Own::default(),
            discard: 0,
            skip: Skip::Nothing,
            base: base.clone(),
            context,
        };
        session.carry(base);
        session
    }

    /// Greets the client, behind `accepted` (AuthenticationOk). `None`: it could not be, and is gone.
    pub async fn open(mut self: Box<Self>, secret: Vec<u8>, accepted: Vec<u8>) -> Option<Box<Self>> {
        self.context.enter(self.key(), self.control.clone());
        match self.greet(&secret, accepted).await {
            Ok(()) => {
                self.log_arrival();
                Some(self)
            }
            Err(end) => {
                self.close(end).await;
                None
            }
        }
    }

    /// Serves the client until it leaves. Thousands of these futures are at rest at any time: what is rare within them has memory of
    /// its own, and nothing is kept over an await that need not be (SESSIONS R23).
    pub async fn run(mut self: Box<Self>) {
        let end = self.serve().await;
        Box::pin(self.close(end)).await;
    }

    async fn serve(&mut self) -> End {
        loop {
            if let Err(end) = std::future::poll_fn(|cx| self.poll_next(cx)).await {
                self.control.rest(None);
                return end;
            }
            self.control.rest(None);
            // Without a lease the statement is seen when it is dispatched.
            if self.lease.is_some() && self.asks_pgherd() {
                match Box::pin(self.administer_at_rest()).await {
                    Ok(false) => {}
                    Ok(true) => continue,
                    Err(end) => return end,
                }
            }
            let done = match self.lease.take() {
                None => self.dispatch().await,
                Some(lease) => self.go_on(lease).await,
            };
            if let Err(end) = done {
                return end;
            }
            self.gathered = None;
            if self.lease.is_none() {
                // A place that was reserved for a statement that came to nothing.
                self.pin = None;
            }
        }
    }

    /// The next request of a session that has kept its lease.
    async fn go_on(&mut self, lease: Box<Leased>) -> Result<(), End> {
        if self.goes_on(&lease) {
            return self.serve_lease(lease).await;
        }
        let begin = Box::pin(self.may_begin(lease)).await?;
        match begin {
            Begin::Now(lease) => self.serve_lease(lease).await,
            Begin::Elsewhere => self.dispatch().await,
            Begin::Refused => Ok(()),
        }
    }

    /// Waits for the next request, holding no buffer. Cancel safe.
    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), End>> {
        self.control.register(cx);
        self.control.take_cancel();
        if self.control.stopping() && (matches!(self.block, Block::None) || self.control.stopping_now()) {
            return Poll::Ready(Err(self.stopped()));
        }
        if let Some(mut lease) = self.lease.take() {
            let broken = self.poll_replies(&mut lease, cx);
            let rests = lease.server.at_rest() && lease.quiet();
            self.control.rest(rests.then_some(lease.server.identity.node));
            self.lease = Some(lease);
            if let Poll::Ready(broken) = broken
                && let Some(end) = self.lost_while_idle(broken)
            {
                return Poll::Ready(Err(end));
            }
        }
        match self.client.poll_flush(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Client)),
            // A client that does not take its answers is not asked for more.
            Poll::Pending if self.client.output.len() > upstream::ENOUGH => return Poll::Pending,
            _ => {}
        }
        loop {
            match self.next_header() {
                Ok(true) => {
                    self.control.busy();
                    self.not_timed();
                    self.begins();
                    self.show(Doing::Active);
                    return Poll::Ready(Ok(()));
                }
                Ok(false) => {}
                Err(fault) => return Poll::Ready(Err(End::Fault(fault))),
            }
            match self.client.poll_fill(cx, &self.context.hub.buffers) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Err(End::Client)),
                Poll::Pending => {
                    self.client.rest(&self.context.hub.buffers);
                    self.held_since = None;
                    self.show_rest();
                    if self.context.watches_idle() && matches!(self.block, Block::None) {
                        self.control.idle_from(now());
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Why a session that is told to end does.
    fn stopped(&self) -> End {
        match self.control.stop_reason() {
            Stop::Idle => End::Fatal(Refusal::new(
                crate::wire::sqlstate::IDLE_SESSION_TIMEOUT,
                "terminating connection due to client_idle_limit",
            )),
            _ => End::Stopped,
        }
    }

    /// A header that is somebody's business is at the front of the input.
    fn next_header(&mut self) -> Result<bool, Fault> {
        if !self.discard_some() {
            return Ok(false);
        }
        if self.skip != Skip::Nothing && !self.skip_rest()? {
            return Ok(false);
        }
        Ok(self.client.header()?.is_some())
    }

    /// Waits for more bytes of the request at the front of the input.
    async fn read_more(&mut self) -> Result<(), End> {
        std::future::poll_fn(|cx| {
            self.control.register(cx);
            if self.control.stopping_now() {
                return Poll::Ready(Err(End::Stopped));
            }
            match self.client.poll_fill(cx, &self.context.hub.buffers) {
                Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Ok(())),
                Poll::Ready(_) => Poll::Ready(Err(End::Client)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Relays between the client and its lease until the transaction has ended.
    async fn serve_lease(&mut self, mut lease: Box<Leased>) -> Result<(), End> {
        let end = self.relay(&mut lease).await;
        self.ahead = None;
        match end {
            RelayEnd::Rest => {
                self.finish(lease).await?;
                Ok(())
            }
            RelayEnd::Gone => {
                reap::abandon(self, lease);
                Err(End::Client)
            }
            RelayEnd::Fault(fault) => {
                reap::abandon(self, lease);
                Err(End::Fault(fault))
            }
            RelayEnd::Stopped => {
                reap::abandon(self, lease);
                Err(End::Stopped)
            }
            RelayEnd::Lost(lost) if lease.ways.again.is_some() => Box::pin(self.lose_write(lease, lost)).await,
            RelayEnd::Lost(lost) => self.lose_lease(*lease, &lost),
        }
    }

    /// The last words, and what becomes of a lease that was kept.
    async fn close(&mut self, end: End) {
        self.context.leave(self.key());
        self.log_end(&end);
        if let Some(lease) = self.lease.take() {
            reap::abandon(self, lease);
        }
        let left = matches!(end, End::Client);
        let refusal = match end {
            End::Client => None,
            End::Fault(fault) => Some(Refusal::new(crate::wire::sqlstate::PROTOCOL_VIOLATION, fault.to_string())),
            End::Stopped => Some(Refusal::stopping()),
            End::Fatal(refusal) => Some(refusal),
        };
        if let Some(refusal) = refusal {
            refusal.write(&mut self.client.output, Severity::Fatal);
        }
        self.client.forget_input(&self.context.hub.buffers);
        // The last bytes of an answer may still be on their way.
        if left && self.client.output.is_empty() && !self.client.stream.is_tls() {
            let settled = std::future::poll_fn(|cx| self.client.stream.poll_settled(cx));
            let _ = tokio::time::timeout(LINGER, settled).await;
            return;
        }
        let written = std::future::poll_fn(|cx| self.client.poll_flush(cx));
        let _ = tokio::time::timeout(FAREWELL, written).await;
        let _ = tokio::time::timeout(FAREWELL, self.client.stream.shutdown()).await;
    }

    fn number(&self) -> u64 {
        self.number
    }

    /// By what its thread knows it.
    fn key(&self) -> u64 {
        u64::from(self.id.unsigned_abs())
    }

    /// Nothing that a server remembers of this session is its own any more.
    fn renumber(&mut self) {
        self.number = self.context.next_token();
    }

    fn report(&self, node: NodeId, trouble: Trouble) {
        self.context.report(node, trouble);
    }

    /// A server connection that is of no more use.
    fn lose(&self, server: Box<Server>) {
        self.context.counters.lost.add(1);
        if let Some(pool) = self.pool(server.identity.node) {
            pool.lost(server);
        }
    }

    /// Cancels what a server does for this session. The connection is not handed on before the request is done (SESSIONS R18).
    fn send_cancel(&self, server: &Server) {
        if server.expected.is_empty() {
            return;
        }
        self.context.counters.cancels.add(1);
        let cancels = server.cancels.clone();
        cancels.set(cancels.get() + 1);
        let sending = (self.context.global.cancel)(server.identity.node, server.identity.key.clone());
        tokio::task::spawn_local(async move {
            sending.await;
            cancels.set(cancels.get() - 1);
        });
    }
}

impl Context {
    /// View and samples.
    pub fn cluster(&self) -> &Shared {
        &self.global.cluster
    }
}
