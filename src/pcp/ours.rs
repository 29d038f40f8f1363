//! Answers to pgherd's own client: the same facts and orders in JSON, and what pgpool-II has not. Must not decide.

use std::time::Duration;

use serde_json::{Value, json};

use super::answer;
use super::group;
use super::house::House;
use super::nodes::{self, Told};
use super::own::{MOST_EVENTS, Own, Which};
use super::partners;
use super::processes;
use crate::backend::PoolRow;
use crate::cluster::{self, NodeId};
use crate::failover::engine::Order;
use crate::session::{Counters, Doing};
use crate::support::clock::{self, millis, stamp};

/// How often it is looked who is still at work.
const LOOK: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: u32 = 3_600;
/// Waiting sessions that the overview tells of, those that wait for longest first.
const WAITING: usize = 20;
/// Sessions that one answer tells of; a message has its bounds.
const SESSIONS: usize = 10_000;

/// Answers one request.
///
/// # Errors
/// For people.
pub(super) async fn answer<H: House>(house: &H, own: Own, who: &str) -> Result<Value, String> {
    match own {
        Own::Overview => overview(house).await,
        Own::Nodes { node } => node_list(house, node, |told| told.json()),
        Own::HealthChecks { node } => node_list(house, node, |told| told.json_checks()),
        Own::Sessions { session } => sessions(house, session).await,
        Own::Pools => Ok(json!({ "pools": pools(house) })),
        Own::Settings => Ok(settings(house)),
        Own::Watchdog => match &*house.global().cluster.group.load() {
            Some(group) => Ok(partners::ours(group)),
            None => Err("watchdog is not enabled".to_owned()),
        },
        Own::Detach { node, gracefully } => text(answer::detach(house, NodeId(node), gracefully, who).await),
        Own::Attach { node } => text(answer::order(house, Order::Attach(NodeId(node)), who).await),
        Own::Promote { node } => text(answer::order(house, Order::Promote(NodeId(node)), who).await),
        Own::SwitchOver { node } => text(answer::order(house, Order::SwitchOver(node.map(NodeId)), who).await),
        Own::Recover { node } => text(answer::recover(house, NodeId(node), who).await),
        Own::Reload { group } if group::is_whole(house, group)? => text(group::reload(house, who).await),
        Own::Reload { .. } => house.reload(who).await.map(|reloaded| reloaded.json()),
        Own::Stop { mode, group } if group::is_whole(house, group)? => text(group::stop(house, mode, who).await),
        Own::Stop { .. } => house.may_stop().map(|()| json!({ "text": "stopping" })),
        Own::Cancel { session } => {
            let found = house.cancel(session).await?;
            acted(house, found, session, "is cancelled", cluster::Event::info("session_cancelled", who))
        }
        Own::End { session } => {
            let found = house.end(session).await?;
            acted(house, found, session, "ends", cluster::Event::info("session_ended", who))
        }
        Own::ResetPool(which) => reset(house, &which, who).await,
        Own::Pause { seconds, wait } => pause(house, seconds, wait, who).await,
        Own::Resume => resume(house, who),
        Own::Events { after, most } => Ok(events(house, after, most)),
    }
}

fn text(result: Result<String, String>) -> Result<Value, String> {
    result.map(|text| json!({ "text": text }))
}

/// A session was told something, if it was found.
fn acted<H: House>(
    house: &H,
    found: bool,
    session: i32,
    what: &str,
    happened: cluster::Event,
) -> Result<Value, String> {
    if !found {
        return Err(format!("there is no session {session}"));
    }
    event(house, happened.why(format!("session {session}")));
    Ok(json!({ "text": format!("session {session} {what}") }))
}

fn event<H: House>(house: &H, event: cluster::Event) {
    house.global().cluster.events.record(event);
}

fn node_list<H: House>(house: &H, id: Option<u16>, show: impl Fn(&Told<'_>) -> Value) -> Result<Value, String> {
    let settings = house.settings();
    if let Some(id) = id.filter(|id| nodes::find(&settings.nodes, NodeId(*id)).is_none()) {
        return Err(format!("there is no node {id}"));
    }
    let shared = &house.global().cluster;
    let view = shared.view();
    let chosen = settings.nodes.iter().filter(|node| id.is_none_or(|id| node.id == NodeId(id)));
    let list: Vec<_> = chosen.map(|node| show(&Told::new(node, &view, shared))).collect();
    Ok(json!({ "nodes": list, "epoch": view.epoch.0 }))
}

fn pools<H: House>(house: &H) -> Vec<Value> {
    let row = |pool: &PoolRow| {
        json!({
            "node": pool.key.node.0,
            "database": &*pool.key.database,
            "user": &*pool.key.user,
            "size": pool.size,
            "open": pool.open,
            "idle": pool.idle,
            "waiting": pool.waiting,
            "longest_wait_ms": millis(pool.longest_wait),
            "pinned": pool.pinned,
        })
    };
    house.global().registry.table(clock::now()).iter().map(row).collect()
}

async fn sessions<H: House>(house: &H, session: Option<i32>) -> Result<Value, String> {
    let all = answer::sessions(house).await?;
    let moment = answer::moment();
    let chosen = all.iter().filter(|one| session.is_none_or(|id| one.id == id));
    let list: Vec<_> = chosen.take(SESSIONS).map(|one| processes::json(one, moment)).collect();
    match session {
        Some(id) if list.is_empty() => Err(format!("there is no session {id}")),
        _ => Ok(json!({ "sessions": list })),
    }
}

async fn overview<H: House>(house: &H) -> Result<Value, String> {
    let mut told = node_list(house, None, |told| told.json())?;
    let waiting = match answer::sessions(house).await {
        Ok(mut all) => {
            all.retain(|one| one.doing == Doing::Waiting);
            all.sort_by_key(|one| one.doing_since);
            let moment = answer::moment();
            Some(all.iter().take(WAITING).map(|one| processes::json(one, moment)).collect::<Vec<_>>())
        }
        // Busy threads are a reason to look at the rest all the more.
        Err(_) => None,
    };
    let global = house.global();
    let sum = |of: fn(&Counters) -> &crate::session::Count| global.sum(|one| of(one).get());
    let counters: serde_json::Map<_, _> =
        Counters::ALL.iter().map(|(name, of)| ((*name).to_owned(), json!(sum(*of)))).collect();
    let view = global.cluster.view();
    let settings = house.settings();
    let last = global.cluster.events.last();
    let more = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "at": stamp(clock::wall()),
        "started": stamp(global.born),
        "primary": view.primary.map(|id| id.0),
        "writes": if view.writes.open() { "open" } else { view.writes.text() },
        "clients": house.clients(),
        "max_clients": settings.listen.max_clients,
        "held": global.held.waiting(),
        "paused_seconds": paused(house),
        "recovery": house.recovery(),
        "pools": pools(house),
        "waiting": waiting,
        "counters": counters,
        "events": events(house, last.saturating_sub(5), 5)["events"],
    });
    merge(&mut told, more);
    Ok(told)
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn settings<H: House>(house: &H) -> Value {
    let rows = house.settings().status(&house.global().cluster.view());
    let row = |row: &crate::config::StatusRow| json!({ "name": row.name, "value": row.value, "description": row.description });
    json!({ "settings": rows.iter().map(row).collect::<Vec<_>>() })
}

