//! DESIGN §1.3, HA H8 and H17: through us, one server alone acknowledges writes in an epoch, and an epoch that is over never comes back.

use crate::world::World;

pub(crate) fn check(world: &World) {
    let writers = &world.history.writers;
    let Some(((epoch, node), earlier)) = writers.split_last() else { return };
    let Some((last_epoch, last_node)) = earlier.last() else { return };
    assert!(
        epoch >= last_epoch,
        "h17: node {node} acknowledged a write of epoch {epoch} after one of epoch {last_epoch}"
    );
    assert!(epoch > last_epoch || node == last_node, "h17: nodes {node} and {last_node} both wrote in epoch {epoch}");
}
