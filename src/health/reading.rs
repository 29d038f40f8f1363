//! What one probe found out: a reading of the server, or the kind of its failure. Owner: `health`. Values and their
//! classification only; must not connect, count or decide.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::senders::{self, SENDERS_COLUMN, STREAM_COLUMNS, Sender, Stream};
use crate::cluster::{History, Lsn, Role, Timeline};

/// Everything that a probe asks in one round trip, one row, PostgreSQL 13 and newer, any role. `OFFSET 0` keeps the role evaluated once, so
/// that a promotion in the middle cannot mix the functions of both roles.
///
/// The primary's timeline comes from the name of its present WAL file: in a server that is not in recovery that name is made from the
/// insertion timeline in shared memory. (HA H6 rules file names out for standbys, where this function refuses to run.)
pub static PROBE_SQL: LazyLock<String> = LazyLock::new(|| {
    format!(
        "\
SELECT r.standby, \
CASE WHEN r.standby THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
CASE WHEN r.standby THEN pg_catalog.pg_last_wal_receive_lsn() END, \
CASE WHEN r.standby THEN NULL ELSE substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END, \
c.timeline_id, s.system_identifier, pg_catalog.current_setting('server_version_num'), \
w.pid, w.status, w.received_tli, \
CASE WHEN NOT r.standby THEN NULL \
WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() THEN 0 \
ELSE (1000 * extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()))::pg_catalog.int8 END, \
CASE WHEN NOT r.standby THEN pg_catalog.current_setting('synchronous_standby_names') END, \
(1000000 * extract(epoch FROM pg_catalog.clock_timestamp()))::pg_catalog.int8, w.flushed_lsn, \
(1000000 * extract(epoch FROM w.last_msg_receipt_time))::pg_catalog.int8, \
{STREAM_COLUMNS}, {SENDERS_COLUMN} \
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) r \
CROSS JOIN pg_catalog.pg_control_system() s CROSS JOIN pg_catalog.pg_control_checkpoint() c \
LEFT JOIN pg_catalog.pg_stat_wal_receiver w ON true"
    )
});

/// The sampler's question: role and position, nothing else.
pub const SAMPLE_SQL: &str = "\
SELECT r.standby, CASE WHEN r.standby THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END \
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) r";

/// A row as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// A standby's WAL receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// No such process: a primary, a standby between two attempts, or one that restores from an archive.
    Absent,
    /// It runs, but the monitor role may not see its columns (it lacks `pg_monitor`).
    Hidden,
    /// It runs and is not (yet) streaming.
    Waiting,
    /// It streams.
    Streaming,
}

/// The answer of one successful probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `Primary` or `Standby`, never `Unknown`.
    pub role: Role,
    /// Primary: inserted. Standby: replayed; 0 if nothing was.
    pub lsn: Lsn,
    /// Standby: received, if anything was since its start.
    pub received: Option<Lsn>,
    /// Primary: insertion timeline. Standby: of what the WAL receiver received, 0 without one.
    pub timeline: Timeline,
    /// Timeline of the last checkpoint or restart point: the server has certainly been on it.
    pub checkpoint_timeline: Timeline,
    /// The WAL receiver.
    pub receiver: Receiver,
    /// The system identifier; servers of one cluster share it.
    pub system: u64,
    /// `server_version_num`.
    pub version: u32,
    /// Standby: age of what was replayed last, zero if nothing waits; `None` if nothing was replayed since the start.
    pub delay: Option<Duration>,
    /// Primary: `synchronous_standby_names` (HA H9).
    pub synchronous: Option<Arc<str>>,
    /// The server's clock, in microseconds since 1970, read after everything else.
    pub clock: i64,
    /// Standby: what its WAL receiver says of itself.
    pub receipt: Option<Receipt>,
    /// Standby: where its WAL receiver is connected to.
    pub stream: Option<Stream>,
    /// Primary: whom it sends to; none if the role may not see it, or there are too many.
    pub senders: Option<Arc<[Sender]>>,
    /// It answered over a connection that was there, and a new one was refused in this way, last time one was tried; put in by whoever
    /// has tried.
    pub refused: Option<Failure>,
    /// Of `timeline`, or of what was received before while nothing is; put in by whoever has asked for it.
    pub history: Option<Arc<History>>,
}

/// A WAL receiver's word, of one moment: the server reads both under one lock, and notes each message before it writes what is in it.
/// So all that was flushed then had come by messages that are not newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// How far it has flushed.
    pub flushed: Lsn,
    /// When its newest message came, by the server's clock, in microseconds since 1970.
    pub at: i64,
}

