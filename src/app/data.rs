//! Data threads: each with a runtime of its own, its sessions and its pools, reached by mail alone. Must not decide about the
//! cluster.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use ring::hmac;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot, watch};

use crate::backend::{Hub, Mail, Times};
use crate::cluster::{Event, NodeId};
use crate::config::Settings;
use crate::net::{self, DetachedStream, Listener, PeerAddr};
use crate::routing::Policy;
use crate::session::login::LoginPolicy;
use crate::session::{Context, DescribeAll, Description, Global, SessionSettings, Stop};
use crate::sql::{Facts, Fingerprint};
use crate::support::clock::{self, Duration, now};
use crate::watchdog::runner::Stray;
use crate::watchdog::runner::settings::seat;
use crate::wire::CancelKey;

use super::Error;
use super::batches;
use super::hall::{Ears, Hall, Present};
use super::passthrough::Passing;
use super::servers::{self, Servers};

/// Messages that may wait for a thread; a sender that finds it full keeps what it has.
pub(super) const MAILBOX: usize = 4096;
/// Session numbers start where no process id can be (HA H25).
const FIRST_ID: u32 = 4_194_305;
/// Bytes of a secret: up to protocol 3.1, and from 3.2 on.
const SECRETS: [usize; 2] = [4, 32];
/// Cancel requests that go to partners in a second.
const MOST_PASSED: u64 = 100;
/// Refused cancel requests are told of this often.
const REMINDER: Duration = Duration::from_secs(60);
/// How often idle connections are looked through.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// How long sessions that are told to end at once may take over it.
const LAST_CALL: Duration = Duration::from_secs(2);
/// How long a thread may take to answer a question of an administrator or of another session.
pub(super) const ANSWERING: Duration = Duration::from_secs(5);
/// Turns of tasks after which a thread looks at its sockets again, though there is more to do.
const EVENTS: u32 = 61;
/// A thread may have one client more than another and this part of them, before it gives away those that it accepts.
const EVEN: usize = 32;
/// `max_clients` is watched by everybody together.
pub(super) type ClientCount = Arc<AtomicUsize>;

/// A message to a data thread.
pub(super) enum ThreadMail {
    /// A client has connected, on a thread that has more of them.
    Client(DetachedStream, PeerAddr, Present),
    /// From another thread's pools.
    Pool(Mail),
    /// Cancel what a session is doing.
    Cancel(u64),
    /// What the helper thread made of a long text.
    Facts(Fingerprint, Box<Facts>),
    /// Idle server connections end.
    Retire,
    /// A node is gone: idle connections to it are of no use.
    Forget(NodeId),
    /// What this thread decided under earlier views has been said or is asked again.
    Barrier(oneshot::Sender<()>),
    /// A primary is being replaced: nothing of this node may be used any more, and no later answer of it counts.
    Fence(NodeId, oneshot::Sender<()>),
    /// How many connections to this node are kept by sessions that have nothing under way there? Idle ones end.
    Resting(NodeId, oneshot::Sender<u32>),
    /// An operator cancels what a session does or, if true, ends it. Is there one of that number?
    Act(u64, bool, oneshot::Sender<bool>),
    /// Pools have retired connections.
    Reset(oneshot::Sender<()>),
    /// Somebody wants to see the sessions.
    Describe(oneshot::Sender<Vec<Description>>),
    /// Other settings hold.
    Reload(Box<(Policy, SessionSettings)>),
    /// Sessions are to end.
    Stop(Stop),
}

/// What all data threads are made with.
pub(super) struct Common {
    pub(super) global: Arc<Global>,
    pub(super) servers: Arc<Servers>,
    pub(super) door: ArcSwap<LoginPolicy>,
    pub(super) max_clients: AtomicUsize,
    pub(super) clients: ClientCount,
    pub(super) secrets: Secrets,
    pub(super) partners: Partners,
    pub(super) mail: Vec<mpsc::Sender<ThreadMail>>,
    /// Sessions and logins of each thread.
    pub(super) load: Vec<AtomicUsize>,
    pub(super) stopping: std::sync::atomic::AtomicBool,
}

