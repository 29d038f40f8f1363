//! HA H9: what was acknowledged with synchronous replication is there in the end. Without it, loss is counted.

use std::collections::BTreeSet;

use crate::world::World;

pub(crate) fn check(world: &mut World) {
    let Some(primary) = world.primary() else { return };
    let there: BTreeSet<u32> = world.servers[usize::from(primary.0)].log.iter().copied().collect();
    for (row, synchronous) in &world.history.acknowledged {
        if !there.contains(row) {
            assert!(!synchronous, "h09: row {row} was acknowledged synchronously and is lost");
            world.tally.lost += 1;
        }
    }
}
