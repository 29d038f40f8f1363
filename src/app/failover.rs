//! What `failover` needs of the rest of the process: the monitor's connections, the data threads, orders. Must not decide.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::cluster::{NodeId, Timeline};
use crate::config::{Promote, Settings};
use crate::failover::engine::Journal;
use crate::failover::journal::Store;
use crate::failover::runner::{Asked, MAX_ORDERS, Parts, Row, Servers, Sql, Threads};
use crate::health::connection::{Connection, Dialer};
use crate::health::engine::NodeSettings;
use crate::health::node::{Connector, ProbeClient};
use crate::health::runner::Reader;
use crate::net;
use crate::support::clock;

use super::Error;
use super::data::{Common, ThreadMail};

/// How long sessions may take to notice that their connections have ended.
const NOTICING: Duration = Duration::from_secs(1);
/// Between two looks at how many are left.
const LOOK: Duration = Duration::from_millis(5);

/// The monitor's connections.
pub(super) struct Monitored(pub(super) Dialer, pub(super) Arc<Common>);

impl Sql for Connection {
    async fn query(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        ProbeClient::query(self, sql).await.map_err(|error| format!("{}: {}", error.failure, error.detail))
    }
}

impl Servers for Monitored {
    type Sql = Connection;

    async fn connect(&self, node: NodeId) -> Result<Connection, String> {
        self.0.connect(node, None).await.map_err(|error| format!("{}: {}", error.failure, error.detail))
    }

    async fn timeline(&self, node: NodeId) -> Result<Timeline, String> {
        let told = |error: crate::health::node::ProbeError| format!("replication: {}: {}", error.failure, error.detail);
        let mut connection = self.0.replicate(node).await.map_err(told)?;
        let rows = ProbeClient::query(&mut connection, "IDENTIFY_SYSTEM").await.map_err(told)?;
        let timeline = rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok());
        timeline.map(Timeline).ok_or_else(|| "IDENTIFY_SYSTEM tells no timeline".to_owned())
    }

    /// `pg_ctl` runs behind the answer: whoever waits for the end looks for it elsewhere.
    async fn stop(&self, node: NodeId) -> Result<(), String> {
        super::recovery::stop(&self.1, node).await
    }
}

/// The data threads.
pub(super) struct DataThreads(pub(super) Arc<Common>);

impl DataThreads {
    /// Sends each thread a message and waits until all have answered.
    async fn ask<T>(&self, mail: impl Fn(oneshot::Sender<T>) -> ThreadMail) -> Result<Vec<T>, String> {
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        for thread in 0..self.0.mail.len() {
            let (sender, answer) = oneshot::channel();
            let sent = self.0.mail[thread].send(mail(sender)).await;
            sent.map_err(|_| format!("data thread {thread} has ended"))?;
            asked.push(answer);
        }
        for (thread, answer) in asked.into_iter().enumerate() {
            answers.push(answer.await.map_err(|_| format!("data thread {thread} does not answer"))?);
        }
        Ok(answers)
    }

    fn open(&self, node: NodeId) -> u32 {
        let pools = self.0.global.registry.pools();
        pools.iter().filter(|pool| pool.key.node == node).map(|pool| pool.open()).sum()
    }
}

impl Threads for DataThreads {
    async fn barrier(&self) -> Result<(), String> {
        self.ask(ThreadMail::Barrier).await.map(drop)
    }

    /// No session looks at them any more; then the kernel ends the connections, whoever holds them.
    async fn fence(&self, node: NodeId) -> Result<(), String> {
        self.ask(|done| ThreadMail::Fence(node, done)).await?;
        let target = self.0.servers.targets.load().get(&node).cloned();
        let target = target.ok_or_else(|| format!("node {node} is configured no more"))?;
        let severed = net::sever(&target).await.map_err(|error| format!("{}: {error}", target.endpoint))?;
        tracing::debug!(node = node.0, severed, "connections are shut down");
        let patience = clock::now() + NOTICING;
        while self.open(node) > 0 && clock::now() < patience {
            tokio::time::sleep(LOOK).await;
        }
        self.barrier().await
    }

    async fn busy(&self, node: NodeId) -> Result<u32, String> {
        // Counted before those that rest: one that rests and ends in between must not make another one look as if it rested.
        let open = self.open(node);
        let resting: u32 = self.ask(|asked| ThreadMail::Resting(node, asked)).await?.into_iter().sum();
        Ok(open.saturating_sub(resting))
    }
}

/// The ends of the channels that the runner is reached by.
pub(super) struct Desk {
    pub(super) orders: mpsc::Sender<Asked>,
    pub(super) reloads: mpsc::Sender<Settings>,
    pub(super) nodes: mpsc::Sender<Vec<NodeSettings>>,
    pub(super) group: super::watchdog::Ends,
}

/// The state directory; who promotes nobody can do without.
///
/// # Errors
/// It cannot be used, and a failover needs it.
pub(super) fn store(settings: &Settings) -> Result<(Store, Journal), Error> {
    let folder = &settings.failover.state_directory;
    match Store::open(folder) {
        Ok(opened) => Ok(opened),
        Err(error) if settings.failover.promote == Promote::Never => {
            tracing::warn!(event = "no_state", folder = %folder.display(), %error, "nothing is kept over a restart");
            Ok((Store::forgetful(), Journal::default()))
        }
        Err(source) => Err(Error::State { folder: folder.clone(), source }),
    }
}

/// All that the runner needs, and the other ends.
pub(super) fn parts(
    (settings, group): (&Settings, super::watchdog::Ends),
    (store, journal): (Store, Journal),
    health: &Reader,
    dialer: Dialer,
    common: &Arc<Common>,
) -> (Parts<Monitored, DataThreads>, Desk) {
    let (order, orders) = mpsc::channel(MAX_ORDERS);
    let (reload, reloads) = mpsc::channel(1);
    let parts = Parts {
        config: settings.clone(),
        servers: Monitored(dialer, common.clone()),
        threads: DataThreads(common.clone()),
        consensus: group.consensus(),
        store,
        journal,
        shared: health.shared.clone(),
        published: health.published.clone(),
        rulings: health.rulings.clone(),
        requests: health.requests.clone(),
        orders,
        reloads,
        accord: group.accord(),
    };
    (parts, Desk { orders: order, reloads: reload, nodes: health.reloads.clone(), group })
}
