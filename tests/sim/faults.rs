//! What goes wrong, and how it ends.

use pgherd::cluster::{NodeId, Role};
use pgherd::failover::engine::Order;

use crate::world::{FAULTS, SECOND, World};

/// At most one fault in a tick; each history has its own pace.
pub(crate) fn maybe(world: &mut World) {
    if let Some((at, accomplice)) = world.plot
        && at <= world.now
    {
        world.plot = None;
        world.say(|_| format!("the primary dies with node {accomplice}"));
        for (id, server) in world.servers.iter_mut().enumerate() {
            if id == accomplice || server.role == Role::Primary {
                server.kill();
            }
        }
    }
    let pace = 20 + (world.seed % 7) * 40;
    if !world.random.one_in(pace) {
        return;
    }
    let id = world.random.below(world.servers.len() as u64) as usize;
    // The primary is what matters: it is hit more often than others.
    let leader = world.servers.iter().position(|server| server.role == Role::Primary && server.alive);
    let id = if world.random.one_in(2) { leader.unwrap_or(id) } else { id };
    let kind = world.random.below(if world.group.is_some() { 23 } else { 18 });
    world.say(|world| format!("fault {kind} at node {id} ({:?})", world.servers[id].role));
    match kind {
        0 | 1 => world.servers[id].kill(),
        2 | 3 => world.servers[id].start(),
        4 | 5 => world.servers[id].frozen = world.servers[id].alive,
        6 | 7 => world.servers[id].frozen = false,
        8 => cut(world, id),
        9 => world.servers[id].isolated = !world.servers[id].isolated,
        10 => {
            let by = any_proxy(world);
            world.proxy_dies(by);
        }
        11 => {
            // Restarted within a moment.
            world.servers[id].kill();
            world.servers[id].start();
        }
        12 => order(world, id),
        13 => partners(world),
        14 => plot(world, id),
        // Its clock is set.
        15 => world.servers[id].skew += world.random.below(10_000_000) as i64 - 5_000_000,
        18 | 19 => cut(world, id),
        20 => world.refuse_leader(),
        21 => partners(world),
        22 => {
            let by = world.leader().unwrap_or(0);
            world.proxy_dies(by);
        }
        _ => {
            // At any standby.
            let id = world.random.below(world.servers.len() as u64) as usize;
            world.servers[id].slow = !world.servers[id].slow;
        }
    }
}

/// One standby alone hears of what is written now, and soon dies together with the primary (SCENARIOS S39).
fn plot(world: &mut World, accomplice: usize) {
    for (id, server) in world.servers.iter_mut().enumerate() {
        server.slow = id != accomplice;
    }
    world.plot = Some((world.now + 2 * SECOND, accomplice));
}

fn order(world: &mut World, id: usize) {
    let node = NodeId(u16::try_from(id).expect("few"));
    let order = match world.random.below(6) {
        0 => Order::Promote(node),
        1 => Order::SwitchOver(Some(node)),
        2 => Order::Detach(node),
        3 => Order::Attach(node),
        _ => Order::SwitchOver(None),
    };
    let any = any_proxy(world);
    let by = world.leader().filter(|_| !world.random.one_in(8)).unwrap_or(any);
    world.order(by, order);
}

/// One alone draws no number for it.
fn any_proxy(world: &mut World) -> usize {
    let count = world.proxies.len() as u64;
    if count > 1 { world.random.below(count) as usize } else { 0 }
}

/// The link between a proxy and a server.
fn cut(world: &mut World, id: usize) {
    let by = any_proxy(world);
    let links = &mut world.proxies[by].cut;
    if !links.remove(&id) {
        links.insert(id);
    }
}

/// What happens between proxies: another one leads, one is cut off, or comes back.
fn partners(world: &mut World) {
    let chance = world.random.one_in(3);
    if world.group.is_none() {
        world.proxies[0].consent = !chance;
        return;
    }
    let by = any_proxy(world);
    match &mut world.group {
        Some(group) if !chance => group.members[by].off = !group.members[by].off,
        _ => world.refuse_leader(),
    }
}

/// An operator who is told that a server which was promoted in vain stands in the way stops it, and names another one.
fn decide(world: &mut World, leader: usize) {
    let leads = |id: &usize| world.servers[*id].runs() && world.servers[*id].role == Role::Primary;
    let Some(primary) = world.proxies[leader].view.primary.map(|id| usize::from(id.0)).filter(|id| !leads(id)) else {
        return;
    };
    let Some(rival) = (0..world.servers.len()).find(leads) else { return };
    let standbys = (0..world.servers.len()).filter(|id| world.servers[*id].role == Role::Standby);
    let Some(furthest) = standbys.max_by_key(|id| world.servers[*id].log.len()) else { return };
    let followed = world.servers[furthest].timeline >= world.servers[rival].timeline;
    if followed {
        return world.order(leader, Order::Promote(NodeId(u16::try_from(rival).expect("few"))));
    }
    world.say(|_| format!("an operator stops node {rival}, since node {primary} is primary no more"));
    world.servers[rival].kill();
    world.history.fenced.insert(rival);
    world.order(leader, Order::Promote(NodeId(u16::try_from(furthest).expect("few"))));
}

/// Everything that can be mended is.
pub(crate) fn heal(world: &mut World) {
    world.say(|_| "faults stop".to_owned());
    for server in &mut world.servers {
        (server.frozen, server.isolated, server.slow) = (false, false, false);
        // What was stopped for a switch-over is started as a standby by whoever stopped it.
        if server.demoted {
            server.role = Role::Standby;
        }
        server.start();
    }
    for proxy in &mut world.proxies {
        (proxy.consent, proxy.steady) = (true, true);
        proxy.cut.clear();
    }
    world.group.iter_mut().flat_map(|group| &mut group.members).for_each(|member| member.off = false);
    world.slowest = world.slowest.min(SECOND);
    attach(world);
}

/// Repeated, since the proxy may have been down.
pub(crate) fn attach(world: &mut World) {
    let leader = world.leader().unwrap_or(0);
    if world.now > FAULTS {
        decide(world, leader);
    }
    for id in 0..world.servers.len() {
        world.order(leader, Order::Attach(NodeId(u16::try_from(id).expect("few"))));
    }
}
