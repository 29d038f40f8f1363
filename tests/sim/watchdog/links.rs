//! Links that lose, delay, double and reorder, and cuts in one direction or both.

use pgherd::watchdog::engine::{Event, Message, State, Writes};
use pgherd::watchdog::message::{Kind, Part};

use super::world::{MILLI, Next, SECOND, Time, World, id};

/// The state of all links.
#[derive(Debug)]
pub(crate) struct Links {
    /// From, to.
    cut: Vec<Vec<bool>>,
    /// Messages lost, in percent.
    pub(crate) loss: u64,
    /// The longest delay.
    pub(crate) delay: Time,
    /// Members that do not reach the trusted server.
    pub(crate) untrusted: Vec<bool>,
    /// The process that each member knows of each other one: older ones are strangers to its seal.
    sessions: Vec<Vec<u64>>,
}

impl Links {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            cut: vec![vec![false; count]; count],
            loss: 0,
            delay: 3 * MILLI,
            untrusted: vec![false; count],
            sessions: vec![vec![0; count]; count],
        }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from][to]
    }

    pub(crate) fn set(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from][to] = cut;
    }

    pub(crate) fn mend(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.untrusted.iter_mut().for_each(|cut| *cut = false);
        (self.loss, self.delay) = (0, 3 * MILLI);
    }
}

impl World {
    pub(crate) fn send(&mut self, from: usize, to: usize, message: Box<Message>) {
        if message.stuck.is_some() && message.state != State::Leader {
            // Where it stands holds before anything leaves.
            let writes = self.hosts[from].process.as_ref().map(|process| process.engine.standing().writes);
            let over = match writes {
                Some(Writes::Until(until)) => self.truly(from, until) <= self.now,
                Some(Writes::Course) => false,
                Some(Writes::Stop) | None => true,
            };
            assert!(over, "h17: {from} says that it is stuck and writes: {writes:?}");
            let given = self.words.iter().filter(|((voter, to), _)| *voter == from && *to != from);
            let last = given.map(|(_, at)| *at).max();
            assert!(last.is_none_or(|at| self.now > at + 3 * SECOND), "h18: {from} says that it is stuck and votes");
        }
        if let Part::Verdict(verdict) = &message.part
            && verdict.granted
            && verdict.kind != Kind::Probe
        {
            self.words.insert((from, to), self.now);
        }
        if self.links.is_cut(from, to) || self.hosts[from].vanished {
            return;
        }
        let copies = 1 + u64::from(self.random.one_in(50) && !self.calm);
        for _ in 0..copies {
            if self.random.below(100) < self.links.loss {
                continue;
            }
            let delay = MILLI / 5 + self.random.below(self.links.delay);
            let late = if !self.calm && self.random.one_in(500) { self.random.below(4 * SECOND) } else { 0 };
            self.after(delay + late, Next::Deliver { from, to, message: message.clone() });
        }
    }

    pub(crate) fn deliver(&mut self, from: usize, to: usize, message: Box<Message>) {
        if self.links.is_cut(from, to) || self.hosts[to].vanished {
            return;
        }
        // What is not read while the process is frozen is read when it goes on.
        let session = &mut self.links.sessions[to][from];
        if message.incarnation < *session {
            return;
        }
        *session = message.incarnation;
        self.tell(to, self.hosts[to].incarnation, Event::Heard(id(from), message));
    }
}
