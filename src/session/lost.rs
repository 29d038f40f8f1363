//! What a client hears when its server is lost under it (SESSIONS R20). A lost COMMIT is "unknown", never a false "failed".

use crate::backend::Lost;
use crate::cluster::Trouble;
use crate::support::clock::now;
use crate::wire::write::{self, Severity};
use crate::wire::{TxStatus, sqlstate};

use super::block::{self, Block};
use super::downstream::Broken;
use super::lease::Leased;
use super::local::Refusal;
use super::survey::Survey;
use super::{End, Session, Skip};

impl Session {
    /// A leased server is lost. The session lives on unless it had state there that nothing brings back.
    pub(super) fn lose_lease(&mut self, mut lease: Leased, lost: &Lost) -> Result<(), End> {
        let node = lease.server.identity.node;
        if !matches!(lost, Lost::NotBegun { .. } | Lost::Fenced) {
            self.report(node, Trouble::ConnectionLost);
        }
        // It may have been committed: who looks for it must not look behind it (SESSIONS R7).
        self.spread(lease.notes.news);
        if lease.down.left > 0 {
            // In the middle of a message to the client nothing else can be said.
            self.lose(lease.server);
            return Err(End::Client);
        }
        if let Some(pin) = self.pin.take().filter(|pin| pin.settled) {
            self.lose(lease.server);
            return Err(End::Fatal(self.state_gone(lost, Some(&pin.reason))));
        }
        let (owed, open) = lease.server.expected.owed();
        let begins = lease.server.expected.begins();
        // A request of which nothing was sent yet is refused when all of it is there.
        let open = open && !(begins && lease.server.expected.len() == 1);
        let answered = owed == 0 && !open && lease.server.status == TxStatus::Idle && !begins;
        if answered && lease.notes.must_ask() {
            self.lose(lease.server);
            return Err(End::Fatal(state_lost(lost)));
        }
        let in_block = begins || lease.server.status != TxStatus::Idle;
        let unknown = lease.notes.commits || (!in_block && lease.notes.wrote());
        let undone = lease.server.expected.give_up();
        self.undo_all(&mut lease.server, undone);
        self.client.input.consume(lease.up.pass);
        self.discard = lease.up.left;
        self.lose(lease.server);
        self.block = if in_block && !unknown { Block::Lost { told: owed > 0 || open } } else { Block::None };
        if lease.notes.wrote() {
            self.freshness.primary_at(now());
        }
        let refusal = match lost {
            Lost::NotBegun { code, message } => Refusal::new(code, message),
            _ if unknown => outcome_unknown(lost),
            _ => rolled_back(lost),
        };
        let status = self.shown_status();
        for _ in 0..owed {
            refusal.write(&mut self.client.output, Severity::Error);
            write::ready(&mut self.client.output, status);
        }
        if open {
            refusal.write(&mut self.client.output, Severity::Error);
            self.skip = Skip::ToSync;
        }
        Ok(())
    }

    /// What a client that was idle in a block when its server was lost hears at its next statement.
    pub(super) fn loss_to_tell(&mut self, survey: &Survey) -> Option<Refusal> {
        if !matches!(self.block, Block::Lost { told: false }) {
            return None;
        }
        let ends = survey.single().is_some_and(|looked| block::ending(&looked.facts, true).is_some());
        self.block = if ends { Block::None } else { Block::Lost { told: true } };
        Some(rolled_back("the connection ended while the session was idle in its block"))
    }

    /// A server connection that was kept between transactions is lost: its state is gone with it.
    pub(super) fn lost_while_idle(&mut self, broken: Broken) -> Option<End> {
        let lease = self.lease.take();
        // A switch-over counts who rests on a connection.
        self.control.rest(None);
        let pin = self.pin.take().filter(|pin| pin.settled);
        let lost = match broken {
            Broken::Client => {
                if let Some(lease) = lease {
                    super::reap::abandon(self, lease);
                }
                return Some(End::Client);
            }
            Broken::Server(lost) => lost,
        };
        let lease = lease?;
        if !matches!(lost, Lost::Fenced) {
            self.report(lease.server.identity.node, Trouble::ConnectionLost);
        }
        if lease.down.left > 0 {
            // In the middle of a message to the client nothing else can be said.
            self.lose(lease.server);
            return Some(End::Client);
        }
        let stateless = !lease.server.leftovers.dirty;
        let rested =
            stateless && lease.server.expected.is_empty() && lease.server.status == TxStatus::Idle && lease.quiet();
        self.lose(lease.server);
        // In session mode a connection may be kept without anything in it that another one could not be given.
        (pin.is_some() || !rested).then(|| End::Fatal(self.state_gone(&lost, pin.as_deref().map(|pin| &*pin.reason))))
    }
}

fn rolled_back(lost: &(impl std::fmt::Display + ?Sized)) -> Refusal {
    let text = format!("the server was lost before the transaction was committed: {lost}");
    Refusal::new(sqlstate::SERIALIZATION_FAILURE, text).with_hint("Nothing of it was committed; it can be run again.")
}

pub(super) fn outcome_unknown(lost: &Lost) -> Refusal {
    let text = format!("the server was lost while it committed: {lost}");
    Refusal::new(sqlstate::TRANSACTION_UNKNOWN, text)
        .with_hint("Whether it was committed is not known; look before you run it again.")
}

pub(super) fn state_lost(lost: &(impl std::fmt::Display + ?Sized)) -> Refusal {
    Refusal::new(sqlstate::CONNECTION_FAILURE, format!("the server that held this session's state was lost: {lost}"))
}
