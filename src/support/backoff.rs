//! Pauses between attempts: twice as long each time up to a bound, scattered so that many who failed together do not
//! come back together. Pure: the caller waits.

use std::time::Duration;

/// The pauses of one series of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    /// Begins with `first` and grows to `longest`. `seed` tells one series from another; any number will do.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, next: first, random: seed }
    }

    /// The pause before the next attempt: between half and all of the present length.
    pub fn pause(&mut self) -> Duration {
        let full = self.next.min(self.longest);
        self.next = full.saturating_mul(2).min(self.longest);
        full.mul_f64(0.5 + part(&mut self.random) / 2.0)
    }

    /// An attempt succeeded: the next series begins anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The next of a series of numbers from 0 to 1; `state` is any number at first, and tells one series from another.
pub fn part(state: &mut u64) -> f64 {
    // splitmix64: neighbouring seeds give unrelated numbers from the first one on.
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_are_scattered() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        for seed in 0..1_000 {
            let mut backoff = Backoff::new(first, longest, seed);
            for full in [100, 200, 400, 800, 1_000, 1_000] {
                let pause = backoff.pause();
                let full = Duration::from_millis(full);
                assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            }
            backoff.reset();
            assert!(backoff.pause() <= first);
        }
        let pause = |seed| Backoff::new(first, longest, seed).pause();
        let different: std::collections::HashSet<_> = (0..1_000).map(pause).collect();
        assert!(different.len() > 900, "{}", different.len());
    }
}
