//! The weighted choice of the node that takes a session's reads, redirect lists included, as pgpool-II does it.
//! Chance comes in as a number.

use super::Policy;
use crate::cluster::{ClusterView, NodeId, NodeView};
use crate::config::{Redirect, RedirectTarget};

/// Picks the node for a session's reads (or for one statement, with `statement_level`): by weight over all usable nodes, the
/// primary included, unless `redirect` (see [`Policy::redirect`]) says otherwise. `random` is any uniformly distributed
/// number. `None`: no node takes reads.
///
/// A redirect below ratio 1 that misses goes to the other nodes by weight, one to `standby` that misses to the primary; a
/// target that is not usable counts as no redirect.
pub fn pick_standby(view: &ClusterView, policy: &Policy, redirect: Option<&Redirect>, random: u64) -> Option<NodeId> {
    if !policy.load_balance {
        return view.primary;
    }
    let chance = unit(random);
    // A second number from the first, for the draw among nodes.
    let random = random.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let standby = |node: &NodeView| Some(node.id) != view.primary;
    if let Some(redirect) = redirect {
        let hit = chance < redirect.ratio;
        let by_target = match redirect.target {
            RedirectTarget::Node(id) => one(view, id, hit, random),
            RedirectTarget::Primary => view.primary.and_then(|id| one(view, id, hit, random)),
            RedirectTarget::Standby if hit => by_weight(view, standby, random).or_else(|| {
                // All weights are 0: an explicit wish for a standby counts more.
                view.usable_standbys().nth(random as usize % view.usable_standbys().count().max(1)).map(|node| node.id)
            }),
            RedirectTarget::Standby => view.primary_node().filter(|node| node.usable()).map(|node| node.id),
        };
        if by_target.is_some() {
            return by_target;
        }
    }
    by_weight(view, |_| true, random)
}

/// A redirect to one node: that node, or on a miss another by weight. `None`: it is not usable.
fn one(view: &ClusterView, id: NodeId, hit: bool, random: u64) -> Option<NodeId> {
    let usable = serves(view).any(|node| node.id == id);
    if !usable {
        return None;
    }
    if hit { Some(id) } else { by_weight(view, |node| node.id != id, random) }
}

/// Nodes that may serve reads: the primary and the usable standbys.
fn serves(view: &ClusterView) -> impl Iterator<Item = &NodeView> {
    view.primary_node().filter(|node| node.usable()).into_iter().chain(view.usable_standbys())
}

fn by_weight(view: &ClusterView, wanted: impl Fn(&NodeView) -> bool, random: u64) -> Option<NodeId> {
    let nodes = || serves(view).filter(|node| node.weight > 0.0 && wanted(node));
    let total: f64 = nodes().map(|node| node.weight).sum();
    let mut left = unit(random) * total;
    let mut last = None;
    for node in nodes() {
        left -= node.weight;
        last = Some(node.id);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// A number in 0..1 from 64 random bits.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
