//! Configuration: the parameter table, the file with its spans, and the validated [`Settings`] made of both.
//!
//! Layer 1, owned by whoever starts or reloads pgherd. Nothing here is global: settings are handed down by value.
//!
//! ```text
//! text → raw (TOML with spans; each value fits its row) → build (values fit one another) → Settings
//!          ↑ rows: one per parameter                        ↓
//!        sample, hints                                      diff → what a reload changes
//! ```

mod build;
mod build_ha;
mod build_nodes;
mod build_routing;
mod diff;
mod hints;
mod problem;
mod raw;
mod read;
mod rows;
mod sample;
mod secret;
mod settings;
mod status;
mod table;
mod units;
mod value;
mod words;

use std::io::Read;
use std::path::Path;

pub use diff::Change;
pub use problem::{Error, Problem};
pub use sample::sample;
pub use secret::Secret;
pub use settings::*;
pub use status::StatusRow;
pub use table::{Kind, Presence, Reload, Row, Section, all};

/// The largest file that is read, in bytes; a hundred nodes need a tenth of it.
const LIMIT: u64 = 1024 * 1024;

impl Settings {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// All that is wrong with it, each with its place. A file over 1 MiB is refused.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let mut text = String::new();
        let refuse = |message: String| Error::new(path, "", vec![Problem::whole(message)]);
        let file = std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?;
        // One byte more than allowed tells a file that is too long from one that just fits.
        file.take(LIMIT + 1).read_to_string(&mut text).map_err(|error| refuse(error.to_string()))?;
        if text.len() as u64 > LIMIT {
            return Err(refuse("longer than 1 MiB: hardly a configuration file".to_owned()));
        }
        // Absolute, for a daemon may leave the folder that it was started in.
        let folder = std::path::absolute(path).map_err(|error| refuse(error.to_string()))?;
        Self::parse_in(&text, path, folder.parent().unwrap_or(Path::new("/")))
    }

    /// Checks a text as if it were the file at `path`: relative paths start in its folder.
    ///
    /// # Errors
    /// All that is wrong with it, each with its place.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        Self::parse_in(text, path, path.parent().unwrap_or(Path::new("")))
    }

    fn parse_in(text: &str, path: &Path, folder: &Path) -> Result<Self, Error> {
        let (root, problems) = raw::read(text);
        if !problems.is_empty() {
            return Err(Error::new(path, text, problems));
        }
        build::settings(&root, folder).map_err(|problems| Error::new(path, text, problems))
    }

    /// What differs between two files, and what each change needs. A secret that changed inside its file counts.
    pub fn diff(old: &Self, new: &Self) -> Vec<Change> {
        let mut changes = diff::Effective::changes(&old.effective, &new.effective);
        let pairs = [
            ("monitor.password_file", old.monitor.password != new.monitor.password),
            ("recovery.password_file", old.recovery.password != new.recovery.password),
        ];
        for (key, changed) in pairs {
            if changed && !changes.iter().any(|change| change.key == key) {
                let (old, new) = ("(contents)".to_owned(), "(changed)".to_owned());
                changes.push(Change { key: key.to_owned(), old, new, class: Reload::Live });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests;
