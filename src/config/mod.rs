//! Configuration: the parameter table, the file with its spans, and the validated [`Settings`] made of both.
//!
//! Layer 1, owned by whoever starts or reloads pgherd. Nothing here is global: settings are handed down by value.

mod diff;
mod secret;
mod settings;

pub use secret::Secret;
pub use settings::*;
