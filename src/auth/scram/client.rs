//! The client's side: logs in to a server by keys, and believes no server that cannot prove that it knows the verifier.

use super::parse::{Attributes, key, printable};
use super::{Keys, MAX_ITERATIONS, MAX_SALT, SCRAM, SCRAM_PLUS, ScramError, equal, hmac, sha256, xor};
use crate::auth::base64;

/// How the exchange is tied to the TLS channel below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// No TLS, or a certificate without a usable hash (`n`).
    None,
    /// We could, the server did not offer it (`y`): a server that did offer it then knows that someone cut it out.
    NotOffered,
    /// The hash of the server's certificate.
    EndPoint(Box<[u8]>),
}

impl Binding {
    /// The best that this channel and the server's offer allow.
    pub fn choose(channel: Option<&[u8]>, offers_plus: bool) -> Self {
        match channel {
            None => Self::None,
            Some(_) if !offers_plus => Self::NotOffered,
            Some(hash) => Self::EndPoint(hash.into()),
        }
    }

    /// The mechanism that goes with it.
    pub fn mechanism(&self) -> &'static str {
        if matches!(self, Self::EndPoint(_)) { SCRAM_PLUS } else { SCRAM }
    }

    fn header(&self) -> &'static [u8] {
        match self {
            Self::None => b"n,,",
            Self::NotOffered => b"y,,",
            Self::EndPoint(_) => b"p=tls-server-end-point,,",
        }
    }

    fn bound(&self) -> Vec<u8> {
        match self {
            Self::EndPoint(hash) => [self.header(), hash].concat(),
            _ => self.header().to_vec(),
        }
    }
}

/// Waits for the server's first message.
#[derive(Debug)]
pub struct ClientFirst {
    binding: Binding,
    nonce: String,
    bare: String,
}

/// What the server wants the keys to be made with; waits for them.
#[derive(Debug)]
pub struct ServerChallenge {
    /// The salt of the server's verifier.
    pub salt: Box<[u8]>,
    /// The count of the server's verifier, within [`MAX_ITERATIONS`].
    pub iterations: u32,
    /// client-final-message-without-proof.
    without_proof: String,
    /// All that both sides sign.
    signed: Vec<u8>,
}

/// Waits for the server's signature.
#[derive(Debug)]
pub struct ClientFinal {
    expected: super::Key,
}

impl ClientFirst {
    /// Begins: the state and client-first-message. PostgreSQL takes the name from the startup packet, so none is sent.
    pub fn new(binding: Binding, nonce: String) -> (Self, Vec<u8>) {
        Self::with_name(binding, nonce, "")
    }

    pub(super) fn with_name(binding: Binding, nonce: String, name: &str) -> (Self, Vec<u8>) {
        let bare = format!("n={name},r={nonce}");
        let message = [binding.header(), bare.as_bytes()].concat();
        (Self { binding, nonce, bare }, message)
    }

    /// Takes server-first-message.
    pub fn challenge(self, message: &[u8]) -> Result<ServerChallenge, ScramError> {
        let mut attributes = Attributes::new(message)?;
        if message.starts_with(b"m=") {
            return Err(ScramError::Malformed("server requires an unsupported SCRAM extension"));
        }
        let nonce = attributes.take(b'r', "nonce expected")?;
        let own = self.nonce.as_bytes();
        if !printable(nonce) || !nonce.starts_with(own) || nonce.len() == own.len() {
            return Err(ScramError::Malformed("invalid SCRAM nonce"));
        }
        let salt = base64::decode(attributes.take(b's', "salt expected")?).ok_or(ScramError::Malformed("bad salt"))?;
        if salt.is_empty() || salt.len() > MAX_SALT {
            return Err(ScramError::Limit(format!("salt of {} bytes", salt.len())));
        }
        let count = attributes.take(b'i', "iteration count expected")?;
        let iterations = iterations(count)?;
        while attributes.next()?.is_some() {}
        let nonce = String::from_utf8_lossy(nonce);
        let without_proof = format!("c={},r={nonce}", base64::encode(&self.binding.bound()));
        let signed = [self.bare.as_bytes(), b",", message, b",", without_proof.as_bytes()].concat();
        Ok(ServerChallenge { salt: salt.into(), iterations, without_proof, signed })
    }
}

fn iterations(text: &[u8]) -> Result<u32, ScramError> {
    let bad = ScramError::Malformed("invalid iteration count");
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let count: u64 = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    match u32::try_from(count) {
        Ok(0) => Err(bad),
        Ok(count) if count <= MAX_ITERATIONS => Ok(count),
        _ => Err(ScramError::Limit(format!("the server asks for more than {MAX_ITERATIONS} iterations"))),
    }
}

impl ServerChallenge {
    /// Answers with keys made with this salt and count: the state and client-final-message.
    pub fn answer(self, keys: &Keys) -> (ClientFinal, Vec<u8>) {
        let proof = xor(&keys.client, &hmac(&sha256(&keys.client), &[&self.signed]));
        let message = format!("{},p={}", self.without_proof, base64::encode(&proof)).into_bytes();
        (ClientFinal { expected: hmac(&keys.server, &[&self.signed]) }, message)
    }
}

impl ClientFinal {
    /// Takes server-final-message.
    pub fn verify(self, message: &[u8]) -> Result<(), ScramError> {
        let mut attributes = Attributes::new(message)?;
        match attributes.next()? {
            Some((b'v', value)) if equal(&key(value, "malformed signature")?, &self.expected) => Ok(()),
            Some((b'v', _)) => Err(ScramError::Proof("the server's signature is wrong: it does not know the verifier")),
            Some((b'e', _)) => Err(ScramError::Proof("the server refused the SCRAM exchange")),
            _ => Err(ScramError::Malformed("server signature expected")),
        }
    }
}
