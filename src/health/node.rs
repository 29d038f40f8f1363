//! The task of one node: its persistent monitor connection, its probes, its samples. Owner: `runner`, which starts it and
//! ends it by dropping its command channel. It reports and never judges.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::engine::Event;
use super::reading::{Failure, PROBE_SQL, Reading, Row, SAMPLE_SQL, Weight, sample_from_row};
use crate::cluster::{Epoch, History, Lsn, NodeId, Role, Sample, Shared, Timeline};
use crate::support::clock;

/// Pace of the sampler while anyone waits for a sample (SESSIONS R7).
pub const SAMPLE_PERIOD: Duration = Duration::from_millis(100);

/// A sample without an answer for so long gives the connection up, and the node is probed. Well below a probe's timeout, because a probe
/// that falls due meanwhile has to wait for it.
pub const SAMPLE_DEADLINE: Duration = Duration::from_millis(500);

/// For asking where a timeline comes from, behind a probe that has answered. It comes once in a timeline, and a new primary is not known
/// before it has come; well below the time after which a probe is late (HA H1).
const HISTORY_DEADLINE: Duration = Duration::from_millis(200);

/// A server that took too long over it is asked again after so many probes; one that refuses, and writes that into its log, after so many.
const HISTORY_LATE: u32 = 10;
const HISTORY_REFUSED: u32 = 600;

/// Standbys are asked so much later than the primary in each round, so that most writes are found replayed in the same round.
const STANDBY_DELAY: Duration = Duration::from_millis(15);

/// Why a connection or a query of ours failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeError {
    /// What it says about the node.
    pub failure: Failure,
    /// For the log.
    pub detail: String,
}

/// A logged-in connection of the monitor role.
pub trait ProbeClient {
    /// Runs one query by simple protocol and returns its rows as text. Not cancel safe: who drops the future drops the client.
    ///
    /// # Errors
    /// What the server said, or what became of the connection. The client must not be used after an error.
    fn query(&mut self, sql: &str) -> impl Future<Output = Result<Vec<Row>, ProbeError>>;

    /// Waits until the server ends the idle connection. Cancel safe.
    fn closed(&mut self) -> impl Future<Output = ()>;
}

/// Makes connections of the monitor role. The caller sets the deadline and drops the future when it has passed.
pub trait Connector {
    /// What it makes.
    type Client: ProbeClient;

    /// Dials and logs in; `database` is the monitor's own if `None`.
    ///
    /// # Errors
    /// How it failed.
    fn connect(&self, node: NodeId, database: Option<&str>) -> impl Future<Output = Result<Self::Client, ProbeError>>;

    /// Where a timeline comes from, as this node knows it (HA H6).
    ///
    /// # Errors
    /// How it failed; the role may lack REPLICATION.
    fn history(&self, node: NodeId, timeline: Timeline) -> impl Future<Output = Result<History, ProbeError>>;
}

impl<C: Connector> Connector for Rc<C> {
    type Client = C::Client;

    fn connect(&self, node: NodeId, database: Option<&str>) -> impl Future<Output = Result<Self::Client, ProbeError>> {
        (**self).connect(node, database)
    }

    fn history(&self, node: NodeId, timeline: Timeline) -> impl Future<Output = Result<History, ProbeError>> {
        (**self).history(node, timeline)
    }
}

/// How far an attempt has come: tells a frozen server from one that cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Asking,
}

/// See the head of the file.
pub(super) struct NodeTask<C: Connector> {
    pub(super) id: NodeId,
    pub(super) connector: Rc<C>,
    pub(super) shared: Arc<Shared>,
    /// Of a whole probe.
    pub(super) deadline: Duration,
    /// One message per probe; true asks for a new connection.
    pub(super) commands: mpsc::Receiver<bool>,
    /// To the runner.
    pub(super) events: mpsc::Sender<Event>,
    pub(super) client: Option<C::Client>,
    /// Of the timeline that the server was last seen on.
    pub(super) origin: Origin,
    /// How the last new connection was refused, while the one before goes on answering.
    pub(super) refused: Option<Failure>,
}

/// The history of one timeline, or when to ask for it again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Origin {
    #[default]
    Unknown,
    Known(Arc<History>),
    /// The server did not tell; not before so many probes.
    Untold(Timeline, u32),
}

