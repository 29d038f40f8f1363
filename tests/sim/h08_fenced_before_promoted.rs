//! HA H8: when a promotion is sent, no connection of ours to the old primary is open any more.

use pgherd::cluster::NodeId;

use crate::world::World;

/// At the moment when `pg_promote()` is sent to `candidate`.
pub(crate) fn check(world: &World, candidate: NodeId) {
    for connection in world.proxy.connections.iter().filter(|connection| connection.open) {
        let node = connection.node;
        assert_eq!(
            node,
            usize::from(candidate.0),
            "h08: a connection to node {node} is open while {candidate} is promoted"
        );
    }
}
