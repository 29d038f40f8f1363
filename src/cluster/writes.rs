//! Whether statements that need the primary may go to it now: the word of `failover` to sessions, carried by every view.
//! A value; must not hold statements itself.

use std::fmt;
use std::time::Instant;

/// Part of every [`ClusterView`](super::ClusterView). It is about statements that would *begin* something on the primary: a statement
/// outside a transaction, or the first one of a transaction that needs a server. A transaction that has its server
/// connection goes on, whatever this says, until that connection ends.
///
/// How a session uses it:
/// - It looks before it asks a pool for a connection, and looks **again after each wait**, before the first byte goes to the
///   server: a view that was published meanwhile counts. A thread that has taken the control thread's barrier
///   from its mail lets nothing through that was decided under an older view.
/// - A connection to the primary that was opened under an older epoch than the view's is not used for anything that begins.
/// - Who waits, waits for the next *generation* (every change of this field makes one), at most `failover.hold_timeout` since its own
///   statement came, in an orderly queue of at most `failover.max_held` in the process; pool deadlines do not run meanwhile. When the
///   wait ends in vain: SQLSTATE 57P03 with [`text`](Self::text).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// To the view's primary. Without one, as at the start: they wait as if they were held.
    Open,
    /// They wait.
    Held {
        /// Since when, over all changes of the reason.
        since: Instant,
        /// For what.
        why: Hold,
    },
    /// They are refused at once with 57P03 and this text: waiting would be in vain.
    Refused {
        /// For people.
        why: &'static str,
    },
}

/// What held statements wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// The primary is late with an answer; most probably it is well (HA H1).
    Suspect,
    /// The primary is dead and another server is being promoted.
    Failover,
    /// An operator moves the primary's role to another server (HA H12).
    SwitchOver,
    /// The new primary has too few synchronous standbys (HA H9).
    SyncShortage,
    /// The primary is dead, nobody may be promoted, and it may come back by itself.
    NoPrimary,
    /// The partner proxies have not agreed yet, or not any more, that this one may write (HA H17).
    Partners,
}

impl Writes {
    /// May what needs the primary go there now?
    pub fn open(self) -> bool {
        self == Self::Open
    }

    /// What is going on, for the text of an error and for people; empty while writes are open.
    pub fn text(self) -> &'static str {
        match self {
            Self::Open => "",
            Self::Held { why, .. } => why.as_str(),
            Self::Refused { why } => why,
        }
    }
}

impl Hold {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspect => "the primary does not answer in time",
            Self::Failover => "the primary is lost and another server is being promoted",
            Self::SwitchOver => "the primary's role is being moved to another server",
            Self::SyncShortage => "the new primary waits for its synchronous standbys",
            Self::NoPrimary => "the primary is lost and no other server may be promoted",
            Self::Partners => "the partner proxies do not agree that this one may write",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
