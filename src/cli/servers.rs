//! What `check` asks the servers: can the monitor log in, who are they, do they belong together. Asks only; must not
//! change anything on a server.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Failure;
use super::check::Finding;
use super::rights::{Missing, ORIGIN_SQL, Wishes};
use crate::auth::{Credentials, Password};
use crate::backend::KeyMaker;
use crate::cluster::{NodeId, Role};
use crate::config::{Node, Promote, Settings, SslMode};
use crate::failover::runner;
use crate::health::connection::{Account, Dialer};
use crate::health::node::{Connector, ProbeClient};
use crate::health::reading::{PROBE_SQL, Reading, Row};
use crate::net::{self, ClientTls, DialTarget, Endpoint, SocketOptions};

/// Room for clients, and how long a standby trusts a silent primary (in milliseconds).
const LIMITS_SQL: &str = "SELECT current_setting('max_connections')::int - \
    current_setting('superuser_reserved_connections')::int, \
    (extract(epoch FROM current_setting('wal_receiver_timeout')::interval) * 1000)::bigint";

/// Whom a standby streams from, by its own word. NULL for who may not see it.
const SENDER_SQL: &str =
    "SELECT sender_host, sender_port FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming'";

/// HA H2: with a longer one a dead primary cannot be told from a slow one in time.
const LONGEST_RECEIVER_TIMEOUT: Duration = Duration::from_secs(3);

/// What one server said.
struct Answer {
    reading: Reading,
    /// Connections that are not kept for superusers.
    room: u32,
    /// Zero: for ever.
    receiver_timeout: Duration,
    /// Where a standby streams from.
    sender: Option<(String, u16)>,
    /// What the monitor role lacks.
    missing: Missing,
    /// Where the server sees us come from; none by a Unix socket.
    origin: Option<String>,
}

/// Asks all nodes at the same time, for one that is unreachable takes its whole timeout.
pub(super) fn findings(settings: &Settings) -> Result<Vec<Finding>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    let answers = runtime.block_on(tasks.run_until(async {
        let dialer = Rc::new(dialer(settings)?);
        let started: Vec<_> = settings.nodes.iter().map(|node| start(&dialer, settings, node)).collect();
        let mut answers = Vec::new();
        for task in started {
            answers.push(task.await?);
        }
        Ok::<_, Failure>(answers)
    }))?;
    let mut findings = Vec::new();
    for (node, answer) in settings.nodes.iter().zip(&answers) {
        let place = Endpoint::new(&node.host, node.port).to_string();
        let result = answer.as_ref().map_err(Clone::clone).and_then(|answer| judge(settings, node, answer));
        findings.push(Finding { what: format!("node {} ({})", node.id, node.name), place, result });
    }
    let known: Vec<_> = settings.nodes.iter().zip(answers).filter_map(|(n, a)| Some((n.id, a.ok()?.reading))).collect();
    if let Some(result) = names(settings, &known) {
        findings.push(Finding { what: "application_name".to_owned(), place: String::new(), result });
    }
    if known.len() == settings.nodes.len() {
        findings.push(Finding { what: "cluster".to_owned(), place: String::new(), result: cluster(&known) });
    }
    Ok(findings)
}

fn start(dialer: &Rc<Dialer>, settings: &Settings, node: &Node) -> tokio::task::JoinHandle<Result<Answer, String>> {
    let (dialer, id, limit) = (dialer.clone(), node.id, node.health_check.timeout);
    let wishes = Wishes::of(settings);
    tokio::task::spawn_local(async move {
        let late = || format!("no answer within {} ms", limit.as_millis());
        let mut answer = tokio::time::timeout(limit, ask(&dialer, &wishes, id)).await.map_err(|_| late())??;
        if wishes.replicate() {
            let asked = tokio::time::timeout(limit, replicate(&dialer, id)).await.unwrap_or_else(|_| Err(late()));
            let refused = asked.err().and_then(|why| wishes.refused(&why, answer.origin.as_deref(), &answer.missing));
            answer.missing.wanted.extend(refused);
        }
        Ok(answer)
    })
}

async fn ask(dialer: &Dialer, wishes: &Wishes, id: NodeId) -> Result<Answer, String> {
    let mut client = dialer.connect(id, None).await.map_err(|error| error.detail)?;
    let mut rows = async |sql: &str| client.query(sql).await.map_err(|error| error.detail);
    let reading = rows(&PROBE_SQL).await?.first().and_then(Reading::from_row);
    let reading = reading.ok_or("an answer that PostgreSQL would not give")?;
    let number = |row: &Row, index: usize| row.get(index)?.as_deref()?.parse::<u64>().ok();
    let limits = rows(LIMITS_SQL).await?.first().and_then(|row| Some((number(row, 0)?, number(row, 1)?)));
    let (room, timeout) = limits.ok_or("an answer that PostgreSQL would not give")?;
    let sender = rows(SENDER_SQL).await?;
    let sender = sender.first().and_then(|row| Some((row.first()?.clone()?, row.get(1)?.as_deref()?.parse().ok()?)));
    let origin = rows(ORIGIN_SQL).await?.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    let missing = wishes.missing(reading.version, &mut client).await?;
    Ok(Answer {
        reading,
        room: u32::try_from(room).unwrap_or(u32::MAX),
        receiver_timeout: Duration::from_millis(timeout),
        sender,
        missing,
        origin,
    })
}

/// As a standby is asked for its timeline whose WAL receiver is gone (HA H6).
async fn replicate(dialer: &Dialer, id: NodeId) -> Result<(), String> {
    let mut connection = dialer.replicate(id).await.map_err(|error| error.detail)?;
    connection.query("IDENTIFY_SYSTEM").await.map(drop).map_err(|error| error.detail)
}

