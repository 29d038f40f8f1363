//! Online recovery: a node that is out is rebuilt from the primary while clients work, started, and attached once it streams. `engine` decides,
//! `runner` acts. Owner: the control thread. Must not promote, and never touches a node that is in use.

pub mod engine;
pub mod runner;
