//! The tables of pgpool-II 4.3.5: its columns, names and order, so that its exporters and scripts work. Where pgherd has no such thing
//! the value is what pgpool-II shows when it is off. Must not change anything.

use crate::cluster::NodeView;
use crate::session::counters::NodeCounts;
use crate::session::shown::Doing;
use crate::session::{Context, Description, Global, Session};
use crate::sql::Verb;
use crate::support::clock::now;

use super::{Rows, texts, time};

pub(super) const NODES: &[&str] = &[
    "node_id",
    "hostname",
    "port",
    "status",
    "pg_status",
    "lb_weight",
    "role",
    "pg_role",
    "select_cnt",
    "load_balance_node",
    "replication_delay",
    "replication_state",
    "replication_sync_state",
    "last_status_change",
];

pub(super) const PROCESSES: &[&str] = &[
    "pool_pid",
    "start_time",
    "client_connection_count",
    "database",
    "username",
    "backend_connection_time",
    "pool_counter",
    "status",
];

pub(super) const POOLS: &[&str] = &[
    "pool_pid",
    "start_time",
    "client_connection_count",
    "pool_id",
    "backend_id",
    "database",
    "username",
    "backend_connection_time",
    "client_connection_time",
    "client_disconnection_time",
    "client_idle_duration",
    "majorversion",
    "minorversion",
    "pool_counter",
    "pool_backendpid",
    "pool_connected",
    "status",
];

pub(super) const CACHE: &[&str] = &[
    "num_cache_hits",
    "num_selects",
    "cache_hit_ratio",
    "num_hash_entries",
    "used_hash_entries",
    "num_cache_entries",
    "used_cache_entries_size",
    "free_cache_entries_size",
    "fragment_cache_entries_size",
];

pub(super) const HEALTH_CHECK_STATS: &[&str] = &[
    "node_id",
    "hostname",
    "port",
    "status",
    "role",
    "last_status_change",
    "total_count",
    "success_count",
    "fail_count",
    "skip_count",
    "retry_count",
    "average_retry_count",
    "max_retry_count",
    "max_duration",
    "min_duration",
    "average_duration",
    "last_health_check",
    "last_successful_health_check",
    "last_skip_health_check",
    "last_failed_health_check",
];

pub(super) const BACKEND_STATS: &[&str] = &[
    "node_id",
    "hostname",
    "port",
    "status",
    "role",
    "select_cnt",
    "insert_cnt",
    "update_cnt",
    "delete_cnt",
    "ddl_cnt",
    "other_cnt",
    "panic_cnt",
    "fatal_cnt",
    "error_cnt",
];

/// Exporters look at the number in front to see what they may ask.
pub(super) fn version() -> String {
    format!("4.3.5 (pgherd {})", env!("CARGO_PKG_VERSION"))
}

/// There is no query cache.
pub(super) fn no_cache() -> Vec<Option<String>> {
    let mut row = vec![Some("0".to_owned()); CACHE.len()];
    row[2] = Some("0.00".to_owned());
    row
}

/// Number, host and port of each node, with its entry in the view if it has one.
fn nodes(global: &Global, row: impl Fn(&crate::config::Node, Option<&NodeView>) -> Vec<Option<String>>) -> Rows {
    let (settings, view) = (global.settings.load(), global.cluster.view());
    settings.nodes.iter().map(|node| row(node, view.node(node.id))).collect()
}

fn count(global: &Global, node: &crate::config::Node, of: impl Fn(&NodeCounts) -> u64) -> String {
    global.sum(|counters| of(counters.node(node.id))).to_string()
}

fn status(seen: Option<&NodeView>) -> String {
    seen.map_or("unused", NodeView::pgpool_status).to_owned()
}

