//! What the watchdog needs of the rest of the process, and the way of others to it: sessions as the monitor role, the data threads, consent for
//! `failover`, the order to leave. Must not decide.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::{
    Accord, Alone, Answer, ClusterView, Consensus, Epoch, Errand, FailoverRequest, Life, NodeId, Sign, Verdict,
};
use crate::config::Settings;
use crate::failover::conninfo;
use crate::failover::journal::Store;
use crate::failover::runner::Threads;
use crate::health::connection::{Connection, Dialer};
use crate::health::node::{Connector, ProbeClient};
use crate::health::runner::Reader;
use crate::net;
use crate::support::clock::{self, Duration, Instant};
use crate::watchdog::engine::Duty;
use crate::watchdog::runner::{Disk, Hands, MAX_STRAYS, MAX_WISHES, Parts, Wish, first_accord, hands::Row};
use crate::watchdog::seal::Seal;
use crate::watchdog::timings::Timings;

use super::Error;
use super::data::Common;
use super::failover::DataThreads;

/// Between two looks at what is still under way on the primary.
const LOOK: Duration = Duration::from_millis(20);
/// How long a failover waits until partners have copies of what it changes: the disks of those that are there take less.
const COPYING: Duration = Duration::from_millis(300);
/// The longest original that is kept for a partner, with the name of its file, in bytes.
const MOST_ORIGINAL: usize = 4 * 1024;
/// How long the group may take over an orderly end: an address that does not go is given up after 5 s.
const LEAVING: Duration = Duration::from_secs(7);

/// The process, as the watchdog sees it.
pub(super) struct Grip {
    dialer: Dialer,
    common: Arc<Common>,
    /// For the originals that partners have changed.
    store: Store,
}

impl Grip {
    /// Keeps an original for a partner, or forgets it.
    fn keep(&self, node: u16, original: Option<(String, String)>, signs: mpsc::Sender<Sign>) -> Result<(), String> {
        let (node, store) = (NodeId(node), self.store.clone());
        if self.common.global.settings.load().node(node).is_none() {
            return Err(format!("there is no node {node}"));
        }
        if let Some((conninfo, source)) = &original
            && (conninfo.len() + source.len() > MOST_ORIGINAL || conninfo::has_password(conninfo))
        {
            return Err("this is no original to be kept".to_owned());
        }
        tokio::task::spawn_blocking(move || {
            let done = match original {
                Some((conninfo, source)) => store.keep(node, &conninfo, &source).map_err(|error| error.to_string()),
                None => {
                    store.forget(node);
                    Ok(())
                }
            };
            let _ = signs.try_send(Sign::Done(done.map(|()| String::new())));
        });
        Ok(())
    }
}

impl Hands for Grip {
    type Session = Connection;

    async fn open(&self, node: NodeId) -> Result<Connection, String> {
        self.dialer.connect(node, None).await.map_err(|error| format!("{}: {}", error.failure, error.detail))
    }

    async fn ask(&self, session: &mut Connection, sql: &str) -> Result<Vec<Row>, String> {
        ProbeClient::query(session, sql).await.map_err(|error| format!("{}: {}", error.failure, error.detail))
    }

    async fn stop_writing(&self, node: Option<NodeId>, patience: Instant) -> Result<(), String> {
        let threads = DataThreads(self.common.clone());
        threads.barrier().await?;
        let Some(node) = node else { return Ok(()) };
        let lives = |view: &ClusterView| view.node(node).is_some_and(|node| !matches!(node.life, Life::Dead(_)));
        let lives = lives(&self.common.global.cluster.snapshot());
        while lives && clock::boot() < patience && threads.busy(node).await? > 0 {
            tokio::time::sleep(LOOK).await;
        }
        threads.fence(node).await
    }

    fn end_sessions(&self, address: IpAddr) -> usize {
        net::sever_here(address).unwrap_or_else(|error| {
            tracing::error!(event = "sessions_not_ended", %error, "sessions on the virtual address are not ended");
            0
        })
    }

    fn cancel(&self, session: i32, is_right: &dyn Fn(&[u8]) -> bool) -> bool {
        self.common.cancel_if(session, is_right)
    }

    fn obey(&self, errand: Errand, who: String, signs: mpsc::Sender<Sign>) -> Result<(), String> {
        match errand {
            Errand::Keep { node, conninfo, source } => return self.keep(node, Some((conninfo, source)), signs),
            Errand::Forget(node) => return self.keep(node, None, signs),
            _ => {}
        }
        let partners = self.common.partners.asked.get().ok_or("it has just started")?;
        let sent = partners.try_send(crate::pcp::Asked { errand, who, signs });
        sent.map_err(|_| "it has too much under way for its partners: try again".to_owned())
    }
}