/// Ways to and from partner proxies.
#[derive(Default)]
pub(super) struct Partners {
    /// Takes cancel requests for their sessions to them; unset: there are none.
    pub(super) strays: OnceLock<mpsc::Sender<Stray>>,
    /// Takes what they ask to whoever does it for administrators.
    pub(super) asked: OnceLock<mpsc::Sender<crate::pcp::Asked>>,
    /// When a refused cancel request was told of, by `clock::boot_nanos`; 0: never.
    told: AtomicU64,
    /// The present second in the upper half, and how many cancel requests went to partners in it.
    passed: AtomicU64,
}

impl Partners {
    /// May one more cancel request go to partners in this second? A flood must not reach the control thread.
    fn takes(&self, second: u64) -> bool {
        let next = |old: u64| match (old >> 32 == second, old & u64::from(u32::MAX)) {
            (true, count) if count >= MOST_PASSED => None,
            (true, _) => Some(old + 1),
            (false, _) => Some(second << 32 | 1),
        };
        self.passed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

impl Common {
    /// Posts to a thread without waiting.
    pub(super) fn post(&self, thread: usize, mail: ThreadMail) -> Result<(), ThreadMail> {
        self.mail[thread].try_send(mail).map_err(|error| match error {
            mpsc::error::TrySendError::Full(mail) | mpsc::error::TrySendError::Closed(mail) => mail,
        })
    }

    /// The thread with the fewest clients.
    pub(super) fn idlest(&self) -> usize {
        (0..self.load.len()).min_by_key(|&thread| self.load[thread].load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The thread for a client that `own` has accepted: itself, unless it has clearly more than the idlest. To pass one on costs the wake-up of
    /// that thread.
    pub(super) fn place(&self, own: usize) -> usize {
        let load = |thread: usize| self.load[thread].load(Ordering::Relaxed);
        let idlest = self.idlest();
        let least = load(idlest);
        if load(own) <= least + 1 + least / EVEN { own } else { idlest }
    }

    /// The thread on which a session of that number would live; none: it is no number of this proxy.
    pub(super) fn thread_of(&self, id: i32) -> Option<usize> {
        let secrets = &self.secrets;
        (secrets.owner(id)? == secrets.own).then(|| secrets.thread(id, self.mail.len()))?
    }

    /// The partner that has a session of that number; none: it is no number of a partner's.
    pub(super) fn other_of(&self, id: i32) -> Option<String> {
        let owner = self.secrets.owner(id).filter(|owner| *owner != self.secrets.own)?;
        let settings = self.global.settings.load();
        let watchdog = settings.watchdog.as_ref()?;
        let peers = watchdog.peers.iter().map(|peer| &peer.name);
        let mut names: Vec<&String> = peers.chain([&watchdog.name]).collect();
        names.sort();
        names.get(owner).map(|name| (*name).clone())
    }

    /// Takes a CancelRequest to the session that it names, if its secret is right; a partner's is passed on. False: it is refused.
    pub(super) fn cancel(&self, key: &CancelKey) -> bool {
        match self.secrets.owner(key.pid) {
            Some(own) if own == self.secrets.own => self.cancel_if(key.pid, &|secret| is_same(secret, &key.secret)),
            Some(owner) if SECRETS.contains(&key.secret.len()) => {
                let stray = Stray { owner, session: key.pid, secret: key.secret.clone() };
                let takes = self.partners.takes(clock::boot_nanos() / 1_000_000_000);
                self.partners.strays.get().is_some_and(|strays| takes && strays.try_send(stray).is_ok())
            }
            _ => false,
        }
    }

    /// Tells of refused cancel requests, once in a while: nobody has to log in to send one.
    pub(super) fn tell_refused_cancel(&self, peer: PeerAddr) {
        let (now, last) = (clock::boot_nanos(), self.partners.told.load(Ordering::Relaxed));
        let due = last == 0 || now.saturating_sub(last) >= u64::try_from(REMINDER.as_nanos()).unwrap_or(u64::MAX);
        let ours = || self.partners.told.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if due && ours() {
            let count = self.global.sum(|one| one.cancels_refused.get());
            let why = format!("a cancel request of {peer} names no session, or not its secret; {count} so far");
            self.global.cluster.events.record(Event::warn("cancel_refused", "pgherd").why(why));
        }
    }

    /// Cancels what that session of this proxy does, if one of its secrets is right.
    pub(super) fn cancel_if(&self, id: i32, is_right: &dyn Fn(&[u8]) -> bool) -> bool {
        let Some(thread) = self.thread_of(id) else { return false };
        let (secret, id) = (self.secrets.secret(id), u64::from(id.unsigned_abs()));
        if !SECRETS.iter().any(|length| is_right(&secret[..*length])) {
            return false;
        }
        // A full mailbox loses the request, as a lost packet would.
        let _ = self.post(thread, ThreadMail::Cancel(id));
        true
    }
}

/// In a time that does not tell how much of it is right.
fn is_same(secret: &[u8], given: &[u8]) -> bool {
    let differs = secret.iter().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b));
    secret.len() == given.len() && differs == 0
}

/// Numbers and secrets of sessions. A number tells the thread, and the proxy among its partners. A secret is a keyed hash of the number, so
/// nothing needs to be stored; the key is this process's own.
pub(super) struct Secrets {
    key: hmac::Key,
    next: AtomicU64,
    /// The place of this proxy among the members of its group in the order of their names, and how many there are.
    own: usize,
    members: usize,
}

impl Secrets {
    pub(super) fn new(settings: &Settings) -> Self {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("the system has random numbers");
        let (own, members) = settings.watchdog.as_ref().map_or((0, 1), seat);
        Self { key, next: AtomicU64::new(0), own, members }
    }

    /// A number for a session of `thread`, and its secret for that minor version of the protocol.
    pub(super) fn issue(&self, thread: usize, threads: usize, minor: u16) -> (i32, Vec<u8>) {
        let (threads, members) = (threads as u64, self.members as u64);
        let span = u64::from(i32::MAX.unsigned_abs() - FIRST_ID) / (threads * members);
        let count = self.next.fetch_add(1, Ordering::Relaxed) % span;
        let id = u64::from(FIRST_ID) + (count * threads + thread as u64) * members + self.own as u64;
        let id = i32::try_from(id).expect("the span ends below i32::MAX");
        let mut secret = self.secret(id);
        secret.truncate(SECRETS[usize::from(minor >= 2)]);
        (id, secret)
    }

    fn secret(&self, id: i32) -> Vec<u8> {
        hmac::sign(&self.key, &id.to_be_bytes()).as_ref().to_vec()
    }

    /// The member whose session has that number, if it is one of a session.
    fn owner(&self, id: i32) -> Option<usize> {
        let above = u32::try_from(id).ok()?.checked_sub(FIRST_ID)?;
        Some(above as usize % self.members)
    }

    fn thread(&self, id: i32, threads: usize) -> Option<usize> {
        let above = u32::try_from(id).ok()?.checked_sub(FIRST_ID)?;
        Some(above as usize / self.members % threads)
    }
}

/// Posts a question to every thread at once; then waits for all answers together, [`ANSWERING`] at the most. None in the place of a thread
/// whose mailbox is full, or that does not answer in time.
pub(super) fn ask_all<T: Send + 'static>(
    mail: &[mpsc::Sender<ThreadMail>],
    question: impl Fn(oneshot::Sender<T>) -> ThreadMail,
) -> impl Future<Output = Vec<Option<T>>> + Send + 'static {
    let ask = |mail: &mpsc::Sender<ThreadMail>| {
        let (sender, answer) = oneshot::channel();
        mail.try_send(question(sender)).ok().map(|()| answer)
    };
    let asked: Vec<_> = mail.iter().map(ask).collect();
    async move {
        let deadline = tokio::time::Instant::from_std(now() + ANSWERING);
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(match answer {
                Some(answer) => tokio::time::timeout_at(deadline, answer).await.ok().and_then(Result::ok),
                None => None,
            });
        }
        answers
    }
}

