//! A client that speaks exact bytes. Every read has a deadline; nothing is interpreted beyond the frames.

use std::fmt;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long any single read or write may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One message of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Frame {
    /// The field `code` of an error or notice.
    pub fn field(&self, code: u8) -> Option<String> {
        let fields = self.body.split(|byte| *byte == 0);
        let found = fields.into_iter().find(|field| field.first() == Some(&code))?;
        Some(String::from_utf8_lossy(&found[1..]).into_owned())
    }

    /// An error without the lines of PostgreSQL's source that raised it, which whoever raises the same cannot know.
    pub fn without_source(mut self) -> Self {
        if matches!(self.tag, b'E' | b'N') {
            let fields = self.body.split(|byte| *byte == 0);
            let kept = fields.filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')));
            self.body = kept.collect::<Vec<_>>().join(&0);
        }
        self
    }

    /// The SQLSTATE, if this is an error.
    pub fn sqlstate(&self) -> Option<String> {
        (self.tag == b'E').then(|| self.field(b'C')).flatten()
    }

    /// The columns of a DataRow as text; NULL is `None`.
    pub fn columns(&self) -> Vec<Option<String>> {
        assert_eq!(self.tag, b'D', "not a row: {self:?}");
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        while !rest.is_empty() {
            let length = i32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
            rest = &rest[4..];
            let Ok(length) = usize::try_from(length) else {
                columns.push(None);
                continue;
            };
            columns.push(Some(String::from_utf8_lossy(&rest[..length]).into_owned()));
            rest = &rest[length..];
        }
        columns
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(200)];
        write!(f, "{}[{}]\"{}\"", self.tag as char, self.body.len(), shown.escape_ascii())
    }
}

/// The first column of each row.
pub fn values(frames: &[Frame]) -> Vec<String> {
    let rows = frames.iter().filter(|frame| frame.tag == b'D');
    rows.map(|row| row.columns()[0].clone().unwrap_or_else(|| "NULL".to_owned())).collect()
}

/// The tags of all frames, as a string.
pub fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| frame.tag as char).collect()
}

/// A connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    /// From BackendKeyData: process id and secret.
    pub key: Vec<u8>,
    /// What came between AuthenticationOk and the first ReadyForQuery.
    pub greeting: Vec<Frame>,
}

