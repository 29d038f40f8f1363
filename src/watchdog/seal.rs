//! The seal on what peers tell each other: HMAC-SHA256 over sender, receiver, sessions, counter, time and text. Owner: whoever has the
//! links. Pure; must not read a clock, and must not act on what it opens.
//!
//! ```text
//! "pgh1" │ from: u8 + name │ to: u8 + name │ session u64 │ yours u64 │ counter u64 │ time u64 (ms) │ text │ tag (32 bytes)
//! ```
//! Replays are refused without a wall clock. Within a session (one process of the sender) no counter counts twice, and a frame that
//! was held back for longer than [`LATEST`] is stale. If for [`JUMPED`] nothing but stale frames comes, equally late, one after the other and
//! all of them new, the sender's clock has stood still (a virtual machine was paused), and what is quickest is learned anew: who holds back
//! everything for ever is a slow link, against which leases hold, and one frame on time ends the wait. A new session is believed only in a frame that bears the receiver's own session
//! in `yours`: nobody could have recorded that before. Anything else of an unknown session is a mere [`Opened::Greeting`]; the answer
//! to it (any frame) teaches the other side our session.

use std::collections::BTreeMap;
use std::time::Duration;

use ring::hmac;

use super::message::MAX_BYTES;

const MAGIC: &[u8; 4] = b"pgh1";
/// The same in front of what [`Seal::proof`] signs: no proof is a frame's tag, and the other way round.
const PROOF: &[u8; 4] = b"pghc";
/// Bytes of a tag.
pub const TAG: usize = 32;
/// The longest name of a member, in bytes.
pub const MAX_NAME: usize = 64;
/// The longest frame, in bytes.
pub const MAX_FRAME: usize = MAX_BYTES + 4 + 2 * (1 + MAX_NAME) + 4 * 8 + TAG;
/// The shortest key, in bytes: a guess must not be worth trying.
pub const MIN_KEY: usize = 16;
/// A frame that took so much longer than the quickest one of its session was held back by somebody.
pub const LATEST: Duration = Duration::from_secs(5);
/// So long nothing but stale frames comes, and so many at least, before the sender's clock is believed to have stood still.
pub const JUMPED: Duration = Duration::from_secs(3);
const ENOUGH: u32 = 8;
/// A pause between two of them that is longer begins that time anew: what was recorded is played at once, or does not go on.
const GAP: Duration = Duration::from_secs(2);
/// [`LATEST`] in milliseconds.
const LATEST_MILLIS: i64 = 5_000;
/// Frames may overtake each other by so many.
const WINDOW: u64 = 128;

/// Why a frame was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not a frame.
    Malformed,
    /// Another key, or somebody changed it.
    Forged,
    /// From nobody in the configuration, from ourselves, or for another one.
    Stranger,
    /// It was opened before, or is too old to tell.
    Replayed,
    /// It was held back.
    Stale,
}

/// How many frames were refused, for metrics and status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// See [`Refusal::Malformed`].
    pub malformed: u64,
    /// See [`Refusal::Forged`].
    pub forged: u64,
    /// See [`Refusal::Stranger`].
    pub strangers: u64,
    /// See [`Refusal::Replayed`].
    pub replayed: u64,
    /// See [`Refusal::Stale`].
    pub stale: u64,
}

/// What was in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened<'a> {
    /// New, and certainly of this peer's present process.
    Text {
        /// The sender's name.
        from: &'a str,
        /// Its session.
        session: u64,
        /// What it says.
        text: &'a [u8],
    },
    /// Authentic, but of a session that has not proved to be the present one: answer it with any frame, believe nothing.
    Greeting {
        /// The sender's name.
        from: &'a str,
    },
}

/// What is known of one peer's session.
#[derive(Debug, Default)]
struct Session {
    /// Its number; 0: none yet.
    id: u64,
    /// One heard in a greeting, to be answered.
    greeted: u64,
    /// The highest counter.
    newest: u64,
    /// Bit n: `newest - n` was opened.
    opened: u128,
    /// The least seen of (our time − its time), and when, in milliseconds: the quickest frame.
    floor: Option<(i64, u64)>,
    /// Frames that are all late.
    late: Option<Late>,
    /// Counter of frames to it.
    sent: u64,
}

