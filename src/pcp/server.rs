//! The administration port's connections: bytes in and out, deadlines, how many, who is locked out. Runs on the control thread. Must not
//! know what requests mean.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::engine::{State, Step};
use super::frame::{Frame, MOST_REQUEST, push, split};
use super::guests::Guests;
use super::house::House;
use super::lockout::{Lockout, Origin};
use super::own::{OWN, Own, PROGRESS};
use super::reply::{self, Severity};
use super::request::Request;
use super::{answer, group, ours};
use crate::cluster::Event;
use crate::net::{Listener, PeerAddr, Stream};
use crate::support::clock;

/// Administrators at a time; who has not logged in yet is counted by [`Guests`].
const MOST: usize = 32;
/// From accept to the end of the login.
const LOGIN: Duration = Duration::from_secs(10);
/// A connection that asks nothing for so long ends.
const IDLE: Duration = Duration::from_secs(600);
/// A client that does not read its answer for so long is given up.
const WRITE: Duration = Duration::from_secs(30);
/// Events that are told at a time.
const MOST_TOLD: usize = 100;
/// How often progress is looked for.
const TICK: Duration = Duration::from_millis(200);
/// After an accept that failed for want of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(50);

/// What it is made of.
pub struct Parts<H> {
    /// The rest of the process.
    pub house: Rc<H>,
    /// Where administrators come in.
    pub listeners: Vec<Listener>,
    /// What partner proxies ask.
    pub partners: mpsc::Receiver<group::Asked>,
}

/// What the connections share.
struct Desk<H> {
    house: Rc<H>,
    lockout: RefCell<Lockout>,
    guests: RefCell<Guests>,
    /// How those who have not logged in yet are told to give way.
    ways: RefCell<HashMap<u64, Rc<Notify>>>,
    open: Cell<usize>,
    random: ring::rand::SystemRandom,
}

/// Counts an administrator as long as the connection is there.
struct Place<'a, H>(&'a Desk<H>);

impl<'a, H> Place<'a, H> {
    fn take(desk: &'a Desk<H>) -> Option<Self> {
        (desk.open.get() < MOST).then(|| desk.open.set(desk.open.get() + 1)).map(|()| Self(desk))
    }
}

impl<H> Drop for Place<'_, H> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// A connection until it has logged in.
struct Guest<H> {
    desk: Rc<Desk<H>>,
    id: u64,
    give_way: Rc<Notify>,
}

impl<H> Guest<H> {
    /// Somebody else may have to give way.
    fn enter(desk: &Rc<Desk<H>>, origin: Origin) -> Self {
        let (entered, told) = {
            let mut guests = desk.guests.borrow_mut();
            (guests.enter(origin), guests.due(clock::now()))
        };
        if let Some(count) = told {
            tracing::warn!(count, "connections to the administration port gave way before their login");
        }
        let mut ways = desk.ways.borrow_mut();
        if let Some(way) = entered.instead_of.and_then(|id| ways.remove(&id)) {
            way.notify_one();
        }
        let give_way: Rc<Notify> = Rc::default();
        ways.insert(entered.id, give_way.clone());
        Self { desk: desk.clone(), id: entered.id, give_way }
    }
}

impl<H> Drop for Guest<H> {
    fn drop(&mut self) {
        self.desk.guests.borrow_mut().leave(self.id);
        self.desk.ways.borrow_mut().remove(&self.id);
    }
}

/// Serves until its future is dropped. Needs a `LocalSet`.
pub async fn serve<H: House + 'static>(parts: Parts<H>) {
    let desk = Rc::new(Desk {
        house: parts.house,
        lockout: RefCell::default(),
        guests: RefCell::default(),
        ways: RefCell::default(),
        open: Cell::new(0),
        random: ring::rand::SystemRandom::new(),
    });
    tokio::task::spawn_local(end_pauses(desk.clone()));
    tokio::task::spawn_local(group::serve(desk.house.clone(), parts.partners));
    let accepting: Vec<_> =
        parts.listeners.into_iter().map(|listener| tokio::task::spawn_local(accept(listener, desk.clone()))).collect();
    for task in accepting {
        let _ = task.await;
    }
}