/// Wishes for consent: how many there were, and the number of the newest that was given up.
struct Leave {
    asked: AtomicU64,
    given_up: watch::Sender<u64>,
}

/// Consent of the partners. The second are the names of those that may lead.
struct Partners(mpsc::Sender<Wish>, Arc<[String]>, Arc<Leave>);

impl Partners {
    fn ask(&self, wish: impl FnOnce(oneshot::Sender<Result<u64, String>>) -> Wish) -> Answer<Result<u64, String>> {
        let (sender, answer) = oneshot::channel();
        let (wish, wishes) = (wish(sender), self.0.clone());
        Box::pin(async move {
            let ended = |_| "the watchdog has ended".to_owned();
            wishes.send(wish).await.map_err(|_| ended(()))?;
            answer.await.map_err(|_| ended(()))?
        })
    }
}

impl Consensus for Partners {
    fn may_act(&self, request: &FailoverRequest, planned: bool) -> Answer<Verdict> {
        let node = request.node;
        let number = self.2.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let asked = self.ask(|answer| Wish::Consent { number, node, planned, answer });
        Box::pin(async move {
            match asked.await {
                Ok(epoch) => Verdict::Granted(Some(Epoch(epoch))),
                Err(why) => Verdict::Refused(why),
            }
        })
    }

    fn resume(&self) {
        self.2.given_up.send_replace(self.2.asked.load(Ordering::Relaxed));
    }

    fn record(&self, epoch: Epoch, journal: String) -> Answer<Result<(), String>> {
        let asked = self.ask(|answer| Wish::Record(epoch.0, journal, answer));
        Box::pin(async move { asked.await.map(drop) })
    }

    fn keep(&self, node: NodeId, original: Option<(String, String)>) -> Answer<()> {
        let errand = match original {
            Some((conninfo, source)) => Errand::Keep { node: node.0, conninfo, source },
            None => Errand::Forget(node.0),
        };
        let (signs, mut told) = mpsc::channel(self.1.len().max(1));
        for partner in &*self.1 {
            // A full queue: that one has no copy.
            let _ = self.0.try_send(Wish::Ask(partner.clone(), errand.clone(), "failover".to_owned(), signs.clone()));
        }
        drop(signs);
        Box::pin(async move {
            // The last end goes with the last answer.
            let all = async { while told.recv().await.is_some() {} };
            let _ = tokio::time::timeout(COPYING, all).await;
        })
    }
}

/// The ends of the channels that the runner is reached by; nobody behind them without partners.
#[derive(Clone)]
pub(super) struct Ends {
    wishes: Option<mpsc::Sender<Wish>>,
    leave: Arc<Leave>,
    reloads: Option<Arc<watch::Sender<Settings>>>,
    accord: watch::Receiver<Accord>,
    /// The names of the other proxies.
    partners: Arc<[String]>,
}

impl Ends {
    /// Who must agree before `failover` acts.
    pub(super) fn consensus(&self) -> Box<dyn Consensus + Send> {
        match &self.wishes {
            Some(wishes) => Box::new(Partners(wishes.clone(), self.partners.clone(), self.leave.clone())),
            None => Box::new(Alone),
        }
    }

    /// This proxy leads its partners, or has none.
    pub(super) fn leads(&self) -> bool {
        self.wishes.is_none() || self.accord.borrow().leads.is_some()
    }

    /// Asks a partner for something, for `who`.
    ///
    /// # Errors
    /// Nothing was asked; why, for people.
    pub(super) fn ask(
        &self,
        partner: &str,
        errand: Errand,
        who: &str,
        signs: mpsc::Sender<Sign>,
    ) -> Result<(), String> {
        let wish = Wish::Ask(partner.to_owned(), errand, who.to_owned(), signs);
        let sent = self.wishes.as_ref().map(|wishes| wishes.try_send(wish).is_ok());
        if sent == Some(true) { Ok(()) } else { Err("the watchdog takes no orders now: nothing was asked".to_owned()) }
    }

    /// What is agreed on.
    pub(super) fn accord(&self) -> watch::Receiver<Accord> {
        self.accord.clone()
    }

    /// Other settings hold.
    pub(super) fn reload(&self, settings: &Settings) {
        if let Some(reloads) = &self.reloads {
            reloads.send_replace(settings.clone());
        }
    }

