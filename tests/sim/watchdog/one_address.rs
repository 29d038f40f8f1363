//! HA H19: at any instant at most one host has the address. The kernel ends it with the process, and some time after its lifetime when the
//! process is only frozen; an order that comes late deletes it instead.

use std::time::Instant;

use pgherd::watchdog::engine::{Address, AddressIs, Event};

use super::consent_by_majority;
use super::world::{MILLI, Next, SECOND, Time, World};

pub(crate) fn order(world: &mut World, (by, incarnation): (usize, u64), order: Address) {
    // Between looking at the clock and the call to the kernel anything may happen.
    let stop = MILLI / 10 + world.random.below(3 * MILLI);
    match order {
        Address::Take { ask, until } => {
            let probe = if ask { 200 * MILLI } else { 0 };
            let at = in_turn(world, by, probe + stop);
            world.at(at, Next::Set { by, incarnation, until, first: true });
        }
        Address::Renew { until } => {
            if !world.calm && world.random.one_in(400) {
                super::faults::freeze(world, by, 8 * SECOND);
            }
            let at = in_turn(world, by, stop);
            world.at(at, Next::Set { by, incarnation, until, first: false });
        }
        Address::Release => {
            world.hosts[by].gives_up = true;
            let at = in_turn(world, by, stop);
            world.at(at, Next::Delete { by, incarnation });
        }
        Address::Announce => {}
    }
}

/// When an order that takes so long is done: one after the other.
fn in_turn(world: &mut World, by: usize, takes: Time) -> Time {
    let at = world.hosts[by].ordered.max(world.now) + takes;
    world.hosts[by].ordered = at;
    at
}

impl World {
    pub(crate) fn set(&mut self, by: usize, incarnation: u64, until: Instant, first: bool) {
        if !self.is(by, incarnation) {
            return;
        }
        if self.hosts[by].frozen.is_some() {
            self.hosts[by].deferred.push(Next::Set { by, incarnation, until, first });
            return;
        }
        let lifetime = until.saturating_duration_since(self.local(by, self.now)).as_secs();
        let event = if lifetime == 0 {
            self.hosts[by].address = None;
            Event::Address(AddressIs::Failed("late".to_owned()))
        } else if self.hosts[by].refuses {
            Event::Address(AddressIs::Failed("refused".to_owned()))
        } else if first || self.hosts[by].address.is_some_and(|end| end > self.now) {
            let grain = self.random.below(SECOND);
            self.hosts[by].address = Some(self.now + lifetime * SECOND + grain);
            if first {
                self.tally.takes += 1;
                self.say(|_| format!("{by} has the address"));
                // Whoever has lost its majority since has ordered the address away, right behind this; the locks that it was ordered under bind
                // nobody else before their lease is over.
                if !self.hosts[by].gives_up {
                    consent_by_majority::majority(self, by, "takes the address");
                }
            }
            check(self, by);
            Event::Address(AddressIs::Taken)
        } else {
            Event::Address(AddressIs::Failed("it was gone".to_owned()))
        };
        self.tell(by, incarnation, event);
    }

    pub(crate) fn delete(&mut self, by: usize, incarnation: u64) {
        if !self.is(by, incarnation) {
            return;
        }
        if self.hosts[by].frozen.is_some() {
            self.hosts[by].deferred.push(Next::Delete { by, incarnation });
            return;
        }
        (self.hosts[by].address, self.hosts[by].gives_up) = (None, false);
        self.tell(by, incarnation, Event::Address(AddressIs::Released));
    }

    pub(crate) fn has_address(&self, member: usize) -> bool {
        self.hosts[member].address.is_some_and(|end| end > self.now)
    }
}

fn check(world: &World, by: usize) {
    for other in 0..world.hosts.len() {
        let also = other != by && world.has_address(other) && !world.hosts[other].vanished;
        assert!(!also, "h19: at {} µs {by} and {other} both have the address", world.now);
    }
}
