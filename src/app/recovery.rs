//! What `recovery` needs of the rest of the process: sessions as its own role, the hook, the failover engine's orders. Must not decide.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::auth::{Credentials, Password};
use crate::cluster::NodeId;
use crate::config::Settings;
use crate::failover::command::{self, Subject};
use crate::failover::engine::Order;
use crate::failover::runner::Asked;
use crate::failover::runner::hook;
use crate::health::connection::{Account, Connection, Dialer};
use crate::health::node::{Connector, ProbeClient};
use crate::health::runner::Reader;
use crate::net::program::{Program, Ran};
use crate::recovery::runner::{self, Hands, Parts};

use super::data::Common;
use super::servers;

/// The process, as `recovery` sees it.
pub(super) struct Helpers {
    common: Arc<Common>,
    orders: mpsc::Sender<Asked>,
}

/// The ends of the channels that the runner is reached by.
#[derive(Clone)]
pub(super) struct Bell {
    /// Who wants which node rebuilt.
    pub(super) requests: mpsc::Sender<runner::Asked>,
    /// What is under way, for people.
    pub(super) told: watch::Receiver<String>,
}

/// All that the runner needs, and the other ends.
pub(super) fn parts(common: &Arc<Common>, health: &Reader, orders: mpsc::Sender<Asked>) -> (Parts<Helpers>, Bell) {
    let (request, requests) = mpsc::channel(runner::MAX_REQUESTS);
    let (tell, told) = watch::channel(String::new());
    let hands = Helpers { common: common.clone(), orders };
    let (shared, published) = (health.shared.clone(), health.published.clone());
    (Parts { hands, shared, published, requests, told: tell }, Bell { requests: request, told })
}

/// The role of `[recovery]`; the monitor role where none is named.
fn account(settings: &Settings) -> Account {
    let recovery = &settings.recovery;
    let monitor = servers::account(settings);
    let credentials = match (&recovery.user, &recovery.password) {
        (_, Some(password)) => Credentials::Password(Password::new(password.expose().as_bytes())),
        (Some(_), None) => Credentials::None,
        (None, None) => monitor.credentials,
    };
    Account { user: recovery.user.clone().unwrap_or(monitor.user), database: recovery.database.clone(), credentials }
}

async fn open(common: &Common, node: NodeId) -> Result<Connection, String> {
    let servers = &common.servers;
    let account = Arc::new(ArcSwap::from_pointee(account(&common.global.settings.load())));
    let dialer = Dialer { account, keys: servers.keys.clone(), targets: servers.targets.clone() };
    dialer.connect(node, None).await.map_err(|error| format!("node {node}: {}: {}", error.failure, error.detail))
}

async fn ask(session: &mut Connection, sql: &str) -> Result<Option<String>, String> {
    let rows = session.query(sql).await.map_err(|error| error.detail)?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

/// A server begins to stop in order, by pgpool-II's extension on it; its `pgpool.pg_ctl` names the program (HA H12).
///
/// # Errors
/// For people.
pub(super) async fn stop(common: &Common, node: NodeId) -> Result<(), String> {
    let mut session = open(common, node).await?;
    let schema = ask(&mut session, runner::EXTENSION).await?;
    let schema = schema.ok_or_else(|| format!("node {node} lacks pgpool's extension pgpool_recovery"))?;
    match ask(&mut session, &format!("SELECT {schema}.pgpool_pgctl('stop', 'fast')")).await?.as_deref() {
        Some("t") => Ok(()),
        other => Err(format!("pgpool_pgctl() said {}", other.unwrap_or("nothing"))),
    }
}

impl Hands for Helpers {
    type Session = Connection;

    fn settings(&self) -> Arc<Settings> {
        self.common.global.settings.load_full()
    }

    async fn open(&self, node: NodeId) -> Result<Connection, String> {
        open(&self.common, node).await
    }

    async fn ask(&self, session: &mut Connection, sql: &str) -> Result<Option<String>, String> {
        ask(session, sql).await
    }

    async fn hook(&self, node: NodeId, primary: NodeId, limit: Duration) -> Result<String, String> {
        let settings = self.settings();
        let line = settings.recovery.command.as_ref().ok_or("recovery.command is gone")?;
        let (own, other) = (settings.node(node), settings.node(primary));
        let (own, other) = own.zip(other).ok_or("a node is configured no more")?;
        let now = hook::place(&settings, Some(primary));
        let words = command::arguments(
            line,
            &Subject { node: hook::place(&settings, Some(node)), new: now.clone(), old: now },
        )?;
        let surroundings = [
            ("PGHERD_HOOK", "Recovery".to_owned()),
            ("PGHERD_EPOCH", self.common.global.cluster.view().epoch.0.to_string()),
            ("PGHERD_TIMEOUT", limit.as_secs().to_string()),
            ("PGHERD_APPLICATION_NAME", own.application_name.clone()),
            ("PGHERD_PRIMARY_HOST", other.replication_host.clone()),
            ("PGHERD_PRIMARY_PORT", other.replication_port.to_string()),
        ];
        let folder = &settings.failover.commands.folder;
        let program = Program { words: &words, folder, surroundings: &surroundings, limit };
        match program.run(&self.common.global.cluster.events, Some(node)).await {
            Ran::Well(said) => Ok(said),
            Ran::NotStarted(why) | Ran::Failed(why) => Err(why),
        }
    }

    async fn place(&self, node: NodeId, used: bool) -> Result<(), String> {
        let (sender, answer) = oneshot::channel();
        let ended = || "the failover engine has ended".to_owned();
        let order = if used { Order::Attach(node) } else { Order::Detach(node) };
        self.orders.send((order, sender)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?.map(drop)
    }
}