impl Reading {
    /// Reads the row of [`PROBE_SQL`]; `None` if it has not that shape.
    pub fn from_row(row: &Row) -> Option<Self> {
        let [standby, lsn, received, tli, checkpoint, system, version, rest @ ..] = row.as_slice() else { return None };
        let [pid, status, received_tli, delay, names, clock, flushed, at, rest @ ..] = rest else { return None };
        let [host, port, slot, name, senders] = rest else { return None };
        let role = role(standby.as_deref())?;
        let timeline = match role {
            Role::Primary => Timeline(u32::from_str_radix(tli.as_deref()?, 16).ok()?),
            _ => Timeline(number(received_tli.as_deref()).unwrap_or(0)),
        };
        let receiver = match (pid, status.as_deref()) {
            (None, _) => Receiver::Absent,
            (Some(_), None) => Receiver::Hidden,
            (Some(_), Some("streaming")) => Receiver::Streaming,
            (Some(_), Some(_)) => Receiver::Waiting,
        };
        Some(Self {
            role,
            lsn: position(lsn.as_deref())?,
            received: received.as_deref().and_then(Lsn::parse),
            timeline,
            checkpoint_timeline: Timeline(number(checkpoint.as_deref())?),
            receiver,
            // A bigint in the catalog: above 2^63 it is shown negative.
            system: number::<i64>(system.as_deref())?.cast_unsigned(),
            version: number(version.as_deref())?,
            // Clocks may differ: a negative age is none.
            delay: number::<i64>(delay.as_deref()).map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
            synchronous: names.as_deref().map(Arc::from),
            clock: number(clock.as_deref())?,
            receipt: flushed
                .as_deref()
                .and_then(Lsn::parse)
                .zip(number(at.as_deref()))
                .map(|(flushed, at)| Receipt { flushed, at }),
            stream: Stream::read(host.as_deref(), port.as_deref(), slot.as_deref(), name.as_deref()),
            senders: senders.as_deref().and_then(senders::read),
            refused: None,
            history: None,
        })
    }
}

/// Reads the row of [`SAMPLE_SQL`].
pub fn sample_from_row(row: &Row) -> Option<(Role, Lsn)> {
    let [standby, lsn] = row.as_slice() else { return None };
    Some((role(standby.as_deref())?, position(lsn.as_deref())?))
}

fn role(standby: Option<&str>) -> Option<Role> {
    match standby? {
        "t" => Some(Role::Standby),
        "f" => Some(Role::Primary),
        _ => None,
    }
}

/// A standby that has replayed nothing since its start says NULL: position 0, behind everything.
fn position(text: Option<&str>) -> Option<Lsn> {
    text.map_or(Some(Lsn(0)), Lsn::parse)
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}

/// Why a probe brought no reading. Only some of these mean that a server is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// No route, no such host.
    Unreachable,
    /// No connection, or no end of the login, within the deadline.
    TimedOut,
    /// A connection that was logged in did not answer within the deadline.
    Frozen,
    /// The connection ended, and another attempt within the deadline did too.
    Lost,
    /// The server says that it starts up, or recovers from a crash.
    StartingUp,
    /// The server says that it shuts down.
    ShuttingDown,
    /// The server has no connection slot left for us; it lives.
    TooManyConnections,
    /// Our role, password or database is refused; it lives.
    LoginRefused,
    /// It answers what no PostgreSQL server with the rights that we need would answer.
    BadAnswer,
}

/// What a failure says about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// One of the failures that, often enough in a row, mean that the node is down.
    Counts,
    /// The node's own word: it takes nobody now.
    OwnWord,
    /// The node lives and nothing new is known about it: its status stays.
    Alive,
}

impl Failure {
    /// How it counts.
    pub fn weight(self) -> Weight {
        match self {
            Self::Refused | Self::Unreachable | Self::TimedOut | Self::Frozen | Self::Lost | Self::BadAnswer => {
                Weight::Counts
            }
            Self::StartingUp | Self::ShuttingDown => Weight::OwnWord,
            Self::TooManyConnections | Self::LoginRefused => Weight::Alive,
        }
    }