/// One server against its own section.
fn judge(settings: &Settings, node: &Node, answer: &Answer) -> Result<String, String> {
    let (role, room, wishes) = (answer.reading.role, answer.room, Wishes::of(settings));
    let mut wrong = Vec::new();
    if node.max_connections > room {
        wrong.push(format!("max_connections is {}, but the server has room for {room}", node.max_connections));
    }
    let slow = answer.receiver_timeout.is_zero() || answer.receiver_timeout > LONGEST_RECEIVER_TIMEOUT;
    if settings.failover.promote == Promote::Builtin && role == Role::Standby && slow {
        let why = "promote = \"builtin\" needs wal_receiver_timeout of at most 3s on standbys (2s is good)";
        wrong.push(why.to_owned());
    }
    let mut notes = Vec::new();
    if let Some(why) = answer.sender.as_ref().and_then(|sender| stranger(settings, sender)) {
        let list = if wishes.replicate() { &mut wrong } else { &mut notes };
        list.push(why);
    }
    let Missing { wanted, by_hand } = &answer.missing;
    if !by_hand.is_empty() {
        notes.push(format!("promote_node would lack: {}", by_hand.join(", ")));
    }
    if !wanted.is_empty() {
        let what = if wishes.replicate() { "for a failover" } else { "for reads on standbys" };
        wrong.push(format!("this is missing {what}: {}", wanted.join("; ")));
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let (version, timeline) = (answer.reading.version / 10_000, answer.reading.timeline.0);
    let well = format!("{role}, PostgreSQL {version}, timeline {timeline}, room for {room} connections");
    Ok([vec![well], notes].concat().join("; "))
}

/// A standby's word about a primary counts if the name by which it streams from it is that node's here (HA H2).
fn stranger(settings: &Settings, (host, port): &(String, u16)) -> Option<String> {
    let sender = (host.clone(), *port);
    let members = runner::settings(settings).members;
    let known = members.iter().any(|member| member.addresses.contains(&sender));
    (!known).then(|| {
        format!(
            "it streams from {host} port {port}, which is no node's host and port: what it hears of the primary does not count. \
             Set replication_host = \"{host}\" and replication_port = {port} for the server that it means"
        )
    })
}

/// Who acknowledges commits is known by name: two nodes of one name would be counted as one another (HA H9).
fn names(settings: &Settings, known: &[(NodeId, Reading)]) -> Option<Result<String, String>> {
    let wanted = known.iter().find_map(|(_, reading)| reading.synchronous.clone().filter(|names| !names.is_empty()))?;
    let mut nodes: HashMap<String, Vec<String>> = HashMap::new();
    for node in &settings.nodes {
        nodes.entry(node.application_name.to_lowercase()).or_default().push(node.id.to_string());
    }
    let twice = nodes.into_iter().filter(|(_, nodes)| nodes.len() > 1).min()?;
    let (name, list) = (twice.0, twice.1.join(" and "));
    Some(Err(format!(
        "nodes {list} have the same application_name, {name}, and synchronous_standby_names = '{wanted}' counts by names: \
         nobody could tell which of them has the last commits. Give each its own, here and in its primary_conninfo"
    )))
}

/// All servers together.
fn cluster(known: &[(NodeId, Reading)]) -> Result<String, String> {
    let list = |role: Role| {
        let ids: Vec<_> = known.iter().filter(|(_, r)| r.role == role).map(|(id, _)| id.to_string()).collect();
        ids.join(", ")
    };
    if let Some((id, _)) = known.iter().find(|(_, reading)| reading.system != known[0].1.system) {
        return Err(format!("nodes {} and {id} belong to different clusters", known[0].0));
    }
    match known.iter().filter(|(_, reading)| reading.role == Role::Primary).count() {
        0 => Err("no node is a primary".to_owned()),
        1 => Ok(format!("primary: {}; standbys: {}", list(Role::Primary), list(Role::Standby))),
        _ => Err(format!("nodes {} are primaries, all of them", list(Role::Primary))),
    }
}

fn dialer(settings: &Settings) -> Result<Dialer, Failure> {
    let monitor = &settings.monitor;
    let password = monitor.password.as_ref().map(|secret| Password::new(secret.expose()));
    let mut targets = HashMap::new();
    for node in &settings.nodes {
        targets.insert(node.id, target(node)?);
    }
    let account = Account {
        user: monitor.user.clone(),
        database: monitor.database.clone(),
        credentials: password.map_or(Credentials::None, Credentials::Password),
    };
    Ok(Dialer {
        account: Arc::new(ArcSwap::from_pointee(account)),
        keys: Arc::new(KeyMaker::new()),
        targets: Arc::new(ArcSwap::from_pointee(targets)),
    })
}

fn target(node: &Node) -> Result<DialTarget, Failure> {
    let mode = match node.sslmode {
        SslMode::Disable => net::SslMode::Disable,
        SslMode::Prefer => net::SslMode::Prefer,
        SslMode::Require => net::SslMode::Require,
        SslMode::VerifyCa => net::SslMode::VerifyCa,
        SslMode::VerifyFull => net::SslMode::VerifyFull,
    };
    Ok(DialTarget {
        endpoint: Endpoint::new(&node.host, node.port),
        timeout: node.health_check.timeout,
        tls: Arc::new(ClientTls::new(mode, node.ca.as_deref())?),
        options: SocketOptions::default(),
        known: net::Known::default(),
    })
}
