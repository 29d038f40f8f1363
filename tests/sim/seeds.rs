//! Many histories, each made by its seed alone, on two threads; which of them fail is told at the end.

use std::cell::Cell;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Instant;

thread_local! {
    /// What fails on this thread is told at the end.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `SIM_RUNS` histories, or so many, from `SIM_FIRST` on: how many there were, and the sum of what they return.
pub(crate) fn run<T: Default + Debug + Send>(
    name: &str,
    runs: u64,
    one: impl Fn(u64) -> T + Sync,
    add: fn(&mut T, &T),
) -> (u64, T) {
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info)
            }
        }));
    });
    let (first, runs) = (number("SIM_FIRST").unwrap_or(1), number("SIM_RUNS").unwrap_or(runs));
    let (next, failed, sum) = (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(T::default()));
    let begun = Instant::now();
    let work = || {
        QUIET.set(true);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + runs {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| one(seed))) {
                Ok(tally) => add(&mut sum.lock().expect("no panic inside"), &tally),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    failed.lock().expect("no panic inside").push((seed, text.unwrap_or_default()));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let sum = sum.into_inner().expect("over");
    let each = begun.elapsed() / u32::try_from(runs).expect("few");
    println!("{name}: seeds {first} to {}, {each:?} each; {sum:?}", first + runs - 1);
    let mut failed = failed.into_inner().expect("over");
    failed.sort();
    let line =
        |(seed, text): &(u64, String)| format!("\n  SIM_SEED={seed}: {}", text.chars().take(240).collect::<String>());
    let list: String = failed.iter().take(10).map(line).collect();
    assert!(failed.is_empty(), "{name}: {} of {runs} histories fail:{list}", failed.len());
    (runs, sum)
}
