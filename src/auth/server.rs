//! The login to a server, message by message: what its Authentication message means and what to answer. Pure; knows
//! neither sockets nor frames. A server that was begun with SCRAM must prove itself before its Ok is believed.

use super::keys::Derivation;
use super::md5::{Md5Hash, md5_answer};
use super::scram::{Binding, ClientFinal, ClientFirst, Keys, SCRAM_PLUS, ScramError, ServerChallenge, fresh_nonce};
use super::secret::Credentials;

/// Why a login cannot go on, before the server said so itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerAuthError {
    /// The server asks for a secret and none is known.
    #[error("the server asks user \"{user}\" for {method}, and no password is known: {hint}")]
    NoSecret {
        /// Who logs in.
        user: String,
        /// What the server asks for.
        method: &'static str,
        /// What would help.
        hint: &'static str,
    },
    /// What is known does not fit what the server asks for.
    #[error("the server asks user \"{user}\" for {method}: {why}")]
    Unfit {
        /// Who logs in.
        user: String,
        /// What the server asks for.
        method: &'static str,
        /// Why it does not fit.
        why: &'static str,
    },
    /// A method that pgherd does not know.
    #[error("the server asks for the authentication method {0}, which pgherd does not support")]
    Unsupported(String),
    /// The server broke the protocol or failed to prove itself.
    #[error("the server's authentication is not right: {0}")]
    Server(String),
}

impl From<ScramError> for ServerAuthError {
    fn from(error: ScramError) -> Self {
        Self::Server(error.to_string())
    }
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send a message `p` with this body, give the next Authentication message to `next`.
    Send {
        /// Behind the header.
        body: Vec<u8>,
        /// Waits for the server.
        next: ServerLogin,
    },
    /// Nothing to send; the next Authentication message goes to this.
    Wait(ServerLogin),
    /// Derive keys on a helper thread (or find them in a cache) and give them to `next`.
    Derive {
        /// What to derive.
        order: Derivation,
        /// Waits for the keys.
        next: Underived,
    },
    /// Logged in; parameters follow.
    Done,
}

/// A login under way: waits for an Authentication message.
#[derive(Debug)]
pub struct ServerLogin {
    party: Party,
    state: State,
}

/// Who logs in, and over what.
#[derive(Debug)]
struct Party {
    user: String,
    credentials: Credentials,
    channel: Option<Box<[u8]>>,
}

#[derive(Debug)]
enum State {
    /// Nothing asked yet.
    Fresh,
    /// A password was sent.
    Answered,
    ScramFirst(ClientFirst),
    ScramFinal(ClientFinal),
    /// The server proved that it knows the verifier.
    Proved,
}

/// Waits for derived keys.
#[derive(Debug)]
pub struct Underived {
    party: Party,
    challenge: ServerChallenge,
}

impl Underived {
    /// Goes on with the keys that were ordered.
    pub fn with_keys(self, keys: &Keys) -> Step {
        let (state, body) = self.challenge.answer(keys);
        Step::Send { body, next: ServerLogin { party: self.party, state: State::ScramFinal(state) } }
    }
}

const HINT: &str =
    "the users file has no password for it, and no client with that name has logged in by SCRAM since pgherd started";

impl ServerLogin {
    /// Begins. `channel`: channel binding data of the connection.
    pub fn new(user: &str, credentials: &Credentials, channel: Option<&[u8]>) -> Self {
        let channel = channel.map(Into::into);
        let party = Party { user: user.to_owned(), credentials: credentials.clone(), channel };
        Self { party, state: State::Fresh }
    }

    /// Takes the body of an Authentication message, code included.
    pub fn authentication(self, body: &[u8]) -> Result<Step, ServerAuthError> {
        let Some((code, data)) = body.split_first_chunk() else {
            return Err(ServerAuthError::Server("short Authentication message".into()));
        };
        let Self { party, state } = self;
        match (i32::from_be_bytes(*code), state) {
            (0, State::ScramFirst(_) | State::ScramFinal(_)) => {
                Err(ServerAuthError::Server("it says Ok before it proved that it knows the verifier".into()))
            }
            (0, _) => Ok(Step::Done),
            (3, State::Fresh) => party.cleartext(),
            (5, State::Fresh) => party.md5(data),
            (10, State::Fresh) => party.sasl(data),
            (11, State::ScramFirst(first)) => party.challenged(first.challenge(data)?),
            (12, State::ScramFinal(last)) => {
                last.verify(data)?;
                Ok(Step::Wait(Self { party, state: State::Proved }))
            }
            (7..=9, _) => Err(ServerAuthError::Unsupported("GSSAPI or SSPI".into())),
            (code, State::Fresh) => Err(ServerAuthError::Unsupported(format!("number {code}"))),
            (code, _) => Err(ServerAuthError::Server(format!("Authentication message {code} out of turn"))),
        }
    }
}

