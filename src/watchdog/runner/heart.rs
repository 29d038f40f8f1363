//! The loop: what comes in becomes an event, what the engine wants is done, in its order. Part of the runner; must not decide.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant as Sleep, sleep, sleep_until};

use super::super::engine::{
    Action, Address, Duty, Engine, Event, Kept, MemberId, Message, Settings, Shared, Standing, Ticket,
};
use super::super::links::{Came, Links, Via, failed_with};
use super::super::seal::{Opened, Refusal, Refusals, Seal};
use super::super::timings::Arbiter;
use super::super::trusted;
use super::super::word::Word;
use super::commands::Commands;
use super::partners::Desk;
use super::post::Post;
use super::sight::Sights;
use super::stops::Stops;
use super::wishes::Consents;
use super::{AGAIN, Body, Hands, Wish, carriers, locks, say, settings, vip};
use crate::cluster::{self, Accord, NodeId};
use crate::config::{VipOn, Watchdog};
use crate::support::clock::{self, Duration, Instant};

/// Events of tasks that may wait: each task has one or two under way.
const EVENTS: usize = 256;
/// Frames that are taken in a row before others have a turn: whoever floods the inbox delays nobody's wishes.
const ROW: u32 = 32;
/// How often, and how soon again, it is looked whether a process that has closed its connection has ended.
const ENDING: u32 = 40;
const LOOK: Duration = Duration::from_millis(25);
/// Between two pictures for people, unless something happens.
const PICTURE: Duration = Duration::from_millis(250);

/// Where a wish is answered.
type Answer = oneshot::Sender<Result<u64, String>>;

/// See the head of the file. Fields end in this order: the address goes before the links, by which partners learn of the end.
pub(super) struct Heart<H> {
    /// The address, then everything else that runs beside.
    pub(super) home: JoinSet<()>,
    pub(super) vip: Option<vip::Keeper>,
    pub(super) tasks: JoinSet<()>,
    pub(super) links: Rc<Links>,
    pub(super) inbox: mpsc::Receiver<Came>,
    pub(super) engine: Engine,
    pub(super) seal: Seal,
    pub(super) settings: Settings,
    pub(super) watchdog: Watchdog,
    pub(super) arbiter: Arbiter,
    pub(super) hands: Rc<H>,
    pub(super) shared: std::sync::Arc<cluster::Shared>,
    pub(super) accord: watch::Sender<Accord>,
    pub(super) post: Post,
    /// No interface that it needs has a carrier.
    pub(super) dark: watch::Receiver<bool>,
    pub(super) locks: BTreeMap<NodeId, locks::Keeper>,
    /// Whose process is behind a connection.
    pub(super) connections: HashMap<u64, (MemberId, u64)>,
    pub(super) order: watch::Sender<(u64, Kept)>,
    pub(super) persisted: mpsc::Receiver<u64>,
    pub(super) tell: mpsc::Sender<Event>,
    pub(super) told: mpsc::Receiver<Event>,
    pub(super) answers: HashMap<Ticket, Answer>,
    pub(super) tickets: u64,
    pub(super) leaving: Vec<oneshot::Sender<()>>,
    pub(super) begun: Instant,
    pub(super) standing: Standing,
    /// What was agreed on last.
    pub(super) share: Shared,
    pub(super) blind: std::collections::BTreeSet<NodeId>,
    /// What has begun on the primary may go on until then.
    pub(super) bound: Option<Instant>,
    /// What of it is to end.
    pub(super) stops: Rc<Stops>,
    /// Which of them are wanted.
    pub(super) consents: Consents,
    pub(super) holds_ip: bool,
    pub(super) said: HashMap<(String, String), Instant>,
    /// Why trusted servers could not be asked at all.
    pub(super) unasked: Rc<RefCell<Option<String>>>,
    /// What is not as it should be, by what it is about.
    pub(super) troubles: BTreeMap<&'static str, String>,
    pub(super) refusals: Refusals,
    pub(super) pictured: Instant,
    /// What is asked of partners, and by them.
    pub(super) desk: Desk,
    /// What is known of partners, for people.
    pub(super) sights: Sights,
}

