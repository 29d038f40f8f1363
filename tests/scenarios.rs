//! Availability scenarios: real servers, the real binary and real clients on hosts of their own, real faults. `make test` runs those that
//! are not in `at_length`; `make scenarios` runs all.
//!
//! Each scenario has its own hosts and servers, for it breaks them; they take turns, so that timings mean something.

mod common;

#[path = "scenarios/address.rs"]
mod address;
#[path = "scenarios/at_length/mod.rs"]
mod at_length;
#[path = "scenarios/clients.rs"]
mod clients;
#[path = "scenarios/commands.rs"]
mod commands;
#[path = "scenarios/consent.rs"]
mod consent;
#[path = "scenarios/group.rs"]
mod group;
#[path = "scenarios/ledger.rs"]
mod ledger;
#[path = "scenarios/net.rs"]
mod net;
#[path = "scenarios/once.rs"]
mod once;
#[path = "scenarios/pair.rs"]
mod pair;
#[path = "scenarios/primary.rs"]
mod primary;
#[path = "scenarios/proxies.rs"]
mod proxies;
#[path = "scenarios/samples.rs"]
mod samples;
#[path = "scenarios/standby.rs"]
mod standby;
#[path = "scenarios/table.rs"]
mod table;
#[path = "scenarios/unable.rs"]
mod unable;
#[path = "scenarios/watch.rs"]
mod watch;
#[path = "scenarios/witness.rs"]
mod witness;
#[path = "scenarios/world.rs"]
mod world;
