//! The third vote of a pair (HA H16): advisory locks on a majority of the servers, or trusted servers. Part of the engine.
//!
//! A lock excludes others only while it is held, and it may be lost without its holder's knowledge (its server restarts). So a lock
//! that was just obtained says nothing until a lease has passed since anybody else can have counted on it, unless the
//! partner itself is known to lead nobody: it has given us its word, or its process is gone.

use std::time::{Duration, Instant};

use super::{Action, Engine, Locked, NodeId, Third};
use crate::watchdog::timings::LOOK;

/// The lock on one node.
#[derive(Debug, Clone, Default)]
pub(super) struct Lock {
    /// From when on it counts; none: it is not held.
    ripe: Option<Instant>,
    /// From when on it says that nobody else has the address.
    clear: Option<Instant>,
    /// When the newest attempt that found it held was sent.
    evidence: Option<Instant>,
    /// Somebody else was found to hold it, then.
    busy: Option<Instant>,
    next: Option<Instant>,
    pub(super) under_way: Option<Instant>,
}

impl Engine {
    /// When the newest request was sent that shows the third vote as ours.
    pub(super) fn third_evidence(&self, now: Instant) -> Option<Instant> {
        match &self.settings.third {
            Third::None => None,
            Third::Nodes(nodes) => {
                let ripe = self.locks.values().filter(|lock| lock.ripe.is_some_and(|at| at <= now));
                let mut evidence: Vec<Instant> = ripe.filter_map(|lock| lock.evidence).collect();
                evidence.sort_unstable_by(|a, b| b.cmp(a));
                let majority = evidence.get(nodes.len() / 2).copied();
                majority.or_else(|| self.tie(nodes.len(), &evidence, now))
            }
            // While the partner speaks, its own vote is asked for; who leads already may lean on this one.
            Third::Trusted => self.trusted_firm.filter(|_| self.leads().is_some() || self.partner_is_cut_off(now)),
        }
    }

    /// Half of the nodes and a trusted server; not while the partner was seen with the other half.
    fn tie(&self, nodes: usize, evidence: &[Instant], now: Instant) -> Option<Instant> {
        let recent = self.settings.timings.lease;
        let contested = self.locks.values().any(|lock| lock.busy.is_some_and(|at| now < at + recent));
        let half = (nodes > 0 && nodes.is_multiple_of(2) && !contested).then_some(nodes / 2)?;
        Some((*evidence.get(half - 1)?).min(self.trusted?))
    }

    /// The third vote says that nobody else has the address.
    pub(super) fn third_is_clear(&self, now: Instant) -> bool {
        match &self.settings.third {
            Third::None => false,
            Third::Nodes(nodes) => {
                let clear = self.locks.values().filter(|lock| lock.clear.is_some_and(|at| at <= now)).count();
                let tie = nodes.len().is_multiple_of(2) && self.trusted.is_some();
                clear > nodes.len() / 2 || (tie && clear == nodes.len() / 2)
            }
            Third::Trusted => self.partner_is_cut_off(now),
        }
    }

    /// The partner has not been heard for so long that it leads nobody, or its process has ended.
    fn partner_is_silent(&self, now: Instant) -> bool {
        let clear = self.settings.timings.clear();
        now >= self.quiet && self.peers.values().all(|peer| peer.heard.is_none_or(|at| now >= at + clear))
    }

    /// The trusted servers have answered us for so long, and the partner has been silent, that it cannot have counted on them meanwhile:
    /// that is all that this arbiter assumes.
    fn partner_is_cut_off(&self, now: Instant) -> bool {
        let clear = self.settings.timings.clear();
        let idle = self.peers.values().all(|peer| peer.idle_until.is_some_and(|until| now < until));
        idle || (self.partner_is_silent(now) && self.trusted_since.is_some_and(|since| now >= since + clear))
    }

    /// The partner certainly leads nobody now: its word is given to us, or it is gone.
    fn partner_is_idle(&self, now: Instant) -> bool {
        let trust = self.settings.timings.trust();
        let granted = |member| {
            self.bid.as_ref().is_some_and(|bid| {
                bid.stage != super::Stage::Probe
                    && bid.evidence.get(member).is_some_and(|at: &Instant| now < *at + trust)
            })
        };
        self.peers.iter().all(|(member, peer)| granted(member) || peer.idle_until.is_some_and(|until| now < until))
    }

    fn wants_locks(&self, now: Instant) -> bool {
        self.bid.is_some() || (self.is_eligible(now) && !self.leader_is_there(now) && now >= self.unlocked)
    }

    /// Asks for what is missing or due.
    pub(super) fn look_after_third(&mut self, now: Instant) {
        if matches!(self.settings.third, Third::Nodes(_)) {
            self.look_after_locks(now);
        }
        let asks = self.settings.trusted || self.settings.third == Third::Trusted;
        let late = self.pinging.is_none_or(|at| now >= at + self.settings.timings.lease);
        if asks && now >= self.ping_at && late {
            (self.pinging, self.ping_at) = (Some(now), now + self.settings.timings.refresh);
            self.out.push(Action::Ping);
        }
    }

