//! What goes wrong with a group, and how it ends.

use pgherd::watchdog::engine::{Event, Sight, Ticket};

use super::world::{Group, MILLI, Next, SECOND, Time, World};

/// The end of a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mend {
    Link(usize, usize),
    Isolation(usize),
    Node(usize),
    NodeLink(usize, usize),
    Weather,
    Disk(usize),
    Stuck(usize),
    Trusted,
    Address(usize),
}

/// One fault, and the next one after a while.
pub(crate) fn one(world: &mut World) {
    if world.healed {
        return;
    }
    let pause = 50 * MILLI + world.random.below(2 * SECOND);
    world.after(pause, Next::Fault);
    let count = world.hosts.len() as u64;
    let any = world.random.below(count) as usize;
    // Whoever leads is hit more often than others.
    let member = world.leader().filter(|_| !any.is_multiple_of(2) || count == 2).unwrap_or(any);
    let member = if world.random.one_in(3) { any } else { member };
    let other = (member + 1 + world.random.below(count - 1) as usize) % world.hosts.len();
    let long = 100 * MILLI + world.random.below(8 * SECOND);
    let kind = world.random.below(19);
    world.say(|_| format!("fault {kind} at {member} (and {other}) for {} ms", long / MILLI));
    match kind {
        0 | 1 => kill(world, member, long),
        2 | 3 => freeze(world, member, long),
        4 | 5 => cut(world, member, other, long),
        6 => isolate(world, member, long),
        7 => node(world, long),
        8 => node_link(world, member, long),
        9 => weather(world, long),
        10 => {
            world.hosts[member].slow_disk = true;
            world.after(long, Next::Mend(Mend::Disk(member)));
        }
        11 => {
            world.trusted_up = false;
            world.after(long.min(2 * SECOND), Next::Mend(Mend::Trusted));
        }
        12 => order(world, member),
        13 | 14 => refuse(world, member, long),
        15 => stick(world, member, long),
        _ => sight(world, member),
    }
}

fn kill(world: &mut World, member: usize, long: Time) {
    world.kill(member);
    if world.random.one_in(5) {
        world.say(|_| format!("{member} forgets"));
        world.hosts[member].disk = Default::default();
        world.forgets = true;
    }
    world.after(long, Next::Start(member));
}

pub(crate) fn freeze(world: &mut World, member: usize, long: Time) {
    if world.hosts[member].frozen.is_none() {
        world.tally.freezes += 1;
        let until = world.now + long;
        world.say(|_| format!("{member} is frozen until {until}"));
        world.hosts[member].frozen = Some(until);
        world.at(until, Next::Thaw(member));
    }
}

/// Its disk takes nothing for a while, or until everything is mended.
pub(crate) fn stick(world: &mut World, member: usize, long: Time) {
    world.hosts[member].stuck = true;
    if !world.random.one_in(3) {
        world.after(long, Next::Mend(Mend::Stuck(member)));
    }
}

/// In one direction or both; with `trusted` nothing is promised for that.
fn cut(world: &mut World, a: usize, b: usize, long: Time) {
    if world.group == Group::PairTrusted {
        isolate(world, a, long);
        return;
    }
    world.links.set(a, b, true);
    if !world.random.one_in(3) {
        world.links.set(b, a, true);
    }
    world.after(long, Next::Mend(Mend::Link(a, b)));
}

/// From everything: members, servers, trusted servers.
fn isolate(world: &mut World, member: usize, long: Time) {
    links_of(world, member, true);
    world.after(long, Next::Mend(Mend::Isolation(member)));
}

fn links_of(world: &mut World, member: usize, cut: bool) {
    for other in 0..world.hosts.len() {
        world.links.set(member, other, cut);
        world.links.set(other, member, cut);
    }
    world.links.untrusted[member] = cut;
    world.servers.cut[member].iter_mut().for_each(|link| *link = cut);
}

fn node(world: &mut World, long: Time) {
    let at = world.random.below(world.servers.servers.len() as u64) as usize;
    match world.random.below(3) {
        0 => world.servers.terminate(at),
        1 => world.servers.restart(at, world.now),
        _ => {
            world.servers.restart(at, world.now);
            world.servers.servers[at].down = true;
            world.after(long, Next::Mend(Mend::Node(at)));
        }
    }
}

