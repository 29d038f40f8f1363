//! HA H3, H13, H17: with partners nobody is promoted without their consent, given to this process for this primary and the epoch that is being
//! prepared; nor, unless an operator has ordered it or the primary is none any more, before a majority of the proxies that can speak have
//! seen it dead, nor when this proxy was told that more of the others see it alive.

use pgherd::cluster::{Epoch, NodeId, Role};
use pgherd::failover::engine::{Job, Outcome};

use crate::world::World;

/// A consent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant {
    process: u64,
    node: NodeId,
    planned: bool,
    /// So many see it dead, of so many that have looked.
    votes: (usize, usize),
}

/// When it is given.
pub(crate) fn granted(
    world: &mut World,
    by: usize,
    (node, planned): (NodeId, bool),
    epoch: u64,
    votes: (usize, usize),
) -> Outcome {
    let grant = Grant { process: world.proxies[by].incarnation, node, planned, votes };
    world.say(|_| format!("{by} is granted epoch {epoch}: {grant:?}"));
    world.history.grants.insert(epoch, grant);
    Outcome::Granted(Epoch(epoch))
}

/// The consent that this process lives on, with the primary that is agreed on; before there is one, that of its view.
fn grant(world: &World, by: usize) -> Option<(Grant, NodeId)> {
    let lead = world.group.as_ref()?.lead.as_ref()?;
    let grant = world.history.grants.get(&lead.prepare).filter(|grant| grant.process == world.proxies[by].incarnation);
    let proxy = &world.proxies[by];
    Some((*grant?, proxy.disk.primary.map(NodeId).or(proxy.view.primary)?))
}

fn is_unplanned(world: &World, by: usize, old: NodeId) -> bool {
    let (server, process) = (&world.servers[usize::from(old.0)], &world.proxies[by].process);
    let ordered = process.as_ref().is_some_and(|process| process.ordered);
    server.role == Role::Primary && !server.demoted && !ordered
}

/// When a job begins.
pub(crate) fn begins(world: &World, by: usize, job: &Job) {
    let (Job::Promote { again: None, .. }, Some(group)) = (job, &world.group) else { return };
    let Some((_, old)) = grant(world, by) else { return };
    let blind = group.members[by].told.0.blind.contains(&old);
    assert!(
        !blind || !is_unplanned(world, by, old),
        "h03: proxy {by} promotes though it knows that others see node {old} alive"
    );
}

/// When `pg_promote()` is sent.
pub(crate) fn check(world: &World, by: usize) {
    if world.group.is_none() {
        return;
    }
    let Some((Grant { node, planned, votes: (dead, all), .. }, old)) = grant(world, by) else {
        panic!("h03: proxy {by} promotes without consent");
    };
    assert_eq!(node, old, "h03: consent was given for another primary");
    if is_unplanned(world, by, old) {
        assert!(
            !planned,
            "h03: nobody was asked whether node {old} is dead, and nobody has ordered that it be replaced"
        );
        assert!(dead > all / 2, "h03: {dead} of {all} proxies saw node {old} dead");
    }
}
