//! Server connections: logging in, what a server owes, what it has been told, and the pools that lend them.
//! Layer 3: must not know sessions, routing or the control plane.

mod carried;
mod expect;
mod hub;
pub mod login;
mod pool;
mod queue;
mod reported;
mod server;
mod shared;
mod statements;

pub use carried::{Carried, set as set_statement, set_config, setup};
pub use expect::{Expect, Expected, Fate, Made, Undo, Unexpected};
pub use hub::{Hub, Mail, OpenError, Opener, Opening, Post, Sizes, Times};
pub use login::{KeyMaker, LoggedIn, LoginError, LoginFault, LoginParams, connect};
pub use pool::{Pool, Ticket};
pub use reported::{Interner, Reported};
pub use server::{DetachedServer, Identity, Leftovers, Lost, Outcome, Server};
pub use shared::{Full, Permit, Place, PoolKey, PoolRow, Registry, Share, SharedNode, SharedPool};
pub use statements::{StatementKey, StatementName, Statements, is_statement_name, statement_name};
