//! The monitor's own connections: simple queries over a logged-in stream, answers as text. Owner: the control thread. Must
//! not take part in pools, and never sends what a client wrote.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::node::{Connector, ProbeClient, ProbeError};
use super::reading::{Failure, Row};
use crate::auth::Credentials;
use crate::backend::{KeyMaker, LoginFault, LoginParams, login};
use crate::cluster::{History, NodeId, Timeline};
use crate::net::{DialFault, DialTarget, Stream};
use crate::support::clock;
use crate::wire::{ErrorFields, Fault, Reader, Side, back, peek, write};

/// Bytes that one answer may take: catalogs of some hundred thousand relations fit, a mistake does not eat the machine.
pub const MAX_ANSWER: usize = 64 << 20;

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "pgherd monitor";

/// Beyond every deadline that callers set around `connect`.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);

/// The monitor role.
#[derive(Debug)]
pub struct Account {
    /// Its name.
    pub user: String,
    /// Its own database.
    pub database: String,
    /// What it logs in with.
    pub credentials: Credentials,
}

/// How each node is reached.
pub type Targets = Arc<ArcSwap<HashMap<NodeId, DialTarget>>>;

/// Makes monitor connections.
#[derive(Debug)]
pub struct Dialer {
    /// Replaced by a reload.
    pub account: Arc<ArcSwap<Account>>,
    /// Shared with all other logins.
    pub keys: Arc<KeyMaker>,
    /// Replaced by a reload before the monitor hears of it.
    pub targets: Targets,
}

impl Connector for Dialer {
    type Client = Connection;

    async fn connect(&self, node: NodeId, database: Option<&str>) -> Result<Connection, ProbeError> {
        self.log_in(node, database, None).await
    }

    async fn history(&self, node: NodeId, timeline: Timeline) -> Result<History, ProbeError> {
        let mut connection = self.replicate(node).await?;
        let rows = connection.query(&format!("TIMELINE_HISTORY {}", timeline.0)).await?;
        let text = rows.first().and_then(|row| row.get(1)?.as_deref());
        text.and_then(|text| History::parse(timeline, text)).ok_or_else(|| bad("no history of a timeline"))
    }
}

impl Dialer {
    /// A physical replication connection: it takes replication commands as queries (HA H6).
    ///
    /// # Errors
    /// How it failed; the role may lack REPLICATION.
    pub async fn replicate(&self, node: NodeId) -> Result<Connection, ProbeError> {
        self.log_in(node, Some(""), Some("true")).await
    }

    async fn log_in(
        &self,
        node: NodeId,
        database: Option<&str>,
        replication: Option<&str>,
    ) -> Result<Connection, ProbeError> {
        let (target, account) = (self.targets.load().get(&node).cloned(), self.account.load_full());
        let database = database.unwrap_or(&account.database);
        let Some(target) = target else {
            return Err(ProbeError { failure: Failure::Unreachable, detail: format!("node {node} has no address") });
        };
        // Nothing that the role or the database has set may change how answers look.
        let options = [("application_name", APPLICATION_NAME), ("client_encoding", "UTF8"), ("statement_timeout", "0")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let params = LoginParams { user: &account.user, database, options: &options, replication };
        let deadline = clock::now() + LOGIN_LIMIT;
        let done = login::connect(&target, &params, &account.credentials, &self.keys, deadline).await;
        let done = done.map_err(|error| ProbeError {
            failure: failure(error.fault, &error.sqlstate, &error.message),
            detail: error.message,
        })?;
        Ok(Connection::new(done.stream))
    }
}

fn failure(fault: LoginFault, sqlstate: &str, message: &str) -> Failure {
    match fault {
        LoginFault::Dial(DialFault::Refused) => Failure::Refused,
        LoginFault::Dial(DialFault::TimedOut) | LoginFault::TimedOut => Failure::TimedOut,
        LoginFault::Dial(DialFault::Name | DialFault::Unreachable | DialFault::Other) => Failure::Unreachable,
        LoginFault::Lost => Failure::Lost,
        LoginFault::NotAccepting | LoginFault::Busy => Failure::from_server(sqlstate, message),
        // It lives, whatever it or we have against this login.
        LoginFault::Dial(DialFault::Tls) | LoginFault::Refused | LoginFault::Credentials => Failure::LoginRefused,
        LoginFault::Protocol => Failure::BadAnswer,
    }
}

/// A logged-in connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    input: Vec<u8>,
    /// How much of `input` has been handed out.
    taken: usize,
    /// A question was sent whose answer has not come: whoever waited for it has given up, or it failed.
    owed: bool,
}

