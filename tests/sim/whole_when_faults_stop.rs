//! When faults stop, the cluster becomes whole by itself: one primary that takes writes, and every standby of its branch streams from it, or
//! from another one that does.

use pgherd::cluster::{Role, Writes};
use pgherd::failover::engine::Mode;

use crate::world::World;

pub(crate) fn is_whole(world: &World) -> Result<(), String> {
    for (by, proxy) in world.proxies.iter().enumerate() {
        if !proxy.alive() || !proxy.at_rest() {
            return Err(format!("proxy {by} is busy"));
        }
        if proxy.view.primary != world.primary() {
            return Err(format!("proxy {by} has another primary"));
        }
    }
    let Some(primary) = world.primary().map(|id| usize::from(id.0)) else {
        return Err("there is no primary".to_owned());
    };
    if world.servers[primary].role != Role::Primary {
        return Err(format!("node {primary} is no primary"));
    }
    for (id, server) in world.servers.iter().enumerate().filter(|(id, _)| *id != primary) {
        let branch =
            world.servers[primary].log.starts_with(&server.log) && server.timeline <= world.servers[primary].timeline;
        // Whoever says that it is primary must be rebuilt, and so must who has what the primary has not.
        let scripted = world.mode == Mode::Command;
        if server.role == Role::Standby && branch && !scripted && !streams(world, id, primary) {
            return Err(format!("node {id} does not stream from node {primary}"));
        }
        if server.marker || server.lock.is_some() {
            return Err(format!("node {id} is recruited"));
        }
    }
    let direct = |id: &&usize| world.servers[**id].stream.is_some_and(|stream| stream.upstream == primary);
    let short =
        world.servers[primary].sync.as_ref().is_some_and(|(count, ids)| ids.iter().filter(direct).count() < *count);
    for (by, proxy) in world.proxies.iter().enumerate() {
        let lets = proxy.view.writes == Writes::Open && world.may_begin(by, proxy.view.epoch.0);
        if !lets && !short {
            return Err(format!("writes through proxy {by} are {:?}", proxy.view.writes));
        }
    }
    Ok(())
}

/// It receives what this primary writes, whoever passes it on.
fn streams(world: &World, id: usize, primary: usize) -> bool {
    let upstream = |id: &usize| world.servers[*id].stream.map(|stream| stream.upstream);
    std::iter::successors(upstream(&id), upstream).take(world.servers.len()).any(|id| id == primary)
}

/// So many servers say since an earlier failover that they are primary that no majority of standbys can be recruited: they must be rebuilt.
fn needs_an_operator(world: &World) -> bool {
    let standbys = world.servers.iter().filter(|server| server.role == Role::Standby).count();
    let leads = world.primary().is_some_and(|id| world.servers[usize::from(id.0)].role == Role::Primary);
    !leads && standbys < world.servers.len() / 2 + 1
}

pub(crate) fn check(world: &World) {
    if let Err(why) = is_whole(world)
        && !needs_an_operator(world)
    {
        let engines: String = world.proxies.iter().map(crate::proxy::Proxy::describe).collect();
        panic!("whole: long after the last fault {why}; the engines: {engines}");
    }
}
