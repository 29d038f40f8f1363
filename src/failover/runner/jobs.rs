//! The jobs that are about no single standby: barriers, consent, opinions, the journal, the old primary. Must not decide.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Row, Servers, Sql, Threads, World};
use crate::cluster::{Epoch, FailoverRequest, Lsn, NodeId, Trouble, Verdict};
use crate::failover::conninfo;
use crate::failover::engine::{Job, Journal, Opinion, Outcome};
use crate::support::clock;

/// Between two looks at something that takes its time.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// For one standby's opinion: who is slower has none.
const OPINION: Duration = Duration::from_secs(1);

/// What a WAL receiver hears, and from whom. Ages are by the standby's own clock.
const OPINION_SQL: &str = "SELECT sender_host, sender_port, \
    (1000 * extract(epoch FROM pg_catalog.clock_timestamp() - last_msg_receipt_time))::pg_catalog.int8 \
    FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming'";

/// What a job that has taken too long counts as.
pub(super) fn too_late(job: &Job, limit: Duration) -> Outcome {
    let why = format!("not done after {limit:?}");
    match job {
        Job::Promote { .. } | Job::Await(_) => Outcome::Late(why),
        _ => Outcome::Failed(why),
    }
}

pub(super) fn outcome(result: Result<(), String>) -> Outcome {
    result.map_or_else(Outcome::Failed, |()| Outcome::Ok)
}

/// The field of a row.
pub(super) fn field(rows: &[Row], at: usize) -> Option<&str> {
    rows.first()?.get(at)?.as_deref()
}

/// A text as an SQL literal, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

impl<S: Servers, T: Threads> World<S, T> {
    /// Does a job; the caller sets its deadline.
    pub(super) async fn work(&self, job: &Job) -> Outcome {
        match job {
            Job::Barrier => self.barrier().await,
            Job::Consent { node, planned } => self.consent(*node, *planned).await,
            Job::Resume => {
                self.consensus.resume();
                Outcome::Ok
            }
            Job::Opinions(nodes) => self.opinions(nodes).await,
            Job::Recruit { node, epoch, lock_only } => self.recruit(*node, *epoch, *lock_only).await,
            Job::Restore(node) => outcome(self.restore(*node).await),
            Job::Fence(node) => outcome(self.threads.fence(*node).await),
            Job::Hook { hook, node, old, new, id, locks } => match self.lost_lock(locks).await {
                None => self.hook(*hook, [Some(*node), Some(*old), *new], *id).await,
                Some(lost) => Outcome::LockLost(lost),
            },
            Job::Record(journal) => outcome(self.record(journal).await),
            Job::Promote { node, recruits, again } => self.promote(*node, recruits, *again).await,
            Job::Await(node) => self.wait_primary(*node).await,
            Job::Follow { node, primary, old } => outcome(self.follow(*node, *primary, *old).await),
            Job::Relax(node) => outcome(self.relax(*node).await),
            Job::Drain(node) => self.drain(*node).await,
            Job::Ready(node) => outcome(self.ready(*node).await),
            Job::Checkpoint { node, follow } => {
                self.checkpoint(*node, *follow).await.map_or_else(Outcome::Failed, Outcome::Position)
            }
            Job::CatchUp { node, old, lsn } => outcome(self.catch_up(*node, *old, *lsn).await),
        }
    }

    /// The ruling is in the view, and every data thread has seen it.
    async fn barrier(&self) -> Outcome {
        let mut published = self.published.clone();
        loop {
            published.borrow_and_update();
            if self.shared.view().writes == self.rulings.borrow().writes {
                break;
            }
            if published.changed().await.is_err() {
                return Outcome::Failed("nobody publishes views any more".to_owned());
            }
        }
        outcome(self.threads.barrier().await)
    }

    async fn consent(&self, node: NodeId, planned: bool) -> Outcome {
        let epoch = self.shared.view().epoch;
        let request = FailoverRequest { node, trouble: Trouble::CannotConnect, epoch };
        match self.consensus.may_act(&request, planned).await {
            Verdict::Granted(None) => Outcome::Ok,
            Verdict::Granted(Some(epoch)) => Outcome::Granted(epoch),
            Verdict::Refused(why) => Outcome::Failed(why),
        }
    }

    /// On this disk, and on those of a majority if there are partners.
    async fn record(&self, journal: &Journal) -> Result<(), String> {
        let text = serde_json::to_string(journal).map_err(|error| error.to_string())?;
        let agreed = self.consensus.record(Epoch(journal.epoch), text);
        let journal = journal.clone();
        self.on_disk(move |store| store.save(&journal).map_err(|error| error.to_string())).await.flatten()?;
        agreed.await
    }

    async fn opinions(&self, nodes: &[NodeId]) -> Outcome {
        let ask = |node: NodeId| async move {
            let rows = timeout(OPINION, async { self.servers.connect(node).await?.query(OPINION_SQL).await }).await;
            let rows = rows.ok()?.ok()?;
            let port = field(&rows, 1)?.parse().ok()?;
            // A clock that was set back makes no message newer than now.
            let age = field(&rows, 2)?.parse::<i64>().ok()?.max(0);
            let opinion =
                Opinion { sender: (field(&rows, 0)?.to_owned(), port), age: Duration::from_millis(age.unsigned_abs()) };
            Some((node, opinion))
        };
        let all = together(nodes.iter().map(|node| ask(*node))).await;
        Outcome::Opinions(all.into_iter().flatten().collect())
    }

