//! The control thread: health, failover, administrators, catalogs. A storm of statements cannot delay what runs here. Must not serve clients.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::cluster::{Event, Hold, Life, NodeId, Shared, Status, Writes};
use crate::failover::runner::{self, Parts, Threads};
use crate::health::catalogs::Loader;
use crate::health::connection::Dialer;
use crate::health::engine::NodeSettings;
use crate::health::runner::Monitor;
use crate::net;
use crate::recovery;
use crate::watchdog;
use crate::web::Web;

use super::data::{Common, ThreadMail};
use super::failover::{DataThreads, Monitored};
use super::recovery::Helpers;
use super::watchdog::Grip;

/// What runs on the control thread.
pub(super) struct Duties {
    pub(super) failover: Parts<Monitored, DataThreads>,
    pub(super) watchdog: Option<watchdog::runner::Parts<Grip>>,
    pub(super) pcp: super::pcp::Seed,
    pub(super) recovery: recovery::runner::Parts<Helpers>,
    pub(super) monitor: Monitor,
    pub(super) nodes: Vec<NodeSettings>,
    pub(super) prober: Dialer,
    pub(super) loader: Loader,
    pub(super) reader: Dialer,
    pub(super) generation: watch::Receiver<u64>,
    pub(super) web: Option<Web>,
    pub(super) common: Arc<Common>,
    /// Ends the thread when its sender is gone.
    pub(super) end: mpsc::Receiver<()>,
}

impl Duties {
    /// Runs until the end is told. Call within the runtime of the control thread.
    pub(super) async fn run(self) {
        let local = LocalSet::new();
        let Self { failover, watchdog, pcp, recovery, monitor, nodes, prober, loader, reader, generation, .. } = self;
        let Self { web, common, mut end, .. } = self;
        let shared = common.global.cluster.clone();
        local.spawn_local(monitor.run(nodes, prober));
        if let Some(watchdog) = watchdog {
            local.spawn_local(watchdog::runner::run(watchdog));
        }
        local.spawn_local(runner::run(failover));
        local.spawn_local(recovery::runner::run(recovery));
        if let Some(web) = web {
            local.spawn_local(web.run());
        }
        local.spawn_local(loader.run(reader));
        local.spawn_local(crate::pcp::serve(pcp.grow()));
        let threads = DataThreads(common.clone());
        local.spawn_local(super::service::live(async move || threads.barrier().await));
        local.spawn_local(follow(generation, shared, common));
        local.run_until(async move { end.recv().await }).await;
    }
}

/// Tells the data threads of nodes that have become unusable: idle connections to them are of no use. What is under way on a dead one
/// ends, so that reads run elsewhere: one that is frozen would never answer. A primary that is being replaced is left to `failover`, which
/// fences it.
async fn follow(mut generation: watch::Receiver<u64>, shared: Arc<Shared>, common: Arc<Common>) {
    let (mut usable, mut ended): (Vec<NodeId>, Vec<NodeId>) = (Vec::new(), Vec::new());
    loop {
        let view = shared.snapshot();
        let now: Vec<NodeId> = view.nodes.iter().filter(|node| node.status == Status::Up).map(|node| node.id).collect();
        for &node in usable.iter().filter(|node| !now.contains(node)) {
            for thread in 0..common.mail.len() {
                // A full mailbox: the thread finds out when it uses the connection.
                let _ = common.post(thread, ThreadMail::Forget(node));
            }
        }
        let left = matches!(view.writes, Writes::Held { why: Hold::NoPrimary, .. } | Writes::Refused { .. });
        // Who was never seen is not dead: its first probe is under way.
        let dead = view.nodes.iter().filter(|node| node.status == Status::Down && !matches!(node.life, Life::Unknown));
        let dead = dead.filter(|node| view.primary != Some(node.id) || left);
        let dead: Vec<NodeId> = dead.map(|node| node.id).collect();
        for &node in dead.iter().filter(|node| !ended.contains(node)) {
            sever(&common, node).await;
        }
        (usable, ended) = (now, dead);
        if generation.changed().await.is_err() {
            return;
        }
    }
}

async fn sever(common: &Common, node: NodeId) {
    let Some(target) = common.servers.targets.load().get(&node).cloned() else { return };
    if let Err(error) = net::sever(&target).await {
        tracing::warn!(node = node.0, %error, "connections to a dead server are not ended");
    }
}

/// Of the control thread.
///
/// # Errors
/// The system has no descriptors for it.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, super::Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(super::Error::Start)
}

/// For who reads the log.
pub(super) fn told_started(common: &Common, port: u16) {
    let why = format!("pgherd accepts connections on port {port} with {} data threads", common.mail.len());
    common.global.cluster.events.record(Event::info("started", "pgherd").why(why));
}
