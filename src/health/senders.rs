//! Who sends write-ahead log to whom, as the servers say it: the sending processes of the primary, and which of them is a standby's. Owner:
//! `health`. Pure; what a server says is bounded and cleaned here, and nobody's order of names is guessed at.

use std::sync::Arc;

/// Sending processes that are looked at; a server that has more is not understood.
pub const MOST: usize = 256;

/// Characters of a host, a slot or a name that are kept.
const LONGEST: usize = 255;

/// Bytes of an `application_name` that a server keeps.
const LONGEST_NAME: usize = 63;

/// Columns for the probe of a standby: whom it streams from, by which slot, and what it calls itself there. A connection's words in
/// `conninfo` are shown without quotes, so that a value ends where the next word begins; a password is not shown.
pub(super) const STREAM_COLUMNS: &str = "w.sender_host, w.sender_port, w.slot_name, \
coalesce(substring(pg_catalog.concat(' ', w.conninfo, ' x=') FROM ' application_name=(.*?) [a-z_]+='), \
substring(pg_catalog.concat(' ', w.conninfo, ' x=') FROM ' fallback_application_name=(.*?) [a-z_]+='))";

/// A column for the probe of a primary: a line for each sending process. What others choose freely, the name, stands last; the server keeps
/// control characters out of it. Not `pg_stat_replication`, which reads all sessions in order to find these.
pub(super) const SENDERS_COLUMN: &str = "CASE WHEN NOT r.standby THEN (SELECT coalesce(pg_catalog.string_agg(\
pg_catalog.format('%s %s %s %s', x.state, x.sync_state, g.slot_name, a.application_name), pg_catalog.chr(10)), '') \
FROM (SELECT pid, state, sync_state FROM pg_catalog.pg_stat_get_wal_senders() LIMIT 257) x \
CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity(x.pid) a \
LEFT JOIN pg_catalog.pg_get_replication_slots() g ON g.active_pid = x.pid) END";

/// Where a standby's WAL receiver is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// `host:port` as the standby knows it; a folder for a host is that of a socket.
    pub upstream: Arc<str>,
    /// The slot that it streams by.
    pub slot: Option<Arc<str>>,
    /// Its `application_name` there; none if it is one that a server changes, which each version does in its own way.
    pub name: Option<Arc<str>>,
}

impl Stream {
    /// Of the columns; none where there is no receiver, or it cannot be seen.
    pub(super) fn read(host: Option<&str>, port: Option<&str>, slot: Option<&str>, name: Option<&str>) -> Option<Self> {
        let some = |text: &str| (!text.is_empty()).then(|| clean(text));
        let (host, port) = (clean(host?), port?.parse::<u16>().ok()?);
        let upstream = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let kept = |name: &&str| name.len() <= LONGEST_NAME && name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        Some(Self { upstream: upstream.into(), slot: slot.and_then(some), name: name.filter(kept).and_then(some) })
    }
}

/// One process of a primary that sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// `pg_stat_replication.state`.
    pub state: &'static str,
    /// `pg_stat_replication.sync_state`.
    pub sync: &'static str,
    /// The slot that it sends by; empty: none.
    pub slot: Arc<str>,
    /// What its receiver calls itself.
    pub name: Arc<str>,
}

const STATES: [&str; 5] = ["startup", "catchup", "streaming", "backup", "stopping"];
const SYNCS: [&str; 4] = ["async", "potential", "sync", "quorum"];

/// Reads the lines of [`SENDERS_COLUMN`]: all, or none if one is not understood, be it that the role may not see it.
pub(super) fn read(text: &str) -> Option<Arc<[Sender]>> {
    let senders: Option<Vec<Sender>> =
        text.split('\n').filter(|line| !line.is_empty()).take(MOST + 1).map(line).collect();
    senders.filter(|senders| senders.len() <= MOST).map(Arc::from)
}

fn line(line: &str) -> Option<Sender> {
    let mut words = line.splitn(4, ' ');
    let mut known = |list: &[&'static str]| {
        let word = words.next()?;
        list.iter().copied().find(|known| *known == word)
    };
    let (state, sync) = (known(&STATES)?, known(&SYNCS)?);
    let mut word = || words.next().map(clean);
    Some(Sender { state, sync, slot: word()?, name: word()? })
}

/// Not longer than [`LONGEST`], and without what a terminal would obey.
fn clean(text: &str) -> Arc<str> {
    let shown = |letter: char| if letter.is_control() { '?' } else { letter };
    text.chars().take(LONGEST).map(shown).collect::<String>().into()
}

