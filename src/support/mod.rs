//! Small things that everyone may use: the clock, back-off, bounded collections. Layer 0; five files at most.

pub mod backoff;
pub mod buffer;
pub mod clock;
pub mod command_line;
