//! Server connections: logging in, what a server owes, what it has been told, and the pools that lend them.
//! Layer 3: must not know sessions, routing or the control plane.

mod carried;
mod expect;

pub use carried::{Carried, set as set_statement, setup};
pub use expect::{Expect, Expected, Fate, Undo, Unexpected};
