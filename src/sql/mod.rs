//! Text to [`Facts`]: lexer, fingerprint, classification, verdict cache. Layer 0: knows no servers, does no I/O.

mod facts;
mod fingerprint;
pub mod lexer;
mod siphash;

pub use facts::{Effect, Facts, Fingerprint, Flags, Isolation, Kind, LexMode, Modes, Name};
pub use fingerprint::{Scan, fingerprint};
