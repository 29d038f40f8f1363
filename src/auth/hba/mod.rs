//! Who may come in, from where, and by which method: `pg_hba.conf`'s syntax and its decision, first match counts. Pure
//! but for [`Hba::load`]. What is not supported is refused when the file is read, never skipped.

mod address;
mod parse;
mod tokens;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use address::Addresses;

/// How a client is made to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Not at all.
    Trust,
    /// It is turned away.
    Reject,
    /// Password in clear text.
    Password,
    /// md5 challenge, or SCRAM for users with a SCRAM verifier.
    Md5,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// TLS certificate whose common name is the user.
    Cert,
}

/// Which connections a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `local`: Unix sockets.
    Local,
    /// `host` (and `hostnogssenc`): TCP, encrypted or not.
    Host,
    /// `hostssl`: TCP with TLS.
    HostSsl,
    /// `hostnossl`: TCP without TLS.
    HostNoSsl,
    /// `hostgssenc`: never, there is no GSSAPI encryption here.
    Never,
}

/// A certificate that is demanded besides the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientCert {
    /// None.
    #[default]
    Any,
    /// Signed by the authorities of `[tls] client_ca` (`clientcert=verify-ca`).
    VerifyCa,
    /// And its common name is the user (`clientcert=verify-full`, and method `cert`).
    VerifyFull,
}

/// One entry of the database column.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Database {
    All,
    SameUser,
    Replication,
    Name(String),
}

/// One entry of the user column.
#[derive(Debug, Clone, PartialEq, Eq)]
enum UserName {
    All,
    Name(String),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    transport: Transport,
    databases: Vec<Database>,
    users: Vec<UserName>,
    addresses: Addresses,
    /// What the line says.
    pub method: Method,
    /// A certificate besides.
    pub client_cert: ClientCert,
    /// For the log; from 1.
    pub line: usize,
}

/// A client as far as the rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client<'a> {
    /// None: over a Unix socket.
    pub ip: Option<IpAddr>,
    /// Encrypted.
    pub tls: bool,
    /// It comes from this host itself (`samehost`).
    pub same_host: bool,
    /// In the startup packet.
    pub user: &'a str,
    /// What it wants to reach.
    pub wanted: Wanted<'a>,
}

/// What a client wants to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The database of the startup packet, or the user's name; with `replication=database` too.
    Database(&'a str),
    /// `replication=true`: WAL of no database in particular.
    Wal,
}

/// What is wrong with a file of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {reason}", file.display())]
pub struct HbaError {
    /// The file; an included list has its own name here.
    pub file: PathBuf,
    /// From 1; 0 if the file as a whole cannot be read.
    pub line: usize,
    /// What, and what would be right.
    pub reason: String,
}

/// All rules, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hba(Vec<Rule>);

impl Default for Hba {
    /// Without a file: scram-sha-256 for everyone, local sockets included (SESSIONS R22).
    fn default() -> Self {
        let rule = |transport| Rule {
            transport,
            databases: vec![Database::All, Database::Replication],
            users: vec![UserName::All],
            addresses: Addresses::All,
            method: Method::ScramSha256,
            client_cert: ClientCert::Any,
            line: 0,
        };
        Self(vec![rule(Transport::Local), rule(Transport::Host)])
    }
}

impl Hba {
    /// Reads a file, and the lists it names with `@`.
    pub fn load(file: &Path) -> Result<Self, HbaError> {
        let read = |file: &Path| std::fs::read_to_string(file).map_err(|error| error.to_string());
        let text = read(file).map_err(|reason| HbaError { file: file.to_owned(), line: 0, reason })?;
        Self::parse(&text, file, &read)
    }

    /// Reads the text of `file`; `include` reads the lists named with `@`, relative to the file's folder.
    pub fn parse(text: &str, file: &Path, include: &dyn Fn(&Path) -> Result<String, String>) -> Result<Self, HbaError> {
        parse::rules(text, file, include).map(Self)
    }

    /// The first rule that is about this client. None: it is turned away.
    pub fn decide(&self, client: &Client<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.matches(client))
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }
}

impl Rule {
    fn matches(&self, client: &Client<'_>) -> bool {
        let transport = match (self.transport, client.ip) {
            (Transport::Local, ip) => ip.is_none(),
            (Transport::Never, _) | (_, None) => false,
            (Transport::Host, Some(_)) => true,
            (Transport::HostSsl, Some(_)) => client.tls,
            (Transport::HostNoSsl, Some(_)) => !client.tls,
        };
        transport
            && client.ip.is_none_or(|ip| self.addresses.contain(ip, client.same_host))
            && self.databases.iter().any(|database| database.matches(client))
            && self.users.iter().any(|user| user.matches(client.user))
    }
}

impl Database {
    fn matches(&self, client: &Client<'_>) -> bool {
        match (self, client.wanted) {
            (Self::Replication, wanted) => wanted == Wanted::Wal,
            // PostgreSQL: physical replication is matched by its own word only.
            (_, Wanted::Wal) => false,
            (Self::All, _) => true,
            (Self::SameUser, Wanted::Database(database)) => database == client.user,
            (Self::Name(name), Wanted::Database(database)) => name == database,
        }
    }
}

impl UserName {
    fn matches(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => name == user,
        }
    }
}

#[cfg(test)]
mod tests;
