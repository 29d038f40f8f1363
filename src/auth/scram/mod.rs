//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it: keys, verifiers, and both sides of the exchange. States
//! are consumed; a message that does not fit is an error and the end. Deriving keys is a separate call.

mod client;
mod parse;
mod server;
mod verifier;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{hmac, pbkdf2};

pub use client::{Binding, ClientFinal, ClientFirst, ServerChallenge};
pub use server::{Accepted, ServerFinal, ServerStart};
pub use verifier::Verifier;

use super::base64;

/// The mechanism's name.
pub const SCRAM: &str = "SCRAM-SHA-256";
/// The same with channel binding.
pub const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// PostgreSQL's own count, used for verifiers made here.
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// More is refused: half a second of one core for one login, and whoever asks for it need not be trusted yet.
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// PostgreSQL makes salts of 16 bytes; longer ones than this are refused.
pub const MAX_SALT: usize = 256;
/// Longest message of an exchange that is looked at.
const MAX_MESSAGE: usize = 4096;

/// A key, a digest or a signature.
pub type Key = [u8; 32];

/// What went wrong in an exchange.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The peer broke the protocol; PostgreSQL's detail text.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// A limit of this implementation.
    #[error("SCRAM exchange refused: {0}")]
    Limit(String),
    /// Both sides could bind to the TLS channel and do not agree about it: someone may stand in between.
    #[error("SCRAM channel binding negotiation error: {0}")]
    Binding(&'static str),
    /// Wrong password, or (client side) a server that does not know the verifier.
    #[error("{0}")]
    Proof(&'static str),
}

/// The two keys that a password, a salt and a count come to. Either can log in or check; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Proves the client to the server.
    pub client: Key,
    /// Proves the server to the client.
    pub server: Key,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(***)")
    }
}

/// Keys together with the salt and count that they belong to: good for servers that hold the same verifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginKeys {
    /// Of the verifier.
    pub salt: Box<[u8]>,
    /// Of the verifier.
    pub iterations: u32,
    /// The client's key was seen in the client's own login, the server's stands in the verifier.
    pub keys: Keys,
}

/// Compares without telling by its time where the difference is. Lengths are no secret.
pub(super) fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | std::hint::black_box(a ^ b)) == 0
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn sha256(bytes: &[u8]) -> Key {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn xor(one: &Key, other: &Key) -> Key {
    std::array::from_fn(|at| one[at] ^ other[at])
}

/// SASLprep, or the bytes as they are where it does not apply (no UTF-8, forbidden characters), as PostgreSQL does.
fn prepared(password: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(password) else { return Cow::Borrowed(password) };
    match stringprep::saslprep(text) {
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(password),
        Ok(Cow::Owned(text)) if text.is_empty() => Cow::Borrowed(password),
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
    }
}

/// PBKDF2 and the two keys. About half a microsecond per iteration: not for a data thread.
pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Keys {
    let mut salted = [0; 32];
    let count = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, count, salt, &prepared(password), &mut salted);
    Keys { client: hmac(&salted, &[b"Client Key"]), server: hmac(&salted, &[b"Server Key"]) }
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes to a running system");
    bytes
}

/// A nonce as PostgreSQL makes them: 18 random bytes in base64.
pub fn fresh_nonce() -> String {
    base64::encode(&random::<18>())
}

/// Makes salts for users that have none: those who do not exist, and those whose password is stored plainly. The same
/// user always gets the same one, so that nobody learns by asking twice who exists.
pub struct SaltMaker(Key);

impl Default for SaltMaker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SaltMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltMaker(***)")
    }
}

impl SaltMaker {
    /// With a secret of its own, for the life of the process.
    pub fn new() -> Self {
        Self(random())
    }

    /// The salt of `user`.
    pub fn salt(&self, user: &str) -> [u8; 16] {
        let digest = hmac(&self.0, &[user.as_bytes()]);
        *digest.first_chunk().expect("32 bytes hold 16")
    }

    /// A verifier that no password fits.
    pub fn mock(&self, user: &str) -> Verifier {
        Verifier::unmatchable(&self.salt(user))
    }
}

#[cfg(test)]
mod tests;
