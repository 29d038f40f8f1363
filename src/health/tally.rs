//! Counts health checks as people count them: a probe with its retries is one check. Fed by `runner`; decides nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use super::engine::NodeSettings;
use super::reading::{Failure, Weight};
use crate::cluster::{Checks, NodeId};

/// What has become of a check when a probe ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    success: bool,
    retries: u32,
    took: Duration,
}

impl Ended {
    pub(super) fn count(self, checks: &mut Checks, at: SystemTime) {
        checks.ended(self.success, self.retries, self.took, at);
    }
}

/// The check of a node that is under way.
#[derive(Debug, Default)]
struct Check {
    most_retries: u32,
    /// When its first probe started.
    begun: Option<Instant>,
    /// When the probe under way started.
    probe: Option<Instant>,
    retries: u32,
    /// The last check has found it dead: no failure is forgiven until it answers again.
    dead: bool,
}

/// One entry per node.
#[derive(Debug, Default)]
pub(super) struct Tally {
    nodes: HashMap<NodeId, Check>,
}

impl Tally {
    pub(super) fn configure(&mut self, nodes: &[NodeSettings]) {
        self.nodes.retain(|id, _| nodes.iter().any(|node| node.id == *id));
        for node in nodes {
            let check = self.nodes.entry(node.id).or_default();
            *check = Check { most_retries: node.thresholds.max_retries, dead: check.dead, ..Check::default() };
        }
    }

    /// A probe starts.
    pub(super) fn started(&mut self, node: NodeId, now: Instant) {
        let check = self.nodes.entry(node).or_default();
        check.probe = Some(now);
        check.begun = check.begun.or(Some(now));
    }

    /// The node has answered. How long the probe took, and the end of its check.
    pub(super) fn answered(&mut self, node: NodeId, now: Instant) -> (Duration, Option<Ended>) {
        let check = self.nodes.entry(node).or_default();
        check.dead = false;
        (check.probe_took(now), Some(check.end(true, now)))
    }

    /// The probe has failed. A failure that is forgiven is followed by a retry, and the check goes on.
    pub(super) fn failed(&mut self, node: NodeId, failure: Failure, now: Instant) -> (Duration, Option<Ended>) {
        let check = self.nodes.entry(node).or_default();
        let took = check.probe_took(now);
        if failure.weight() == Weight::Counts && !check.dead && check.retries < check.most_retries {
            check.retries += 1;
            return (took, None);
        }
        check.dead |= failure.weight() == Weight::Counts;
        (took, Some(check.end(false, now)))
    }
}

impl Check {
    fn probe_took(&mut self, now: Instant) -> Duration {
        self.probe.take().map_or(Duration::ZERO, |began| now.saturating_duration_since(began))
    }

    fn end(&mut self, success: bool, now: Instant) -> Ended {
        let took = self.begun.take().map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        Ended { success, retries: std::mem::take(&mut self.retries), took }
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::{Fixed, Thresholds};
    use super::*;

    #[test]
    fn a_check_is_a_probe_with_its_retries() {
        let (node, base) = (NodeId(1), crate::support::clock::now());
        let at = |millis| base + Duration::from_millis(millis);
        let thresholds = Thresholds { max_retries: 2, ..Thresholds::default() };
        let settings = NodeSettings { id: node, name: String::new(), weight: 1.0, fixed: Fixed::Auto, thresholds };
        let mut tally = Tally::default();
        tally.configure(&[settings]);
        let ended = |success, retries, took| Some(Ended { success, retries, took: Duration::from_millis(took) });
        let mut probe = |from, to, failure: Option<Failure>| {
            tally.started(node, at(from));
            match failure {
                Some(failure) => tally.failed(node, failure, at(to)).1,
                None => tally.answered(node, at(to)).1,
            }
        };
        assert_eq!(probe(0, 2, None), ended(true, 0, 2));
        assert_eq!(probe(1_000, 1_001, Some(Failure::Refused)), None);
        assert_eq!(probe(1_300, 1_305, None), ended(true, 1, 305));
        for start in [2_000, 2_300] {
            assert_eq!(probe(start, start + 1, Some(Failure::Refused)), None);
        }
        assert_eq!(probe(2_600, 2_601, Some(Failure::Refused)), ended(false, 2, 601));
        assert_eq!(probe(3_000, 3_001, Some(Failure::Refused)), ended(false, 0, 1), "it is dead: nothing is forgiven");
        let mut checks = Checks::default();
        ended(true, 1, 305).expect("some").count(&mut checks, SystemTime::UNIX_EPOCH);
        ended(false, 2, 601).expect("some").count(&mut checks, SystemTime::UNIX_EPOCH);
        assert_eq!((checks.total, checks.success, checks.fail, checks.retries, checks.most_retries), (2, 1, 1, 3, 2));
        assert_eq!((checks.shortest, checks.longest), (Some(Duration::from_millis(305)), Duration::from_millis(601)));
        assert!((checks.average_retries() - 1.5).abs() < 1e-9 && (checks.average_millis() - 453.0).abs() < 1e-9);
    }
}
