//! A member that serves nobody and only votes: the third one of a pair, on a host that shares no fate with them. Must not decide.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::{Errand, NodeId, Shared, Sign};
use crate::config::Settings;
use crate::support::clock::{self, Duration, Instant};
use crate::watchdog::engine::Duty;
use crate::watchdog::runner::{self, Hands, MAX_WISHES, Parts, Wish, first_accord, hands::Row};

use super::{Error, log, watchdog};

/// How long the partners are told good-bye.
const LEAVING: Duration = Duration::from_secs(2);

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

    async fn stop_writing(&self, _patience: Instant) -> Result<(), String> {
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

/// Votes until SIGTERM or SIGINT, by the `[watchdog]` of the file; its nodes and its `virtual_ip` must be those of the proxies.
///
/// # Errors
/// It cannot start.
pub fn run(config: &Path) -> Result<(), Error> {
    let settings = Settings::load(config)?;
    log::to_stderr(&settings.log);
    let Some((disk, kept)) = watchdog::kept(&settings)? else {
        return Err(Error::Watchdog("a witness needs a [watchdog] section that names the proxies".to_owned()));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let (wish, wishes) = mpsc::channel(MAX_WISHES);
    // Nobody sends: the ends are kept for as long as it runs.
    let ((_view, published), (_reload, reloads)) = (watch::channel(()), watch::channel(settings.clone()));
    let (_stray, strays) = mpsc::channel(1);
    let parts = Parts {
        accord: watch::channel(first_accord(&kept)).0,
        config: settings,
        duty: Duty::Witness,
        hands: Nobody,
        disk,
        kept,
        shared: Arc::new(Shared::new(clock::now())),
        published,
        wishes,
        strays,
        reloads,
    };
    let work = runtime.block_on(async {
        let (mut end, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let leave = async {
            tokio::select! {
                _ = end.recv() => {}
                _ = interrupt.recv() => {}
            }
            let (left, gone) = oneshot::channel();
            if wish.send(Wish::Leave(left)).await.is_ok() {
                let _ = tokio::time::timeout(LEAVING, gone).await;
            }
        };
        tokio::select! {
            () = runner::run(parts) => {}
            () = leave => {}
        }
        Ok::<(), std::io::Error>(())
    });
    work.map_err(Error::Start)
}
