//! Files of passwords: how they are read, and what is wrong with one. Must not know what their lines mean.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The longest file that is read, in bytes: some hundred thousand users.
const LONGEST: u64 = 16 << 20;

/// What is wrong with a file of passwords.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// A line is wrong.
    #[error("{}:{line}: {reason}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What, and what would be right.
        reason: String,
    },
}

/// The text of a file; the second value is a warning if others than its owner may read it.
///
/// # Errors
/// It cannot be read, is longer than 16 MiB, or is no UTF-8.
pub fn read(file: &Path) -> Result<(String, Option<String>), FileError> {
    let unreadable = |reason: String| FileError::Unreadable { file: file.to_owned(), reason };
    let opened = File::open(file).map_err(|error| unreadable(error.to_string()))?;
    let mode = opened.metadata().map_err(|error| unreadable(error.to_string()))?.permissions().mode() & 0o777;
    let mut bytes = Vec::new();
    opened.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > LONGEST {
        return Err(unreadable(format!("is longer than {LONGEST} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable("holds text that is not UTF-8".to_owned()))?;
    let warning = (mode & 0o077 != 0)
        .then(|| format!("{}: others may read this file (mode {mode:04o}); it should be 0600", file.display()));
    Ok((text, warning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    #[test]
    fn r22_a_file_that_others_may_read_is_warned_of_and_one_that_is_none_refused() {
        let path = std::env::temp_dir().join(format!("pgherd-passwords-{}", std::process::id()));
        fs::write(&path, "a:b\n").expect("written");
        for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
            let (text, warning) = read(&path).expect("readable");
            assert_eq!((text.as_str(), warning.is_some()), ("a:b\n", warned), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
        fs::write(&path, b"a:\xFF\n").expect("written");
        assert!(read(&path).expect_err("no text").to_string().contains("UTF-8"));
        File::create(&path).and_then(|file| file.set_len(LONGEST + 1)).expect("made");
        assert!(read(&path).expect_err("too long").to_string().contains("longer"));
        fs::remove_file(&path).expect("removed");
        assert!(matches!(read(&path), Err(FileError::Unreadable { .. })));
    }
}
