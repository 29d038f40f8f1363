//! HA H14: a write that is said to be missing from the history that goes on is not in it, and never comes into it: it may be run again.

use pgherd::cluster::{ClusterView, NodeId};

use crate::world::World;

/// When a proxy's view tells how its primary came by its role.
pub(crate) fn learn(world: &mut World, by: usize, view: &ClusterView) {
    let Some(succession) = view.succession else { return };
    let proxy = &world.proxies[by];
    let missed = world.history.sent.extract_if(.., |(_, node, epoch, sent, of)| {
        *of == by && succession.lacks(*node, *epoch, proxy.instant(*sent))
    });
    let rows: Vec<u32> = missed.map(|(row, ..)| row).collect();
    for row in &rows {
        // Without synchronous replication what was acknowledged may be missing.
        let synchronous = world.history.acknowledged.get(row) == Some(&true);
        assert!(!synchronous, "h14: row {row} was acknowledged synchronously, and is said to be missing");
    }
    if !rows.is_empty() {
        world.history.missed.extend(rows);
        look(world, view.primary);
    }
}

/// At any time.
pub(crate) fn check(world: &World) {
    look(world, world.primary());
}

fn look(world: &World, primary: Option<NodeId>) {
    let Some(primary) = primary else { return };
    for row in &world.servers[usize::from(primary.0)].log {
        assert!(
            !world.history.missed.contains(row),
            "h14: row {row} was said to be missing, and node {primary} has it"
        );
    }
}
