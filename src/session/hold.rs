//! Statements that need the primary while none may take them: they wait for the view to change, bounded in time and in number (DESIGN §4,
//! HA H14). Must not decide whether there is a primary: `failover` does, and the view says so.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;

use tokio::sync::watch;

use crate::backend::{Lost, Server};
use crate::cluster::{Hold, NodeId, Writes};
use crate::support::clock::{Duration, Instant, boot_nanos, now};
use crate::wire::{TxStatus, front, sqlstate};

use super::lease::{Leased, NoLease};
use super::local::Refusal;
use super::pause;
use super::shown::Doing;
use super::survey::Survey;
use super::{Context, End, Session};

/// How often a primary that is said to be up and cannot be reached is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// `[failover]`, as far as it concerns statements that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldLimits {
    /// Longest wait of one statement.
    pub timeout: Duration,
    /// Most that wait at a time, over all threads.
    pub most: u32,
    /// Bytes that their buffers may take together.
    pub memory: u64,
}

/// What all sessions share of it.
#[derive(Debug)]
pub struct Held {
    waiting: AtomicU32,
    memory: AtomicU64,
    generation: watch::Receiver<u64>,
}

impl Held {
    /// Nobody waits; `generation` changes with the view.
    pub fn new(generation: watch::Receiver<u64>) -> Self {
        Self { waiting: AtomicU32::new(0), memory: AtomicU64::new(0), generation }
    }

    /// Statements that wait now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes that their buffers take.
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// One more waits, whose buffer takes so much; the limit that does not let it, if there is one.
    fn enter(&self, limits: HoldLimits, size: u64) -> Result<(), &'static str> {
        let more = |waiting: u32| (waiting < limits.most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| "max_held")?;
        let more = |memory: u64| memory.checked_add(size).filter(|memory| *memory <= limits.memory);
        let fits = self.memory.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        fits.map(drop).map_err(|_| {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            "max_held_memory"
        })
    }

    fn leave(&self, size: u64) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.memory.fetch_sub(size, Ordering::AcqRel);
    }
}

/// A place among those that wait, for the whole of a wait, and what its buffer takes.
pub(super) struct Place(Rc<Context>, u64);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.global.held.leave(self.1);
    }
}

/// Where a statement that needs the primary goes now.
pub(super) enum Way {
    /// To this node.
    To(NodeId),
    /// Nowhere before the view changes, and why.
    Held(&'static str),
    /// Nowhere.
    Refused(&'static str),
}

/// Why a statement cannot go on, and until when it waits for that.
pub(super) struct Wait {
    pub(super) why: String,
    pub(super) until: Instant,
    /// Only the view can change it; otherwise it is tried again by time.
    pub(super) held: bool,
}

impl Session {
    /// Where a statement that needs the primary goes now.
    pub(super) fn way(&self) -> Way {
        if self.context.global.pause.is_on() {
            return Way::Held(pause::WHY);
        }
        let view = self.context.cluster().view();
        if !self.context.cluster().lease.may_begin(view.epoch, boot_nanos) && view.writes.open() {
            return Way::Held(Hold::Partners.as_str());
        }
        match (view.writes, view.primary) {
            (Writes::Refused { why }, _) => Way::Refused(why),
            (Writes::Open, Some(node)) => Way::To(node),
            (Writes::Open, None) => Way::Held("no primary is known"),
            (writes @ Writes::Held { .. }, _) => Way::Held(writes.text()),
        }
    }

    /// A connection to the primary that was opened under an older epoch begins nothing.
    pub(super) fn is_outdated(&self, server: &Server) -> bool {
        let view = self.context.cluster().view();
        view.primary != Some(server.identity.node) || server.identity.epoch != view.epoch
    }

    /// Waits once: for another view, or for a moment.
    ///
    /// # Errors
    /// The time is over, too many wait, the client is gone, cancelled, or pgherd stops.
    pub(super) async fn hold(&mut self, wait: &Wait, place: &mut Option<Place>) -> Result<(), NoLease> {
        let context = self.context.clone();
        let Some(left) = wait.until.checked_duration_since(now()).filter(|left| !left.is_zero()) else {
            return Err(NoLease::Unreachable(wait.why.clone()));
        };
        if !wait.held {
            return self.pause(left.min(RETRY), None).await;
        }
        let held = &context.global.held;
        if place.is_none() {
            context.hub.buffers.tuck(&mut self.client.input);
            let size = self.client.input.capacity() as u64;
            if let Err(limit) = held.enter(context.hold_limits(), size) {
                let text = format!("{}; as many statements as failover.{limit} allows wait for it already", wait.why);
                return Err(NoLease::Refused(Refusal::new(sqlstate::CANNOT_CONNECT_NOW, text)));
            }
            *place = Some(Place(context.clone(), size));
            context.counters.held.add(1);
        }
        let (mut view, resumed) = (held.generation.clone(), context.global.pause.watch());
        // What has changed since the caller looked is found here, and what changes from here on wakes it.
        view.mark_unchanged();
        if !matches!(self.way(), Way::Held(_)) {
            return Ok(());
        }
        self.pause(left.min(Duration::from_secs(1)), Some((view, resumed))).await
    }

    /// Waits for so long or, if given, for another view or the end of a pause; ends early if the client leaves or something is asked of the
    /// session.
    async fn pause(
        &mut self,
        time: Duration,
        change: Option<(watch::Receiver<u64>, watch::Receiver<()>)>,
    ) -> Result<(), NoLease> {
        self.show(Doing::Waiting);
        let mut timer = std::pin::pin!(tokio::time::sleep(time));
        let mut change = std::pin::pin!(async {
            match change {
                Some((mut view, mut resumed)) => tokio::select! {
                    _ = view.changed() => {}
                    _ = resumed.changed() => {}
                },
                None => std::future::pending().await,
            }
        });
        let waited = std::future::poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll_interruption(cx) {
                return Poll::Ready(Err(end));
            }
            if change.as_mut().poll(cx).is_ready() || self.keeps_fenced() {
                return Poll::Ready(Ok(()));
            }
            timer.as_mut().poll(cx).map(Ok)
        })
        .await;
        self.show(Doing::Active);
        // With a full input nobody has looked for the client's end: it has sent ahead.
        if waited.is_ok() && self.client.input.is_full() && self.client.stream.has_left() {
            return Err(NoLease::Gone);
        }
        waited
    }

