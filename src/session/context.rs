//! What all sessions of one data thread share. Owned by the thread; must not be reached from another one but through its mail.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::RandomState;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::backend::{Hub, Place, Pool, PoolKey, Registry, Reported, Sizes, Times};
use crate::cluster::{FailoverRequest, Knowledge, Known, NodeId, Shared, Trouble};
use crate::config::{OpaquePolicy, PoolLimits};
use crate::routing::{self, Catalog, Class, Memory, Policy, Reason, Traces};
use crate::sql::{self, Cache, Facts, Fingerprint, Flags, Isolation, LexMode, VerdictKey};
use crate::support::clock::{Duration, Instant, SystemTime, now};

use super::control::{Control, Stop};
use super::counters::Counters;
use super::fence::Fences;
use super::hold::{Held, HoldLimits};
use super::pause::Pause;
use super::prepared::Texts;
use super::shown::Description;
use super::timing::StatementLog;

/// Texts whose facts one thread keeps, and their bytes.
const FACTS: (usize, usize) = (20_000, 16 * 1024 * 1024);
/// Refusals remembered by one thread, and for how long (SESSIONS R11).
const REFUSALS: (usize, Duration) = (1_000, Duration::from_secs(600));

/// A routing verdict with what the session needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) verdict: routing::Verdict,
    pub(super) standby_ok: bool,
}

impl Judged {
    /// What the verdict says of a text beyond its own flags.
    pub(super) fn flags(&self) -> Flags {
        match self.verdict.traces {
            Traces::None => Flags::NONE,
            Traces::Sequence => Flags::SEQUENCE_WRITE,
            Traces::Opaque => Flags::OPAQUE,
        }
    }
}

/// Settings of the data path, replaced as a whole by a reload.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// `[pool]`.
    pub pool: crate::config::Pool,
    /// Connections per node, `[[node]] max_connections`.
    pub nodes: Vec<(NodeId, u32)>,
    /// A client that is silent for so long outside a transaction is disconnected; zero: never.
    pub client_idle_limit: Duration,
    /// `[failover]`: how statements that need the primary wait for one.
    pub hold: HoldLimits,
    /// `monitor.user`, who sees everybody's sessions as a superuser does.
    pub monitor: String,
    /// `[auth] admin_users`, who do too.
    pub admins: Vec<String>,
    /// `[auth] stats_users`, who may look at what is nobody's own; `*` is everyone.
    pub observers: Vec<String>,
    /// How statements are logged and timed.
    pub log: StatementLog,
    /// Clients that come and go are logged.
    pub log_connections: bool,
}

/// What the process's threads share.
pub struct Global {
    /// View and samples.
    pub cluster: Arc<Shared>,
    /// Catalogs.
    pub knowledge: Arc<Knowledge<Catalog>>,
    /// Asks for a catalog to be read.
    pub want_catalog: Box<dyn Fn(&Arc<Known<Catalog>>) + Send + Sync>,
    /// Reports trouble with a node; never waits.
    pub report: Box<dyn Fn(FailoverRequest) + Send + Sync>,
    /// Pools and limits.
    pub registry: Arc<Registry>,
    /// Prepared texts.
    pub texts: Texts,
    /// Keyed hashing of settings; one for the process, since server connections move between threads.
    pub hasher: RandomState,
    /// Numbers for sessions and tokens.
    pub numbers: AtomicU64,
    /// When anything was last written through this proxy, in microseconds of its clock (SESSIONS R7, "proxy").
    pub wrote: AtomicU64,
    /// When the process started.
    pub started: Instant,
    /// Statements that wait for a primary.
    pub held: Held,
    /// An operator's pause.
    pub pause: Pause,
    /// Retires the idle connections of all threads (SESSIONS R6).
    pub retire: Box<dyn Fn() + Send + Sync>,
    /// Sends a CancelRequest.
    pub cancel: CancelServer,
    /// What each data thread counts.
    pub counters: Box<[Arc<Counters>]>,
    /// Asks every data thread for its sessions.
    pub describe: DescribeAll,
    /// All settings that hold, for people: `SHOW POOL_STATUS`. What decides gets its own slice of them.
    pub settings: ArcSwap<crate::config::Settings>,
    /// The wall clock at the start.
    pub born: SystemTime,
    /// Has a long text analyzed on the helper thread for the data thread of that number; never waits, and may decline.
    pub analyze: Box<dyn Fn(usize, LongText) + Send + Sync>,
}

