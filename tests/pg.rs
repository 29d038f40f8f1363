//! The real binary between real clients and a real primary with two standbys.
//!
//! With `PGHERD_TEST_DIRECT=1` the same tests run straight against PostgreSQL; they must pass there, too.

mod common;

#[path = "pg/basics.rs"]
mod basics;
#[path = "pg/cancel.rs"]
mod cancel;
#[path = "pg/hostile.rs"]
mod hostile;
#[path = "pg/large.rs"]
mod large;
#[path = "pg/load.rs"]
mod load;
#[path = "pg/pools.rs"]
mod pools;
#[path = "pg/protocol.rs"]
mod protocol;
#[path = "pg/protocol_more.rs"]
mod protocol_more;
#[path = "pg/random_protocol.rs"]
mod random_protocol;
#[path = "pg/renewed.rs"]
mod renewed;
#[path = "pg/replication.rs"]
mod replication;
#[path = "pg/routing.rs"]
mod routing;
#[path = "pg/service.rs"]
mod service;
#[path = "pg/show.rs"]
mod show;
#[path = "pg/vanish.rs"]
mod vanish;
#[path = "pg/web.rs"]
mod web;
