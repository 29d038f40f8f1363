//! Giving leadership away: to a fitter or preferred partner, on request, or because this process stops (HA H3, H24). Part of the engine.

use std::time::{Duration, Instant};

use super::{Action, Engine, MemberId, Ticket};
use crate::watchdog::message::{Fitness, Hold, Part, Trial};

/// A partner that is preferred for nothing but its priority must have been there for so long.
const SETTLED: Duration = Duration::from_secs(10);
/// Who stops in order waits so long for its successor.
const FAREWELL: Duration = Duration::from_secs(1);
/// And so long for its address to go.
const STUCK: Duration = Duration::from_secs(5);

impl Engine {
    /// The best of the others that could lead.
    fn best(&self, now: Instant) -> Option<MemberId> {
        let able = self.peers.iter().filter(|(id, _)| self.is_candidate(**id, now));
        able.max_by_key(|(id, peer)| (peer.fitness, peer.priority, std::cmp::Reverse(**id))).map(|(id, _)| *id)
    }

    pub(super) fn on_hand_over(&mut self, ticket: Ticket, to: Option<MemberId>, now: Instant) {
        let ours = self.fitness(now).reach();
        // Where no client comes to, whoever is the least bit better is better.
        let better =
            |fitness: Fitness| if self.ability.dark { fitness.reach() > ours } else { fitness.hold == Hold::Able };
        let fit = |id: &MemberId| self.peers.get(id).is_some_and(|peer| better(peer.fitness));
        // Who asks for a certain one knows why.
        let able =
            to.map_or_else(|| self.best(now).filter(fit), |to| Some(to).filter(|to| self.is_candidate(*to, now)));
        let answer = match (self.leads(), able) {
            (None, _) => Err("this proxy does not lead".to_owned()),
            (_, None) => Err("nobody is there to take over".to_owned()),
            (Some(_), Some(to)) => {
                self.successor = Some(to);
                self.release(now);
                Ok(0)
            }
        };
        self.out.push(Action::Reply(ticket, answer));
    }

    pub(super) fn on_leave(&mut self, now: Instant) {
        if self.leaving.is_none() {
            self.leaving = Some(now);
            self.release(now);
        }
    }

    pub(super) fn look_after_succession(&mut self, now: Instant) {
        if self.leads().is_some() {
            self.look_for_fitter(now);
            let goes = self.successor.is_some() || self.leaving.is_some();
            if goes && self.address_is_off(now) {
                let to = self.successor.or_else(|| self.best(now));
                self.yield_to(to, now);
            }
        } else {
            self.preferred = None;
        }
        self.leave(now);
    }

    /// A partner that is fitter for a while, or as fit and preferred for longer, takes over.
    fn look_for_fitter(&mut self, now: Instant) {
        let ours = (self.fitness(now), self.settings.priority);
        let stuck = self.is_dispensable(now);
        let found = self.best(now).and_then(|best| {
            let peer = self.peers.get(&best)?;
            // Who holds the address is not asked to give it away for what was, here or there, some time ago.
            let (theirs, own) = (peer.fitness.reach(), ours.0.reach());
            let fitter = theirs > own;
            let wanted = theirs == own && peer.fitness.trial == Trial::Sound && peer.priority > ours.1;
            // So long it has been tried here already.
            let keeps = stuck && theirs >= own;
            let able = fitter && peer.fitness.hold == Hold::Able && self.is_found_unable(now);
            let patience = if fitter { self.settings.timings.fitter } else { SETTLED };
            let why = match (able, fitter) {
                _ if keeps => "this proxy can write nothing down",
                (true, _) => "the address cannot be held here, and may be there",
                (_, true) => "it reaches more than this proxy",
                _ => "its priority is higher",
            };
            let at_once = able || keeps;
            (fitter || wanted || keeps).then_some((best, if at_once { Duration::ZERO } else { patience }, why))
        });
        let Some((best, patience, why)) = found else {
            self.preferred = None;
            return;
        };
        let (known, since) = *self.preferred.get_or_insert((best, now));
        if known != best {
            self.preferred = Some((best, now));
        }
        let since = if known == best { since } else { now };
        if now >= since + patience && self.successor.is_none() && self.leaving.is_none() {
            self.note("hand_over", Some(best), why);
            self.successor = Some(best);
            self.release(now);
        }
    }

    /// When a partner that is preferred takes over.
    pub(super) fn succession_wakeup(&self) -> Option<Instant> {
        let fitter = self.preferred.map(|(_, since)| since + self.settings.timings.fitter);
        fitter.or_else(|| self.leaving.map(|since| since + FAREWELL))
    }

    /// Nothing is held any more, and all are told.
    fn yield_to(&mut self, to: Option<MemberId>, now: Instant) {
        let Some(term) = self.leads() else { return };
        self.step_down("yielded", "leadership is handed over", now);
        self.unlock();
        self.abstains = now + self.settings.timings.lease;
        self.yielded = Some(now);
        self.broadcast(&Part::Yield(term, to), now);
    }

    fn leave(&mut self, now: Instant) {
        let Some(since) = self.leaving else { return };
        if self.left || self.leads().is_some() {
            return;
        }
        let taken = self.yielded.is_none_or(|at| {
            let granted = self.grants.values().any(|grant| grant.last >= at);
            granted || now >= at + FAREWELL || self.best(now).is_none()
        });
        if taken && (self.address_is_off(now) || now >= since + STUCK) {
            self.bid = None;
            self.unlock();
            self.broadcast(&Part::Bye, now);
            self.left = true;
            self.out.push(Action::Left);
        }
    }
}
