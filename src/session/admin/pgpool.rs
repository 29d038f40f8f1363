//! The tables of pgpool-II 4.3.5: its columns, names and order, so that its exporters and scripts work. Where pgherd has no such thing
//! the value is what pgpool-II shows when it is off. Must not change anything.

use crate::cluster::ClusterView;
use crate::config::Node;
use crate::session::counters::NodeCounts;
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

/// A row for each node.
fn nodes(global: &Global, row: impl Fn(&Node) -> Vec<Option<String>>) -> Rows {
    global.settings.load().nodes.iter().map(row).collect()
}

/// The first columns of a node's statistics.
fn head(view: &ClusterView, node: &Node) -> Vec<Option<String>> {
    let told = view.pgpool_node(node.id);
    texts([node.id.to_string(), node.host.clone(), node.port.to_string(), told.status.to_owned(), told.role.to_owned()])
}

fn count(global: &Global, node: &Node, of: impl Fn(&NodeCounts) -> u64) -> String {
    global.sum(|counters| of(counters.node(node.id))).to_string()
}

impl Session {
    pub(super) fn pool_nodes(&self) -> Rows {
        let global = &self.context.global;
        let view = global.cluster.view();
        nodes(global, |node| {
            let told = view.pgpool_node(node.id);
            texts([
                node.id.to_string(),
                node.host.clone(),
                node.port.to_string(),
                told.status.to_owned(),
                told.server_status.to_owned(),
                format!("{:.6}", view.share(node.id)),
                told.role.to_owned(),
                told.server_role,
                count(global, node, |counts| counts.verb(Verb::Select).get()),
                (self.preferred.or(view.primary) == Some(node.id)).to_string(),
                told.lag.to_string(),
                told.replication_state.to_owned(),
                told.sync_state.to_owned(),
                time(global.cluster.records.of(node.id).changed),
            ])
        })
    }
}

pub(super) fn health_check_stats(global: &Global) -> Rows {
    let view = global.cluster.view();
    nodes(global, |node| {
        let mut row = head(&view, node);
        row.extend(global.cluster.records.of(node.id).pgpool_fields().map(Some));
        row
    })
}

pub(super) fn backend_stats(global: &Global) -> Rows {
    let view = global.cluster.view();
    nodes(global, |node| {
        let mut row = head(&view, node);
        row.extend(Verb::ALL.iter().map(|verb| Some(count(global, node, |counts| counts.verb(*verb).get()))));
        row.push(Some(count(global, node, |counts| counts.faults.panics.get())));
        row.push(Some(count(global, node, |counts| counts.faults.fatals.get())));
        row.push(Some(count(global, node, |counts| counts.faults.errors.get())));
        row
    })
}

/// A process of pgpool-II is a session here.
pub(super) fn processes(context: &Context, sessions: &[Description]) -> Rows {
    let row = |one: &Description| {
        let [id, since, clients, _, _, database, user, connected, .., used, _, _, status] = fields(context, one);
        texts([id, since, clients, database, user, connected, used, status])
    };
    sessions.iter().map(row).collect()
}

/// One row per session, with the server connection in its hands, if it has one.
pub(super) fn pools(context: &Context, sessions: &[Description]) -> Rows {
    sessions.iter().map(|one| texts(fields(context, one))).collect()
}

fn fields(context: &Context, one: &Description) -> [String; 17] {
    one.pgpool_fields(context.global.cluster.view().primary, now(), |at| super::stamp(context.wall_at(at)))
}
