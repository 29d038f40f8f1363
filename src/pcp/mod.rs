//! The administration port: pgpool-II's PCP protocol, as the `pcp_*` programs of its packages speak it, and what pgherd adds for its own
//! client. Layer 5; runs on the control thread. Must not decide about nodes: orders go to `failover`, which may refuse them.
//!
//! ```text
//! bytes → frame → engine (login, who may ask) → request → server → House (what app lends) → nodes, reply → bytes
//! ```
//!
//! A process of pgpool-II is a *session* here: what the programs call a pid is the number that the session's client has for cancels,
//! above 4 194 304, so that it is nobody's process (HA H25).

pub mod admins;
mod answer;
pub mod engine;
pub mod frame;
mod group;
mod guests;
mod house;
pub mod lockout;
mod nodes;
mod ours;
mod own;
mod partners;
mod processes;
mod reloaded;
mod reply;
pub mod request;
mod server;

pub use admins::Admins;
pub use group::Asked;
pub use house::House;
pub use own::{MOST_EVENTS, OWN, Own, PROGRESS, Which};
pub use reloaded::Reloaded;
pub use server::{Parts, serve};
