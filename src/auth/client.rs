//! The exchange with a client that wants in, message by message: what to send, what its answer means. Pure; knows no
//! sockets and no frames. What the client hears never tells whether a user exists.

use super::hba::Method;
use super::keys::Derivation;
use super::md5::Md5Hash;
use super::scram::{
    DEFAULT_ITERATIONS, Keys, LoginKeys, SaltMaker, ScramError, ServerFinal, ServerStart, Verifier, fresh_nonce, random,
};
use super::secret::{Credentials, Password, Stored};

const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Who asks, by which method, and what is known about them.
#[derive(Debug)]
pub struct Question<'a> {
    /// Name in the startup packet.
    pub user: &'a str,
    /// What the HBA rule says; `Reject` and `Cert` were dealt with before.
    pub method: Method,
    /// The user's entry in the users file.
    pub stored: Option<&'a Stored>,
    /// What users without an entry shall look like.
    pub typical: Typical,
    /// Salts for those who have none.
    pub salts: &'a SaltMaker,
    /// Channel binding data of the connection.
    pub channel: Option<&'a [u8]>,
}

/// The kind of secret that most users have; decides what a user without an entry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typical {
    /// md5 hashes.
    Md5,
    /// Verifiers or passwords.
    Scram,
}

/// Why a client does not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the client.
    pub sqlstate: &'static str,
    /// For the client, in PostgreSQL's words.
    pub message: String,
    /// For the log only.
    pub detail: String,
}

impl Refusal {
    /// The answer to wrong passwords, and to everything that must look like one.
    fn password(user: &str, detail: impl Into<String>) -> Self {
        let message = format!("password authentication failed for user \"{user}\"");
        Self { sqlstate: "28P01", message, detail: detail.into() }
    }

    fn protocol(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { sqlstate: "08P01", detail: message.clone(), message }
    }
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send this Authentication message (its body, code included) and give the client's answer to `next`.
    Send {
        /// Behind the header.
        body: Vec<u8>,
        /// Waits for the answer.
        next: Waiting,
    },
    /// Derive keys on a helper thread (or find them in a cache) and give them to `next`.
    Derive {
        /// What to derive.
        order: Derivation,
        /// Waits for the keys.
        next: Underived,
    },
    /// The client is who it says. Send these Authentication messages; the last is AuthenticationOk.
    Accepted {
        /// Bodies, codes included.
        bodies: Vec<Vec<u8>>,
        /// What the login taught that servers may accept (SESSIONS R22).
        learned: Option<Credentials>,
    },
}

/// Waits for a password message of the client.
#[derive(Debug)]
pub struct Waiting {
    user: String,
    /// Known beforehand to fail; for the log.
    flaw: Option<&'static str>,
    expects: Expects,
}

#[derive(Debug)]
enum Expects {
    Cleartext(Stored),
    Md5 { hash: Md5Hash, salt: [u8; 4] },
    ScramFirst(ServerStart),
    ScramFinal(ServerFinal),
}

/// Waits for derived keys.
#[derive(Debug)]
pub struct Underived {
    user: String,
    flaw: Option<&'static str>,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    /// Begin SCRAM for a password that is stored plainly.
    Begin { order: Derivation, channel: Option<Box<[u8]>> },
    /// Compare a password that was sent in clear text.
    Compare { verifier: Verifier, typed: Password },
}

fn body(code: i32, rest: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), rest].concat()
}

fn accepted(before: Option<Vec<u8>>, learned: Option<Credentials>) -> Step {
    Step::Accepted { bodies: before.into_iter().chain([body(OK, &[])]).collect(), learned }
}

const NO_ENTRY: &str = "no such user in the users file";

/// Begins the exchange.
pub fn begin(question: &Question<'_>) -> Step {
    match question.method {
        Method::Trust | Method::Cert | Method::Reject => accepted(None, None),
        Method::Password => cleartext(question),
        Method::Md5 => match (question.stored, question.typical) {
            (Some(Stored::Md5(hash)), _) => md5(question, hash.clone(), None),
            (Some(Stored::Plain(password)), _) => {
                md5(question, Md5Hash::of_password(password.expose(), question.user), None)
            }
            // PostgreSQL: method md5 asks those for SCRAM who have a SCRAM verifier.
            (Some(Stored::Scram(_)), _) | (None, Typical::Scram) => scram(question),
            (None, Typical::Md5) => md5(question, impossible(question.user), Some(NO_ENTRY)),
        },
        Method::ScramSha256 => scram(question),
    }
}

/// A hash that no password has been found for and that nobody is told.
fn impossible(user: &str) -> Md5Hash {
    Md5Hash::of_password(&random::<32>(), user)
}

fn cleartext(question: &Question<'_>) -> Step {
    let (stored, flaw) = match question.stored {
        Some(stored) => (stored.clone(), None),
        // As much work as for a user with a verifier.
        None if question.typical == Typical::Scram => {
            (Stored::Scram(question.salts.mock(question.user)), Some(NO_ENTRY))
        }
        None => (Stored::Md5(impossible(question.user)), Some(NO_ENTRY)),
    };
    let next = Waiting { user: question.user.to_owned(), flaw, expects: Expects::Cleartext(stored) };
    Step::Send { body: body(CLEARTEXT, &[]), next }
}

fn md5(question: &Question<'_>, hash: Md5Hash, flaw: Option<&'static str>) -> Step {
    let salt = random();
    let next = Waiting { user: question.user.to_owned(), flaw, expects: Expects::Md5 { hash, salt } };
    Step::Send { body: body(MD5, &salt), next }
}

