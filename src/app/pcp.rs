//! What the administration port needs of the process: its socket, its users, orders, and the main thread, which alone reloads and stops.
//! Must not decide.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::cluster::{Errand, NodeId, Sign};
use crate::config::Settings;
use crate::failover::engine::Order;
use crate::failover::runner::Asked;
use crate::net::Listener;
use crate::pcp::request::StopMode;
use crate::pcp::{Admins, House, Parts, Reloaded, Which};
use crate::session::Global;
use crate::support::clock::{self, Duration};

use super::Error;
use super::data::{ANSWERING, Common, ThreadMail, ask_all};
use super::recovery::Bell;
use super::{failover, watchdog};

/// Wishes that may wait for the main thread.
const WISHES: usize = 4;
/// What partners ask that may wait.
const PARTNERS: usize = 16;
/// How long the main thread may take to reload.
const RELOADING: Duration = Duration::from_secs(60);

/// What the main thread is asked.
pub(super) enum Wish {
    /// Reload, for that person, and say what came of it.
    Reload(String, Option<oneshot::Sender<Result<Reloaded, String>>>),
    /// Stop, for that person.
    Stop(StopMode, String),
}

/// The main thread's ends.
pub(super) struct Ends {
    pub(super) admins: Arc<ArcSwap<Admins>>,
    pub(super) wishes: mpsc::Receiver<Wish>,
    /// For who else asks the main thread.
    pub(super) wish: mpsc::Sender<Wish>,
    /// The port is open.
    pub(super) open: bool,
}

