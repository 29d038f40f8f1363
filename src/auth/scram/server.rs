//! The server's side: checks a client by a verifier and learns its ClientKey on the way.

use super::parse::{Attributes, key, printable};
use super::{Key, Keys, LoginKeys, SCRAM, SCRAM_PLUS, ScramError, Verifier, equal, hmac, sha256, xor};
use crate::auth::base64;

/// Waits for the client's first message.
#[derive(Debug)]
pub struct ServerStart {
    verifier: Verifier,
    /// Our certificate's hash, on a TLS connection.
    binding: Option<Box<[u8]>>,
}

/// Waits for the client's proof.
#[derive(Debug)]
pub struct ServerFinal {
    verifier: Verifier,
    /// What `c=` must decode to.
    bound: Vec<u8>,
    nonce: String,
    /// client-first-message-bare, comma, server-first-message.
    transcript: Vec<u8>,
}

/// The client proved that it knows the password.
#[derive(Debug)]
pub struct Accepted {
    /// server-final-message, for AuthenticationSASLFinal.
    pub message: Vec<u8>,
    /// Keys that log in wherever the same verifier is stored.
    pub keys: LoginKeys,
}

impl ServerStart {
    /// For a user with this verifier; `binding` is the channel's data if it has any.
    pub fn new(verifier: Verifier, binding: Option<&[u8]>) -> Self {
        Self { verifier, binding: binding.map(Into::into) }
    }

    /// The body of AuthenticationSASL: the mechanisms, best first.
    pub fn mechanisms(&self) -> Vec<&'static str> {
        if self.binding.is_some() { vec![SCRAM_PLUS, SCRAM] } else { vec![SCRAM] }
    }

    /// Takes client-first-message, gives server-first-message. `nonce`: a fresh one.
    pub fn first(self, mechanism: &[u8], message: &[u8], nonce: &str) -> Result<(ServerFinal, Vec<u8>), ScramError> {
        let plus = mechanism == SCRAM_PLUS.as_bytes();
        if !plus && mechanism != SCRAM.as_bytes() || plus && self.binding.is_none() {
            return Err(ScramError::Malformed("client selected an invalid SASL authentication mechanism"));
        }
        let (header, bare) = split_header(message)?;
        let bound = self.check_header(header, plus)?;
        let mut attributes = Attributes::new(bare)?;
        if bare.starts_with(b"m=") {
            return Err(ScramError::Malformed("client requires an unsupported SCRAM extension"));
        }
        // The name of the startup packet counts; libpq sends an empty one here.
        attributes.take(b'n', "user name expected")?;
        let client_nonce = attributes.take(b'r', "nonce expected")?;
        if !printable(client_nonce) {
            return Err(ScramError::Malformed("non-printable characters in SCRAM nonce"));
        }
        while attributes.next()?.is_some() {}
        let nonce = format!("{}{nonce}", String::from_utf8_lossy(client_nonce));
        let Verifier { iterations, salt, .. } = &self.verifier;
        let reply = format!("r={nonce},s={},i={iterations}", base64::encode(salt)).into_bytes();
        let transcript = [bare, b",", &reply].concat();
        Ok((ServerFinal { verifier: self.verifier, bound, nonce, transcript }, reply))
    }

    /// RFC 5802's gs2-header; gives what the client must repeat in `c=`.
    fn check_header(&self, header: &[u8], plus: bool) -> Result<Vec<u8>, ScramError> {
        let (flag, authzid) = match header {
            [flag @ .., b','] => {
                let at = flag.iter().position(|&byte| byte == b',').ok_or(ScramError::Malformed("header expected"))?;
                (&flag[..at], &flag[at + 1..])
            }
            _ => return Err(ScramError::Malformed("header expected")),
        };
        if !authzid.is_empty() {
            return Err(ScramError::Malformed("client uses authorization identity, but it is not supported"));
        }
        match (flag, plus) {
            (b"n", false) => Ok(header.to_vec()),
            (b"y", false) if self.binding.is_none() => Ok(header.to_vec()),
            (b"y", false) => Err(ScramError::Binding(
                "the client supports SCRAM channel binding but thinks the server does not; this server does",
            )),
            (b"n" | b"y", true) => {
                Err(ScramError::Malformed("client selected SCRAM-SHA-256-PLUS, but sends no channel binding data"))
            }
            (b"p=tls-server-end-point", true) => Ok([header, self.binding.as_deref().unwrap_or_default()].concat()),
            ([b'p', ..], true) => Err(ScramError::Malformed("unsupported SCRAM channel-binding type")),
            ([b'p', ..], false) => {
                Err(ScramError::Malformed("client selected SCRAM-SHA-256, but sends channel binding data"))
            }
            _ => Err(ScramError::Malformed("unexpected channel-binding flag")),
        }
    }
}

/// Cuts client-first-message behind its second comma.
fn split_header(message: &[u8]) -> Result<(&[u8], &[u8]), ScramError> {
    let mut commas = message.iter().enumerate().filter(|&(_, &byte)| byte == b',').map(|(at, _)| at);
    match commas.nth(1) {
        Some(at) => Ok(message.split_at(at + 1)),
        None => Err(ScramError::Malformed("header expected")),
    }
}

impl ServerFinal {
    /// Takes client-final-message. The comparison that decides is constant in time.
    pub fn finish(self, message: &[u8]) -> Result<Accepted, ScramError> {
        let mut attributes = Attributes::new(message)?;
        let bound = base64::decode(attributes.take(b'c', "channel binding expected")?);
        if bound.as_deref() != Some(self.bound.as_slice()) {
            return Err(ScramError::Binding("SCRAM channel binding check failed"));
        }
        if attributes.take(b'r', "nonce expected")? != self.nonce.as_bytes() {
            return Err(ScramError::Malformed("nonce does not match"));
        }
        let (without_proof, proof) = loop {
            let before = message.len() - attributes.rest().len();
            match attributes.next()? {
                Some((b'p', value)) if attributes.rest().is_empty() => {
                    break (&message[..before.saturating_sub(1)], key(value, "malformed proof")?);
                }
                Some((b'p', _)) => return Err(ScramError::Malformed("garbage at the end of client-final-message")),
                Some(_) => {}
                None => return Err(ScramError::Malformed("proof expected")),
            }
        };
        self.check(without_proof, &proof)
    }

    fn check(self, without_proof: &[u8], proof: &Key) -> Result<Accepted, ScramError> {
        let signed: [&[u8]; 3] = [&self.transcript, b",", without_proof];
        let client = xor(proof, &hmac(&self.verifier.stored_key, &signed));
        if !equal(&sha256(&client), &self.verifier.stored_key) {
            return Err(ScramError::Proof("the password does not match"));
        }
        let signature = hmac(&self.verifier.server_key, &signed);
        let message = format!("v={}", base64::encode(&signature)).into_bytes();
        let keys = Keys { client, server: self.verifier.server_key };
        let keys = LoginKeys { salt: self.verifier.salt, iterations: self.verifier.iterations, keys };
        Ok(Accepted { message, keys })
    }
}
