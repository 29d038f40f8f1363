//! Answers to the requests of pgpool-II's programs: facts are read, orders are given to whoever decides. Must not decide.

use std::time::Duration;

use tokio::time::sleep;

use super::group;
use super::house::House;
use super::nodes::{self, Told};
use super::partners;
use super::processes::{self, Moment};
use super::reply::{self, Severity};
use super::request::{Request, StopMode};
use crate::cluster::{Event, NodeId};
use crate::failover::engine::Order;
use crate::session::Description;
use crate::support::clock;

/// How often it is looked whether a node is at rest.
const LOOK: Duration = Duration::from_millis(50);
/// What pgpool-II says of any node that there is not.
const NO_SUCH_NODE: &str = "invalid node ID";

/// Answers one request; `who` gave it, for the events.
pub(super) async fn answer<H: House>(house: &H, request: Request, who: &str) -> Vec<u8> {
    match request {
        Request::SetParameter => reply::complete(b'a', &[]),
        Request::PoolStatus => pool_status(house),
        Request::NodeCount => reply::complete(b'l', &[&house.settings().nodes.len().to_string()]),
        Request::NodeInfo(node) => node_info(house, node),
        Request::HealthChecks(node) => health_checks(house, node),
        Request::ProcessCount => process_count(house).await,
        Request::ProcessInfo(session) => process_info(house, session).await,
        Request::Attach(node) => told(b'c', order(house, Order::Attach(node), who).await),
        Request::Detach { node, gracefully } => told(b'd', detach(house, node, gracefully, who).await),
        Request::Promote { node, switchover: true } => {
            told(b'd', order(house, Order::SwitchOver(Some(node)), who).await)
        }
        Request::Promote { node, switchover: false } => promote(house, node, who).await,
        Request::Recover(node) => told(b'c', recover(house, node, who).await),
        Request::Stop { mode, group } => told(b't', stop(house, mode, group, who).await),
        Request::Reload { group } => told(b'z', reload(house, group, who).await),
        Request::Watchdog(only) => match &*house.global().cluster.group.load() {
            Some(group) => reply::complete(b'w', &[&partners::pgpool(group, only, house.settings().listen.port)]),
            None => refuse("informing watchdog info failed", "watchdog is not enabled"),
        },
        Request::ForgetCache => refuse("invalidating query cache failed", "there is no query cache"),
        Request::RotateLog => refuse("log rotation failed", "the log is what standard error leads to"),
        Request::Nothing | Request::Disconnect | Request::Own(_) => Vec::new(),
    }
}

fn refuse(what: &str, why: &str) -> Vec<u8> {
    reply::error(Severity::Error, &format!("PCP: {what}"), why)
}

/// What was said goes before the answer as a remark.
fn told(kind: u8, result: Result<String, String>) -> Vec<u8> {
    match result {
        Ok(text) if text.is_empty() => reply::complete(kind, &[]),
        Ok(text) => [reply::notice(&text), reply::complete(kind, &[])].concat(),
        Err(why) => reply::error(Severity::Error, &why, ""),
    }
}

async fn stop<H: House>(house: &H, mode: StopMode, group: bool, who: &str) -> Result<String, String> {
    if group::is_whole(house, group)? {
        group::stop(house, mode, who).await
    } else {
        house.may_stop().map(|()| String::new())
    }
}

async fn reload<H: House>(house: &H, group: bool, who: &str) -> Result<String, String> {
    if group::is_whole(house, group)? {
        return group::reload(house, who).await;
    }
    house.reload(who).await.map(|reloaded| reloaded.in_words())
}

/// The event that an order begins with, and its node.
pub(super) fn named(order: Order) -> (&'static str, Option<NodeId>) {
    match order {
        Order::Attach(node) => ("order_attach", Some(node)),
        Order::Detach(node) => ("order_detach", Some(node)),
        Order::Promote(node) => ("order_promote", Some(node)),
        Order::SwitchOver(node) => ("order_switch_over", node),
    }
}

/// Gives an order, here or to whoever leads, with an event that says who gave it and what came of it.
pub(super) async fn order<H: House>(house: &H, order: Order, who: &str) -> Result<String, String> {
    given(house, named(order), who, group::order(house, order, who)).await
}

/// Has a node rebuilt; the same two events.
pub(super) async fn recover<H: House>(house: &H, node: NodeId, who: &str) -> Result<String, String> {
    given(house, ("order_recover", Some(node)), who, group::recover(house, node, who)).await
}

