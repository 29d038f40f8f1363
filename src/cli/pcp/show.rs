//! What an administration port told, as tables for people. Must not ask anything.

use serde_json::Value;

use crate::cli::report::{self, Columns, list, text};
use crate::pcp::Own;

const NODES: Columns = &[
    ("NODE", "node"),
    ("NAME", "name"),
    ("HOST", "host"),
    ("PORT", "port"),
    ("STATUS", "status"),
    ("ROLE", "role"),
    ("SERVER", "server_status"),
    ("SAYS", "server_role"),
    ("WEIGHT", "weight"),
    ("LAG", "lag_bytes"),
    ("REPLICATION", "replication_state"),
    ("SYNC", "sync_state"),
    ("UPSTREAM", "upstream"),
    ("SLOT", "slot"),
    ("LSN", "lsn"),
    ("TIMELINE", "timeline"),
    ("SINCE", "since"),
    ("REASON", "reason"),
];
const MEMBERS: Columns = &[
    ("", "this"),
    ("NAME", "name"),
    ("HOST", "host"),
    ("DUTY", "duty"),
    ("STATE", "state"),
    ("ADDRESS", "virtual_ip"),
    ("HEARD S AGO", "heard_seconds"),
    ("HEARS US S AGO", "heard_by_seconds"),
    ("SAYS LEADER", "says_leader"),
    ("TERM", "says_term"),
    ("EPOCH", "says_epoch"),
    ("CLOCK MS", "clock_ahead_ms"),
    ("PRIORITY", "priority"),
    ("CAN HOLD", "can_hold_virtual_ip"),
    ("TRUSTED", "reaches_trusted"),
    ("PRIMARY", "reaches_primary"),
    ("NODES", "reaches_nodes"),
    ("DIFFERS", "differs"),
];
const LINKS: Columns =
    &[("MEMBER", "member"), ("LINK", "link"), ("CONNECTED", "connected"), ("HEARD S AGO", "heard_seconds")];
const VOTES: Columns = &[("VOTE", "vote"), ("SAYS", "says"), ("ASKED S AGO", "seconds")];
const CHECKS: Columns = &[
    ("NODE", "node"),
    ("NAME", "name"),
    ("STATUS", "status"),
    ("CHECKS", "total"),
    ("OK", "success"),
    ("FAILED", "fail"),
    ("RETRIES", "retries"),
    ("MOST", "most_retries"),
    ("MIN MS", "shortest_ms"),
    ("AVG MS", "average_ms"),
    ("MAX MS", "longest_ms"),
    ("LAST", "last"),
    ("LAST OK", "last_success"),
    ("LAST FAILED", "last_fail"),
];
const SESSIONS: Columns = &[
    ("SESSION", "session"),
    ("DATABASE", "database"),
    ("USER", "user"),
    ("APPLICATION", "application_name"),
    ("CLIENT", "client"),
    ("STATE", "state"),
    ("FOR S", "state_seconds"),
    ("NODE", "node"),
    ("SERVER PID", "server_pid"),
    ("PINNED", "pinned"),
    ("AGE S", "seconds"),
];
const POOLS: Columns = &[
    ("NODE", "node"),
    ("DATABASE", "database"),
    ("USER", "user"),
    ("SIZE", "size"),
    ("OPEN", "open"),
    ("IDLE", "idle"),
    ("WAITING", "waiting"),
    ("LONGEST MS", "longest_wait_ms"),
    ("PINNED", "pinned"),
];
const EVENTS: Columns = &[
    ("NUMBER", "number"),
    ("AT (UTC)", "at"),
    ("", "severity"),
    ("EVENT", "event"),
    ("NODE", "node"),
    ("WHO", "who"),
    ("FROM", "from"),
    ("TO", "to"),
    ("MS", "took_ms"),
    ("WHY", "why"),
];
const SETTINGS: Columns = &[("NAME", "name"), ("VALUE", "value"), ("DESCRIPTION", "description")];

/// The answer to a request.
pub(super) fn answer(own: &Own, told: &Value) -> String {
    match own {
        Own::Overview => overview(told),
        Own::Nodes { .. } => list(&told["nodes"], NODES),
        Own::HealthChecks { .. } => list(&told["nodes"], CHECKS),
        Own::Sessions { .. } => list(&told["sessions"], SESSIONS),
        Own::Pools => list(&told["pools"], POOLS),
        Own::Watchdog => group(told),
        Own::Settings => list(&told["settings"], SETTINGS),
        Own::Events { .. } => list(&told["events"], EVENTS),
        Own::Reload { group: false } => report::reloaded(told),
        _ => format!("{}\n", text(&told["text"])),
    }
}

