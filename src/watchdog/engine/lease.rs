//! The claimant's side: standing for leadership, and a lease that runs from when it was asked for (HA H18). Part of the engine.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Action, Duty, Engine, MemberId, Term, Third};
use crate::watchdog::message::{Claim, Kind, Part, Verdict};
use crate::watchdog::timings::Timings;

/// Between the candidacies of two that are not equally good.
const STAGGER: Duration = Duration::from_millis(150);

/// How far a candidacy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It asks who would vote for it.
    Probe,
    /// Its own vote is on its way to the disk, under this number.
    Vow(u64),
    /// It asks for votes.
    Elect,
    /// It leads.
    Lead,
}

/// A candidacy, and what comes of it.
#[derive(Debug)]
pub(super) struct Bid {
    pub(super) stage: Stage,
    pub(super) term: Term,
    pub(super) since: Instant,
    /// When the newest request that each voter granted was sent.
    pub(super) evidence: BTreeMap<MemberId, Instant>,
    /// When nobody else can hold the address any more, as far as each voter knows.
    pub(super) clear: BTreeMap<MemberId, Instant>,
    sent: VecDeque<(u64, Instant)>,
}

impl Bid {
    fn new(stage: Stage, term: Term, now: Instant) -> Self {
        let (evidence, clear) = (BTreeMap::new(), BTreeMap::new());
        Self { stage, term, since: now, evidence, clear, sent: VecDeque::new() }
    }
}

impl Engine {
    /// Votes needed: the majority of those configured.
    pub(super) fn needed(&self) -> usize {
        let third = usize::from(self.settings.third != Third::None);
        (self.settings.members.len() + third) / 2 + 1
    }

    pub(super) fn leads(&self) -> Option<Term> {
        self.bid.as_ref().filter(|bid| bid.stage == Stage::Lead).map(|bid| bid.term)
    }

    /// Until when the granted votes make a majority; later than `now`, or none.
    pub(super) fn lease_end(&self, now: Instant) -> Option<Instant> {
        let bid = self.bid.as_ref()?;
        let mut evidence: Vec<Instant> = bid.evidence.values().copied().collect();
        let own = bid.stage == Stage::Lead || self.objection(self.settings.me, bid.term, now).is_none();
        evidence.extend(own.then_some(now));
        evidence.extend(self.third_evidence(now));
        evidence.sort_unstable_by(|a, b| b.cmp(a));
        let end = *evidence.get(self.needed() - 1)? + self.settings.timings.trust();
        (end > now).then_some(end)
    }

    /// Enough of those who granted know that the address of whoever led before is gone (HA H19).
    pub(super) fn address_is_free(&self, now: Instant) -> bool {
        let Some(bid) = &self.bid else { return false };
        let live = |at: &Instant| *at + self.settings.timings.trust() > now;
        let peers = bid
            .evidence
            .iter()
            .filter(|(member, at)| live(at) && bid.clear.get(*member).is_none_or(|clear| *clear <= now));
        let own = usize::from(self.hold_for(self.settings.me, now).is_zero());
        let third = usize::from(self.third_evidence(now).is_some_and(|at| live(&at)) && self.third_is_clear(now));
        peers.count() + own + third >= self.needed()
    }

    /// Whoever leads was heard a moment ago.
    pub(super) fn leader_is_there(&self, now: Instant) -> bool {
        let silence = self.settings.timings.silence();
        self.leader.is_some_and(|(_, member, heard)| member != self.settings.me && now < heard + silence)
    }

    /// May begin to lead, if others agree.
    pub(super) fn is_eligible(&self, now: Instant) -> bool {
        self.duty() == Duty::Proxy
            && self.leaving.is_none()
            && !self.is_refused(now)
            && !self.is_stuck(now)
            && now >= self.quiet
            && now >= self.abstains
            && (!self.settings.trusted || self.trusted_answers(now))
    }

    /// So many reachable members would lead before this one.
    fn rank(&self, now: Instant) -> u32 {
        let me = (self.fitness(now), self.settings.priority);
        let better = self.peers.iter().filter(|(id, peer)| {
            let other = (peer.fitness, peer.priority);
            self.is_candidate(**id, now) && (other > me || (other == me && **id < self.settings.me))
        });
        u32::try_from(better.count()).unwrap_or(0)
    }

    /// When a place has become free: stand for it.
    pub(super) fn stand(&mut self, now: Instant) {
        let term = self.seen.next(self.settings.me);
        let vacant = self.bid.is_none()
            && self.is_eligible(now)
            && !self.leader_is_there(now)
            && self.objection(self.settings.me, term, now).is_none();
        if !vacant {
            self.vacancy = None;
            return;
        }
        let since = *self.vacancy.get_or_insert(now);
        let delay = if self.called { Duration::ZERO } else { STAGGER * self.rank(now) };
        if now < (since + delay).max(self.backoff) {
            return;
        }
        self.called = false;
        self.bid = Some(Bid::new(Stage::Probe, term, now));
        self.claim(now);
    }

