//! The pure heart of the watchdog: who leads, who has the address, what all agree on. Owner: the control thread, through a runner.
//! No clock, no socket, no file: `step(event, now) -> actions`; see the table in [`watchdog`](super).
//!
//! ```text
//! standby ── nobody leads, own word is free ──▶ probe ── a majority would ──▶ vow (disk) ──▶ elect ── a majority does ──▶ lead
//!    ▲                                            │                             │              │                          │
//!    └── somebody leads, higher term, no votes ───┴─────────────────────────────┴──────────────┴── lease over, higher term, yield
//! ```
//! *Why no two lead* (HA H18): a voter gives its word to one at a time, for `guard`; the leader counts on it for `trust`, from when it
//! asked; guard − trust covers clocks that are 2 % wrong. Two majorities share a voter. A voter that has just started is quiet for as long
//! as its forgotten word may last. *Why no two have the address* (H19): the leader's last order for it ends with its lease, the kernel is
//! at most a second late, and voters tell the next leader how long that may still be.

mod ability;
mod address;
mod agreed;
mod credible;
mod lease;
mod leaving;
mod members;
mod storage;
mod third;
mod votes;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::cluster::NodeId;
use crate::watchdog::message::Part;
pub use crate::watchdog::message::{Fitness, Hold, MemberId, Message, Shared, Sight, State, Term};
use ability::Ability;
use address::Place;
use agreed::{Asking, Recording};
use credible::Leaps;
use lease::{Bid, Stage};
use members::Peer;
use storage::Storage;
use third::Lock;
use votes::{Grant, Pledge};
pub use words::{
    Action, Address, AddressIs, Duty, Event, Kept, Locked, Member, MemberStatus, Note, OnQuorumLoss, Settings,
    Standing, Third, Ticket, Writes,
};

/// See the head of the file.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    incarnation: u64,
    /// Of the settings that must agree.
    digest: u64,
    kept: Kept,
    storage: Storage,
    /// Versions of what is agreed that are on their way to the disk, and the one that is there.
    syncing: Vec<(u64, (Term, u64))>,
    synced: (Term, u64),
    pledges: Vec<Pledge>,
    grants: BTreeMap<MemberId, Grant>,
    /// No vote before then: what was promised before the start may be forgotten.
    quiet: Instant,
    peers: BTreeMap<MemberId, Peer>,
    /// The highest term that was heard of.
    seen: Term,
    /// When that, and when an epoch, was last believed to have leapt ahead.
    leaps: [Leaps; 2],
    leader: Option<(Term, MemberId, Instant)>,
    bid: Option<Bid>,
    seq: u64,
    /// Since when nobody leads and this proxy could.
    vacancy: Option<Instant>,
    /// No candidacy before then.
    backoff: Instant,
    abstains: Instant,
    /// The leader before has asked us to take over.
    called: bool,
    /// When it did, and its address was gone.
    handed: Option<Instant>,
    place: Place,
    ability: Ability,
    locks: BTreeMap<NodeId, Lock>,
    stalemate: Option<Instant>,
    unlocked: Instant,
    /// When the newest question was sent that a trusted server answered.
    trusted: Option<Instant>,
    /// Since when they have answered without a gap.
    trusted_since: Option<Instant>,
    /// When the newest ping was sent that counts as a vote: answers come without a gap since long enough.
    trusted_firm: Option<Instant>,
    pinging: Option<Instant>,
    ping_at: Instant,
    sights: BTreeMap<NodeId, Sight>,
    primary: Option<NodeId>,
    blind: BTreeSet<NodeId>,
    /// When that message of ours was sent that the claimant had had.
    acknowledged: Option<Instant>,
    followed: (Term, u64),
    write_until: Option<Instant>,
    promised: u64,
    /// The first claim that tells of the epoch that is prepared.
    prepared_by: u64,
    /// What was begun under epochs before that is still being ended here, and what others are told instead meanwhile.
    stopping: Option<(u64, u64)>,
    /// The epoch that is being prepared; 0: none.
    prepare: u64,
    wanted: Option<Instant>,
    committed: Option<(Term, u64)>,
    applied: Option<(Term, u64)>,
    askings: Vec<Asking>,
    recordings: Vec<Recording>,
    successor: Option<MemberId>,
    preferred: Option<(MemberId, Instant)>,
    yielded: Option<Instant>,
    leaving: Option<Instant>,
    left: bool,
    beat_at: Instant,
    told: Standing,
    random: u64,
    out: Vec<Action>,
}

