//! What all members agree on: epoch and journal on a majority's disks (HA H13), who may write under which epoch (H17), and consent to
//! replace a primary. Part of the engine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::members::Joined;
use super::{Action, Duty, Engine, MemberId, NodeId, OnQuorumLoss, Sight, Standing, Third, Ticket, Writes};
use crate::watchdog::message::{Claim, Part, Shared, State, Term};

/// The longest that somebody who asks for consent, or records something, waits for the answer.
pub(super) const PATIENCE: Duration = Duration::from_millis(1_800);
/// The same of what an operator wants: transactions that are under way are waited for.
const PLANNED: Duration = Duration::from_millis(8_500);
/// A preparation that nobody has given up or carried out for so long was forgotten: a hook may take a long time.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// A wish for consent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    ticket: Ticket,
    node: NodeId,
    planned: bool,
    deadline: Instant,
}

/// Something that a majority is to have on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recording {
    ticket: Ticket,
    version: (Term, u64),
    deadline: Instant,
}

impl Engine {
    /// The leader speaks, and its claim was granted.
    pub(super) fn follow(&mut self, from: MemberId, claim: Claim, acknowledged: Option<Instant>, now: Instant) {
        if (claim.term, claim.seq) <= self.followed {
            return;
        }
        self.followed = (claim.term, claim.seq);
        self.leader = Some((claim.term, from, now));
        let agreed = self.peers.get(&from).map(|peer| peer.shared).unwrap_or_default();
        if claim.prepare > 0 {
            self.stop_for(claim.prepare);
            self.write_until = None;
        } else if agreed > (Term(0), 0) && self.applied == Some(agreed) && agreed == self.kept.shared.version {
            (self.promised, self.stopping) = (self.kept.shared.epoch, None);
            let until = acknowledged.map(|at| at + self.settings.timings.trust());
            self.write_until = self.write_until.max(until);
        }
    }

    pub(super) fn on_shared(&mut self, _from: MemberId, shared: Shared, now: Instant) {
        // What this proxy itself agrees on as leader it knows better.
        if shared.version <= self.kept.shared.version || self.leads() == Some(shared.version.0) {
            return;
        }
        self.kept.shared = shared;
        self.persist(now);
        if self.leads().is_some() {
            // Not known when this term began: it is put forward again under our own.
            self.committed = None;
        }
        self.beat_at = now;
    }

    /// Sends what is agreed to a member that has an older version.
    pub(super) fn inform(&mut self, to: MemberId, now: Instant) {
        let pause = self.settings.timings.beat;
        let (ours, synced) = (self.kept.shared.version, self.synced);
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let due = peer.informed.is_none_or(|at| now >= at + pause);
        if peer.standing == Joined::Yes && peer.shared < ours && synced == ours && due {
            peer.informed = Some(now);
            let shared = self.kept.shared.clone();
            self.send(to, Part::Shared(Box::new(shared)), now);
        }
    }

    fn propose(&mut self, term: Term, change: impl FnOnce(&mut Shared), now: Instant) {
        let (of, number) = self.kept.shared.version;
        change(&mut self.kept.shared);
        self.kept.shared.version = (term, if of == term { number.saturating_add(1) } else { 1 });
        self.persist(now);
        self.peers.values_mut().for_each(|peer| peer.informed = Some(now));
        let shared = self.kept.shared.clone();
        self.broadcast(&Part::Shared(Box::new(shared)), now);
    }

    /// No voter of the present majority knows of anything newer.
    fn is_informed(&self, now: Instant) -> bool {
        let Some(bid) = &self.bid else { return false };
        let trust = self.settings.timings.trust();
        let live = bid.evidence.iter().filter(|(_, at)| now < **at + trust).map(|(member, _)| member);
        let versions = live.filter_map(|member| self.peers.get(member)).map(|peer| peer.shared);
        versions.max().is_none_or(|newest| newest <= self.kept.shared.version)
    }

