//! HA H7: a promotion that is late must not meet another one: no two servers ever become primary of the same timeline, unless all but one of
//! them were fenced.

use crate::world::World;

pub(crate) fn check(world: &World) {
    for (timeline, leaders) in &world.history.leaders {
        let left = leaders.iter().filter(|id| !world.history.fenced.contains(id)).count();
        assert!(leaders.len() < 2 || left < 2, "h07: nodes {leaders:?} were both primary of timeline {timeline}");
    }
}
