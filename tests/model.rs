//! The model test: clients with random programs share a small pool of pgherd, and each program alone runs straight on PostgreSQL; every
//! answer must be the same. `MODEL_SEED` repeats one round, `MODEL_ROUNDS` says how many.

mod common;

#[path = "model/program.rs"]
mod program;
#[path = "model/run.rs"]
mod run;

use common::proxy::{Options, Proxy};
use common::{database, direct};
use program::{CLIENTS, SETUP_ROLES, setup};
use run::Round;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seeds() -> Vec<u64> {
    match number("MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("MODEL_ROUNDS").unwrap_or(6)).collect(),
    }
}

/// Runs every round with these settings of the pool; `pinning` clients may make what only one server connection has.
fn play(mode: &'static str, size: u32, pinning: usize) {
    if direct() {
        return;
    }
    let Some(cluster) = common::cluster() else { return };
    let pool = format!("max_pinned = {pinning}");
    let proxy = Proxy::start(cluster, &Options { mode, size, pool, ..Options::default() });
    let primary = cluster.primary();
    primary.psql("postgres", SETUP_ROLES).expect("roles");
    for seed in seeds() {
        let template = database(cluster, "model");
        primary.psql(&template, &setup()).expect("set up");
        let make = || common::database_like(cluster, "model", &template);
        let round = Round { seed, pinning, proxy: proxy.port(), direct: primary.port(), make: &make };
        round.play();
    }
}

#[test]
fn sessions_in_a_shared_pool_answer_as_if_alone() {
    // As many connections as sessions may be pinned, and two for all the others.
    play("transaction", 5, 3);
}

#[test]
fn sessions_with_a_connection_each_answer_as_if_alone() {
    play("session", u32::try_from(CLIENTS).expect("few"), CLIENTS);
}