impl<H: Hands + 'static> Heart<H> {
    /// Opens what it needs, trying again until it can listen; none: it was told to leave meanwhile.
    pub(super) async fn open(body: &mut Body<H>, kept: Kept) -> Option<Self> {
        let watchdog = body.config.watchdog.clone().expect("checked by app");
        let mut complained = false;
        let (links, inbox) = loop {
            let here = settings::here(&watchdog);
            match Links::open(&here, watchdog.heartbeat_port, settings::far(&watchdog)).await {
                Ok(opened) => break opened,
                Err(error) => {
                    let why = format!("cannot listen for partners on {}:{}: {error}", here.0, here.1);
                    if !std::mem::replace(&mut complained, true) {
                        body.shared.events.record(cluster::Event::error("watchdog_deaf", "watchdog").why(why));
                    }
                }
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                wish = body.wishes.recv() => match wish {
                    Some(Wish::Leave(left)) => {
                        let _ = left.send(());
                        return None;
                    }
                    None => return None,
                    Some(_) => {}
                }
            }
        };
        Some(Self::new(body, kept, (watchdog, links, inbox)))
    }

    fn new(body: &Body<H>, kept: Kept, (watchdog, links, inbox): (Watchdog, Links, mpsc::Receiver<Came>)) -> Self {
        let words = settings::settings(&body.config, &watchdog, body.duty);
        let (tell, told) = mpsc::channel(EVENTS);
        let (mut home, mut tasks) = (JoinSet::new(), JoinSet::new());
        let (hands, shared) = (body.hands.clone(), body.shared.clone());
        let vip = watchdog.virtual_ip.filter(|_| body.duty == Duty::Proxy).map(|address| {
            let commands = Commands::new(shared.clone(), body.section.subscribe());
            let (hands, shared, on) = (hands.clone(), shared.clone(), watchdog.vip_on.clone());
            let passing = Rc::default();
            let job = vip::Job { hands, shared, address, on, commands, passing, disk: body.disk.clone() };
            vip::Keeper::start(job, &mut home, tell.clone())
        });
        let (order, orders) = watch::channel((0, Kept::default()));
        let (done, persisted) = mpsc::channel(EVENTS);
        tasks.spawn_local(body.disk.clone().serve(orders, done, say::of_votes(shared.clone())));
        let dark = carriers::start(&watchdog, &mut tasks, (&shared, &tell));
        let incarnation = random();
        let seal = settings::seal(&watchdog, incarnation);
        let key = settings::lock_key(&words, &watchdog);
        let (session, limit) = (words.timings.session, words.timings.lease * 9 / 10);
        let keeper = |node: NodeId| {
            let job = locks::Job { hands: hands.clone(), node, key, session, limit };
            (node, locks::Keeper::start(job, &mut tasks, tell.clone()))
        };
        let locks = settings::locked(&words).into_iter().map(keeper).collect();
        let (share, now) = (kept.shared.clone(), clock::boot());
        let engine = Engine::new(words.clone(), kept, incarnation, now);
        Self {
            home,
            vip,
            tasks,
            links: Rc::new(links),
            inbox,
            standing: engine.standing(),
            engine,
            seal: seal.expect("checked by app"),
            settings: words,
            arbiter: settings::arbiter(&body.config, &watchdog),
            watchdog,
            hands,
            shared,
            accord: body.accord.clone(),
            post: body.post.clone(),
            dark,
            locks,
            connections: HashMap::new(),
            order,
            persisted,
            tell,
            told,
            answers: HashMap::new(),
            tickets: 0,
            leaving: Vec::new(),
            begun: now,
            share,
            blind: std::collections::BTreeSet::new(),
            bound: None,
            stops: Rc::default(),
            consents: Consents::new(*body.given_up.borrow()),
            holds_ip: false,
            said: HashMap::new(),
            unasked: Rc::default(),
            troubles: BTreeMap::new(),
            refusals: Refusals::default(),
            pictured: now,
            desk: Desk::new(incarnation),
            sights: Sights::default(),
        }
    }

    /// Runs until it has left in order.
    pub(super) async fn beat(mut self, body: &mut Body<H>) {
        let (mut wishing, mut reloading, mut seeing, mut straying, mut giving_up) = (true, true, true, true, true);
        let (mut event, mut row) = (self.sights(), 0);
        loop {
            #[cfg(debug_assertions)]
            body.disk.fail_if_asked("fail");
            let now = clock::boot();
            if self.step(event, now) {
                self.farewell().await;
                for left in self.leaving.drain(..) {
                    let _ = left.send(());
                }
                return;
            }
            let wakeup = Sleep::from_std(clock::now() + self.engine.wakeup(now).saturating_duration_since(now));
            let before = row;
            event = tokio::select! {
                biased;
                Some(came) = self.inbox.recv(), if row < ROW => {
                    row += 1;
                    self.came(came)
                }
                Some(number) = self.persisted.recv() => Event::Persisted(number),
                Some(event) = self.told.recv() => self.heed(event),
                // One that has failed takes the loop along: what it was there for would never be done.
                Some(ended) = self.home.join_next() => tick(ended),
                Some(ended) = self.tasks.join_next() => tick(ended),
                () = self.links.failed() => Event::Tick,
                wish = body.wishes.recv(), if wishing => {
                    wishing = wish.is_some();
                    wish.map_or(Event::Tick, |wish| self.wish(wish))
                }
                changed = body.given_up.changed(), if giving_up => {
                    giving_up = changed.is_ok();
                    let given_up = *body.given_up.borrow_and_update();
                    self.give_up(given_up)
                }
                Ok(()) = self.dark.changed() => Event::Dark(*self.dark.borrow_and_update()),
                changed = body.published.changed(), if seeing => {
                    seeing = changed.is_ok();
                    self.sights()
                }
                changed = body.reloads.changed(), if reloading => {
                    reloading = changed.is_ok();
                    self.reload(body)
                }
                Some((to, word)) = self.desk.said.recv() => {
                    self.say(to, word);
                    Event::Tick
                }
                stray = body.strays.recv(), if straying => {
                    straying = stray.is_some();
                    stray.into_iter().for_each(|stray| self.pass_cancel(&stray, now));
                    Event::Tick
                }
                () = sleep_until(wakeup) => Event::Tick,
                // Nobody else wants anything.
                () = std::future::ready(()), if row >= ROW => Event::Tick,
            };
            if row == before {
                row = 0;
            }
        }
    }

    /// Nothing is held any more; who takes over and the operator's programs are told.
    async fn farewell(&mut self) {
        let taken = self.engine.members(clock::boot()).iter().any(|member| member.state.is_some() && !member.left);
        if let Some(vip) = self.vip.as_ref().filter(|_| taken) {
            vip.farewell().await;
        }
        self.post.farewell().await;
    }

    /// One step; true: it has left.
    fn step(&mut self, event: Event, now: Instant) -> bool {
        let actions = self.engine.step(event, now);
        // Whatever leaves may be a promise that nothing is written any more: that is true before.
        for action in &actions {
            match action {
                Action::Standing(standing) => self.stand(*standing),
                Action::Share(share) => {
                    self.stops.agreed(share.epoch);
                    self.share = share.as_ref().clone();
                }
                Action::Quarantine(nodes) => self.quarantine(nodes.clone()),
                _ => {}
            }
        }
        let mut left = false;
        let told = actions.iter().any(|action| matches!(action, Action::Standing(_) | Action::Note(_)));
        for action in actions {
            left |= self.act(action, now);
        }
        self.agree();
        if told || now >= self.pictured + PICTURE {
            self.picture(now);
        }
        left
    }

    fn act(&mut self, action: Action, now: Instant) -> bool {
        match action {
            Action::Send(to, message) => self.send(to, Some(&message)),
            Action::Persist(number, kept) => drop(self.order.send_replace((number, *kept))),
            Action::Lock(node) => self.locks.get(&node).into_iter().for_each(|lock| lock.lock(now)),
            Action::Unlock(node) => {
                self.sights.unlocked(node, now);
                self.locks.get(&node).into_iter().for_each(locks::Keeper::unlock);
            }
            Action::Ping => self.ping(now),
            Action::Address(order) => self.order_address(order),
            Action::Stop(epoch) => self.stop_writing(epoch),
            Action::Reply(ticket, answer) => {
                // Who asked may have given up.
                self.answers.remove(&ticket).map(|asked| asked.send(answer));
            }
            Action::Note(note) => self.note(&note, now),
            Action::Left => return true,
            Action::Standing(_) | Action::Share(_) | Action::Quarantine(_) => {}
        }
        false
    }

    /// Sends to a member by every link; without a message, what makes it learn our session.
    fn send(&mut self, to: MemberId, message: Option<&Message>) {
        let text = match message.map_or(Ok(Vec::new()), Message::encode) {
            Ok(text) => text,
            Err(error) => return self.complain("message_too_large", error.to_string(), clock::boot()),
        };
        let Some((name, at)) = self.far(to) else { return };
        let now = clock::boot();
        if let Some(message) = message {
            self.sights.sent(to, message.number, now);
        }
        let since = now.saturating_duration_since(self.begun);
        self.links.send(at, || self.seal.seal(&name, &text, since));
    }

    pub(super) fn member(&self, name: &str) -> Option<MemberId> {
        let at = self.settings.members.iter().position(|member| member.name == name)?;
        u8::try_from(at).ok().map(MemberId)
    }

    fn came(&mut self, came: Came) -> Event {
        match came {
            Came::Frame(via, bytes) => self.frame(via, &bytes).unwrap_or(Event::Tick),
            Came::Ended { connection, orderly } => {
                let member = self.connections.remove(&connection);
                if let Some((member, incarnation)) = member.filter(|_| orderly) {
                    self.look_for_end(member, incarnation);
                }
                Event::Tick
            }
        }
    }

    fn frame(&mut self, via: Via, bytes: &[u8]) -> Option<Event> {
        let now = clock::boot();
        match self.seal.open(bytes, now.saturating_duration_since(self.begun)) {
            Ok(Opened::Text { from, session, text }) => {
                let from = self.member(from)?;
                self.sights.came(from, via, now);
                if let Via::Connection(connection) = via {
                    self.links.vouch(connection, usize::from(from.0));
                    self.connections.insert(connection, (from, session));
                }
                // Nothing but a sign that our session is known.
                if text.is_empty() {
                    return None;
                }
                if Word::is_one(text) {
                    let word = Word::decode(text);
                    self.hear_word(from, word, now);
                    return None;
                }
                match Message::decode(text) {
                    Ok(message) => {
                        self.sights.confirmed(from, message.heard);
                        Some(Event::Heard(from, Box::new(message)))
                    }
                    Err(error) => {
                        self.unreadable(from, &error.to_string(), now);
                        None
                    }
                }
            }
            Ok(Opened::Greeting { from }) => {
                let from = self.member(from)?;
                if let Via::Connection(connection) = via {
                    self.links.vouch(connection, usize::from(from.0));
                }
                self.send(from, None);
                None
            }
            Err(refusal) => {
                self.refusals = self.seal.refusals();
                let has_key = matches!(refusal, Refusal::Replayed | Refusal::Stale);
                if let Via::Connection(connection) = via
                    && !has_key
                {
                    self.links.end(connection);
                }
                let why = format!("a frame for the watchdog was refused: {refusal:?}; another key, or somebody else's");
                self.complain("frame_refused", why, now);
                None
            }
        }
    }

    /// Its connection was closed in order: has its process ended? On an interface its address is there until the kernel has ended it.
    fn look_for_end(&mut self, member: MemberId, incarnation: u64) {
        let dies_along = self.watchdog.virtual_ip.is_none() || self.watchdog.vip_on == VipOn::Tun;
        let rest = if dies_along { Duration::ZERO } else { self.settings.timings.clear() };
        let Some((_, at)) = self.far(member) else { return };
        let (links, tell) = (self.links.clone(), self.tell.clone());
        self.tasks.spawn_local(async move {
            if links.ends(at, (ENDING, LOOK)).await {
                sleep(rest).await;
                let asked = clock::boot();
                // Who has begun anew meanwhile says so itself.
                if links.refuses(at).await {
                    let _ = tell.send(Event::Gone { member, incarnation, asked }).await;
                }
            }
        });
    }

    fn ping(&mut self, now: Instant) {
        let (watchdog, tell, unasked) = (self.watchdog.clone(), self.tell.clone(), self.unasked.clone());
        let within = (self.settings.timings.lease / 5).min(Duration::from_secs(1));
        self.tasks.spawn_local(async move {
            let answered = trusted::one_answers(&watchdog, within).await;
            unasked.replace(answered.as_ref().err().cloned());
            let _ = tell.send(Event::Trusted { sent: now, answered: answered == Ok(true) }).await;
        });
    }

    fn order_address(&mut self, order: Address) {
        match &self.vip {
            Some(vip) => vip.order(order),
            None => tracing::error!("an order about an address that there is not"),
        }
    }
}

impl<H> Drop for Heart<H> {
    fn drop(&mut self) {
        // In the order of their ends: the address first.
        self.home.abort_all();
        self.tasks.abort_all();
    }
}

/// Of a task that has ended.
fn tick(ended: Result<(), JoinError>) -> Event {
    failed_with(ended);
    Event::Tick
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .expect("the system has random numbers");
    u64::from_be_bytes(bytes).max(1)
}
