//! When what a standby has received was written, by our own clock (HA H14). Pure; must not trust another host's clock further than two
//! readings of it agree with ours.
//!
//! A WAL receiver says: up to here all came by messages that are not newer than `at`, by my clock. That moment by our clock is told by the
//! standby's clock as it was read with two probes, one before and one behind: a clock that runs wrong by less than [`DRIFT`], or was set once
//! meanwhile, makes the moment later than the truth and never earlier.

use std::time::{Duration, Instant};

use super::choice::Seen;
use crate::cluster::{Role, Timeline, Written};

/// A clock that is being corrected runs wrong by 1 / 2000 at the most; this is its share that is allowed for.
const DRIFT: u32 = 50;
/// A node that was not heard of for longer may have been made anew meanwhile: what it had before says nothing of what it has.
const GAP: Duration = Duration::from_secs(30);

/// What is known after an answer, given what was known before it and the answer before.
pub(super) fn learn(known: Option<Written>, before: Option<&Seen>, seen: &Seen) -> Option<Written> {
    let reading = &seen.reading;
    let Some(receipt) = reading.receipt.filter(|_| reading.timeline > Timeline(0)) else {
        // Nothing has come since, or it was promoted: what was known of what it had is still so.
        let lately = before.is_some_and(|before| seen.answered.saturating_duration_since(before.answered) <= GAP);
        let same = |known: &Written| match reading.role {
            Role::Primary => lately,
            _ => reading.received == Some(known.lsn),
        };
        return known.filter(same);
    };
    let by = before.map_or(seen.answered, |before| moment(receipt.at, before).max(moment(receipt.at, seen)));
    let new = Written { timeline: reading.timeline, lsn: receipt.flushed, by: by.min(seen.answered) };
    Some(match known {
        // The first answer about it stood nearest to it.
        Some(old) if (old.timeline, old.lsn) == (new.timeline, new.lsn) => old,
        _ => new,
    })
}

/// The latest moment at which the clock that this answer tells of can have shown `at`.
fn moment(at: i64, seen: &Seen) -> Instant {
    let between = Duration::from_micros(seen.reading.clock.abs_diff(at));
    if at <= seen.reading.clock {
        let certain = between - between / DRIFT;
        // A time that the clock never showed is no time.
        return seen.answered.checked_sub(certain).unwrap_or(seen.answered);
    }
    seen.answered.checked_add(between + between / DRIFT).unwrap_or(seen.answered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Lsn;
    use crate::health::engine::tests::standby_reading;
    use crate::health::reading::Receipt;

    const SECOND: i64 = 1_000_000;
    const MS: Duration = Duration::from_millis(1);

    /// An answer at so many milliseconds, of a clock that shows `clock`, about a message at `at`.
    fn seen(base: Instant, ms: u32, clock: i64, flushed: u64, at: Option<i64>) -> Seen {
        let mut reading = standby_reading(1, flushed);
        reading.clock = clock;
        reading.received = Some(Lsn(flushed));
        reading.receipt = at.map(|at| Receipt { flushed: Lsn(flushed), at });
        Seen { asked: base + MS * (ms - 5), answered: base + MS * ms, reading }
    }

    #[test]
    fn h14_the_moment_of_the_last_message_is_told_by_our_clock_and_not_too_early() {
        let base = crate::support::clock::now();
        // Its clock is ten seconds ahead of ours.
        let first = seen(base, 1_000, 11 * SECOND, 100, Some(10_900_000));
        let second = seen(base, 2_000, 12 * SECOND, 200, Some(11_400_000));
        let told = learn(None, Some(&first), &second).expect("known");
        assert_eq!((told.lsn, told.timeline), (Lsn(200), Timeline(1)));
        let late = told.by - (base + 1_400 * MS);
        assert!(late < 15 * MS, "{late:?}");
        // Without an answer before it the moment of this one is all that is certain.
        assert_eq!(learn(None, None, &second).expect("known").by, second.answered);
        // The same position again, asked later: what was known is as true, and earlier.
        let third = seen(base, 9_000, 19 * SECOND, 200, Some(18_900_000));
        assert_eq!(learn(Some(told), Some(&second), &third), Some(told));
    }

    #[test]
    fn h14_a_clock_that_was_set_makes_the_moment_later_never_earlier() {
        let base = crate::support::clock::now();
        let first = seen(base, 1_000, 11 * SECOND, 100, None);
        // The message came at 1.4 s; then the clock was set forward or back by five seconds.
        for clock in [17 * SECOND, 7 * SECOND] {
            let second = seen(base, 2_000, clock, 200, Some(11_400_000));
            let told = learn(None, Some(&first), &second).expect("known");
            assert!(told.by >= base + 1_400 * MS && told.by <= second.answered, "{clock}");
        }
        // Or before the message came.
        for step in [5 * SECOND, -5 * SECOND] {
            let second = seen(base, 2_000, 12 * SECOND + step, 200, Some(11_400_000 + step));
            let told = learn(None, Some(&first), &second).expect("known");
            assert!(told.by >= base + 1_400 * MS && told.by <= second.answered, "{step}");
        }
    }

    #[test]
    fn h14_without_a_receiver_it_holds_as_long_as_nothing_has_come() {
        let base = crate::support::clock::now();
        let (first, second) = (seen(base, 1_000, 0, 100, None), seen(base, 2_000, SECOND, 200, Some(SECOND / 2)));
        let told = learn(None, Some(&first), &second);
        let (same, more) = (seen(base, 3_000, 2 * SECOND, 200, None), seen(base, 3_000, 2 * SECOND, 208, None));
        assert_eq!(learn(told, Some(&second), &same), told);
        assert_eq!(learn(told, Some(&second), &more), None);
        let mut promoted = seen(base, 3_000, 2 * SECOND, 300, None);
        (promoted.reading.role, promoted.reading.received) = (Role::Primary, None);
        assert_eq!(learn(told, Some(&second), &promoted), told);
        // Not heard of for too long, it may be another server by now.
        promoted.answered = second.answered + GAP;
        assert_eq!(learn(told, Some(&second), &promoted), told);
        promoted.answered += MS;
        assert_eq!(learn(told, Some(&second), &promoted), None);
        assert_eq!(learn(told, None, &promoted), None);
    }
}
