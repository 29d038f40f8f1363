//! HA H4, H5, H13: whoever sends a promotion holds writes, has the decision for this candidate on disk, on a majority's disks if it has
//! partners, and, unless an operator has had a say or it was decided before, has the locks of a majority of the standbys.

use pgherd::cluster::{NodeId, Writes};
use pgherd::failover::engine::{IntentStep, Journal};

use crate::world::World;

/// At the moment when `pg_promote()`, or `failover_command` for it, is sent.
pub(crate) fn check(world: &World, by: usize, candidate: NodeId, first: bool) {
    let proxy = &world.proxies[by];
    assert_ne!(proxy.view.writes, Writes::Open, "h04: proxy {by} promotes node {candidate} and lets writes begin");
    let decided = |journal: &Journal| {
        let intent = journal.intent.as_ref();
        intent.is_some_and(|intent| intent.step == IntentStep::Promoting && intent.candidate == Some(candidate.0))
    };
    let agreed = world.group.as_ref().map(|group| group.agreed_by(by));
    let own = decided(&proxy.disk) || !first;
    let written = own && agreed.as_ref().is_none_or(|journal| journal.as_ref().is_some_and(decided));
    assert!(written, "h04: proxy {by} promotes node {candidate}, and that is not written down everywhere: {agreed:?}");
    let ordered = proxy.process.as_ref().is_some_and(|process| process.ordered || process.attached);
    let locks = world.servers.iter().filter(|server| server.lock.is_some_and(|lock| lock.holder == proxy.incarnation));
    let standbys = world.servers.len() - 1 - proxy.disk.detached.len();
    let enough = locks.count() > standbys / 2;
    assert!(!first || ordered || enough, "h04: proxy {by} promotes node {candidate} without the locks of a majority");
}
