//! What becomes of sessions when a primary is replaced: nothing that its server still says goes to a client once the fence is up (HA H8),
//! and a session that only keeps a connection there does not stand in the way of a switch-over (HA H12). Must not decide who is replaced.

use std::cell::{Cell, RefCell};

use crate::backend::{Lost, Server};
use crate::cluster::{Hold, NodeId, Writes};
use crate::support::clock::{Instant, boot_nanos, now};
use crate::wire::sqlstate;

use super::lease::Leased;
use super::local::Refusal;
use super::lost::state_lost;
use super::{Context, Session};

/// The fences of one thread: server connections to a node that were opened before one are of no use any more, whoever has them.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// There may be a reason to look.
    any: Cell<bool>,
    /// The newest of each node.
    up: RefCell<Vec<(NodeId, Instant)>>,
}

impl Fences {
    /// For a thread of a process that has partner proxies, or none.
    pub(super) fn new(leased: bool) -> Self {
        let fences = Self::default();
        fences.any.set(leased);
        fences
    }

    fn put_up(&self, node: NodeId, at: Instant) {
        let mut up = self.up.borrow_mut();
        up.retain(|(id, _)| *id != node);
        up.push((node, at));
        self.any.set(true);
    }

    fn bars(&self, node: NodeId, opened: Instant) -> bool {
        self.up.borrow().iter().any(|(id, at)| *id == node && opened <= *at)
    }
}

impl Context {
    /// From now on nothing of what the present connections to this node still bring goes to a client; sessions notice at once.
    pub fn fence(&self, node: NodeId) {
        self.fences.put_up(node, now());
        self.hub.forget(node);
        for control in self.sessions.borrow().values() {
            control.wake();
        }
    }

    /// Ends idle connections to this node, and says how many of the others are kept by sessions between two transactions.
    pub fn resting(&self, node: NodeId) -> u32 {
        self.hub.forget(node);
        let resting = self.sessions.borrow().values().filter(|control| control.rests_at() == Some(node)).count();
        u32::try_from(resting).unwrap_or(u32::MAX)
    }

    /// A fence has gone up behind this connection.
    pub(super) fn is_fenced(&self, server: &Server) -> bool {
        self.fences.any.get()
            && (self.fences.bars(server.identity.node, server.identity.opened)
                || self.is_out_of_time(server.identity.node))
    }

    /// The primary's answers do not count any more: partner proxies may have agreed on another one meanwhile (HA H17).
    fn is_out_of_time(&self, node: NodeId) -> bool {
        let cluster = self.cluster();
        cluster.lease.is_over(boot_nanos) && cluster.view().primary == Some(node)
    }
}

impl Session {
    /// A fence has gone up behind this connection.
    pub(super) fn is_fenced(&self, lease: &Leased) -> bool {
        self.context.is_fenced(&lease.server)
    }

    /// The connection that is kept between transactions was fenced.
    pub(super) fn keeps_fenced(&self) -> bool {
        self.lease.as_deref().is_some_and(|lease| self.is_fenced(lease))
    }

    /// Why a session ends whose state was on a server that is lost or left. `state`: what that was, if it is known.
    pub(super) fn state_gone(&self, lost: &Lost, state: Option<&str>) -> Refusal {
        let planned = matches!(self.context.cluster().view().writes, Writes::Held { why: Hold::SwitchOver, .. });
        if !planned || !matches!(lost, Lost::Fenced) {
            return state_lost(lost);
        }
        let state = state.unwrap_or("what it has set up there");
        let text = format!(
            "terminating connection: the primary's role is being moved to another server, and this session's state ({state}) \
             cannot go with it"
        );
        Refusal::new(sqlstate::ADMIN_SHUTDOWN, text)
            .with_hint("Connect again; a new session is served by the new primary.")
    }
}
