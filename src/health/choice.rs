//! Which server is the primary, and which of the others may be served beside it. Pure; the rules in words:
//!
//! *Primary.* Only a server that says that it is not in recovery. The present one stays as long as it says so on the same
//! system and a timeline not older. When it is down, or says that it is in recovery, one that was promoted from this cluster takes its place:
//! same system, a higher timeline, and one that has begun on the present one as far as histories are known (HA H6). At the first choice the highest timeline wins, and nobody whose timeline an other node has
//! already left. If two cannot be told apart, there is none.
//!
//! *Standby* (HA H10). It *streams* and what it received is of the primary's timeline: served, and it has its standing for this epoch
//! and timeline. It does not stream (its primary restarted, or it restores from an archive): served as a lagging one only while it is at
//! most [`LAG_WITHOUT_STREAM`] behind **and** it has its standing, or its last restart point is of the primary's timeline. While the primary is
//! down there is nobody to stream from: standing, or a restart point of the last primary's timeline, is enough, unless it was seen on another
//! branch since. What was never seen beside a
//! primary is served only if all servers that answer agree on system and timeline.

use std::time::Instant;

use super::engine::Fixed;
use super::reading::{Reading, Receiver};
use crate::cluster::{Epoch, History, NodeId, Role, Status, Timeline, may_continue};

/// Bytes that a standby without a stream may be behind and still be served: one WAL segment, what a standby fed from an
/// archive alone is always behind.
pub const LAG_WITHOUT_STREAM: u64 = 16 << 20;

/// A node that answers.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its number.
    pub id: NodeId,
    /// The configuration lets it become primary.
    pub eligible: bool,
    /// Its newest answer.
    pub reading: &'a Reading,
}

/// Who the primary shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// As before, be it none or one that is down.
    Unchanged,
    /// Several claim it and cannot be told apart; as before.
    Ambiguous,
    /// This one, on that timeline of that system.
    Node(NodeId, Timeline, u64),
}

/// Chooses among the nodes that answer; `system` and `timeline` are those of the present primary, if there ever was one.
pub fn primary(
    nodes: &[Candidate<'_>],
    current: Option<NodeId>,
    system: Option<u64>,
    (timeline, history): (Timeline, Option<&History>),
) -> Choice {
    let claims = nodes.iter().filter(|node| node.eligible && node.reading.role == Role::Primary);
    let ours = claims.filter(|node| system.is_none_or(|system| system == node.reading.system));
    let found = |node: &Candidate<'_>| Choice::Node(node.id, node.reading.timeline, node.reading.system);
    if let Some(current) = current {
        let mut successors = Vec::new();
        for node in ours {
            if node.id == current && node.reading.timeline >= timeline {
                return found(node);
            }
            let begun_on_it = may_continue(node.reading.history.as_deref(), history);
            if node.id != current && node.reading.timeline > timeline && begun_on_it {
                successors.push(node);
            }
        }
        return newest(&successors)
            .map_or(if successors.is_empty() { Choice::Unchanged } else { Choice::Ambiguous }, found);
    }
    // Older than one that was primary and is configured no more: a thing of the past.
    let claims: Vec<&Candidate<'_>> = ours.filter(|node| node.reading.timeline >= timeline).collect();
    let Some(first) = claims.first() else { return Choice::Unchanged };
    if claims.iter().any(|node| node.reading.system != first.reading.system) {
        return Choice::Ambiguous;
    }
    match newest(&claims) {
        None => Choice::Ambiguous,
        Some(node) if nodes.iter().any(|other| left_behind(node.reading, other.reading)) => Choice::Unchanged,
        Some(node) => found(node),
    }
}

/// The only one with the highest timeline, if the others' lead to it as far as is known.
fn newest<'a>(nodes: &[&'a Candidate<'a>]) -> Option<&'a Candidate<'a>> {
    let highest = nodes.iter().map(|node| node.reading.timeline).max()?;
    let mut of_it = nodes.iter().filter(|node| node.reading.timeline == highest);
    let node = of_it.next()?;
    let history = |node: &'a Candidate<'a>| node.reading.history.as_deref();
    let lead_to_it = nodes.iter().all(|other| may_continue(history(node), history(other)));
    (of_it.next().is_none() && lead_to_it).then_some(*node)
}

/// Has `other` been on a later timeline of the same cluster than `reading`?
fn left_behind(reading: &Reading, other: &Reading) -> bool {
    other.system == reading.system && reached(other) > reading.timeline
}

