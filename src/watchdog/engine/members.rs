//! Who is there: what members say of themselves, joining with comparison of settings (HA H23), lost, gone and returning. Part of the engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::third::at_least;
use super::{Action, Duty, Engine, Event, MemberId, MemberStatus, NodeId, Note, Sight};
use crate::watchdog::message::{Fitness, Hold, Message, Part, State, Term, Trial};

/// What is known of another member.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its process, as last heard.
    pub(super) incarnation: u64,
    /// When its newest message came.
    pub(super) heard: Option<Instant>,
    /// The number of that message, and of ours the newest that it had.
    pub(super) number: u64,
    sent: u64,
    /// When our last messages to it were sent.
    times: VecDeque<(u64, Instant)>,
    pub(super) state: State,
    pub(super) priority: i64,
    pub(super) fitness: Fitness,
    pub(super) sights: BTreeMap<u16, Sight>,
    /// It writes under no epoch below.
    pub(super) promised: u64,
    /// The newest claim of ours, as leader, that it has granted.
    pub(super) answered: (Term, u64),
    /// What it has on disk, or, of a leader, what it says is agreed.
    pub(super) shared: (Term, u64),
    /// What it knows while its disk does not answer; none: it does.
    pub(super) stuck: Option<(Term, u64)>,
    pub(super) standing: Joined,
    digest: u64,
    pub(super) differs: Vec<String>,
    pub(super) settings: BTreeMap<String, String>,
    /// When its settings were asked for, or ours sent.
    compared: Option<Instant>,
    told_lost: Option<Instant>,
    /// When our last claim left that lets it write under the present epoch.
    pub(super) write_granted: Option<Instant>,
    /// It holds nothing, certainly, until then.
    pub(super) idle_until: Option<Instant>,
    pub(super) informed: Option<Instant>,
    /// The newest term that it gave away: a claim that comes late does not bring it back.
    pub(super) yielded: Term,
}

/// Whether a member takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// It has not been compared yet.
    No,
    /// Its settings agreed with ours when it joined.
    Yes,
    /// They did not.
    Refused,
    /// It left in order.
    Left,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self {
            incarnation: 0,
            heard: None,
            number: 0,
            sent: 0,
            times: VecDeque::new(),
            state: State::Joining,
            priority: 0,
            fitness: Fitness::default(),
            sights: BTreeMap::new(),
            promised: 0,
            answered: (Term(0), 0),
            shared: (Term(0), 0),
            stuck: None,
            standing: Joined::No,
            digest: 0,
            differs: Vec::new(),
            settings: BTreeMap::new(),
            compared: None,
            told_lost: None,
            write_granted: None,
            idle_until: None,
            informed: None,
            yielded: Term(0),
        }
    }
}

impl Engine {
    pub(super) fn duty(&self) -> Duty {
        self.duty_of(self.settings.me)
    }

    pub(super) fn duty_of(&self, member: MemberId) -> Duty {
        self.settings.members.get(usize::from(member.0)).map_or(Duty::Witness, |member| member.duty)
    }

    /// Heard a moment ago.
    pub(super) fn is_fresh(&self, member: MemberId, now: Instant) -> bool {
        let silence = self.settings.timings.silence();
        self.peers.get(&member).and_then(|peer| peer.heard).is_some_and(|at| now < at + silence)
    }

    /// It takes part in votes.
    pub(super) fn is_trusted_peer(&self, member: MemberId) -> bool {
        self.peers.get(&member).is_some_and(|peer| peer.standing == Joined::Yes)
    }

    /// It is there and could lead.
    pub(super) fn is_candidate(&self, member: MemberId, now: Instant) -> bool {
        let able = |state| matches!(state, State::Standby | State::Leader);
        self.duty_of(member) == Duty::Proxy
            && self.is_trusted_peer(member)
            && self.is_fresh(member, now)
            && self.peers.get(&member).is_some_and(|peer| able(peer.state) && peer.stuck.is_none())
    }

    /// Our settings differ from those of somebody who leads.
    pub(super) fn is_refused(&self, now: Instant) -> bool {
        let refuses = |peer: &super::Peer| peer.standing == Joined::Refused && peer.state == State::Leader;
        self.peers.iter().any(|(id, peer)| refuses(peer) && self.is_fresh(*id, now))
    }

    pub(super) fn state(&self, now: Instant) -> State {
        if self.leaving.is_some() {
            State::Leaving
        } else if self.leads().is_some() {
            State::Leader
        } else if self.is_refused(now) {
            State::Refused
        } else if now < self.quiet {
            State::Joining
        } else {
            State::Standby
        }
    }