impl RawClient {
    /// Connects and sends nothing.
    pub fn connect(port: u16) -> Result<Self> {
        Self::connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)
    }

    /// The same with any address, and its own time for connecting.
    pub fn connect_to(address: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, key: Vec::new(), greeting: Vec::new() })
    }

    /// Logs in where `trust` is the rule; must succeed.
    pub fn login(port: u16, database: &str) -> Self {
        Self::try_login(port, "postgres", database).expect("a login")
    }

    /// Logs in; an ErrorResponse becomes an error.
    pub fn try_login(port: u16, user: &str, database: &str) -> Result<Self> {
        Self::try_login_with(port, &[("user", user), ("database", database)])
    }

    /// Logs in with these startup parameters.
    pub fn try_login_with(port: u16, parameters: &[(&str, &str)]) -> Result<Self> {
        let mut client = Self::connect(port)?;
        client.greet(parameters)?;
        Ok(client)
    }

    /// Logs in as `postgres` at any address; connecting may take `limit`, and so may the rest of the login.
    pub fn login_at(address: SocketAddr, limit: Duration) -> Result<Self> {
        let mut client = Self::connect_to(address, limit)?;
        client.patience(limit);
        client.greet(&[("user", "postgres"), ("database", "postgres")])?;
        client.patience(PATIENCE);
        Ok(client)
    }

    fn greet(&mut self, parameters: &[(&str, &str)]) -> Result<()> {
        self.send(&startup(196_608, parameters))?;
        let frames = self.until_ready()?;
        if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
            return Err(Error::other(format!("{error:?}")));
        }
        if let Some(key) = frames.iter().find(|frame| frame.tag == b'K') {
            self.key.clone_from(&key.body);
        }
        self.greeting = frames;
        Ok(())
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one whole message.
    pub fn frame(&mut self) -> Result<Frame> {
        let (tag, length) = self.header()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Frame { tag, body })
    }

    /// Reads a message's kind and the length of its body, which is still to be read.
    pub fn header(&mut self) -> Result<(u8, usize)> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let Some(length) = length.checked_sub(4) else {
            return Err(Error::new(ErrorKind::InvalidData, format!("a length of {length}")));
        };
        Ok((header[0], length as usize))
    }

    /// Reads one message and throws its body away without holding it; the kind and the body's length.
    pub fn skim(&mut self) -> Result<(u8, u64)> {
        let (tag, length) = self.header()?;
        let skimmed = std::io::copy(&mut (&mut self.stream).take(length as u64), &mut std::io::sink())?;
        Ok((tag, skimmed))
    }

    /// Reads up to the next ReadyForQuery, or to an error that ends the connection.
    pub fn until_ready(&mut self) -> Result<Vec<Frame>> {
        self.until(|frame| frame.tag == b'Z')
    }

    /// Reads until `last` holds for a frame, which is included. An end of the connection right after an
    /// ErrorResponse ends it, too.
    pub fn until(&mut self, mut last: impl FnMut(&Frame) -> bool) -> Result<Vec<Frame>> {
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            match self.frame() {
                Ok(frame) => {
                    let done = last(&frame);
                    frames.push(frame);
                    if done {
                        return Ok(frames);
                    }
                }
                Err(_) if frames.last().is_some_and(|frame| frame.tag == b'E') => return Ok(frames),
                Err(error) => return Err(Error::new(error.kind(), format!("{error}, after {frames:?}"))),
            }
        }
    }

    /// A simple query and all of its answer.
    pub fn try_query(&mut self, sql: &str) -> Result<Vec<Frame>> {
        self.send(&query(sql))?;
        self.until_ready()
    }

    /// A simple query that must be answered, by an error or not.
    pub fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.try_query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of a query that must succeed.
    pub fn values(&mut self, sql: &str) -> Vec<String> {
        let frames = self.query(sql);
        assert!(!tags(&frames).contains('E'), "{sql}: {frames:?}");
        values(&frames)
    }

    /// Sends a cancel request for this client on a connection of its own, and waits until that is closed.
    pub fn cancel(&self, port: u16) {
        let mut other = Self::connect(port).expect("a connection");
        other.send(&cancel_request(&self.key)).expect("sent");
        assert!(other.ended(), "a cancel connection is closed without an answer");
    }

    /// Waits for the server to close; what comes before that is thrown away. False when it stays open.
    pub fn ended(&mut self) -> bool {
        let mut buffer = [0; 8192];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// Says that nothing more will be sent; reading goes on.
    pub fn finish_sending(&mut self) {
        // It may have been closed by the other side already.
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// How long a read may take from now on.
    pub fn patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a valid time");
    }

    /// The socket itself.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// A message: kind, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short enough");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A startup packet of protocol `version` (196608 is 3.0).
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    untyped(&body)
}

/// A message without a kind, as before login.
pub fn untyped(body: &[u8]) -> Vec<u8> {
    message(0, body)[1..].to_vec()
}

pub fn ssl_request() -> Vec<u8> {
    untyped(&80_877_103_u32.to_be_bytes())
}

pub fn gss_request() -> Vec<u8> {
    untyped(&80_877_104_u32.to_be_bytes())
}

pub fn cancel_request(key: &[u8]) -> Vec<u8> {
    untyped(&[&80_877_102_u32.to_be_bytes(), key].concat())
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0"].concat();
    body.extend(u16::try_from(types.len()).expect("few").to_be_bytes());
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    message(b'P', &body)
}

/// A Bind with parameters and results as text.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    bind_with(portal, statement, parameters, &[])
}

/// A Bind with parameters as text and these result formats.
pub fn bind_with(portal: &str, statement: &str, parameters: &[Option<&str>], formats: &[u16]) -> Vec<u8> {
    let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0", &[0, 0]].concat();
    body.extend(u16::try_from(parameters.len()).expect("few").to_be_bytes());
    for parameter in parameters {
        let length = parameter.map_or(-1, |value| i32::try_from(value.len()).expect("short"));
        body.extend(length.to_be_bytes());
        body.extend(parameter.unwrap_or_default().as_bytes());
    }
    body.extend(u16::try_from(formats.len()).expect("few").to_be_bytes());
    formats.iter().for_each(|format| body.extend(format.to_be_bytes()));
    message(b'B', &body)
}

/// Describe: `kind` is `S` or `P`.
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[kind], name.as_bytes(), b"\0"].concat())
}

/// Close: `kind` is `S` or `P`.
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[&[kind], name.as_bytes(), b"\0"].concat())
}

/// Execute; 0 rows means all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

pub fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', data)
}

pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

pub fn copy_fail(reason: &str) -> Vec<u8> {
    message(b'f', &[reason.as_bytes(), b"\0"].concat())
}

/// A FunctionCall with arguments and result as text.
pub fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(u16::try_from(arguments.len()).expect("few").to_be_bytes());
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).expect("short").to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    message(b'F', &body)
}