fn reached(reading: &Reading) -> Timeline {
    reading.timeline.max(reading.checkpoint_timeline)
}

/// System and highest timeline, if all that answer are of one system.
pub fn consensus<'a>(readings: impl Iterator<Item = &'a Reading>) -> Option<(u64, Timeline)> {
    let mut agreed: Option<(u64, Timeline)> = None;
    for reading in readings {
        agreed = match agreed {
            None => Some((reading.system, reached(reading))),
            Some((system, timeline)) if system == reading.system => Some((system, timeline.max(reached(reading)))),
            Some(_) => return None,
        };
    }
    agreed
}

/// Proof that a standby was seen streaming from the primary of an epoch on its timeline. As long as neither changes, it is
/// on the same branch, streaming or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The epoch.
    pub epoch: Epoch,
    /// The primary's timeline in it.
    pub timeline: Timeline,
}

/// The result for one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Its status.
    pub status: Status,
    /// Why it is not up; empty if it is.
    pub reason: &'static str,
    /// It has shown its standing.
    pub proven: bool,
}

impl Judgement {
    /// Taken out, whatever it says.
    pub const DETACHED: Self = Self { status: Status::Detached, reason: "detached", proven: false };

    /// It could be used, but has died since it was, and waits to be attached.
    pub const WAITS: Self =
        Self { status: Status::Detached, reason: "was down and waits to be attached", proven: false };

    /// Not answering, and how.
    pub const fn down(reason: &'static str) -> Self {
        Self { status: Status::Down, reason, proven: false }
    }

    const fn out(reason: &'static str) -> Self {
        Self { status: Status::Quarantined, reason, proven: false }
    }

    const fn up(proven: bool) -> Self {
        Self { status: Status::Up, reason: "", proven }
    }
}

/// What is remembered of a node beyond its newest answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    /// Where it was last seen streaming.
    pub standing: Option<Standing>,
    /// The timeline of the primary whose branch it has left since, as [`Court::strayed`] found it.
    pub strayed: Option<Timeline>,
    /// It had replayed more than the primary had written: they are not on the same branch. Kept until the primary's position
    /// has passed it, since one comparison needs two answers in the right order.
    pub ahead: bool,
    /// It said that it is primary while the cluster's primary answered later than that: what that one has written since is not in it,
    /// so that it does not take its place by itself.
    pub rival: bool,
}

impl Record {
    /// Compares the node's two newest answers with the primary's newest: what it had replayed before the primary was asked
    /// cannot lie beyond the primary's answer.
    pub fn compare(&mut self, answers: [Option<&Seen>; 2], primary: Option<&Seen>) {
        let beyond = |seen: &Seen, primary: &Seen| seen.reading.lsn > primary.reading.lsn;
        let Some((newest, primary)) = answers[0].zip(primary) else {
            self.ahead = false;
            return;
        };
        let proof = |seen: &&Seen| seen.answered <= primary.asked && beyond(seen, primary);
        self.ahead = answers.into_iter().flatten().any(|seen| proof(&seen)) || (self.ahead && beyond(newest, primary));
    }
}

/// An answer, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When the question was sent.
    pub asked: Instant,
    /// When the answer was there.
    pub answered: Instant,
    /// The answer.
    pub reading: Reading,
}

/// What a node is judged against.
#[derive(Debug, Clone, Copy)]
pub struct Court<'a> {
    /// The chosen primary.
    pub primary: Option<NodeId>,
    /// It answers and says that it is one.
    pub primary_lives: bool,
    /// Its newest answer.
    pub reference: Option<&'a Seen>,
    /// The system identifier of the cluster, once there was a primary.
    pub system: Option<u64>,
    /// What all that answer agree on; used while there never was a primary.
    pub consensus: Option<(u64, Timeline)>,
    /// What a standby proves by streaming now; its timeline is the primary's.
    pub standing: Standing,
    /// Where the primary's timeline comes from.
    pub history: Option<&'a History>,
    /// The configuration says who is primary.
    pub appointed: bool,
}