/// A text too long to be parsed on a data thread (SESSIONS R14).
#[derive(Debug)]
pub struct LongText {
    /// The text.
    pub text: Box<[u8]>,
    /// How it is read.
    pub mode: LexMode,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

/// A CancelRequest under way.
pub type Cancelling = std::pin::Pin<Box<dyn Future<Output = ()>>>;
/// Sends a CancelRequest to a node and waits until the server has closed the connection or a deadline has passed.
pub type CancelServer = Box<dyn Fn(NodeId, crate::wire::CancelKey) -> Cancelling + Send + Sync>;

/// The sessions of all data threads on their way; none if a thread does not answer in time.
pub type Describing = std::pin::Pin<Box<dyn Future<Output = Option<Vec<Description>>>>>;
/// Asks every data thread for its sessions.
pub type DescribeAll = Box<dyn Fn() -> Describing + Send + Sync>;

/// One database and user, shared by their sessions on this thread.
pub struct Who {
    /// The database.
    pub database: Arc<str>,
    /// The user.
    pub user: Arc<str>,
    /// Number of the database on this thread, for verdicts.
    pub number: u32,
    /// What holds for its pools.
    pub limits: PoolLimits,
    /// What is known of the database.
    pub known: Arc<Known<Catalog>>,
    /// This thread's pools of the login, found once.
    pools: RefCell<Vec<(NodeId, Rc<Pool>)>>,
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.database, self.user)
    }
}

/// Database, user and startup options.
pub(super) type GreetingKey = (Arc<str>, Arc<str>, u64);

/// What a real login of a database, user and set of startup options reported.
#[derive(Debug, Clone)]
pub(super) struct Greeting {
    pub(super) reported: Rc<Reported>,
    pub(super) isolation: Isolation,
    /// Then it is asked for again: defaults may be changed behind our back.
    pub(super) good_until: Instant,
}

/// One data thread.
pub struct Context {
    /// Pools.
    pub hub: Rc<Hub>,
    /// Shared by all threads.
    pub global: Arc<Global>,
    /// What is counted.
    pub counters: Arc<Counters>,
    pub(super) policy: RefCell<Rc<Policy>>,
    pub(super) settings: RefCell<Rc<SessionSettings>>,
    pub(super) recent: RefCell<sql::Recent>,
    pub(super) facts: RefCell<Cache<Judged>>,
    pub(super) opaque: Rc<Facts>,
    memory: RefCell<Memory>,
    who: RefCell<HashMap<(Arc<str>, Arc<str>), Rc<Who>>>,
    pub(super) greetings: RefCell<HashMap<GreetingKey, Greeting>>,
    /// Those that a login asks for at the moment, and who waits for the answer.
    pub(super) asking: RefCell<HashMap<GreetingKey, Rc<Notify>>>,
    pub(super) sessions: RefCell<HashMap<u64, Rc<Control>>>,
    pub(super) fences: Fences,
    /// Requests until the next one that is timed.
    pub(super) until_timed: Cell<u32>,
    /// One in so many is timed.
    pub(super) timed_every: Cell<u32>,
    /// The time, as of the last housekeeping.
    pub(super) tick: Cell<Instant>,
    random: Cell<u64>,
}

impl Context {
    /// A data thread's context.
    pub fn new(hub: Rc<Hub>, global: Arc<Global>, policy: Policy, settings: SessionSettings) -> Rc<Self> {
        use std::hash::BuildHasher;
        let seed = RandomState::new().hash_one(hub.thread) | 1;
        let counters = global.counters.get(hub.thread).cloned().unwrap_or_default();
        let fences = Fences::new(global.cluster.lease.is_kept());
        Rc::new(Self {
            hub,
            global,
            counters,
            policy: RefCell::new(Rc::new(policy)),
            recent: RefCell::default(),
            facts: RefCell::new(Cache::new(FACTS.0, FACTS.1)),
            opaque: Rc::new(Facts::opaque()),
            memory: RefCell::new(Memory::new(REFUSALS.0, REFUSALS.1)),
            who: RefCell::default(),
            greetings: RefCell::default(),
            asking: RefCell::default(),
            sessions: RefCell::default(),
            fences,
            until_timed: Cell::new(1),
            timed_every: Cell::new(settings.log.every()),
            tick: Cell::new(now()),
            random: Cell::new(seed),
            settings: RefCell::new(Rc::new(settings)),
        })
    }

    /// Other settings hold from now on; sessions keep the pool limits that they logged in with.
    pub fn reload(&self, policy: Policy, settings: SessionSettings) {
        for &(node, most) in &settings.nodes {
            self.hub.registry.node(node, most);
        }
        for pool in self.hub.pools() {
            let limits = settings.pool.for_login(&pool.key().database, &pool.key().user);
            pool.shared().size.store(limits.size, Ordering::Relaxed);
        }
        let (idle_timeout, max_lifetime) = (settings.pool.idle_timeout, settings.pool.max_lifetime);
        self.hub.times.set(Times { idle_timeout, max_lifetime });
        self.timed_every.set(settings.log.every());
        self.until_timed.set(1);
        *self.policy.borrow_mut() = Rc::new(policy);
        *self.settings.borrow_mut() = Rc::new(settings);
        self.who.borrow_mut().clear();
    }

