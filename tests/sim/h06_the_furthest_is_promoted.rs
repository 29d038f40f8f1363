//! HA H6: who is promoted has come as far as any other that was recruited, on the timeline of the primary that it replaces.

use pgherd::cluster::NodeId;

use crate::world::World;

/// When `pg_promote()` is sent for the first time.
pub(crate) fn check(world: &World, by: usize, candidate: NodeId, recruits: &[NodeId]) {
    let (chosen, timeline) = (&world.servers[usize::from(candidate.0)], world.proxies[by].disk.timeline);
    assert!(
        timeline == 0 || chosen.timeline == timeline,
        "h06: node {candidate} is on timeline {}, not {timeline}",
        chosen.timeline
    );
    for recruit in recruits {
        let other = &world.servers[usize::from(recruit.0)];
        let comparable = (other.timeline, &other.ancestors) == (chosen.timeline, &chosen.ancestors);
        assert!(
            !comparable || other.lsn() <= chosen.lsn(),
            "h06: node {candidate} is promoted, and node {recruit} has received more"
        );
    }
}
