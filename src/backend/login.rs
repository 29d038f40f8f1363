//! Logging in to a server: startup packet, authentication, parameters, until it is ready for queries. Thin I/O around
//! [`crate::auth::server`]. Must not decide whether to try again, and never logs passwords or keys.

mod frames;
mod keys;
#[cfg(test)]
mod tests;

use std::time::Instant;

use tokio::time::timeout_at;

use crate::auth::Credentials;
use crate::auth::server::{ServerAuthError, ServerLogin, Step};
use crate::net::{DialError, DialFault, DialTarget, Stream, dial};
use crate::wire::{CancelKey, ErrorFields, Reader, TxStatus, back, sqlstate, write};

use super::OpenError;
use frames::Frames;
pub use keys::KeyMaker;

/// SQLSTATE of connections that could not be made.
const CANNOT_CONNECT: &str = "08001";
/// SQLSTATE where pgherd itself has no password for the server.
const NO_PASSWORD: &str = "28000";

/// Who logs in to what.
#[derive(Debug, Clone, Copy)]
pub struct LoginParams<'a> {
    /// The role.
    pub user: &'a str,
    /// The database; empty for physical replication.
    pub database: &'a str,
    /// Further startup parameters, in order.
    pub options: &'a [(String, String)],
    /// Value of the parameter `replication`, for connections that are passed through.
    pub replication: Option<&'a str>,
}

/// A server connection that is ready for queries; nothing is buffered.
#[derive(Debug)]
pub struct LoggedIn {
    /// The connection.
    pub stream: Stream,
    /// What the server reported, in order; a name may come twice, the last counts.
    pub parameters: Vec<(String, String)>,
    /// For CancelRequests; an empty secret if the server gave none.
    pub cancel: CancelKey,
    /// Of the ReadyForQuery.
    pub status: TxStatus,
}

/// Whose fault a failed login is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginFault {
    /// The server was not reached.
    Dial(DialFault),
    /// The connection ended or failed during the login.
    Lost,
    /// The server did not get ready in time.
    TimedOut,
    /// The server is starting up or shutting down.
    NotAccepting,
    /// The server has too many clients.
    Busy,
    /// The server refused this user, database or parameter.
    Refused,
    /// pgherd has nothing to log in with, or not what the server asks for.
    Credentials,
    /// The server broke the protocol, could not prove who it is, or asks for what pgherd does not know.
    Protocol,
}

/// A login that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LoginError {
    /// The server's own, or what fits.
    pub sqlstate: String,
    /// The server's own words, or ours.
    pub message: String,
    /// Whose fault.
    pub fault: LoginFault,
}

impl LoginError {
    fn new(fault: LoginFault, sqlstate: &str, message: impl Into<String>) -> Self {
        Self { sqlstate: sqlstate.to_owned(), message: message.into(), fault }
    }

    fn lost(error: &std::io::Error) -> Self {
        let message = format!("lost the connection to the server during the login: {error}");
        Self::new(LoginFault::Lost, sqlstate::CONNECTION_FAILURE, message)
    }

    fn protocol(message: impl Into<String>) -> Self {
        Self::new(LoginFault::Protocol, sqlstate::PROTOCOL_VIOLATION, message)
    }

    fn of_server(body: &[u8]) -> Self {
        let fields = ErrorFields::parse(body);
        let code = String::from_utf8_lossy(fields.code);
        let fault = match &*code {
            sqlstate::CANNOT_CONNECT_NOW | sqlstate::ADMIN_SHUTDOWN | "57P02" => LoginFault::NotAccepting,
            sqlstate::TOO_MANY_CONNECTIONS => LoginFault::Busy,
            _ => LoginFault::Refused,
        };
        Self::new(fault, &code, String::from_utf8_lossy(fields.message))
    }
}

impl From<DialError> for LoginError {
    fn from(error: DialError) -> Self {
        Self::new(LoginFault::Dial(error.fault), CANNOT_CONNECT, error.to_string())
    }
}

impl From<ServerAuthError> for LoginError {
    fn from(error: ServerAuthError) -> Self {
        let fault = match error {
            ServerAuthError::NoSecret { .. } | ServerAuthError::Unfit { .. } => LoginFault::Credentials,
            ServerAuthError::Unsupported(_) | ServerAuthError::Server(_) => LoginFault::Protocol,
        };
        Self::new(fault, NO_PASSWORD, error.to_string())
    }
}

impl From<LoginError> for OpenError {
    fn from(error: LoginError) -> Self {
        match error.fault {
            LoginFault::Busy => Self::Busy(error.message),
            // Nothing that waiting would mend.
            LoginFault::Dial(DialFault::Tls) | LoginFault::Refused | LoginFault::Credentials | LoginFault::Protocol => {
                Self::Refused { code: error.sqlstate, message: error.message }
            }
            LoginFault::Dial(_) | LoginFault::Lost | LoginFault::TimedOut | LoginFault::NotAccepting => {
                Self::Unreachable(error.message)
            }
        }
    }
}

