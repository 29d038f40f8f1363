//! What pgpool-II has no table for: sessions, who waits and since when, who is pinned and why, where statements went and why, pools,
//! events, the statements that take most time. Must not change anything.

use crate::cluster::NodeId;
use crate::routing::{Reason, Traces};
use crate::session::context::Context;
use crate::session::counters::Counters;
use crate::session::look::Where;
use crate::session::shown::Doing;
use crate::session::survey::Survey;
use crate::session::{Count, Description, Global, Session, top};
use crate::support::clock::{Instant, now, stamp};

use super::{Rows, millis, seconds, texts};

pub(super) const SESSIONS: &[&str] = &[
    "session",
    "thread",
    "database",
    "username",
    "application_name",
    "client",
    "seconds",
    "state",
    "state_seconds",
    "pinned",
    "carried",
    "node_id",
    "server_pid",
    "probes",
    "retries",
];

pub(super) const NODES: &[&str] = &[
    "node_id",
    "name",
    "status",
    "role",
    "lb_weight",
    "lsn",
    "timeline",
    "lag_bytes",
    "delay_ms",
    "epoch",
    "why",
    "replication_state",
    "sync_state",
    "upstream",
    "slot",
];
pub(super) const WAITING: &[&str] = &["session", "database", "username", "seconds"];
pub(super) const PINNED: &[&str] = &["session", "database", "username", "node_id", "server_pid", "reason", "state"];
pub(super) const ROUTING: &[&str] = &["target", "reason", "requests", "explanation"];
pub(super) const POOLS: &[&str] =
    &["node_id", "database", "username", "size", "open", "idle", "waiting", "longest_wait_ms", "pinned"];
pub(super) const EVENTS: &[&str] =
    &["number", "time", "severity", "event", "who", "node_id", "from", "to", "why", "epoch", "took_ms"];
pub(super) const WATCHDOG: &[&str] = &[
    "name",
    "host",
    "port",
    "duty",
    "state",
    "this",
    "virtual_ip",
    "term",
    "epoch",
    "heard_seconds",
    "priority",
    "reaches_trusted",
    "reaches_primary",
    "reaches_nodes",
    "differs",
    "troubles",
    "heard_by_seconds",
    "says_leader",
    "says_term",
    "says_epoch",
    "clock_ahead_ms",
    "links",
    "can_hold_virtual_ip",
];
pub(super) const STATEMENTS: &[&str] =
    &["database", "username", "calls", "total_ms", "mean_ms", "waiting_ms", "slowest_ms", "statement"];

impl Session {
    /// Where a statement would go now, and why.
    pub(super) fn show_route(&mut self, text: &str) -> Rows {
        let looked = self.look(text.as_bytes());
        let verdict = looked.verdict.verdict;
        let (target, reason) = if looked.standby_ok() {
            let survey = Survey::of_text(looked.clone());
            let (place, reason) = self.place_and_reason(&survey, &[]);
            match place {
                Where::Standby(node) => (format!("standby {node}"), reason),
                Where::Primary => ("primary".to_owned(), reason),
            }
        } else {
            ("primary".to_owned(), verdict.reason)
        };
        let opaque = if verdict.traces == Traces::Opaque { "yes" } else { "no" };
        vec![texts([target.as_str(), reason.name(), Context::sentence(reason), opaque].map(str::to_owned))]
    }
}

/// What all data threads have counted together, and how old the samples of the servers' positions are.
pub(super) fn counters(global: &Global) -> Rows {
    let sum = |of: &fn(&Counters) -> &Count| global.sum(|one| of(one).get());
    let mut all: Vec<_> = Counters::ALL.iter().map(|(name, of)| ((*name).to_owned(), sum(of))).collect();
    all.push(("held_now".to_owned(), u64::from(global.held.waiting())));
    let (view, now) = (global.cluster.view(), now());
    for node in &view.nodes {
        if let Some(sample) = global.cluster.samples.newest(node.id).filter(|sample| sample.epoch == view.epoch) {
            let age = now.saturating_duration_since(sample.asked).as_millis();
            all.push((format!("sample_age_ms_node_{}", node.id), u64::try_from(age).unwrap_or(u64::MAX)));
        }
    }
    all.into_iter().map(|(name, number)| texts([name, number.to_string()])).collect()
}

