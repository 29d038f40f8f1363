//! What others in this process want of the group, and other settings, as events for the engine. Part of the runner; must not decide.

use super::super::engine::{Event, Settings, Ticket};
use super::hands::Hands;
use super::heart::Heart;
use super::{Body, Wish, settings};
use crate::cluster;

/// Which wishes for consent somebody still waits for, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Consents {
    newest: u64,
    given_up: u64,
}

impl Consents {
    pub(super) fn new(given_up: u64) -> Self {
        Self { newest: 0, given_up }
    }

    /// Does whoever asked still want it?
    fn heeds(&mut self, number: u64) -> bool {
        self.newest = self.newest.max(number);
        number > self.given_up
    }

    /// Nobody wants what was asked for up to this number: is nothing wanted any more?
    fn gives_up(&mut self, number: u64) -> bool {
        self.given_up = self.given_up.max(number);
        self.given_up >= self.newest
    }
}

impl<H: Hands + 'static> Heart<H> {
    pub(super) fn wish(&mut self, wish: Wish) -> Event {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        match wish {
            Wish::Consent { number, node, planned, answer } => {
                if !self.consents.heeds(number) {
                    return Event::Tick;
                }
                self.answers.insert(ticket, answer);
                Event::Consent { ticket, node, planned }
            }
            Wish::Record(epoch, body, answer) => {
                self.answers.insert(ticket, answer);
                Event::Record(ticket, epoch, body)
            }
            Wish::HandOver(to, answer) => {
                let member = to.as_deref().map(|name| self.member(name).ok_or(name));
                match member.transpose() {
                    Ok(member) => {
                        self.answers.insert(ticket, answer);
                        Event::HandOver(ticket, member)
                    }
                    Err(name) => {
                        let _ = answer.send(Err(format!("there is no member {name}")));
                        Event::Tick
                    }
                }
            }
            Wish::Ask(member, errand, who, signs) => {
                self.ask_partner(&member, errand, who, &signs);
                Event::Tick
            }
            Wish::Leave(left) => {
                self.leaving.push(left);
                Event::Leave
            }
        }
    }

    /// What consent was asked for by wishes up to this number does not happen; a later wish lives on what was prepared for it.
    pub(super) fn give_up(&mut self, number: u64) -> Event {
        if self.consents.gives_up(number) { Event::Resume } else { Event::Tick }
    }

    pub(super) fn reload(&mut self, body: &mut Body<H>) -> Event {
        let config = body.reloads.borrow_and_update().clone();
        let Some(watchdog) = &config.watchdog else { return Event::Tick };
        body.section.send_modify(|section| settings::reload(section, &config));
        let new = settings::settings(&config, watchdog, body.duty);
        self.watchdog.trusted_servers.clone_from(&watchdog.trusted_servers);
        self.watchdog.commands.clone_from(&watchdog.commands);
        self.settings.priority = new.priority;
        let (agreed, why) = settings::agreed_while_running(&self.settings.agreed, &new.agreed);
        if let Some(why) = why {
            self.shared.events.record(cluster::Event::warn("restart_needed", "watchdog").why(why));
        }
        self.settings.agreed.clone_from(&agreed);
        body.config = config;
        Event::Configure(Box::new(Settings { agreed, ..new }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_ends_no_later_wish_and_outruns_none() {
        let mut consents = Consents::new(0);
        assert!(consents.heeds(1) && consents.gives_up(1));
        assert!(consents.heeds(2) && consents.heeds(3));
        assert!(!consents.gives_up(2), "the third lives on what was prepared");
        assert!(consents.gives_up(3));
        // The word came before the wish, which waited in its queue.
        assert!(consents.gives_up(4) && !consents.heeds(4));
        assert!(consents.heeds(5));
        assert!(!Consents::new(7).heeds(7), "the watchdog has begun anew meanwhile");
    }
}
