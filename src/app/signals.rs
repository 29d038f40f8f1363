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

use super::hatch::Hatch;
use super::log::Dial;
use super::once::{Once, Start};
use super::pcp::Wish;
use super::service;
use super::{Error, Running};

/// How often the last client's leaving is looked for, and how a start goes.
const LOOK: Duration = Duration::from_millis(50);

/// The signals that mean something.
struct Signals {
    reload: Signal,
    smart: Signal,
    fast: Signal,
    immediate: Signal,
    wishes: mpsc::Receiver<Wish>,
}

impl Signals {
    fn new(wishes: mpsc::Receiver<Wish>) -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            smart: signal(SignalKind::terminate())?,
            fast: signal(SignalKind::interrupt())?,
            immediate: signal(SignalKind::quit())?,
            wishes,
        })
    }

    async fn next(&mut self) -> Wish {
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
    let (mut leaving, mut once) = (false, once.then(|| Once::new(&running)));
    if once.is_none() {
        service::ready(&serving(&running));
    }
    loop {
        let limit = running.settings().listen.stop_timeout;
        match next(&runtime, &mut signals, leaving || once.is_some()) {
            Some(Wish::Reload(who, asked)) => {
                // Whoever waits for the start is not told that it is over.
                let started = once.is_none();
                if started {
                    service::reloading();
                }
                let outcome = reload(&mut running, config, &who);
                if started {
                    service::ready(&serving(&running));
                }
                dial.set(running.settings().log.level);
                // Who asked may have given up.
                asked.map(|asked| asked.send(outcome));
            }
            // Newcomers ask for the address: it goes to the partner, and sessions cannot stay on it.
            Some(Wish::Stop(StopMode::Smart, who)) if hands_over(&running) => {
                stopping(&running, &who, "transactions may end, for the virtual address goes to a partner");
                running.stop(Stop::AtRest, limit);
                return Ok(());
            }
            Some(Wish::Stop(StopMode::Smart, who)) => {
                stopping(&running, &who, "when the last client has left");
                running.stop_listening();
                leaving = true;
            }
            Some(Wish::Stop(StopMode::Fast, who)) => {
                stopping(&running, &who, "transactions may end");
                running.stop(Stop::AtRest, limit);
                return Ok(());
            }
            Some(Wish::Stop(StopMode::Immediate, who)) => {
                stopping(&running, &who, "at once");
                running.stop(Stop::Now, Duration::ZERO);
                return Ok(());
            }
            None if once.is_some() && !leaving => match once.as_ref().map_or(Start::Done, |once| once.look(&running)) {
                Start::UnderWay => {}
                Start::Done => {
                    once = None;
                    service::ready(&serving(&running));
                }
                Start::Failed(why) => {
                    running.stop(Stop::Now, Duration::ZERO);
                    return Err(Error::Once(why));
                }
            },
            None if leaving && running.clients() == 0 => {
                running.stop(Stop::AtRest, limit);
                return Ok(());
            }
            None => {}
        }
    }
}

/// Without it a reload is heard of in the log only.
fn hatch(settings: &Settings) -> Option<Hatch> {
    match Hatch::open(&settings.pid_file) {
        Ok(hatch) => Some(hatch),
        Err(error) => {
            let beside = settings.pid_file.display();
            tracing::warn!(%beside, %error, "`pgherd reload` cannot ask this process: no socket beside the pid file");
            None
        }
    }
}

fn next(runtime: &Runtime, signals: &mut Signals, look: bool) -> Option<Wish> {
    runtime.block_on(async {
        if look { tokio::time::timeout(LOOK, signals.next()).await.ok() } else { Some(signals.next().await) }
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
