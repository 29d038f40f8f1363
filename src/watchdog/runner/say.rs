//! What the rest of the process and people are told: how long writes may go, what is agreed on, events, the picture of the group. Part of
//! the runner; must not decide.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::super::engine::{MemberId, Note, Standing, Writes};
use super::hands::Hands;
use super::heart::Heart;
use super::status::{self, Beside};
use crate::cluster::{self, Accord, Epoch, NodeId};
use crate::support::clock::{self, Duration, Instant};

/// The same words again and again are an event this often.
const REMINDER: Duration = Duration::from_secs(60);
/// Different words that are remembered for that.
const WORDS: usize = 64;

/// That no trusted server answers, and why none could be asked, if that is so.
fn silent(servers: &[String], unasked: Option<&str>) -> String {
    let why = unasked.map_or(String::new(), |why| format!(" ({why})"));
    format!("no trusted server answers: {}{why}", servers.join(", "))
}

/// A link of a partner has gone silent, or is back.
fn of_link(name: &str, link: &str, lost: bool) -> cluster::Event {
    if lost {
        let why = format!("{name}: nothing comes by {link} any more, while it is heard by another link");
        cluster::Event::warn("heartbeat_lost", "watchdog").why(why)
    } else {
        cluster::Event::info("heartbeat_found", "watchdog").why(format!("{name}: it is heard by {link} again"))
    }
}

/// Tells of attempts to keep votes: the first failure, again once in a while, and that it works again.
pub(super) fn of_votes(shared: Arc<cluster::Shared>) -> impl Fn(io::Result<()>) {
    let told = Cell::new(None);
    move |written| {
        let now = clock::boot();
        match (written, told.get()) {
            (Err(error), at) if at.is_none_or(|at| now >= at + REMINDER) => {
                told.set(Some(now));
                let why = format!("votes cannot be kept: {error}; this proxy votes for nobody");
                shared.events.record(cluster::Event::error("votes_not_kept", "watchdog").why(why));
            }
            (Ok(()), Some(_)) => {
                told.set(None);
                shared.events.record(cluster::Event::info("votes_kept", "watchdog").why("votes can be kept again"));
            }
            _ => {}
        }
    }
}