impl Session {
    pub(super) fn pool_nodes(&self) -> Rows {
        let global = &self.context.global;
        let view = global.cluster.view();
        nodes(global, |node, seen| {
            let alive = seen.map_or("unknown", |node| match node.life {
                crate::cluster::Life::Unknown => "unknown",
                crate::cluster::Life::Well | crate::cluster::Life::Suspect(_) => "up",
                crate::cluster::Life::Busy(_) | crate::cluster::Life::Dead(_) => "down",
            });
            let streams = seen.and_then(|node| node.position.as_ref()).is_some_and(|position| position.streaming);
            texts([
                node.id.to_string(),
                node.host.clone(),
                node.port.to_string(),
                status(seen),
                alive.to_owned(),
                format!("{:.6}", view.share(node.id)),
                view.pgpool_role(node.id).to_owned(),
                seen.map_or("unknown".to_owned(), |node| node.role.to_string()),
                count(global, node, |counts| counts.verb(Verb::Select).get()),
                (self.preferred.or(view.primary) == Some(node.id)).to_string(),
                seen.and_then(|node| node.lag).unwrap_or(0).to_string(),
                if streams { "streaming".to_owned() } else { String::new() },
                if streams { view.sync_state(&node.application_name).to_owned() } else { String::new() },
                time(global.cluster.records.of(node.id).changed),
            ])
        })
    }
}

pub(super) fn health_check_stats(global: &Global) -> Rows {
    let view = global.cluster.view();
    nodes(global, |node, seen| {
        let mut row = texts([
            node.id.to_string(),
            node.host.clone(),
            node.port.to_string(),
            status(seen),
            view.pgpool_role(node.id).to_owned(),
        ]);
        row.extend(global.cluster.records.of(node.id).pgpool_fields().map(Some));
        row
    })
}

pub(super) fn backend_stats(global: &Global) -> Rows {
    let view = global.cluster.view();
    nodes(global, |node, seen| {
        let head = [node.id.to_string(), node.host.clone(), node.port.to_string(), status(seen)];
        let mut row = texts(head);
        row.push(Some(view.pgpool_role(node.id).to_owned()));
        row.extend(Verb::ALL.iter().map(|verb| Some(count(global, node, |counts| counts.verb(*verb).get()))));
        row.push(Some(count(global, node, |counts| counts.faults.panics.get())));
        row.push(Some(count(global, node, |counts| counts.faults.fatals.get())));
        row.push(Some(count(global, node, |counts| counts.faults.errors.get())));
        row
    })
}

/// pgpool-II's word for what a session is doing.
fn word(doing: Doing) -> &'static str {
    match doing {
        Doing::Idle => "Idle",
        Doing::Active => "Execute command",
        Doing::InTransaction | Doing::InFailedTransaction => "Idle in transaction",
        Doing::Waiting => "Connecting",
    }
}

/// A process of pgpool-II is a session here.
pub(super) fn processes(context: &Context, sessions: Vec<Description>) -> Rows {
    let row = |one: Description| {
        let start = super::stamp(context.wall_at(one.since));
        texts([
            one.id.to_string(),
            start.clone(),
            "1".to_owned(),
            one.database.to_string(),
            one.user.to_string(),
            if one.server.is_some() { start } else { String::new() },
            u8::from(one.server.is_some()).to_string(),
            word(one.doing).to_owned(),
        ])
    };
    sessions.into_iter().map(row).collect()
}

/// One row per session, with the server connection in its hands, if it has one.
pub(super) fn pools(context: &Context, sessions: Vec<Description>) -> Rows {
    let now = now();
    let row = |one: Description| {
        let start = super::stamp(context.wall_at(one.since));
        let idle = if one.doing == Doing::Idle { now.saturating_duration_since(one.doing_since).as_secs() } else { 0 };
        let (node, process) = one.server.map_or((0, 0), |(node, process)| (node.0, process));
        let held = u8::from(one.server.is_some()).to_string();
        texts([
            one.id.to_string(),
            start.clone(),
            "1".to_owned(),
            "0".to_owned(),
            node.to_string(),
            one.database.to_string(),
            one.user.to_string(),
            if one.server.is_some() { start.clone() } else { String::new() },
            start,
            String::new(),
            idle.to_string(),
            "3".to_owned(),
            "0".to_owned(),
            held.clone(),
            process.to_string(),
            held,
            word(one.doing).to_owned(),
        ])
    };
    sessions.into_iter().map(row).collect()
}