/// State and `sync_state` of a standby that streams, as its primary has them. `all` are the streams of all standbys, its own among them.
///
/// By its slot and its name it is known for certain. By its name it is if all senders of that name say the same and each standby of that name
/// can have one of them. Nobody of that name, nor of its slot: it streams from another server, and acknowledges nothing to the primary. Else
/// nobody can tell, and the second word is empty.
pub(super) fn told<'a>(
    stream: Option<&Stream>,
    senders: Option<&[Sender]>,
    all: impl Iterator<Item = &'a Stream>,
) -> (&'static str, &'static str) {
    let unknown = ("streaming", "");
    let known = stream.zip(senders).and_then(|(stream, senders)| Some((stream, stream.name.as_deref()?, senders)));
    let Some((stream, name, senders)) = known else { return unknown };
    let of_slot = senders.iter().find(|sender| stream.slot.as_deref() == Some(&*sender.slot));
    if let Some(sender) = of_slot.filter(|sender| *sender.name == *name) {
        return (sender.state, sender.sync);
    }
    let mut namesakes = senders.iter().filter(|sender| *sender.name == *name);
    let Some(first) = namesakes.next() else { return if of_slot.is_some() { unknown } else { ("streaming", "async") } };
    let same = namesakes.clone().all(|sender| (sender.state, sender.sync) == (first.state, first.sync));
    let standbys = all.filter(|other| other.name.as_deref() == Some(name)).count();
    if same && standbys <= namesakes.count() + 1 { (first.state, first.sync) } else { unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(slot: &str, name: &str) -> Stream {
        Stream::read(Some("a"), Some("5432"), Some(slot), Some(name)).expect("read")
    }

    #[test]
    fn a_stream_is_read_bounded_and_cleaned() {
        let read = |host| Stream::read(Some(host), Some("5432"), None, None).map(|stream| stream.upstream.to_string());
        assert_eq!(read("10.0.0.1").as_deref(), Some("10.0.0.1:5432"));
        assert_eq!(read("fd00::1").as_deref(), Some("[fd00::1]:5432"));
        assert_eq!(read("/run/postgresql").as_deref(), Some("/run/postgresql:5432"));
        assert_eq!(read("a\u{1b}[2J\n").as_deref(), Some("a?[2J?:5432"));
        assert_eq!(read(&"ü".repeat(100_000)).map(|text| text.chars().count()), Some(LONGEST + 5));
        let name = |name| Stream::read(Some("a"), Some("1"), Some(""), Some(name)).expect("read").name;
        assert_eq!(name("a b").as_deref(), Some("a b"));
        for name in [name(""), name("ü"), name("a\n"), name(&"a".repeat(64))] {
            assert_eq!(name, None);
        }
        for (host, port) in [(None, Some("1")), (Some("a"), None), (Some("a"), Some("-1")), (Some("a"), Some("x"))] {
            assert_eq!(Stream::read(host, port, None, None), None, "{host:?} {port:?}");
        }
    }

    #[test]
    fn whatever_a_name_is_the_lines_of_the_senders_are_read() {
        let senders =
            read("streaming sync  a b  c\ncatchup async mine x\nbackup async  \nstreaming quorum  streaming sync  z");
        let senders = senders.expect("read");
        let shown: Vec<_> = senders.iter().map(|one| (one.state, one.sync, &*one.slot, &*one.name)).collect();
        assert_eq!(
            shown,
            [
                ("streaming", "sync", "", "a b  c"),
                ("catchup", "async", "mine", "x"),
                ("backup", "async", "", ""),
                ("streaming", "quorum", "", "streaming sync  z")
            ]
        );
        assert_eq!(read("").as_deref().map(<[Sender]>::len), Some(0));
        // Without pg_monitor; a later version's word; too few words; a server that lies.
        for text in ["   ", "streaming sync", "flowing sync  a", "streaming sure  a", "\u{0}", "streaming sync  a\nx"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        let many = |count| vec!["streaming async  a"; count].join("\n");
        assert_eq!(read(&many(MOST)).as_deref().map(<[Sender]>::len), Some(MOST));
        assert_eq!(read(&many(MOST + 1)), None);
        assert_eq!(read(&many(1_000_000)), None);
    }

    #[test]
    fn the_primary_says_how_a_standby_counts() {
        let senders = read(
            "streaming sync  b\nstreaming sync  c\ncatchup potential slot2 walreceiver\nstreaming async  walreceiver",
        );
        let senders = senders.as_deref();
        let names = ["b", "c", "d", "walreceiver", "walreceiver"].map(|name| stream("", name));
        let of = |stream: &Stream| told(Some(stream), senders, names.iter());
        assert_eq!((of(&names[0]), of(&names[1])), (("streaming", "sync"), ("streaming", "sync")));
        assert_eq!(of(&names[2]), ("streaming", "async"), "it streams from another standby");
        assert_eq!(of(&names[3]), ("streaming", ""), "there are two, and they differ");
        assert_eq!(of(&stream("slot2", "walreceiver")), ("catchup", "potential"));
        assert_eq!(of(&stream("slot3", "b")), ("streaming", "sync"), "a slot of another server");
        assert_eq!(of(&stream("slot2", "d")), ("streaming", ""), "cascaded, by a slot of the same name, or not");
        assert_eq!(told(None, senders, names.iter()), ("streaming", ""));
        assert_eq!(told(Some(&names[0]), None, names.iter()), ("streaming", ""));
        // One sender, two standbys of its name: one of them is cascaded, and nobody knows which.
        let one = read("streaming sync  walreceiver");
        assert_eq!(told(Some(&names[3]), one.as_deref(), names.iter()), ("streaming", ""));
        assert_eq!(told(Some(&names[3]), one.as_deref(), names[..4].iter()), ("streaming", "sync"));
    }
}
