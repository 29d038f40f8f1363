//! The stored form of a SCRAM password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as in
//! `pg_authid.rolpassword`. Checks clients and cannot log in anywhere.

use std::fmt;

use super::{DEFAULT_ITERATIONS, Key, Keys, MAX_ITERATIONS, MAX_SALT, derive, equal, random, sha256};
use crate::auth::base64;

/// What a server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// PBKDF2's count.
    pub iterations: u32,
    /// PBKDF2's salt.
    pub salt: Box<[u8]>,
    /// SHA-256 of the client's key.
    pub stored_key: Key,
    /// Signs the server's last message.
    pub server_key: Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(***)")
    }
}

impl Verifier {
    /// Reads PostgreSQL's text form. `None` if it is not one, or beyond the limits of this module.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (parameters, keys) = rest.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations = iterations.bytes().all(|byte| byte.is_ascii_digit()).then_some(iterations)?;
        let iterations = iterations.parse().ok().filter(|count| (1..=MAX_ITERATIONS).contains(count))?;
        let salt = base64::decode(salt.as_bytes()).filter(|salt| (1..=MAX_SALT).contains(&salt.len()))?;
        let key = |text: &str| base64::decode(text.as_bytes())?.try_into().ok();
        Some(Self { iterations, salt: salt.into(), stored_key: key(stored)?, server_key: key(server)? })
    }

    /// PostgreSQL's text form.
    pub fn to_text(&self) -> String {
        let encode = base64::encode;
        let (salt, stored, server) = (encode(&self.salt), encode(&self.stored_key), encode(&self.server_key));
        format!("SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }

    /// From keys that were derived with this salt and count.
    pub fn from_keys(keys: &Keys, salt: &[u8], iterations: u32) -> Self {
        Self { iterations, salt: salt.into(), stored_key: sha256(&keys.client), server_key: keys.server }
    }

    /// From a password; slow (see `derive`).
    pub fn from_password(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        Self::from_keys(&derive(password, salt, iterations), salt, iterations)
    }

    /// One that nothing fits: its keys are random.
    pub(super) fn unmatchable(salt: &[u8]) -> Self {
        Self { iterations: DEFAULT_ITERATIONS, salt: salt.into(), stored_key: random(), server_key: random() }
    }

    /// Were these keys derived from the right password (with this salt and count)?
    pub fn matches(&self, keys: &Keys) -> bool {
        equal(&self.stored_key, &sha256(&keys.client))
    }
}