    /// Waits until an operator's pause is over; false if the request was refused.
    pub(super) async fn sit_out(&mut self, survey: &Survey) -> Result<bool, End> {
        let mut place = None;
        while self.context.global.pause.is_on() {
            let until = self.held_from() + self.context.hold_limits().timeout;
            let refusal = match self.hold(&Wait { why: pause::WHY.to_owned(), until, held: true }, &mut place).await {
                Ok(()) => continue,
                Err(NoLease::Gone) => return Err(End::Client),
                Err(NoLease::Refused(refusal)) => refusal,
                Err(NoLease::Unreachable(text)) => Refusal::new(sqlstate::CANNOT_CONNECT_NOW, text),
            };
            self.refuse(survey, &refusal);
            return Ok(false);
        }
        self.held_since = None;
        Ok(true)
    }

    /// What a kept connection is about to be sent belongs to a transaction under way, or may begin.
    pub(super) fn goes_on(&self, lease: &Leased) -> bool {
        let under_way = lease.server.status != TxStatus::Idle || !lease.server.expected.is_empty();
        under_way || (matches!(self.way(), Way::To(_)) && !self.is_outdated(&lease.server))
    }

    /// When the time of the request at the front of the input began to run: with its own wait, or with that of one before it, if it was
    /// sent without waiting for that one's answer.
    pub(super) fn held_from(&mut self) -> Instant {
        *self.held_since.get_or_insert_with(now)
    }

    /// A kept connection at rest is of no use any more: what a new one cannot be given ends the session.
    fn begin_elsewhere(&mut self, lease: Leased) -> Result<Begin, End> {
        let stateful = lease.server.leftovers.dirty;
        let cut = lease.down.left > 0;
        self.lose(lease.server);
        let pin = self.pin.take().filter(|pin| pin.settled);
        match pin.is_some() || stateful {
            // Nothing else can be said in the middle of a message.
            _ if cut => Err(End::Client),
            true => Err(End::Fatal(self.state_gone(&Lost::Fenced, pin.as_deref().map(|pin| &*pin.reason)))),
            false => Ok(Begin::Elsewhere),
        }
    }

    /// A kept connection at rest is about to begin something: waits while writes are held.
    pub(super) async fn may_begin(&mut self, lease: Box<Leased>) -> Result<Begin, End> {
        // What a server passes over begins nothing, and is not answered.
        const IGNORED: [u8; 5] = [front::TERMINATE, front::FLUSH, front::COPY_DATA, front::COPY_DONE, front::COPY_FAIL];
        if self.client.header().map_err(End::Fault)?.is_some_and(|header| IGNORED.contains(&header.tag)) {
            return Ok(Begin::Now(lease));
        }
        let (mut lease, mut place) = (lease, None);
        loop {
            let why = match self.way() {
                _ if self.is_fenced(&lease) => return self.begin_elsewhere(*lease),
                Way::To(_) if !self.is_outdated(&lease.server) => {
                    self.held_since = None;
                    return Ok(Begin::Now(lease));
                }
                Way::To(_) => return self.begin_elsewhere(*lease),
                Way::Refused(why) => Err(NoLease::Refused(Refusal::new(sqlstate::CANNOT_CONNECT_NOW, why))),
                Way::Held(why) => {
                    let until = self.held_from() + self.context.hold_limits().timeout;
                    // It rests meanwhile, and must not keep a switch-over from going on.
                    self.control.rest(Some(lease.server.identity.node));
                    self.lease = Some(lease);
                    let held = self.hold(&Wait { why: why.to_owned(), until, held: true }, &mut place).await;
                    self.control.rest(None);
                    lease = self.lease.take().expect("a wait takes nothing");
                    held
                }
            };
            let refusal = match why {
                Ok(()) => continue,
                Err(NoLease::Gone) => {
                    self.lease = Some(lease);
                    return Err(End::Client);
                }
                Err(NoLease::Refused(refusal)) => refusal,
                Err(NoLease::Unreachable(text)) => Refusal::new(sqlstate::CANNOT_CONNECT_NOW, text),
            };
            let series = self.client.header().map_err(End::Fault)?.is_some_and(|header| header.tag != front::QUERY);
            let survey = self.survey().map_err(End::Fault)?.unwrap_or_else(|| Survey::unread(series));
            self.lease = Some(lease);
            self.refuse(&survey, &refusal);
            return Ok(Begin::Refused);
        }
    }
}

/// What becomes of a request for a kept connection.
pub(super) enum Begin {
    /// It goes there.
    Now(Box<Leased>),
    /// The connection was given up.
    Elsewhere,
    /// It was refused; the connection is kept.
    Refused,
}
