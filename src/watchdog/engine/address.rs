//! The address as orders to the runner (HA H19, H21): taken late, renewed under evidence, released early. Part of the engine.

use std::time::{Duration, Instant};

use super::{Action, Address, AddressIs, Engine, Note};
use crate::watchdog::timings::GRAIN;

/// When neighbours are told after it was taken, in milliseconds; then every [`AGAIN`].
const ANNOUNCEMENTS: [u64; 6] = [0, 100, 300, 1_000, 2_000, 5_000];
const AGAIN: Duration = Duration::from_secs(10);
/// Between two attempts to take an address that somebody else has.
const OCCUPIED: Duration = Duration::from_secs(2);
/// A release that is not confirmed is ordered again.
const INSIST: Duration = Duration::from_millis(500);

/// Where the address is, as far as this process is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not here; not to be taken before then.
    Off(Option<Instant>),
    /// Ordered.
    Coming(Instant),
    /// Here until then unless renewed; taken at; so many announcements were made.
    On { until: Instant, since: Instant, told: u64 },
    /// Ordered to go; it dies by itself some time after the second.
    Going(Instant, Instant),
}

impl Engine {
    /// Nothing of it is here, and nothing is on its way.
    pub(super) fn address_is_off(&self, now: Instant) -> bool {
        match self.place {
            Place::Off(_) => true,
            // The kernel has ended it by now, whatever became of the order.
            Place::Going(_, until) => now >= until + self.settings.timings.margin,
            Place::Coming(_) | Place::On { .. } => false,
        }
    }

    /// A lease that has a whole second left, as the kernel counts lifetimes.
    fn is_worth_it(until: Instant, now: Instant) -> bool {
        until.saturating_duration_since(now) >= GRAIN
    }

    pub(super) fn look_after_address(&mut self, now: Instant) {
        let end = if self.leads().is_some() { self.lease_end(now) } else { None };
        if end.is_some() {
            self.look_for_inability(now);
        }
        match (self.place, end) {
            (Place::Off(not_before), Some(until)) => {
                let due = self.settings.address && not_before.is_none_or(|at| at <= now) && self.successor.is_none();
                if due && Self::is_worth_it(until, now) && self.leaving.is_none() && self.address_is_free(now) {
                    self.place = Place::Coming(until);
                    let ask = self.handed.is_none_or(|at| now >= at + OCCUPIED);
                    self.out.push(Action::Address(Address::Take { ask, until }));
                }
            }
            (Place::On { until: old, since, told }, Some(until)) => {
                if until >= old + self.settings.timings.beat / 2 && Self::is_worth_it(until, now) {
                    self.place = Place::On { until, since, told };
                    self.out.push(Action::Address(Address::Renew { until }));
                }
                self.announce(now);
            }
            (Place::Coming(_) | Place::On { .. }, None) => self.release(now),
            (Place::Going(asked, until), _) if now >= asked + INSIST => {
                self.place = Place::Going(now, until);
                self.out.push(Action::Address(Address::Release));
            }
            _ => {}
        }
    }

    fn announce(&mut self, now: Instant) {
        let Place::On { since, told, .. } = &mut self.place else { return };
        if now >= *since + announcement(*told) {
            *told += 1;
            self.out.push(Action::Address(Address::Announce));
        }
    }

    /// Orders it away, if there is anything to order.
    pub(super) fn release(&mut self, now: Instant) {
        let until = match self.place {
            Place::Coming(until) | Place::On { until, .. } => until,
            Place::Off(_) | Place::Going(..) => return,
        };
        self.place = Place::Going(now, until);
        self.out.push(Action::Address(Address::Release));
    }

    pub(super) fn on_address(&mut self, is: AddressIs, now: Instant) {
        match (is, self.place) {
            (AddressIs::Taken, Place::Coming(until)) => {
                self.place = Place::On { until, since: now, told: 0 };
                self.note("address_taken", Some(self.settings.me), "the address is here");
            }
            // It came too late: it is to go again.
            (AddressIs::Taken, Place::Off(_)) => {
                self.place = Place::Going(now, now);
                self.out.push(Action::Address(Address::Release));
            }
            (AddressIs::Occupied(who), Place::Coming(_)) => {
                (self.place, self.handed) = (Place::Off(Some(now + OCCUPIED)), None);
                // Nobody else could do better.
                self.ability.interrupted();
                self.complain("address_occupied", who);
            }
            (AddressIs::Failed(why), Place::Coming(_) | Place::On { .. }) => {
                self.complain("address_failed", why.clone());
                self.place = Place::Off(Some(self.address_failed(&why, now)));
            }
            (AddressIs::Released, Place::Going(..)) => {
                self.place = Place::Off(None);
                self.note("address_released", Some(self.settings.me), "the address is gone from here");
            }
            _ => {}
        }
    }

    fn complain(&mut self, event: &'static str, why: String) {
        self.out.push(Action::Note(Note { event, member: Some(self.settings.me), term: self.kept.term, why }));
    }

    /// When the address wants to be looked at.
    pub(super) fn address_wakeup(&self) -> Option<Instant> {
        match self.place {
            Place::Off(at) => at,
            Place::Coming(until) => Some(until),
            Place::On { since, told, .. } => Some(since + announcement(told)),
            Place::Going(asked, _) => Some(asked + INSIST),
        }
    }
}

fn announcement(told: u64) -> Duration {
    let index = usize::try_from(told).unwrap_or(usize::MAX);
    match ANNOUNCEMENTS.get(index) {
        Some(millis) => Duration::from_millis(*millis),
        None => Duration::from_secs(5) + AGAIN * u32::try_from(index - 5).unwrap_or(u32::MAX / 16),
    }
}