async fn reset<H: House>(house: &H, which: &Which, who: &str) -> Result<Value, String> {
    if let Some(id) = which.node.filter(|id| nodes::find(&house.settings().nodes, NodeId(*id)).is_none()) {
        return Err(format!("there is no node {id}"));
    }
    let open = house.reset(which).await;
    let said = format!("{open} server connections end as soon as they are idle");
    event(house, cluster::Event::info("pool_reset", who).node(which.node.map(NodeId)).why(&said));
    Ok(json!({ "text": said, "connections": open }))
}

/// Seconds until paused statements go on by themselves; none if there is no pause.
fn paused<H: House>(house: &H) -> Option<u64> {
    let until = house.global().pause.until()?;
    Some(until.saturating_duration_since(clock::now()).as_secs() + 1)
}

async fn pause<H: House>(house: &H, seconds: u32, wait: bool, who: &str) -> Result<Value, String> {
    if !(1..=LONGEST_PAUSE).contains(&seconds) {
        return Err(format!("a pause lasts from 1 to {LONGEST_PAUSE} seconds"));
    }
    let failover = &house.settings().failover;
    house.global().pause.begin(clock::now() + Duration::from_secs(seconds.into()));
    let mut said = format!(
        "new statements wait from now on, at most for {seconds} s; at most {} at a time (failover.max_held)",
        failover.max_held
    );
    if Duration::from_secs(seconds.into()) > failover.hold_timeout {
        let limit = failover.hold_timeout.as_secs();
        said += &format!("; one that has waited for {limit} s (failover.hold_timeout) is refused");
    }
    event(house, cluster::Event::warn("paused", who).why(&said));
    loop {
        // None: a thread is too busy to say. The pause holds all the same.
        let busy = at_work(house).await.ok();
        if busy == Some(0) || !wait {
            return Ok(json!({ "text": said, "at_work": busy }));
        }
        if house.global().pause.until().is_none() {
            let busy = busy.map_or("nobody knows how many".to_owned(), |busy| busy.to_string());
            return Err(format!("the pause is over, and {busy} sessions were still at work"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Sessions with a statement or a transaction under way at a server.
async fn at_work<H: House>(house: &H) -> Result<usize, String> {
    let all = answer::sessions(house).await?;
    let works = |doing| matches!(doing, Doing::Active | Doing::InTransaction | Doing::InFailedTransaction);
    Ok(all.iter().filter(|one| one.server.is_some() && works(one.doing)).count())
}

fn resume<H: House>(house: &H, who: &str) -> Result<Value, String> {
    let held = house.global().held.waiting();
    if !house.global().pause.end() {
        return Err("statements are not paused".to_owned());
    }
    let said = format!("statements go on; {held} have waited");
    event(house, cluster::Event::info("resumed", who).why(&said));
    Ok(json!({ "text": said, "held": held }))
}

fn events<H: House>(house: &H, after: u64, most: usize) -> Value {
    let list = house.global().cluster.events.since(after, most.min(MOST_EVENTS));
    json!({ "events": list.iter().map(event_json).collect::<Vec<_>>() })
}

/// One event.
pub(super) fn event_json(event: &cluster::Event) -> Value {
    json!({
        "number": event.number,
        "at": stamp(event.at),
        "severity": event.severity.as_str(),
        "event": event.name,
        "who": event.who,
        "node": event.node.map(|node| node.0),
        "from": event.from,
        "to": event.to,
        "why": event.why,
        "epoch": event.epoch.map(|epoch| epoch.0),
        "took_ms": event.took.map(millis),
    })
}

/// What there is to see of the wait for something long: who waits, and what is still at work.
pub(super) fn progress<H: House>(house: &H) -> Value {
    let global = house.global();
    let recovery = house.recovery();
    if !recovery.is_empty() {
        // It takes its time, and what clients do meanwhile is none of its business.
        return json!({ "recovery": recovery });
    }
    json!({
        "writes": if global.cluster.view().writes.open() { "open" } else { global.cluster.view().writes.text() },
        "held": global.held.waiting(),
        "in_use": answer::in_use(house, None),
    })
}
