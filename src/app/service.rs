//! What the service manager hears of this process (sd_notify(3)): that it is ready, reloads, stops, and is alive. Says nothing where nobody
//! listens. Must not decide anything.

use sd_notify::NotifyState;

/// Signs of life within the time after which the manager gives up.
const BEATS: u32 = 3;

/// Clients are served, by the settings that were read last.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it, whatever came of it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no monotonic clock"),
    }
}

/// No clients from now on.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Signs of life, as often as the manager wants them (`WatchdogSec`), for as long as this thread turns and the others take their mail, which
/// `passed` waits for. If one of them hangs there is silence, and the manager starts the process anew. Returns if none are wanted.
pub(super) async fn live(passed: impl AsyncFn() -> Result<(), String>) {
    let Some(beat) = sd_notify::watchdog_enabled().map(|limit| limit / BEATS).filter(|beat| !beat.is_zero()) else {
        return;
    };
    let mut beats = tokio::time::interval(beat);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        match tokio::time::timeout(beat, passed()).await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
            Ok(Err(why)) => tracing::error!(why, "a data thread is gone"),
            Err(_) => tracing::warn!(?beat, "a data thread does not take its mail"),
        }
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
