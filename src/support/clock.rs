//! The only place that asks the operating system for the time. Engines take `now` as an argument instead.

use std::sync::OnceLock;
pub use std::time::{Duration, Instant, SystemTime};

/// The present, on the monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// The present, on a clock that goes on while the machine sleeps (CLOCK_BOOTTIME): for leases. Compare it with nothing but itself.
pub fn boot() -> Instant {
    let (begun, slept) = *BOOT.get_or_init(|| (Instant::now(), since_boot()));
    begun + since_boot().saturating_sub(slept)
}

/// The same as a number, for cells that threads share; never 0, nor `u64::MAX`.
pub fn boot_nanos() -> u64 {
    nanos_of(boot())
}

/// A time of [`boot`] as a number.
pub fn nanos_of(boot: Instant) -> u64 {
    let (begun, _) = *BOOT.get_or_init(|| (Instant::now(), since_boot()));
    u64::try_from(boot.saturating_duration_since(begun).as_nanos()).unwrap_or(u64::MAX - 2).saturating_add(1)
}

/// When it was asked first, on both clocks.
static BOOT: OnceLock<(Instant, Duration)> = OnceLock::new();

fn since_boot() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has it");
    Duration::new(u64::try_from(time.tv_sec()).unwrap_or(0), u32::try_from(time.tv_nsec()).unwrap_or(0))
}

/// The present, on the wall clock: for people and logs, never for decisions.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A time of the wall clock as people read it, in UTC: `2026-11-21 00:10:40`.
pub fn stamp(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Whole milliseconds, for counters and logs.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Year, month and day so many days after 1970-01-01, by eras of 400 years that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_219_840, "2026-11-21 00:10:40"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