/// Nothing but stale frames since a moment ago.
#[derive(Debug, Clone, Copy)]
struct Late {
    /// Since when, and when the newest came, in milliseconds.
    since: u64,
    last: u64,
    /// How many.
    count: u32,
    /// The least and the greatest of (our time − its time).
    least: i64,
    most: i64,
}

/// Seals and opens for one process.
#[derive(Debug)]
pub struct Seal {
    key: hmac::Key,
    me: String,
    session: u64,
    peers: BTreeMap<String, Session>,
    refusals: Refusals,
}

/// The fields of a frame, as they stand there.
struct Frame<'a> {
    from: &'a str,
    to: &'a str,
    session: u64,
    yours: u64,
    counter: u64,
    time: u64,
    text: &'a [u8],
}

impl Seal {
    /// For the member `me`, whose process has the random number `session` (not 0), among `peers`.
    ///
    /// # Errors
    /// The key is too short, or a name too long; the text is for people.
    pub fn new(key: &[u8], me: &str, session: u64, peers: &[&str]) -> Result<Self, String> {
        if key.len() < MIN_KEY {
            return Err(format!("the key has {} bytes, at least {MIN_KEY} are needed", key.len()));
        }
        if let Some(long) = peers.iter().chain([&me]).find(|name| name.is_empty() || name.len() > MAX_NAME) {
            return Err(format!("the name `{long}` must have 1 to {MAX_NAME} bytes"));
        }
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            me: me.to_owned(),
            session: session.max(1),
            peers: peers.iter().map(|name| ((*name).to_owned(), Session::default())).collect(),
            refusals: Refusals::default(),
        })
    }

    /// Shows the member `to` that the secret of that session of its is known here, without telling it: neither to who listens, nor to the
    /// others, nor to it if it does not know it.
    pub fn proof(&self, to: &str, session: i32, secret: &[u8]) -> [u8; TAG] {
        let tag = hmac::sign(&self.key, &proven(to, session, secret));
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Was this made by [`proof`](Self::proof) of this secret for this member? Takes as long for a wrong one as for the right one.
    pub fn proves(&self, session: i32, secret: &[u8], proof: &[u8; TAG]) -> bool {
        hmac::verify(&self.key, &proven(&self.me, session, secret), proof).is_ok()
    }

    /// What was refused so far.
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// A frame for `to`; `now` is the time since this process started. None: no such peer, or the text is too long.
    pub fn seal(&mut self, to: &str, text: &[u8], now: Duration) -> Option<Vec<u8>> {
        let peer = self.peers.get_mut(to)?;
        if text.len() > MAX_BYTES {
            return None;
        }
        peer.sent += 1;
        let yours = if peer.greeted == 0 { peer.id } else { peer.greeted };
        let mut frame = Vec::with_capacity(text.len() + 256);
        frame.extend_from_slice(MAGIC);
        for name in [self.me.as_str(), to] {
            frame.push(u8::try_from(name.len()).expect("checked by new"));
            frame.extend_from_slice(name.as_bytes());
        }
        for number in [self.session, yours, peer.sent, millis(now)] {
            frame.extend_from_slice(&number.to_be_bytes());
        }
        frame.extend_from_slice(text);
        let tag = hmac::sign(&self.key, &frame);
        frame.extend_from_slice(tag.as_ref());
        Some(frame)
    }

    /// Opens what came from the network; `now` as for [`seal`](Self::seal).
    ///
    /// # Errors
    /// Why not; it is counted.
    pub fn open<'a>(&mut self, bytes: &'a [u8], now: Duration) -> Result<Opened<'a>, Refusal> {
        let opened = self.check(bytes, millis(now));
        if let Err(why) = &opened {
            let count = match why {
                Refusal::Malformed => &mut self.refusals.malformed,
                Refusal::Forged => &mut self.refusals.forged,
                Refusal::Stranger => &mut self.refusals.strangers,
                Refusal::Replayed => &mut self.refusals.replayed,
                Refusal::Stale => &mut self.refusals.stale,
            };
            *count += 1;
        }
        opened
    }

    fn check<'a>(&mut self, bytes: &'a [u8], now: u64) -> Result<Opened<'a>, Refusal> {
        if bytes.len() > MAX_FRAME || !bytes.starts_with(MAGIC) {
            return Err(Refusal::Malformed);
        }
        let (signed, tag) = bytes.len().checked_sub(TAG).map(|at| bytes.split_at(at)).ok_or(Refusal::Malformed)?;
        hmac::verify(&self.key, signed, tag).map_err(|_| Refusal::Forged)?;
        let frame = parse(&signed[MAGIC.len()..]).ok_or(Refusal::Malformed)?;
        if frame.to != self.me || frame.session == 0 {
            return Err(Refusal::Stranger);
        }
        let peer = self.peers.get_mut(frame.from).ok_or(Refusal::Stranger)?;
        if frame.session != peer.id {
            if frame.yours != self.session {
                peer.greeted = frame.session;
                return Ok(Opened::Greeting { from: frame.from });
            }
            let sent = peer.sent;
            *peer = Session { id: frame.session, sent, ..Session::default() };
        }
        peer.accept(frame.counter, frame.time, now)?;
        peer.greeted = 0;
        Ok(Opened::Text { from: frame.from, session: frame.session, text: frame.text })
    }
}

