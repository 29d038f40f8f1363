//! The watchdog's engine in a simulated group: members with clocks that are wrong, disks, links, servers with advisory locks, a kernel that
//! ends addresses, and faults at random moments. Owned by `make test` (25 histories of each group) and `make sim`.
//!
//! `SIM_GROUP=nodes SIM_SEED=17 cargo test --test sim watchdog -- --nocapture` tells one history. Each rule is in a file of its own.

mod consent_by_majority;
mod converges;
mod faults;
mod group;
mod links;
mod one_address;
mod one_leader;
mod servers;
mod takeover;
mod world;

use crate::seeds::{self, number};
use world::{Group, Tally, World};

/// Histories of each group in `make test`.
const RUNS: u64 = 25;

fn run(name: &str, group: Group, one: fn(World) -> Tally) -> Tally {
    if let Some(seed) = number("SIM_SEED") {
        let only = std::env::var("SIM_GROUP").ok();
        return if only.is_none_or(|only| only == name) {
            one(World::new(seed, group, true))
        } else {
            Tally::default()
        };
    }
    seeds::run(&format!("SIM_GROUP={name}"), RUNS, |seed| one(World::new(seed, group, false)), Tally::add).1
}

fn histories(name: &str, group: Group) {
    let sum = run(name, group, World::history);
    if number("SIM_SEED").is_none() {
        let runs = number("SIM_RUNS").unwrap_or(RUNS);
        assert!(
            sum.elections > runs * 2 && sum.consents > runs / 10 && sum.takes > runs * 2,
            "too little happened: {sum:?}"
        );
    }
}

#[test]
fn h16_pair_with_the_locks_of_three_servers() {
    histories("nodes", Group::PairNodes(3));
}

#[test]
fn h16_pair_with_the_locks_of_two_servers_and_a_trusted_one() {
    histories("tie", Group::PairNodes(2));
}

#[test]
fn h16_pair_with_a_witness() {
    histories("witness", Group::PairWitness);
}

#[test]
fn h16_pair_with_a_trusted_server() {
    histories("trusted", Group::PairTrusted);
}

#[test]
fn h16_three_voters() {
    histories("three", Group::Voters(3));
}

#[test]
fn h16_four_voters() {
    histories("four", Group::Voters(4));
}

#[test]
fn h16_five_voters() {
    histories("five", Group::Voters(5));
}

#[test]
fn s20_a_killed_active_is_replaced_in_time() {
    let groups = [("k-nodes", Group::PairNodes(3)), ("k-witness", Group::PairWitness), ("k-three", Group::Voters(3))];
    for (name, group) in groups {
        run(name, group, takeover::killed);
    }
}

#[test]
fn s29_a_vanished_active_is_replaced_in_time() {
    let groups = [
        ("v-nodes", Group::PairNodes(3)),
        ("v-tie", Group::PairNodes(2)),
        ("v-witness", Group::PairWitness),
        ("v-trusted", Group::PairTrusted),
        ("v-three", Group::Voters(3)),
    ];
    for (name, group) in groups {
        run(name, group, takeover::vanished);
        run(&format!("{name}-long"), group, takeover::vanished_with_a_long_lease);
    }
}

#[test]
fn h03_an_active_that_cannot_hold_the_address_is_replaced_in_time() {
    let groups = [
        ("r-nodes", Group::PairNodes(3)),
        ("r-witness", Group::PairWitness),
        ("r-trusted", Group::PairTrusted),
        ("r-three", Group::Voters(3)),
        ("r-four", Group::Voters(4)),
    ];
    for (name, group) in groups {
        run(name, group, takeover::refused);
    }
}

#[test]
fn h03_members_that_all_cannot_hold_the_address_take_turns_without_flapping() {
    let groups = [("e-nodes", Group::PairNodes(3)), ("e-witness", Group::PairWitness), ("e-three", Group::Voters(3))];
    for (name, group) in groups {
        run(name, group, takeover::refused_everywhere);
    }
}

#[test]
fn h13_a_partner_whose_disk_does_not_answer_holds_nothing_up() {
    let groups = [("d-nodes", Group::PairNodes(3)), ("d-trusted", Group::PairTrusted)];
    for (name, group) in groups {
        run(name, group, takeover::partner_is_stuck);
    }
}

#[test]
fn h13_a_leader_whose_disk_does_not_answer_hands_over() {
    let groups = [("l-nodes", Group::PairNodes(3)), ("l-witness", Group::PairWitness), ("l-three", Group::Voters(3))];
    for (name, group) in groups {
        run(name, group, takeover::leader_is_stuck);
    }
}

#[test]
fn s06_an_active_that_stops_in_order_is_replaced_at_once() {
    let groups = [("o-nodes", Group::PairNodes(3)), ("o-trusted", Group::PairTrusted), ("o-three", Group::Voters(3))];
    for (name, group) in groups {
        run(name, group, takeover::in_order);
    }
}