/// The partner proxies: what all agree on, then one line each, then the ways to them. What is not known is empty.
fn group(told: &Value) -> String {
    let quorum = match told["leader"].as_str() {
        Some(leader) => format!("a majority has confirmed {leader} as leader"),
        None => "nobody leads".to_owned(),
    };
    let writes = match told["writes"].as_str() {
        Some("lease") => {
            format!("writes may begin for another {:.1} s", told["lease_seconds"].as_f64().unwrap_or_default())
        }
        Some("course") => "writes go on without a majority".to_owned(),
        _ => "no writes may begin".to_owned(),
    };
    let head = format!(
        "term {}, epoch {}, arbiter {}, {} votes needed: {quorum}; {writes}\n",
        text(&told["term"]),
        text(&told["epoch"]),
        text(&told["arbiter"]),
        text(&told["votes_needed"])
    );
    let counts = |of: &str| {
        let all = told[of].as_object().into_iter().flatten().map(|(name, count)| format!("{} {name}", text(count)));
        all.collect::<Vec<_>>().join(", ")
    };
    let refused = format!("frames refused: {}; cancel requests: {}\n", counts("refused"), counts("cancels"));
    let troubles: String =
        told["troubles"].as_array().into_iter().flatten().map(|one| format!("{}\n", text(one))).collect();
    let members = told["members"].as_array().cloned().unwrap_or_default();
    let links = members.iter().flat_map(|member| member["links"].as_array().cloned().unwrap_or_default()).collect();
    let votes =
        if told["votes"].as_array().is_none_or(Vec::is_empty) { String::new() } else { list(&told["votes"], VOTES) };
    [head, refused, troubles, list(&told["members"], MEMBERS), votes, list(&Value::Array(links), LINKS)].concat()
}

/// One line of progress.
pub(super) fn progress(told: &Value) -> String {
    let event = &told["event"];
    if event.is_object() {
        let node = if event["node"].is_null() { String::new() } else { format!(" node {}", text(&event["node"])) };
        return format!("{} {}{node}: {}", text(&event["at"]), text(&event["event"]), text(&event["why"]));
    }
    if told["recovery"].is_string() {
        return text(&told["recovery"]);
    }
    let (held, used) = (text(&told["held"]), text(&told["in_use"]));
    format!("writes: {}; {held} statements wait, {used} server connections are at work", text(&told["writes"]))
}

fn overview(told: &Value) -> String {
    let paused = match &told["paused_seconds"] {
        Value::Null => String::new(),
        seconds => format!(" · PAUSED for another {} s", text(seconds)),
    };
    let primary = if told["primary"].is_null() { "none".to_owned() } else { text(&told["primary"]) };
    let recovery = match text(&told["recovery"]) {
        none if none.is_empty() => none,
        recovery => format!("\nrecovery of {recovery}"),
    };
    let head = format!(
        "pgherd {} · {} UTC · primary {primary} · epoch {} · writes {}{paused}\nclients {} of {} · {} statements wait for a primary{recovery}",
        text(&told["version"]),
        text(&told["at"]),
        text(&told["epoch"]),
        text(&told["writes"]),
        text(&told["clients"]),
        text(&told["max_clients"]),
        text(&told["held"]),
    );
    let mut parts = vec![head, list(&told["nodes"], NODES), list(&told["pools"], POOLS)];
    match &told["waiting"] {
        Value::Array(waiting) if waiting.is_empty() => parts.push("no client waits for a server\n".to_owned()),
        Value::Array(_) => parts.push(format!("waiting clients\n{}", list(&told["waiting"], SESSIONS))),
        _ => parts.push("the sessions could not be asked: a data thread is busy\n".to_owned()),
    }
    parts.push(list(&told["events"], EVENTS));
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_tables_and_hostile_names_are_harmless() {
        let told = json!({ "pools": [{ "node": 1, "database": "a\u{1b}[2J", "size": 20, "waiting": 3 }] });
        let shown = answer(&Own::Pools, &told);
        let lines: Vec<_> = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[0], "NODE DATABASE USER SIZE OPEN IDLE WAITING LONGEST MS PINNED");
        assert_eq!(lines[1], "1 a?[2J 20 3");
        assert_eq!(answer(&Own::Resume, &json!({ "text": "statements go on" })), "statements go on\n");
        let event = json!({ "event": { "at": "12:00:00", "event": "promoted", "node": 2, "why": "done" } });
        assert_eq!(progress(&event), "12:00:00 promoted node 2: done");
        let state = json!({ "writes": "open", "held": 0, "in_use": 4 });
        assert_eq!(progress(&state), "writes: open; 0 statements wait, 4 server connections are at work");
    }
}
