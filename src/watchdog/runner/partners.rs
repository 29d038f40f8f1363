//! What is asked of partners and by them on behalf of clients and operators, beside the engine's messages: cancel requests that reached the
//! wrong proxy, orders for whoever leads or for the whole group. Part of the runner; must not decide, nor pass on what a partner asks.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::super::engine::{Duty, MemberId};
use super::super::word::Word;
use super::Stray;
use super::hands::Hands;
use super::heart::Heart;
use crate::cluster::{Errand, Sign};
use crate::support::clock::{self, Duration, Instant};

/// Cancel requests that are passed on in one moment, and so many more each second. Nobody has to log in to send one.
const BURST: f64 = 32.0;
const PER_SECOND: f64 = 100.0;
/// What this proxy waits for at a time.
const MOST_ASKED: usize = 256;
/// What it does for partners at a time.
const MOST_OBEYED: usize = 64;
/// What those who do it may have said.
const SAID: usize = 64;
/// Signs of one of them that may wait.
const SIGNS: usize = 4;

/// What is under way. See the head of the file.
pub(super) struct Desk {
    /// The number of the next question. Begins with a random one, so that no answer to the process before counts.
    next: u64,
    asked: HashMap<u64, (MemberId, mpsc::Sender<Sign>)>,
    /// What goes to partners, from those who do what they asked for.
    pub(super) said: mpsc::Receiver<(MemberId, Word)>,
    say: mpsc::Sender<(MemberId, Word)>,
    /// Cancel requests that may be passed on now.
    allowance: f64,
    refilled: Option<Instant>,
    /// Cancel requests: passed on to partners, passed on by partners and obeyed, refused.
    pub(super) cancels: [u64; 3],
}

impl Desk {
    pub(super) fn new(next: u64) -> Self {
        let (say, said) = mpsc::channel(SAID);
        Self { next, asked: HashMap::new(), said, say, allowance: BURST, refilled: None, cancels: [0; 3] }
    }

    /// May one more cancel request be passed on?
    fn takes(&mut self, now: Instant) -> bool {
        let past = self.refilled.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.allowance = (self.allowance + past.as_secs_f64() * PER_SECOND).min(BURST);
        let takes = self.allowance >= 1.0;
        self.allowance -= if takes { 1.0 } else { 0.0 };
        takes
    }
}

