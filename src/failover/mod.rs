//! Replacing a primary: a pure [`engine`] that decides, and a [`runner`] on the control thread that does the I/O. What it decides goes to
//! `health` as a `cluster::Ruling`, which publishes it. Must not touch sessions, nor publish views itself.

pub mod command;
pub mod conninfo;
pub mod engine;
pub mod journal;
pub mod runner;