/// Dials and logs in, all before `deadline` (and the dial within its own timeout). Dropping the future closes the
/// connection.
///
/// # Errors
/// See [`LoginFault`].
pub async fn connect(
    target: &DialTarget,
    params: &LoginParams<'_>,
    credentials: &Credentials,
    keys: &KeyMaker,
    deadline: Instant,
) -> Result<LoggedIn, LoginError> {
    let stream = match timeout_at(deadline.into(), dial(target)).await {
        Ok(dialed) => dialed?,
        Err(_) => {
            let message = format!("cannot connect to {}: timed out", target.endpoint);
            return Err(LoginError::new(LoginFault::Dial(DialFault::TimedOut), CANNOT_CONNECT, message));
        }
    };
    login(stream, params, credentials, keys, deadline).await
}

/// Logs in over a fresh connection, before `deadline`. Dropping the future closes the connection.
///
/// # Errors
/// See [`LoginFault`]; never `Dial`.
pub async fn login(
    stream: Stream,
    params: &LoginParams<'_>,
    credentials: &Credentials,
    keys: &KeyMaker,
    deadline: Instant,
) -> Result<LoggedIn, LoginError> {
    let late = |_| LoginError::new(LoginFault::TimedOut, CANNOT_CONNECT, "the server did not finish the login in time");
    timeout_at(deadline.into(), run(stream, params, credentials, keys)).await.map_err(late)?
}

async fn run(
    stream: Stream,
    params: &LoginParams<'_>,
    credentials: &Credentials,
    keys: &KeyMaker,
) -> Result<LoggedIn, LoginError> {
    let mut server = Frames::new(stream);
    server.send(&startup(params)).await?;
    let channel = server.channel_binding();
    authenticate(&mut server, ServerLogin::new(params.user, credentials, channel.as_deref()), keys).await?;
    become_ready(server).await
}

fn startup(params: &LoginParams<'_>) -> Vec<u8> {
    let fixed = [("user", Some(params.user)), ("database", Some(params.database)), ("replication", params.replication)];
    let fixed =
        fixed.into_iter().filter_map(|(name, value)| Some((name, value?))).filter(|(_, value)| !value.is_empty());
    let further = params.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut packet = Vec::new();
    write::startup(&mut packet, fixed.chain(further));
    packet
}

async fn authenticate(server: &mut Frames, mut login: ServerLogin, keys: &KeyMaker) -> Result<(), LoginError> {
    loop {
        let (tag, body) = server.next().await?;
        let mut step = match tag {
            back::AUTHENTICATION => login.authentication(body)?,
            back::ERROR => return Err(LoginError::of_server(body)),
            back::NOTICE => continue_with(login),
            _ => return Err(LoginError::protocol(unexpected(tag, "the authentication"))),
        };
        if let Step::Derive { order, next } = step {
            step = next.with_keys(&keys.keys(&order).await);
        }
        login = match step {
            Step::Done => return Ok(()),
            Step::Wait(next) => next,
            Step::Send { body, next } => {
                let mut message = Vec::new();
                write::password(&mut message, &body);
                server.send(&message).await?;
                next
            }
            Step::Derive { .. } => return Err(LoginError::protocol("keys were asked for twice")),
        };
    }
}

fn continue_with(login: ServerLogin) -> Step {
    Step::Wait(login)
}

fn unexpected(tag: u8, phase: &str) -> String {
    format!("unexpected message \"{}\" from the server during {phase}", tag.escape_ascii())
}

/// Reads up to ReadyForQuery, and whatever came along behind it.
async fn become_ready(mut server: Frames) -> Result<LoggedIn, LoginError> {
    let mut parameters = Vec::new();
    let mut cancel = CancelKey { pid: 0, secret: Box::default() };
    let mut ready = None;
    loop {
        if let Some(status) = ready
            && server.is_empty()
        {
            return Ok(LoggedIn { stream: server.into_stream(), parameters, cancel, status });
        }
        let (tag, body) = server.next().await?;
        match tag {
            back::PARAMETER_STATUS => parameters.push(parameter(body)?),
            back::KEY_DATA if ready.is_none() => cancel = key_data(body)?,
            back::READY if ready.is_none() => {
                let status = body.first().copied().and_then(TxStatus::from_byte);
                ready = Some(status.ok_or_else(|| LoginError::protocol("malformed ReadyForQuery"))?);
            }
            back::ERROR => return Err(LoginError::of_server(body)),
            back::NOTICE => {}
            _ => return Err(LoginError::protocol(unexpected(tag, "the start of the session"))),
        }
    }
}

fn parameter(body: &[u8]) -> Result<(String, String), LoginError> {
    let mut reader = Reader::new(body);
    match (reader.cstr(), reader.cstr()) {
        (Some(name), Some(value)) => {
            Ok((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()))
        }
        _ => Err(LoginError::protocol("malformed ParameterStatus")),
    }
}

fn key_data(body: &[u8]) -> Result<CancelKey, LoginError> {
    let mut reader = Reader::new(body);
    match (reader.i32(), reader.rest()) {
        (Some(pid), secret) if (4..=256).contains(&secret.len()) => Ok(CancelKey { pid, secret: secret.into() }),
        _ => Err(LoginError::protocol("malformed BackendKeyData")),
    }
}
