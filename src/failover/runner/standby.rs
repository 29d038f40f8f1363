//! What makes a standby a primary, and another standby follow it (HA H7, H11). Must not choose who.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::jobs::{LOOK, field, literal};
use super::recruit::{change, setting};
use super::{Servers, Sql, Threads, World};
use crate::cluster::{NodeId, Timeline};
use crate::failover::conninfo;
use crate::failover::engine::Outcome;
use crate::support::clock;

/// A session that holds a lock answers within this, or the lock counts as lost.
const ALIVE: Duration = Duration::from_secs(1);
/// How long a promotion is watched before it counts as late.
const WATCHED: Duration = Duration::from_secs(3);
/// How long a standby that was told to follow is watched.
const ARRIVAL: Duration = Duration::from_millis(500);

/// The timeline of a server that is not in recovery.
pub(super) async fn primary_timeline(sql: &mut impl Sql) -> Result<Option<Timeline>, String> {
    // OFFSET 0: the role is evaluated once.
    let rows = sql
        .query(
            "SELECT CASE WHEN NOT r.standby THEN \
             substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END \
             FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) r",
        )
        .await?;
    Ok(field(&rows, 0).and_then(|text| u32::from_str_radix(text, 16).ok()).map(Timeline))
}

async fn started(sql: &mut impl Sql) -> Result<i64, String> {
    let rows = sql
        .query("SELECT (1000000 * extract(epoch FROM pg_catalog.pg_postmaster_start_time()))::pg_catalog.int8")
        .await?;
    field(&rows, 0).and_then(|text| text.parse().ok()).ok_or_else(|| "no start time".to_owned())
}

impl<S: Servers, T: Threads> World<S, T> {
    pub(super) async fn promote(&self, node: NodeId, recruits: &[NodeId], again: Option<i64>) -> Outcome {
        if again.is_none()
            && let Some(lost) = self.lost_lock(recruits).await
        {
            return Outcome::LockLost(lost);
        }
        let place = self.place(node);
        let mut place = place.lock().await;
        let kept = place.session.take();
        let unsent = |why: String| if again.is_some() { Outcome::Late(why) } else { Outcome::NotSent(why) };
        let mut sql = match self.locked(node, kept).await {
            Ok(sql) => sql,
            Err(why) => return unsent(why),
        };
        match self.look_before(&mut sql, again).await {
            Ok(None) => {}
            Ok(Some(outcome)) => {
                self.hurry(node);
                return outcome;
            }
            Err(why) => return unsent(why),
        }
        // Locks are held, but whoever leads the partners by now may have given up on this one (HA H17).
        if self.shared.lease.is_over(clock::boot_nanos) {
            return unsent("this proxy leads no more".to_owned());
        }
        match may_promote(&mut sql).await {
            Ok(true) => {}
            Ok(false) => return unsent("the monitor role may not execute pg_promote()".to_owned()),
            Err(why) => return unsent(why),
        }
        match sql.query("SELECT pg_catalog.pg_promote(false)").await {
            Ok(rows) if field(&rows, 0) == Some("t") => {}
            Ok(_) => return Outcome::Late("pg_promote() says no".to_owned()),
            Err(why) => return Outcome::Late(why),
        }
        let why = match timeout(WATCHED + ALIVE, watch(&mut sql)).await {
            Ok(Ok(Some(timeline))) => {
                place.session = Some(sql);
                self.hurry(node);
                return Outcome::Promoted(timeline);
            }
            Ok(Ok(None)) => {
                place.session = Some(sql);
                format!("it is still in recovery after {WATCHED:?}")
            }
            Ok(Err(why)) => why,
            // Whose answer has not come is never asked again: the next answer would be taken for another question's.
            Err(_) => "it does not answer".to_owned(),
        };
        Outcome::Late(why)
    }

    /// The first recruit whose session does not answer any more.
    pub(super) async fn lost_lock(&self, recruits: &[NodeId]) -> Option<NodeId> {
        for node in recruits {
            let place = self.place(*node);
            let mut place = place.lock().await;
            let alive = match &mut place.session {
                Some(sql) => matches!(timeout(ALIVE, sql.query("SELECT 1")).await, Ok(Ok(_))),
                None => false,
            };
            if !alive {
                place.session = None;
                return Some(*node);
            }
        }
        None
    }

    /// Is it primary already, or was it restarted since?
    async fn look_before(&self, sql: &mut S::Sql, again: Option<i64>) -> Result<Option<Outcome>, String> {
        if let Some(timeline) = primary_timeline(sql).await? {
            return Ok(Some(Outcome::Promoted(timeline)));
        }
        let restarted = match again {
            Some(then) => started(sql).await? != then,
            None => false,
        };
        Ok(restarted.then_some(Outcome::Restarted))
    }

