//! Recruiting a standby and taking it back (HA H5): an advisory lock in a session that stays open, our marker in `primary_conninfo`, the
//! original in the state directory. Must not promote.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::jobs::{LOOK, field, literal, together};
use super::{Place, Servers, Sql, Threads, World};
use crate::cluster::{Epoch, Lsn, NodeId, Timeline};
use crate::failover::conninfo;
use crate::failover::engine::{Outcome, Standing};

/// "pgherd" as a number: the lock that one recruiter at a time has on each standby.
const LOCK: u64 = 0x7067_6865_7264;

/// The session that holds a lock ends by itself when nothing was said in it for so long: whoever leads next does not wait for a process that is
/// frozen or cut off. From PostgreSQL 14 on; before, it ends with the connection. Milliseconds.
const IDLE: u32 = 5_000;
/// How often something is said in it meanwhile; a hung server may take as long to answer.
const REFRESH: Duration = Duration::from_secs(1);

/// Rounds of looking at a WAL receiver that is to end, or a position that is to be stable.
const ROUNDS: u32 = 100;

/// Where the value of `primary_conninfo` comes from, and the value.
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) source: String,
}

pub(super) async fn setting(sql: &mut impl Sql) -> Result<Setting, String> {
    let rows = sql
        .query(
            "SELECT setting, CASE WHEN source = 'command line' THEN source ELSE coalesce(sourcefile, '') END \
             FROM pg_catalog.pg_settings WHERE name = 'primary_conninfo'",
        )
        .await?;
    let value = field(&rows, 0).ok_or("primary_conninfo cannot be read: the monitor role needs pg_monitor")?.to_owned();
    let source = field(&rows, 1).unwrap_or_default().to_owned();
    if source == "command line" {
        return Err("primary_conninfo is set on the command line, where it cannot be changed".to_owned());
    }
    if conninfo::has_password(&value) {
        return Err("primary_conninfo holds a password, which every change would log: use a passfile".to_owned());
    }
    Ok(Setting { value, source })
}

