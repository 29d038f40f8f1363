//! Runs the engine on the control thread: links, disk, locks, pings, the address, and what the rest of the process must know. Owner: `app`,
//! which starts it and ends it in order by [`Wish::Leave`]. Must not decide.
//!
//! If it fails (a bug), the address goes, the links end, writes stop, and it begins anew as a process that has just started; the partner takes
//! over as if this process had died (SCENARIOS S18). Sessions stay.

mod carriers;
mod commands;
mod disk;
pub mod hands;
mod heart;
mod locks;
mod partners;
mod post;
mod say;
pub mod settings;
mod sight;
mod status;
mod stops;
mod vip;
mod wishes;

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::engine::{Duty, Kept};
use crate::cluster::{self, Accord, Epoch, Errand, NodeId, Shared, Sign};
use crate::config;
use crate::support::clock::Duration;
pub use disk::Disk;
pub use hands::Hands;
use heart::Heart;
use post::Post;

/// Wishes that may wait.
pub const MAX_WISHES: usize = 64;
/// Cancel requests for partners that may wait; more are lost, as packets are.
pub const MAX_STRAYS: usize = 64;
/// Before it begins anew after a failure, and between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// What others in this process want of the group.
#[derive(Debug)]
pub enum Wish {
    /// Leave to replace a primary.
    Consent {
        /// Counts these wishes, from 1.
        number: u64,
        /// The primary.
        node: NodeId,
        /// An operator wants it.
        planned: bool,
        /// By the epoch.
        answer: oneshot::Sender<Result<u64, String>>,
    },
    /// A majority shall have this journal of this epoch on disk.
    Record(u64, String, oneshot::Sender<Result<u64, String>>),
    /// Hand leadership over, to this member or to the best.
    HandOver(Option<String>, oneshot::Sender<Result<u64, String>>),
    /// A partner shall do something for that person; what comes of it goes to the last.
    Ask(String, Errand, String, mpsc::Sender<Sign>),
    /// Stop in order: the address is given up and the partner told (HA H24).
    Leave(oneshot::Sender<()>),
}

/// A client's wish to cancel what a session of a partner does.
#[derive(Debug)]
pub struct Stray {
    /// The place of that partner among all members in the order of their names.
    pub owner: usize,
    /// The session's number.
    pub session: i32,
    /// What the client sent as its secret.
    pub secret: Box<[u8]>,
}

/// What it works with.
pub struct Parts<H> {
    /// All settings; there is a `[watchdog]`.
    pub config: config::Settings,
    /// What this member is for.
    pub duty: Duty,
    /// The rest of the process.
    pub hands: H,
    /// Where votes are kept.
    pub disk: Disk,
    /// What the process before has kept there.
    pub kept: Kept,
    /// The view, the lease, events.
    pub shared: Arc<Shared>,
    /// Changes with each view.
    pub published: watch::Receiver<()>,
    /// See [`Wish`].
    pub wishes: mpsc::Receiver<Wish>,
    /// What was asked leave for by wishes up to this number does not happen. No queue: it must not be lost when that is full.
    pub given_up: watch::Receiver<u64>,
    /// Cancel requests for partners.
    pub strays: mpsc::Receiver<Stray>,
    /// For `failover`.
    pub accord: watch::Sender<Accord>,
    /// The newest settings; those without a `[watchdog]` take a restart.
    pub reloads: watch::Receiver<config::Settings>,
}

/// What outlives a failure of the loop.
struct Body<H> {
    config: config::Settings,
    duty: Duty,
    hands: Rc<H>,
    disk: Disk,
    shared: Arc<Shared>,
    published: watch::Receiver<()>,
    wishes: mpsc::Receiver<Wish>,
    given_up: watch::Receiver<u64>,
    strays: mpsc::Receiver<Stray>,
    accord: watch::Sender<Accord>,
    reloads: watch::Receiver<config::Settings>,
    /// The section, for the operator's programs.
    section: watch::Sender<config::Watchdog>,
    post: Post,
}

/// What `failover` believes before anybody has spoken.
pub fn first_accord(kept: &Kept) -> Accord {
    let shared = &kept.shared;
    Accord {
        version: (shared.version.0.0, shared.version.1),
        epoch: Epoch(shared.epoch),
        body: shared.body.as_str().into(),
        ..Accord::default()
    }
}

/// Runs until it has left in order, or the future is dropped. Needs a current-thread runtime with time and net.
pub async fn run<H: Hands + 'static>(parts: Parts<H>) {
    let local = LocalSet::new();
    local.run_until(live(parts)).await;
}

async fn live<H: Hands + 'static>(parts: Parts<H>) {
    let Parts { config, duty, hands, disk, mut kept, shared, published, wishes, given_up, strays, accord, reloads } =
        parts;
    let hands = Rc::new(hands);
    let section = watch::Sender::new(config.watchdog.clone().expect("checked by app"));
    let post = Post::start(shared.clone(), section.subscribe());
    let mut body =
        Body { config, duty, hands, disk, shared, published, wishes, given_up, strays, accord, reloads, section, post };
    loop {
        let beating = AssertUnwindSafe(beat(&mut body, kept)).catch_unwind().await;
        if beating.is_ok() {
            return;
        }
        body.shared.lease.set(Epoch(0), 0, 0);
        body.post.tell(false);
        body.accord.send_modify(|accord| (accord.leads, accord.writes) = (None, false));
        let why = "the watchdog has failed and begins anew; the address is given up, sessions stay";
        body.shared.events.record(cluster::Event::error("watchdog_failed", "watchdog").why(why));
        if let Some(address) = body.config.watchdog.as_ref().and_then(|watchdog| watchdog.virtual_ip) {
            body.hands.end_sessions(address);
        }
        sleep(AGAIN).await;
        kept = loop {
            match Disk::open(&body.config.watchdog.as_ref().expect("checked by app").state_directory) {
                Ok((_, kept)) => break kept,
                Err(error) => tracing::error!(event = "votes_unreadable", %error, "votes cannot be read"),
            }
            sleep(AGAIN).await;
        };
    }
}

async fn beat<H: Hands + 'static>(body: &mut Body<H>, kept: Kept) {
    let Some(heart) = Heart::open(body, kept).await else { return };
    heart.beat(body).await;
}
