//! The view that the engine makes of what it knows: what was read of a node counts for as long as it is not too old.

use std::time::Instant;

use super::{Engine, Judgement, Node, Receiver, Seen};
use crate::cluster::{ClusterView, Epoch, NodeId, NodeView, Position, Replication, Role, Sample, Status};
use crate::health::reading::{Failure, Weight};
use crate::health::senders::{self, Sender, Stream};

/// What was read of a node is too old after so many of its periods and one timeout (4 s by default): how far it is behind is unknown then, and
/// how it receives. Longer than what one lost probe makes of it, and all that it takes for a server that lives and cannot be asked.
pub const STALE_PERIODS: u32 = 3;

impl Node {
    /// When the newest answer becomes too old.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        let thresholds = self.settings.thresholds;
        Some(self.last.as_ref()?.asked + thresholds.period * STALE_PERIODS + thresholds.timeout)
    }

    /// The newest answer, if it is not too old.
    fn recent(&self, now: Instant) -> Option<&Seen> {
        self.last.as_ref().filter(|_| self.stale_at().is_some_and(|stale| now < stale))
    }

    /// What of a living server keeps us from asking it, or from asking it over a new connection.
    pub(super) fn hindrance(&self) -> Option<Failure> {
        let alive = |failure: &Failure| failure.weight() == Weight::Alive;
        self.failure.filter(alive).or(self
            .last
            .as_ref()
            .and_then(|seen| seen.reading.refused)
            .filter(|_| self.failure.is_none()))
    }
}

/// What of the primary is needed to say how the others stand to it.
struct Reference<'a> {
    primary: Option<NodeId>,
    seen: Option<&'a Seen>,
    senders: Option<&'a [Sender]>,
    streams: Vec<&'a Stream>,
    epoch: Epoch,
    now: Instant,
}

impl Engine {
    pub(super) fn make_view(
        &self,
        primary: Option<NodeId>,
        epoch: Epoch,
        judgements: &[Judgement],
        now: Instant,
    ) -> ClusterView {
        let node = primary.and_then(|id| self.nodes.iter().find(|node| node.settings.id == id));
        // One that is down writes nothing more: what it had last stays what the others are compared with.
        let seen = node.and_then(|node| if node.is_up() { node.recent(now) } else { node.last.as_ref() });
        let senders = node.and_then(|node| node.recent(now)?.reading.senders.as_deref());
        let streams = self.nodes.iter().filter_map(|node| node.recent(now)?.reading.stream.as_ref()).collect();
        let reference = Reference { primary, seen, senders, streams, epoch, now };
        let nodes = self.nodes.iter().zip(judgements).map(|(node, judgement)| node_view(node, *judgement, &reference));
        ClusterView {
            epoch,
            generation: self.view.generation,
            nodes: nodes.collect(),
            primary,
            writes: self.ruling.writes,
            synchronous: self.synchronous.clone(),
            succession: self.ruling.succession.filter(|succession| succession.after == epoch),
        }
    }
}

fn node_view(node: &Node, judgement: Judgement, reference: &Reference<'_>) -> NodeView {
    let reading = node.last.as_ref().map(|seen| &seen.reading);
    // What the configuration calls a standby is one for everybody.
    let role = if node.copy { Role::Standby } else { reading.map_or(Role::Unknown, |reading| reading.role) };
    let position = node.last.as_ref().map(|Seen { asked, reading, .. }| Position {
        history: reading.history.clone(),
        written: node.written,
        sample: Sample { asked: *asked, lsn: reading.lsn, epoch: reference.epoch },
        received: reading.received,
        timeline: reading.timeline,
        system: reading.system,
        streaming: reading.receiver == Receiver::Streaming,
    });
    let standby = node.recent(reference.now).map(|seen| &seen.reading).filter(|reading| reading.role == Role::Standby);
    let lag = standby.and_then(|reading| Some(reference.seen?.reading.lsn.0.saturating_sub(reading.lsn.0)));
    let hindrance = node.hindrance().filter(|_| judgement.status == Status::Up);
    NodeView {
        id: node.settings.id,
        name: node.settings.name.clone(),
        role,
        status: judgement.status,
        life: node.life(reference.now),
        weight: node.settings.weight,
        position,
        version: reading.map_or(0, |reading| reading.version),
        lag,
        delay: standby.and_then(|reading| reading.delay),
        replication: replication(node, reference),
        reason: hindrance.map_or(judgement.reason, Failure::as_str),
    }
}

/// How it receives, by its own word and the primary's. Nothing where that is too old, or not a standby's.
fn replication(node: &Node, reference: &Reference<'_>) -> Replication {
    let seen = node.recent(reference.now).filter(|_| node.is_up() && reference.primary != Some(node.settings.id));
    let Some(reading) = seen.map(|seen| &seen.reading).filter(|reading| reading.role == Role::Standby) else {
        return Replication::default();
    };
    let stream = reading.stream.as_ref();
    let (state, sync) = match reading.receiver {
        Receiver::Streaming => senders::told(stream, reference.senders, reference.streams.iter().copied()),
        Receiver::Absent | Receiver::Hidden | Receiver::Waiting => ("", ""),
    };
    Replication {
        state,
        sync,
        upstream: stream.map(|stream| stream.upstream.clone()),
        slot: stream.and_then(|stream| stream.slot.clone()),
    }
}
