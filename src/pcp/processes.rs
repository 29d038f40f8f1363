//! What the administration port tells of sessions, which are its processes: in pgpool-II's fields and for pgherd's own client. Reads what
//! the sessions show of themselves.

use serde_json::{Value, json};

use crate::cluster::ClusterView;
use crate::config::PcpLayout;
use crate::net::PeerAddr;
use crate::session::Description;
use crate::support::clock::{Instant, SystemTime, stamp};

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    fn stamp(&self, at: Instant) -> String {
        let ago = self.now.saturating_duration_since(at);
        self.wall.checked_sub(ago).map_or(String::new(), stamp)
    }
}

/// The fields of `p ProcessInfo`. A session is a process with one slot of its pool, which holds the server connection in its hands, if any.
pub(super) fn process_info(one: &Description, layout: PcpLayout, view: &ClusterView, moment: Moment) -> Vec<String> {
    let mut fields = one.pgpool_fields(view.primary, moment.now, |at| moment.stamp(at)).to_vec();
    if layout >= PcpLayout::V45 {
        fields.push(u8::from(one.server.is_some_and(|(node, _)| Some(node) != view.primary)).to_string());
    }
    if layout >= PcpLayout::V47 {
        let (host, port) = match one.client {
            PeerAddr::Ip(address) => (address.ip().to_string(), address.port().to_string()),
            PeerAddr::Unix => ("[local]".to_owned(), String::new()),
        };
        fields.extend([host, port, String::new()]);
    }
    fields
}

/// For pgherd's own client.
pub(super) fn json(one: &Description, moment: Moment) -> Value {
    let seconds = |since: Instant| moment.now.saturating_duration_since(since).as_secs_f64();
    json!({
        "session": one.id,
        "database": &*one.database,
        "user": &*one.user,
        "application_name": one.application_name,
        "client": one.client.to_string(),
        "seconds": seconds(one.since),
        "state": one.doing.words(),
        "state_seconds": seconds(one.doing_since),
        "pinned": one.pinned,
        "carried": one.carried,
        "node": one.server.map(|(node, _)| node.0),
        "server_pid": one.server.map(|(_, process)| process),
        "thread": one.thread,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeId;
    use crate::session::Doing;
    use crate::support::clock::{Duration, now};

    #[test]
    fn fields_are_those_of_each_version() {
        let moment = Moment { now: now(), wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_219_840) };
        let at = moment.now.checked_sub(Duration::from_secs(40)).expect("the machine runs for longer");
        let mut one = Description {
            id: 4_194_305,
            thread: 0,
            user: "u".into(),
            database: "d".into(),
            application_name: String::new(),
            client: PeerAddr::Ip("192.0.2.1:77".parse().expect("an address")),
            since: at,
            doing: Doing::InTransaction,
            doing_since: at,
            pinned: None,
            carried: Vec::new(),
            server: Some((NodeId(2), 7121)),
            probes: 0,
            retries: 0,
        };
        let mut view = ClusterView::empty();
        view.primary = Some(NodeId(1));
        let told = |one: &Description, layout| process_info(one, layout, &view, moment).join("|");
        let time = "2026-11-21 00:10:00";
        let common = format!("4194305|{time}|1|0|2|d|u|{time}|{time}||40|3|0|1|7121|1|Idle in transaction");
        assert_eq!(told(&one, PcpLayout::V43), common);
        assert_eq!(told(&one, PcpLayout::V44), common);
        assert_eq!(told(&one, PcpLayout::V45), format!("{common}|1"));
        assert_eq!(told(&one, PcpLayout::V47), format!("{common}|1|192.0.2.1|77|"));
        (one.server, one.doing) = (None, Doing::Active);
        let common = format!("4194305|{time}|1|0|1|d|u||{time}||0|3|0|0|0|0|Execute command");
        assert_eq!(told(&one, PcpLayout::V43), common);
    }
}
