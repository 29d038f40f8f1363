//! The immutable snapshot of the cluster that both planes read. Must not change after it is published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Epoch, History, Life, Lsn, NodeId, Role, Sample, Status, Succession, Timeline, Writes};

/// What the newest successful probe read from a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The position that matters for reads: inserted on a primary, replayed on a standby.
    pub sample: Sample,
    /// Standby: what was received, which may be ahead of what was replayed.
    pub received: Option<Lsn>,
    /// The server's timeline, 0 if unknown.
    pub timeline: Timeline,
    /// The system identifier; servers of one cluster share it. 0 if unknown.
    pub system: u64,
    /// Standby: the WAL receiver's state is `streaming`.
    pub streaming: bool,
    /// Where that timeline comes from, or the one that it received from before; none if it could not be asked for.
    pub history: Option<Arc<History>>,
    /// What is known of the age of what it has received.
    pub written: Option<Written>,
}

/// All of that timeline up to this position was written before that moment, whoever wrote it (HA H14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The timeline.
    pub timeline: Timeline,
    /// The end of what is meant.
    pub lsn: Lsn,
    /// The moment, by our clock; later than the truth if in doubt.
    pub by: Instant,
}

/// How a standby receives write-ahead log, in PostgreSQL's words; all empty for others, and while nothing new was read of it for too long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replication {
    /// `pg_stat_replication.state` at the primary; `streaming` by its own word alone if it streams from another server. Empty: it does not
    /// stream.
    pub state: &'static str,
    /// `sync_state` there, `async` if it streams from another server; empty if it does not stream, or cannot be told from others.
    pub sync: &'static str,
    /// What its WAL receiver is connected to, `host:port` as it knows it: the primary, or a standby that it cascades from.
    pub upstream: Option<Arc<str>>,
    /// The slot that it uses there.
    pub slot: Option<Arc<str>>,
}

/// One node as it was when the view was made.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Its number.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// What it said that it is.
    pub role: Role,
    /// Whether it may be used.
    pub status: Status,
    /// What the probes say about its life; `status` is what follows for statements.
    pub life: Life,
    /// Share of the reads, relative to the other nodes' weights; 0 takes none.
    pub weight: f64,
    /// Newest positions, once read.
    pub position: Option<Position>,
    /// `server_version_num`, 0 if unknown.
    pub version: u32,
    /// Bytes that a standby's replay is behind the primary's newest sample; unknown if either was read too long ago.
    pub lag: Option<u64>,
    /// How long ago the newest replayed transaction was committed; zero for a standby that has replayed all it received. Unknown if it was
    /// read too long ago.
    pub delay: Option<Duration>,
    /// How a standby receives.
    pub replication: Replication,
    /// Why it is not up, or, if it is, what keeps the monitor from asking it, for people; empty when all is well.
    pub reason: &'static str,
}

impl NodeView {
    /// May statements be sent to it?
    pub fn usable(&self) -> bool {
        self.status == Status::Up
    }

    /// The status in pgpool-II's words: `up`, `down`, `quarantine`.
    pub fn pgpool_status(&self) -> &'static str {
        match self.status {
            Status::Up => "up",
            Status::Down | Status::Detached => "down",
            Status::Quarantined => "quarantine",
        }
    }
}

/// A node in pgpool-II's words. Who is configured and was never seen is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgpoolNode {
    /// Whether it is used: `up`, `down`, `quarantine`.
    pub status: &'static str,
    /// It is used. What pgpool-II calls waiting, up and never used, is used here.
    pub usable: bool,
    /// What the server itself says by the last probe; `unknown` while it is late with an answer.
    pub server_status: &'static str,
    /// `primary` or `standby`, as it is used.
    pub role: &'static str,
    /// The same as the server says it; `unknown`.
    pub server_role: String,
    /// Bytes behind the primary.
    pub lag: u64,
    /// See [`Replication`].
    pub replication_state: &'static str,
    /// See [`Replication`].
    pub sync_state: &'static str,
}

/// The cluster as everyone sees it until the next view.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterView {
    /// Grows with each promotion. Goes back only from a candidate that partner proxies have never agreed on.
    pub epoch: Epoch,
    /// Grows with each published view whose roles, status, weights or `writes` differ from the one before.
    pub generation: u64,
    /// All nodes, in the order of their numbers.
    pub nodes: Vec<NodeView>,
    /// Where writes go; none while no primary is known.
    pub primary: Option<NodeId>,
    /// Whether statements that need the primary may go there; `failover` says so.
    pub writes: Writes,
    /// The primary's `synchronous_standby_names`, as last read (HA H9).
    pub synchronous: Arc<str>,
    /// How the present primary came by its role, for whoever was writing to the one before (HA H14).
    pub succession: Option<Succession>,
}

impl ClusterView {
    /// A view before anything is known.
    pub fn empty() -> Self {
        Self {
            epoch: Epoch(0),
            generation: 0,
            nodes: Vec::new(),
            primary: None,
            writes: Writes::Open,
            synchronous: Arc::default(),
            succession: None,
        }
    }

    /// The node with that number.
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// A node's role in pgpool-II's words: `primary` is where writes go, all others are `standby`.
    pub fn pgpool_role(&self, id: NodeId) -> &'static str {
        if self.primary == Some(id) { "primary" } else { "standby" }
    }

    /// A node as pgpool-II's tables and programs show it.
    pub fn pgpool_node(&self, id: NodeId) -> PgpoolNode {
        let (seen, primary) = (self.node(id), self.primary == Some(id));
        let replication = seen.map(|seen| &seen.replication).filter(|_| !primary);
        PgpoolNode {
            status: seen.map_or("down", NodeView::pgpool_status),
            usable: seen.is_some_and(NodeView::usable),
            server_status: match seen.map_or(Life::Unknown, |seen| seen.life) {
                Life::Well => "up",
                Life::Busy(_) | Life::Dead(_) => "down",
                Life::Unknown | Life::Suspect(_) => "unknown",
            },
            role: self.pgpool_role(id),
            server_role: seen.map_or("unknown".to_owned(), |seen| seen.role.to_string()),
            lag: seen.and_then(|seen| seen.lag).filter(|_| !primary).unwrap_or(0),
            replication_state: replication.map_or("", |replication| replication.state),
            sync_state: replication.map_or("", |replication| replication.sync),
        }
    }

    /// A node's share of the reads, from 0 to 1.
    pub fn share(&self, id: NodeId) -> f64 {
        let total: f64 = self.nodes.iter().map(|node| node.weight).sum();
        self.node(id).filter(|_| total > 0.0).map_or(0.0, |node| node.weight / total)
    }

    /// The primary's entry, if one is known.
    pub fn primary_node(&self) -> Option<&NodeView> {
        self.node(self.primary?)
    }

    /// Standbys that may be used now.
    pub fn usable_standbys(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.usable() && Some(node.id) != self.primary && node.role == Role::Standby)
    }
}