    fn is_agreed(&self, version: (Term, u64), now: Instant) -> bool {
        let clear = self.settings.timings.clear();
        let has = self.peers.values().filter(|peer| peer.standing == Joined::Yes && peer.shared >= version).count();
        let own = usize::from(self.synced >= version);
        if own + has >= self.needed() {
            return true;
        }
        // The third vote of a pair stores nothing: it stands in only for a partner that is not there, or that knows it and cannot keep it.
        let silent = self.peers.values().all(|peer| {
            peer.heard.is_none_or(|at| now >= at + clear)
                || peer.standing != Joined::Yes
                || peer.stuck.is_some_and(|known| known >= version)
        });
        self.settings.third != Third::None && own == 1 && silent && self.leads().is_some()
    }

    pub(super) fn look_after_agreement(&mut self, now: Instant) {
        if let Some(term) = self.leads() {
            let version = self.kept.shared.version;
            if version.0 != term && self.is_informed(now) {
                self.propose(term, |_| (), now);
            } else if version.0 == term && self.committed != Some(version) && self.is_agreed(version, now) {
                self.committed = Some(version);
                self.share(version);
                self.go_on();
                self.beat_at = now;
            }
        } else if let Some((_, leader, _)) = self.leader {
            let agreed = self.peers.get(&leader).filter(|peer| peer.state == State::Leader).map(|peer| peer.shared);
            let version = self.kept.shared.version;
            if agreed == Some(version) && self.synced == version && version.1 > 0 && self.applied != Some(version) {
                self.share(version);
            }
        }
        self.look_after_consents(now);
        self.look_after_records(now);
    }

    fn share(&mut self, version: (Term, u64)) {
        self.applied = Some(version);
        self.out.push(Action::Share(Box::new(self.kept.shared.clone())));
    }

    /// What is under way under epochs before `epoch` is to end here; others are told when it has.
    fn stop_for(&mut self, epoch: u64) {
        if epoch <= self.promised {
            return;
        }
        let before = self.stopping.map_or(self.promised, |(_, before)| before);
        (self.promised, self.stopping) = (epoch, Some((epoch, before)));
        self.out.push(Action::Stop(epoch));
    }

    pub(super) fn on_stopped(&mut self, epoch: u64, now: Instant) {
        if self.stopping.is_some_and(|(wanted, _)| wanted <= epoch) {
            self.stopping = None;
            // The leader waits for it.
            self.beat_at = now;
        }
    }

    pub(super) fn on_consent(&mut self, ticket: Ticket, (node, planned): (NodeId, bool), now: Instant) {
        if self.leads().is_none() {
            let who = self.leader.map_or("nobody".to_owned(), |(_, member, _)| self.name(member));
            self.out.push(Action::Reply(ticket, Err(format!("{who} leads, not this proxy"))));
            return;
        }
        let patience = if planned { PLANNED } else { PATIENCE };
        self.askings.push(Asking { ticket, node, planned, deadline: now + patience });
        self.wanted = Some(now);
    }

    pub(super) fn on_record(&mut self, ticket: Ticket, epoch: u64, body: String, now: Instant) {
        let Some(term) = self.leads().filter(|term| self.kept.shared.version.0 == *term && self.committed.is_some())
        else {
            self.out.push(Action::Reply(
                ticket,
                Err("this proxy does not lead, or does not know yet what was agreed".to_owned()),
            ));
            return;
        };
        let (limit, agreed) = (crate::watchdog::message::MAX_BODY, self.kept.shared.epoch);
        // Nobody writes under no epoch; whoever writes under one must have stopped before the next.
        if epoch > agreed && agreed > 0 && (epoch != self.prepare || !self.is_cleared(now)) {
            self.out.push(Action::Reply(ticket, Err(format!("epoch {epoch} was not prepared"))));
            return;
        }
        if body.len() > limit || epoch < agreed {
            self.out.push(Action::Reply(ticket, Err(format!("over {limit} bytes, or of a past epoch"))));
            return;
        }
        self.propose(
            term,
            |shared| (shared.epoch, shared.body, shared.claimed) = (epoch, body, shared.claimed.max(epoch)),
            now,
        );
        if epoch >= self.prepare {
            self.prepare = 0;
            self.promised = self.promised.max(epoch);
        }
        let version = self.kept.shared.version;
        self.recordings.push(Recording { ticket, version, deadline: now + PATIENCE });
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.prepare = 0;
        self.go_on();
        self.beat_at = now;
    }