fn node_link(world: &mut World, member: usize, long: Time) {
    if world.group.may_tie() {
        isolate(world, member, long);
        return;
    }
    let at = world.random.below(world.servers.servers.len() as u64) as usize;
    world.servers.cut[member][at] = true;
    world.after(long, Next::Mend(Mend::NodeLink(member, at)));
}

fn weather(world: &mut World, long: Time) {
    let (loss, delay) = if world.group == Group::PairTrusted { (10, 100) } else { (60, 1_500) };
    world.links.loss = world.random.below(loss);
    world.links.delay = 3 * MILLI + world.random.below(delay * MILLI);
    world.after(long, Next::Mend(Mend::Weather));
}

fn order(world: &mut World, member: usize) {
    let event = if world.random.one_in(3) { Event::Leave } else { Event::HandOver(Ticket(9), None) };
    world.tell(member, world.hosts[member].incarnation, event);
}

/// The interface is gone there, and the address with it.
pub(crate) fn refuse(world: &mut World, member: usize, long: Time) {
    world.hosts[member].refuses = true;
    world.hosts[member].address = None;
    world.after(long, Next::Mend(Mend::Address(member)));
}

/// It is there again; whether anybody notices is a matter of chance.
pub(crate) fn accept(world: &mut World, member: usize) {
    if std::mem::replace(&mut world.hosts[member].refuses, false) && world.random.one_in(2) {
        world.tell(member, world.hosts[member].incarnation, Event::Mended);
    }
}

/// The primary dies for one, or for all; or it answers again.
fn sight(world: &mut World, member: usize) {
    let all = !world.random.one_in(3);
    let sight = if world.random.one_in(4) { Sight::Alive } else { Sight::Dead };
    for host in 0..world.hosts.len() {
        if all || host == member {
            saw(world, host);
            world.hosts[host].sights[0] = sight;
            world.see(host);
            if sight == Sight::Dead && !world.hosts[host].asking {
                world.hosts[host].asking = true;
                let delay = world.random.below(500 * MILLI);
                world.after(delay, Next::Ask(host));
            }
        }
    }
}

/// What a host sees is about to change.
fn saw(world: &mut World, host: usize) {
    if world.hosts[host].sights[0] == Sight::Dead {
        world.dead_at = Some(world.now);
    }
}

/// There is a new primary.
pub(crate) fn promoted(world: &mut World) {
    for host in 0..world.hosts.len() {
        saw(world, host);
        world.hosts[host].sights[0] = Sight::Alive;
        world.see(host);
    }
}

pub(crate) fn mend(world: &mut World, mend: Mend) {
    match mend {
        Mend::Link(a, b) => {
            world.links.set(a, b, false);
            world.links.set(b, a, false);
        }
        Mend::Isolation(member) => links_of(world, member, false),
        Mend::Node(at) => world.servers.servers[at].down = false,
        Mend::NodeLink(member, at) => world.servers.cut[member][at] = false,
        Mend::Weather => (world.links.loss, world.links.delay) = (0, 3 * MILLI),
        Mend::Disk(member) => world.hosts[member].slow_disk = false,
        Mend::Stuck(member) => world.unstick(member),
        Mend::Trusted => world.trusted_up = true,
        Mend::Address(member) => accept(world, member),
    }
}

/// Everything is mended, and whoever is down starts.
pub(crate) fn heal(world: &mut World) {
    world.say(|_| "faults stop".to_owned());
    (world.healed, world.calm) = (true, true);
    world.links.mend();
    world.servers.mend();
    world.trusted_up = true;
    promoted(world);
    for member in 0..world.hosts.len() {
        world.hosts[member].slow_disk = false;
        world.unstick(member);
        accept(world, member);
        if world.hosts[member].frozen.is_some() {
            world.hosts[member].frozen = Some(world.now);
            world.at(world.now, Next::Thaw(member));
        }
        let later = world.now + world.random.below(SECOND);
        world.at(later, Next::Start(member));
    }
}
