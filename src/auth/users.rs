//! The file of users: one `name:secret` per line, in pool_passwd's forms or with SCRAM verifiers. Reading and checking
//! only; a line that is not understood is an error with its number, because its user could not log in silently.

use std::collections::HashMap;
use std::path::Path;

use super::client::Typical;
use super::file::FileError;
use super::md5::Md5Hash;
use super::scram::Verifier;
use super::secret::{Password, Stored};

/// Who may log in with what.
#[derive(Debug, Clone, Default)]
pub struct Users(HashMap<Box<str>, Stored>);

impl Users {
    /// Reads the file; the second value is a warning if others than its owner may read it.
    pub fn load(file: &Path) -> Result<(Self, Option<String>), FileError> {
        let (text, warning) = super::file::read(file)?;
        Ok((Self::parse(&text, file)?, warning))
    }

    /// Reads the text of a users file; `file` is for error messages.
    pub fn parse(text: &str, file: &Path) -> Result<Self, FileError> {
        let mut users: HashMap<Box<str>, Stored> = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |reason: String| FileError::Line { file: file.to_owned(), line: index + 1, reason };
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, secret)) = line.split_once(':').filter(|(name, _)| !name.is_empty()) else {
                return Err(wrong("expected name:password, name:md5… or name:SCRAM-SHA-256$…".into()));
            };
            let stored = stored(secret).map_err(wrong)?;
            if users.insert(name.into(), stored).is_some() {
                return Err(wrong(format!("user \"{name}\" has an entry above already")));
            }
        }
        Ok(Self(users))
    }

    /// The entry of a user.
    pub fn get(&self, user: &str) -> Option<&Stored> {
        self.0.get(user)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nobody?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What those who have no entry shall look like under method md5.
    pub fn typical(&self) -> Typical {
        let scram = self.0.values().filter(|stored| matches!(stored, Stored::Scram(_))).count();
        if scram * 2 < self.0.len() { Typical::Md5 } else { Typical::Scram }
    }
}

fn stored(secret: &str) -> Result<Stored, String> {
    const PLAIN: &str = "if it is a password as it stands, write TEXT before it";
    if let Some(text) = secret.strip_prefix("TEXT") {
        return plain(text);
    }
    if secret.starts_with("md5") {
        let hash = Md5Hash::parse(secret).map(Stored::Md5);
        return hash.ok_or_else(|| format!("begins with md5 and has not 32 hexadecimal digits behind it; {PLAIN}"));
    }
    if secret.starts_with("SCRAM-SHA-256$") {
        let verifier = Verifier::parse(secret).map(Stored::Scram);
        return verifier.ok_or_else(|| format!("is no SCRAM-SHA-256 verifier as in pg_authid.rolpassword; {PLAIN}"));
    }
    if secret.starts_with("AES") {
        return Err(format!("AES-encrypted passwords of pgpool-II are not supported; use a SCRAM verifier; {PLAIN}"));
    }
    plain(secret)
}

fn plain(text: &str) -> Result<Stored, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("the password is empty or holds a NUL".into());
    }
    Ok(Stored::Plain(Password::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Users, FileError> {
        Users::parse(text, Path::new("pool_passwd"))
    }

    #[test]
    fn r22_every_form_is_read() {
        let scram = postgres_protocol::password::scram_sha_256(b"x");
        let md5 = "md5c15f0ab43e3cd5b2a66e3d3be3e4a5d1";
        let text = format!("# comment\n\na:{md5}\nb:TEXTmd5no:t\r\nc:{scram}\nd:pass:word \ne f:x");
        let users = parse(&text).expect("valid");
        assert_eq!(users.len(), 5);
        assert_eq!(users.get("a"), Md5Hash::parse(md5).map(Stored::Md5).as_ref());
        assert_eq!(users.get("b"), Some(&Stored::Plain(Password::new("md5no:t"))));
        assert_eq!(users.get("c"), Verifier::parse(&scram).map(Stored::Scram).as_ref());
        assert_eq!(users.get("d"), Some(&Stored::Plain(Password::new("pass:word "))));
        assert!(users.get("e f").is_some() && users.get("x").is_none());
    }

    #[test]
    fn r22_a_wrong_line_is_named() {
        for (text, line, word) in [
            ("a:b\nnocolon", 2, "expected"),
            (":x", 1, "expected"),
            ("a:", 1, "empty"),
            ("a:TEXT", 1, "empty"),
            ("a:md5123", 1, "TEXT"),
            ("a:SCRAM-SHA-256$4096:x$y:z", 1, "verifier"),
            ("\na:AESabc=", 2, "AES"),
            ("a:b\na:c", 2, "above"),
        ] {
            let error = parse(text).expect_err(text);
            let told = error.to_string();
            assert!(told.starts_with(&format!("pool_passwd:{line}: ")) && told.contains(word), "{told}");
        }
    }

    proptest! {
        #[test]
        fn r22_no_file_panics(text in "(\\PC|\n|:|md5|TEXT|SCRAM-SHA-256\\$|AES){0,60}") {
            let _ = parse(&text);
        }
    }
}