/// A pause that nobody has ended ends when its time is over.
async fn end_pauses<H: House>(desk: Rc<Desk<H>>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let global = desk.house.global();
        let held = global.held.waiting();
        if global.pause.expire() {
            let why = format!("the pause is over; {held} have waited");
            global.cluster.events.record(Event::info("resumed", "pcp").why(why));
        }
    }
}

async fn accept<H: House + 'static>(listener: Listener, desk: Rc<Desk<H>>) {
    let address = listener.address();
    let acceptor = match listener.attend() {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, %address, "administrators cannot be accepted: start anew"),
    };
    loop {
        match acceptor.accept().await {
            Ok((stream, peer)) => {
                let origin = Origin::of(peer, stream.peer_uid());
                let guest = Guest::enter(&desk, origin);
                let line = Line { stream, input: Vec::new(), peer, origin };
                tokio::task::spawn_local(welcome(guest, line));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an administrator");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

/// One connection.
struct Line {
    stream: Stream,
    input: Vec<u8>,
    peer: PeerAddr,
    origin: Origin,
}

impl Line {
    /// The next message; none when the connection ends, or says what is none.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match split(&self.input, MOST_REQUEST) {
                Ok(Some((frame, used))) => {
                    self.input.drain(..used);
                    return Some(frame);
                }
                Ok(None) => {}
                Err(error) => {
                    self.send(&reply::error(Severity::Fatal, &error.to_string(), "")).await;
                    return None;
                }
            }
            let mut bytes = [0; 512];
            match self.stream.read(&mut bytes).await {
                Ok(count) if count > 0 => self.input.extend(&bytes[..count]),
                _ => return None,
            }
        }
    }

    /// Did the client take it in time?
    async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(WRITE, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }
}

async fn welcome<H: House>(guest: Guest<H>, mut line: Line) {
    let desk = guest.desk.clone();
    // Who does not say who it is in time, or gives way, is not told so: it may be a scanner that holds connections.
    let state = tokio::select! {
        () = guest.give_way.notified() => None,
        state = timeout(LOGIN, log_in(&desk, &mut line)) => state.ok().flatten(),
    };
    drop(guest);
    match (state, Place::take(&desk)) {
        (Some(state), Some(_place)) => talk(&desk, &mut line, state).await,
        (Some(_), None) => {
            let text = reply::error(Severity::Fatal, "too many administrators are connected", "");
            line.send(&text).await;
        }
        (None, _) => {}
    }
    let _ = timeout(WRITE, line.stream.shutdown()).await;
}

fn salt<H>(desk: &Desk<H>) -> Option<[u8; 4]> {
    use ring::rand::SecureRandom;
    let mut salt = [0; 4];
    desk.random.fill(&mut salt).ok().map(|()| salt)
}

/// The state after the login; none if there was none.
async fn log_in<H: House>(desk: &Desk<H>, line: &mut Line) -> Option<State> {
    let mut state = State::New;
    loop {
        let frame = line.next().await?;
        let wait = desk.lockout.borrow().wait(line.origin, clock::now());
        if let Some(wait) = wait {
            let detail = format!("try again in {} s", wait.as_secs() + 1);
            line.send(&reply::error(Severity::Fatal, "too many failed logins", &detail)).await;
            return None;
        }
        let step;
        (state, step) = state.step(&frame, &desk.house.admins(), salt(desk)?);
        match step {
            Step::Challenge(salt) => {
                let mut out = Vec::new();
                push(&mut out, b'm', &salt);
                line.send(&out).await.then_some(())?;
            }
            Step::Welcome => {
                desk.lockout.borrow_mut().succeeded(line.origin);
                let mut out = Vec::new();
                push(&mut out, b'r', b"AuthenticationOK\0");
                return line.send(&out).await.then_some(state);
            }
            Step::Reject { user } => {
                let locked = desk.lockout.borrow_mut().failed(line.origin, clock::now());
                reject(desk, line, &user, locked);
                let text = format!("authentication failed for user \"{user}\"");
                line.send(&reply::error(Severity::Fatal, &text, "username and/or password does not match")).await;
                return None;
            }
            Step::Abort(text, detail) => {
                line.send(&reply::error(Severity::Fatal, &text, &detail)).await;
                return None;
            }
            Step::Serve(_) | Step::Refuse(_) | Step::Close => return None,
        }
    }
}