fn scram(question: &Question<'_>) -> Step {
    let user = question.user.to_owned();
    let (verifier, flaw) = match question.stored {
        Some(Stored::Scram(verifier)) => (verifier.clone(), None),
        Some(Stored::Plain(password)) => {
            let salt = question.salts.salt(question.user).into();
            let order = Derivation { password: password.clone(), salt, iterations: DEFAULT_ITERATIONS };
            let purpose = Purpose::Begin { order: order.clone(), channel: question.channel.map(Into::into) };
            return Step::Derive { order, next: Underived { user, flaw: None, purpose } };
        }
        Some(Stored::Md5(_)) => {
            let flaw = "the users file holds an md5 hash, which cannot do scram-sha-256";
            (question.salts.mock(question.user), Some(flaw))
        }
        None => (question.salts.mock(question.user), Some(NO_ENTRY)),
    };
    offer_scram(user, flaw, ServerStart::new(verifier, question.channel))
}

fn offer_scram(user: String, flaw: Option<&'static str>, start: ServerStart) -> Step {
    let mut list = Vec::new();
    for mechanism in start.mechanisms() {
        list.extend_from_slice(mechanism.as_bytes());
        list.push(0);
    }
    list.push(0);
    Step::Send { body: body(SASL, &list), next: Waiting { user, flaw, expects: Expects::ScramFirst(start) } }
}

impl Underived {
    /// Goes on with the keys that were ordered.
    pub fn with_keys(self, keys: &Keys) -> Result<Step, Refusal> {
        match self.purpose {
            Purpose::Begin { order, channel } => {
                let verifier = Verifier::from_keys(keys, &order.salt, order.iterations);
                Ok(offer_scram(self.user, self.flaw, ServerStart::new(verifier, channel.as_deref())))
            }
            Purpose::Compare { verifier, typed } if self.flaw.is_none() && verifier.matches(keys) => {
                Ok(accepted(None, Some(Credentials::Password(typed))))
            }
            Purpose::Compare { .. } => {
                Err(Refusal::password(&self.user, self.flaw.unwrap_or("the password does not match")))
            }
        }
    }
}

impl Waiting {
    /// Takes the body of a message `p` of the client.
    pub fn answer(self, message: &[u8]) -> Result<Step, Refusal> {
        let Self { user, flaw, expects } = self;
        match expects {
            Expects::Cleartext(stored) => typed(user, flaw, stored, text(message)?),
            Expects::Md5 { hash, salt } => {
                if hash.verify(text(message)?, salt) && flaw.is_none() {
                    return Ok(accepted(None, Some(Credentials::Md5(hash))));
                }
                Err(Refusal::password(&user, flaw.unwrap_or("the password does not match")))
            }
            Expects::ScramFirst(start) => {
                let (mechanism, first) = initial_response(message)?;
                let begun = start.first(mechanism, first, &fresh_nonce());
                let (state, reply) = begun.map_err(|error| of_scram(&user, flaw, &error))?;
                let next = Waiting { user, flaw, expects: Expects::ScramFinal(state) };
                Ok(Step::Send { body: body(SASL_CONTINUE, &reply), next })
            }
            Expects::ScramFinal(state) => {
                let done = state.finish(message).map_err(|error| of_scram(&user, flaw, &error))?;
                if let Some(flaw) = flaw {
                    return Err(Refusal::password(&user, flaw));
                }
                let keys: LoginKeys = done.keys;
                Ok(accepted(Some(body(SASL_FINAL, &done.message)), Some(Credentials::Scram(keys))))
            }
        }
    }
}

/// A PasswordMessage: one string, NUL at its end and nowhere else, not empty.
fn text(message: &[u8]) -> Result<&[u8], Refusal> {
    match message.split_last() {
        Some((0, [])) => {
            let message = "empty password returned by client".to_owned();
            Err(Refusal { sqlstate: "28P01", detail: message.clone(), message })
        }
        Some((0, text)) if !text.contains(&0) => Ok(text),
        _ => Err(Refusal::protocol("invalid password packet size")),
    }
}

fn typed(user: String, flaw: Option<&'static str>, stored: Stored, password: &[u8]) -> Result<Step, Refusal> {
    let typed = Password::new(password);
    let good = match stored {
        Stored::Plain(stored) => super::scram::equal(stored.expose(), password),
        Stored::Md5(hash) => hash.matches(password, &user),
        Stored::Scram(verifier) => {
            let order =
                Derivation { password: typed.clone(), salt: verifier.salt.clone(), iterations: verifier.iterations };
            return Ok(Step::Derive {
                order,
                next: Underived { user, flaw, purpose: Purpose::Compare { verifier, typed } },
            });
        }
    };
    if good && flaw.is_none() {
        return Ok(accepted(None, Some(Credentials::Password(typed))));
    }
    Err(Refusal::password(&user, flaw.unwrap_or("the password does not match")))
}

/// SASLInitialResponse: mechanism, length, that many bytes.
fn initial_response(message: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let bad = || Refusal::protocol("malformed SASLInitialResponse");
    let end = message.iter().position(|&byte| byte == 0).ok_or_else(bad)?;
    let (mechanism, rest) = message.split_at(end);
    let (length, response) = rest[1..].split_first_chunk().ok_or_else(bad)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| bad())?;
    if length == response.len() { Ok((mechanism, response)) } else { Err(bad()) }
}

fn of_scram(user: &str, flaw: Option<&'static str>, error: &ScramError) -> Refusal {
    let text = error.to_string();
    match error {
        ScramError::Proof(_) => Refusal::password(user, flaw.map_or(text, str::to_owned)),
        ScramError::Binding(_) => Refusal { sqlstate: "28000", message: text.clone(), detail: text },
        ScramError::Malformed(_) | ScramError::Limit(_) => Refusal::protocol(text),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
