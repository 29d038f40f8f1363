//! What partner proxies mean for everybody else in this process: until when writes may go, what all have agreed on, and who they are, for
//! people. Written by `watchdog` alone. Words and one lock-free cell; must not decide, nor ask the time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{Epoch, NodeId};

/// Until when this proxy may write, in nanoseconds of `support::clock::boot_nanos` (HA H17). Data threads look at it themselves, so that it
/// ends when it ends, whatever has become of the control thread.
#[derive(Debug)]
pub struct Lease {
    /// There are partners.
    kept: AtomicBool,
    /// What begins something on the primary may until then; 0: not now.
    begins: AtomicU64,
    /// What has begun may go on until then, and its answers count.
    goes_on: AtomicU64,
    /// The epoch that this is about.
    epoch: AtomicU64,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            kept: AtomicBool::new(false),
            begins: AtomicU64::new(u64::MAX),
            goes_on: AtomicU64::new(u64::MAX),
            epoch: AtomicU64::new(0),
        }
    }
}

impl Lease {
    /// There are partners: nothing may be written before they agree. To be called before anybody looks.
    pub fn keep(&self) {
        self.set(Epoch(0), 0, 0);
        self.kept.store(true, Ordering::Release);
    }

    /// Are there partners?
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// The newest word. `begins` and `goes_on` are nanoseconds, `u64::MAX` for ever.
    pub fn set(&self, epoch: Epoch, begins: u64, goes_on: u64) {
        if self.epoch.load(Ordering::Relaxed) != epoch.0 {
            // Nobody may take the new time for one of the old epoch, nor the other way round.
            self.begins.store(0, Ordering::Release);
        }
        self.goes_on.store(goes_on, Ordering::Release);
        self.epoch.store(epoch.0, Ordering::Release);
        self.begins.store(begins, Ordering::Release);
    }

    /// May something begin on the primary of that epoch? `now` is asked for only if there are partners.
    pub fn may_begin(&self, epoch: Epoch, now: impl FnOnce() -> u64) -> bool {
        match self.begins.load(Ordering::Acquire) {
            u64::MAX if !self.is_kept() => true,
            // Read once more: while the epoch changes there is no time.
            until => {
                let same = self.epoch.load(Ordering::Acquire) == epoch.0;
                same && self.begins.load(Ordering::Acquire) == until && until > now()
            }
        }
    }

    /// Is it over for what is under way on the primary?
    pub fn is_over(&self, now: impl FnOnce() -> u64) -> bool {
        match self.goes_on.load(Ordering::Acquire) {
            u64::MAX => false,
            until => until <= now(),
        }
    }
}

/// What the partner proxies agree on, as far as this one knows: from `watchdog` to `failover`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accord {
    /// This proxy leads, in this term, and knows what was agreed before; none: another one does, or nobody.
    pub leads: Option<u64>,
    /// The version of what is agreed: the term of who wrote it, and its number there.
    pub version: (u64, u64),
    /// The epoch under which all may write; 0: none yet.
    pub epoch: Epoch,
    /// Statements may begin on the primary of that epoch now.
    pub writes: bool,
    /// The journal of `failover`; empty: none yet.
    pub body: Arc<str>,
    /// Nodes that this proxy alone cannot see (HA H3).
    pub blind: BTreeSet<NodeId>,
}