    pub(super) fn fitness(&self, now: Instant) -> Fitness {
        // What is late with an answer is not reached: whether that lasts longer than for a partner is found out by `Timings::fitter`. Whom no
        // client comes to reaches nobody for anybody; what it sees of nodes counts all the same when they are voted on.
        let alive = |node: &NodeId| !self.ability.dark && self.sights.get(node) == Some(&Sight::Alive);
        let nodes = self.sights.keys().filter(|node| alive(node)).count();
        Fitness {
            trusted: self.trusted_answers(now),
            hold: if self.is_able(now) { Hold::Able } else { Hold::Unable },
            primary: !self.ability.dark && self.primary.as_ref().is_none_or(alive),
            nodes: u16::try_from(nodes).unwrap_or(u16::MAX),
            trial: if self.ability.is_sound() { Trial::Sound } else { Trial::Due },
        }
    }

    /// Sends one message.
    pub(super) fn send(&mut self, to: MemberId, part: Part, now: Instant) {
        let (state, fitness) = (self.state(now), self.fitness(now));
        let shared = if state == State::Leader { self.committed.unwrap_or_default() } else { self.synced };
        let sights = self.sights.iter().map(|(node, sight)| (node.0, *sight)).collect();
        let (digest, incarnation, priority, term) =
            (self.digest, self.incarnation, self.settings.priority, self.kept.term);
        let stuck = self.stuck(now);
        let promised = self.stopping.map_or(self.promised, |(_, before)| before);
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.sent += 1;
        peer.times.push_back((peer.sent, now));
        if peer.times.len() > 32 {
            peer.times.pop_front();
        }
        let (number, heard) = (peer.sent, peer.number);
        let message = Message {
            incarnation,
            number,
            heard,
            digest,
            state,
            term,
            priority,
            fitness,
            sights,
            promised,
            shared,
            stuck,
            part,
        };
        self.out.push(Action::Send(to, Box::new(message)));
    }

