//! HA H1: as soon as a proxy suspects the primary it lets no new write begin, at any time.

use pgherd::cluster::{Life, Writes};

use crate::world::World;

pub(crate) fn check(world: &World) {
    for (by, proxy) in world.proxies.iter().enumerate().filter(|(_, proxy)| proxy.alive()) {
        let lost = |life: Life| matches!(life, Life::Suspect(_) | Life::Dead(_));
        if let Some(primary) = proxy.view.primary_node().filter(|node| lost(node.life)) {
            let (id, life) = (primary.id, primary.life);
            assert_ne!(proxy.view.writes, Writes::Open, "h01: proxy {by} lets writes begin on node {id}, {life:?}");
        }
    }
}
