//! The page that Prometheus scrapes, made of what the threads have counted and published. Reads their cells, asks no thread.

use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::PoolRow;
use crate::cluster::{ClusterView, EventCount, Group, NodeId, NodeView, Role, Status};
use crate::metrics::{Format, Kind, Page, Sum};
use crate::routing::Reason;
use crate::session::{Counters, Global, NodeCounts, Phases, Times};
use crate::sql::Verb;
use crate::support::clock::{Duration, now};

use super::Source;

/// Pools that are shown; more are a mistake, which must not eat the machine.
const MOST_POOLS: usize = 1_000;

/// Name and help of each of [`Counters::ALL`], in its order.
const COUNTERS: &[(&str, &str, &str)] = &[
    ("logins", "pgherd_logins", "Clients that logged in."),
    ("transactions", "pgherd_primary_transactions", "Transactions that ran on a primary."),
    ("reads_standby", "pgherd_standby_reads", "Requests answered by a standby."),
    ("local", "pgherd_local_answers", "Requests answered without a server."),
    ("retries", "pgherd_read_retries", "Reads that a standby refused and the primary answered."),
    ("reruns", "pgherd_read_reruns", "Reads run again because a server was lost before it answered."),
    ("rewrites", "pgherd_write_reruns", "Writes run again that the new primary's history certainly lacks."),
    ("kept", "pgherd_reads_kept", "Reads kept on the primary because no standby was fresh enough."),
    ("opaque", "pgherd_opaque_transactions", "Transactions whose effects on the session their texts do not tell."),
    ("probes", "pgherd_session_probes", "Questions to servers about what transactions did to their sessions."),
    ("setups", "pgherd_connection_setups", "Server connections given a session's settings before its statement."),
    ("pins", "pgherd_pins", "Sessions that became pinned to a server connection."),
    ("cancels", "pgherd_cancels", "Cancels sent to servers."),
    ("cancels_refused", "pgherd_cancels_refused", "Cancel requests of clients with the key of no session."),
    ("waits", "pgherd_pool_waits", "Waits for a server connection."),
    ("waited_us", "pgherd_pool_wait_seconds", "Time waited for server connections."),
    ("lost", "pgherd_server_connections_lost", "Server connections lost under a session."),
    ("held", "pgherd_held_waits", "Waits of statements for a primary."),
    ("refused", "pgherd_logins_refused", "Clients that were turned away at the door."),
    ("batches", "pgherd_write_batches", "Batches of writes to sockets, each sent by one system call."),
    ("batched", "pgherd_batched_writes", "Writes to sockets in batches."),
    ("batched_left", "pgherd_batched_writes_left", "Writes in batches that a socket did not take whole."),
];

/// The whole page.
pub(super) fn page(source: &Source, format: Format) -> String {
    let mut page = Page::new(format);
    let global = &source.global;
    process(&mut page, source);
    sessions(&mut page, global);
    let view = global.cluster.snapshot();
    cluster(&mut page, &view, global.cluster.group.load_full());
    let names: Vec<(NodeId, String)> =
        global.settings.load().nodes.iter().map(|node| (node.id, node.id.to_string())).collect();
    nodes(&mut page, &view, &names);
    statements(&mut page, global, &names);
    checks(&mut page, source, &names);
    pools(&mut page, &global.registry.table(now()));
    events(&mut page, &global.cluster.events.counts());
    page.finish()
}

