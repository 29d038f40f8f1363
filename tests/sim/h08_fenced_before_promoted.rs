//! HA H8: when a promotion is sent, no connection of ours to the old primary is open any more, nor does any other proxy wait for an answer of
//! it, or let anything begin there.

use pgherd::cluster::{NodeId, Writes};

use crate::world::World;

/// At the moment when `pg_promote()` is sent to `candidate` by a proxy that has `fenced` the old primary itself: whoever takes up a promotion
/// was told that it was, and has not used it since.
pub(crate) fn check(world: &World, by: usize, candidate: NodeId, fenced: bool) {
    for (proxy, of) in world.proxies.iter().enumerate() {
        let elsewhere = |node: usize| node != usize::from(candidate.0);
        for connection in of.connections.iter().filter(|connection| connection.open && elsewhere(connection.node)) {
            let (node, epoch) = (connection.node, connection.epoch);
            let open = of.view.writes == Writes::Open && of.view.epoch.0 == epoch && world.may_begin(proxy, epoch);
            let strict = world.group.is_none() || (proxy == by && fenced);
            assert!(
                !strict && !connection.busy && !open,
                "h08: a connection of proxy {proxy} to node {node} is open while {candidate} is promoted"
            );
        }
    }
}
