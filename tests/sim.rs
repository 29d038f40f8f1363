//! The failover engine in a simulated cluster: servers with write-ahead logs, timelines and locks, clients that write through one
//! proxy alone or through two or three that must agree, and faults at random moments. Owned by `make test` (2 000 histories of one proxy,
//! 300 of partners) and `make sim` (100 000 of each).
//!
//! A history is made by its seed alone: `SIM_SEED=17 cargo test --test sim -- --nocapture partners` tells number 17 step by step.
//! `SIM_RUNS=100000` runs more, `SIM_FIRST=…` starts elsewhere. Each rule is in a file of its own in `sim/`.

#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/group.rs"]
mod group;
#[path = "sim/h01_no_write_begins_at_a_suspect.rs"]
mod h01_no_write_begins_at_a_suspect;
#[path = "sim/h02_no_promotion_while_a_standby_hears_it.rs"]
mod h02_no_promotion_while_a_standby_hears_it;
#[path = "sim/h03_a_majority_sees_it_dead.rs"]
mod h03_a_majority_sees_it_dead;
#[path = "sim/h04_held_and_written_down_before_promoted.rs"]
mod h04_held_and_written_down_before_promoted;
#[path = "sim/h05_no_node_is_left_recruited.rs"]
mod h05_no_node_is_left_recruited;
#[path = "sim/h06_the_furthest_is_promoted.rs"]
mod h06_the_furthest_is_promoted;
#[path = "sim/h07_one_primary_per_timeline.rs"]
mod h07_one_primary_per_timeline;
#[path = "sim/h08_fenced_before_promoted.rs"]
mod h08_fenced_before_promoted;
#[path = "sim/h09_no_synchronous_row_is_lost.rs"]
mod h09_no_synchronous_row_is_lost;
#[path = "sim/h10_diverged_is_never_served.rs"]
mod h10_diverged_is_never_served;
#[path = "sim/h12_a_switchover_loses_nothing.rs"]
mod h12_a_switchover_loses_nothing;
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
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "sim/server.rs"]
mod server;
#[path = "sim/watchdog/mod.rs"]
mod watchdog;
#[path = "sim/whole_when_faults_stop.rs"]
mod whole_when_faults_stop;
#[path = "sim/world.rs"]
mod world;

use world::{Tally, World};

/// Histories in `make test`.
const RUNS: u64 = 2_000;
/// The same of partners.
const PARTNERS: u64 = 300;

/// As many histories as are wanted: how many there were, and what happened in them. None if one alone was told.
fn histories(name: &str, make: fn(u64, bool) -> World, runs: u64) -> Option<(u64, Tally)> {
    if let Some(seed) = seeds::number("SIM_SEED") {
        make(seed, true).run();
        return None;
    }
    Some(seeds::run(name, runs, |seed| make(seed, false).run(), Tally::add))
}

#[test]
fn histories_of_faults_break_no_rule_and_end_well() {
    let Some((runs, sum)) = histories("alone", World::alone, RUNS) else { return };
    assert!(
        sum.promotions > runs / 4 && sum.acknowledged > runs * 10 && sum.switchovers > 0 && sum.missed > 0,
        "too little happened: {sum:?}"
    );
}

#[test]
fn histories_of_partners_break_no_rule_and_end_well() {
    let Some((runs, sum)) = histories("partners", World::partners, PARTNERS) else { return };
    let least = [sum.promotions, sum.proxy_deaths, sum.leaders, sum.deposed, sum.refused, sum.acknowledged / 100];
    let some = [sum.withdrawn, sum.switchovers, sum.missed];
    assert!(
        least.into_iter().all(|of| of > runs / 4) && some.into_iter().all(|of| of > 0),
        "too little happened: {sum:?}"
    );
}
