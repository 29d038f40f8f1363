//! What the administration port tells of nodes, in pgpool-II's fields and for pgherd's own client. Reads what is published.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cluster::{ClusterView, NodeId, NodeRecord, NodeView, PgpoolNode, Shared, Status};
use crate::config::{Node, PcpLayout};
use crate::support::clock::{millis, stamp};

/// pgpool-II's weights are parts of this number.
const RAND_MAX: f64 = 2_147_483_647.0;

/// One node as it is told.
pub(super) struct Told<'a> {
    node: &'a Node,
    view: &'a ClusterView,
    seen: Option<&'a NodeView>,
    record: NodeRecord,
    shown: PgpoolNode,
}

impl<'a> Told<'a> {
    pub(super) fn new(node: &'a Node, view: &'a ClusterView, shared: &Shared) -> Self {
        let shown = view.pgpool_node(node.id);
        Self { node, view, seen: view.node(node.id), record: shared.records.of(node.id), shown }
    }

    fn quarantined(&self) -> bool {
        self.seen.is_some_and(|seen| seen.status == Status::Quarantined)
    }

    fn is_primary(&self) -> bool {
        self.view.primary == Some(self.node.id)
    }

    /// The fields of `i NodeInfo`. From 4.4 on they say whether the delay is in bytes or, `by_time`, in microseconds.
    pub(super) fn node_info(&self, layout: PcpLayout, by_time: bool) -> Vec<String> {
        let by_time = by_time && layout >= PcpLayout::V44;
        let age = self.seen.and_then(|seen| seen.delay).filter(|_| !self.is_primary()).unwrap_or_default();
        let role = if self.is_primary() { "2" } else { "3" };
        let since = self.record.changed.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let mut fields = vec![
            self.node.host.clone(),
            self.node.port.to_string(),
            // 2: up, 3: down.
            if self.shown.usable { "2" } else { "3" }.to_owned(),
            u8::from(self.quarantined()).to_string(),
            self.shown.server_status.to_owned(),
            format!("{:.6}", self.view.share(self.node.id) * RAND_MAX),
            role.to_owned(),
            self.shown.server_role.clone(),
            if by_time { age.as_micros().to_string() } else { self.shown.lag.to_string() },
            self.shown.replication_state.to_owned(),
            self.shown.sync_state.to_owned(),
            since.map_or(0, |since| since.as_secs()).to_string(),
        ];
        if layout >= PcpLayout::V44 {
            fields.insert(8, u8::from(by_time).to_string());
        }
        fields
    }

    /// The fields of `h`.
    pub(super) fn health_checks(&self) -> Vec<String> {
        let mut fields = vec![
            self.node.id.to_string(),
            self.node.host.clone(),
            self.node.port.to_string(),
            self.shown.status.to_owned(),
            self.shown.role.to_owned(),
        ];
        fields.extend(self.record.pgpool_fields());
        fields
    }

    /// For pgherd's own client.
    pub(super) fn json(&self) -> Value {
        let position = self.seen.and_then(|seen| seen.position.as_ref());
        json!({
            "node": self.node.id.0,
            "name": self.node.name,
            "host": self.node.host,
            "port": self.node.port,
            "status": self.seen.map_or("unknown".to_owned(), |seen| seen.status.to_string()),
            "reason": self.seen.map_or("", |seen| seen.reason),
            "role": self.shown.role,
            "server_status": self.shown.server_status,
            "server_role": self.shown.server_role,
            "weight": self.view.share(self.node.id),
            "lsn": position.map(|position| position.sample.lsn.to_string()),
            "timeline": position.map(|position| position.timeline.0),
            "lag_bytes": self.seen.and_then(|seen| seen.lag),
            "delay_seconds": self.seen.and_then(|seen| seen.delay).map(|delay| delay.as_secs_f64()),
            "replication_state": self.shown.replication_state,
            "sync_state": self.shown.sync_state,
            "upstream": self.seen.and_then(|seen| seen.replication.upstream.as_deref()),
            "slot": self.seen.and_then(|seen| seen.replication.slot.as_deref()),
            "since": self.record.changed.map(stamp),
        })
    }