    /// Gives up the address and tells the partners, behind the last session (HA H24). Blocks.
    pub(super) fn leave(&mut self) {
        let Some(wishes) = self.wishes.take() else { return };
        let (left, mut gone) = oneshot::channel();
        // A full queue: the watchdog hangs, and its lease runs out.
        if wishes.try_send(Wish::Leave(left)).is_err() {
            return;
        }
        let deadline = clock::now() + LEAVING;
        while matches!(gone.try_recv(), Err(oneshot::error::TryRecvError::Empty)) && clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What is wrong with the section, one sentence each.
pub(crate) fn problems(settings: &Settings) -> Vec<String> {
    let Some(watchdog) = &settings.watchdog else { return Vec::new() };
    let mut problems = Timings::of(watchdog.lease).problems();
    let names: Vec<&str> = watchdog.peers.iter().map(|peer| peer.name.as_str()).collect();
    let key = watchdog.key.expose().trim_end().as_bytes();
    problems.extend(Seal::new(key, &watchdog.name, 1, &names).err().map(|why| format!("watchdog.key_file: {why}")));
    problems
}

/// The state directory, and what is kept there; none without partners.
pub(super) type Kept = Option<(Disk, crate::watchdog::engine::Kept)>;

/// What the process before has left.
///
/// # Errors
/// Times are unsafe, the key is too short, or the state directory cannot be used.
pub(super) fn kept(settings: &Settings) -> Result<Kept, Error> {
    let Some(watchdog) = &settings.watchdog else { return Ok(None) };
    if let Some(problem) = problems(settings).into_iter().next() {
        return Err(Error::Watchdog(problem));
    }
    let folder = &watchdog.state_directory;
    let opened = Disk::open(folder);
    opened.map(Some).map_err(|error| Error::Watchdog(format!("state_directory {}: {error}", folder.display())))
}

/// All that the runner needs, and the other ends. From here on nothing is written before the partners agree.
pub(super) fn parts(
    (settings, kept): (&Settings, Kept),
    store: &Store,
    health: &Reader,
    dialer: Dialer,
    common: &Arc<Common>,
) -> (Option<Parts<Grip>>, Ends) {
    let peers = settings.watchdog.iter().flat_map(|watchdog| &watchdog.peers);
    let partners: Arc<[String]> = peers.filter(|peer| !peer.witness).map(|peer| peer.name.clone()).collect();
    let (give_up, given_up) = watch::channel(0);
    let leave = Arc::new(Leave { asked: AtomicU64::new(0), given_up: give_up });
    let Some((disk, kept)) = kept else {
        let accord = watch::channel(Accord::default()).1;
        return (None, Ends { wishes: None, leave, reloads: None, accord, partners });
    };
    health.shared.lease.keep();
    let (wish, wishes) = mpsc::channel(MAX_WISHES);
    let (stray, strays) = mpsc::channel(MAX_STRAYS);
    common.partners.strays.set(stray).expect("set here alone");
    let (reload, reloads) = watch::channel(settings.clone());
    let (accord, agreed) = watch::channel(first_accord(&kept));
    let parts = Parts {
        config: settings.clone(),
        duty: Duty::Proxy,
        hands: Grip { dialer, common: common.clone(), store: store.clone() },
        disk,
        kept,
        shared: health.shared.clone(),
        published: health.published.clone(),
        wishes,
        given_up,
        strays,
        accord,
        reloads,
    };
    (Some(parts), Ends { wishes: Some(wish), leave, reloads: Some(Arc::new(reload)), accord: agreed, partners })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Trouble;

    #[test]
    fn what_is_given_up_is_not_lost_though_the_queue_is_full() {
        let ((wish, mut wishes), (give_up, given_up)) = (mpsc::channel(1), watch::channel(0));
        let leave = Arc::new(Leave { asked: AtomicU64::new(0), given_up: give_up });
        let partners = Partners(wish.clone(), Arc::default(), leave);
        wish.try_send(Wish::HandOver(None, oneshot::channel().0)).expect("room for one");
        let request = FailoverRequest { node: NodeId(0), trouble: Trouble::CannotConnect, epoch: Epoch(1) };
        drop(partners.may_act(&request, false));
        partners.resume();
        assert_eq!(*given_up.borrow(), 1);
        wishes.try_recv().expect("the other one");
        let mut asked = partners.may_act(&request, false);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(asked.as_mut().poll(&mut context).is_pending(), "it is asked");
        let Ok(Wish::Consent { number: 2, .. }) = wishes.try_recv() else { panic!("the second wish") };
    }
}