impl Court<'_> {
    /// Judges a node that answers, by its newest answer and its record.
    pub fn judge(&self, id: NodeId, fixed: Fixed, seen: &Seen, record: Record) -> Judgement {
        let reading = &seen.reading;
        if self.is_copy(id, fixed, reading) {
            return Judgement::up(false);
        }
        if self.system.is_some_and(|system| system != reading.system) {
            return Judgement::out("belongs to another cluster (system identifier differs)");
        }
        match (reading.role == Role::Primary, self.primary == Some(id)) {
            (true, true) if reading.timeline == self.standing.timeline => Judgement::up(false),
            (true, true) => Judgement::out("says that it is primary on an older timeline than before"),
            (true, false) if fixed == Fixed::Standby => {
                Judgement::out("says that it is primary, but is configured as a standby")
            }
            (true, false) => Judgement::out("says that it is primary, but another one is, or none can be chosen"),
            (false, true) => Judgement::out("was the primary and is in recovery now"),
            (false, false) if fixed == Fixed::Primary => {
                Judgement::out("in recovery, but is configured as the primary")
            }
            (false, false) if self.primary.is_none() => self.without_primary(reading),
            (false, false) => self.standby(seen, record),
        }
    }

    /// A server of its own that the configuration calls a standby of the primary that it names: a logical replica, or one kept by triggers.
    /// Nothing can be compared; that it may be read is the configuration's word. One of the same system was a streaming standby, and
    /// was promoted: that is none.
    pub fn is_copy(&self, id: NodeId, fixed: Fixed, reading: &Reading) -> bool {
        let another = self.system.is_some_and(|system| system != reading.system);
        let standby = fixed == Fixed::Standby && self.primary != Some(id) && reading.role == Role::Primary;
        self.appointed && standby && another
    }

    fn without_primary(&self, reading: &Reading) -> Judgement {
        match self.consensus {
            Some((_, timeline)) if reached(reading) == timeline => Judgement::up(false),
            Some(_) => Judgement::out("on an older timeline than other servers"),
            None => Judgement::out("no primary is known and the servers disagree"),
        }
    }

    /// What an answer shows of the branch that its server is on; nothing if it receives from nobody and its history is not known.
    fn shown(&self, reading: &Reading) -> Option<Result<(), &'static str>> {
        let timeline = self.standing.timeline;
        let branch = match (reading.history.as_deref(), self.history) {
            // A restart point is never ahead of what was received.
            _ if reading.checkpoint_timeline > timeline => {
                Err("its last restart point is of a later timeline than the primary's")
            }
            _ if reading.timeline != Timeline(0) && reading.timeline != timeline => {
                Err("received from another timeline than the primary's")
            }
            // Known from when it received last, too.
            (Some(own), Some(history)) if own.timeline() == timeline => {
                let told = "on another branch: its timeline has the primary's number and another history";
                if own == history { Ok(()) } else { Err(told) }
            }
            _ if reading.timeline == Timeline(0) => return None,
            _ => Ok(()),
        };
        Some(branch)
    }

    /// The timeline of the primary whose branch a server has left, as far as its answers show: one that received from a newer one, or from
    /// one with another history, does not come back by receiving nothing. An older one is merely behind.
    pub fn strayed(&self, reading: &Reading, before: Option<Timeline>) -> Option<Timeline> {
        match self.shown(reading) {
            // Each answer says so again, until the server is rebuilt.
            _ if reading.checkpoint_timeline > self.standing.timeline => None,
            Some(Err(_)) if reached(reading) >= self.standing.timeline => Some(self.standing.timeline),
            Some(_) => None,
            None => before,
        }
    }

    fn standby(&self, seen: &Seen, record: Record) -> Judgement {
        let reading = &seen.reading;
        let timeline = self.standing.timeline;
        if let Some(Err(reason)) = self.shown(reading) {
            return Judgement::out(reason);
        }
        if record.strayed == Some(timeline) {
            return Judgement::out("had left the primary's branch when it was last seen to receive");
        }
        let branch = record.standing == Some(self.standing) || reading.checkpoint_timeline == timeline;
        if !self.primary_lives {
            let known = branch || reading.receiver == Receiver::Streaming;
            return if known {
                Judgement::up(false)
            } else {
                Judgement::out("cannot be compared while the primary is down")
            };
        }
        if record.ahead {
            return Judgement::out("ahead of the primary");
        }
        match reading.receiver {
            Receiver::Streaming => Judgement::up(true),
            Receiver::Hidden => Judgement::out("replication cannot be seen: the monitor role needs pg_monitor"),
            Receiver::Absent | Receiver::Waiting if branch && self.lag(reading) <= LAG_WITHOUT_STREAM => {
                Judgement::up(false)
            }
            Receiver::Absent | Receiver::Waiting => Judgement::out("not streaming from the primary"),
        }
    }

    fn lag(&self, reading: &Reading) -> u64 {
        self.reference.map_or(u64::MAX, |primary| primary.reading.lsn.0.saturating_sub(reading.lsn.0))
    }
}
