//! `pgherd run --once`: a start that does not come about at the first try ends the process with the reason, instead of waiting for better times
//! (SCENARIOS S1, S2, S4). Looks at what the watchdog tells; must not decide anything else.

use crate::cluster::Group;
use crate::config::Watchdog;
use crate::support::clock::{Duration, Instant, now};
use crate::watchdog::timings::Timings;

use super::Running;

/// What a proxy without `--once` tells of, and then tries again.
const HITCHES: [&str; 6] =
    ["trusted_silent", "address_occupied", "address_unavailable", "address_unfit", "member_refused", "watchdog_deaf"];
/// Beyond the times after which a lone member leads at the latest: for a busy machine.
const GRACE: Duration = Duration::from_secs(5);

/// How a start goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Nobody knows yet.
    UnderWay,
    /// It serves, or stands by.
    Done,
    /// It would have to wait for something; for people.
    Failed(String),
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Once {
    watchdog: Option<Watchdog>,
    until: Instant,
}

impl Once {
    pub(super) fn new(running: &Running) -> Self {
        let watchdog = running.settings().watchdog.clone();
        // A voter that has just started is quiet for so long; with locks as the third vote they must ripen for as long again.
        let quiet = watchdog.as_ref().map_or(Duration::ZERO, |watchdog| Timings::of(watchdog.lease).clear());
        Self { watchdog, until: now() + quiet * 2 + GRACE }
    }

    pub(super) fn look(&self, running: &Running) -> Start {
        let Some(watchdog) = &self.watchdog else { return Start::Done };
        let cluster = running.cluster();
        let events = cluster.events.since(0, crate::cluster::KEPT);
        if let Some(hitch) = events.iter().find(|event| event.who == "watchdog" && HITCHES.contains(&event.name)) {
            return Start::Failed(hitch.why.clone());
        }
        match &*cluster.group.load() {
            Some(group) if settled(watchdog, group) => Start::Done,
            _ if now() < self.until => Start::UnderWay,
            _ => Start::Failed("no majority has confirmed a leader".to_owned()),
        }
    }
}

/// It leads and has the address, or another one leads; a trusted server answers, if there are any.
fn settled(watchdog: &Watchdog, group: &Group) -> bool {
    let answers = |vote: &crate::cluster::Vote| vote.name == "trusted servers" && vote.state == Some("one answers");
    let trusted = watchdog.trusted_servers.is_empty() || group.votes.iter().any(answers);
    let own = group.confirmed.as_ref() == Some(&watchdog.name);
    trusted && group.confirmed.is_some() && (!own || watchdog.virtual_ip.is_none() || group.holds_ip)
}