    /// Idle connections to a node are of no use any more; if it is configured no more, those that come back are not either.
    pub fn forget(&self, node: NodeId) {
        if self.most_connections(node).is_none() {
            for pool in self.hub.pools().iter().filter(|pool| pool.key().node == node) {
                pool.keep_at_least(0);
                pool.shared().size.store(0, Ordering::Relaxed);
            }
        }
        self.hub.forget(node);
    }

    /// How statements that need the primary wait for one.
    pub(super) fn hold_limits(&self) -> HoldLimits {
        self.settings.borrow().hold
    }

    /// `[[node]] max_connections`.
    fn most_connections(&self, node: NodeId) -> Option<u32> {
        self.settings.borrow().nodes.iter().find(|(id, _)| *id == node).map(|(_, most)| *most)
    }

    /// A place among a node's connections for one that belongs to no pool; none if the node has its most, and all are busy.
    pub async fn place(&self, node: NodeId) -> Option<Place> {
        let most = self.most_connections(node)?;
        self.hub.place(node, most).await
    }

    /// The thread's entry for a database and user.
    pub fn who(&self, database: &str, user: &str) -> Rc<Who> {
        let key = (Arc::<str>::from(database), Arc::<str>::from(user));
        if let Some(found) = self.who.borrow().get(&key) {
            return found.clone();
        }
        let limits = self.settings.borrow().pool.for_login(database, user);
        let known = self.global.knowledge.database(database);
        let number = self.database_number(database);
        let who = Rc::new(Who {
            database: key.0.clone(),
            user: key.1.clone(),
            number,
            limits,
            known,
            pools: RefCell::default(),
        });
        let mut all = self.who.borrow_mut();
        if all.len() >= 10_000 {
            all.retain(|_, who| Rc::strong_count(who) > 1);
        }
        all.insert(key, who.clone());
        who
    }

    fn database_number(&self, database: &str) -> u32 {
        let all = self.who.borrow();
        let known = all.values().find(|who| &*who.database == database).map(|who| who.number);
        known.unwrap_or_else(|| u32::try_from(self.next_token()).unwrap_or(u32::MAX))
    }

    /// This thread's part of the pool of a login at a node.
    pub(super) fn pool(&self, node: NodeId, who: &Who) -> Option<Rc<Pool>> {
        if let Some((_, pool)) = who.pools.borrow().iter().find(|(id, _)| *id == node) {
            return Some(pool.clone());
        }
        let most = self.most_connections(node)?;
        let key = PoolKey { node, database: who.database.clone(), user: who.user.clone() };
        let sizes = Sizes { size: who.limits.size, min: who.limits.min_size, node: most };
        let pool = self.hub.pool_by_key(key, sizes);
        who.pools.borrow_mut().push((node, pool.clone()));
        Some(pool)
    }

    /// May that user see what is other users' own?
    pub(super) fn is_admin(&self, user: &str) -> bool {
        let settings = self.settings.borrow();
        settings.monitor == user || settings.admins.iter().any(|admin| admin == user)
    }

    /// May that user look at what is nobody's own?
    pub(super) fn is_observer(&self, user: &str) -> bool {
        let settings = self.settings.borrow();
        settings.observers.iter().any(|observer| observer == "*" || observer == user)
    }

    /// Most sessions of a login that may keep a connection (SESSIONS R5).
    pub(super) fn most_pinned(&self, who: &Who) -> u32 {
        self.settings.borrow().pool.max_pinned.unwrap_or(who.limits.size.div_ceil(2))
    }

    pub(super) fn opaque_policy(&self) -> OpaquePolicy {
        self.settings.borrow().pool.opaque
    }