/// The group as this proxy sees it, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// All members in the order of their names, this one among them.
    pub members: Vec<Partner>,
    /// The place of this one.
    pub own: usize,
    /// Votes that are needed to lead.
    pub needed: usize,
    /// There is a leader that a majority has confirmed.
    pub quorum: bool,
    /// The arbiter's name: `members`, `nodes`, `trusted`.
    pub arbiter: &'static str,
    /// The address that follows the leader.
    pub virtual_ip: Option<IpAddr>,
    /// It is here now.
    pub holds_ip: bool,
    /// The number of the present term.
    pub term: u64,
    /// The epoch that is agreed on.
    pub epoch: Epoch,
    /// What this proxy alone cannot see.
    pub blind: BTreeSet<NodeId>,
    /// What is not as it should be, one sentence each.
    pub troubles: Vec<String>,
    /// Frames that were refused: malformed, forged, of strangers, replayed, stale.
    pub refused: [u64; 5],
    /// Who leads, confirmed by a majority, as far as this proxy knows; none: nobody, or it does not know.
    pub confirmed: Option<String>,
    /// What may begin on the primary here: `lease` until the end of it, `course` held without a majority, `stop` nothing.
    pub writes: &'static str,
    /// What is left of the lease.
    pub lease: Option<Duration>,
    /// What others than members have a say.
    pub votes: Vec<Vote>,
    /// Cancel requests for sessions of other proxies: passed on to them; passed on by them and obeyed; refused.
    pub cancels: [u64; 3],
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub host: String,
    /// Its port for partners.
    pub port: u16,
    /// `proxy`, or `witness`: it only votes.
    pub duty: &'static str,
    /// `LEADER`, `STANDBY`, `JOINING`, `LEAVING`, `REFUSED`, `LOST`, `SHUTDOWN`, `UNKNOWN` (never heard).
    pub state: &'static str,
    /// Settings that differ from ours.
    pub differs: Vec<String>,
    /// How long ago it was heard, to a tenth of a second; none: never, or this process.
    pub age: Option<Duration>,
    /// Of equals the higher one leads.
    pub priority: i64,
    /// It reaches a trusted server, or there is none.
    pub trusted: bool,
    /// It holds the address, or nothing says that it could not; none: there is no address.
    pub can_hold: Option<bool>,
    /// It reaches the primary.
    pub primary: bool,
    /// It reaches so many nodes.
    pub nodes: u16,
    /// How long ago the newest message of ours left that it has confirmed; none: that is not known.
    pub heard_by: Option<Duration>,
    /// What it says of the group; none: it has not said so a moment ago.
    pub says: Option<Says>,
    /// How its wall clock goes, if that is known.
    pub clock: Option<Clock>,
    /// The ways to and from it.
    pub links: Vec<Link>,
}

/// What a member says of the group itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Says {
    /// Who leads, confirmed by a majority.
    pub leader: Option<String>,
    /// The number of its term.
    pub term: u64,
    /// The epoch under which it writes.
    pub epoch: u64,
    /// It has the virtual address.
    pub holds_ip: bool,
}

/// Another host's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds ahead of ours.
    pub ahead: i64,
    /// That may be wrong by so many.
    pub within: i64,
}

/// One way to and from a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `tcp host:port`, `udp address:port`; `udp from address`: it is not configured.
    pub name: String,
    /// Our connection to it is there; none: there is no connection by UDP, so that nobody knows.
    pub connected: Option<bool>,
    /// How long ago something came by it; none: never.
    pub heard: Option<Duration>,
}

/// Whoever has a say beside the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The lock of a server, or the trusted servers.
    pub name: String,
    /// What it said last; none: it was not asked.
    pub state: Option<&'static str>,
    /// How long ago it was asked.
    pub age: Option<Duration>,
}

impl Group {
    /// This process.
    pub fn me(&self) -> Option<&Partner> {
        self.members.get(self.own)
    }

    /// Who leads.
    pub fn leader(&self) -> Option<&Partner> {
        self.members.iter().find(|member| member.state == "LEADER")
    }
}

impl Partner {
    /// It has said something of itself a moment ago, so that what is told of it is of now.
    pub fn is_heard(&self) -> bool {
        matches!(self.state, "LEADER" | "STANDBY" | "JOINING" | "LEAVING" | "REFUSED")
    }

    /// The number that pgpool-II has for such a state.
    pub fn pgpool_state(&self) -> u8 {
        match self.state {
            "LEADER" => 4,
            "STANDBY" => 7,
            "JOINING" => 2,
            "LOST" | "LEAVING" => 8,
            "SHUTDOWN" => 10,
            "REFUSED" => 9,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h17_nothing_begins_behind_the_end_nor_in_another_epoch() {
        let lease = Lease::default();
        assert!(lease.may_begin(Epoch(7), || u64::MAX) && !lease.is_over(|| u64::MAX), "nobody to agree with");
        lease.keep();
        assert!(!lease.may_begin(Epoch(0), || 1) && lease.is_over(|| 1), "partners have said nothing yet");
        lease.set(Epoch(3), 100, 200);
        assert!(lease.may_begin(Epoch(3), || 99) && !lease.may_begin(Epoch(3), || 100));
        assert!(!lease.may_begin(Epoch(2), || 99) && !lease.may_begin(Epoch(4), || 99));
        assert!(!lease.is_over(|| 199) && lease.is_over(|| 200));
        lease.set(Epoch(4), u64::MAX, u64::MAX);
        assert!(lease.may_begin(Epoch(4), || u64::MAX - 1) && !lease.may_begin(Epoch(3), || 1), "held course");
    }
}
