//! HA H13, SCENARIOS S33: no hook is run twice for the same purpose, over all proxies and their deaths.

use crate::world::World;

pub(crate) fn check(world: &World) {
    for ((hook, id, node), runs) in &world.history.hooks {
        assert!(*runs < 2, "h13: {hook:?} number {id} was run {runs} times for node {node}");
    }
    for (old, runs) in &world.history.promoting_hooks {
        assert!(*runs < 2, "h13: failover_command was run {runs} times to replace node {old}");
    }
}
