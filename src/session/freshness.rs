//! Which standbys are fresh enough for a session: it reads what it wrote, and never goes back in time (SESSIONS R7). Pure but for
//! looking at the published samples.

use crate::cluster::{Lsn, NodeId, Shared};
use crate::support::clock::{Instant, now};

/// What a session must be able to see.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Freshness {
    /// It wrote, or read on the primary, at that time, and no sample asked later has been seen yet.
    since: Option<Instant>,
    /// A standby must have replayed this.
    need: Option<Lsn>,
    /// Everything written up to then is within `need`.
    seen: Option<Instant>,
    /// The standby that it read last, and when.
    last: Option<(NodeId, Instant)>,
    /// Its reads are to go to another node than the last one did.
    moved: bool,
}

impl Freshness {
    /// A transaction on the primary ended: later reads must see at least as much.
    pub(super) fn primary_at(&mut self, at: Instant) {
        self.since = Some(at);
        self.last = None;
    }

    /// Somebody wrote at that time, and this session must see it.
    pub(super) fn at_least(&mut self, at: Instant) {
        if self.since.is_none_or(|since| since < at) && self.seen < Some(at) {
            self.since = Some(at);
        }
    }

    /// Any standby will do: nothing to be seen, and the reads stay where they were.
    pub(super) fn is_free(&self) -> bool {
        self.since.is_none() && self.need.is_none() && !self.moved
    }

    /// The last read was on another node.
    pub(super) fn goes_elsewhere(&self, node: NodeId) -> bool {
        self.last.is_some_and(|(last, _)| last != node)
    }

    /// The next read goes to another node than the last.
    pub(super) fn moves(&mut self) {
        self.moved = self.last.is_some();
    }

    /// A read on a standby ended.
    pub(super) fn read_on(&mut self, node: NodeId) {
        self.last = Some((node, now()));
        self.moved = false;
    }

    /// May the session read on `node` now?
    pub(super) fn allows(&mut self, node: NodeId, cluster: &Shared) -> bool {
        self.resolve(cluster);
        if self.since.is_some() {
            cluster.samples.want(now());
            return false;
        }
        let fresh = self.need.is_none_or(|need| cluster.standby_sample(node).is_some_and(|sample| sample.lsn >= need));
        if !fresh {
            cluster.samples.want(now());
        }
        fresh && self.not_behind_last(node, cluster)
    }

    /// The position of `node` counts only for a connection that was there before it was read: a standby that restarts may begin
    /// again behind it.
    pub(super) fn needs_newer_than(&self, node: NodeId, opened: Instant, cluster: &Shared) -> bool {
        if self.need.is_none() || cluster.standby_sample(node).is_some_and(|sample| opened < sample.asked) {
            return false;
        }
        cluster.samples.want(now());
        true
    }

    /// The first sample of the primary that was asked after the write says what a standby must have replayed.
    fn resolve(&mut self, cluster: &Shared) {
        let Some(since) = self.since else { return };
        if let Some(sample) = cluster.primary_sample().filter(|sample| sample.asked > since) {
            self.need = Some(sample.lsn.max(self.need.unwrap_or_default()));
            self.seen = Some(sample.asked);
            self.since = None;
        }
    }

    /// Moving to another standby needs a sample of the old one that was asked after the last read there.
    fn not_behind_last(&self, node: NodeId, cluster: &Shared) -> bool {
        let Some((last, at)) = self.last.filter(|(last, _)| *last != node) else { return true };
        let seen = cluster.standby_sample(last).filter(|sample| sample.asked > at);
        let fresh = seen.is_some_and(|seen| cluster.standby_sample(node).is_some_and(|sample| sample.lsn >= seen.lsn));
        if !fresh {
            cluster.samples.want(now());
        }
        fresh
    }
}
