//! PostgreSQL's md5 authentication: the stored hash and the answer to a challenge. Kept for old users only.

use std::fmt;

use md5::{Digest, Md5};

use super::scram::equal;

/// `md5` and 32 hexadecimal digits of MD5(password ‖ user).
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Hash(String);

impl Md5Hash {
    /// Reads the stored form; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("md5")?;
        let good = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| Self(format!("md5{}", digits.to_ascii_lowercase())))
    }

    /// The hash of a password; the user's name is its salt.
    pub fn of_password(password: &[u8], user: &str) -> Self {
        Self(hex(&[password, user.as_bytes()]))
    }

    /// Is this the hash of that password?
    pub fn matches(&self, password: &[u8], user: &str) -> bool {
        equal(self.0.as_bytes(), Self::of_password(password, user).0.as_bytes())
    }

    /// Is `answer` (a PasswordMessage's text) the right one to the challenge `salt`?
    pub fn verify(&self, answer: &[u8], salt: [u8; 4]) -> bool {
        equal(answer, md5_answer(self, salt).as_bytes())
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(***)")
    }
}

/// The answer to AuthenticationMD5Password.
pub fn md5_answer(hash: &Md5Hash, salt: [u8; 4]) -> String {
    hex(&[&hash.0.as_bytes()[3..], &salt])
}

/// MD5 over all parts, as 32 hexadecimal digits.
pub fn md5_digits(parts: &[&[u8]]) -> String {
    hex(parts).split_off(3)
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    let digest: [u8; 16] = hasher.finalize().into();
    let mut text = String::with_capacity(35);
    text.push_str("md5");
    for byte in digest {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a digit"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r22_md5_agrees_with_an_independent_implementation() {
        let hash = Md5Hash::of_password(b"secret", "alice");
        assert_eq!(Md5Hash::parse(&hash.0.to_ascii_uppercase().replace("MD5", "md5")), Some(hash.clone()));
        assert_eq!(Md5Hash::parse("md5x"), None);
        assert!(hash.matches(b"secret", "alice") && !hash.matches(b"secret", "bob"));
        let salt = [1, 2, 3, 0xFF];
        let answer = md5_answer(&hash, salt);
        assert_eq!(answer, postgres_protocol::authentication::md5_hash(b"alice", b"secret", salt));
        assert!(hash.verify(answer.as_bytes(), salt));
        assert!(!hash.verify(answer.as_bytes(), [1, 2, 3, 4]));
        assert!(!hash.verify(b"", salt));
    }
}
