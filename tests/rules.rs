//! The rules of the data path (SESSIONS R1–R20) on a real primary with two standbys; each test carries its rule's number.
//!
//! With `PGHERD_TEST_DIRECT=1` the tests that make sense there run straight against PostgreSQL, to check the tests.

mod common;

#[path = "rules/blocks.rs"]
mod blocks;
#[path = "rules/cancels.rs"]
mod cancels;
#[path = "rules/encodings.rs"]
mod encodings;
#[path = "rules/fresh.rs"]
mod fresh;
#[path = "rules/known.rs"]
mod known;
#[path = "rules/long.rs"]
mod long;
#[path = "rules/loss.rs"]
mod loss;
#[path = "rules/pins.rs"]
mod pins;
#[path = "rules/prepared.rs"]
mod prepared;
#[path = "rules/primary.rs"]
mod primary;
#[path = "rules/resets.rs"]
mod resets;
#[path = "rules/state.rs"]
mod state;
#[path = "rules/tools.rs"]
mod tools;
#[path = "rules/visible.rs"]
mod visible;
#[path = "rules/waiting.rs"]
mod waiting;