impl<C: Connector> NodeTask<C> {
    /// Until the runner drops the other end of the commands.
    pub(super) async fn run(mut self) {
        let mut rounds = interval(SAMPLE_PERIOD);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let event = tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(fresh) => Some(self.probe(fresh).await),
                    None => return,
                },
                () = closed(&mut self.client) => Some(self.lost()),
                _ = rounds.tick() => self.round().await,
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return;
            }
        }
    }

    /// Forgets the connection and what was sampled through it: the server may have been restarted behind it.
    fn lost(&mut self) -> Event {
        self.client = None;
        // It may have been rebuilt: the same number may be another branch.
        self.origin = Origin::Unknown;
        self.shared.samples.void(self.id);
        Event::Lost(self.id)
    }

    async fn probe(&mut self, fresh: bool) -> Event {
        let mut stage = Stage::Connecting;
        let epoch = self.shared.view().epoch;
        let outcome = timeout(self.deadline, self.attempt(fresh, &mut stage)).await;
        let error = match outcome {
            Ok(Ok((asked, mut reading))) => {
                self.store(asked, epoch, reading.role, reading.lsn);
                reading.history = self.history(reading.timeline).await;
                reading.refused = self.refused;
                return Event::Answered { node: self.id, asked, reading };
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let failure = if stage == Stage::Asking { Failure::Frozen } else { Failure::TimedOut };
                ProbeError { failure, detail: format!("no answer within {:?}", self.deadline) }
            }
        };
        tracing::debug!(node = self.id.0, failure = error.failure.as_str(), detail = error.detail, "probe failed");
        if error.failure.weight() != Weight::Alive {
            self.lost();
        }
        Event::Failed { node: self.id, failure: error.failure }
    }

    /// Asks where a timeline comes from, once: it does not change.
    async fn history(&mut self, timeline: Timeline) -> Option<Arc<History>> {
        match &mut self.origin {
            // Nothing is received now: it is where it was.
            Origin::Known(history) if [Timeline(0), history.timeline()].contains(&timeline) => {
                return Some(history.clone());
            }
            _ if timeline == Timeline(0) => return None,
            Origin::Untold(untold, left) if *untold == timeline && *left > 0 => {
                *left -= 1;
                return None;
            }
            _ => {}
        }
        let first = timeline == Timeline(1);
        let asked = async {
            if first { Ok(History::new(timeline, Vec::new())) } else { self.connector.history(self.id, timeline).await }
        };
        self.origin = match timeout(HISTORY_DEADLINE, asked).await {
            Ok(Ok(history)) => Origin::Known(Arc::new(history)),
            failed => {
                tracing::debug!(node = self.id.0, timeline = timeline.0, ?failed, "its history is not told");
                Origin::Untold(timeline, if failed.is_ok() { HISTORY_REFUSED } else { HISTORY_LATE })
            }
        };
        if let Origin::Known(history) = &self.origin { Some(history.clone()) } else { None }
    }

    /// One probe without its deadline. While it runs `self.client` is empty, so that giving it up drops the connection.
    async fn attempt(&mut self, fresh: bool, stage: &mut Stage) -> Result<(Instant, Reading), ProbeError> {
        let mut kept = self.client.take();
        if let Some(mut client) = kept.take_if(|_| !fresh) {
            *stage = Stage::Asking;
            match ask(&mut client).await {
                Ok(answer) => {
                    self.client = Some(client);
                    return Ok(answer);
                }
                // One connection's end says nothing about the server: `pg_terminate_backend` does it too.
                Err(error) if error.failure == Failure::Lost => drop(self.lost()),
                Err(error) => return Err(error),
            }
        }
        *stage = Stage::Connecting;
        self.refused = None;
        let mut client = match (self.connector.connect(self.id, None).await, kept) {
            (Ok(client), _) => client,
            (Err(error), Some(kept)) if error.failure.weight() == Weight::Alive => {
                self.refused = Some(error.failure);
                kept
            }
            (Err(error), _) => return Err(error),
        };
        *stage = Stage::Asking;
        let answer = ask(&mut client).await?;
        self.client = Some(client);
        Ok(answer)
    }

    /// One round of the sampler, if anyone waits for it. Without a connection the probes make one first.
    async fn round(&mut self) -> Option<Event> {
        if self.client.is_none() || !self.shared.samples.wanted(clock::now()) {
            return None;
        }
        let (epoch, primary) = {
            let view = self.shared.view();
            (view.epoch, view.primary)
        };
        if primary != Some(self.id) {
            sleep(STANDBY_DELAY).await;
        }
        let mut client = self.client.take()?;
        let asked = clock::now();
        let rows = match timeout(SAMPLE_DEADLINE, client.query(SAMPLE_SQL)).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(_)) | Err(_) => return Some(self.lost()),
        };
        let Some((role, lsn)) = rows.first().and_then(sample_from_row) else { return Some(self.lost()) };
        self.client = Some(client);
        self.store(asked, epoch, role, lsn);
        None
    }

    /// Publishes a sample if it was asked and answered in the same epoch and by a server in the role that the view gives it.
    fn store(&self, asked: Instant, epoch: Epoch, role: Role, lsn: Lsn) {
        let view = self.shared.view();
        let expected = if view.primary == Some(self.id) { Role::Primary } else { Role::Standby };
        if view.primary.is_none() || view.epoch != epoch || role != expected {
            self.shared.samples.void(self.id);
        } else {
            self.shared.samples.store(self.id, Sample { asked, lsn, epoch });
        }
    }
}

async fn ask(client: &mut impl ProbeClient) -> Result<(Instant, Reading), ProbeError> {
    let asked = clock::now();
    let rows = client.query(&PROBE_SQL).await?;
    let reading = rows.first().and_then(Reading::from_row);
    let reading = reading.ok_or_else(|| ProbeError {
        failure: Failure::BadAnswer,
        detail: format!("unexpected row {:?}", rows.first()),
    })?;
    Ok((asked, reading))
}

async fn closed(client: &mut Option<impl ProbeClient>) {
    match client {
        Some(client) => client.closed().await,
        None => std::future::pending().await,
    }
}
