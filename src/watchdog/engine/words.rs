//! The words of the watchdog's engine: what it is told, what it wants done, what it writes down. Values only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cluster::NodeId;
use crate::watchdog::message::{Fitness, MemberId, Message, Shared, Sight, State, Term};
use crate::watchdog::timings::Timings;

/// What a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It serves clients and may lead.
    Proxy,
    /// It votes.
    Witness,
}

/// One member, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub duty: Duty,
}

/// The vote of nobody's process: the third of a pair without a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Third {
    /// None: the members decide.
    None,
    /// Advisory locks on a majority of these servers.
    Nodes(Vec<NodeId>),
    /// A trusted server answers.
    Trusted,
}

/// What becomes of writes when the majority is out of sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnQuorumLoss {
    /// They stop with the lease.
    Stop,
    /// They go on under the last epoch; only where nobody promotes.
    HoldCourse,
}

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This member.
    pub me: MemberId,
    /// All members in the order of their names, so that places are the same everywhere; at most
    /// [`MAX_MEMBERS`](crate::watchdog::message::MAX_MEMBERS).
    pub members: Vec<Member>,
    /// Of equals the higher one leads.
    pub priority: i64,
    /// Times, checked.
    pub timings: Timings,
    /// The third vote of a pair.
    pub third: Third,
    /// There is an address to hold.
    pub address: bool,
    /// Trusted servers are configured: who reaches none of them does not begin to lead.
    pub trusted: bool,
    /// See [`OnQuorumLoss`].
    pub on_quorum_loss: OnQuorumLoss,
    /// Settings that must agree, by their names; those of node 3 begin with `node.3.`.
    pub agreed: BTreeMap<String, String>,
}

/// What must survive the process, written and synced before an answer that depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// The highest term that was promised.
    pub term: Term,
    /// To whom.
    pub vote: Option<MemberId>,
    /// The newest of what is agreed, or was about to be.
    pub shared: Shared,
}

/// Whose wish is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What came of an attempt at a node's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// The session that obtained it earlier still holds it.
    Mine,
    /// This attempt obtained it; so long at least was the server not heard of whoever held it before (zero: not known, or the server
    /// has restarted since one last looked).
    Obtained(Duration),
    /// Somebody else holds it.
    Busy,
    /// No answer, and the session is given up.
    Failed,
}

/// What came of an order about the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressIs {
    /// It is ours.
    Taken,
    /// Somebody who is no partner answers for it; the text says who.
    Occupied(String),
    /// It could not be taken or renewed in time, and is certainly not here.
    Failed(String),
    /// It is gone from here.
    Released,
}

/// What the engine is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A member said this; authentic and new.
    Heard(MemberId, Box<Message>),
    /// A member's process has ended, and its address with it: see the head of `watchdog`.
    Gone {
        /// Whose.
        member: MemberId,
        /// Which process.
        incarnation: u64,
        /// When the attempt to reach it that proved this was begun.
        asked: Instant,
    },
    /// This and everything before it is on disk.
    Persisted(u64),
    /// An attempt at a node's lock has ended.
    Lock {
        /// The node.
        node: NodeId,
        /// When it was sent.
        sent: Instant,
        /// What came.
        locked: Locked,
    },
    /// Trusted servers were asked.
    Trusted {
        /// When.
        sent: Instant,
        /// At least one answered.
        answered: bool,
    },
    /// What this proxy sees of the nodes.
    Sights(Vec<(NodeId, Sight)>, Option<NodeId>),
    /// None of the interfaces that clients come by has a carrier, or one has again.
    Dark(bool),
    /// About the address.
    Address(AddressIs),
    /// May this node be replaced as primary? Answered by the epoch, once nobody writes under an earlier one any more.
    Consent {
        /// Whose wish.
        ticket: Ticket,
        /// Which node.
        node: NodeId,
        /// An operator wants it, or it is primary no more: it need not be dead.
        planned: bool,
    },
    /// What was begun on the primary under epochs before this one has ended here, and no answer to it counts any more.
    Stopped(u64),
    /// Agree on this: a majority shall have it on disk.
    Record(Ticket, u64, String),
    /// What consent was given for was given up.
    Resume,
    /// Hand over, to this member or to whoever is best.
    HandOver(Ticket, Option<MemberId>),
    /// Something has changed that the address depends on: an interface, or its carrier.
    Mended,
    /// Other settings hold (priority, settings that must agree, the operator's programs).
    Configure(Box<Settings>),
    /// Stop in order: [`Action::Left`] follows.
    Leave,
    /// Time has come, see [`Engine::wakeup`](super::Engine::wakeup).
    Tick,
}

/// What is wanted of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Probe for another holder, then set it, but not later than `until`.
    Take {
        /// Probe. A partner that has just handed it over was its only holder.
        ask: bool,
        /// Look at the clock before and after: later than this it must be deleted. The kernel keeps it for the whole seconds that are left
        /// when it is told.
        until: Instant,
    },
    /// Prolong it, in the same way.
    Renew {
        /// As above.
        until: Instant,
    },
    /// Delete it now.
    Release,
    /// Tell the neighbours.
    Announce,
}

/// Whether and how long this proxy may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Until then.
    Until(Instant),
    /// Without a majority, by choice (`on_quorum_loss = "hold_course"`).
    Course,
    /// No more.
    Stop,
}

/// Where this proxy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Who leads, as far as is known.
    pub leader: Option<MemberId>,
    /// In which term.
    pub term: Term,
    /// The epoch under which it may write.
    pub epoch: u64,
    /// Whether something may begin under it.
    pub writes: Writes,
    /// Until when this proxy leads; what has begun may go on until then.
    pub leads: Option<Instant>,
}

/// What the engine wants of its runner.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Tell a member.
    Send(MemberId, Box<Message>),
    /// Write and sync this, then tell its number.
    Persist(u64, Box<Kept>),
    /// Take or refresh the lock on this node; exactly one [`Event::Lock`] must come of it, within the lease.
    Lock(NodeId),
    /// Give the lock on this node back, be it held or on its way.
    Unlock(NodeId),
    /// Ask the trusted servers; exactly one [`Event::Trusted`] must come of it.
    Ping,
    /// About the address; one [`Event::Address`] must come of each `Take` and `Release`, and of a `Renew` that failed.
    Address(Address),
    /// This holds from now on.
    Standing(Standing),
    /// This is agreed.
    Share(Box<Shared>),
    /// End what is under way on the primary: an epoch from this one on is being prepared. [`Event::Stopped`] must come of it, if it can be done.
    Stop(u64),
    /// These nodes are out of our sight alone.
    Quarantine(BTreeSet<NodeId>),
    /// The answer to a wish: an epoch for consent, else 0.
    Reply(Ticket, Result<u64, String>),
    /// For the event log.
    Note(Note),
    /// Nothing is left to do.
    Left,
}

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its name, for machines.
    pub event: &'static str,
    /// The member that it is about.
    pub member: Option<MemberId>,
    /// The term.
    pub term: Term,
    /// Why, or what.
    pub why: String,
}

/// What is known of a member, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub duty: Duty,
    /// What it says of itself; none: it is lost, or has never been heard.
    pub state: Option<State>,
    /// It was heard of ever.
    pub met: bool,
    /// It left in order.
    pub left: bool,
    /// The settings that differ.
    pub differs: Vec<String>,
    /// How long ago it was heard.
    pub age: Option<Duration>,
    /// Its priority.
    pub priority: i64,
    /// Its fitness.
    pub fitness: Fitness,
}
