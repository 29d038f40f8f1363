//! What no honest member says, be it broken or hostile: such a message is as good as none. Part of the engine.
//!
//! Whoever has the key may lie about itself. What it says must not make numbers run out that all share: a term or an epoch that is believed is
//! kept for ever, and nobody leads behind the last one.

use std::time::{Duration, Instant};

use super::{Engine, MemberId};
use crate::watchdog::message::{Message, Part, Shared};

/// So far ahead a member may be at any time: of so many elections all messages were lost.
const STEP: u64 = 1 << 16;
/// So far one of a group may be that a new member joins, or one that was away for long: an election each second for 136 years.
const LEAP: u64 = 1 << 32;
/// Between two such leaps. By leaps alone it takes 194 days to the last term, and much longer to the last epoch.
const PAUSE: Duration = Duration::from_secs(1);

/// When a number was last believed that was far ahead.
#[derive(Debug, Default)]
pub(super) struct Leaps(Option<Instant>);

impl Leaps {
    /// May a number that was `known` be `told` now?
    fn believe(&mut self, known: u64, told: u64, now: Instant) -> bool {
        if told <= known.saturating_add(STEP) {
            return true;
        }
        let leaps = told <= known.saturating_add(LEAP) && self.0.is_none_or(|at| now >= at + PAUSE);
        if leaps {
            self.0 = Some(now);
        }
        leaps
    }
}

impl Engine {
    /// Could an honest member say this?
    pub(super) fn check(&mut self, from: MemberId, message: &Message, now: Instant) -> Result<(), &'static str> {
        let known = &self.kept.shared;
        let (seen, epoch) = (self.seen, known.epoch.max(known.claimed));
        let mut term = message.term.max(message.shared.0);
        let mut next = message.promised;
        match &message.part {
            Part::Claim(claim) if claim.term.owner() != from => return Err("it stands for a term of another member"),
            Part::Yield(of, _) if of.owner() != from => return Err("it gives away a term of another member"),
            Part::Claim(claim) => (term, next) = (term.max(claim.term), next.max(claim.prepare)),
            Part::Yield(of, _) => term = term.max(*of),
            Part::Shared(shared) => {
                let Shared { version, epoch, claimed, .. } = &**shared;
                (term, next) = (term.max(version.0), next.max(*epoch).max(*claimed));
            }
            Part::Beat | Part::Verdict(_) | Part::Bye | Part::Settings(_) => {}
        }
        let [terms, epochs] = &mut self.leaps;
        if !terms.believe(seen.count(), term.count(), now) {
            return Err("its term is too far ahead");
        }
        if epochs.believe(epoch, next, now) { Ok(()) } else { Err("its epoch is too far ahead") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_run_out_by_leaps() {
        let (mut leaps, begun) = (Leaps::default(), crate::support::clock::now());
        assert!(leaps.believe(7, 7 + STEP, begun) && leaps.believe(7, 0, begun));
        assert!(!leaps.believe(7, u64::MAX, begun) && !leaps.believe(7, 8 + LEAP, begun));
        assert!(leaps.believe(0, LEAP, begun), "a new member of an old group");
        assert!(!leaps.believe(LEAP, LEAP * 2, begun + PAUSE / 2));
        assert!(leaps.believe(LEAP, LEAP * 2, begun + PAUSE));
        assert!(leaps.believe(u64::MAX, u64::MAX, begun));
        let days = (u64::MAX >> 8) / LEAP / 86_400;
        assert_eq!(days, 194);
    }
}
