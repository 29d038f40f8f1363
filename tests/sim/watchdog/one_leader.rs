//! HA H18: at any instant at most one process counts on a lease, and a term has one leader.

use pgherd::watchdog::engine::{Standing, Writes};

use super::world::{World, id};

pub(crate) fn check(world: &World, by: usize, standing: &Standing) {
    let me = Some(id(by));
    if standing.leader != me {
        return;
    }
    assert_eq!(standing.term.owner(), id(by), "h18: it leads a term of another");
    let Writes::Until(_) = standing.writes else { return };
    for other in (0..world.hosts.len()).filter(|other| *other != by) {
        let Some(process) = &world.hosts[other].process else { continue };
        let leads = process.standing.leader == Some(id(other));
        let until = world.writes(other).map_or(0, |(_, until)| until);
        assert!(
            !leads || until <= world.now,
            "h18: at {} µs {by} leads {:?} while {other} counts on {:?} until {until}",
            world.now,
            standing.term,
            process.standing.term
        );
        assert!(!leads || process.standing.term != standing.term, "h18: two lead {:?}", standing.term);
    }
}