impl Ends {
    /// What of these settings needs a new start although its parameter does not say so.
    pub(super) fn left(&self, settings: &Settings) -> Vec<String> {
        match (self.open, settings.pcp.users_file.is_some()) {
            (false, true) => vec!["the administration port opens with the next start".to_owned()],
            (true, false) => vec!["the administration port lets nobody in and closes with the next start".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// The process, as `pcp` sees it.
pub(super) struct Office {
    common: Arc<Common>,
    admins: Arc<ArcSwap<Admins>>,
    orders: mpsc::Sender<Asked>,
    bell: Bell,
    wishes: mpsc::Sender<Wish>,
    group: watchdog::Ends,
    /// How far a partner has come with what it was asked.
    progress: RefCell<String>,
}

/// The file of users; nobody without one.
///
/// # Errors
/// It cannot be used.
pub(super) fn admins(settings: &Settings) -> Result<Admins, Error> {
    let Some(file) = &settings.pcp.users_file else { return Ok(Admins::default()) };
    let (admins, warning) = Admins::load(file)?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    Ok(admins)
}

/// What runs on the control thread, made there of [`Seed::grow`], and the main thread's ends.
///
/// # Errors
/// A file cannot be had.
pub(super) fn parts(
    settings: &Settings,
    common: &Arc<Common>,
    (desk, bell): (&failover::Desk, Bell),
    listeners: Vec<Listener>,
) -> Result<(Seed, Ends), Error> {
    let admins = Arc::new(ArcSwap::from_pointee(admins(settings)?));
    let (wish, wishes) = mpsc::channel(WISHES);
    let open = !listeners.is_empty();
    let (partner, partners) = mpsc::channel(PARTNERS);
    common.partners.asked.set(partner).expect("set here alone");
    let office = Office {
        common: common.clone(),
        admins: admins.clone(),
        orders: desk.orders.clone(),
        bell,
        wishes: wish.clone(),
        group: desk.group.clone(),
        progress: RefCell::default(),
    };
    Ok((Seed { office, listeners, partners }, Ends { admins, wishes, wish, open }))
}

/// The same before it is on its thread.
pub(super) struct Seed {
    office: Office,
    listeners: Vec<Listener>,
    partners: mpsc::Receiver<crate::pcp::Asked>,
}

impl Seed {
    /// On the control thread.
    pub(super) fn grow(self) -> Parts<Office> {
        Parts { house: Rc::new(self.office), listeners: self.listeners, partners: self.partners }
    }
}

impl Office {
    async fn act(&self, session: i32, end: bool) -> Result<bool, String> {
        if let Some(other) = self.common.other_of(session) {
            return Err(format!("session {session} is one of {other}: ask there"));
        }
        let Some(thread) = self.common.thread_of(session) else { return Ok(false) };
        let (sender, answer) = oneshot::channel();
        let mail = ThreadMail::Act(u64::from(session.unsigned_abs()), end, sender);
        let asked = async { self.common.mail[thread].send(mail).await.is_ok() && answer.await.unwrap_or(false) };
        tokio::time::timeout(ANSWERING, asked)
            .await
            .map_err(|_| format!("data thread {thread} does not answer; session {session} may still be reached"))
    }
}

impl House for Office {
    fn settings(&self) -> Arc<Settings> {
        self.common.global.settings.load_full()
    }

    fn admins(&self) -> Arc<Admins> {
        self.admins.load_full()
    }

    fn global(&self) -> &Arc<Global> {
        &self.common.global
    }

    fn clients(&self) -> usize {
        self.common.clients.load(std::sync::atomic::Ordering::Acquire)
    }

    async fn order(&self, order: Order) -> Result<String, String> {
        let (sender, answer) = oneshot::channel();
        let ended = || "the failover engine has ended".to_owned();
        self.orders.send((order, sender)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    async fn recover(&self, node: NodeId) -> Result<String, String> {
        let (sender, answer) = oneshot::channel();
        let ended = || "nobody recovers nodes any more".to_owned();
        self.bell.requests.send((node, sender)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    fn leads(&self) -> bool {
        self.group.leads()
    }

    fn ask(&self, partner: &str, errand: Errand, who: &str, signs: mpsc::Sender<Sign>) -> Result<(), String> {
        self.group.ask(partner, errand, who, signs)
    }

    fn tell_progress(&self, how: String) {
        self.progress.replace(how);
    }

    fn recovery(&self) -> String {
        let own = self.bell.told.borrow().clone();
        if own.is_empty() { self.progress.borrow().clone() } else { own }
    }

    async fn reload(&self, who: &str) -> Result<Reloaded, String> {
        let (sender, answer) = oneshot::channel();
        let busy = || "the main thread does not answer: try again, or send SIGHUP".to_owned();
        self.wishes.try_send(Wish::Reload(who.to_owned(), Some(sender))).map_err(|_| busy())?;
        let answer = tokio::time::timeout(RELOADING, answer).await.map_err(|_| busy())?;
        answer.map_err(|_| busy())?
    }

    fn may_stop(&self) -> Result<(), String> {
        if self.wishes.capacity() > 0 && !self.wishes.is_closed() {
            return Ok(());
        }
        Err("the main thread does not answer: try again, or send a signal".to_owned())
    }

    fn stop(&self, mode: StopMode, who: &str) {
        // There was room a moment ago; else it is about to stop already.
        let _ = self.wishes.try_send(Wish::Stop(mode, who.to_owned()));
    }

    async fn cancel(&self, session: i32) -> Result<bool, String> {
        self.act(session, false).await
    }

    async fn end(&self, session: i32) -> Result<bool, String> {
        self.act(session, true).await
    }

    async fn reset(&self, which: &Which) -> u32 {
        let mut open = 0;
        for pool in self.common.global.registry.pools() {
            let key = &pool.key;
            let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
            if which.node.is_none_or(|id| id == key.node.0)
                && is(&which.database, &key.database)
                && is(&which.user, &key.user)
            {
                pool.retire(clock::now());
                open += pool.open();
            }
        }
        // A thread that is busy closes them a moment later, with its housekeeping.
        ask_all(&self.common.mail, ThreadMail::Reset).await;
        open
    }
}
