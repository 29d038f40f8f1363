//! A single write outside any block whose server was lost before it said a word (HA H14): it waits for what becomes of that server. If another
//! one goes on with a history that certainly lacks it, it is run again there; in any other case the client hears that nobody knows.
//!
//! It is certain only if the statement was sent after everything had been written that the new primary has of the old one. Then whatever
//! the old one made of it is on a branch that nobody follows, and none of its words can reach a client any more. Must not guess.

use crate::backend::Lost;
use crate::cluster::{Epoch, Life, NodeId, Role, Trouble, Writes};
use crate::sql::{Flags, Kind};
use crate::support::buffer::SMALL;
use crate::support::clock::{Instant, now};
use crate::wire::TxStatus;
use crate::wire::write::{self, Severity};

use super::hold::{Place, Wait, Way};
use super::lease::{Leased, NoLease};
use super::survey::Survey;
use super::{End, Session, lost};

/// Such a write under way, until the server says anything.
#[derive(Debug)]
pub(super) struct Again {
    /// Not later than its first byte.
    sent: Instant,
    request: Box<[u8]>,
}

/// What became of the server of a lost write.
enum Fate {
    /// Its successor's history lacks the write.
    Missed,
    /// Nobody knows.
    Unknown,
}

impl Session {
    /// Keeps the request at the front of the input, of which nothing was sent yet, if it may be run again. Costs a clock and a copy.
    pub(super) fn keep_request(&self, lease: &mut Leased, survey: &Survey) {
        let writes = |facts: &crate::sql::Facts| {
            facts.kind == Kind::Dml && facts.statements == 1 && !facts.flags.has(Flags::COPY_IN)
        };
        let alone = survey.complete && !survey.primary && survey.executes == 1 && survey.size <= SMALL;
        if alone && survey.single().is_some_and(|looked| writes(&looked.facts)) {
            let request = self.client.input.filled()[..survey.size].into();
            lease.ways.again = Some(Box::new(Again { sent: now(), request }));
        }
    }

    /// The server is lost, and the lease may have kept its request.
    pub(super) async fn lose_write(&mut self, mut lease: Box<Leased>, lost: Lost) -> Result<(), End> {
        let again = lease.ways.again.take();
        let Some(again) = again.filter(|_| self.owes_one(&lease)) else { return self.lose_lease(*lease, &lost) };
        let (node, epoch) = (lease.server.identity.node, lease.server.identity.epoch);
        if !matches!(lost, Lost::Fenced) {
            self.report(node, Trouble::ConnectionLost);
        }
        // It may have been committed: who looks for it must not look behind it (SESSIONS R7).
        self.spread(lease.notes.news);
        let undone = lease.server.expected.give_up();
        self.undo_all(&mut lease.server, undone);
        // Whoever replaces the node waits for the end of the connections to it.
        self.lose(lease.server);
        let fate = self.fate(node, epoch, again.sent).await?;
        let buffers = &self.context.hub.buffers;
        if matches!(fate, Fate::Missed) && self.client.put_back(&again.request, buffers) {
            self.context.counters.rewrites.add(1);
            return Ok(());
        }
        self.held_since = None;
        self.freshness.primary_at(now());
        lost::outcome_unknown(&lost).write(&mut self.client.output, Severity::Error);
        let status = self.shown_status();
        write::ready(&mut self.client.output, status);
        Ok(())
    }

    /// Exactly one request is owed, all of it was sent or is about to be, and nothing of its answer has come.
    fn owes_one(&self, lease: &Leased) -> bool {
        let sent = lease.up.pass == 0 && lease.up.left == 0;
        let untold = lease.quiet() && lease.server.status == TxStatus::Idle;
        let pinned = self.pin.as_ref().is_some_and(|pin| pin.settled);
        sent && untold && !pinned && lease.server.expected.owed() == (1, false)
    }

    /// Waits until it is known what became of a primary that was lost.
    async fn fate(&mut self, node: NodeId, epoch: Epoch, sent: Instant) -> Result<Fate, End> {
        let (lost, mut place): (Instant, Option<Place>) = (now(), None);
        loop {
            if let Some(fate) = self.decided(node, epoch, sent, lost) {
                return Ok(fate);
            }
            let until = self.held_from() + self.context.hold_limits().timeout;
            // While nobody has noticed yet there is nothing to wait for but time.
            let held = matches!(self.way(), Way::Held(_));
            match self.hold(&Wait { why: String::new(), until, held }, &mut place).await {
                Ok(()) => {}
                Err(NoLease::Gone) => return Err(End::Client),
                Err(NoLease::Refused(_) | NoLease::Unreachable(_)) => return Ok(Fate::Unknown),
            }
        }
    }

    /// What the present view says of it, if it says anything.
    fn decided(&self, node: NodeId, epoch: Epoch, sent: Instant, lost: Instant) -> Option<Fate> {
        let view = self.context.cluster().view();
        if matches!(view.writes, Writes::Refused { .. }) {
            return Some(Fate::Unknown);
        }
        if view.epoch != epoch {
            let missed = view.succession.is_some_and(|succession| succession.lacks(node, epoch, sent));
            return (view.writes == Writes::Open).then_some(if missed { Fate::Missed } else { Fate::Unknown });
        }
        // The connection was lost, and the server lives on: whatever it made of the write stays.
        let primary = view.node(node).filter(|seen| seen.life == Life::Well && seen.role == Role::Primary)?;
        let asked = primary.position.as_ref().is_some_and(|position| position.sample.asked > lost);
        (asked && view.writes == Writes::Open).then_some(Fate::Unknown)
    }
}
