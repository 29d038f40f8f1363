//! What must be on disk before it is said (HA H18), and a disk that does not answer. Part of the engine.
//!
//! A member whose disk owes it an answer renews nothing meanwhile: each vote and each lease for writing that it would follow waits for the newest
//! order. After [`Timings::clear`](crate::watchdog::timings::Timings::clear) everything that it had granted and was granted as a follower is over,
//! so that it says that it is stuck: it is no candidate, and in a pair the third vote stands in for its copy of what is agreed, as for a
//! partner that is silent, once it knows of it. A leader that is stuck keeps its lease, for which it needs no disk, but can replace no
//! primary: it hands over where others can elect one of them.

use std::time::Instant;

use super::{Action, Engine, Stage, Term, Third};

/// What the disk owes.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// The number of the newest order to persist, and of the newest that is on disk.
    number: u64,
    persisted: u64,
    /// Since when the disk has owed an answer.
    waits: Option<Instant>,
    /// It was told that it does not answer.
    told: bool,
}

impl Storage {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Everything up to this order is on disk.
    pub(super) fn has(&self, number: u64) -> bool {
        self.persisted >= number
    }

    pub(super) fn waits(&self) -> Option<Instant> {
        self.waits
    }
}

impl Engine {
    pub(super) fn on_persisted(&mut self, number: u64, now: Instant) {
        let storage = &mut self.storage;
        storage.persisted = storage.persisted.max(number);
        storage.waits = (storage.persisted < storage.number).then_some(now);
        let done: Vec<_> = self.syncing.extract_if(.., |(at, _)| *at <= number).collect();
        if let Some((_, version)) = done.last() {
            self.synced = *version;
            if self.leads().is_none() {
                // The leader waits for it.
                self.beat_at = now;
            }
        }
        self.redeem_pledges(now);
    }

    /// Orders the present state to the disk; the order's number.
    pub(super) fn persist(&mut self, now: Instant) -> u64 {
        self.storage.number += 1;
        self.storage.waits.get_or_insert(now);
        let (number, version) = (self.storage.number, self.kept.shared.version);
        if self.syncing.last().map_or(self.synced, |(_, version)| *version) != version {
            self.syncing.push((number, version));
        }
        self.out.push(Action::Persist(number, Box::new(self.kept.clone())));
        number
    }

    /// The disk has owed an answer for longer than any lease lasts.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let clear = self.settings.timings.clear();
        self.storage.waits.is_some_and(|since| now >= since + clear)
    }

    /// What others are told of that: what is known here and not kept.
    pub(super) fn stuck(&self, now: Instant) -> Option<(Term, u64)> {
        self.is_stuck(now).then_some(self.kept.shared.version)
    }

    pub(super) fn look_for_stuck(&mut self, now: Instant) {
        let stuck = self.is_stuck(now);
        if std::mem::replace(&mut self.storage.told, stuck) == stuck {
            return;
        }
        let me = Some(self.settings.me);
        if stuck {
            // A candidacy that waits for the disk would come with a term that throws out whoever leads by then.
            self.bid = self.bid.take_if(|bid| bid.stage == Stage::Lead);
            self.note("disk_silent", me, "its disk does not answer: it votes for nobody, and does not begin to lead");
        } else {
            self.note("disk_answers", me, "its disk answers again");
        }
    }

    /// This leader can write nothing down, and those that can, heard a moment ago, suffice to elect one of them.
    pub(super) fn is_dispensable(&self, now: Instant) -> bool {
        let able = |id| self.is_trusted_peer(id) && self.is_fresh(id, now);
        let others = self.peers.iter().filter(|(id, peer)| able(**id) && peer.stuck.is_none()).count();
        // Trusted servers decide only about a partner that is out of sight.
        let third = usize::from(matches!(self.settings.third, Third::Nodes(_)));
        self.is_stuck(now) && others + third >= self.needed()
    }
}