    /// When [`stand`](Self::stand) is due.
    pub(super) fn stands_at(&self, now: Instant) -> Option<Instant> {
        self.vacancy.map(|since| (since + STAGGER * self.rank(now)).max(self.backoff))
    }

    /// Asks all voters for what the present stage needs.
    pub(super) fn claim(&mut self, now: Instant) {
        self.seq += 1;
        let (seq, prepare) = (self.seq, self.prepare);
        let Some(bid) = &mut self.bid else { return };
        let kind = match bid.stage {
            Stage::Probe => Kind::Probe,
            Stage::Vow(_) => return,
            Stage::Elect => Kind::Elect,
            Stage::Lead => Kind::Renew,
        };
        bid.sent.push_back((seq, now));
        if bid.sent.len() > 32 {
            bid.sent.pop_front();
        }
        let claim = Claim { kind, term: bid.term, seq, prepare };
        if kind == Kind::Renew && prepare == 0 {
            self.peers.values_mut().for_each(|peer| peer.write_granted = Some(now));
        }
        self.broadcast(&Part::Claim(claim), now);
        self.beat_at = now + self.settings.timings.beat;
    }

    pub(super) fn on_verdict(&mut self, from: MemberId, verdict: Verdict, now: Instant) {
        let Some(bid) = &mut self.bid else { return };
        let fits = match bid.stage {
            Stage::Probe => verdict.kind == Kind::Probe,
            Stage::Vow(_) => false,
            Stage::Elect | Stage::Lead => verdict.kind != Kind::Probe,
        };
        let sent = bid.sent.iter().find(|(seq, _)| *seq == verdict.seq).map(|(_, at)| *at);
        let Some(sent) = sent.filter(|_| fits && verdict.term == bid.term) else { return };
        if verdict.granted && bid.stage == Stage::Lead {
            let answered = (verdict.term, verdict.seq);
            self.peers.get_mut(&from).into_iter().for_each(|peer| peer.answered = peer.answered.max(answered));
        }
        if verdict.granted {
            let evidence = bid.evidence.entry(from).or_insert(sent);
            *evidence = sent.max(*evidence);
            let hold = Timings::foreign(Duration::from_millis(u64::from(verdict.hold)));
            bid.clear.insert(from, now + hold);
        } else if bid.stage == Stage::Probe && verdict.wait > 0 {
            // Asked again as soon as it makes sense.
            self.beat_at = self.beat_at.min(now + Duration::from_millis(u64::from(verdict.wait).max(20)));
        }
    }

    /// From stage to stage, while the votes suffice.
    pub(super) fn advance(&mut self, now: Instant) {
        let end = self.lease_end(now);
        let (patience, me) = (self.settings.timings.lease, self.settings.me);
        let Some(bid) = &self.bid else { return };
        let (stage, term, since) = (bid.stage, bid.term, bid.since);
        match stage {
            Stage::Probe if self.leader_is_there(now) || !self.is_eligible(now) => self.bid = None,
            Stage::Probe if end.is_some() => {
                let term = self.seen.next(me);
                (self.seen, self.kept.term, self.kept.vote) = (term, term, Some(me));
                let number = self.persist(now);
                self.bid = Some(Bid::new(Stage::Vow(number), term, now));
            }
            Stage::Vow(number) if self.storage.has(number) => {
                self.bid = Some(Bid::new(Stage::Elect, term, now));
                self.claim(now);
            }
            Stage::Elect if end.is_some() => self.lead(term, now),
            Stage::Vow(_) | Stage::Elect if now > since + patience => {
                self.bid = None;
                self.backoff = now + self.chance(self.settings.timings.beat * 4);
            }
            Stage::Lead if end.is_none() => self.step_down("quorum_lost", "no majority has confirmed the lease", now),
            _ => {}
        }
    }

    fn lead(&mut self, term: Term, now: Instant) {
        if let Some(bid) = &mut self.bid {
            (bid.stage, bid.since) = (Stage::Lead, now);
        }
        let me = self.settings.me;
        self.leader = Some((term, me, now));
        // Leases for writing that a leader before has given may still run (HA H17).
        self.peers.values_mut().for_each(|peer| peer.write_granted = Some(now));
        self.committed = None;
        self.note("leader", Some(me), "a majority has voted for this proxy");
        self.claim(now);
    }

    /// Gives everything up that leading means, at once.
    pub(super) fn step_down(&mut self, event: &'static str, why: &str, now: Instant) {
        let Some(bid) = self.bid.take() else { return };
        self.vacancy = None;
        self.backoff = now + self.settings.timings.beat + self.chance(self.settings.timings.beat);
        if bid.stage != Stage::Lead {
            return;
        }
        self.leader = self.leader.filter(|(_, member, _)| *member != self.settings.me);
        self.forget_third();
        self.ability.interrupted();
        self.prepare = 0;
        self.release(now);
        self.refuse_wishes(why);
        self.successor = None;
        self.out.push(Action::Note(super::Note {
            event,
            member: Some(self.settings.me),
            term: bid.term,
            why: why.to_owned(),
        }));
    }
}