/// One row for each session. Others' are shown to those who see all; the rest sees who they are and what they do.
pub(super) fn sessions(all: Vec<Description>, sees_all: bool, user: &str) -> Rows {
    let now = now();
    let since = |at: Instant| seconds(now.saturating_duration_since(at));
    let row = |one: Description| {
        let own = sees_all || *one.user == *user;
        let private = |text: String| own.then_some(text);
        vec![
            Some(one.id.to_string()),
            Some(one.thread.to_string()),
            Some(one.database.to_string()),
            Some(one.user.to_string()),
            private(one.application_name),
            private(one.client.to_string()),
            Some(since(one.since)),
            Some(one.doing.words().to_owned()),
            Some(since(one.doing_since)),
            one.pinned,
            private(one.carried.join(", ")),
            one.server.map(|(node, _)| node.to_string()),
            one.server.map(|(_, process)| process.to_string()),
            Some(one.probes.to_string()),
            Some(one.retries.to_string()),
        ]
    };
    all.into_iter().map(row).collect()
}

/// Sessions that wait for a server, the one that has waited longest first.
pub(super) fn waiting(mut all: Vec<Description>) -> Rows {
    let now = now();
    all.retain(|one| one.doing == Doing::Waiting);
    all.sort_by_key(|one| one.doing_since);
    let row = |one: Description| {
        let waits = seconds(now.saturating_duration_since(one.doing_since));
        texts([one.id.to_string(), one.database.to_string(), one.user.to_string(), waits])
    };
    all.into_iter().map(row).collect()
}

/// Sessions that keep a server connection for themselves, and why.
pub(super) fn pinned(all: Vec<Description>) -> Rows {
    let row = |one: Description| {
        let reason = one.pinned.clone()?;
        Some(vec![
            Some(one.id.to_string()),
            Some(one.database.to_string()),
            Some(one.user.to_string()),
            one.server.map(|(node, _)| node.to_string()),
            one.server.map(|(_, process)| process.to_string()),
            Some(reason),
            Some(one.doing.words().to_owned()),
        ])
    };
    all.into_iter().filter_map(row).collect()
}

/// Requests by where they went and why, the most frequent first.
pub(super) fn routing(global: &Global) -> Rows {
    let sum = |of: &dyn Fn(&Counters) -> u64| global.sum(of);
    let mut all = Vec::new();
    for &reason in Reason::ALL {
        all.push(("primary", reason, sum(&|one| one.routed.primary(reason).get())));
        all.push(("standby", reason, sum(&|one| one.routed.standby(reason).get())));
    }
    all.push(("here", Reason::Admin, sum(&|one| one.local.get())));
    all.retain(|(_, _, requests)| *requests > 0);
    all.sort_by_key(|(_, _, requests)| std::cmp::Reverse(*requests));
    let sentence = |target: &str, reason: Reason| match target {
        "here" => "It needs no server.",
        _ => reason.sentence(),
    };
    let row = |(target, reason, requests): (&str, Reason, u64)| {
        let name = if target == "here" { "no_server_needed" } else { reason.name() };
        texts([target.to_owned(), name.to_owned(), requests.to_string(), sentence(target, reason).to_owned()])
    };
    all.into_iter().map(row).collect()
}

/// The servers as pgherd sees them.
pub(super) fn nodes(global: &Global) -> Rows {
    let view = global.cluster.view();
    let row = |node: &crate::cluster::NodeView| {
        let position = node.position.as_ref();
        vec![
            Some(node.id.to_string()),
            Some(node.name.clone()),
            Some(node.status.to_string()),
            Some(node.role.to_string()),
            Some(format!("{:.6}", view.share(node.id))),
            position.map(|position| position.sample.lsn.to_string()),
            position.map(|position| position.timeline.0.to_string()),
            node.lag.map(|lag| lag.to_string()),
            node.delay.map(|delay| delay.as_millis().to_string()),
            Some(view.epoch.0.to_string()),
            Some(node.reason.to_owned()),
            Some(node.replication.state.to_owned()),
            Some(node.replication.sync.to_owned()),
            node.replication.upstream.as_deref().map(str::to_owned),
            node.replication.slot.as_deref().map(str::to_owned),
        ]
    };
    view.nodes.iter().map(row).collect()
}