impl<H: Hands + 'static> Heart<H> {
    /// A member's name, and its place among the partners.
    pub(super) fn far(&self, member: MemberId) -> Option<(String, usize)> {
        let name = &self.settings.members.get(usize::from(member.0))?.name;
        let at = self.watchdog.peers.iter().position(|peer| &peer.name == name)?;
        Some((name.clone(), at))
    }

    /// It serves clients: a witness has no business with sessions and operators.
    fn serves(&self, member: MemberId) -> bool {
        self.settings.members.get(usize::from(member.0)).is_some_and(|member| member.duty == Duty::Proxy)
    }

    /// Sends a word by the connection alone; false: it is not on its way.
    pub(super) fn say(&mut self, to: MemberId, word: Word) -> bool {
        let Some((name, at)) = self.far(to) else { return false };
        let since = clock::boot().saturating_duration_since(self.begun);
        let frame = self.seal.seal(&name, &word.encode(), since);
        frame.is_some_and(|frame| self.links.carry(at, frame))
    }

    /// A client has sent a partner's key to this proxy.
    pub(super) fn pass_cancel(&mut self, stray: &Stray, now: Instant) {
        let owner = u8::try_from(stray.owner).ok().map(MemberId).filter(|owner| self.serves(*owner));
        let Some((owner, (name, _))) = owner.and_then(|owner| Some((owner, self.far(owner)?))) else {
            return self.refuse_cancel("a cancel request names no session of any member", now);
        };
        if !self.desk.takes(now) {
            return self.refuse_cancel("more cancel requests for partners come than are passed on", now);
        }
        let proof = self.seal.proof(&name, stray.session, &stray.secret);
        if self.say(owner, Word::Cancel { session: stray.session, proof }) {
            self.desk.cancels[0] += 1;
        } else {
            self.refuse_cancel(&format!("a cancel request is for a session of {name}, which is not connected"), now);
        }
    }

    fn refuse_cancel(&mut self, why: &str, now: Instant) {
        self.desk.cancels[2] += 1;
        self.complain("cancel_refused", why.to_owned(), now);
    }

    /// An operator wants something of a partner.
    pub(super) fn ask_partner(&mut self, name: &str, errand: Errand, who: String, signs: &mpsc::Sender<Sign>) {
        self.desk.asked.retain(|_, (_, signs)| !signs.is_closed());
        let refuse = |why: String| drop(signs.try_send(Sign::Done(Err(why))));
        let Some(member) = self.member(name).filter(|member| self.serves(*member)) else {
            return refuse(format!("there is no partner {name} that serves clients"));
        };
        if self.desk.asked.len() >= MOST_ASKED {
            return refuse("too many orders for partners are under way".to_owned());
        }
        self.desk.next = self.desk.next.wrapping_add(1);
        let number = self.desk.next;
        if !self.say(member, Word::Ask { number, errand, who }) {
            return refuse(format!("{name} is not connected now: nothing was asked of it"));
        }
        self.desk.asked.insert(number, (member, signs.clone()));
    }

    /// A partner says something that is not for the engine.
    pub(super) fn hear_word(&mut self, from: MemberId, word: Result<Word, String>, now: Instant) {
        let name = self.far(from).map_or(String::new(), |(name, _)| name);
        match word {
            Err(why) => self.unreadable(from, &why, now),
            Ok(Word::Report(report)) => self.sights.report(from, report, now),
            // Whoever votes only has the key, but no clients and no operators.
            Ok(_) if !self.serves(from) => self.unreadable(from, "a witness asks nothing and answers nothing", now),
            Ok(Word::Cancel { session, proof }) => {
                let is_right = |secret: &[u8]| self.seal.proves(session, secret, &proof);
                if self.hands.cancel(session, &is_right) {
                    self.desk.cancels[1] += 1;
                } else {
                    self.refuse_cancel(&format!("a cancel request that {name} passed on is for no session here"), now);
                }
            }
            Ok(Word::Ask { number, errand, who }) => {
                let answer = self.obey(from, number, errand, format!("{who} at {name}"), now);
                if let Err(why) = answer {
                    self.say(from, Word::Told { number, answer: Err(why) });
                }
            }
            Ok(Word::Still { number, how }) => self.answered(from, number, Sign::Still(how)),
            Ok(Word::Told { number, answer }) => self.answered(from, number, Sign::Done(answer)),
        }
    }

    pub(super) fn unreadable(&mut self, from: MemberId, why: &str, now: Instant) {
        let name = self.settings.members.get(usize::from(from.0)).map(|member| member.name.clone());
        let why = format!("{} says what cannot be read: {why}", name.unwrap_or_default());
        self.complain("message_unreadable", why, now);
    }

    fn answered(&mut self, from: MemberId, number: u64, sign: Sign) {
        let Some((member, signs)) = self.desk.asked.get(&number) else { return };
        if *member != from {
            return;
        }
        let over = matches!(sign, Sign::Done(_));
        // Who does not take its signs has enough of them; the last one has a place of its own.
        if over || signs.capacity() > 1 {
            let _ = signs.try_send(sign);
        }
        if over {
            self.desk.asked.remove(&number);
        }
    }

    /// Does what a partner asks for, beside everything else; it is never passed on, so that no two wait for each other.
    fn obey(&mut self, from: MemberId, number: u64, errand: Errand, who: String, now: Instant) -> Result<(), String> {
        if self.desk.say.strong_count() > MOST_OBEYED {
            return Err("it has too much under way for its partners: try again".to_owned());
        }
        let name = self.far(from).map_or(String::new(), |(name, _)| name);
        let differs = self.engine.members(now).into_iter().find(|member| member.name == name);
        let differs = differs.map_or_else(Vec::new, |member| member.differs);
        let other = differs.iter().find(|name| name.starts_with("node.") || *name == "watchdog.nodes");
        if let Some(other) = other.filter(|_| errand.names_nodes()) {
            return Err(format!("{other} is not the same there as at {name}: a node's number may mean another one"));
        }
        let (signs, mut coming) = mpsc::channel(SIGNS);
        self.hands.obey(errand, who, signs)?;
        let say = self.desk.say.clone();
        self.tasks.spawn_local(async move {
            while let Some(sign) = coming.recv().await {
                let word = match sign {
                    Sign::Still(how) => Word::Still { number, how },
                    Sign::Done(answer) => Word::Told { number, answer },
                };
                if say.send((from, word)).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_cancels_is_not_passed_on() {
        let mut desk = Desk::new(1);
        let begun = clock::boot();
        let passed = |desk: &mut Desk, at: Instant| (0..1_000).filter(|_| desk.takes(at)).count();
        assert_eq!(passed(&mut desk, begun), 32);
        assert_eq!(passed(&mut desk, begun + Duration::from_millis(100)), 10);
        assert_eq!(passed(&mut desk, begun + Duration::from_secs(100)), 32, "a quiet time saves up no more than that");
    }
}
