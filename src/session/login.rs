//! The front door: from an accepted socket to a client who is who it says, or to a refusal in PostgreSQL's words. Owned by
//! the session's task; the future is large and meant to be boxed. Must not look at servers or pools: it knows users.

mod door;
mod options;
mod prove;
mod startup;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use crate::auth::hba::Hba;
use crate::auth::scram::SaltMaker;
use crate::auth::{Credentials, Users};
use crate::backend::KeyMaker;
use crate::net::{PeerAddr, ServerTls, Stream};
use crate::support::clock;
use crate::wire::CancelKey;

use door::Door;

/// What decides about those who knock. Immutable; a reload makes a new one, with the old `salts` and `keys`.
#[derive(Debug)]
pub struct LoginPolicy {
    /// Who may come in by which method.
    pub hba: Hba,
    /// What they must know.
    pub users: Users,
    /// Without it, clients are told that there is no TLS.
    pub tls: Option<ServerTls>,
    /// For everything from the accept to the end of the authentication.
    pub timeout: Duration,
    /// One for the life of the process.
    pub salts: Arc<SaltMaker>,
    /// One for the life of the process.
    pub keys: Arc<KeyMaker>,
}

/// Whether there is room for one more, as known when the client came. CancelRequests are always let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// There is.
    Open,
    /// `max_clients` is reached: 53300.
    Full,
    /// The proxy is going down: 57P03.
    Stopping,
}

/// What a client that replicates wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replication {
    /// Not to replicate.
    #[default]
    No,
    /// `replication=true`: WAL.
    Physical,
    /// `replication=database`: also SQL in a database.
    Logical,
}

/// A client that came in, and does not know it yet.
#[derive(Debug)]
pub struct ClientLogin {
    /// Its connection.
    pub stream: Stream,
    /// AuthenticationOk, with the last message of its exchange if there is one: goes out together with what it is told next.
    pub accepted: Vec<u8>,
    /// Its role.
    pub user: String,
    /// Its database; empty for physical replication.
    pub database: String,
    /// Settings from the startup packet in the order of their effect: those inside `options=`, then the others. Names as
    /// the client wrote them.
    pub options: Vec<(String, String)>,
    /// Whether it replicates.
    pub replication: Replication,
    /// Minor protocol version agreed on: 0 to 2.
    pub protocol_minor: u16,
    /// What its login taught: good for servers that hold the same verifier (SESSIONS R22).
    pub learned: Option<Credentials>,
    /// Bytes that the client sent ahead.
    pub leftover: Vec<u8>,
}

/// What someone who knocked turned out to be.
#[derive(Debug)]
pub enum Arrival {
    /// A client.
    Client(Box<ClientLogin>),
    /// A CancelRequest. The stream is to be closed when it was dealt with.
    Cancel(CancelKey, Stream),
}

/// Why nobody came in. The client was told and the log has a line, if either makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Turned {
    /// It went away, or never said anything of use. Health checks of load balancers do.
    Gone,
    /// It was not done in time.
    TimedOut,
    /// It broke the protocol, or asked for what there is not.
    Protocol,
    /// No room.
    Refused,
    /// No rule lets it in, or its password is wrong. Each of these counts as a failed login.
    Unauthorized,
}

/// Deals with a connection from its first byte to all but AuthenticationOk, within the policy's timeout. Dropping the future
/// closes the connection.
pub async fn log_in(
    stream: Stream,
    peer: PeerAddr,
    policy: &LoginPolicy,
    admission: Admission,
) -> Result<Arrival, Turned> {
    let deadline = clock::now() + policy.timeout;
    let mut door = Door::new(stream, peer);
    match timeout_at(deadline.into(), run(&mut door, policy, admission)).await {
        Ok(done) => done,
        Err(_) => Err(door.time_out().await),
    }
}

async fn run(door: &mut Door, policy: &LoginPolicy, admission: Admission) -> Result<Arrival, Turned> {
    let request = match startup::receive(door, policy).await? {
        startup::Opening::Cancel(key) => return door.take_stream().map(|stream| Arrival::Cancel(key, stream)),
        startup::Opening::Start(request) => request,
    };
    match admission {
        Admission::Open => {}
        Admission::Full => return Err(door.refuse("53300", "sorry, too many clients already").await),
        Admission::Stopping => return Err(door.refuse("57P03", "the database system is shutting down").await),
    }
    let (accepted, learned) = prove::prove(door, policy, &request).await?;
    let leftover = door.take_rest();
    let stream = door.take_stream()?;
    let startup::Request { user, database, options, replication, protocol_minor } = request;
    let client =
        ClientLogin { stream, accepted, user, database, options, replication, protocol_minor, learned, leftover };
    Ok(Arrival::Client(Box::new(client)))
}
