//! HA H10: a standby that reads may be sent to has, as far as it was seen, nothing that its primary has not.

use pgherd::cluster::ClusterView;

use crate::server::records;
use crate::world::World;

/// When a proxy has a new view.
pub(crate) fn check(world: &World, by: usize, view: &ClusterView) {
    let Some(primary) = view.primary else { return };
    let branch = &world.servers[usize::from(primary.0)].log;
    for node in view.usable_standbys() {
        let Some(position) = &node.position else {
            panic!("h10: proxy {by} serves node {} and does not know where it is", node.id);
        };
        let log = &world.servers[usize::from(node.id.0)].log;
        let seen = &log[..log.len().min(records(position.sample.lsn))];
        assert!(
            branch.starts_with(seen),
            "h10: proxy {by} serves node {}, which has left node {primary}'s branch",
            node.id
        );
    }
}
