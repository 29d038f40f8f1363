//! Signals of a running proxy, as pgpool-II and PostgreSQL have them. Must not know what stopping means.

use std::path::Path;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cluster::Event;
use crate::config::Settings;
use crate::session::Stop;
use crate::support::clock::Duration;

use super::{Error, Running};

/// How often the last client's leaving is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// The signals that mean something.
struct Signals {
    reload: Signal,
    smart: Signal,
    fast: Signal,
    immediate: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Reload,
    Smart,
    Fast,
    Immediate,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            smart: signal(SignalKind::terminate())?,
            fast: signal(SignalKind::interrupt())?,
            immediate: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.reload.recv() => Wish::Reload,
            _ = self.smart.recv() => Wish::Smart,
            _ = self.fast.recv() => Wish::Fast,
            _ = self.immediate.recv() => Wish::Immediate,
        }
    }
}

/// Serves signals until one of them, or the last client's leaving after a smart stop, ends the proxy.
pub(super) fn serve(mut running: Running, config: &Path) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let limit = running.settings().listen.stop_timeout;
    let mut leaving = false;
    loop {
        match next(&runtime, &mut signals, leaving) {
            Some(Wish::Reload) => reload(&mut running, config),
            Some(Wish::Smart) => {
                stopping(&running, "SIGTERM", "when the last client has left");
                running.stop_listening();
                leaving = true;
            }
            Some(Wish::Fast) => {
                stopping(&running, "SIGINT", "transactions may end");
                running.stop(Stop::AtRest, limit);
                return Ok(());
            }
            Some(Wish::Immediate) => {
                stopping(&running, "SIGQUIT", "at once");
                running.stop(Stop::Now, Duration::ZERO);
                return Ok(());
            }
            None if leaving && running.clients() == 0 => {
                running.stop(Stop::AtRest, limit);
                return Ok(());
            }
            None => {}
        }
    }
}

fn next(runtime: &Runtime, signals: &mut Signals, leaving: bool) -> Option<Wish> {
    runtime.block_on(async {
        if leaving { tokio::time::timeout(LOOK, signals.next()).await.ok() } else { Some(signals.next().await) }
    })
}

fn stopping(running: &Running, who: &str, how: &str) {
    let why = format!("stopping: {how}; {} clients are connected", running.clients());
    running.cluster().events.record(Event::info("stopping", who).why(why));
}

fn reload(running: &mut Running, config: &Path) {
    let outcome = Settings::load(config).map_err(Error::from).and_then(|settings| running.reload(settings));
    let event = match outcome {
        Ok(changes) => {
            let changes: Vec<_> =
                changes.iter().map(|one| format!("{}: {} -> {}", one.key, one.old, one.new)).collect();
            Event::info("reloaded", "SIGHUP").why(format!("{} changes: {}", changes.len(), changes.join("; ")))
        }
        Err(error) => Event::error("not_reloaded", "SIGHUP").why(format!("nothing was changed: {error}")),
    };
    running.cluster().events.record(event);
}