/// Sets `primary_conninfo`, or resets it to what the configuration file says, and waits until it holds.
pub(super) async fn change(sql: &mut impl Sql, value: &str, reset: bool) -> Result<(), String> {
    let statement = if reset {
        "ALTER SYSTEM RESET primary_conninfo".to_owned()
    } else {
        format!("ALTER SYSTEM SET primary_conninfo = {}", literal(value))
    };
    sql.query(&statement).await?;
    sql.query("SELECT pg_catalog.pg_reload_conf()").await?;
    for _ in 0..ROUNDS {
        let rows = sql.query("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'primary_conninfo'").await?;
        if field(&rows, 0) == Some(value) {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    Err("primary_conninfo does not change: is it set elsewhere?".to_owned())
}

async fn lock(sql: &mut impl Sql) -> Result<(), String> {
    let rows = sql.query(&format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK})")).await?;
    if field(&rows, 0) == Some("t") { Ok(()) } else { Err("another proxy recruits it".to_owned()) }
}

/// The greater one of received and replayed, what was replayed, and whether replay is slow on purpose.
async fn position(sql: &mut impl Sql) -> Result<(Lsn, Lsn, bool), String> {
    let rows = sql
        .query(
            "SELECT pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn(), \
             pg_catalog.pg_is_wal_replay_paused() OR pg_catalog.current_setting('recovery_min_apply_delay') <> '0'",
        )
        .await?;
    let at = |column| field(&rows, column).and_then(Lsn::parse).unwrap_or_default();
    Ok((at(0).max(at(1)), at(1), field(&rows, 2) == Some("t")))
}

impl<S: Servers, T: Threads> World<S, T> {
    /// A session with the lock of that node: the one that is there, if it still works, or a new one.
    pub(super) async fn locked(&self, node: NodeId, kept: Option<S::Sql>) -> Result<S::Sql, String> {
        if let Some(mut kept) = kept
            && kept.query("SELECT 1").await.is_ok()
        {
            return Ok(kept);
        }
        let mut sql = self.servers.connect(node).await?;
        // Before the lock: no session may keep it for ever.
        let limit = format!(
            "SELECT pg_catalog.set_config(name, '{IDLE}', false) FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'"
        );
        sql.query(&limit).await?;
        lock(&mut sql).await?;
        Ok(sql)
    }

    /// Says something in each session that holds a lock and has nothing to do, until it is dropped. One that does not answer is lost, and its
    /// lock with it.
    pub(super) async fn stay_fresh(self: Rc<Self>) {
        loop {
            sleep(REFRESH).await;
            let places: Vec<_> = self.places.borrow().values().cloned().collect();
            together(places.iter().map(|place| refresh(place))).await;
        }
    }

    pub(super) async fn recruit(&self, node: NodeId, epoch: Epoch, lock_only: bool) -> Outcome {
        let place = self.place(node);
        let mut place = place.lock().await;
        let kept = place.session.take();
        let work = async {
            let mut sql = self.locked(node, kept).await?;
            let standing = self.stand(node, &mut sql, epoch, lock_only).await?;
            Ok::<_, String>((sql, standing))
        };
        match work.await {
            Ok((sql, standing)) => {
                place.session = Some(sql);
                Outcome::Recruited(standing)
            }
            Err(why) => Outcome::Failed(why),
        }
    }

    async fn stand(&self, node: NodeId, sql: &mut S::Sql, epoch: Epoch, lock_only: bool) -> Result<Standing, String> {
        let rows = sql
            .query(
                "SELECT pg_catalog.pg_is_in_recovery(), \
                 (1000000 * extract(epoch FROM pg_catalog.pg_postmaster_start_time()))::pg_catalog.int8, \
                 (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)",
            )
            .await?;
        if field(&rows, 0) != Some("t") {
            return Err("it is not in recovery".to_owned());
        }
        let started = field(&rows, 1).and_then(|text| text.parse().ok()).unwrap_or(0);
        // What a receiver that has not streamed yet says is 0.
        let received = field(&rows, 2).and_then(|text| text.parse().ok()).filter(|timeline| *timeline > 0);
        let timeline = match received {
            Some(timeline) => Timeline(timeline),
            None => self.servers.timeline(node).await?,
        };
        if !lock_only {
            let Setting { value, source } = setting(sql).await?;
            if !conninfo::is_marked(&value) {
                let copies = self.consensus.keep(node, Some((value.clone(), source.clone())));
                let original = value.clone();
                self.on_disk(move |store| store.keep(node, &original, &source))
                    .await?
                    .map_err(|error| error.to_string())?;
                copies.await;
                change(sql, &conninfo::mark(&value, epoch.0), false).await?;
            }
            stopped(sql).await?;
        }
        let mut last = position(sql).await?;
        for _ in 0..ROUNDS {
            sleep(LOOK).await;
            let now = position(sql).await?;
            let stable = now.0 == last.0;
            last = now;
            if stable {
                break;
            }
        }
        let (lsn, replayed, slow) = last;
        Ok(Standing { timeline, lsn, replayed, started, slow })
    }

    /// The original of that node is of no use any more, here and elsewhere.
    pub(super) async fn forget(&self, node: NodeId) -> Result<(), String> {
        let forget = move |store: &crate::failover::journal::Store| {
            let kept = store.kept(node).is_some();
            store.forget(node);
            kept
        };
        if self.on_disk(forget).await? {
            // It has begun; nobody waits for it: left behind a copy does no harm.
            drop(self.consensus.keep(node, None));
        }
        Ok(())
    }

    /// Takes our marker away and gives the lock back. Nothing is changed where there is no marker.
    pub(super) async fn restore(&self, node: NodeId) -> Result<(), String> {
        let place = self.place(node);
        let mut place = place.lock().await;
        let mut sql = self.locked(node, place.session.take()).await?;
        let now = setting_if_readable(&mut sql).await?;
        if let Some(value) = now.filter(|value| conninfo::is_marked(value)) {
            let original = conninfo::unmark(&value);
            let kept = self.on_disk(move |store| store.kept(node)).await?.filter(|(kept, _)| *kept == original);
            // What came from another file than ALTER SYSTEM's is what that file says.
            let reset = kept.is_some_and(|(_, source)| !source.is_empty() && !source.ends_with("postgresql.auto.conf"));
            change(&mut sql, &original, reset).await?;
        }
        self.forget(node).await?;
        // The lock goes with the session.
        Ok(())
    }
}

async fn refresh<Q: Sql>(place: &Mutex<Place<Q>>) {
    // A job is at it, and says enough.
    let Ok(mut place) = place.try_lock() else { return };
    let Some(mut sql) = place.session.take() else { return };
    // Whose answer has not come is never asked again: that session is dropped.
    if matches!(timeout(REFRESH, sql.query("SELECT 1")).await, Ok(Ok(_))) {
        place.session = Some(sql);
    }
}

/// The value alone; a role that may not read it has never recruited anybody.
async fn setting_if_readable(sql: &mut impl Sql) -> Result<Option<String>, String> {
    let rows = sql.query("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'primary_conninfo'").await?;
    Ok(field(&rows, 0).map(str::to_owned))
}

/// Waits until nothing is received any more.
async fn stopped(sql: &mut impl Sql) -> Result<(), String> {
    for _ in 0..ROUNDS {
        // One that is being stopped may still write what it has received, and acknowledge it.
        let rows = sql
            .query("SELECT count(*) FROM pg_catalog.pg_stat_wal_receiver WHERE status IN ('streaming', 'stopping')")
            .await?;
        if field(&rows, 0) == Some("0") {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    Err("its WAL receiver does not stop".to_owned())
}