    /// A leader that prepares nothing writes under what is agreed, whatever it had promised before.
    fn go_on(&mut self) {
        if self.leads().is_some() && self.committed.is_some() && self.prepare == 0 {
            (self.promised, self.stopping) = (self.kept.shared.epoch, None);
        }
    }

    /// How the observers vote about a node: those that see it dead, and all that have looked and were heard a moment ago.
    fn observers(&self, node: NodeId, now: Instant) -> (usize, usize) {
        let peers = self.peers.iter().filter(|(id, _)| {
            self.duty_of(**id) == Duty::Proxy && self.is_trusted_peer(**id) && self.is_fresh(**id, now)
        });
        let sights = peers.filter_map(|(_, peer)| peer.sights.get(&node.0));
        let all: Vec<&Sight> = sights.chain(self.sights.get(&node)).filter(|sight| **sight != Sight::Unknown).collect();
        (all.iter().filter(|sight| ***sight == Sight::Dead).count(), all.len())
    }

    /// A reachable member is configured otherwise as far as this node is concerned (HA H23).
    fn differing(&self, node: NodeId, now: Instant) -> Option<String> {
        let prefix = format!("node.{node}.");
        let found = self.peers.iter().filter(|(id, _)| self.is_fresh(**id, now));
        let mut names = found.flat_map(|(id, peer)| peer.differs.iter().map(move |name| (id, name)));
        names
            .find(|(_, name)| name.starts_with(&prefix))
            .map(|(id, name)| format!("{} has another {name}", self.name(*id)))
    }

    /// Nobody writes under an epoch before the one that is prepared (HA H17).
    pub(super) fn is_cleared(&self, now: Instant) -> bool {
        let clear = self.settings.timings.clear();
        // What a member had promised before, to another leader or to itself, it takes back when it hears of an earlier word of this one.
        let heard = (self.kept.term, self.prepared_by);
        self.peers.iter().filter(|(id, _)| self.duty_of(**id) == Duty::Proxy).all(|(_, peer)| {
            (peer.promised >= self.prepare && peer.answered >= heard)
                || peer.standing == Joined::Left
                || peer.idle_until.is_some_and(|until| now < until)
                || peer.write_granted.is_none_or(|at| now >= at + clear)
        })
    }

    fn look_after_consents(&mut self, now: Instant) {
        if self.wanted.is_some_and(|at| now >= at + ABANDONED) {
            self.wanted = None;
            self.resume(now);
        }
        for asking in std::mem::take(&mut self.askings) {
            match self.consent(asking, now) {
                Some(answer) => self.out.push(Action::Reply(asking.ticket, answer)),
                None => self.askings.push(asking),
            }
        }
    }

    fn consent(&mut self, asking: Asking, now: Instant) -> Option<Result<u64, String>> {
        let Some(term) = self.leads() else { return Some(Err("this proxy leads no more".to_owned())) };
        if let Some(why) = self.differing(asking.node, now) {
            return Some(Err(why));
        }
        let (dead, all) = self.observers(asking.node, now);
        let late = now >= asking.deadline;
        if dead < all / 2 + 1 && !asking.planned {
            return late.then(|| Err(format!("{dead} of {all} proxies see node {} dead", asking.node)));
        }
        let version = self.kept.shared.version;
        if version.0 != term || self.committed != Some(version) {
            return late.then(|| Err("a majority has not agreed on the present state yet".to_owned()));
        }
        if self.prepare == 0 {
            let next = self.kept.shared.epoch.max(self.kept.shared.claimed).saturating_add(1);
            (self.prepare, self.prepared_by) = (next, self.seq + 1);
            self.promised = self.promised.max(next);
            self.propose(term, |shared| shared.claimed = next, now);
            self.beat_at = now;
            return None;
        }
        // Who was stopped for a while knows what was true before, and nobody waits for its answer.
        if self.is_cleared(now) && !late {
            return Some(Ok(self.prepare));
        }
        late.then(|| Err("not every proxy has stopped writing under the last epoch yet".to_owned()))
    }