    /// Of a dial or a read that the operating system ended.
    pub fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => Self::Lost,
            io::ErrorKind::InvalidData => Self::BadAnswer,
            // No route, network down, and what a resolver reports without a kind of its own.
            _ => Self::Unreachable,
        }
    }

    /// Of an error that the server sent. `57P03` says by its text alone whether the server comes or goes; a translated text
    /// is taken for coming, which counts the same. Starting and recovering from a crash ("in recovery mode") have one code, come from one
    /// place in the server, and differ in a translated text only: they are not told apart.
    pub fn from_server(sqlstate: &str, message: &str) -> Self {
        match sqlstate {
            "57P03" if message.contains("shutting down") => Self::ShuttingDown,
            "57P03" => Self::StartingUp,
            "57P01" | "57P02" | "57P05" => Self::Lost,
            "53300" => Self::TooManyConnections,
            "3D000" | "42501" => Self::LoginRefused,
            _ if sqlstate.starts_with("28") => Self::LoginRefused,
            _ => Self::BadAnswer,
        }
    }

    /// For people, and the reason of a view.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "connecting timed out",
            Self::Frozen => "connected, but does not answer",
            Self::Lost => "connection lost",
            Self::StartingUp => "starting up",
            Self::ShuttingDown => "shutting down",
            Self::TooManyConnections => "too many connections",
            Self::LoginRefused => "the monitor role is refused",
            Self::BadAnswer => "answer not understood",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row {
        text.split('|').map(|field| (field != "~").then(|| field.to_owned())).collect()
    }

    #[test]
    fn a_primary_is_read() {
        let reading = Reading::from_row(&row(
            "f|0/3000060|~|00000002|1|-9223372036854775807|150014|~|~|~|~|~|9|~|~|~|~|~|~|streaming sync  a",
        ))
        .expect("reads");
        assert_eq!(
            (reading.role, reading.timeline, reading.checkpoint_timeline),
            (Role::Primary, Timeline(2), Timeline(1))
        );
        assert_eq!(reading.system, 0x8000_0000_0000_0001);
        assert_eq!((reading.receiver, &reading.stream), (Receiver::Absent, &None));
        assert_eq!(reading.senders.expect("read").len(), 1);
    }

    #[test]
    fn a_standby_is_read_with_and_without_receiver() {
        let streaming = Reading::from_row(&row(
            "t|0/3000060|0/3000080|~|1|7|150014|99|streaming|1|12|~|9|0/3000080|8|db1|5432|~|a|~",
        ))
        .expect("reads");
        assert_eq!((streaming.receiver, streaming.timeline), (Receiver::Streaming, Timeline(1)));
        assert_eq!(streaming.delay, Some(Duration::from_millis(12)));
        assert_eq!(streaming.stream.map(|stream| stream.upstream.to_string()).as_deref(), Some("db1:5432"));
        assert_eq!((streaming.clock, streaming.receipt), (9, Some(Receipt { flushed: Lsn(0x300_0080), at: 8 })));
        let hidden =
            Reading::from_row(&row("t|0/3000060|0/3000080|~|1|7|150014|99|~|~|-5|~|9|~|~|~|~|~|~|~")).expect("reads");
        assert_eq!(
            (hidden.receiver, hidden.timeline, hidden.delay),
            (Receiver::Hidden, Timeline(0), Some(Duration::ZERO))
        );
        let fresh = Reading::from_row(&row("t|~|~|~|1|7|150014|~|~|~|~|~|9|~|~|~|~|~|~|~")).expect("reads");
        assert_eq!((fresh.lsn, fresh.receiver, fresh.delay), (Lsn(0), Receiver::Absent, None));
    }

    #[test]
    fn what_is_said_of_streams_spoils_no_reading() {
        for text in ["   ", "\u{1b}[2J", "streaming\nsync", "streaming sure  a"] {
            let primary = format!("f|0/1|~|00000001|1|7|150014|~|~|~|~|~|9|~|~|~|~|~|~|{text}");
            assert_eq!(Reading::from_row(&row(&primary)).expect("read").senders, None, "{text:?}");
            let standby = format!("t|0/1|0/1|~|1|7|150014|9|streaming|1|~|~|9|~|~|{text}|{text}|{text}|{text}|{text}");
            let standby = Reading::from_row(&row(&standby)).expect("read");
            assert_eq!((standby.receiver, standby.stream), (Receiver::Streaming, None), "{text:?}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "t",
            "x|0/1|~|~|1|7|150014|~|~|~|~|~|9|~|~|~|~|~|~|~",
            "f|0/1|~|~|1|7|150014|~|~|~|~|~|9|~|~|~|~|~|~|~",
            "f|zz|~|00000001|1|7|150014|~|~|~|~|~|9|~|~|~|~|~|~|~",
            "f|0/1|~|00000001|1|7|150014|~|~|~|~|~|9|~|~|~|~|~|~",
            "f|0/1|~|00000001|1|7|150014|~|~|~|~|~|9|~|~|~|~|~|~|~|~",
        ] {
            assert_eq!(Reading::from_row(&row(text)), None, "{text}");
        }
    }

    #[test]
    fn only_some_failures_mean_a_dead_server() {
        assert_eq!(Failure::from_server("57P03", "the database system is starting up").weight(), Weight::OwnWord);
        assert_eq!(Failure::from_server("57P03", "the database system is shutting down"), Failure::ShuttingDown);
        assert_eq!(Failure::from_server("53300", "").weight(), Weight::Alive);
        assert_eq!(Failure::from_server("28P01", ""), Failure::LoginRefused);
        assert_eq!(Failure::from_server("57P01", "").weight(), Weight::Counts);
        assert_eq!(Failure::from_io(&io::ErrorKind::ConnectionRefused.into()), Failure::Refused);
        assert_eq!(Failure::from_io(&io::ErrorKind::HostUnreachable.into()), Failure::Unreachable);
    }
}