/// Waits for what an order brings, between two events.
pub(super) async fn given<H: House>(
    house: &H,
    (name, node): (&'static str, Option<NodeId>),
    who: &str,
    order: impl Future<Output = Result<String, String>>,
) -> Result<String, String> {
    let events = &house.global().cluster.events;
    events.record(Event::info(name, who).node(node));
    let begun = clock::now();
    let answer = order.await;
    let event = match &answer {
        Ok(text) => Event::info("order_done", who).why(text),
        Err(why) => Event::warn("order_refused", who).why(why),
    };
    events.record(event.node(node).change("", name).took(clock::now().saturating_duration_since(begun)));
    answer
}

/// Detaches a node; gracefully: waits until no session of any proxy uses it, at most `recovery.timeout`.
pub(super) async fn detach<H: House>(house: &H, node: NodeId, gracefully: bool, who: &str) -> Result<String, String> {
    let answer = order(house, Order::Detach(node), who).await?;
    if !gracefully {
        return Ok(answer);
    }
    let rest = group::all_at_rest(house, node, who).await;
    rest.map_err(|why| format!("{answer}, but {why}")).map(|()| answer.clone())
}

/// Waits until no session uses the node, at most `recovery.timeout`.
pub(super) async fn at_rest<H: House>(house: &H, node: NodeId) -> Result<(), String> {
    let patience = house.settings().recovery.timeout;
    let deadline = clock::now() + patience;
    loop {
        let used = in_use(house, Some(node));
        if used == 0 {
            return Ok(());
        }
        if clock::now() >= deadline {
            let seconds = patience.as_secs();
            return Err(format!("{used} connections are still used after {seconds} s (recovery.timeout)"));
        }
        sleep(LOOK).await;
    }
}

/// Server connections in the hands of sessions: to one node, or to all.
pub(super) fn in_use<H: House>(house: &H, node: Option<NodeId>) -> u32 {
    let pools = house.global().registry.table(clock::now());
    let chosen = pools.iter().filter(|pool| node.is_none_or(|node| pool.key.node == node));
    chosen.map(|pool| pool.open.saturating_sub(pool.idle)).sum()
}

async fn promote<H: House>(house: &H, node: NodeId, who: &str) -> Vec<u8> {
    if house.global().cluster.view().primary == Some(node) {
        let detail = format!("specified node is already primary node, can't promote node id {node}");
        return reply::error(Severity::Error, "invalid promote request", &detail);
    }
    told(b'd', order(house, Order::Promote(node), who).await)
}

fn node_info<H: House>(house: &H, node: Option<NodeId>) -> Vec<u8> {
    let settings = house.settings();
    let shared = &house.global().cluster;
    let view = shared.view();
    let chosen: Vec<_> = settings.nodes.iter().filter(|one| node.is_none_or(|id| one.id == id)).collect();
    if let Some(id) = node.filter(|_| chosen.is_empty()) {
        return reply::error(Severity::Error, "informing node info failed", &format!("{NO_SUCH_NODE} : {id}"));
    }
    let by_time = !settings.routing.delay_threshold_by_time.is_zero();
    let row = |node| Told::new(node, &view, shared).node_info(settings.pcp.layout, by_time);
    reply::list(b'i', "NodeInfo", &chosen.into_iter().map(row).collect::<Vec<_>>())
}

fn health_checks<H: House>(house: &H, id: NodeId) -> Vec<u8> {
    let settings = house.settings();
    let Some(node) = nodes::find(&settings.nodes, id) else {
        let detail = format!("{NO_SUCH_NODE} {id}");
        return reply::error(Severity::Error, "informing health check stats info failed", &detail);
    };
    let shared = &house.global().cluster;
    let fields = Told::new(node, &shared.view(), shared).health_checks();
    reply::complete(b'h', &fields.iter().map(String::as_str).collect::<Vec<_>>())
}

fn pool_status<H: House>(house: &H) -> Vec<u8> {
    let rows = house.settings().status(&house.global().cluster.view());
    let row = |row: &crate::config::StatusRow| [row.name.clone(), row.value.clone(), row.description.clone()];
    let rows: Vec<_> = rows.iter().map(row).collect();
    let rows: Vec<[&str; 3]> = rows.iter().map(|[name, value, what]| [&**name, &**value, &**what]).collect();
    reply::settings(&rows)
}

/// The sessions of all threads, in the order of their numbers.
pub(super) async fn sessions<H: House>(house: &H) -> Result<Vec<Description>, String> {
    let told = (house.global().describe)().await;
    let mut all = told.ok_or("a data thread is too busy to describe its sessions")?;
    all.sort_by_key(|one| one.id);
    Ok(all)
}

pub(super) fn moment() -> Moment {
    Moment { now: clock::now(), wall: clock::wall() }
}

async fn process_count<H: House>(house: &H) -> Vec<u8> {
    match sessions(house).await {
        Ok(all) => {
            let texts: Vec<String> =
                [all.len().to_string()].into_iter().chain(all.iter().map(|one| one.id.to_string())).collect();
            reply::complete(b'n', &texts.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Err(why) => reply::error(Severity::Error, "informing process count failed", &why),
    }
}

async fn process_info<H: House>(house: &H, session: Option<i32>) -> Vec<u8> {
    let all = match sessions(house).await {
        Ok(all) => all,
        Err(why) => return reply::error(Severity::Error, "informing process info failed", &why),
    };
    let chosen: Vec<_> = all.iter().filter(|one| session.is_none_or(|id| one.id == id)).collect();
    if let Some(id) = session.filter(|_| chosen.is_empty()) {
        return reply::error(Severity::Error, "informing process info failed", &format!("invalid process ID : {id}"));
    }
    let (layout, view, moment) = (house.settings().pcp.layout, house.global().cluster.view(), moment());
    let row = |one: &Description| processes::process_info(one, layout, &view, moment);
    reply::list(b'p', "ProcessInfo", &chosen.into_iter().map(row).collect::<Vec<_>>())
}
