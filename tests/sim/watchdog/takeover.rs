//! SCENARIOS S6, S20, S29: how long the address is nowhere when its holder stops, is killed, or vanishes.

use pgherd::watchdog::engine::Event;

use super::world::{MILLI, SECOND, Tally, Time, World};

fn settled(world: &mut World) -> usize {
    world.calm = true;
    world.run(9 * SECOND);
    let wait = world.random.below(3 * SECOND);
    world.run(12 * SECOND + wait);
    let holder = world.leader().expect("h16: after ten seconds without a fault somebody leads");
    assert!(world.has_address(holder), "h19: the leader has the address");
    holder
}

/// Waits for a new holder.
fn replaced(mut world: World, old: usize, bound: Time) -> Tally {
    let begun = world.now;
    while !(0..world.hosts.len()).any(|member| member != old && world.has_address(member)) {
        assert!(world.now < begun + bound, "the address is nowhere {} ms later", bound / MILLI);
        let next = world.now + 20 * MILLI;
        world.run(next);
    }
    world.tally.slowest = (world.now - begun) / MILLI;
    world.tally
}

/// `kill -9`: its kernel ends its links.
pub(crate) fn killed(mut world: World) -> Tally {
    let holder = settled(&mut world);
    world.kill(holder);
    replaced(world, holder, 4 * SECOND)
}

/// The host vanishes without a word: nothing comes from it any more.
pub(crate) fn vanished(mut world: World) -> Tally {
    let holder = settled(&mut world);
    world.hosts[holder].vanished = true;
    world.links.untrusted[holder] = true;
    let bound = u64::try_from(world.timings.worst_takeover(false).as_micros()).expect("short").max(6 * SECOND);
    replaced(world, holder, bound)
}

/// It is told to stop.
pub(crate) fn in_order(mut world: World) -> Tally {
    let holder = settled(&mut world);
    let incarnation = world.hosts[holder].incarnation;
    world.tell(holder, incarnation, Event::Leave);
    let tally = replaced(world, holder, SECOND);
    assert!(tally.hand_overs > 0);
    tally
}