impl Session {
    fn accept(&mut self, counter: u64, time: u64, now: u64) -> Result<(), Refusal> {
        let behind = self.newest.saturating_sub(counter);
        let newer = counter > self.newest;
        if counter == 0 || (counter <= self.newest && (behind >= WINDOW || self.opened & (1 << behind) != 0)) {
            return Err(Refusal::Replayed);
        }
        let offset = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(i64::try_from(time).unwrap_or(i64::MAX));
        // Clocks run apart: what was quickest an hour ago says less now.
        let floor = self.floor.map_or(offset, |(floor, at)| {
            floor.saturating_add(i64::try_from(now.saturating_sub(at) / 20).unwrap_or(i64::MAX))
        });
        // Refused or not, it never counts again.
        if newer {
            let by = counter - self.newest;
            self.opened = if by >= WINDOW { 0 } else { self.opened << by };
            self.newest = counter;
        }
        self.opened |= 1 << (self.newest - counter);
        if offset.saturating_sub(floor) > LATEST_MILLIS {
            // What was overtaken proves nothing in either way.
            let least = newer.then(|| self.stood_still(offset, now)).flatten().ok_or(Refusal::Stale)?;
            (self.floor, self.late) = (Some((least, now)), None);
            return Ok(());
        }
        self.late = None;
        if offset <= floor {
            self.floor = Some((offset, now));
        }
        Ok(())
    }

    /// One more frame that is late, and newer than all before; if its sender's clock has stood still: the quickest of them.
    fn stood_still(&mut self, offset: i64, now: u64) -> Option<i64> {
        let begun = Late { since: now, last: now, count: 0, least: offset, most: offset };
        let late = self.late.filter(|late| now.saturating_sub(late.last) <= millis(GAP)).unwrap_or(begun);
        let (least, most) = (late.least.min(offset), late.most.max(offset));
        // Of different lateness: they come out of a queue.
        let late = if most.saturating_sub(least) > LATEST_MILLIS { begun } else { Late { least, most, ..late } };
        let late = Late { last: now, count: late.count.saturating_add(1), ..late };
        self.late = Some(late);
        (late.count >= ENOUGH && now.saturating_sub(late.since) >= millis(JUMPED)).then_some(late.least)
    }
}

fn proven(to: &str, session: i32, secret: &[u8]) -> Vec<u8> {
    let length = u8::try_from(to.len()).unwrap_or(u8::MAX).to_be_bytes();
    [&PROOF[..], &length, to.as_bytes(), &session.to_be_bytes(), secret].concat()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn parse(mut rest: &[u8]) -> Option<Frame<'_>> {
    let (from, to) = (name(&mut rest)?, name(&mut rest)?);
    let mut number = || {
        let (field, left) = rest.split_first_chunk::<8>()?;
        rest = left;
        Some(u64::from_be_bytes(*field))
    };
    let (session, yours, counter, time) = (number()?, number()?, number()?, number()?);
    Some(Frame { from, to, session, yours, counter, time, text: rest })
}

fn name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (&length, left) = rest.split_first()?;
    let (name, left) = left.split_at_checked(usize::from(length))?;
    *rest = left;
    std::str::from_utf8(name).ok()
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
