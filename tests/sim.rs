//! The failover engine in a simulated cluster: servers with write-ahead logs, timelines and locks, clients that write through a
//! proxy, and faults at random moments. Owned by `make test` (2 000 histories) and `make sim` (100 000).
//!
//! A history is made by its seed alone: `SIM_SEED=17 cargo test --test sim -- --nocapture` tells number 17 step by step.
//! `SIM_RUNS=100000` runs more, `SIM_FIRST=…` starts elsewhere. Each rule is in a file of its own in `sim/`.

#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/h05_no_node_is_left_recruited.rs"]
mod h05_no_node_is_left_recruited;
#[path = "sim/h07_one_primary_per_timeline.rs"]
mod h07_one_primary_per_timeline;
#[path = "sim/h08_fenced_before_promoted.rs"]
mod h08_fenced_before_promoted;
#[path = "sim/h09_no_synchronous_row_is_lost.rs"]
mod h09_no_synchronous_row_is_lost;
#[path = "sim/h13_hooks_run_at_most_once.rs"]
mod h13_hooks_run_at_most_once;
#[path = "sim/h14_what_is_missed_is_missing.rs"]
mod h14_what_is_missed_is_missing;
#[path = "sim/h17_one_writer_per_epoch.rs"]
mod h17_one_writer_per_epoch;
#[path = "sim/jobs.rs"]
mod jobs;
#[path = "sim/proxy.rs"]
mod proxy;
#[path = "sim/server.rs"]
mod server;
#[path = "sim/watchdog/mod.rs"]
mod watchdog;
#[path = "sim/whole_when_faults_stop.rs"]
mod whole_when_faults_stop;
#[path = "sim/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use world::World;

/// Histories in `make test`.
const RUNS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn histories_of_faults_break_no_rule_and_end_well() {
    if let Some(seed) = number("SIM_SEED") {
        World::new(seed, true).run();
        return;
    }
    let (first, runs) = (number("SIM_FIRST").unwrap_or(1), number("SIM_RUNS").unwrap_or(RUNS));
    let (next, failed, begun) = (AtomicU64::new(first), Mutex::new(Vec::new()), Instant::now());
    let sum = Mutex::new(world::Tally::default());
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| World::new(seed, false).run())) {
                        Ok(tally) => sum.lock().expect("no panic inside").add(&tally),
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().cloned();
                            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                            failed.lock().expect("no panic inside").push((seed, text.unwrap_or_default()));
                        }
                    }
                }
            });
        }
    });
    std::panic::set_hook(quiet);
    println!(
        "seeds {first} to {}: {:?} each; {:?}",
        first + runs - 1,
        begun.elapsed() / u32::try_from(runs).expect("few"),
        sum.lock().expect("over")
    );
    let mut failed = failed.into_inner().expect("over");
    failed.sort();
    let list: String = failed
        .iter()
        .take(10)
        .map(|(seed, text)| format!("\n  SIM_SEED={seed}: {}", text.chars().take(160).collect::<String>()))
        .collect();
    assert!(failed.is_empty(), "{} of {runs} histories fail:{list}", failed.len());
    let sum = sum.into_inner().expect("over");
    assert!(
        sum.promotions > runs / 4 && sum.acknowledged > runs * 10 && sum.switchovers > 0 && sum.missed > 0,
        "too little happened: {sum:?}"
    );
}