impl Engine {
    /// A process that starts, with what the one before has kept; `incarnation` is random and not 0.
    pub fn new(settings: Settings, kept: Kept, incarnation: u64, now: Instant) -> Self {
        let members = u8::try_from(settings.members.len()).unwrap_or(u8::MAX);
        let peers = (0..members).map(MemberId).filter(|id| *id != settings.me).map(|id| (id, Peer::new())).collect();
        let nodes = if let Third::Nodes(nodes) = &settings.third { nodes.clone() } else { Vec::new() };
        let told =
            Standing { leader: None, term: kept.term, epoch: kept.shared.epoch, writes: Writes::Stop, leads: None };
        Self {
            incarnation,
            digest: digest(&settings),
            storage: Storage::default(),
            syncing: Vec::new(),
            synced: kept.shared.version,
            pledges: Vec::new(),
            grants: BTreeMap::new(),
            quiet: now + settings.timings.clear(),
            peers,
            // The disk may have what a leader of a later term has shared, and no vote of that term.
            seen: kept.term.max(kept.shared.version.0),
            leaps: Default::default(),
            leader: None,
            bid: None,
            seq: 0,
            vacancy: None,
            backoff: now,
            abstains: now,
            called: false,
            handed: None,
            place: Place::Off(None),
            ability: Ability::default(),
            locks: nodes.into_iter().map(|node| (node, Lock::default())).collect(),
            stalemate: None,
            unlocked: now,
            trusted: None,
            trusted_since: None,
            trusted_firm: None,
            pinging: None,
            ping_at: now,
            sights: BTreeMap::new(),
            primary: None,
            blind: BTreeSet::new(),
            acknowledged: None,
            followed: (Term(0), 0),
            write_until: None,
            promised: kept.shared.epoch,
            prepared_by: 0,
            stopping: None,
            prepare: 0,
            wanted: None,
            committed: None,
            applied: None,
            askings: Vec::new(),
            recordings: Vec::new(),
            successor: None,
            preferred: None,
            yielded: None,
            leaving: None,
            left: false,
            beat_at: now,
            told,
            random: incarnation | 1,
            out: Vec::new(),
            settings,
            kept,
        }
    }

