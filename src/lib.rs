//! pgherd: a proxy between applications and a herd of PostgreSQL servers.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod app;
pub mod auth;
pub mod backend;
pub mod cache;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod failover;
pub mod health;
pub mod metrics;
pub mod net;
pub mod pcp;
pub mod recovery;
pub mod routing;
pub mod session;
pub mod sql;
pub mod support;
pub mod watchdog;
pub mod web;
pub mod wire;