fn process(page: &mut Page, source: &Source) {
    page.family(Kind::Gauge, "pgherd_info", "Always 1; the version is a label.");
    page.count(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let born = source.global.born.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    page.family(Kind::Gauge, "pgherd_start_time_seconds", "When the process started, since 1970.");
    page.value(&[], born.as_secs_f64());
    let (clients, most) = (source.clients)();
    page.family(Kind::Gauge, "pgherd_clients", "Clients that are connected.");
    page.count(&[], clients as u64);
    page.family(Kind::Gauge, "pgherd_clients_limit", "Clients that may be connected.");
    page.count(&[], most as u64);
    page.family(Kind::Gauge, "pgherd_held_statements", "Statements that wait for a primary now.");
    page.count(&[], u64::from(source.global.held.waiting()));
    page.family(Kind::Gauge, "pgherd_held_bytes", "Memory that their buffers take.");
    page.count(&[], source.global.held.memory());
}

fn sessions(page: &mut Page, global: &Global) {
    for ((own, name, help), (counted, of)) in COUNTERS.iter().zip(Counters::ALL) {
        debug_assert_eq!(own, counted, "both tables are in the same order");
        page.family(Kind::Counter, name, help);
        let value = global.sum(|one| of(one).get());
        match *own {
            "waited_us" => page.value(&[], Duration::from_micros(value).as_secs_f64()),
            _ => page.count(&[], value),
        }
    }
    page.family(Kind::Counter, "pgherd_requests", "Requests by where they went, and why.");
    for &reason in Reason::ALL {
        for (target, count) in [
            ("primary", global.sum(|one| one.routed.primary(reason).get())),
            ("standby", global.sum(|one| one.routed.standby(reason).get())),
        ] {
            if count > 0 {
                page.count(&[("target", target), ("reason", reason.name())], count);
            }
        }
    }
}

fn cluster(page: &mut Page, view: &ClusterView, group: Option<Arc<Group>>) {
    let flag = |page: &mut Page, name: &str, help: &str, is: bool| {
        page.family(Kind::Gauge, name, help);
        page.count(&[], u64::from(is));
    };
    page.family(Kind::Gauge, "pgherd_epoch", "Grows with each promotion.");
    page.count(&[], view.epoch.0);
    flag(page, "pgherd_primary_known", "1 while there is a primary.", view.primary.is_some());
    let open = view.writes.open();
    flag(
        page,
        "pgherd_writes_open",
        "1 while statements that write get through; 0 while they are held or refused.",
        open,
    );
    let group = group.as_deref();
    let leads = group.is_none_or(|group| group.me().is_some_and(|me| me.state == "LEADER"));
    flag(page, "pgherd_leader", "1 while this proxy may decide about the cluster.", leads);
    let Some(group) = group else { return };
    flag(page, "pgherd_watchdog_quorum", "1 while a majority has confirmed a leader.", group.quorum);
    flag(page, "pgherd_watchdog_holds_address", "1 while the virtual address is here.", group.holds_ip);
    let able = group.me().and_then(|me| me.can_hold).unwrap_or(true);
    flag(
        page,
        "pgherd_watchdog_can_hold_address",
        "0 while tries to put the virtual address here have failed: unfit to lead.",
        able,
    );
    page.family(Kind::Gauge, "pgherd_watchdog_term", "The number of the present term of leadership.");
    page.count(&[], group.term);
    page.family(Kind::Gauge, "pgherd_watchdog_member_up", "1 for members that were heard a moment ago.");
    for member in &group.members {
        let up = matches!(member.state, "LEADER" | "STANDBY" | "JOINING" | "LEAVING");
        page.count(&[("member", &member.name), ("duty", member.duty)], u64::from(up));
    }
    page.family(
        Kind::Counter,
        "pgherd_watchdog_cancels",
        "Cancel requests for sessions of other proxies, by what became of them.",
    );
    for (outcome, count) in ["passed_on", "obeyed", "refused"].iter().zip(group.cancels) {
        page.count(&[("outcome", outcome)], count);
    }
    page.family(Kind::Counter, "pgherd_watchdog_refused_frames", "Frames that were refused, by why.");
    for (why, count) in ["malformed", "forged", "stranger", "replayed", "stale"].iter().zip(group.refused) {
        page.count(&[("why", why)], count);
    }
}

/// One gauge per node.
fn per_node(page: &mut Page, of: (&str, &str), view: &ClusterView, value: impl Fn(&NodeView) -> Option<f64>) {
    page.family(Kind::Gauge, of.0, of.1);
    for node in &view.nodes {
        if let Some(value) = value(node) {
            page.value(&[("node", &node.id.to_string()), ("name", &node.name)], value);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes beyond 2^53 are shown rounded")]
fn nodes(page: &mut Page, view: &ClusterView, names: &[(NodeId, String)]) {
    let flag = |is: bool| Some(if is { 1.0 } else { 0.0 });
    per_node(page, ("pgherd_node_up", "1 if the server is used."), view, |node| flag(node.usable()));
    per_node(page, ("pgherd_node_primary", "1 for the server that writes go to."), view, |node| {
        flag(view.primary == Some(node.id))
    });
    per_node(page, ("pgherd_node_weight_ratio", "Share of the reads."), view, |node| Some(view.share(node.id)));
    per_node(page, ("pgherd_node_lag_bytes", "How far replay is behind the primary."), view, |node| {
        node.lag.map(|lag| lag as f64)
    });
    per_node(page, ("pgherd_node_lag_seconds", "Age of what was replayed last, 0 if nothing waits."), view, |node| {
        node.delay.map(|delay| delay.as_secs_f64())
    });
    per_node(page, ("pgherd_node_timeline", "The server's timeline."), view, |node| {
        node.position.as_ref().map(|position| f64::from(position.timeline.0))
    });
    page.family(Kind::Gauge, "pgherd_node_replication", "1 for how a standby receives; empty is unknown.");
    for node in view.nodes.iter().filter(|node| !node.replication.state.is_empty()) {
        let (of, text) = (&node.replication, |text: &Option<Arc<str>>| text.as_deref().unwrap_or("").to_owned());
        let (id, upstream, slot) = (node.id.to_string(), text(&of.upstream), text(&of.slot));
        let labels =
            [("node", &*id), ("state", of.state), ("sync_state", of.sync), ("upstream", &upstream), ("slot", &slot)];
        page.count(&labels, 1);
    }
    page.family(Kind::Gauge, "pgherd_node_status", "1 for the status that the server has.");
    for node in &view.nodes {
        for status in [Status::Up, Status::Down, Status::Detached, Status::Quarantined] {
            let labels = [("node", &*node.id.to_string()), ("status", &*status.to_string())];
            page.count(&labels, u64::from(node.status == status));
        }
    }
    page.family(Kind::Gauge, "pgherd_node_role", "1 for the role that the server says it has.");
    for node in &view.nodes {
        for role in [Role::Primary, Role::Standby] {
            let labels = [("node", &*node.id.to_string()), ("role", &*role.to_string())];
            page.count(&labels, u64::from(node.role == role));
        }
    }
    page.family(Kind::Gauge, "pgherd_nodes_configured", "Servers that are configured.");
    page.count(&[], names.len() as u64);
}

/// Parts of a statement's time, and of what it does.
type Phase = (&'static str, fn(&Phases) -> &crate::metrics::Histogram);
type Part = (&'static str, fn(&Times) -> &Phases);

const PHASES: [Phase; 3] =
    [("waiting", |phases| &phases.waiting), ("server", |phases| &phases.server), ("total", |phases| &phases.total)];
const PARTS: [Part; 3] =
    [("read", |times| &times.read), ("write", |times| &times.write), ("other", |times| &times.other)];

fn statements(page: &mut Page, global: &Global, names: &[(NodeId, String)]) {
    page.family(Kind::Counter, "pgherd_statements", "Statements sent to servers, by what they do.");
    for (node, name) in names {
        for verb in Verb::ALL {
            let count = global.sum(|one| one.node(*node).verb(verb).get());
            page.count(&[("node", name), ("kind", verb.name())], count);
        }
    }
    page.family(Kind::Counter, "pgherd_server_errors", "Errors that servers raised.");
    let faults: [(&str, fn(&NodeCounts) -> u64); 3] = [
        ("error", |counts| counts.faults.errors.get()),
        ("fatal", |counts| counts.faults.fatals.get()),
        ("panic", |counts| counts.faults.panics.get()),
    ];
    for (node, name) in names {
        for (severity, of) in faults {
            page.count(&[("node", name), ("severity", severity)], global.sum(|one| of(one.node(*node))));
        }
    }
    let help = "Times of statements: waiting for a server, at the server, total. One in log.timed_every is timed and counts for the others.";
    page.family(Kind::Histogram, "pgherd_statement_seconds", help);
    for (node, name) in names {
        for (kind, part) in PARTS {
            for (phase, of) in PHASES {
                let times = global.counters.iter().filter_map(|one| one.node(*node).times());
                let all = times.fold(Sum::default(), |all, times| all.with(of(part(times))));
                if !all.is_empty() {
                    page.times(&[("node", name), ("kind", kind), ("phase", phase)], &all);
                }
            }
        }
    }
}

fn checks(page: &mut Page, source: &Source, names: &[(NodeId, String)]) {
    let records: Vec<_> =
        names.iter().map(|(node, name)| (name.as_str(), source.global.cluster.records.of(*node))).collect();
    page.family(Kind::Counter, "pgherd_health_checks", "Health checks that have ended, retries included.");
    for (node, record) in &records {
        page.count(&[("node", node), ("outcome", "success")], record.checks.success);
        page.count(&[("node", node), ("outcome", "failure")], record.checks.fail);
    }
    page.family(Kind::Counter, "pgherd_health_check_retries", "Retries of health checks.");
    for (node, record) in &records {
        page.count(&[("node", node)], record.checks.retries);
    }
    page.family(Kind::Histogram, "pgherd_health_probe_seconds", "How long one probe took, whatever came of it.");
    for (node, record) in &records {
        page.times(&[("node", node)], &Sum::default().with(&record.probes));
    }
    page.family(
        Kind::Histogram,
        "pgherd_connect_seconds",
        "How long it took to open a server connection, login included.",
    );
    for (node, record) in &records {
        page.times(&[("node", node)], &Sum::default().with(&record.connects));
    }
    page.family(Kind::Counter, "pgherd_connect_failures", "Server connections that could not be opened.");
    for (node, record) in &records {
        page.count(&[("node", node)], record.connect_failures);
    }
}

fn pools(page: &mut Page, rows: &[PoolRow]) {
    let rows = &rows[..rows.len().min(MOST_POOLS)];
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&PoolRow) -> f64| {
        page.family(Kind::Gauge, name, help);
        for row in rows {
            let node = row.key.node.to_string();
            page.value(&[("node", &node), ("database", &row.key.database), ("user", &row.key.user)], value(row));
        }
    };
    gauge("pgherd_pool_size", "Server connections that a pool may have.", &|row| row.size.into());
    gauge("pgherd_pool_open", "Server connections that are open or being opened.", &|row| row.open.into());
    gauge("pgherd_pool_idle", "Those of them that nobody uses.", &|row| row.idle.into());
    gauge("pgherd_pool_waiting", "Sessions that wait for one.", &|row| row.waiting.into());
    gauge("pgherd_pool_pinned", "Sessions that keep one for themselves.", &|row| row.pinned.into());
    gauge("pgherd_pool_longest_wait_seconds", "How long the session has waited that waits for longest.", &|row| {
        row.longest_wait.as_secs_f64()
    });
}

fn events(page: &mut Page, counts: &[EventCount]) {
    page.family(Kind::Counter, "pgherd_events", "Events by name: what the event log tells one by one.");
    for one in counts {
        page.count(&[("event", one.name), ("severity", one.severity.as_str())], one.count);
    }
    let help = "How long events took; those of a failover count from its beginning, so that they are its phases.";
    page.family(Kind::Histogram, "pgherd_event_seconds", help);
    for one in counts {
        let sum = Sum::default().with(&one.took);
        if !sum.is_empty() {
            page.times(&[("event", one.name)], &sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_metric() {
        let own: Vec<_> = COUNTERS.iter().map(|(name, ..)| *name).collect();
        let counted: Vec<_> = Counters::ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(own, counted);
    }
}
