//! The voter's side: one word at a time, on disk before it is given, kept for as long as it was given for (HA H18). Part of the engine.

use std::time::{Duration, Instant};

use super::{Engine, MemberId, Stage, Term};
use crate::watchdog::message::{Claim, Kind, Part, Verdict};

/// A lease that this voter has given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    pub(super) term: Term,
    /// To which process.
    pub(super) incarnation: u64,
    /// When it was given or prolonged.
    pub(super) last: Instant,
}

/// An answer that waits for the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pledge {
    pub(super) number: u64,
    to: MemberId,
    claim: Claim,
    incarnation: u64,
    /// When that message of ours was sent that the claimant had had.
    acknowledged: Option<Instant>,
}

impl Engine {
    /// Why this voter does not vote for that member now: how long that will last, zero if it is no matter of time.
    pub(super) fn objection(&self, claimant: MemberId, term: Term, now: Instant) -> Option<Duration> {
        let me = self.settings.me;
        if now < self.quiet {
            return Some(self.quiet - now);
        }
        let given_away = self.peers.get(&claimant).is_some_and(|peer| term <= peer.yielded);
        if claimant != me && (given_away || !self.is_trusted_peer(claimant)) {
            return Some(Duration::ZERO);
        }
        if term < self.kept.term || (term == self.kept.term && self.kept.vote != Some(claimant)) {
            return Some(Duration::ZERO);
        }
        let guard = self.settings.timings.guard();
        let bound = self.grants.iter().filter(|(member, _)| **member != claimant).map(|(_, grant)| grant.last + guard);
        if let Some(until) = bound.max().filter(|until| *until > now) {
            return Some(until - now);
        }
        let leads = self.bid.as_ref().is_some_and(|bid| bid.stage == Stage::Lead);
        (claimant != me && (leads || !self.address_is_off(now))).then_some(self.settings.timings.beat)
    }

    /// How long somebody else's address may still be there, as far as this voter knows.
    pub(super) fn hold_for(&self, claimant: MemberId, now: Instant) -> Duration {
        let clear = self.settings.timings.clear();
        let others = self.grants.iter().filter(|(member, _)| **member != claimant);
        others.map(|(_, grant)| (grant.last + clear).saturating_duration_since(now)).max().unwrap_or_default()
    }

    pub(super) fn on_claim(&mut self, from: MemberId, claim: Claim, incarnation: u64, now: Instant) {
        if claim.kind != Kind::Probe {
            self.hear_term(claim.term, now);
        }
        if let Some(wait) = self.objection(from, claim.term, now) {
            self.answer(from, claim, Err(wait), now);
            return;
        }
        if claim.kind == Kind::Probe {
            self.answer(from, claim, Ok(()), now);
            return;
        }
        let acknowledged = self.acknowledged;
        let pledge = Pledge { number: self.storage.number(), to: from, claim, incarnation, acknowledged };
        if (self.kept.term, self.kept.vote) == (claim.term, Some(from)) {
            if self.storage.has(self.storage.number()) {
                self.redeem(pledge, now);
                return;
            }
            self.pledges.push(pledge);
        } else {
            (self.kept.term, self.kept.vote) = (claim.term, Some(from));
            let number = self.persist(now);
            self.pledges.push(Pledge { number, ..pledge });
        }
        // A claimant that asks again and again while the disk is stuck.
        if self.pledges.len() > 64 {
            self.pledges.remove(0);
        }
    }

    /// The vote is on disk.
    pub(super) fn redeem_pledges(&mut self, now: Instant) {
        let storage = &self.storage;
        let due: Vec<Pledge> = self.pledges.extract_if(.., |pledge| storage.has(pledge.number)).collect();
        for pledge in due {
            self.redeem(pledge, now);
        }
    }

    fn redeem(&mut self, pledge: Pledge, now: Instant) {
        let Pledge { to, claim, incarnation, acknowledged, .. } = pledge;
        if let Some(wait) = self.objection(to, claim.term, now) {
            self.answer(to, claim, Err(wait), now);
            return;
        }
        if self.bid.as_ref().is_some_and(|bid| bid.term <= claim.term) {
            self.step_down("deferred", "another member is elected", now);
        }
        self.grants.insert(to, Grant { term: claim.term, incarnation, last: now });
        if claim.kind == Kind::Renew {
            self.follow(to, claim, acknowledged, now);
        }
        self.answer(to, claim, Ok(()), now);
    }

    fn answer(&mut self, to: MemberId, claim: Claim, verdict: Result<(), Duration>, now: Instant) {
        let millis = |time: Duration| u32::try_from(time.as_millis() + u128::from(!time.is_zero())).unwrap_or(u32::MAX);
        let verdict = Verdict {
            kind: claim.kind,
            term: claim.term,
            seq: claim.seq,
            granted: verdict.is_ok(),
            hold: millis(self.hold_for(to, now)),
            wait: millis(verdict.err().unwrap_or_default()),
        };
        self.send(to, Part::Verdict(verdict), now);
        self.inform(to, now);
    }

    /// A term that somebody has promised or leads: whoever leads an older one stops (HA H19).
    pub(super) fn hear_term(&mut self, term: Term, now: Instant) {
        if term <= self.seen {
            return;
        }
        self.seen = term;
        if self.bid.as_ref().is_some_and(|bid| bid.stage != Stage::Probe && bid.term < term) {
            self.step_down("higher_term", "a higher term was heard of", now);
        }
    }

    /// What that member was granted ends: its process has, or it says that it holds nothing any more.
    pub(super) fn absolve(&mut self, member: MemberId, of: impl Fn(&Grant) -> bool) {
        if self.grants.get(&member).is_some_and(of) {
            self.grants.remove(&member);
        }
    }
}
