//! Who has guessed too often is not asked for a while. Pure: told what happened and when; must not log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::PeerAddr;

/// Failures in a row that are forgiven.
const FORGIVEN: u32 = 4;
/// The first lock-out; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(10);
/// No lock-out is longer.
const LONGEST: Duration = Duration::from_secs(900);
/// After so long without a failure, an origin's past is forgotten.
const MEMORY: Duration = Duration::from_secs(3600);
/// Origins that are remembered; the one that failed the longest ago is forgotten first.
const MOST: usize = 1_024;

/// Where logins come from. By address and not by name, or anybody could lock an administrator out; by user of the system on a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An address; of IPv6 the network that one host usually has for itself, a /64.
    Ip(IpAddr),
    /// A user of this host.
    Uid(u32),
}

impl Origin {
    /// The origin of a connection.
    pub fn of(peer: PeerAddr, uid: Option<u32>) -> Self {
        match peer {
            PeerAddr::Ip(address) => match address.ip().to_canonical() {
                IpAddr::V6(v6) => Self::Ip((v6.to_bits() >> 64 << 64).to_be_bytes().into()),
                v4 @ IpAddr::V4(_) => Self::Ip(v4),
            },
            PeerAddr::Unix => Self::Uid(uid.unwrap_or(u32::MAX)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Past {
    failures: u32,
    last: Instant,
    until: Option<Instant>,
}

/// The past of each origin.
#[derive(Debug, Default)]
pub struct Lockout(HashMap<Origin, Past>);

impl Lockout {
    /// How long this origin still has to wait; none if it may try.
    pub fn wait(&self, origin: Origin, now: Instant) -> Option<Duration> {
        let until = self.0.get(&origin)?.until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// A login failed. How long the origin is locked out from now on, if it is.
    pub fn failed(&mut self, origin: Origin, now: Instant) -> Option<Duration> {
        self.0.retain(|_, past| now.saturating_duration_since(past.last) < MEMORY);
        if self.0.len() >= MOST && !self.0.contains_key(&origin) {
            let oldest = self.0.iter().min_by_key(|(_, past)| past.last).map(|(origin, _)| *origin);
            oldest.map(|origin| self.0.remove(&origin));
        }
        let past = self.0.entry(origin).or_insert(Past { failures: 0, last: now, until: None });
        past.failures = past.failures.saturating_add(1);
        past.last = now;
        let beyond = past.failures.checked_sub(FORGIVEN + 1)?;
        let time = FIRST.saturating_mul(1 << beyond.min(16)).min(LONGEST);
        past.until = Some(now + time);
        Some(time)
    }

    /// A login succeeded: what was before is forgotten.
    pub fn succeeded(&mut self, origin: Origin) {
        self.0.remove(&origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::clock::now;

    fn ip(text: &str) -> Origin {
        Origin::of(PeerAddr::Ip(text.parse().expect("an address")), None)
    }

    #[test]
    fn guesses_cost_more_and_more_time_and_only_their_origin() {
        let (mut lockout, start) = (Lockout::default(), now());
        let (bad, good) = (ip("192.0.2.1:1"), ip("192.0.2.2:1"));
        for _ in 0..FORGIVEN {
            assert_eq!(lockout.failed(bad, start), None);
            assert_eq!(lockout.wait(bad, start), None);
        }
        assert_eq!(lockout.failed(bad, start), Some(FIRST));
        assert_eq!(lockout.wait(bad, start + FIRST / 2), Some(FIRST / 2));
        assert_eq!(lockout.wait(ip("192.0.2.1:2"), start), Some(FIRST));
        assert_eq!(lockout.wait(good, start), None);
        let later = start + FIRST;
        assert_eq!(lockout.wait(bad, later), None);
        assert_eq!(lockout.failed(bad, later), Some(FIRST * 2));
        for _ in 0..40 {
            lockout.failed(bad, later);
        }
        assert_eq!(lockout.wait(bad, later), Some(LONGEST));
        lockout.failed(good, later + MEMORY);
        assert_eq!(lockout.0.len(), 1, "an old past is forgotten");
        lockout.succeeded(good);
        assert!(lockout.0.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_a_network_is_one_origin() {
        let (mut lockout, start) = (Lockout::default(), now());
        for uid in 0..2 * MOST as u32 {
            lockout.failed(Origin::Uid(uid), start + Duration::from_millis(u64::from(uid)));
        }
        assert_eq!(lockout.0.len(), MOST);
        assert!(lockout.0.contains_key(&Origin::Uid(2 * MOST as u32 - 1)));
        assert_eq!(ip("[2001:db8::1]:5"), ip("[2001:db8::ffff:1]:6"));
        assert_ne!(ip("[2001:db8::1]:5"), ip("[2001:db8:0:1::1]:5"));
        assert_eq!(ip("[::ffff:192.0.2.1]:5"), ip("192.0.2.1:6"));
        assert_ne!(Origin::of(PeerAddr::Unix, Some(1)), Origin::of(PeerAddr::Unix, Some(2)));
    }
}
