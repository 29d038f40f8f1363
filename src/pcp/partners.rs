//! The partner proxies, in pgpool-II's words and in ours. Must not ask them anything.

use serde_json::{Value, json};

use crate::cluster::{Group, Link, Partner, Vote};

/// What `pcp_watchdog_info` reads; `only`: −1 for all, 0 for this one, n for the nth of the others.
pub(super) fn pgpool(group: &Group, only: i64, port: u16) -> String {
    let own = group.me();
    let others = group.members.iter().filter(|member| Some(*member) != own);
    let alive = |member: &Partner| matches!(member.state, "LEADER" | "STANDBY" | "JOINING" | "LEAVING");
    let (remote, living) = (others.clone().count(), others.clone().filter(|member| alive(member)).count());
    let leader = group.leader();
    let address = group.virtual_ip.map_or(String::new(), |address| address.to_string());
    // This one is the first, as there.
    let nodes =
        own.into_iter().chain(others).enumerate().filter(|(at, _)| only < 0 || usize::try_from(only) == Ok(*at));
    let nodes: Vec<Value> = nodes
        .map(|(at, member)| {
            json!({
                "ID": at,
                "State": member.pgpool_state(),
                "Membership": 0,
                "MembershipString": "MEMBER",
                "NodeName": member.name,
                "HostName": member.host,
                "StateName": member.state,
                "DelegateIP": address,
                "WdPort": member.port,
                "PgpoolPort": if member.duty == "witness" { 0 } else { port },
                "Priority": member.priority,
            })
        })
        .collect();
    let quorum = match (leader, group.quorum) {
        (None, _) => -2,
        (Some(_), true) => 1,
        (Some(_), false) => -1,
    };
    json!({
        "RemoteNodeCount": remote,
        "MemberRemoteNodeCount": remote,
        "NodesRequireForQuorum": group.needed,
        "QuorumStatus": quorum,
        "AliveNodeCount": living,
        "Escalated": u8::from(group.holds_ip),
        "LeaderNodeName": leader.map_or("Not_Set", |member| &member.name),
        "LeaderHostName": leader.map_or("Not_Set", |member| &member.host),
        "NodeCount": nodes.len(),
        "WatchdogNodes": nodes,
    })
    .to_string()
}

/// The same and what pgpool-II has no words for.
pub(super) fn ours(group: &Group) -> Value {
    let members: Vec<Value> = group.members.iter().enumerate().map(|(at, member)| one(group, at, member)).collect();
    json!({
        "term": group.term,
        "epoch": group.epoch.0,
        "arbiter": group.arbiter,
        "votes_needed": group.needed,
        "votes": group.votes.iter().map(vote).collect::<Vec<_>>(),
        "quorum": group.quorum,
        "leader": group.confirmed,
        "writes": group.writes,
        "lease_seconds": group.lease.map(|left| left.as_secs_f64()),
        "virtual_ip": group.virtual_ip.map(|address| address.to_string()),
        "holds_virtual_ip": group.holds_ip,
        "quarantined": group.blind.iter().map(|node| node.0).collect::<Vec<_>>(),
        "troubles": group.troubles,
        "refused": {
            "malformed": group.refused[0], "forged": group.refused[1], "strangers": group.refused[2],
            "replayed": group.refused[3], "stale": group.refused[4],
        },
        "cancels": { "passed_on": group.cancels[0], "obeyed": group.cancels[1], "refused": group.cancels[2] },
        "members": members,
    })
}

fn vote(vote: &Vote) -> Value {
    json!({ "vote": vote.name, "says": vote.state, "seconds": vote.age.map(|age| age.as_secs_f64()) })
}

/// What is not known is null.
fn one(group: &Group, at: usize, member: &Partner) -> Value {
    let own = at == group.own;
    let known = own || member.is_heard();
    let says = member.says.as_ref();
    let holds = if own { group.holds_ip } else { says.is_some_and(|says| says.holds_ip) };
    let link = |link: &Link| {
        json!({
            "member": member.name,
            "link": link.name,
            "connected": link.connected,
            "heard_seconds": link.heard.map(|age| age.as_secs_f64()),
        })
    };
    json!({
        "name": member.name,
        "host": format!("{}:{}", member.host, member.port),
        "duty": member.duty,
        "state": member.state,
        "this": if own { "*" } else { "" },
        "virtual_ip": group.virtual_ip.filter(|_| holds).map(|ip| ip.to_string()),
        "heard_seconds": member.age.map(|age| age.as_secs_f64()),
        "heard_by_seconds": member.heard_by.map(|age| age.as_secs_f64()),
        "priority": known.then_some(member.priority),
        "reaches_trusted": known.then_some(member.trusted),
        "can_hold_virtual_ip": member.can_hold.filter(|_| known),
        "reaches_primary": known.then_some(member.primary),
        "reaches_nodes": known.then_some(member.nodes),
        "differs": member.differs.join(", "),
        "says_leader": if own { group.confirmed.clone() } else { says.and_then(|says| says.leader.clone()) },
        "says_term": if own { Some(group.term) } else { says.map(|says| says.term) },
        "says_epoch": if own { Some(group.epoch.0) } else { says.map(|says| says.epoch) },
        "clock_ahead_ms": member.clock.map(|clock| clock.ahead),
        "clock_within_ms": member.clock.map(|clock| clock.within),
        "links": member.links.iter().map(link).collect::<Vec<_>>(),
    })
}