    fn look_after_records(&mut self, now: Instant) {
        let committed = self.committed;
        for recording in std::mem::take(&mut self.recordings) {
            if committed.is_some_and(|version| version >= recording.version) {
                self.out.push(Action::Reply(recording.ticket, Ok(0)));
            } else if now >= recording.deadline {
                let why = "a majority has not written it down in time".to_owned();
                self.out.push(Action::Reply(recording.ticket, Err(why)));
            } else {
                self.recordings.push(recording);
            }
        }
    }

    /// All who wait for something that only a leader can give.
    pub(super) fn refuse_wishes(&mut self, why: &str) {
        let askings = std::mem::take(&mut self.askings).into_iter().map(|asking| asking.ticket);
        let recordings = std::mem::take(&mut self.recordings).into_iter().map(|recording| recording.ticket);
        for ticket in askings.chain(recordings) {
            self.out.push(Action::Reply(ticket, Err(why.to_owned())));
        }
        self.committed = None;
    }

    /// When a wish runs out, or a member is cleared.
    pub(super) fn agreement_wakeups(&self) -> impl Iterator<Item = Instant> {
        let wishes = self.askings.iter().map(|asking| asking.deadline);
        wishes.chain(self.recordings.iter().map(|recording| recording.deadline))
    }

    /// What this proxy may do, published when it changes.
    pub(super) fn publish(&mut self, now: Instant) {
        let lease = if self.leads().is_some() {
            self.lease_end(now).filter(|_| self.committed.is_some() && self.prepare == 0)
        } else {
            // Nothing prolongs it while the disk owes an answer, and it is over long before the disk counts as stuck.
            let follows = self.promised <= self.kept.shared.epoch && !self.is_stuck(now);
            self.write_until.filter(|until| *until > now && follows)
        };
        // Who has heard of a newer epoch has stopped for it: whoever prepares it counts on that.
        let newer = self.prepare != 0 || self.promised > self.kept.shared.epoch;
        let course = self.settings.on_quorum_loss == OnQuorumLoss::HoldCourse && self.applied.is_some() && !newer;
        let lease = lease.filter(|_| self.duty() == Duty::Proxy);
        let writes = match lease {
            Some(until) => Writes::Until(until),
            None if course => Writes::Course,
            None => Writes::Stop,
        };
        let leader = self.leader.filter(|(_, member, _)| self.is_fresh(*member, now) || *member == self.settings.me);
        let leads = if self.leads().is_some() { self.lease_end(now) } else { None };
        let standing = Standing {
            leader: leader.map(|(_, member, _)| member),
            term: leader.map_or(self.kept.term, |(term, ..)| term),
            epoch: self.kept.shared.epoch,
            writes,
            leads,
        };
        let little = self.settings.timings.beat / 2;
        let near = |new: Instant, old: Instant| new >= old && new < old + little;
        let alike = match (standing.writes, self.told.writes) {
            (Writes::Until(new), Writes::Until(old)) => near(new, old),
            (new, old) => new == old,
        };
        let alike = alike
            && match (standing.leads, self.told.leads) {
                (Some(new), Some(old)) => near(new, old),
                (new, old) => new == old,
            };
        let same = Standing { writes: self.told.writes, leads: self.told.leads, ..standing } == self.told;
        if !alike || !same {
            self.told = standing;
            self.out.push(Action::Standing(standing));
        }
    }

    /// Nodes that we alone cannot see (HA H3).
    pub(super) fn look_for_blindness(&mut self, now: Instant) {
        let alone = |node: &NodeId| {
            let fresh = self.peers.iter().filter(|(id, _)| self.is_trusted_peer(**id) && self.is_fresh(**id, now));
            let sights: Vec<Sight> = fresh.filter_map(|(_, peer)| peer.sights.get(&node.0).copied()).collect();
            let alive = sights.iter().filter(|sight| **sight == Sight::Alive).count();
            let dead = sights.iter().filter(|sight| **sight == Sight::Dead).count();
            alive > dead
        };
        let blind: BTreeSet<NodeId> = self
            .sights
            .iter()
            .filter(|(node, sight)| **sight == Sight::Dead && alone(node))
            .map(|(node, _)| *node)
            .collect();
        if blind != self.blind {
            self.blind = blind.clone();
            self.out.push(Action::Quarantine(blind));
        }
    }
}