/// Asks every thread for its sessions and waits for all of them.
pub(super) fn describer(mail: Vec<mpsc::Sender<ThreadMail>>) -> DescribeAll {
    Box::new(move || {
        let asked = ask_all(&mail, ThreadMail::Describe);
        Box::pin(async move { asked.await.into_iter().collect::<Option<Vec<_>>>().map(|all| all.concat()) })
    })
}

/// What reaches a data thread.
pub(super) type Seat = (mpsc::Receiver<ThreadMail>, Ears);

/// The second ends all accepting when it is dropped.
pub(super) fn seats(
    inboxes: Vec<mpsc::Receiver<ThreadMail>>,
    listeners: Vec<Vec<Listener>>,
) -> (Vec<Seat>, watch::Sender<()>) {
    let (deaf, told) = watch::channel(());
    let ears = listeners.into_iter().map(|listeners| Ears { listeners, deaf: told.clone() });
    (inboxes.into_iter().zip(ears).collect(), deaf)
}

/// Starts all data threads.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(
    common: &Arc<Common>,
    settings: &Settings,
    policy: &Policy,
    seats: Vec<Seat>,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let times = Times { idle_timeout: settings.pool.idle_timeout, max_lifetime: settings.pool.max_lifetime };
    let mut handles = Vec::new();
    for (thread, (inbox, ears)) in seats.into_iter().enumerate() {
        let common = common.clone();
        let start = (policy.clone(), super::session_settings(settings), times);
        let handle = std::thread::Builder::new()
            .name(format!("data {thread}"))
            .spawn(move || run(thread, &common, inbox, ears, start))
            .map_err(Error::Start)?;
        handles.push(handle);
    }
    Ok(handles)
}

