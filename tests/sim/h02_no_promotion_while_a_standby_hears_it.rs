//! HA H2, the second opinion: no standby is recruited to replace a primary by itself before it was asked, nor while a standby that this proxy
//! could ask streamed from that primary, which lives, and had heard of it less than 1.5 s ago and later than the first probe that failed.
//! What counts is what is true when they are asked; whom the proxy takes for one that it can ask is in its view.

use std::collections::BTreeSet;

use pgherd::cluster::{Life, NodeId, Role};

use crate::proxy::TICK;
use crate::world::World;

/// In ticks of 25 ms: 1.5 s.
const FRESH: u64 = 60;

/// What a process has asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    nodes: BTreeSet<usize>,
    /// It hears the primary.
    witness: Option<usize>,
}

/// A run begins.
pub(crate) fn begins(world: &mut World, by: usize) {
    world.history.asked.remove(&world.proxies[by].incarnation);
}

/// At the moment when these are asked.
pub(crate) fn asks(world: &mut World, by: usize, nodes: &[NodeId]) {
    let nodes = nodes.iter().map(|node| usize::from(node.0)).collect();
    let asked = Asked { nodes, witness: witness(world, by) };
    world.history.asked.insert(world.proxies[by].incarnation, asked);
}

fn witness(world: &World, by: usize) -> Option<usize> {
    let (proxy, now) = (&world.proxies[by], world.now);
    let primary = proxy.view.primary?;
    let Life::Dead(since) = proxy.view.node(primary)?.life else { return None };
    let old = usize::from(primary.0);
    let hears = |id: &usize| {
        let (server, age) = (&world.servers[*id], now - world.servers[*id].heard);
        let known = proxy.view.node(NodeId(u16::try_from(*id).expect("few")));
        let asked = known.is_some_and(|node| node.life == Life::Well && node.role == Role::Standby);
        let later = proxy.instant(now) - TICK * u32::try_from(age).expect("short") > since;
        let streams = server.stream.is_some_and(|stream| stream.upstream == old);
        asked && streams && later && age < FRESH && world.answers(by, *id)
    };
    (0..world.servers.len()).find(|id| lives(world, old) && hears(id))
}

fn lives(world: &World, primary: usize) -> bool {
    world.servers[primary].runs() && world.servers[primary].role == Role::Primary
}

/// When a standby is recruited.
pub(crate) fn check(world: &World, by: usize, node: usize) {
    let proxy = &world.proxies[by];
    let asked = world.history.asked.get(&proxy.incarnation);
    let witness = asked.and_then(|asked| asked.witness);
    assert!(witness.is_none(), "h02: proxy {by} recruits though node {witness:?} heard the primary when it was asked");
    let ordered = proxy.process.as_ref().is_some_and(|process| process.ordered);
    let old = proxy.view.primary.map(|id| usize::from(id.0)).filter(|old| !ordered && lives(world, *old));
    let known = asked.is_some_and(|asked| asked.nodes.contains(&node));
    assert!(known || old.is_none(), "h02: proxy {by} recruits node {node} and has not asked it whether {old:?} lives");
}
