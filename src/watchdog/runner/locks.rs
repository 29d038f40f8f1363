//! Advisory locks on the servers, one session each, which end by themselves when they are idle (HA H16). One task per node. Must not count.
//!
//! *How idle the holder before was* is claimed only if this session has watched it go: its session was idle, and disappeared when
//! `idle_session_timeout` was due, within [`WINDOW`]. Everything else counts as not idle at all.

use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::hands::{Hands, Row};
use crate::cluster::NodeId;
use crate::support::clock::{Duration, Instant};
use crate::watchdog::engine::{Event, Locked};

/// Orders of one node that may wait; the engine has one attempt under way.
const ORDERS: usize = 4;
/// Between two looks at a session that is about to end.
const CLOSE_LOOK: Duration = Duration::from_millis(10);
/// So long before a session is due to end it is looked at closely.
const SOON: Duration = Duration::from_millis(400);
/// A session that ended so close to when it was due ended for that reason.
const WINDOW: Duration = Duration::from_millis(60);

/// What to do about the lock of one node.
#[derive(Debug)]
enum Order {
    /// Take or refresh it; asked for then.
    Lock(Instant),
    /// Give it back.
    Unlock,
}

/// The lock of one node.
#[derive(Debug)]
pub(super) struct Keeper(mpsc::Sender<Order>);

impl Keeper {
    /// Starts its task, which ends with it. Each attempt is told to `events`.
    pub(super) fn start<H: Hands + 'static>(
        job: Job<H>,
        tasks: &mut tokio::task::JoinSet<()>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (order, orders) = mpsc::channel(ORDERS);
        tasks.spawn_local(job.serve(orders, events));
        Self(order)
    }

    /// Takes or refreshes it. A full queue: the session hangs, and the engine asks again.
    pub(super) fn lock(&self, sent: Instant) {
        let _ = self.0.try_send(Order::Lock(sent));
    }

    /// Gives it back.
    pub(super) fn unlock(&self) {
        // If it is full the session ends with its timeout.
        let _ = self.0.try_send(Order::Unlock);
    }
}

/// What it works with.
pub(super) struct Job<H> {
    pub(super) hands: Rc<H>,
    pub(super) node: NodeId,
    /// The lock's number, the same for the whole group.
    pub(super) key: i64,
    /// `idle_session_timeout`.
    pub(super) session: Duration,
    /// For one attempt.
    pub(super) limit: Duration,
}

impl<H: Hands> Job<H> {
    async fn serve(self, mut orders: mpsc::Receiver<Order>, events: mpsc::Sender<Event>) {
        let (mut held, mut complained): (Option<(H::Session, bool)>, bool) = (None, false);
        let mut next = orders.recv().await;
        while let Some(order) = next {
            let Order::Lock(sent) = order else {
                held = None;
                next = orders.recv().await;
                continue;
            };
            let kept = held.take();
            let attempt = timeout(self.limit, self.attempt(kept));
            // Whoever gives it back does not wait for a server that hangs.
            let (done, order) = tokio::select! {
                done = attempt => (Some(done), None),
                order = orders.recv() => (None, Some(order)),
            };
            let locked = match done {
                Some(Ok(Ok((session, locked)))) => {
                    complained = false;
                    held = Some((session, matches!(locked, Locked::Mine | Locked::Obtained(_))));
                    locked
                }
                Some(Ok(Err(why))) => {
                    // Said once in a row: it is tried four times a second.
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(
                            event = "lock_failed",
                            node = self.node.0,
                            why,
                            "no lock can be had on this server"
                        );
                    }
                    Locked::Failed
                }
                Some(Err(_)) | None => Locked::Failed,
            };
            if events.send(Event::Lock { node: self.node, sent, locked }).await.is_err() {
                return;
            }
            next = match order {
                Some(order) => order,
                None => orders.recv().await,
            };
        }
    }

    /// The session, and what came of it.
    async fn attempt(&self, held: Option<(H::Session, bool)>) -> Result<(H::Session, Locked), String> {
        match held {
            Some((mut session, true)) => {
                self.hands.ask(&mut session, "SELECT 1").await?;
                Ok((session, Locked::Mine))
            }
            Some((session, false)) => self.take(session).await,
            None => {
                let mut session = self.hands.open(self.node).await?;
                let limit = self.session.as_millis();
                self.hands.ask(&mut session, &format!("SET idle_session_timeout = {limit}")).await?;
                self.take(session).await
            }
        }
    }

    async fn take(&self, mut session: H::Session) -> Result<(H::Session, Locked), String> {
        let mut idle = match self.look(&mut session).await? {
            (true, _) => return Ok((session, Locked::Obtained(Duration::ZERO))),
            (false, idle) => idle,
        };
        while idle.is_some_and(|idle| idle + SOON >= self.session && idle < self.session * 2) {
            sleep(CLOSE_LOOK).await;
            match self.look(&mut session).await? {
                (true, _) => {
                    let due = idle.filter(|idle| *idle + WINDOW >= self.session);
                    return Ok((session, Locked::Obtained(due.unwrap_or_default())));
                }
                (false, newer) => idle = newer,
            }
        }
        Ok((session, Locked::Busy))
    }

    /// Tries to take it, and says how long its holder has been idle, if it is.
    async fn look(&self, session: &mut H::Session) -> Result<(bool, Option<Duration>), String> {
        let (high, low) = (self.key >> 32, self.key & 0xFFFF_FFFF);
        let sql = format!(
            "SELECT pg_catalog.pg_try_advisory_lock({}), (SELECT CASE WHEN a.state = 'idle' THEN \
             (1000 * extract(epoch FROM pg_catalog.clock_timestamp() - a.state_change))::pg_catalog.int8 END \
             FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' \
             AND l.granted AND l.classid = {high} AND l.objid = {low} AND l.objsubid = 1 \
             AND l.pid <> pg_catalog.pg_backend_pid() AND l.database = a.datid LIMIT 1)",
            self.key
        );
        let rows = self.hands.ask(session, &sql).await?;
        let row: &Row = rows.first().ok_or("no answer")?;
        let text = |at: usize| row.get(at).and_then(Option::as_deref);
        let idle = text(1).and_then(|text| text.parse::<i64>().ok());
        Ok((text(0) == Some("t"), idle.map(|idle| Duration::from_millis(idle.max(0).unsigned_abs()))))
    }
}
