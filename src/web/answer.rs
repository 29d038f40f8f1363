//! From a path to a status and a body. Pure but for what it is shown.

use hyper::body::Bytes;

use crate::cluster::ClusterView;
use crate::config::Settings;

use super::patroni;

/// What an answer is made of.
pub(super) struct Shown<'a> {
    pub(super) view: &'a ClusterView,
    pub(super) settings: &'a Settings,
    /// pgherd is about to end.
    pub(super) stopping: bool,
}

impl Shown<'_> {
    /// Statements that write get through.
    pub(super) fn takes_writes(&self) -> bool {
        !self.stopping && self.view.writes.open() && self.view.primary_node().is_some_and(|node| node.usable())
    }

    /// Statements that read get through.
    pub(super) fn takes_reads(&self) -> bool {
        !self.stopping && (self.takes_writes() || self.view.usable_standbys().next().is_some())
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn text(status: u16, text: &'static str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: Bytes::from_static(text.as_bytes()) }
    }

    pub(super) fn json(status: u16, value: &serde_json::Value) -> Self {
        Self { status, kind: "application/json", body: Bytes::from(format!("{value}\n")) }
    }
}

const PATHS: &str = "pgherd\n\n\
    /metrics      for Prometheus\n\
    /healthz      200: the process is well\n\
    /readyz       200: clients are served\n\
    /primary /replica?lag=16MB /read-only /health /cluster ...  as Patroni's; ?node=N asks about one server\n";

/// The answer to a request for `path`.
pub(super) fn to(path: &str, query: &str, shown: &Shown<'_>) -> Reply {
    match path {
        "/help" => Reply::text(200, PATHS),
        // That this is answered at all says it.
        "/healthz" => Reply::text(200, "ok\n"),
        "/readyz" if shown.takes_reads() => Reply::text(200, "ready\n"),
        "/readyz" => Reply::text(503, "not ready: no server can be used\n"),
        path => patroni::answer(path, query, shown).unwrap_or_else(|| Reply::text(404, "no such page\n")),
    }
}
