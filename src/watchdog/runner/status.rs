//! The group as people see it. Values only.

use super::super::engine::{Duty, Engine, Hold, MemberStatus, Settings, Standing, State, Writes};
use super::super::seal::Refusals;
use super::super::timings::Arbiter;
use crate::cluster::{Epoch, Group, Partner, Vote};
use crate::config::Watchdog;
use crate::support::clock::{Duration, Instant};

/// What is told beside the engine's own words.
pub(super) struct Beside {
    pub(super) arbiter: Arbiter,
    pub(super) holds_ip: bool,
    pub(super) refusals: Refusals,
    pub(super) cancels: [u64; 3],
    pub(super) votes: Vec<Vote>,
    pub(super) troubles: Vec<String>,
    pub(super) blind: std::collections::BTreeSet<crate::cluster::NodeId>,
}

/// The group now.
pub(super) fn group(
    (engine, settings, watchdog): (&Engine, &Settings, &Watchdog),
    standing: &Standing,
    beside: Beside,
    now: Instant,
) -> Group {
    let mut members: Vec<Partner> = engine.members(now).iter().map(|member| partner(member, watchdog)).collect();
    let own = usize::from(settings.me.0).min(members.len());
    let fitness = engine.own_fitness(now);
    members.insert(
        own,
        Partner {
            name: watchdog.name.clone(),
            host: watchdog.address.clone(),
            port: watchdog.port,
            duty: duty(settings.members.get(own).map_or(Duty::Proxy, |member| member.duty)),
            state: state(Some(engine.own_state(now)), false, true),
            differs: Vec::new(),
            age: None,
            priority: settings.priority,
            trusted: fitness.trusted,
            can_hold: watchdog.virtual_ip.filter(|_| settings.address).map(|_| fitness.hold == Hold::Able),
            primary: fitness.primary,
            nodes: fitness.nodes,
            heard_by: None,
            says: None,
            clock: None,
            links: Vec::new(),
        },
    );
    let Refusals { malformed, forged, strangers, replayed, stale } = beside.refusals;
    Group {
        members,
        own,
        needed: engine.votes_needed(),
        quorum: standing.leader.is_some(),
        arbiter: match beside.arbiter {
            Arbiter::Members => "members",
            Arbiter::Nodes(_) => "nodes",
            Arbiter::Trusted => "trusted",
        },
        virtual_ip: watchdog.virtual_ip,
        holds_ip: beside.holds_ip,
        term: standing.term.count(),
        epoch: Epoch(standing.epoch),
        blind: beside.blind,
        troubles: beside.troubles,
        refused: [malformed, forged, strangers, replayed, stale],
        confirmed: standing.leader.and_then(|id| Some(settings.members.get(usize::from(id.0))?.name.clone())),
        writes: match standing.writes {
            Writes::Until(_) => "lease",
            Writes::Course => "course",
            Writes::Stop => "stop",
        },
        lease: match standing.writes {
            Writes::Until(until) => Some(until.saturating_duration_since(now)),
            Writes::Course | Writes::Stop => None,
        },
        votes: beside.votes,
        cancels: beside.cancels,
    }
}

fn partner(member: &MemberStatus, watchdog: &Watchdog) -> Partner {
    let peer = watchdog.peers.iter().find(|peer| peer.name == member.name);
    Partner {
        name: member.name.clone(),
        host: peer.map_or(String::new(), |peer| peer.host.clone()),
        port: peer.map_or(0, |peer| peer.port),
        duty: duty(member.duty),
        state: state(member.state, member.left, member.met),
        differs: member.differs.clone(),
        // A new value each time would be a new text each time.
        age: member
            .age
            .map(|age| Duration::from_millis(u64::try_from(age.as_millis() / 100 * 100).unwrap_or(u64::MAX))),
        priority: member.priority,
        trusted: member.fitness.trusted,
        can_hold: watchdog.virtual_ip.filter(|_| member.duty == Duty::Proxy).map(|_| member.fitness.hold == Hold::Able),
        primary: member.fitness.primary,
        nodes: member.fitness.nodes,
        heard_by: None,
        says: None,
        clock: None,
        links: Vec::new(),
    }
}

fn duty(duty: Duty) -> &'static str {
    if duty == Duty::Witness { "witness" } else { "proxy" }
}

fn state(state: Option<State>, left: bool, heard: bool) -> &'static str {
    match state {
        _ if left => "SHUTDOWN",
        Some(State::Joining) => "JOINING",
        Some(State::Standby) => "STANDBY",
        Some(State::Leader) => "LEADER",
        Some(State::Leaving) => "LEAVING",
        Some(State::Refused) => "REFUSED",
        None if heard => "LOST",
        None => "UNKNOWN",
    }
}