/// Runs one data thread to its end: all mail senders gone, or stopped and empty.
fn run(
    thread: usize,
    common: &Arc<Common>,
    inbox: mpsc::Receiver<ThreadMail>,
    ears: Ears,
    start: (Policy, SessionSettings, Times),
) {
    // Its tasks are scheduled by the runtime itself; those of a LocalSet would be by a second scheduler inside of one of its tasks.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(EVENTS)
        .build_local(LocalOptions::default())
        .expect("the system gives a runtime its descriptors");
    runtime.block_on(async {
        let context = context(thread, common, start);
        let common = common.clone();
        // A task of its own: what is awaited here is polled with every turn of every session.
        let _ = tokio::task::spawn_local(async move { serve(&context, &common, inbox, ears).await }).await;
    });
    // Not waited for: a name that is being looked up, or a key that is being derived, may take longer than anybody's patience.
    runtime.shutdown_background();
}

fn context(
    thread: usize,
    common: &Arc<Common>,
    (policy, settings, times): (Policy, SessionSettings, Times),
) -> Rc<Context> {
    let interner = Rc::default();
    let open = servers::opener(common.servers.clone(), Rc::clone(&interner));
    let poster = common.clone();
    let post = Box::new(move |to: usize, mail: Mail| match poster.post(to, ThreadMail::Pool(mail)) {
        Ok(()) => Ok(()),
        Err(ThreadMail::Pool(mail)) => Err(mail),
        Err(_) => unreachable!("what could not be posted comes back"),
    });
    let registry = common.global.registry.clone();
    let hub = Hub::new(thread, registry, times, interner, open, post);
    Context::new(hub, common.global.clone(), policy, settings)
}

async fn serve(context: &Rc<Context>, common: &Arc<Common>, mut inbox: mpsc::Receiver<ThreadMail>, ears: Ears) {
    let passing = Rc::new(Passing::default());
    let hall = Hall { context: context.clone(), common: common.clone(), passing: passing.clone() };
    ears.listen(&hall);
    if common.global.settings.load().listen.io_uring {
        batches::send(context);
    }
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopping = false;
    let mut last_call = None;
    loop {
        tokio::select! {
            mail = inbox.recv() => match mail {
                Some(ThreadMail::Stop(stop)) => {
                    stopping = true;
                    if stop == Stop::Now {
                        last_call = last_call.or_else(|| Some(now() + LAST_CALL));
                    }
                    context.stop(stop);
                    passing.stop();
                }
                Some(ThreadMail::Client(stream, peer, present)) => hall.arrive(stream, peer, present),
                Some(mail) => receive(context, common, &passing, mail),
                None => return,
            },
            _ = housekeeping.tick() => {
                context.hub.housekeeping();
                context.end_idle();
            }
        }
        if last_call.is_some_and(|at| now() > at) {
            tracing::warn!(sessions = context.sessions(), "sessions that would not end are cut off");
            return;
        }
        if stopping && context.sessions() + passing.count() == 0 {
            // Reapers and farewells under way get a moment.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return;
        }
    }
}

