//! Patroni's paths and status codes, so that load balancers and tools which ask Patroni can ask pgherd. Without `?node=` they are about
//! pgherd itself: does it take writes, or reads? With it about that server, by number or name.

use serde_json::{Value, json};

use crate::cluster::{NodeView, Role, Status};

use super::answer::{Reply, Shown};

/// 200 for yes, 503 for no, as in Patroni; `None`: not one of its paths.
pub(super) fn answer(path: &str, query: &str, shown: &Shown<'_>) -> Option<Reply> {
    if path == "/cluster" {
        return Some(Reply::json(200, &cluster(shown)));
    }
    let asks = Asks::of(path)?;
    let values = || query.split('&').filter_map(|pair| pair.split_once('='));
    let value = |key: &str| values().find(|(name, _)| *name == key).map(|(_, value)| value);
    let lag = match value("lag").map(bytes) {
        Some(None) => return Some(Reply::text(400, "lag is a number of bytes, or one with kB, MB, GB or TB\n")),
        lag => lag.flatten(),
    };
    let (yes, about) = match value("node") {
        Some(name) => {
            let Some(node) = shown.view.nodes.iter().find(|node| node.name == name || node.id.to_string() == name)
            else {
                return Some(Reply::text(404, "no such node\n"));
            };
            (asks.of_node(node, shown, lag), member(node, shown))
        }
        None => (asks.of_proxy(shown, lag), proxy(shown)),
    };
    Some(Reply::json(if yes { 200 } else { 503 }, &about))
}

/// What a path asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Primary,
    Replica,
    ReadOnly,
    Sync,
    Async,
    Health,
    Alive,
}

impl Asks {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" | "/primary" | "/master" | "/leader" | "/read-write" => Self::Primary,
            "/replica" => Self::Replica,
            "/read-only" | "/readiness" => Self::ReadOnly,
            "/synchronous" | "/sync" => Self::Sync,
            "/asynchronous" | "/async" => Self::Async,
            "/health" => Self::Health,
            "/liveness" => Self::Alive,
            _ => return None,
        })
    }

    fn of_proxy(self, shown: &Shown<'_>, lag: Option<u64>) -> bool {
        let standby = |asks: Self| shown.view.usable_standbys().any(|node| asks.of_node(node, shown, lag));
        match self {
            Self::Primary => shown.takes_writes(),
            Self::Replica | Self::Sync | Self::Async => !shown.stopping && standby(self),
            Self::ReadOnly => shown.takes_writes() || (!shown.stopping && standby(Self::Replica)),
            Self::Health => shown.view.nodes.iter().any(NodeView::usable),
            Self::Alive => true,
        }
    }

    fn of_node(self, node: &NodeView, shown: &Shown<'_>, lag: Option<u64>) -> bool {
        let primary = shown.view.primary == Some(node.id);
        let near = lag.is_none_or(|most| node.lag.is_some_and(|behind| behind <= most));
        let replica = node.usable() && !primary && node.role == Role::Standby && near;
        match self {
            Self::Primary => primary && shown.takes_writes(),
            Self::Replica => replica,
            Self::ReadOnly => replica || (primary && node.usable()),
            Self::Sync => replica && is_synchronous(node, shown),
            Self::Async => replica && !is_synchronous(node, shown),
            Self::Health | Self::Alive => node.usable(),
        }
    }
}

/// `synchronous_standby_names` of the primary counts it now.
fn is_synchronous(node: &NodeView, shown: &Shown<'_>) -> bool {
    let own = shown.settings.node(node.id).map_or(node.name.as_str(), |node| node.application_name.as_str());
    matches!(shown.view.sync_state(own), "sync" | "quorum")
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
    let streams = node.position.as_ref().is_some_and(|position| position.streaming);
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
    if !node.reason.is_empty()
        && let Some(fields) = member.as_object_mut()
    {
        fields.insert("why".to_owned(), json!(node.reason));
    }
    member
}
