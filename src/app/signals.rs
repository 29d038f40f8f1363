//! Signals of a running proxy, as pgpool-II and PostgreSQL have them. Must not know what stopping means.

use std::path::Path;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
                tracing::info!(clients = running.clients(), "stopping when the last client has left");
                running.stop_listening();
                leaving = true;
            }
            Some(Wish::Fast) => {
                tracing::info!(clients = running.clients(), "stopping: transactions may end");
                running.stop(Stop::AtRest, limit);
                return Ok(());
            }
            Some(Wish::Immediate) => {
                tracing::info!(clients = running.clients(), "stopping at once");
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

fn reload(running: &mut Running, config: &Path) {
    let outcome = Settings::load(config).map_err(Error::from).and_then(|settings| running.reload(settings));
    match outcome {
        Ok(changes) => tracing::info!(changes = changes.len(), ?changes, "reloaded"),
        Err(error) => tracing::error!(%error, "not reloaded: nothing was changed"),
    }
}