impl ProbeClient for Connection {
    async fn query(&mut self, sql: &str) -> Result<Vec<Row>, ProbeError> {
        // The answer that comes next would belong to the question before.
        if std::mem::replace(&mut self.owed, true) {
            return Err(ProbeError { failure: Failure::Lost, detail: "an answer is still owed".to_owned() });
        }
        let mut message = Vec::new();
        write::query(&mut message, sql.as_bytes());
        self.stream.write_all(&message).await.map_err(|error| io_error(&error))?;
        let (mut rows, mut fault, mut taken) = (Vec::new(), None, 0);
        loop {
            let (tag, body) = self.frame().await?;
            taken += body.len();
            if taken > MAX_ANSWER {
                return Err(bad("the answer is too long"));
            }
            match tag {
                back::DATA_ROW => rows.push(row(&body).ok_or_else(|| bad("malformed DataRow"))?),
                back::ERROR => {
                    let fields = ErrorFields::parse(&body);
                    let (code, text) = (String::from_utf8_lossy(fields.code), String::from_utf8_lossy(fields.message));
                    fault = Some(ProbeError { failure: Failure::from_server(&code, &text), detail: text.into_owned() });
                    if fields.is_fatal() {
                        return Err(fault.unwrap_or_else(|| bad("a fatal error")));
                    }
                }
                back::READY => {
                    self.owed = false;
                    return fault.map_or(Ok(rows), Err);
                }
                _ => {}
            }
        }
    }

    /// What arrives meanwhile (a notice, a changed parameter) is taken in and ignored by the next query.
    async fn closed(&mut self) {
        let mut chunk = [0; 1024];
        loop {
            match poll_fn(|cx| self.stream.poll_read(cx, &mut chunk)).await {
                Ok(1..) if self.input.len() > MAX_ANSWER => return,
                Ok(count @ 1..) => self.input.extend_from_slice(&chunk[..count]),
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl Connection {
    fn new(stream: Stream) -> Self {
        Self { stream, input: Vec::new(), taken: 0, owed: false }
    }

    /// The next whole frame.
    async fn frame(&mut self) -> Result<(u8, Vec<u8>), ProbeError> {
        loop {
            let header =
                peek(&self.input[self.taken..], Side::Server).map_err(|fault: Fault| bad(&fault.to_string()))?;
            if let Some(header) = header {
                if header.size > MAX_ANSWER {
                    return Err(bad("a message is too long"));
                }
                if let Some(frame) = self.input.get(self.taken..self.taken + header.size) {
                    self.taken += header.size;
                    return Ok((header.tag, frame[5..].to_vec()));
                }
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk).await {
                Ok(0) => return Err(ProbeError { failure: Failure::Lost, detail: "closed by the server".to_owned() }),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) => return Err(io_error(&error)),
            }
        }
    }
}

fn io_error(error: &io::Error) -> ProbeError {
    ProbeError { failure: Failure::from_io(error), detail: error.to_string() }
}

fn bad(detail: &str) -> ProbeError {
    ProbeError { failure: Failure::BadAnswer, detail: detail.to_owned() }
}

fn row(body: &[u8]) -> Option<Row> {
    let mut reader = Reader::new(body);
    let columns = reader.i16()?;
    let value = |reader: &mut Reader<'_>| match usize::try_from(reader.i32()?) {
        Err(_) => Some(None),
        Ok(length) => Some(Some(String::from_utf8_lossy(reader.bytes(length)?).into_owned())),
    };
    (0..columns).map(|_| value(&mut reader)).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn an_answer_that_was_given_up_is_never_taken_for_the_next_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = tokio::net::TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (mut server, _) = listener.accept().await.expect("accepted");
        let mut connection = Connection::new(Stream::from(client));
        let given_up = tokio::time::timeout(Duration::from_millis(20), connection.query("SELECT 'late'")).await;
        assert!(given_up.is_err());
        let mut answer = Vec::new();
        write::frame(&mut answer, back::DATA_ROW, |out| out.extend_from_slice(b"\0\x01\0\0\0\x04late"));
        write::frame(&mut answer, back::READY, |out| out.push(b'I'));
        let mut asked = [0; 64];
        assert!(server.read(&mut asked).await.expect("asked") > 0);
        server.write_all(&answer).await.expect("answered");
        let error = connection.query("SELECT 'new'").await.expect_err("it would be the answer to the one before");
        assert_eq!(error.failure, Failure::Lost);
    }
}
