//! Patroni's paths and status codes, so that load balancers and tools which ask Patroni can ask pgherd. Without `?node=` they are about
//! pgherd itself: does it take writes, or reads? With it about that server, by number or name.

use serde_json::{Value, json};

use crate::cluster::{NodeView, Role, Status};

use super::answer::{Reply, Shown};

/// 200 for yes, 503 for no, as in Patroni; `None`: not one of its paths.
pub(super) fn answer(path: &str, query: &str, shown: &Shown<'_>) -> Option<Reply> {
    match path {
        "/cluster" => return Some(Reply::json(200, &cluster(shown))),
        "/patroni" => return Some(patroni(query, shown)),
        _ => {}
    }
    let asks = Asks::of(path)?;
    let lag = match value(query, "lag").map(bytes) {
        Some(None) => return Some(Reply::text(400, "lag is a number of bytes, or one with kB, MB, GB or TB\n")),
        lag => lag.flatten(),
    };
    let (yes, about) = match value(query, "node") {
        Some(name) => match find(name, shown) {
            Some(node) => (asks.of_node(node, shown, lag), member(node, shown)),
            None => return Some(Reply::text(404, "no such node\n")),
        },
        None => (asks.of_proxy(shown, lag), proxy(shown)),
    };
    Some(Reply::json(if yes { 200 } else { 503 }, &about))
}

/// What a query says of a key.
fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    let mut values = query.split('&').filter_map(|pair| pair.split_once('='));
    values.find(|(name, _)| *name == key).map(|(_, value)| value)
}

fn find<'a>(name: &str, shown: &Shown<'a>) -> Option<&'a NodeView> {
    shown.view.nodes.iter().find(|node| node.name == name || node.id.to_string() == name)
}

/// For monitoring: the facts, with 200 whatever they are.
fn patroni(query: &str, shown: &Shown<'_>) -> Reply {
    match value(query, "node").map(|name| find(name, shown)) {
        None => Reply::json(200, &proxy(shown)),
        Some(Some(node)) => Reply::json(200, &member(node, shown)),
        Some(None) => Reply::text(404, "no such node\n"),
    }
}

/// What a path asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Primary,
    /// A standby cluster's leader, which pgherd never has.
    StandbyLeader,
    Replica,
    ReadOnly,
    Sync,
    ReadOnlySync,
    Quorum,
    ReadOnlyQuorum,
    Async,
    Health,
    Alive,
}

impl Asks {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" | "/primary" | "/master" | "/leader" | "/read-write" => Self::Primary,
            "/standby-leader" | "/standby_leader" => Self::StandbyLeader,
            "/replica" => Self::Replica,
            "/read-only" | "/readiness" => Self::ReadOnly,
            "/synchronous" | "/sync" => Self::Sync,
            "/read-only-synchronous" | "/read-only-sync" => Self::ReadOnlySync,
            "/quorum" => Self::Quorum,
            "/read-only-quorum" => Self::ReadOnlyQuorum,
            "/asynchronous" | "/async" => Self::Async,
            "/health" => Self::Health,
            "/liveness" => Self::Alive,
            _ => return None,
        })
    }

    /// The same without the primary, for those that are about reads.
    fn of_standbys(self) -> Self {
        match self {
            Self::ReadOnly => Self::Replica,
            Self::ReadOnlySync => Self::Sync,
            Self::ReadOnlyQuorum => Self::Quorum,
            other => other,
        }
    }

    fn of_proxy(self, shown: &Shown<'_>, lag: Option<u64>) -> bool {
        let asks = self.of_standbys();
        let standby = || !shown.stopping && shown.view.usable_standbys().any(|node| asks.of_node(node, shown, lag));
        match self {
            Self::Primary => shown.takes_writes(),
            Self::StandbyLeader => false,
            Self::Replica | Self::Sync | Self::Quorum | Self::Async => standby(),
            Self::ReadOnly | Self::ReadOnlySync | Self::ReadOnlyQuorum => shown.takes_writes() || standby(),
            Self::Health => shown.view.nodes.iter().any(NodeView::usable),
            Self::Alive => true,
        }
    }

    fn of_node(self, node: &NodeView, shown: &Shown<'_>, lag: Option<u64>) -> bool {
        let primary = shown.view.primary == Some(node.id);
        let near = lag.is_none_or(|most| node.lag.is_some_and(|behind| behind <= most));
        let replica = node.usable() && !primary && node.role == Role::Standby && near;
        // Who does not stream acknowledges nothing.
        let sync = || node.replication.sync;
        match self {
            Self::Primary => primary && shown.takes_writes(),
            Self::StandbyLeader => false,
            Self::Replica => replica,
            Self::Sync => replica && sync() == "sync",
            Self::Quorum => replica && sync() == "quorum",
            Self::Async => replica && !matches!(sync(), "sync" | "quorum"),
            Self::ReadOnly | Self::ReadOnlySync | Self::ReadOnlyQuorum => {
                (primary && node.usable()) || self.of_standbys().of_node(node, shown, lag)
            }
            Self::Health | Self::Alive => node.usable(),
        }
    }
}

/// `16MB`, `1000`.
fn bytes(text: &str) -> Option<u64> {
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kb" => 1,
        "mb" => 2,
        "gb" => 3,
        "tb" => 4,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1024_u64.pow(power))
}

