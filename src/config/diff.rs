//! What each parameter came to. Values only.

/// The value of every parameter that is in force, by its key.
#[derive(Debug, Clone, Default)]
pub struct Effective(pub(super) Vec<()>);
