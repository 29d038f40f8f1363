//! Logins against real PostgreSQL, in both directions: pgherd's login to a server by every method and over TLS, and
//! libpq's login to pgherd's front door, whose ClientKey then opens the server (SESSIONS R22).

#[path = "login/client.rs"]
mod client;
#[path = "login/server.rs"]
mod server;
#[path = "login/tls.rs"]
mod tls;
#[path = "login/world.rs"]
mod world;