    /// Whoever has a transaction open is asked for nothing: it goes on, and either ends in time or keeps its primary.
    async fn drain(&self, node: NodeId) -> Outcome {
        let limit = super::settings(&self.config()).drain;
        let deadline = clock::now() + limit.saturating_sub(LOOK * 5);
        loop {
            match self.threads.busy(node).await {
                Ok(0) => return Outcome::Ok,
                Ok(busy) if clock::now() >= deadline => {
                    return Outcome::Failed(format!(
                        "{busy} of the transactions on node {node} did not end within {limit:?}; end them, or try again later"
                    ));
                }
                Ok(_) => sleep(LOOK).await,
                Err(why) => return Outcome::Failed(why),
            }
        }
    }

    async fn relax(&self, node: NodeId) -> Result<(), String> {
        let mut sql = self.servers.connect(node).await?;
        sql.query("ALTER SYSTEM SET synchronous_standby_names = ''").await?;
        sql.query("SELECT pg_catalog.pg_reload_conf()").await?;
        self.hurry(node);
        Ok(())
    }

    async fn ready(&self, node: NodeId) -> Result<(), String> {
        self.servers.connect(node).await?.query("CHECKPOINT").await.map(drop)
    }

    /// The old primary is made ready to follow, and says how far it has written.
    async fn checkpoint(&self, node: NodeId, follow: NodeId) -> Result<Lsn, String> {
        let mut sql = self.servers.connect(node).await?;
        sql.query("CHECKPOINT").await?;
        let config = self.config();
        let target = config.node(follow).ok_or("the node is configured no more")?;
        let name = &config.node(node).ok_or("the node is configured no more")?.application_name;
        // What it had as a standby, if it was one, may be out of date: it follows as the candidate did, under its own name.
        let theirs = self.servers.connect(follow).await?.query("SHOW primary_conninfo").await?;
        let theirs = field(&theirs, 0).unwrap_or_default();
        if conninfo::has_password(theirs) {
            return Err(format!("the primary_conninfo of node {follow} holds a password: use a passfile"));
        }
        let own = conninfo::rename(theirs, name)
            .and_then(|own| conninfo::redirect(&own, &target.replication_host, target.replication_port));
        let prepared = match own {
            Some(own) => sql.query(&format!("ALTER SYSTEM SET primary_conninfo = {}", literal(&own))).await.map(drop),
            None => Err(format!("the primary_conninfo of node {follow} cannot be read")),
        };
        if let Err(why) = prepared {
            // Whoever starts it as a standby then has to say whom it follows.
            tracing::warn!(event = "not_prepared", node = node.0, why, "the old primary does not know whom to follow");
        }
        let rows = sql.query("SELECT pg_catalog.pg_current_wal_insert_lsn()").await?;
        field(&rows, 0).and_then(Lsn::parse).ok_or_else(|| "no position".to_owned())
    }

    /// `health` looks at a node at once.
    pub(super) fn hurry(&self, node: NodeId) {
        let epoch = self.shared.view().epoch;
        // A full queue means that it is hurried already.
        let _ = self.requests.try_send(FailoverRequest { node, trouble: Trouble::NotPrimary, epoch });
    }

    /// Waits until somebody else has promoted it.
    async fn wait_primary(&self, node: NodeId) -> Outcome {
        loop {
            if let Ok(mut sql) = self.servers.connect(node).await
                && let Ok(Some(timeline)) = super::standby::primary_timeline(&mut sql).await
            {
                self.hurry(node);
                return Outcome::Promoted(timeline);
            }
            sleep(LOOK * 5).await;
        }
    }

    /// The candidate has everything that the old primary wrote, its shutdown checkpoint included, and the stream has ended.
    async fn catch_up(&self, node: NodeId, old: NodeId, lsn: Lsn) -> Result<(), String> {
        let begun = clock::now();
        let mut sql = self.servers.connect(node).await?;
        loop {
            let rows = sql
                .query(
                    "SELECT pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn(), \
                     (SELECT count(*) FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming')",
                )
                .await?;
            let at = |column| field(&rows, column).and_then(Lsn::parse).unwrap_or_default();
            let ended = field(&rows, 2) == Some("0");
            if ended && at(0).max(at(1)) > lsn && at(1) >= at(0) && !self.is_primary(old).await {
                tracing::debug!(node = node.0, took = ?begun.elapsed(), "caught up");
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// Does it still answer as one? A stream ends for other reasons, too, and a stop may only have begun.
    async fn is_primary(&self, node: NodeId) -> bool {
        let ask = async { self.servers.connect(node).await?.query("SELECT pg_catalog.pg_is_in_recovery()").await };
        // Who was stopped with its host says nothing at all.
        timeout(OPINION, ask).await.is_ok_and(|told| told.is_ok_and(|rows| field(&rows, 0) == Some("f")))
    }
}

/// Runs all at the same time and waits for the last.
pub(super) async fn together<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, done) in &mut waiting {
            if done.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(output) => *done = Some(output),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}
