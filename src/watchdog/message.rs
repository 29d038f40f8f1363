//! What peers tell each other, and its form on the wire: JSON within bounds. Owner: the engine speaks it, links carry it. Values only;
//! must not believe a length, and must not decide.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest text of a message, in bytes.
pub const MAX_BYTES: usize = 96 * 1024;
/// The longest body of [`Shared`], in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// The most nodes that a message tells of.
pub const MAX_NODES: usize = 256;
/// The most settings that are compared.
pub const MAX_SETTINGS: usize = 512;
/// The longest name or value of a setting, in bytes.
pub const MAX_TEXT: usize = 4 * 1024;
/// The most members of a group.
pub const MAX_MEMBERS: usize = 15;

/// A member's place among the names of all configured members in their alphabetical order: the same for all who are configured alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberId(pub u8);

/// A term of leadership. Each belongs to one member from the start, so that no term can have two leaders, whoever forgets what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Term(pub u64);

impl Term {
    /// The least term of `owner` above this one; of the last ones, that none is above, the last of `owner`.
    pub fn next(self, owner: MemberId) -> Self {
        Self(((self.count() + 1).min(u64::MAX >> 8) << 8) | u64::from(owner.0))
    }

    /// Whose it is; says nothing for the first, 0.
    pub fn owner(self) -> MemberId {
        MemberId((self.0 & 0xFF) as u8)
    }

    /// The number for people.
    pub fn count(self) -> u64 {
        self.0 >> 8
    }
}

/// What a member is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It has just started and votes for nobody yet.
    Joining,
    /// It could lead, or is a witness.
    Standby,
    /// It leads, under a lease that it believes valid.
    Leader,
    /// It stops in order.
    Leaving,
    /// Its settings differ from ours.
    Refused,
}

/// What a member sees of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sight {
    /// It has not looked yet.
    Unknown,
    /// It answers.
    Alive,
    /// A probe is late.
    Suspect,
    /// It is dead (HA H1).
    Dead,
}

/// How much of the world a proxy reaches (HA H3); the greater one is fitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Fitness {
    /// At least one trusted server answers, or none is configured.
    pub trusted: bool,
    /// Whether it could hold the address.
    #[serde(default)]
    pub hold: Hold,
    /// The primary answers.
    pub primary: bool,
    /// So many nodes answer.
    pub nodes: u16,
    /// What is known of that: a mere try is no reason to take the address from anybody.
    #[serde(default)]
    pub trial: Trial,
}

impl Fitness {
    /// Without what a mere try would tell.
    pub fn reach(self) -> Self {
        Self { trial: Trial::default(), ..self }
    }
}

/// Whether a member could hold the address; earlier versions do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Hold {
    /// Its tries have failed.
    Unable,
    /// It holds it, or nothing says that it could not; or there is none.
    #[default]
    Able,
}

/// What is known of a member that is able; earlier versions do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Trial {
    /// It was found unable, and that was some time ago.
    Due,
    /// It was not, since it last held the address or something has changed.
    #[default]
    Sound,
}

/// What all members agree on, with its version: the greater one replaces the other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shared {
    /// The term of the leader that wrote it, and its number among what that leader wrote.
    pub version: (Term, u64),
    /// The epoch that it belongs to.
    pub epoch: u64,
    /// The highest epoch that anybody was given leave to begin: no other leader gives it again.
    pub claimed: u64,
    /// The journal of failover: nodes' states and the intent under way (HA H13). Opaque here.
    pub body: String,
}

/// How far a claim goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Would you vote for me?
    Probe,
    /// Vote for me.
    Elect,
    /// I lead: prolong my lease.
    Renew,
}

/// A vote is asked for, or a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// See [`Kind`].
    pub kind: Kind,
    /// For which term.
    pub term: Term,
    /// Comes back in the answer: the claimant knows when it sent it.
    pub seq: u64,
    /// The epoch that is being prepared: who hears of it writes under no earlier one (HA H17); 0: none.
    pub prepare: u64,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// As in the claim.
    pub kind: Kind,
    /// As in the claim.
    pub term: Term,
    /// As in the claim.
    pub seq: u64,
    /// Yes.
    pub granted: bool,
    /// Milliseconds until somebody else's address is certainly gone, as far as this voter knows.
    pub hold: u32,
    /// Milliseconds until it could say yes; 0 if that is no matter of time.
    pub wait: u32,
}

/// What a message is about, besides what all of them say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// A sign of life.
    Beat,
    /// A wish for a vote.
    Claim(Claim),
    /// The answer.
    Verdict(Verdict),
    /// The sender led in this term and holds nothing any more; this member shall lead, or whoever can.
    Yield(Term, Option<MemberId>),
    /// The sender stops.
    Bye,
    /// The settings that must agree (HA H23).
    Settings(BTreeMap<String, String>),
    /// This is agreed, or will be when a majority has it.
    Shared(Box<Shared>),
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's process.
    pub incarnation: u64,
    /// Counts the sender's messages to this receiver, from 1.
    pub number: u64,
    /// The newest number that came from the receiver's present process; 0: none.
    pub heard: u64,
    /// Digest of the settings that must agree.
    pub digest: u64,
    /// The sender's state.
    pub state: State,
    /// The highest term that the sender has promised or led.
    pub term: Term,
    /// The sender's priority.
    pub priority: i64,
    /// The sender's fitness.
    pub fitness: Fitness,
    /// What the sender sees of nodes, by their numbers.
    pub sights: Vec<(u16, Sight)>,
    /// The sender writes under no epoch below this one.
    pub promised: u64,
    /// The version of [`Shared`] that the sender has on disk.
    pub shared: (Term, u64),
    /// The version that the sender knows, while its disk has not answered for longer than any lease lasts: it votes for nobody, and follows
    /// nobody's lease. None: its disk answers; earlier versions do not say.
    #[serde(default)]
    pub stuck: Option<(Term, u64)>,
    /// What it is about.
    pub part: Part,
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`MAX_BYTES`].
    #[error("{0} bytes are too many")]
    TooLong(usize),
    /// Not this form.
    #[error("not a message: {0}")]
    Syntax(String),
    /// A part is larger than anybody needs.
    #[error("too large: {0}")]
    Bounds(&'static str),
}

impl Message {
    /// Its form on the wire.
    ///
    /// # Errors
    /// A part of it is too large.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        self.check()?;
        let bytes = serde_json::to_vec(self).map_err(|error| Malformed::Syntax(error.to_string()))?;
        if bytes.len() > MAX_BYTES { Err(Malformed::TooLong(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads what [`encode`](Self::encode) wrote. Fields of later versions are ignored.
    ///
    /// # Errors
    /// See [`Malformed`]; nothing larger than [`MAX_BYTES`] is looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_BYTES {
            return Err(Malformed::TooLong(bytes.len()));
        }
        let message: Self = serde_json::from_slice(bytes).map_err(|error| Malformed::Syntax(error.to_string()))?;
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.sights.len() > MAX_NODES {
            return Err(Malformed::Bounds("nodes"));
        }
        match &self.part {
            Part::Settings(map) if map.len() > MAX_SETTINGS => Err(Malformed::Bounds("settings")),
            Part::Settings(map) if map.iter().any(|(name, value)| name.len().max(value.len()) > MAX_TEXT) => {
                Err(Malformed::Bounds("a setting"))
            }
            Part::Shared(shared) if shared.body.len() > MAX_BODY => Err(Malformed::Bounds("the shared body")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