fn reject<H: House>(desk: &Desk<H>, line: &Line, user: &str, locked: Option<Duration>) {
    let who = format!("pcp {}", line.peer);
    let event = match locked {
        None => Event::warn("pcp_login_failed", &who).why(format!("user {user:?}")),
        Some(time) => {
            let why = format!("user {user:?}; too many failed logins: locked out for {} s", time.as_secs());
            Event::warn("pcp_locked_out", &who).why(why)
        }
    };
    desk.house.global().cluster.events.record(event);
}

/// Serves requests, one after the other.
async fn talk<H: House>(desk: &Desk<H>, line: &mut Line, mut state: State) {
    let who = format!("pcp user {} at {}", state.user().unwrap_or_default(), line.peer);
    loop {
        let Ok(Some(frame)) = timeout(IDLE, line.next()).await else { return };
        let step;
        (state, step) = state.step(&frame, &desk.house.admins(), [0; 4]);
        let stops = match &step {
            Step::Serve(Request::Stop { mode, group } | Request::Own(Own::Stop { mode, group })) => {
                group::is_whole(&*desk.house, *group).is_ok().then_some(*mode)
            }
            _ => None,
        };
        let went_on = match step {
            Step::Serve(Request::Own(own)) => serve_own(desk, line, own, &who).await,
            Step::Serve(request) => {
                let answer = answer::answer(&*desk.house, request, &who).await;
                answer.is_empty() || line.send(&answer).await
            }
            Step::Refuse(text) => line.send(&reply::error(Severity::Error, &text, "")).await,
            Step::Abort(text, detail) => {
                line.send(&reply::error(Severity::Fatal, &text, &detail)).await;
                false
            }
            Step::Challenge(_) | Step::Welcome | Step::Reject { .. } | Step::Close => false,
        };
        // The client has its answer before the process can end.
        if let Some(mode) = stops.filter(|_| desk.house.may_stop().is_ok()) {
            desk.house.stop(mode, &who);
        }
        if !went_on {
            return;
        }
    }
}

/// Answers pgherd's own client; what happens during an order comes before the answer as progress.
async fn serve_own<H: House>(desk: &Desk<H>, line: &mut Line, own: Own, who: &str) -> bool {
    let house = &*desk.house;
    let is_order = own.is_order();
    let mut progress = Progress { told: house.global().cluster.events.last(), shown: ours::progress(house) };
    let mut answer = std::pin::pin!(ours::answer(house, own, who));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut answer => break result,
            _ = ticks.tick(), if is_order => {
                let out = progress.take(house);
                // A client that went away does not stop what it has begun.
                if !out.is_empty() && !line.send(&out).await {
                    let _ = answer.await;
                    return false;
                }
            }
        }
    };
    let mut out = if is_order { progress.take(house) } else { Vec::new() };
    match result {
        Ok(value) => push_json(&mut out, OWN, &value),
        Err(why) => out.extend(reply::error(Severity::Error, &why, "")),
    }
    line.send(&out).await
}

/// What a client has been told of what goes on.
struct Progress {
    /// The number of the last event.
    told: u64,
    shown: serde_json::Value,
}

impl Progress {
    /// What is new.
    fn take<H: House>(&mut self, house: &H) -> Vec<u8> {
        let mut out = Vec::new();
        for event in house.global().cluster.events.since(self.told, MOST_TOLD) {
            self.told = event.number;
            push_json(&mut out, PROGRESS, &serde_json::json!({ "event": ours::event_json(&event) }));
        }
        let now = ours::progress(house);
        if now != self.shown {
            push_json(&mut out, PROGRESS, &now);
            self.shown = now;
        }
        out
    }
}

fn push_json(out: &mut Vec<u8>, kind: u8, value: &serde_json::Value) {
    push(out, kind, value.to_string().as_bytes());
}
