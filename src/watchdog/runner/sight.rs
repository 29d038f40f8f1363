//! What is known of each partner beside what the engine needs, for people: whether it hears us, what came by which link, what it says of the
//! group, how its clock goes. Part of the runner; nothing is decided by it, and what is not known is not guessed.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use super::super::engine::{AddressIs, Event, Locked, MemberId, Sight as Life};
use super::super::links::Via;
use super::super::word::{Report, Word};
use super::hands::Hands;
use super::heart::Heart;
use crate::cluster::{self, Clock, Link, NodeId, Says, Vote};
use crate::support::clock::{self, Duration, Instant, millis};

/// Between two reports to partners.
const REPORT: Duration = Duration::from_secs(1);
/// A report that is older says nothing about now.
const STALE: Duration = Duration::from_secs(5);
/// Messages to one partner that are remembered until it has confirmed them: more than it is sent in the time that matters.
const SENT: usize = 64;
/// Addresses of one partner that datagrams came from.
const PLACES: usize = 16;
/// What datagrams from an address come by that nobody has configured.
const STRANGE: &str = "udp from ";
/// A round trip that took longer tells nothing of a clock.
const LONGEST: i64 = 5_000;

/// A link is lost when nothing has come by it for so much longer than it takes to miss a partner, while another one lives.
const LOST: Duration = Duration::from_secs(2);

/// A link by which nothing comes.
#[derive(Debug, Clone, Copy, Default)]
struct Quiet {
    /// Since when another link of the same partner has lived meanwhile.
    since: Option<Instant>,
    told: bool,
}