    fn look_after_locks(&mut self, now: Instant) {
        if self.partner_is_idle(now) {
            for lock in self.locks.values_mut().filter(|lock| lock.ripe.is_some()) {
                (lock.ripe, lock.clear) = (lock.ripe.min(Some(now)), lock.clear.min(Some(now)));
            }
        }
        if !self.wants_locks(now) {
            self.unlock();
            return;
        }
        self.break_stalemate(now);
        let (lease, refresh) = (self.settings.timings.lease, self.settings.timings.refresh);
        for (node, lock) in &mut self.locks {
            let free = lock.under_way.is_none_or(|at| now >= at + lease);
            if free && lock.next.is_none_or(|at| at <= now) {
                lock.under_way = Some(now);
                lock.next = Some(now + if lock.ripe.is_some() { refresh } else { LOOK });
                self.out.push(Action::Lock(*node));
            }
        }
    }

    /// Two that hold some locks each, and neither a majority, let go and try again after different times. A holder that is gone is no rival:
    /// servers let go of its locks one after the other, as it refreshed them last, and what was found out about them must not be forgotten.
    fn break_stalemate(&mut self, now: Instant) {
        let held = self.locks.values().filter(|lock| lock.ripe.is_some()).count();
        let recent = |lock: &&Lock| lock.busy.is_some_and(|at| now < at + LOOK * 2);
        let contested = self.locks.values().any(|lock| recent(&lock));
        if self.leads().is_some() || held == 0 || !contested || held > self.locks.len() / 2 {
            self.stalemate = None;
            return;
        }
        let since = *self.stalemate.get_or_insert(now);
        if now >= since + self.settings.timings.refresh + LOOK * 2 {
            self.stalemate = None;
            self.unlock();
            self.unlocked = now + LOOK + self.chance(LOOK * 6);
            let again = self.unlocked;
            self.locks.values_mut().for_each(|lock| lock.next = Some(again));
        }
    }

    /// Gives all locks back.
    pub(super) fn unlock(&mut self) {
        for (node, lock) in &mut self.locks {
            if lock.ripe.is_some() || lock.under_way.is_some() {
                self.out.push(Action::Unlock(*node));
            }
            *lock = Lock { busy: lock.busy, ..Lock::default() };
        }
    }

    /// What was true while this proxy led does not count for its next term.
    pub(super) fn forget_third(&mut self) {
        self.locks.values_mut().for_each(|lock| lock.evidence = None);
        (self.trusted, self.trusted_firm) = (None, None);
    }

    pub(super) fn on_lock(&mut self, node: NodeId, sent: Instant, locked: Locked, now: Instant) {
        let (guard, clear) = (self.settings.timings.guard(), self.settings.timings.clear());
        let Some(lock) = self.locks.get_mut(&node) else { return };
        if lock.under_way != Some(sent) {
            return;
        }
        lock.under_way = None;
        match locked {
            Locked::Mine if lock.ripe.is_some() => lock.evidence = Some(sent),
            // Held by a session that we thought was given up: as if obtained now.
            Locked::Mine => *lock = obtained(lock, sent, now, (guard, clear)),
            Locked::Obtained(idle) => {
                let idle = idle * 100 / (100 + 2 * crate::watchdog::timings::DRIFT);
                let rest = (guard.saturating_sub(idle), clear.saturating_sub(idle));
                *lock = obtained(lock, sent, now, rest);
            }
            Locked::Busy => *lock = Lock { busy: Some(now), next: lock.next, ..Lock::default() },
            Locked::Failed => {
                *lock = Lock { busy: lock.busy, next: Some(now + LOOK), evidence: lock.evidence, ..lock.clone() }
            }
        }
    }

    pub(super) fn on_trusted(&mut self, sent: Instant, answered: bool) {
        if self.pinging == Some(sent) {
            self.pinging = None;
        }
        if !answered {
            self.trusted_since = None;
            return;
        }
        // After a gap, that of a process that was frozen for example, the partner, if it is there, is heard again before this counts: it may
        // be about to take our place.
        let silence = self.settings.timings.silence();
        let gap = self.trusted.is_none_or(|last| sent > last + silence);
        if gap || self.trusted_since.is_none() {
            self.trusted_since = Some(sent);
        }
        self.trusted = self.trusted.max(Some(sent));
        if self.trusted_since.is_some_and(|since| sent >= since + silence) {
            self.trusted_firm = self.trusted_firm.max(Some(sent));
        }
    }

    /// A trusted server answered lately.
    pub(super) fn trusted_answers(&self, now: Instant) -> bool {
        self.trusted_seen(now) || !self.settings.trusted
    }

    fn trusted_seen(&self, now: Instant) -> bool {
        self.trusted.is_some_and(|at| now < at + self.settings.timings.trust())
    }

    /// When the third vote wants to be looked at.
    pub(super) fn third_wakeups(&self) -> impl Iterator<Item = Instant> {
        let locks = self.locks.values().flat_map(|lock| [lock.next, lock.ripe, lock.clear]).flatten();
        let asks = self.settings.trusted || self.settings.third == Third::Trusted;
        locks.chain(asks.then_some(self.ping_at)).chain([self.unlocked])
    }
}

fn obtained(lock: &Lock, sent: Instant, now: Instant, rest: (Duration, Duration)) -> Lock {
    Lock { ripe: Some(now + rest.0), clear: Some(now + rest.1), evidence: Some(sent), under_way: None, ..lock.clone() }
}

/// A bound that another clock has promised, by ours: never longer.
pub(super) fn at_least(time: Duration) -> Duration {
    time * (100 - 2 * crate::watchdog::timings::DRIFT) / 100
}