impl Party {
    fn no_secret(self, method: &'static str) -> ServerAuthError {
        ServerAuthError::NoSecret { user: self.user, method, hint: HINT }
    }

    fn unfit(self, method: &'static str, why: &'static str) -> ServerAuthError {
        ServerAuthError::Unfit { user: self.user, method, why }
    }

    fn answered(self, text: &[u8]) -> Result<Step, ServerAuthError> {
        let body = [text, &[0]].concat();
        Ok(Step::Send { body, next: ServerLogin { party: self, state: State::Answered } })
    }

    fn cleartext(self) -> Result<Step, ServerAuthError> {
        const METHOD: &str = "a clear text password";
        match &self.credentials {
            Credentials::Password(password) => {
                let text = password.expose().to_vec();
                self.answered(&text)
            }
            Credentials::None => Err(self.no_secret(METHOD)),
            Credentials::Md5(_) => Err(self.unfit(METHOD, "only an md5 hash is known")),
            Credentials::Scram(_) => Err(self.unfit(METHOD, "only SCRAM keys are known")),
        }
    }

    fn md5(self, data: &[u8]) -> Result<Step, ServerAuthError> {
        const METHOD: &str = "an md5 password";
        let Ok(salt) = <[u8; 4]>::try_from(data) else {
            return Err(ServerAuthError::Server("md5 salt of a wrong length".into()));
        };
        match &self.credentials {
            Credentials::Password(password) => {
                let hash = Md5Hash::of_password(password.expose(), &self.user);
                self.answered(md5_answer(&hash, salt).as_bytes())
            }
            Credentials::Md5(hash) => {
                let answer = md5_answer(hash, salt);
                self.answered(answer.as_bytes())
            }
            Credentials::None => Err(self.no_secret(METHOD)),
            Credentials::Scram(_) => Err(self.unfit(METHOD, "only SCRAM keys are known")),
        }
    }

    fn sasl(self, list: &[u8]) -> Result<Step, ServerAuthError> {
        const METHOD: &str = "SCRAM-SHA-256";
        match self.credentials {
            Credentials::None => return Err(self.no_secret(METHOD)),
            Credentials::Md5(_) => return Err(self.unfit(METHOD, "only an md5 hash is known")),
            Credentials::Password(_) | Credentials::Scram(_) => {}
        }
        let offers = |name: &str| list.split(|&byte| byte == 0).any(|offered| offered == name.as_bytes());
        let binding = Binding::choose(self.channel.as_deref(), offers(SCRAM_PLUS));
        let mechanism = binding.mechanism();
        if !offers(mechanism) {
            let text = list.escape_ascii().to_string().replace("\\x00", " ");
            return Err(ServerAuthError::Unsupported(format!("SASL {}", text.trim_end())));
        }
        let (state, first) = ClientFirst::new(binding, fresh_nonce());
        let length = u32::try_from(first.len()).expect("a message of some 60 bytes");
        let body = [mechanism.as_bytes(), &[0], &length.to_be_bytes(), &first].concat();
        Ok(Step::Send { body, next: ServerLogin { party: self, state: State::ScramFirst(state) } })
    }

    fn challenged(self, challenge: ServerChallenge) -> Result<Step, ServerAuthError> {
        match &self.credentials {
            Credentials::Password(password) => {
                let order = Derivation {
                    password: password.clone(),
                    salt: challenge.salt.clone(),
                    iterations: challenge.iterations,
                };
                Ok(Step::Derive { order, next: Underived { party: self, challenge } })
            }
            Credentials::Scram(known) if known.salt == challenge.salt && known.iterations == challenge.iterations => {
                let (state, body) = challenge.answer(&known.keys);
                Ok(Step::Send { body, next: ServerLogin { party: self, state: State::ScramFinal(state) } })
            }
            _ => Err(self.unfit(
                "SCRAM-SHA-256",
                "its verifier differs from the one in the users file, so the keys of the client's login do not fit",
            )),
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