/// One partner.
#[derive(Debug, Default)]
struct Sight {
    /// When our last messages left, by their numbers.
    sent: VecDeque<(u64, Instant)>,
    /// When the newest message left that it has confirmed.
    confirmed: Option<Instant>,
    /// When something came by its connection, and by datagrams from each address.
    connection: Option<Instant>,
    datagrams: BTreeMap<IpAddr, Instant>,
    /// Its newest report, and when it came.
    report: Option<(Report, Instant)>,
    clock: Option<Clock>,
    /// Links that are missed, by their names.
    quiet: BTreeMap<String, Quiet>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Sights {
    all: BTreeMap<MemberId, Sight>,
    reported: Option<Instant>,
    /// What came of the last attempt at each server's lock, and of the last ping.
    locks: BTreeMap<NodeId, (&'static str, Instant)>,
    trusted: Option<(bool, Instant)>,
}

/// By the wall clock, in milliseconds since 1970.
fn wall() -> i64 {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// To a tenth of a second: a new value each time would be a new text each time.
pub(super) fn age(at: Instant, now: Instant) -> Duration {
    let tenths = now.saturating_duration_since(at).as_millis() / 100 * 100;
    Duration::from_millis(u64::try_from(tenths).unwrap_or(u64::MAX))
}

impl Sights {
    /// A message leaves.
    pub(super) fn sent(&mut self, to: MemberId, number: u64, now: Instant) {
        let sent = &mut self.all.entry(to).or_default().sent;
        sent.push_back((number, now));
        if sent.len() > SENT {
            sent.pop_front();
        }
    }

    /// A frame came.
    pub(super) fn came(&mut self, from: MemberId, via: Via, now: Instant) {
        let sight = self.all.entry(from).or_default();
        match via {
            Via::Connection(_) => sight.connection = Some(now),
            Via::Datagram(address) => {
                let place = address.ip().to_canonical();
                if sight.datagrams.len() < PLACES || sight.datagrams.contains_key(&place) {
                    sight.datagrams.insert(place, now);
                }
            }
        }
    }

    /// It says which message of ours it has had last; 0: none of this process.
    pub(super) fn confirmed(&mut self, from: MemberId, number: u64) {
        let sight = self.all.entry(from).or_default();
        let found = sight.sent.iter().find(|(sent, _)| *sent == number).map(|(_, at)| *at);
        sight.confirmed = sight.confirmed.max(found);
    }

    /// It tells how it sees the group.
    pub(super) fn report(&mut self, from: MemberId, report: Report, now: Instant) {
        let sight = self.all.entry(from).or_default();
        if let Some((ours, held)) = report.echo {
            let here = wall();
            let way = here.saturating_sub(ours).saturating_sub(i64::from(held));
            if (0..=LONGEST).contains(&way) {
                let ahead = report.wall.saturating_add(way / 2).saturating_sub(here);
                sight.clock = Some(Clock { ahead, within: way / 2 + 1 });
            }
        }
        sight.report = Some((report, now));
    }

    /// What came of an attempt at a lock.
    pub(super) fn locked(&mut self, node: NodeId, sent: Instant, locked: Locked) {
        let said = match locked {
            Locked::Mine | Locked::Obtained(_) => "held",
            Locked::Busy => "held by another",
            Locked::Failed => "no answer",
        };
        self.locks.insert(node, (said, sent));
    }

    /// It was given back.
    pub(super) fn unlocked(&mut self, node: NodeId, now: Instant) {
        self.locks.insert(node, ("given back", now));
    }

    /// What came of a ping.
    pub(super) fn pinged(&mut self, answered: bool, sent: Instant) {
        self.trusted = Some((answered, sent));
    }

    /// What others than members have to say; `nodes` may be asked for locks.
    pub(super) fn votes(&self, nodes: &mut dyn Iterator<Item = NodeId>, pinged: bool, now: Instant) -> Vec<Vote> {
        let mut votes: Vec<Vote> = nodes
            .map(|node| {
                let last = self.locks.get(&node);
                let name = format!("lock on node {node}");
                Vote { name, state: last.map(|last| last.0), age: last.map(|last| age(last.1, now)) }
            })
            .collect();
        if pinged {
            let state = self.trusted.map(|(answered, _)| if answered { "one answers" } else { "none answers" });
            let age = self.trusted.map(|(_, at)| age(at, now));
            votes.push(Vote { name: "trusted servers".to_owned(), state, age });
        }
        votes
    }

    /// Which of a partner's links have gone silent while another one lives (true), and which are back, since one last looked. A link
    /// by which nothing ever came, and one that nobody has configured, is not missed.
    pub(super) fn turns(
        &mut self,
        of: MemberId,
        links: &[Link],
        silence: Duration,
        now: Instant,
    ) -> Vec<(String, bool)> {
        let mut turns = Vec::new();
        let lives = |link: &Link| link.heard.is_some_and(|age| age < silence);
        let quiet = &mut self.all.entry(of).or_default().quiet;
        quiet.retain(|name, _| links.iter().any(|link| link.name == *name));
        for link in links.iter().filter(|link| link.heard.is_some() && !link.name.starts_with(STRANGE)) {
            if lives(link) {
                if quiet.remove(&link.name).is_some_and(|quiet| quiet.told) {
                    turns.push((link.name.clone(), false));
                }
                continue;
            }
            let missed = quiet.entry(link.name.clone()).or_default();
            if !links.iter().any(lives) {
                missed.since = None;
            } else if now >= *missed.since.get_or_insert(now) + LOST && !std::mem::replace(&mut missed.told, true) {
                turns.push((link.name.clone(), true));
            }
        }
        turns
    }

    fn fresh(&self, of: MemberId, now: Instant) -> Option<&Sight> {
        self.all.get(&of).filter(|sight| sight.report.as_ref().is_some_and(|(_, at)| now < *at + STALE))
    }

    /// What it says, if it has said so a moment ago.
    pub(super) fn says(&self, of: MemberId, now: Instant) -> Option<Says> {
        let (report, _) = self.fresh(of, now)?.report.as_ref()?;
        let Report { leader, term, epoch, holds_ip, .. } = report.clone();
        Some(Says { leader, term, epoch, holds_ip })
    }

    /// How its clock goes, if it was heard of that a moment ago.
    pub(super) fn clock(&self, of: MemberId, now: Instant) -> Option<Clock> {
        self.fresh(of, now)?.clock
    }

    /// How long ago the newest message left that it has confirmed.
    pub(super) fn heard_by(&self, of: MemberId, now: Instant) -> Option<Duration> {
        self.all.get(&of)?.confirmed.map(|at| age(at, now))
    }
}

impl<H: Hands + 'static> Heart<H> {
    /// Tells partners how this one sees the group, once in a while.
    pub(super) fn report(&mut self, now: Instant) {
        if self.sights.reported.is_some_and(|at| now < at + REPORT) {
            return;
        }
        self.sights.reported = Some(now);
        let standing = &self.standing;
        let name = |id: MemberId| self.settings.members.get(usize::from(id.0)).map(|member| member.name.clone());
        let leader = standing.leader.and_then(name);
        let (term, epoch, holds_ip) = (standing.term.count(), standing.epoch, self.holds_ip);
        let own = self.settings.me;
        let count = u8::try_from(self.settings.members.len()).unwrap_or(u8::MAX);
        for member in (0..count).map(MemberId).filter(|member| *member != own) {
            let echo = self.sights.all.get(&member).and_then(|sight| sight.report.as_ref()).and_then(|(report, at)| {
                let held = u32::try_from(millis(now.saturating_duration_since(*at))).ok()?;
                Some((report.wall, held))
            });
            let report = Report { wall: wall(), echo, leader: leader.clone(), term, epoch, holds_ip };
            self.say(member, Word::Report(report));
        }
    }

    /// What a task says.
    pub(super) fn heed(&mut self, event: Event) -> Event {
        match &event {
            Event::Address(is) => {
                self.holds_ip = match is {
                    AddressIs::Taken => true,
                    AddressIs::Released | AddressIs::Failed(_) | AddressIs::Occupied(_) => false,
                };
                if self.holds_ip {
                    self.troubles.remove("address");
                }
            }
            Event::Trusted { answered, sent } => {
                self.sights.pinged(*answered, *sent);
                self.trusted(*answered);
            }
            Event::Lock { node, sent, locked } => self.sights.locked(*node, *sent, *locked),
            _ => {}
        }
        event
    }

    /// What this proxy sees of the nodes.
    pub(super) fn sights(&self) -> Event {
        let view = self.shared.view();
        let sight = |life| match life {
            cluster::Life::Unknown => Life::Unknown,
            // It says something, be it that it takes nobody.
            cluster::Life::Well | cluster::Life::Busy(_) => Life::Alive,
            cluster::Life::Suspect(_) => Life::Suspect,
            cluster::Life::Dead(_) => Life::Dead,
        };
        Event::Sights(view.nodes.iter().map(|node| (node.id, sight(node.life))).collect(), view.primary)
    }

    /// The ways to and from a member, and what is known of each.
    pub(super) fn links_of(&self, member: MemberId, now: Instant) -> Vec<Link> {
        let Some((_, at)) = self.far(member) else { return Vec::new() };
        let peer = &self.watchdog.peers[at];
        let none = Sight::default();
        let sight = self.sights.all.get(&member).unwrap_or(&none);
        let mut links = vec![Link {
            name: format!("tcp {}:{}", peer.host, peer.port),
            connected: Some(self.links.connected(at).is_some()),
            heard: sight.connection.map(|at| age(at, now)),
        }];
        let mut others = sight.datagrams.clone();
        for address in self.links.heartbeats(at) {
            let (ip, port) = (address.ip().to_canonical(), address.port());
            let heard = others.remove(&ip).map(|at| age(at, now));
            links.push(Link { name: format!("udp {}", std::net::SocketAddr::new(ip, port)), connected: None, heard });
        }
        let from = |(ip, at)| Link { name: format!("{STRANGE}{ip}"), connected: None, heard: Some(age(at, now)) };
        links.extend(others.into_iter().map(from));
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: MemberId = MemberId(1);

    fn report(wall: i64, echo: Option<(i64, u32)>) -> Report {
        Report { wall, echo, leader: Some("a".into()), term: 3, epoch: 2, holds_ip: true }
    }

    #[test]
    fn what_was_not_confirmed_is_not_known() {
        let (mut sights, begun) = (Sights::default(), clock::boot());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(sights.heard_by(OTHER, begun), None);
        (1..=100).for_each(|number| sights.sent(OTHER, number, at(number)));
        for strange in [0, 101, u64::MAX] {
            sights.confirmed(OTHER, strange);
        }
        assert_eq!(sights.heard_by(OTHER, at(100)), None);
        sights.confirmed(OTHER, 99);
        // One that was overtaken takes nothing back.
        sights.confirmed(OTHER, 98);
        assert_eq!(sights.heard_by(OTHER, at(104)), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_clock_is_known_within_half_of_the_way_and_hostile_numbers_are_no_clock() {
        let (mut sights, begun) = (Sights::default(), clock::boot());
        let here = wall();
        sights.report(OTHER, report(here + 90_000, Some((here - 1_100, 1_000))), begun);
        let clock = sights.clock(OTHER, begun).expect("known");
        assert!((89_900..90_200).contains(&clock.ahead) && (50..1_000).contains(&clock.within), "{clock:?}");
        assert_eq!(sights.says(OTHER, begun).expect("heard").leader.as_deref(), Some("a"));
        let later = begun + STALE;
        assert!(sights.clock(OTHER, later).is_none() && sights.says(OTHER, later).is_none(), "it says nothing of now");
        let mut sights = Sights::default();
        for (wall, echo) in [(i64::MAX, None), (0, Some((i64::MAX, 0))), (i64::MIN, Some((i64::MIN, u32::MAX)))] {
            sights.report(OTHER, report(wall, echo), begun);
            assert_eq!(sights.clock(OTHER, begun), None);
        }
    }

    #[test]
    fn links_are_told_apart_and_strange_addresses_are_bounded() {
        let (mut sights, begun) = (Sights::default(), clock::boot());
        for byte in 0..=u8::MAX {
            sights.came(OTHER, Via::Datagram(([10, 0, 0, byte], 9_694).into()), begun);
        }
        sights.came(OTHER, Via::Connection(7), begun);
        let sight = &sights.all[&OTHER];
        assert_eq!((sight.datagrams.len(), sight.connection), (PLACES, Some(begun)));
    }

    #[test]
    fn s24_a_link_that_goes_silent_is_told_once_and_once_when_it_is_back() {
        let (mut sights, begun) = (Sights::default(), clock::boot());
        let silence = Duration::from_secs(1);
        let mut look = |second: u64, ages: [Option<u64>; 4]| {
            let names = ["tcp b:1", "udp 10.0.0.2:1", "udp 10.0.1.2:1", "udp from 10.0.9.9"];
            let link = |(name, age): (&str, Option<u64>)| {
                let heard = age.map(Duration::from_secs);
                Link { name: name.to_owned(), connected: None, heard }
            };
            let links: Vec<Link> = names.into_iter().zip(ages).map(link).collect();
            sights.turns(OTHER, &links, silence, begun + Duration::from_secs(second))
        };
        assert_eq!(look(0, [Some(0), Some(0), None, Some(0)]), []);
        assert_eq!(look(1, [Some(0), Some(1), None, Some(1)]), [], "not at once");
        assert_eq!(look(2, [Some(0), Some(2), None, Some(2)]), []);
        assert_eq!(look(3, [Some(0), Some(3), None, Some(3)]), [("udp 10.0.0.2:1".to_owned(), true)]);
        (4..60).for_each(|second| assert_eq!(look(second, [Some(0), Some(second), None, Some(second)]), [], "once"));
        assert_eq!(look(60, [Some(0), Some(0), None, Some(60)]), [("udp 10.0.0.2:1".to_owned(), false)]);
        // The partner is gone: no link is the worse one. What is heard first when it is back is waited for by the others.
        (61..90).for_each(|second| assert_eq!(look(second, [Some(second - 60), Some(second - 60), None, None]), []));
        assert_eq!(look(90, [Some(30), Some(0), None, None]), []);
        assert_eq!(look(91, [Some(31), Some(0), None, None]), []);
        assert_eq!(look(91, [Some(0), Some(0), None, None]), []);
    }

    #[test]
    fn who_was_not_asked_has_said_nothing() {
        let (mut sights, now) = (Sights::default(), clock::boot());
        sights.locked(NodeId(0), now, Locked::Busy);
        let votes = sights.votes(&mut [NodeId(0), NodeId(1)].into_iter(), true, now);
        let states: Vec<_> = votes.iter().map(|vote| vote.state).collect();
        assert_eq!(states, [Some("held by another"), None, None]);
        assert_eq!(votes[2].name, "trusted servers");
    }
}