impl<H: Hands + 'static> Heart<H> {
    pub(super) fn quarantine(&mut self, nodes: BTreeSet<NodeId>) {
        for node in nodes.difference(&self.blind) {
            let why = "this proxy alone cannot reach it: not used here, and no reason for a failover";
            self.shared.events.record(cluster::Event::warn("quarantined_here", "watchdog").node(*node).why(why));
        }
        for node in self.blind.difference(&nodes) {
            let why = "others do not see it otherwise any more";
            self.shared.events.record(cluster::Event::info("quarantine_over", "watchdog").node(*node).why(why));
        }
        self.blind = nodes;
    }

    pub(super) fn trusted(&mut self, answered: bool) {
        if answered {
            if self.troubles.remove("trusted").is_some() {
                let event = cluster::Event::info("trusted_answer", "watchdog");
                self.shared.events.record(event.why("a trusted server answers again"));
            }
            return;
        }
        let why = silent(&self.watchdog.trusted_servers, self.unasked.borrow().as_deref());
        if self.troubles.get("trusted") != Some(&why) {
            self.troubles.insert("trusted", why.clone());
            let why = format!("{why}; this proxy does not begin to lead, and keeps trying");
            self.shared.events.record(cluster::Event::warn("trusted_silent", "watchdog").why(why));
        }
    }

    pub(super) fn note(&mut self, note: &Note, now: Instant) {
        const GOOD: [&str; 11] = [
            "leader",
            "member_joined",
            "member_found",
            "member_returned",
            "member_left",
            "address_taken",
            "address_released",
            "address_fit",
            "disk_answers",
            "hand_over",
            "yielded",
        ];
        let name = note.member.and_then(|id| self.settings.members.get(usize::from(id.0)));
        let name = name.map_or(String::new(), |member| member.name.clone());
        let why = if name.is_empty() { note.why.clone() } else { format!("{name}: {}", note.why) };
        let good = GOOD.contains(&note.event);
        match note.event {
            "address_occupied" | "address_failed" => drop(self.troubles.insert("address", why.clone())),
            "address_unfit" => drop(self.troubles.insert("unfit", why.clone())),
            "address_fit" => {
                self.troubles.remove("address");
                self.troubles.remove("unfit");
            }
            _ => {}
        }
        if !good && !self.is_new(note.event, &why, now) {
            return;
        }
        let made = match note.event {
            _ if good => cluster::Event::info,
            // Somebody should look.
            "address_unfit" => cluster::Event::error,
            _ => cluster::Event::warn,
        };
        let event = made(note.event, "watchdog").why(format!("{why} (term {})", note.term.count()));
        self.shared.events.record(event.epoch(Epoch(self.standing.epoch)));
    }

    /// The same words are said once a minute.
    pub(super) fn is_new(&mut self, event: &str, why: &str, now: Instant) -> bool {
        self.said.retain(|_, at| now < *at + REMINDER);
        if self.said.len() >= WORDS {
            return false;
        }
        let key = (event.to_owned(), why.to_owned());
        let new = !self.said.contains_key(&key);
        if new {
            self.said.insert(key, now);
        }
        new
    }

    pub(super) fn complain(&mut self, event: &'static str, why: String, now: Instant) {
        if self.is_new(event, &why, now) {
            self.shared.events.record(cluster::Event::warn(event, "watchdog").why(why));
        }
    }

    pub(super) fn picture(&mut self, now: Instant) {
        self.pictured = now;
        self.report(now);
        let pings = !self.watchdog.trusted_servers.is_empty();
        let beside = Beside {
            votes: self.sights.votes(&mut self.locks.keys().copied(), pings, now),
            arbiter: self.arbiter,
            holds_ip: self.holds_ip,
            refusals: self.refusals,
            cancels: self.desk.cancels,
            troubles: self.troubles.values().cloned().collect(),
            blind: self.blind.clone(),
        };
        let parts = (&self.engine, &self.settings, &self.watchdog);
        let mut group = status::group(parts, &self.standing, beside, now);
        for (at, member) in group.members.iter_mut().enumerate().filter(|(at, _)| *at != group.own) {
            let id = MemberId(u8::try_from(at).unwrap_or(u8::MAX));
            member.links = self.links_of(id, now);
            // Of one that is not heard nobody knows what it hears and thinks.
            let silence = self.settings.timings.silence();
            for (link, lost) in self.sights.turns(id, &member.links, silence, now) {
                self.shared.events.record(of_link(&member.name, &link, lost));
            }
            if member.is_heard() {
                member.heard_by = self.sights.heard_by(id, now);
                member.says = self.sights.says(id, now);
                member.clock = self.sights.clock(id, now);
            }
        }
        self.shared.group.store(Some(Arc::new(group)));
    }

    /// What `failover` must know, if it is something else than before.
    pub(super) fn agree(&self) {
        let (standing, share) = (&self.standing, &self.share);
        let leads = standing.leader == Some(self.settings.me) && share.version.0 == standing.term;
        let version = (share.version.0.0, share.version.1);
        let new = Accord {
            leads: leads.then_some(standing.term.0),
            version,
            epoch: Epoch(share.epoch),
            writes: standing.writes != Writes::Stop && standing.epoch == share.epoch,
            body: self.accord.borrow().body.clone(),
            blind: self.blind.clone(),
        };
        self.accord.send_if_modified(|old| {
            let body = if old.version == version { old.body.clone() } else { share.body.as_str().into() };
            let new = Accord { body, ..new };
            let differs = *old != new;
            *old = new;
            differs
        });
    }

    /// Until when the data threads may write; they look at it themselves.
    pub(super) fn stand(&mut self, standing: Standing) {
        self.standing = standing;
        if standing.writes != Writes::Stop {
            // What was being prepared was given up, or has come about.
            self.stops.end();
        }
        self.post.tell(standing.leads.is_some());
        let until = match standing.writes {
            Writes::Until(until) => Some(until),
            Writes::Course | Writes::Stop => None,
        };
        self.bound = self.bound.max(until).max(standing.leads);
        let bound = self.bound.map_or(0, clock::nanos_of);
        let (begins, goes_on) = match standing.writes {
            Writes::Until(until) => (clock::nanos_of(until), bound),
            Writes::Course => (u64::MAX, u64::MAX),
            Writes::Stop => (0, bound),
        };
        self.shared.lease.set(Epoch(standing.epoch), begins, goes_on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_no_trusted_server_could_be_asked_is_told() {
        let servers = ["192.0.2.1".to_owned(), "gateway".to_owned()];
        assert_eq!(silent(&servers, None), "no trusted server answers: 192.0.2.1, gateway");
        let why = silent(&servers, Some("Operation not permitted; the process needs CAP_NET_RAW"));
        assert!(why.ends_with("gateway (Operation not permitted; the process needs CAP_NET_RAW)"), "{why}");
    }

    #[test]
    fn a_disk_that_fails_is_told_once_and_again_when_it_works() {
        let shared = Arc::new(cluster::Shared::new(clock::now()));
        let tell = of_votes(shared.clone());
        tell(Ok(()));
        (0..100).for_each(|_| tell(Err(io::ErrorKind::StorageFull.into())));
        tell(Ok(()));
        tell(Ok(()));
        tell(Err(io::ErrorKind::StorageFull.into()));
        let told: Vec<_> = shared.events.since(0, 9).into_iter().map(|event| event.name).collect();
        assert_eq!(told, ["votes_not_kept", "votes_kept", "votes_not_kept"]);
    }
}