/// One row per pool.
pub(super) fn pools(global: &Global) -> Rows {
    let row = |row: crate::backend::PoolRow| {
        texts([
            row.key.node.to_string(),
            row.key.database.to_string(),
            row.key.user.to_string(),
            row.size.to_string(),
            row.open.to_string(),
            row.idle.to_string(),
            row.waiting.to_string(),
            millis(row.longest_wait),
            row.pinned.to_string(),
        ])
    };
    global.registry.table(now()).into_iter().map(row).collect()
}

/// The newest events, the last one last.
pub(super) fn events(global: &Global, most: usize) -> Rows {
    let some = |text: String| if text.is_empty() { None } else { Some(text) };
    let row = |event: crate::cluster::Event| {
        vec![
            Some(event.number.to_string()),
            Some(stamp(event.at)),
            Some(event.severity.as_str().to_owned()),
            Some(event.name.to_owned()),
            Some(event.who),
            event.node.map(|NodeId(node)| node.to_string()),
            some(event.from),
            some(event.to),
            Some(event.why),
            event.epoch.map(|epoch| epoch.0.to_string()),
            event.took.map(|took| took.as_millis().to_string()),
        ]
    };
    global.cluster.events.since(0, most).into_iter().map(row).collect()
}

/// The partner proxies; no rows without any.
pub(super) fn watchdog(global: &Global) -> Rows {
    let group = global.cluster.group.load();
    let Some(group) = &*group else { return Rows::new() };
    let row = |(at, member): (usize, &crate::cluster::Partner)| {
        let own = at == group.own;
        let flag = |flag: bool| Some(if flag { "t" } else { "f" }.to_owned());
        // What is not known is NULL.
        let known = own || member.is_heard();
        let says = member.says.as_ref();
        let holds = if own { group.holds_ip } else { says.is_some_and(|says| says.holds_ip) };
        vec![
            Some(member.name.clone()),
            Some(member.host.clone()),
            Some(member.port.to_string()),
            Some(member.duty.to_owned()),
            Some(member.state.to_owned()),
            flag(own),
            group.virtual_ip.filter(|_| holds).map(|address| address.to_string()),
            Some(group.term.to_string()),
            Some(group.epoch.0.to_string()),
            member.age.map(|age| format!("{:.1}", age.as_secs_f64())),
            known.then(|| member.priority.to_string()),
            flag(member.trusted).filter(|_| known),
            flag(member.primary).filter(|_| known),
            known.then(|| member.nodes.to_string()),
            Some(member.differs.join(", ")),
            Some(if own { group.troubles.join("; ") } else { String::new() }),
            member.heard_by.map(|age| format!("{:.1}", age.as_secs_f64())),
            if own { group.confirmed.clone() } else { says.and_then(|says| says.leader.clone()) },
            if own { Some(group.term.to_string()) } else { says.map(|says| says.term.to_string()) },
            if own { Some(group.epoch.0.to_string()) } else { says.map(|says| says.epoch.to_string()) },
            member.clock.map(|clock| clock.ahead.to_string()),
            Some(member.links.iter().map(link).collect::<Vec<_>>().join("; ")),
            member.can_hold.filter(|_| known).and_then(flag),
        ]
    };
    group.members.iter().enumerate().map(row).collect()
}

/// A way to a member, in words.
fn link(link: &crate::cluster::Link) -> String {
    let out = match link.connected {
        Some(true) => ", connected",
        Some(false) => ", not connected",
        None => "",
    };
    let heard = link.heard.map_or("nothing heard".to_owned(), |age| format!("heard {:.1} s ago", age.as_secs_f64()));
    format!("{}: {heard}{out}", link.name)
}

/// The statements that take most time, all together.
pub(super) fn statements(global: &Global, most: usize) -> Rows {
    let row = |one: crate::session::StatementStats| {
        let mean = one.total / u32::try_from(one.calls).unwrap_or(u32::MAX).max(1);
        texts([
            one.database.to_string(),
            one.user.to_string(),
            one.calls.to_string(),
            millis(one.total),
            millis(mean),
            millis(one.waiting),
            millis(one.slowest),
            one.text.into_string(),
        ])
    };
    top(global.counters.iter().map(|counters| &counters.statements), most).into_iter().map(row).collect()
}