fn proxy(shown: &Shown<'_>) -> Value {
    let view = shown.view;
    json!({
        "state": if shown.takes_reads() { "running" } else { "stopped" },
        "role": if shown.takes_writes() { "primary" } else { "replica" },
        "epoch": view.epoch.0,
        "pgherd": { "version": env!("CARGO_PKG_VERSION") },
    })
}

/// The list of members in the words of `GET /cluster`.
fn cluster(shown: &Shown<'_>) -> Value {
    let members: Vec<Value> = shown.view.nodes.iter().map(|node| member(node, shown)).collect();
    json!({ "members": members, "scope": "pgherd", "epoch": shown.view.epoch.0 })
}

fn member(node: &NodeView, shown: &Shown<'_>) -> Value {
    let settings = shown.settings.node(node.id);
    let leader = shown.view.primary == Some(node.id);
    let streams = !node.replication.state.is_empty();
    let state = match node.status {
        Status::Up if streams => "streaming",
        Status::Up => "running",
        Status::Down => "stopped",
        Status::Detached | Status::Quarantined => "out",
    };
    let mut member = json!({
        "name": node.name,
        "id": node.id.0,
        "role": if leader { "leader" } else { "replica" },
        "state": state,
        "host": settings.map_or("", |node| node.host.as_str()),
        "port": settings.map_or(0, |node| node.port),
        "timeline": node.position.as_ref().map_or(0, |position| position.timeline.0),
    });
    if !leader && let Some(fields) = member.as_object_mut() {
        fields.insert("lag".to_owned(), node.lag.map_or_else(|| json!("unknown"), |lag| json!(lag)));
    }
    for (name, value) in [("upstream", &node.replication.upstream), ("slot", &node.replication.slot)] {
        if let (Some(value), Some(fields)) = (value.as_deref(), member.as_object_mut()) {
            fields.insert(name.to_owned(), json!(value));
        }
    }
    if !node.reason.is_empty()
        && let Some(fields) = member.as_object_mut()
    {
        fields.insert("why".to_owned(), json!(node.reason));
    }
    member
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterView, Epoch, Life, Lsn, NodeId, Position, Replication, Sample, Timeline};
    use crate::config::Settings;
    use std::path::Path;

    fn position(streaming: bool) -> Position {
        let sample = Sample { asked: crate::support::clock::now(), lsn: Lsn(100), epoch: Epoch(1) };
        Position { sample, received: None, timeline: Timeline(1), system: 7, streaming, history: None, written: None }
    }

    fn node(id: u16, role: Role, lag: Option<u64>) -> NodeView {
        NodeView {
            id: NodeId(id),
            name: format!("n{id}"),
            role,
            status: Status::Up,
            life: Life::Well,
            weight: 1.0,
            position: Some(position(role == Role::Standby)),
            version: 150_000,
            lag,
            delay: None,
            replication: crate::cluster::Replication::default(),
            reason: "",
        }
    }

    /// Status of each path about each node: a primary, and two standbys that its setting counts so.
    fn statuses(sync: [&'static str; 2], path: &str) -> [u16; 3] {
        let file = "[[node]]\nid = 0\nhost = \"a\"\n[[node]]\nid = 1\nhost = \"b\"\n[[node]]\nid = 2\nhost = \"c\"\n";
        let settings = Settings::parse(file, Path::new("/etc/pgherd.toml")).expect("good");
        let mut view = ClusterView::empty();
        view.nodes =
            vec![node(0, Role::Primary, None), node(1, Role::Standby, Some(5)), node(2, Role::Standby, Some(5_000))];
        view.primary = Some(NodeId(0));
        for (node, sync) in view.nodes[1..].iter_mut().zip(sync) {
            node.replication = Replication { state: "streaming", sync, ..Replication::default() };
        }
        let shown = Shown { view: &view, settings: &settings, stopping: false };
        let mut away = view.clone();
        away.nodes[1].replication = Replication::default();
        let broken = Shown { view: &away, settings: &settings, stopping: false };
        for path in ["/sync", "/quorum"] {
            let said = answer(path, "node=1", &broken).expect("one of its paths").status;
            assert_eq!(said, 503, "{path}: it does not stream");
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        [0, 1, 2].map(|id| answer(path, &format!("{query}&node={id}"), &shown).expect("one of its paths").status)
    }

    #[test]
    fn standbys_are_told_apart_by_what_the_primary_waits_for() {
        let (one, any, none) = (["sync", "async"], ["quorum", "quorum"], ["async", "async"]);
        for (sync, path, wanted) in [
            (one, "/sync", [503, 200, 503]),
            (["potential", "sync"], "/sync", [503, 503, 200]),
            (one, "/quorum", [503, 503, 503]),
            (one, "/async", [503, 503, 200]),
            (one, "/read-only-sync", [200, 200, 503]),
            (any, "/synchronous", [503, 503, 503]),
            (any, "/quorum", [503, 200, 200]),
            (any, "/read-only-quorum?lag=4kB", [200, 200, 503]),
            (any, "/asynchronous", [503, 503, 503]),
            (none, "/async?lag=4kB", [503, 200, 503]),
            (none, "/read-only", [200, 200, 200]),
            (none, "/replica?lag=6", [503, 200, 503]),
            (none, "/standby-leader", [503, 503, 503]),
            (none, "/patroni", [200, 200, 200]),
        ] {
            assert_eq!(statuses(sync, path), wanted, "{sync:?} {path}");
        }
    }
}