    pub(super) async fn follow(&self, node: NodeId, primary: NodeId, old: NodeId) -> Result<(), String> {
        let place = self.place(node);
        let mut place = place.lock().await;
        let mut sql = self.locked(node, place.session.take()).await?;
        let now = setting(&mut sql).await?.value;
        let original = conninfo::unmark(&now);
        let wanted = self.conninfo(&original, node, primary, old)?;
        // A former primary was pointed there before it was stopped.
        let direct = wanted != original || self.points_at(&original, primary);
        let made = direct && self.make_slot(&mut sql, primary).await?;
        if wanted != now {
            change(&mut sql, &wanted, false).await?;
        } else if made {
            // Its WAL receiver was refused, and would wait for some seconds before it tries again.
            sql.query("SELECT pg_catalog.pg_reload_conf()").await?;
        }
        if wanted != now || made {
            self.hurry(node);
            // One that takes longer is seen by a later look.
            let _ = timeout(ARRIVAL, self.arrived(&mut sql, primary)).await;
        }
        if let Err(why) = self.drop_slots(&mut sql, node, primary).await {
            tracing::warn!(event = "slots_kept", node = node.0, why, "slots that nobody uses may keep WAL there");
        }
        self.forget(node).await?;
        self.hurry(node);
        Ok(())
    }

    /// What a former primary has kept for standbys that stream from the new one, by slots of the same names, is kept for nobody.
    async fn drop_slots(&self, sql: &mut S::Sql, node: NodeId, primary: NodeId) -> Result<(), String> {
        let slots = "SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary AND active";
        let own = sql.query(&slots.replace("AND active", "AND NOT active")).await?;
        if own.is_empty() {
            return Ok(());
        }
        let used = self.servers.connect(primary).await?.query(slots).await?;
        for slot in own.iter().filter(|row| used.contains(row)).filter_map(|row| row.first()?.as_deref()) {
            sql.query(&format!("SELECT pg_catalog.pg_drop_replication_slot({})", literal(slot))).await?;
            tracing::info!(event = "slot_dropped", node = node.0, slot, "it is used at the new primary");
        }
        Ok(())
    }

    /// Waits until a standby streams on the primary's timeline: writes may wait for it, and a look before that would be the last for a
    /// whole period.
    async fn arrived(&self, sql: &mut S::Sql, primary: NodeId) -> Result<(), String> {
        let timeline = primary_timeline(&mut self.servers.connect(primary).await?).await?;
        let streams = "SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming'";
        loop {
            let rows = sql.query(streams).await?;
            if field(&rows, 0).and_then(|text| text.parse().ok()).map(Timeline) == timeline {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// Whom a standby shall follow: the new primary, unless it follows a third server, which follows in its turn.
    fn conninfo(&self, original: &str, node: NodeId, primary: NodeId, old: NodeId) -> Result<String, String> {
        let config = self.config();
        let target = config.node(primary).ok_or("the new primary is configured no more")?;
        let points = conninfo::targets(original);
        let third = |other: &&crate::config::Node| ![node, primary, old].contains(&other.id);
        if points.iter().any(|point| config.nodes.iter().filter(third).any(|other| is(other, point))) {
            return Ok(original.to_owned());
        }
        if points.iter().any(|point| is(target, point)) {
            return Ok(original.to_owned());
        }
        conninfo::redirect(original, &target.replication_host, target.replication_port)
            .ok_or_else(|| "its primary_conninfo cannot be read".to_owned())
    }

    fn points_at(&self, conninfo: &str, node: NodeId) -> bool {
        let config = self.config();
        let Some(target) = config.node(node) else { return false };
        conninfo::targets(conninfo).iter().any(|point| is(target, point))
    }

    /// A slot that the standby uses must be there before it connects. Returns whether it was not.
    async fn make_slot(&self, sql: &mut S::Sql, primary: NodeId) -> Result<bool, String> {
        let rows = sql.query("SHOW primary_slot_name").await?;
        let Some(slot) = field(&rows, 0).filter(|slot| !slot.is_empty()) else { return Ok(false) };
        let slot = literal(slot);
        let mut sql = self.servers.connect(primary).await?;
        // One that was there before and has lost what it kept is of no use any more, and newer servers refuse it.
        sql.query(&format!(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = {slot} AND slot_type = 'physical' AND wal_status = 'lost' AND NOT active"
        ))
        .await?;
        let made = sql
            .query(&format!(
                "SELECT pg_catalog.pg_create_physical_replication_slot({slot}, true) WHERE NOT EXISTS \
                 (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot})"
            ))
            .await?;
        Ok(!made.is_empty())
    }
}

/// Is the node reached there?
fn is(node: &crate::config::Node, (host, port): &(String, u16)) -> bool {
    (&node.host, node.port) == (host, *port) || (&node.replication_host, node.replication_port) == (host, *port)
}

/// Asked before, since whoever is refused says so in its own language.
async fn may_promote(sql: &mut impl Sql) -> Result<bool, String> {
    let right = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_promote(pg_catalog.bool, pg_catalog.int4)', 'EXECUTE')";
    Ok(field(&sql.query(right).await?, 0) == Some("t"))
}

/// Until it is primary; none if it is not for so long.
async fn watch(sql: &mut impl Sql) -> Result<Option<Timeline>, String> {
    let until = clock::now() + WATCHED;
    loop {
        match primary_timeline(sql).await? {
            None if clock::now() < until => sleep(LOOK).await,
            told => return Ok(told),
        }
    }
}
