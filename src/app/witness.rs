//! A member that serves nobody and only votes: the third one of a pair, on a host that shares no fate with them. It is told and asked what a
//! proxy is: by signals, by `pgherd reload` and `stop`, by the service manager. Must not decide.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::{Errand, Event, NodeId, Shared, Sign};
use crate::config::Settings;
use crate::pcp::Reloaded;
use crate::pcp::request::StopMode;
use crate::support::clock::{self, Duration, Instant};
use crate::watchdog::engine::Duty;
use crate::watchdog::runner::{self, Hands, MAX_WISHES, Parts, Wish, first_accord, hands::Row};

use super::signals::{Signals, hatch};
use super::{Error, log, pcp, priority, service, watchdog};

/// How long the partners are told good-bye.
const LEAVING: Duration = Duration::from_secs(2);
/// Reloads that may wait.
const WISHES: usize = 4;
/// Without it there is nobody to vote for.
const SECTION: &str = "a witness needs a [watchdog] section that names the proxies";
/// For those who ask the service manager.
const VOTES: &str = "votes, and serves nobody";

/// There is nothing in this process but votes.
struct Nobody;

impl Hands for Nobody {
    type Session = ();

    async fn open(&self, _node: NodeId) -> Result<(), String> {
        Err("a witness speaks to no server".to_owned())
    }

    async fn ask(&self, _session: &mut (), _sql: &str) -> Result<Vec<Row>, String> {
        Err("a witness speaks to no server".to_owned())
    }

    async fn stop_writing(&self, _node: Option<NodeId>, _patience: Instant) -> Result<(), String> {
        Ok(())
    }

    fn end_sessions(&self, _address: IpAddr) -> usize {
        0
    }

    fn cancel(&self, _session: i32, _is_right: &dyn Fn(&[u8]) -> bool) -> bool {
        false
    }

    fn obey(&self, _errand: Errand, _who: String, _signs: mpsc::Sender<Sign>) -> Result<(), String> {
        Err("a witness only votes".to_owned())
    }
}

/// What the main task changes and tells.
struct Office<'a> {
    file: &'a Path,
    began: Settings,
    settings: Settings,
    dial: log::Dial,
    shared: Arc<Shared>,
    reloads: watch::Sender<Settings>,
}

impl Office<'_> {
    /// Reads the file again; what proxies must have alike is compared by it from now on.
    fn reload(&mut self, who: &str) -> Result<Reloaded, String> {
        let outcome = Settings::load(self.file).map_err(|error| error.to_string()).and_then(|new| {
            if let Some(problem) = watchdog::problems(&new).into_iter().next() {
                return Err(format!("watchdog: {problem}"));
            }
            if new.watchdog.is_none() {
                return Err(Error::Watchdog(SECTION.to_owned()).to_string());
            }
            let changes = super::changes(&self.settings, &self.began, &new);
            self.dial.set(new.log.level);
            self.reloads.send_replace(new.clone());
            self.settings = new;
            Ok(Reloaded { changes, left: Vec::new() })
        });
        self.shared.events.record(match &outcome {
            Ok(reloaded) => Event::info("reloaded", who).why(reloaded.in_detail()),
            Err(error) => Event::error("not_reloaded", who).why(format!("nothing was changed: {error}")),
        });
        outcome
    }

    /// Serves signals and the hatch until one of them ends the process.
    async fn serve(&mut self, mut signals: Signals, wish: mpsc::Sender<Wish>) {
        loop {
            match signals.next().await {
                pcp::Wish::Reload(who, asked) => {
                    service::reloading();
                    let outcome = self.reload(&who);
                    service::ready(VOTES);
                    // Who asked may have given up.
                    asked.map(|asked| asked.send(outcome));
                }
                pcp::Wish::Stop(mode, who) => {
                    service::stopping();
                    let how = if mode == StopMode::Immediate { "at once" } else { "the partners are told" };
                    self.shared.events.record(Event::info("stopping", &who).why(format!("stopping: {how}")));
                    let (left, gone) = oneshot::channel();
                    if mode != StopMode::Immediate && wish.send(Wish::Leave(left)).await.is_ok() {
                        let _ = tokio::time::timeout(LEAVING, gone).await;
                    }
                    return;
                }
            }
        }
    }
}

/// Votes until SIGTERM, SIGINT or SIGQUIT, by the `[watchdog]` of the file; SIGHUP reloads. Its nodes and its `virtual_ip` must be those of
/// the proxies.
///
/// # Errors
/// It cannot start.
pub fn run(config: &Path) -> Result<(), Error> {
    let settings = Settings::load(config)?;
    let dial = log::to_stderr(&settings.log);
    let Some((disk, kept)) = watchdog::kept(&settings)? else { return Err(Error::Watchdog(SECTION.to_owned())) };
    priority::raise("witness");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let (wish, wishes) = mpsc::channel(MAX_WISHES);
    let (reloads, reloaded) = watch::channel(settings.clone());
    // Nobody sends: the ends are kept for as long as it runs.
    let ((_view, published), (_stray, strays)) = (watch::channel(()), mpsc::channel(1));
    let shared = Arc::new(Shared::new(clock::now()));
    let parts = Parts {
        accord: watch::channel(first_accord(&kept)).0,
        config: settings.clone(),
        duty: Duty::Witness,
        hands: Nobody,
        disk,
        kept,
        shared: shared.clone(),
        published,
        wishes,
        given_up: watch::channel(0).1,
        strays,
        reloads: reloaded,
    };
    let mut office = Office { file: config, began: settings.clone(), settings, dial, shared, reloads };
    let work = runtime.block_on(async {
        let (asked, asking) = mpsc::channel(WISHES);
        let signals = Signals::new(asking)?;
        if let Some(hatch) = hatch(&office.settings) {
            tokio::spawn(hatch.serve(asked));
        }
        service::ready(VOTES);
        // Its votes are cast on this very thread: if it hangs, so do the signs of life.
        let alive = async {
            service::live(async || Ok(())).await;
            std::future::pending().await
        };
        tokio::select! {
            () = runner::run(parts) => {}
            () = office.serve(signals, wish) => {}
            () = alive => {}
        }
        Ok::<(), std::io::Error>(())
    });
    work.map_err(Error::Start)
}
