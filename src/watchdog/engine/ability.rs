//! Whether this member can put the address where it belongs, by what came of its tries (HA H3). Part of the engine.
//!
//! ```text
//! able ── tries fail for `fitter`, none holds ──▶ unable ── back-off since the last failure ──▶ able, not sound ──▶ …
//!  ▲                                                                                               │
//!  └───────── an address that is held for `fitter`; another interface, carrier or setting ─────────┘
//! ```
//! A leader that is unable hands over to whoever may be able. A partner that is not sound is given leadership for no
//! priority, only for reaching more: where the address is well nobody loses it to a mere try. If all are unable the back-off grows with each
//! time, so that they take turns ever less often, and whoever leads keeps trying.

use std::time::{Duration, Instant};

use super::address::Place;
use super::{Engine, Note};

/// How long a member that was unable does not claim to be able: at first, and at most.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// Between two tries of a leader that is unable, while nobody else is able.
const PAUSE: Duration = Duration::from_secs(2);

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Ability {
    /// When the first of the tries failed, of this term and with none since that held, and why the last one did.
    failing: Option<(Instant, String)>,
    /// It is unable until then.
    until: Option<Instant>,
    /// So often it was found unable, since it last was sound.
    rounds: u32,
    /// No client can come to it: none of its interfaces has a carrier.
    pub(super) dark: bool,
}

impl Ability {
    fn backoff(&self) -> Duration {
        let doubled = FIRST.checked_mul(1 << self.rounds.saturating_sub(1).min(16));
        doubled.map_or(LONGEST, |pause| pause.min(LONGEST))
    }

    /// It has not been found unable since the address was last held, or something has changed.
    pub(super) fn is_sound(&self) -> bool {
        self.rounds == 0
    }

    fn is_able(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// What fails in another term is counted anew.
    pub(super) fn interrupted(&mut self) {
        self.failing = None;
    }
}

impl Engine {
    /// This member has the address, or nothing says that it could not have it, and clients can come to it.
    pub(super) fn is_able(&self, now: Instant) -> bool {
        !self.ability.dark && (matches!(self.place, Place::On { .. }) || self.ability.is_able(now))
    }

    /// It leads, was found unable, and has tried in this term.
    pub(super) fn is_found_unable(&self, now: Instant) -> bool {
        self.ability.failing.is_some() && !self.is_able(now)
    }

    /// A try has failed; when the next one is due.
    pub(super) fn address_failed(&mut self, why: &str, now: Instant) -> Instant {
        let since = self.ability.failing.as_ref().map_or(now, |(since, _)| *since);
        self.ability.failing = Some((since, why.to_owned()));
        if !self.ability.is_able(now) {
            self.ability.until = Some(now + self.ability.backoff());
        } else if now >= since + self.settings.timings.fitter {
            self.found_unable(now);
        }
        now + if self.ability.is_able(now) { self.settings.timings.beat } else { PAUSE }
    }

    /// Between tries that fail, and while one takes long.
    pub(super) fn look_for_inability(&mut self, now: Instant) {
        let fitter = self.settings.timings.fitter;
        let late = self.ability.failing.as_ref().is_some_and(|(since, _)| now >= *since + fitter);
        match self.place {
            Place::Off(_) | Place::Coming(_) if late && self.ability.is_able(now) => {
                self.found_unable(now);
            }
            Place::On { since, .. } if now >= since + fitter => self.found_sound("it is held here"),
            _ => {}
        }
    }

    fn found_unable(&mut self, now: Instant) {
        self.ability.rounds = self.ability.rounds.saturating_add(1);
        let pause = self.ability.backoff();
        self.ability.until = Some(now + pause);
        let why = self.ability.failing.as_ref().map_or("", |(_, why)| why);
        let why = format!("{why}; unfit to lead while another proxy may do better, for {pause:?} at least");
        let member = Some(self.settings.me);
        self.out.push(super::Action::Note(Note { event: "address_unfit", member, term: self.kept.term, why }));
    }

    /// Something has changed that the address depends on: an interface, its carrier, a setting.
    pub(super) fn on_mended(&mut self) {
        self.found_sound("something has changed that the address depends on");
        if let Place::Off(Some(_)) = self.place {
            self.place = Place::Off(None);
        }
    }

    fn found_sound(&mut self, why: &str) {
        let told = !self.ability.is_sound();
        self.ability = Ability { dark: self.ability.dark, ..Ability::default() };
        if told {
            self.note("address_fit", Some(self.settings.me), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_grows_and_ends_growing() {
        let after = |rounds| Ability { rounds, ..Ability::default() }.backoff().as_secs();
        assert_eq!([1, 2, 3, 4, 5, 6, 1_000, u32::MAX].map(after), [5, 10, 20, 40, 60, 60, 60, 60]);
    }
}
