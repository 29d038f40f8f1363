//! A text that must not be printed, and the file that it comes from. Must not implement `Display`, and `Debug` must
//! not show it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A password or key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Why a secret's file is not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) what: String,
    pub(super) right: &'static str,
}

/// The most that is read of a secret's file.
const LIMIT: u64 = 8 * 1024;

/// The first line of a file that only its owner can read.
pub(super) fn read(path: &Path) -> Result<Secret, Refusal> {
    let refuse = |what: String, right| Refusal { what, right };
    let io = |error: std::io::Error| refuse(error.to_string(), "the file holds the secret in its first line");
    let file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(refuse("not a file".to_owned(), "the file holds the secret in its first line"));
    }
    // Looked at on the open file, so that it cannot be changed for another one in between.
    if meta.permissions().mode() & 0o077 != 0 {
        let mode = meta.permissions().mode() & 0o777;
        return Err(refuse(format!("others than its owner may use it (mode {mode:04o})"), "chmod 600 it"));
    }
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text).map_err(io)?;
    match text.lines().next().map(str::trim_end) {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(refuse("its first line is empty".to_owned(), "the file holds the secret in its first line")),
    }
}
