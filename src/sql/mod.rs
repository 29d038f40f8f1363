//! Text to [`Facts`]: lexer, fingerprint, classification, verdict cache. Layer 0: knows no servers, does no I/O.
//!
//! [`fingerprint()`] is the first look, for every statement; [`analyze()`] is the long one, for texts whose facts are not in
//! the thread's [`Cache`] yet. The lexer is the authority on safety: the parser may only narrow what it allows.

mod analyze;
mod builtins;
mod cache;
mod calls;
mod control;
mod draft;
mod eight;
mod facts;
mod fingerprint;
pub mod lexer;
mod parse;
mod recent;
mod settings;
mod shape;
mod siphash;
mod statement;
mod utility;

pub use analyze::{HELPER_STACK, HELPER_TEXT, INLINE_TEXT, analyze, analyze_each, analyze_lexer_only};
pub use cache::{Cache, Entry, VerdictKey};
pub use facts::{Effect, Facts, Fingerprint, Flags, Isolation, Kind, LexMode, Modes, Name, Verb, name_hash};
pub use fingerprint::{Scan, begins_now, fingerprint};
pub use recent::Recent;
pub use shape::without_literals;
