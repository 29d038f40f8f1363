//! What `check` asks the servers: can the monitor log in, who are they, do they belong together. Asks only; must not
//! change anything on a server.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Failure;
use super::check::Finding;
use super::rights;
use crate::auth::{Credentials, Password};
use crate::backend::KeyMaker;
use crate::cluster::{NodeId, Role};
use crate::config::{Node, Promote, Settings, SslMode};
use crate::health::connection::{Account, Dialer};
use crate::health::node::{Connector, ProbeClient};
use crate::health::reading::{PROBE_SQL, Reading, Row};
use crate::net::{self, ClientTls, DialTarget, Endpoint, SocketOptions};

/// Room for clients, and how long a standby trusts a silent primary (in milliseconds).
const LIMITS_SQL: &str = "SELECT current_setting('max_connections')::int - \
    current_setting('superuser_reserved_connections')::int, \
    (extract(epoch FROM current_setting('wal_receiver_timeout')::interval) * 1000)::bigint";

/// HA H2: with a longer one a dead primary cannot be told from a slow one in time.
const LONGEST_RECEIVER_TIMEOUT: Duration = Duration::from_secs(3);

/// What one server said.
struct Answer {
    reading: Reading,
    /// Connections that are not kept for superusers.
    room: u32,
    /// Zero: for ever.
    receiver_timeout: Duration,
    /// What the monitor role lacks.
    missing: Vec<String>,
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
    if known.len() == settings.nodes.len() {
        findings.push(Finding { what: "cluster".to_owned(), place: String::new(), result: cluster(&known) });
    }
    Ok(findings)
}

fn start(dialer: &Rc<Dialer>, settings: &Settings, node: &Node) -> tokio::task::JoinHandle<Result<Answer, String>> {
    let (dialer, id, limit) = (dialer.clone(), node.id, node.health_check.timeout);
    let settings = settings.clone();
    tokio::task::spawn_local(async move {
        let asked = tokio::time::timeout(limit, ask(&dialer, &settings, id)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
    })
}

async fn ask(dialer: &Dialer, settings: &Settings, id: NodeId) -> Result<Answer, String> {
    let mut client = dialer.connect(id, None).await.map_err(|error| error.detail)?;
    let rows = client.query(PROBE_SQL).await.map_err(|error| error.detail)?;
    let reading = rows.first().and_then(Reading::from_row).ok_or("an answer that PostgreSQL would not give")?;
    let rows = client.query(LIMITS_SQL).await.map_err(|error| error.detail)?;
    let number = |row: &Row, index: usize| row.get(index)?.as_deref()?.parse::<u64>().ok();
    let limits = rows.first().and_then(|row| Some((number(row, 0)?, number(row, 1)?)));
    let (room, timeout) = limits.ok_or("an answer that PostgreSQL would not give")?;
    let missing = rights::missing(settings, reading.version, &mut client).await?;
    Ok(Answer {
        missing,
        reading,
        room: u32::try_from(room).unwrap_or(u32::MAX),
        receiver_timeout: Duration::from_millis(timeout),
    })
}

/// One server against its own section.
fn judge(settings: &Settings, node: &Node, answer: &Answer) -> Result<String, String> {
    let (role, room) = (answer.reading.role, answer.room);
    if node.max_connections > room {
        return Err(format!("max_connections is {}, but the server has room for {room}", node.max_connections));
    }
    let slow = answer.receiver_timeout.is_zero() || answer.receiver_timeout > LONGEST_RECEIVER_TIMEOUT;
    if settings.failover.promote == Promote::Builtin && role == Role::Standby && slow {
        return Err(
            "promote = \"builtin\" needs wal_receiver_timeout of at most 3s on standbys (2s is good)".to_owned()
        );
    }
    if !answer.missing.is_empty() {
        return Err(format!("this is missing for a failover: {}", answer.missing.join("; ")));
    }
    let (version, timeline) = (answer.reading.version / 10_000, answer.reading.timeline.0);
    Ok(format!("{role}, PostgreSQL {version}, timeline {timeline}, room for {room} connections"))
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
