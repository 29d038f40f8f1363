//! HA H16, H17: nobody takes the address or is given consent without a majority of votes; consent for an epoch is given when nobody
//! writes under an earlier one any more, and to one proxy only.

use pgherd::watchdog::engine::Sight;

use super::world::{Group, SECOND, Time, World};

/// What was said may have changed while it was under way: a message may be late by 4 s, and a wish waits up to 1.8 s.
const UNDER_WAY: Time = 6 * SECOND;

/// Votes that are certainly alive, by what was truly sent and held.
pub(crate) fn majority(world: &mut World, by: usize, what: &str) {
    // The lease, as the slowest clock counts it, and the way to the claimant.
    let (now, recent) = (world.now, 3 * SECOND + SECOND / 10);
    let words = (0..world.hosts.len())
        .filter(|voter| *voter != by && world.words.get(&(*voter, by)).is_some_and(|at| now < at + recent))
        .count();
    let limit = world.session_limit();
    let third = match world.group {
        Group::PairNodes(nodes) => {
            usize::from(world.servers.held_by(by, now, limit) > nodes / 2 || released(world, by, nodes))
        }
        // It is asked for in a moment, not measured here.
        Group::PairTrusted => 1,
        Group::PairWitness | Group::Voters(_) => 0,
    };
    let (members, votes) = (
        world.hosts.len() + usize::from(!matches!(world.group, Group::PairWitness | Group::Voters(_))),
        1 + words + third,
    );
    assert!(votes > members / 2, "h16: at {now} µs {by} {what} with {votes} of {members} votes");
}

/// A server may have let go of a lock that its holder counts on until its lease ends; nobody else's lock counts before.
fn released(world: &mut World, by: usize, nodes: usize) -> bool {
    let (now, limit) = (world.now, world.session_limit());
    let others: usize =
        (0..world.hosts.len()).filter(|other| *other != by).map(|other| world.servers.held_by(other, now, limit)).sum();
    others <= nodes / 2 || world.leads_until(by).is_some_and(|until| until > now)
}

pub(crate) fn check(world: &mut World, by: usize, epoch: u64) {
    majority(world, by, "is given consent");
    let now = world.now;
    for other in (0..world.hosts.len()).filter(|other| *other != by) {
        if let Some((old, until)) = world.writes(other) {
            assert!(
                old >= epoch || until <= now,
                "h17: {by} begins epoch {epoch} while {other} writes under {old} until {until}"
            );
        }
    }
    let sees = world.hosts.iter().any(|host| host.sights[0] == Sight::Dead);
    let saw = world.dead_at.is_some_and(|at| now < at + UNDER_WAY);
    assert!(sees || saw, "h17: consent, and nobody sees the node dead");
    let first = *world.consents.entry(epoch).or_insert(by);
    let stores = matches!(world.group, Group::PairWitness | Group::Voters(_));
    assert!(first == by || world.forgets || !stores, "h17: {first} and {by} both act in epoch {epoch}");
}
