//! The administration port of the real binary, in front of real servers: pgpool-II's own programs beside a real pgpool-II, pgherd's own
//! client, hostile clients, reloads under load.

mod common;

#[path = "pcp/group.rs"]
mod group;
#[path = "pcp/hostile.rs"]
mod hostile;
#[path = "pcp/impostor.rs"]
mod impostor;
#[path = "pcp/orders.rs"]
mod orders;
#[path = "pcp/own.rs"]
mod own;
#[path = "pcp/passed.rs"]
mod passed;
#[path = "pcp/recovery.rs"]
mod recovery;
#[path = "pcp/reload.rs"]
mod reload;
#[path = "pcp/stock.rs"]
mod stock;
#[path = "pcp/stops.rs"]
mod stops;
#[path = "pcp/strays.rs"]
mod strays;
#[path = "pcp/together.rs"]
mod together;
#[path = "pcp/told.rs"]
mod told;
#[path = "pcp/world.rs"]
mod world;
