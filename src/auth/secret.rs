//! What may be known about a user: passwords, hashes, verifiers, keys. None of it prints its contents.

use std::fmt;

use super::md5::Md5Hash;
use super::scram::{LoginKeys, Verifier};

/// A password as bytes: PostgreSQL asks no encoding of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<[u8]>);

impl Password {
    /// Wraps it.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into_boxed_slice())
    }

    /// The bytes; for the one place that uses them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// What the users file holds for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The password itself.
    Plain(Password),
    /// PostgreSQL's md5 hash of password and user.
    Md5(Md5Hash),
    /// A SCRAM-SHA-256 verifier: enough to check a client, not enough to log in to a server.
    Scram(Verifier),
}

/// What pgherd logs in to a server with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing: servers that ask for anything are lost.
    None,
    /// Good for every method.
    Password(Password),
    /// Good for md5 only.
    Md5(Md5Hash),
    /// Keys taken from the client's own login; good for SCRAM with the same verifier only (SESSIONS R22).
    Scram(LoginKeys),
}

impl Credentials {
    /// What an entry of the users file is good for towards servers; a verifier alone is good for nothing.
    pub fn from_stored(stored: &Stored) -> Self {
        match stored {
            Stored::Plain(password) => Self::Password(password.clone()),
            Stored::Md5(hash) => Self::Md5(hash.clone()),
            Stored::Scram(_) => Self::None,
        }
    }
}