    /// Takes one event and says what to do, in this order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        if self.left {
            return Vec::new();
        }
        // Whatever comes: who is not sure any more has stopped before.
        self.advance(now);
        match event {
            Event::Heard(from, message) => self.on_message(from, *message, now),
            Event::Gone { .. } => self.on_gone(event, now),
            Event::Persisted(number) => self.on_persisted(number, now),
            Event::Lock { node, sent, locked } => self.on_lock(node, sent, locked, now),
            Event::Trusted { sent, answered } => self.on_trusted(sent, answered),
            Event::Sights(sights, primary) => {
                (self.sights, self.primary) = (sights.into_iter().collect(), primary);
            }
            Event::Dark(dark) => self.ability.dark = dark,
            Event::Address(is) => self.on_address(is, now),
            Event::Consent { ticket, node, planned } => self.on_consent(ticket, (node, planned), now),
            Event::Stopped(epoch) => self.on_stopped(epoch, now),
            Event::Record(ticket, epoch, body) => self.on_record(ticket, epoch, body, now),
            Event::Resume => self.resume(now),
            Event::HandOver(ticket, to) => self.on_hand_over(ticket, to, now),
            Event::Mended => self.on_mended(),
            Event::Configure(settings) => self.configure(*settings),
            Event::Leave => self.on_leave(now),
            Event::Tick => {}
        }
        self.settle(now);
        std::mem::take(&mut self.out)
    }

    /// Everything that follows from the present state.
    fn settle(&mut self, now: Instant) {
        self.look_after_third(now);
        // Stages follow each other at once where the votes are there.
        for _ in 0..4 {
            let before = self.bid.as_ref().map(|bid| bid.stage);
            self.stand(now);
            self.advance(now);
            if self.bid.as_ref().map(|bid| bid.stage) == before {
                break;
            }
        }
        self.look_for_lost(now);
        self.look_for_stuck(now);
        self.look_after_agreement(now);
        self.look_after_address(now);
        self.look_after_succession(now);
        self.look_for_blindness(now);
        if now >= self.beat_at && !self.left {
            self.beat(now);
        }
        self.publish(now);
    }

    fn beat(&mut self, now: Instant) {
        self.beat_at = now + self.settings.timings.beat;
        match self.bid.as_ref().map(|bid| bid.stage) {
            Some(Stage::Probe | Stage::Elect | Stage::Lead) => self.claim(now),
            Some(Stage::Vow(_)) | None => self.broadcast(&Part::Beat, now),
        }
        if self.leads().is_some() {
            let peers: Vec<MemberId> = self.peers.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.inform(peer, now));
        }
    }

    /// When the next [`Event::Tick`] is due, at the latest.
    pub fn wakeup(&self, now: Instant) -> Instant {
        let lease = self.lease_end(now);
        let guards = self.grants.values().map(|grant| grant.last + self.settings.timings.guard());
        let clear = self.bid.iter().flat_map(|bid| bid.clear.values().copied());
        let held = self.grants.values().map(|grant| grant.last + self.settings.timings.clear());
        let single = [
            lease,
            Some(self.quiet),
            Some(self.backoff),
            Some(self.abstains),
            self.stands_at(now),
            self.address_wakeup(),
            self.succession_wakeup(),
            self.write_until,
            self.storage.waits().map(|since| since + self.settings.timings.clear()),
        ];
        let all = single.into_iter().flatten().chain(guards).chain(clear).chain(held);
        let all = all.chain(self.third_wakeups()).chain(self.agreement_wakeups());
        all.filter(|at| *at > now).min().unwrap_or(self.beat_at).min(self.beat_at).max(now)
    }

    fn configure(&mut self, settings: Settings) {
        // Who the members are and how long a lease lasts takes a restart.
        self.settings.priority = settings.priority;
        self.settings.trusted = settings.trusted;
        self.settings.on_quorum_loss = settings.on_quorum_loss;
        self.settings.agreed = settings.agreed;
        self.digest = digest(&self.settings);
        // Its programs may be others now, or the same ones mended, which is what an operator says by a reload.
        self.on_mended();
    }

    /// Where this proxy stands.
    pub fn standing(&self) -> Standing {
        self.told
    }

    /// What this member reaches.
    pub fn own_fitness(&self, now: Instant) -> Fitness {
        self.fitness(now)
    }

    /// Votes that it takes to lead.
    pub fn votes_needed(&self) -> usize {
        self.needed()
    }

    /// This member's own state.
    pub fn own_state(&self, now: Instant) -> State {
        self.state(now)
    }

    fn name(&self, member: MemberId) -> String {
        self.settings.members.get(usize::from(member.0)).map(|member| member.name.clone()).unwrap_or_default()
    }

    /// Something between nothing and `most`.
    fn chance(&mut self, most: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        most * u32::try_from(self.random % 1_000).unwrap_or(0) / 1_000
    }

    fn note(&mut self, event: &'static str, member: Option<MemberId>, why: &str) {
        self.out.push(Action::Note(Note { event, member, term: self.kept.term, why: why.to_owned() }));
    }
}

/// Members and all settings that must agree, in a number.
fn digest(settings: &Settings) -> u64 {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut add = |text: &str| {
        context.update(&u64::try_from(text.len()).unwrap_or(0).to_be_bytes());
        context.update(text.as_bytes());
    };
    for member in &settings.members {
        add(&member.name);
        add(if member.duty == Duty::Witness { "witness" } else { "proxy" });
    }
    for (name, value) in &settings.agreed {
        add(name);
        add(value);
    }
    let digest = context.finish();
    digest.as_ref().first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests;
