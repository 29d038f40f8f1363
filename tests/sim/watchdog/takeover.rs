//! SCENARIOS S6, S20, S29: how long the address is nowhere when its holder stops, is killed, or vanishes.

use std::time::Duration;

use pgherd::watchdog::engine::{Event, Ticket};
use pgherd::watchdog::timings::Timings;

use super::faults;
use super::world::{Group, MILLI, SECOND, Tally, Time, World};

/// What the links and the members of this world add to a formula for those that lose no time: three exchanges of 2 × 3.2 ms, one by the servers or
/// the trusted one of 20 ms at the most, one of the disk of 9 ms, and how often it is looked here.
const MESSAGES: Time = 20 * MILLI + 20 * MILLI + 9 * MILLI + 20 * MILLI;

fn micros(time: Duration) -> Time {
    Time::try_from(time.as_micros()).expect("short")
}

fn settled(world: &mut World) -> usize {
    world.calm = true;
    // An even number of voters may halve; each time that costs a lease.
    let voters = world.hosts.len();
    let halved = if voters > 2 && voters.is_multiple_of(2) { 8 * SECOND } else { 0 };
    // Of the usual lease of 3 s: three, and four.
    let lease = micros(world.timings.lease);
    world.run(halved + 3 * lease);
    let wait = world.random.below(lease);
    world.run(halved + 4 * lease + wait);
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

/// The host vanishes without a word: nothing comes from it any more. As long as README says, and not longer.
pub(crate) fn vanished(world: World) -> Tally {
    vanishes(world, 3)
}

/// The same with a longer lease.
pub(crate) fn vanished_with_a_long_lease(world: World) -> Tally {
    vanishes(world, 8)
}

fn vanishes(mut world: World, lease: u64) -> Tally {
    world.timings = Timings::of(Duration::from_secs(lease));
    let holder = settled(&mut world);
    world.hosts[holder].vanished = true;
    world.links.untrusted[holder] = true;
    let nodes = matches!(world.group, Group::PairNodes(_));
    let bound = micros(world.timings.worst_takeover(nodes)) + MESSAGES;
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

/// The address cannot be put where its holder is any more; that is found out, and a partner takes it.
pub(crate) fn refused(mut world: World) -> Tally {
    let holder = settled(&mut world);
    faults::refuse(&mut world, holder, 3_600 * SECOND);
    // As long as a partner that is fitter for another reason is waited for, then as when it stops in order.
    let fitter = micros(world.timings.fitter);
    let tally = replaced(world, holder, fitter + 1_500 * MILLI);
    assert!(tally.unfit == 1 && tally.hand_overs == 1, "h03: {tally:?}");
    tally
}

/// It can be put nowhere for a while, then at one member alone: it gets there, and leadership does not flap meanwhile.
pub(crate) fn refused_everywhere(mut world: World) -> Tally {
    let holder = settled(&mut world);
    let proxies: Vec<usize> = (0..world.hosts.len()).filter(|member| !world.is_witness(*member)).collect();
    proxies.iter().for_each(|member| faults::refuse(&mut world, *member, 3_600 * SECOND));
    let (before, began) = (world.tally.hand_overs, world.now);
    world.run(began + 600 * SECOND);
    // Each member is able again after 5, 10, 20, 40 and then 60 s at least.
    let most = 14 * proxies.len() as u64;
    let turns = world.tally.hand_overs - before;
    assert!((2..=most).contains(&turns), "h03: {turns} hand-overs in ten minutes");
    let again = world.now + world.random.below(300 * SECOND);
    world.run(again);
    let able = proxies[world.random.below(proxies.len() as u64) as usize];
    world.hosts[able].refuses = false;
    let begun = world.now;
    while !world.has_address(able) {
        // Its turn comes once its own back-off is over and one who had its turn before is found unable again.
        assert!(world.now < begun + 75 * SECOND, "h03: {able} never had its turn after {holder}");
        let next = world.now + 100 * MILLI;
        world.run(next);
    }
    world.tally.slowest = (world.now - begun) / MILLI;
    world.tally
}

/// The disks of all others answer no more. Whoever leads agrees on what it must all the same, and does so again after a new start.
pub(crate) fn partner_is_stuck(mut world: World) -> Tally {
    let holder = settled(&mut world);
    for other in (0..world.hosts.len()).filter(|other| *other != holder) {
        world.hosts[other].stuck = true;
    }
    let agrees = |world: &mut World| {
        let (begun, before) = (world.now, world.tally.records);
        while world.tally.records == before {
            assert!(
                world.now < begun + 8 * SECOND,
                "h13: nothing is agreed on while the partner's disk does not answer"
            );
            let epoch = world.hosts[holder].process.as_ref().expect("it runs").standing.epoch;
            let event = Event::Record(Ticket(2), epoch, format!("at {}", world.now));
            world.tell(holder, world.hosts[holder].incarnation, event);
            let next = world.now + SECOND;
            world.run(next);
        }
    };
    agrees(&mut world);
    // Trusted servers elect nobody while the partner is in sight: it must vote.
    if world.group == super::world::Group::PairTrusted {
        return world.tally;
    }
    world.kill(holder);
    let begun = world.now;
    world.start(holder);
    while world.writes(holder).is_none_or(|(_, until)| until <= world.now) {
        assert!(world.now < begun + 20 * SECOND, "h17: it may not write while the partner's disk does not answer");
        let next = world.now + 100 * MILLI;
        world.run(next);
    }
    world.tally.slowest = (world.now - begun) / MILLI;
    agrees(&mut world);
    world.tally
}

/// The disk of whoever leads answers no more: others take over where they can.
pub(crate) fn leader_is_stuck(mut world: World) -> Tally {
    let holder = settled(&mut world);
    world.hosts[holder].stuck = true;
    let epoch = world.hosts[holder].process.as_ref().expect("it runs").standing.epoch;
    let event = Event::Record(Ticket(3), epoch, "lost".to_owned());
    world.tell(holder, world.hosts[holder].incarnation, event);
    // It is waited for as long as any lease lasts; then an election, for which servers let go of their locks.
    let tally = replaced(world, holder, 12 * SECOND);
    assert!(tally.hand_overs == 1, "h13: {tally:?}");
    tally
}
