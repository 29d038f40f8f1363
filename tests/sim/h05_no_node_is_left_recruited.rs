//! HA H5, SCENARIOS S37: whatever happened, no node keeps our marker instead of its `primary_conninfo`, nor our lock.

use crate::world::World;

pub(crate) fn check(world: &World) {
    for (id, server) in world.servers.iter().enumerate() {
        assert!(!server.marker, "h05: node {id} is left recruited");
        assert!(server.lock.is_none(), "h05: node {id} is left locked");
    }
}
