//! Who may use the administration port: the file of users in the form of pcp.conf, and their answers to the challenge. Reading and
//! checking only; must not keep a password in clear.

use std::collections::HashMap;
use std::path::Path;

use crate::auth::{FileError, Md5Hash, file, md5_digits};

/// pgpool-II's bound on a name.
pub const LONGEST_NAME: usize = 127;

/// Names and the digests of their passwords.
#[derive(Clone, Default)]
pub struct Admins(HashMap<String, String>);

impl std::fmt::Debug for Admins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admins({})", self.0.len())
    }
}

impl Admins {
    /// Reads the file; the second value is a warning if others than its owner may read it.
    ///
    /// # Errors
    /// It cannot be read, or a line is wrong.
    pub fn load(path: &Path) -> Result<(Self, Option<String>), FileError> {
        let (text, warning) = file::read(path)?;
        Ok((Self::parse(&text, path)?, warning))
    }

    /// Reads the text of such a file; `file` is for error messages.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str, file: &Path) -> Result<Self, FileError> {
        let mut all = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let wrong =
                |reason: &str| FileError::Line { file: file.to_owned(), line: index + 1, reason: reason.to_owned() };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, digest) = line.split_once(':').ok_or_else(|| wrong("expected name:md5"))?;
            if name.is_empty() || name.len() > LONGEST_NAME {
                return Err(wrong("a name has 1 to 127 bytes"));
            }
            if digest.len() != 32 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong("expected the 32 digits that pg_md5 prints for a password"));
            }
            if all.insert(name.to_owned(), digest.to_ascii_lowercase()).is_some() {
                return Err(wrong("this name has an entry above already"));
            }
        }
        Ok(Self(all))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there nobody?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is that the answer of `user` to the challenge? Takes as long for a name that is unknown.
    pub fn verify(&self, user: &str, digest: &[u8], salt: [u8; 4]) -> bool {
        let known = self.0.get(user);
        let stored = known.map_or("00000000000000000000000000000000", String::as_str);
        let hash = Md5Hash::of_password(stored.as_bytes(), user);
        hash.verify(&[b"md5", digest].concat(), salt) && known.is_some()
    }
}

/// What a client with that password answers.
pub fn respond(user: &str, password: &str, salt: [u8; 4]) -> String {
    let stored = md5_digits(&[password.as_bytes()]);
    let first = md5_digits(&[stored.as_bytes(), user.as_bytes()]);
    md5_digits(&[first.as_bytes(), &salt])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_right_password_is_known() {
        // `pg_md5 secret`
        let text =
            "# administrators\n\npcpu:5ebe2294ecd0e0f08eab7690d2a6ee69\nother:5EBE2294ECD0E0F08EAB7690D2A6EE69\n";
        let admins = Admins::parse(text, Path::new("pcp.conf")).expect("right");
        let salt = *b"\0\xff42";
        for user in ["pcpu", "other"] {
            assert!(admins.verify(user, respond(user, "secret", salt).as_bytes(), salt));
            assert!(!admins.verify(user, respond(user, "secret", *b"1234").as_bytes(), salt));
            assert!(!admins.verify(user, respond(user, "Secret", salt).as_bytes(), salt));
        }
        assert!(!admins.verify("pcpu", respond("other", "secret", salt).as_bytes(), salt));
        assert!(!admins.verify("nobody", respond("nobody", "secret", salt).as_bytes(), salt));
        assert!(!admins.verify("pcpu", b"", salt));
        // Nobody knows what would lead to the zeros that stand for an unknown name.
        let zeros = md5_digits(&[b"00000000000000000000000000000000", b"nobody"]);
        assert!(!admins.verify("nobody", md5_digits(&[zeros.as_bytes(), &salt]).as_bytes(), salt));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let refused = |text: &str| Admins::parse(text, Path::new("pcp.conf")).expect_err(text).to_string();
        let digest = "5ebe2294ecd0e0f08eab7690d2a6ee69";
        assert!(refused("\npcpu").starts_with("pcp.conf:2: expected name:md5"));
        assert!(refused("pcpu:secret").contains("pg_md5"));
        assert!(refused(&format!(":{digest}")).contains("a name has"));
        assert!(refused(&format!("{}:{digest}", "n".repeat(128))).contains("a name has"));
        assert!(refused(&format!("a:{digest}\na:{digest}")).contains("above already"));
        assert!(refused("a:zzbe2294ecd0e0f08eab7690d2a6ee69").contains("32 digits"));
    }
}