fn receive(context: &Rc<Context>, common: &Arc<Common>, passing: &Rc<Passing>, mail: ThreadMail) {
    match mail {
        ThreadMail::Pool(mail) => context.hub.receive(mail),
        ThreadMail::Cancel(id) => {
            if !passing.cancel(id, &common.servers) {
                context.cancel(id);
            }
        }
        ThreadMail::Facts(fingerprint, facts) => context.learn(fingerprint, Rc::from(facts)),
        ThreadMail::Retire => {
            context.hub.retire();
            context.forget_greetings();
        }
        ThreadMail::Forget(node) => context.forget(node),
        // Who asked may have given up.
        ThreadMail::Barrier(passed) => {
            net::send_all();
            let _ = passed.send(());
        }
        ThreadMail::Fence(node, done) => {
            net::send_all();
            context.fence(node);
            let _ = done.send(());
        }
        ThreadMail::Resting(node, asked) => drop(asked.send(context.resting(node))),
        ThreadMail::Act(id, end, asked) => {
            // A client that replicates has no session: it can be cancelled.
            let found = context.act_on(id, end) || !end && passing.cancel(id, &common.servers);
            let _ = asked.send(found);
        }
        ThreadMail::Reset(done) => {
            context.hub.housekeeping();
            context.forget_greetings();
            let _ = done.send(());
        }
        ThreadMail::Describe(asked) => drop(asked.send(context.describe())),
        ThreadMail::Reload(settings) => context.reload(settings.0, settings.1),
        ThreadMail::Client(..) | ThreadMail::Stop(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn secrets(own: usize, members: usize) -> Secrets {
        let settings =
            Settings::parse("[[node]]\nid = 0\nhost = \"a\"\n", Path::new("/etc/pgherd.toml")).expect("good");
        Secrets { own, members, ..Secrets::new(&settings) }
    }

    #[test]
    fn h25_a_number_is_nobodys_pid_and_tells_its_proxy_and_its_thread() {
        for (members, threads) in [(1, 1), (2, 4), (3, 2), (15, 64)] {
            for own in 0..members {
                let secrets = secrets(own, members);
                for start in [0, u64::from(u32::MAX) * 3 + 1, u64::from(i32::MAX.unsigned_abs()) - 1] {
                    secrets.next.store(start, Ordering::Relaxed);
                    for thread in 0..threads {
                        let (id, secret) = secrets.issue(thread, threads, 0);
                        assert!(id > 4_194_304);
                        assert_eq!((secrets.owner(id), secrets.thread(id, threads)), (Some(own), Some(thread)));
                        assert_eq!((secret.len(), secrets.issue(thread, threads, 2).1.len()), (4, 32));
                    }
                }
            }
        }
        for no in [0, -1, i32::MIN, 4_194_304] {
            assert_eq!(secrets(0, 3).owner(no), None, "{no}");
        }
    }

    #[test]
    fn a_flood_of_cancels_ends_at_the_door() {
        let partners = Partners::default();
        let passed = |second| (0..1_000).filter(|_| partners.takes(second)).count() as u64;
        assert_eq!([passed(7), passed(7), passed(8), passed(1_000)], [MOST_PASSED, 0, MOST_PASSED, MOST_PASSED]);
    }

    #[test]
    fn a_part_of_a_secret_is_none() {
        assert!(is_same(b"four", b"four"));
        for wrong in [&b""[..], b"fou", b"fourx", b"fouR"] {
            assert!(!is_same(b"four", wrong), "{wrong:?}");
        }
    }
}
