//! Signals of a running proxy and what administrators ask of it, as pgpool-II and PostgreSQL have them. Must not know what stopping means.

use std::path::Path;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cluster::{Event, Partner};
use crate::config::Settings;
use crate::pcp::Reloaded;
use crate::pcp::request::StopMode;
use crate::session::Stop;
use crate::support::clock::Duration;

use super::handing::Handing;
use super::hatch::Hatch;
use super::log::Dial;
use super::once::{Once, Start};
use super::pcp::Wish;
use super::service;
use super::{Error, Running};

/// How often the last client's leaving is looked for, and how a start goes.
const LOOK: Duration = Duration::from_millis(50);
/// For sessions to end in once nothing is under way: one that has said BEGIN and nothing else is not waited for.
const FAREWELL: Duration = Duration::from_millis(200);

/// How far an end has come that waits for something.
enum Leaving {
    Stays,
    /// Until the last client has left.
    Smart,
    /// Until nothing is under way that the partner could not serve as well.
    Handing(Handing),
}

/// The signals that mean something.
pub(super) struct Signals {
    reload: Signal,
    smart: Signal,
    fast: Signal,
    immediate: Signal,
    wishes: mpsc::Receiver<Wish>,
}

impl Signals {
    /// Within a runtime; with what else asks for a reload or an end.
    pub(super) fn new(wishes: mpsc::Receiver<Wish>) -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            smart: signal(SignalKind::terminate())?,
            fast: signal(SignalKind::interrupt())?,
            immediate: signal(SignalKind::quit())?,
            wishes,
        })
    }

    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Wish {
        let stop = |mode, name: &str| Wish::Stop(mode, name.to_owned());
        tokio::select! {
            _ = self.reload.recv() => Wish::Reload("SIGHUP".to_owned(), None),
            _ = self.smart.recv() => stop(StopMode::Smart, "SIGTERM"),
            _ = self.fast.recv() => stop(StopMode::Fast, "SIGINT"),
            _ = self.immediate.recv() => stop(StopMode::Immediate, "SIGQUIT"),
            Some(wish) = self.wishes.recv() => wish,
        }
    }
}

/// Serves signals and administrators until one of them, or the last client's leaving after a smart stop, ends the proxy.
/// With `once` also a start that would have to be tried again.
pub(super) fn serve(mut running: Running, config: &Path, dial: &Dial, once: bool) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let mut signals = {
        let _inside = runtime.enter();
        if let Some(hatch) = hatch(running.settings()) {
            runtime.spawn(hatch.serve(running.office.wish.clone()));
        }
        Signals::new(running.wishes()).map_err(Error::Start)?
    };
    let (mut leaving, mut once) = (Leaving::Stays, once.then(|| Once::new(&running)));
    if once.is_none() {
        service::ready(&serving(&running));
    }
    let mut look = once.is_some().then_some(LOOK);
    let (stop, limit) = loop {
        let limit = running.settings().listen.stop_timeout;
        match next(&runtime, &mut signals, look) {
            Some(Wish::Reload(who, asked)) => {
                // Whoever waits for the start is not told that it is over.
                let outcome = reload_told(&mut running, config, (&who, once.is_none()));
                dial.set(running.settings().log.level);
                // Who asked may have given up.
                asked.map(|asked| asked.send(outcome));
            }
            Some(Wish::Stop(StopMode::Immediate, who)) => {
                stopping(&running, &who, "at once");
                break (Stop::Now, Duration::ZERO);
            }
            // It is under way, and has its limit.
            Some(Wish::Stop(..)) if matches!(leaving, Leaving::Handing(_)) => {}
            // Newcomers ask for the address: it goes to the partner, and sessions cannot stay on it.
            Some(Wish::Stop(_, who)) if hands_over(&running) => {
                stopping(&running, &who, "transactions may end, then the virtual address goes to a partner");
                (leaving, look) = (Leaving::Handing(Handing::begin(&running, limit)), Some(Duration::ZERO));
            }
            Some(Wish::Stop(StopMode::Smart, who)) => {
                stopping(&running, &who, "when the last client has left");
                running.stop_listening();
                (leaving, look) = (Leaving::Smart, Some(LOOK));
            }
            Some(Wish::Stop(StopMode::Fast, who)) => {
                stopping(&running, &who, "transactions may end");
                break (Stop::AtRest, limit);
            }
            None => match &mut leaving {
                Leaving::Handing(handing) => {
                    look = handing.look(&running, runtime.block_on(running.describe()));
                    if look.is_none() {
                        break (Stop::AtRest, FAREWELL);
                    }
                }
                Leaving::Smart if running.clients() == 0 => break (Stop::AtRest, limit),
                Leaving::Smart => {}
                Leaving::Stays => match once.as_ref().map_or(Start::Done, |once| once.look(&running)) {
                    Start::UnderWay => {}
                    Start::Done => {
                        (once, look) = (None, None);
                        service::ready(&serving(&running));
                    }
                    Start::Failed(why) => {
                        running.stop(Stop::Now, Duration::ZERO);
                        return Err(Error::Once(why));
                    }
                },
            },
        }
    };
    running.stop(stop, limit);
    Ok(())
}

/// Without it a reload is heard of in the log only.
pub(super) fn hatch(settings: &Settings) -> Option<Hatch> {
    match Hatch::open(&settings.pid_file) {
        Ok(hatch) => Some(hatch),
        Err(error) => {
            let beside = settings.pid_file.display();
            tracing::warn!(%beside, %error, "`pgherd reload` cannot ask this process: no socket beside the pid file");
            None
        }
    }
}

/// None: it is time to look at what is waited for.
fn next(runtime: &Runtime, signals: &mut Signals, look: Option<Duration>) -> Option<Wish> {
    runtime.block_on(async {
        match look {
            Some(look) => tokio::time::timeout(look, signals.next()).await.ok(),
            None => Some(signals.next().await),
        }
    })
}

/// Clients come by the address that this proxy has, and a partner is ready to take it.
fn hands_over(running: &Running) -> bool {
    let ready = |member: &Partner| member.duty == "proxy" && member.state == "STANDBY";
    running.cluster().group.load().as_ref().is_some_and(|group| group.holds_ip && group.members.iter().any(ready))
}

/// For those who ask the service manager.
fn serving(running: &Running) -> String {
    format!("serves clients on port {}", running.port())
}

fn stopping(running: &Running, who: &str, how: &str) {
    service::stopping();
    let why = format!("stopping: {how}; {} clients are connected", running.clients());
    running.cluster().events.record(Event::info("stopping", who).why(why));
}

/// Reloads; the service manager hears of it, if told.
fn reload_told(running: &mut Running, config: &Path, (who, told): (&str, bool)) -> Result<Reloaded, String> {
    if told {
        service::reloading();
    }
    let outcome = reload(running, config, who);
    if told {
        service::ready(&serving(running));
    }
    outcome
}

fn reload(running: &mut Running, config: &Path, who: &str) -> Result<Reloaded, String> {
    let outcome = Settings::load(config).map_err(Error::from).and_then(|settings| running.reload(settings));
    let outcome = outcome.map_err(|error| error.to_string());
    let event = match &outcome {
        Ok(reloaded) => Event::info("reloaded", who).why(reloaded.in_detail()),
        Err(error) => Event::error("not_reloaded", who).why(format!("nothing was changed: {error}")),
    };
    running.cluster().events.record(event);
    outcome
}