    pub(super) fn broadcast(&mut self, part: &Part, now: Instant) {
        let peers: Vec<MemberId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.send(peer, part.clone(), now);
        }
    }

    pub(super) fn on_message(&mut self, from: MemberId, message: Message, now: Instant) {
        if let Err(why) = self.check(from, &message, now) {
            self.note("member_incredible", Some(from), why);
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.incarnation != message.incarnation {
            let returned = peer.heard.is_some();
            // What the process before was granted is not this one's; its own start keeps it quiet for longer than that.
            // Our numbers go on: it may have had some of our messages before we had one of its.
            let times = std::mem::take(&mut peer.times);
            *peer = Peer { write_granted: peer.write_granted, sent: peer.sent, times, ..Peer::new() };
            peer.incarnation = message.incarnation;
            if returned {
                self.note("member_returned", Some(from), "it has started again");
            }
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.heard = Some(now);
        let newer = message.number > peer.number;
        if newer {
            peer.number = message.number;
            (peer.state, peer.priority, peer.fitness) = (message.state, message.priority, message.fitness);
            peer.sights = message.sights.iter().copied().collect();
            (peer.promised, peer.shared, peer.stuck) = (message.promised, message.shared, message.stuck);
        }
        if peer.told_lost.take().is_some() {
            self.note("member_found", Some(from), "it is heard again");
        }
        self.compare(from, message.digest, now);
        if !self.is_trusted_peer(from) {
            if let Part::Settings(settings) = message.part {
                self.compared(from, settings);
            }
            return;
        }
        // What is agreed on under an earlier term than what somebody has already would never be taken.
        self.hear_term(message.term.max(message.shared.0), now);
        // A term that a process led before which has lost its disk since: what it had agreed on then is taken over under another one.
        if self.leads() == Some(message.shared.0) && message.shared > self.kept.shared.version {
            self.step_down("term_forgotten", "it has led this term before, and does not know it", now);
        }
        let evident = message.state == State::Leader && newer && message.term >= self.seen;
        if evident && self.leader.is_none_or(|(term, member, _)| message.term >= term || member == from) {
            self.leader = Some((message.term, from, now));
        } else if message.state != State::Leader && newer {
            self.leader = self.leader.filter(|(_, member, _)| *member != from);
        }
        let acknowledged = self.acknowledged(from, message.heard);
        self.on_part(from, message, acknowledged, now);
    }

    /// When the message of ours was sent that this member has had.
    fn acknowledged(&self, from: MemberId, heard: u64) -> Option<Instant> {
        let times = &self.peers.get(&from)?.times;
        times.iter().find(|(number, _)| *number == heard).map(|(_, at)| *at)
    }

    fn on_part(&mut self, from: MemberId, message: Message, acknowledged: Option<Instant>, now: Instant) {
        match message.part {
            Part::Beat => {}
            Part::Claim(claim) => {
                self.acknowledged = acknowledged;
                self.on_claim(from, claim, message.incarnation, now);
            }
            Part::Verdict(verdict) => self.on_verdict(from, verdict, now),
            Part::Yield(term, to) => {
                self.absolve(from, |grant| grant.term == term);
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.yielded = peer.yielded.max(term);
                }
                self.leader = self.leader.filter(|(_, member, _)| *member != from);
                self.called = to.is_none_or(|to| to == self.settings.me);
                self.handed = self.called.then_some(now);
                // Others give the chosen one time.
                self.backoff = if self.called { now } else { now + self.settings.timings.lease };
            }
            Part::Bye => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.standing = Joined::Left;
                }
                let incarnation = message.incarnation;
                self.absolve(from, |grant| grant.incarnation == incarnation);
                self.note("member_left", Some(from), "it stopped in order");
            }
            Part::Settings(settings) => self.compared(from, settings),
            Part::Shared(shared) => self.on_shared(from, *shared, now),
        }
    }

    /// A member whose settings have another digest is asked for them; one that never agreed takes no part.
    fn compare(&mut self, from: MemberId, digest: u64, now: Instant) {
        let same = digest == self.digest;
        let pause = self.settings.timings.silence();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.digest != digest {
            (peer.digest, peer.compared) = (digest, None);
        }
        if same {
            peer.differs.clear();
            if peer.standing != Joined::Yes && peer.standing != Joined::Left {
                peer.standing = Joined::Yes;
                self.note("member_joined", Some(from), "its settings agree");
            }
            return;
        }
        if peer.standing == Joined::No {
            peer.standing = Joined::Refused;
        }
        if peer.compared.is_none_or(|at| now >= at + pause) {
            peer.compared = Some(now);
            let settings = self.settings.agreed.clone();
            self.send(from, Part::Settings(settings), now);
        }
    }

    fn compared(&mut self, from: MemberId, settings: BTreeMap<String, String>) {
        let ours = &self.settings.agreed;
        let names: BTreeSet<&String> = ours.keys().chain(settings.keys()).collect();
        let differs: Vec<String> =
            names.into_iter().filter(|name| ours.get(*name) != settings.get(*name)).cloned().collect();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.differs == differs || differs.is_empty() {
            return;
        }
        let event = if peer.standing == Joined::Refused { "member_refused" } else { "settings_differ" };
        let text =
            |map: &BTreeMap<String, String>, name: &String| map.get(name).cloned().unwrap_or("nothing".to_owned());
        let said: Vec<String> = differs
            .iter()
            .map(|name| format!("{name}: {} here, {} there", text(ours, name), text(&settings, name)))
            .collect();
        (peer.differs, peer.settings) = (differs, settings);
        self.out.push(Action::Note(Note { event, member: Some(from), term: self.kept.term, why: said.join("; ") }));
    }

    /// A process has ended, certainly.
    pub(super) fn on_gone(&mut self, event: Event, now: Instant) {
        let Event::Gone { member, incarnation, asked } = event else { return };
        let rest = at_least(self.settings.timings.lease + self.settings.timings.margin);
        let Some(peer) = self.peers.get_mut(&member).filter(|peer| peer.incarnation == incarnation) else { return };
        peer.idle_until = Some(asked + rest);
        peer.heard = None;
        peer.state = State::Joining;
        self.absolve(member, |grant| grant.incarnation == incarnation);
        self.leader = self.leader.filter(|(_, leader, _)| *leader != member);
        self.note("member_gone", Some(member), "its process has ended");
        self.backoff = self.backoff.min(now);
    }

    /// Who has not been heard for too long is lost, once.
    pub(super) fn look_for_lost(&mut self, now: Instant) {
        let silence = self.settings.timings.silence();
        let lost: Vec<MemberId> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.told_lost.is_none() && peer.standing != Joined::Left)
            .filter(|(_, peer)| peer.heard.is_some_and(|at| now >= at + silence))
            .map(|(id, peer)| {
                peer.told_lost = Some(now);
                *id
            })
            .collect();
        for member in lost {
            self.note("member_lost", Some(member), "nothing is heard from it");
        }
    }

    /// All other members, for people.
    pub fn members(&self, now: Instant) -> Vec<MemberStatus> {
        let status = |(id, peer): (&MemberId, &Peer)| MemberStatus {
            name: self.settings.members.get(usize::from(id.0)).map(|member| member.name.clone()).unwrap_or_default(),
            duty: self.duty_of(*id),
            state: self.is_fresh(*id, now).then_some(if peer.standing == Joined::Refused {
                State::Refused
            } else {
                peer.state
            }),
            met: peer.incarnation != 0,
            left: peer.standing == Joined::Left,
            differs: peer.differs.clone(),
            age: peer.heard.map(|at| now.saturating_duration_since(at)),
            priority: peer.priority,
            fitness: peer.fitness,
        };
        self.peers.iter().map(status).collect()
    }
}