    /// The same for its health checks.
    pub(super) fn json_checks(&self) -> Value {
        let checks = &self.record.checks;
        json!({
            "node": self.node.id.0,
            "name": self.node.name,
            "status": self.seen.map_or("unknown".to_owned(), |seen| seen.status.to_string()),
            "since": self.record.changed.map(stamp),
            "total": checks.total,
            "success": checks.success,
            "fail": checks.fail,
            "skip": checks.skip,
            "retries": checks.retries,
            "average_retries": checks.average_retries(),
            "most_retries": checks.most_retries,
            "longest_ms": millis(checks.longest),
            "shortest_ms": checks.shortest.map(millis),
            "average_ms": checks.average_millis(),
            "last": checks.last.map(stamp),
            "last_success": checks.last_success.map(stamp),
            "last_skip": checks.last_skip.map(stamp),
            "last_fail": checks.last_fail.map(stamp),
        })
    }
}

/// A node of that number.
pub(super) fn find(nodes: &[Node], id: NodeId) -> Option<&Node> {
    nodes.iter().find(|node| node.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Epoch, Life, Role};
    use crate::config::Settings;
    use crate::support::clock::now;
    use std::path::Path;
    use std::time::Duration;

    fn settings() -> Settings {
        let file = "[[node]]\nid = 0\nhost = \"/run/pg\"\nport = 21002\n[[node]]\nid = 2\nhost = \"b\"\nname = \"b\"\n";
        Settings::parse(file, Path::new("/etc/pgherd.toml")).expect("good")
    }

    fn node(id: u16, role: Role, weight: f64) -> NodeView {
        NodeView {
            id: NodeId(id),
            name: String::new(),
            role,
            status: Status::Up,
            life: Life::Well,
            weight,
            position: None,
            version: 150_000,
            lag: Some(17),
            delay: None,
            replication: crate::cluster::Replication::default(),
            reason: "",
        }
    }

    #[test]
    fn fields_are_those_of_each_version() {
        let (settings, shared) = (settings(), Shared::new(now()));
        let mut view = ClusterView::empty();
        view.epoch = Epoch(1);
        view.nodes = vec![node(0, Role::Primary, 1.0), node(2, Role::Standby, 3.0)];
        view.primary = Some(NodeId(0));
        view.nodes[1].status = Status::Quarantined;
        view.nodes[1].life = Life::Dead(now());
        view.nodes[1].delay = Some(Duration::from_millis(2_500));
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_219_840);
        shared.records.note(NodeId(0), |record| record.changed = Some(changed));
        let told = |id: usize| Told::new(&settings.nodes[id], &view, &shared);
        let primary = "/run/pg 21002 2 0 up 536870911.750000 2 primary 0   1795219840";
        assert_eq!(told(0).node_info(PcpLayout::V43, true).join(" "), primary);
        let standby = "b 5432 3 1 down 1610612735.250000 3 standby 17   0";
        assert_eq!(told(1).node_info(PcpLayout::V43, true).join(" "), standby);
        let standby = "b 5432 3 1 down 1610612735.250000 3 standby 0 17   0";
        assert_eq!(told(1).node_info(PcpLayout::V44, false).join(" "), standby);
        assert_eq!(told(1).node_info(PcpLayout::V47, true)[8..10].join(" "), "1 2500000");
        assert_eq!(told(0).health_checks().len(), 20);
        assert_eq!(told(0).health_checks()[..6].join("|"), "0|/run/pg|21002|up|primary|2026-11-21 00:10:40");
    }

    #[test]
    fn a_node_that_nobody_has_seen_is_down() {
        let (settings, shared, view) = (settings(), Shared::new(now()), ClusterView::empty());
        let told = Told::new(&settings.nodes[0], &view, &shared);
        let fields = told.node_info(PcpLayout::V43, true);
        assert_eq!((fields[2].as_str(), fields[4].as_str(), fields[7].as_str()), ("3", "unknown", "unknown"));
        assert_eq!(told.json()["status"], "unknown");
    }
}
