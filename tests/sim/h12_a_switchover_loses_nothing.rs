//! HA H12: in a switch-over whose candidate was waited for, whoever is promoted has all that the old primary had when it was stopped in order,
//! and with it all that was ever acknowledged by it, synchronously or not.

use pgherd::cluster::NodeId;
use pgherd::failover::engine::Outcome;

use crate::world::World;

/// The standby is said to have everything.
pub(crate) fn caught_up(world: &mut World, by: usize, (candidate, old): (usize, usize)) -> Outcome {
    world.history.caught_up.insert(world.proxies[by].incarnation, (candidate, old));
    Outcome::Ok
}

/// When `pg_promote()` is sent for the first time.
pub(crate) fn check(world: &mut World, by: usize, promoted: NodeId) {
    let Some((candidate, old)) = world.history.caught_up.remove(&world.proxies[by].incarnation) else { return };
    let [new, old] = [usize::from(promoted.0), old].map(|id| &world.servers[id]);
    if usize::from(promoted.0) == candidate && old.demoted {
        assert!(new.log.starts_with(&old.log), "h12: node {promoted} lacks what the old primary had written");
    }
}