    /// A number that nothing else in this process has.
    pub(super) fn next_token(&self) -> u64 {
        self.global.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// 64 random bits (xorshift; nobody's secret depends on them).
    pub(super) fn random(&self) -> u64 {
        let mut bits = self.random.get();
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        self.random.set(bits);
        bits
    }

    /// Works a text's facts out. Longer texts have the lexer's word alone on this thread; the helper's comes later (SESSIONS R14).
    pub(super) fn analyze(&self, text: &[u8], mode: LexMode, fingerprint: Fingerprint) -> Rc<Facts> {
        let facts = if text.len() <= sql::INLINE_TEXT {
            sql::analyze(text, mode)
        } else {
            if text.len() <= sql::HELPER_TEXT {
                (self.global.analyze)(self.hub.thread, LongText { text: text.into(), mode, fingerprint });
            }
            sql::analyze_lexer_only(text, mode)
        };
        let facts = Rc::new(facts);
        self.learn(fingerprint, facts.clone());
        facts
    }

    /// Keeps what is known of a text from now on.
    pub fn learn(&self, fingerprint: Fingerprint, facts: Rc<Facts>) {
        self.facts.borrow_mut().insert(fingerprint, facts);
    }

    /// Looks at the clock, and ends sessions that have been silent for longer than `listen.client_idle_limit`.
    pub fn end_idle(&self) {
        self.tick.set(now());
        let limit = self.settings.borrow().client_idle_limit;
        if limit.is_zero() {
            return;
        }
        let long_ago = |control: &&Rc<Control>| control.idle_since().is_some_and(|since| since.elapsed() > limit);
        for control in self.sessions.borrow().values().filter(long_ago) {
            control.stop(Stop::Idle);
        }
    }

    /// Idle sessions note since when.
    pub(super) fn watches_idle(&self) -> bool {
        !self.settings.borrow().client_idle_limit.is_zero()
    }

    /// What is known of a text, and the verdict on it if facts, catalog and policy are still those that it rests on.
    pub(super) fn known(&self, who: &Who, fingerprint: Fingerprint) -> Option<(Rc<Facts>, Option<Judged>)> {
        let key = self.verdict_key(who);
        self.facts.borrow_mut().get(fingerprint).map(|entry| (entry.facts().clone(), entry.verdict(key)))
    }

    fn verdict_key(&self, who: &Who) -> VerdictKey {
        let policy = self.policy.borrow().generation;
        VerdictKey { database: who.number, catalog: who.known.generation(), policy }
    }

    /// The verdict on facts, out of the cache if possible.
    pub(super) fn judge(&self, who: &Who, facts: &Facts) -> Judged {
        let key = self.verdict_key(who);
        if let Some(entry) = self.facts.borrow_mut().get(facts.fingerprint)
            && let Some(judged) = entry.verdict(key)
        {
            return judged;
        }
        let verdict = routing::verdict(facts, who.known.get().as_deref(), &self.policy.borrow());
        if verdict.needs_catalog && who.known.want() {
            (self.global.want_catalog)(&who.known);
        }
        let judged = Judged { verdict, standby_ok: verdict.class != Class::Primary };
        if let Some(entry) = self.facts.borrow_mut().get(facts.fingerprint) {
            entry.set_verdict(key, judged);
        }
        judged
    }

    /// A standby refused it before, and the primary did not (SESSIONS R11).
    pub(super) fn refused_before(&self, who: &Who, fingerprint: Fingerprint) -> bool {
        let memory = self.memory.borrow();
        !memory.is_empty() && memory.refuses(who.number, fingerprint, now())
    }

    pub(super) fn remember(&self, who: &Who, fingerprint: Fingerprint, sqlstate: &str) {
        if Memory::is_worth(sqlstate) {
            self.memory.borrow_mut().remember(who.number, fingerprint, now());
        }
    }

    pub(super) fn wrote(&self, at: Instant) {
        let micros = at.saturating_duration_since(self.global.started).as_micros();
        self.global.wrote.fetch_max(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When anything was last written through this proxy.
    pub(super) fn last_write(&self) -> Instant {
        self.global.started + Duration::from_micros(self.global.wrote.load(Ordering::Relaxed))
    }

    pub(super) fn report(&self, node: NodeId, trouble: Trouble) {
        let epoch = self.global.cluster.view().epoch;
        (self.global.report)(FailoverRequest { node, trouble, epoch });
    }

    pub(super) fn waited(&self, time: Duration) {
        self.counters.waits.add(1);
        self.counters.waited_us.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds a session to those that can be reached.
    pub(super) fn enter(&self, id: u64, control: Rc<Control>) {
        self.sessions.borrow_mut().insert(id, control);
    }

    pub(super) fn leave(&self, id: u64) {
        self.sessions.borrow_mut().remove(&id);
    }

    /// Cancels what a session is doing.
    pub fn cancel(&self, id: u64) {
        if let Some(control) = self.sessions.borrow().get(&id) {
            control.cancel();
        }
    }

    /// Cancels what a session is doing, or ends it; false if there is none of that number.
    pub fn act_on(&self, id: u64, end: bool) -> bool {
        let sessions = self.sessions.borrow();
        let Some(control) = sessions.get(&id) else { return false };
        if end {
            control.stop(Stop::Now)
        } else {
            control.cancel()
        }
        true
    }

    /// Tells every session to end.
    pub fn stop(&self, stop: Stop) {
        for control in self.sessions.borrow().values() {
            control.stop(stop);
        }
    }

    /// Sessions on this thread.
    pub fn sessions(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// The sentence of a reason, for people.
    pub(super) fn sentence(reason: Reason) -> &'static str {
        reason.sentence()
    }
}
