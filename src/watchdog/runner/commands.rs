//! Programs of the operator's that work on the address instead of pgherd: put it there, take it away, tell the neighbours. Part of the runner;
//! must not decide, nor believe what they say.
//!
//! What they do is never all there is: behind `if_up_cmd` the kernel must know the address on the interface and gets its lifetime; behind
//! `if_down_cmd` pgherd deletes what is left. None is waited for beyond its time, and nothing of them lives behind their end: an
//! `if_up_cmd` that may not be killed keeps the address from being taken, and is undone until it has ended.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::{Event, Events, Shared};
use crate::config::Watchdog;
use crate::net::program::{Group, Program, Ran};
use crate::support::clock::{self, Duration, Instant};

/// What is left of the lease when `if_up_cmd` ends, at least: lifetimes are whole seconds.
const LEFT: Duration = Duration::from_millis(1_050);
/// Between two complaints about `arping_cmd`, which is run again and again.
const REMINDER: Duration = Duration::from_secs(60);
/// Between two runs of an `if_up_cmd` that fails: several, before a partner is called in.
const AGAIN: Duration = Duration::from_millis(500);

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Commands {
    shared: Arc<Shared>,
    watchdog: watch::Receiver<Watchdog>,
    arping: Option<JoinHandle<()>>,
    complained: Option<Instant>,
    /// `if_up_cmd` was run, and `if_down_cmd` not since.
    begun: bool,
    /// Why it failed last, and until when it is not run again.
    failed: Option<(String, Instant)>,
    /// A program that was to put the address somewhere, is over its time and lives on.
    astray: Option<Group>,
}

impl Commands {
    pub(super) fn new(shared: Arc<Shared>, watchdog: watch::Receiver<Watchdog>) -> Self {
        Self { shared, watchdog, arping: None, complained: None, begun: false, failed: None, astray: None }
    }

    /// A program that could still put the address here, kills it, too.
    pub(super) fn is_astray(&mut self) -> bool {
        if self.astray.as_ref().is_some_and(|group| !group.lives()) {
            self.astray = None;
        }
        self.astray.is_some()
    }

    /// Puts the address on the interface; false: there is no program for that.
    ///
    /// # Errors
    /// For people: it failed, was late, or the one before is.
    pub(super) async fn up(&mut self, until: Instant) -> Result<bool, String> {
        let watchdog = self.watchdog.borrow().clone();
        let Some(command) = &watchdog.commands.if_up else { return Ok(false) };
        if self.is_astray() {
            return Err("an if_up_cmd that was run before may not be killed, and has not ended".to_owned());
        }
        let now = clock::boot();
        if let Some((why, _)) = self.failed.as_ref().filter(|(_, until)| now < *until) {
            return Err(why.clone());
        }
        let left = until.saturating_duration_since(now);
        let limit = watchdog.commands.timeout.min(left.saturating_sub(LEFT));
        if limit.is_zero() {
            return Err("too little is left of the lease for if_up_cmd".to_owned());
        }
        let words = watchdog.words("if_up_cmd", command, left.as_secs())?;
        self.begun = true;
        let (ran, left) = run(&self.shared.events, &watchdog, "if_up_cmd", (&words, limit)).await;
        self.astray = left;
        let why = match ran {
            Ran::Well(_) if self.astray.is_some() => "what if_up_cmd has started lives on".to_owned(),
            Ran::Well(_) => return Ok(true),
            Ran::NotStarted(why) | Ran::Failed(why) => format!("if_up_cmd: {why}"),
        };
        self.failed = Some((why.clone(), clock::boot() + AGAIN));
        Err(why)
    }

    /// `if_up_cmd` may have put it anywhere.
    pub(super) fn were_begun(&self) -> bool {
        self.begun
    }

    /// Takes it from there, as far as that program does it.
    pub(super) async fn down(&mut self) {
        self.begun = false;
        let watchdog = self.watchdog.borrow().clone();
        let Some(command) = &watchdog.commands.if_down else { return };
        let limit = watchdog.commands.timeout.min(watchdog.lease);
        if let Ok(words) = watchdog.words("if_down_cmd", command, 0) {
            // What it has left undone is done by pgherd, and told by its event.
            let _ = run(&self.shared.events, &watchdog, "if_down_cmd", (&words, limit)).await;
        }
    }

    /// Tells the neighbours, beside everything else, one after the other; false: there is no program for that.
    pub(super) fn announce(&mut self) -> bool {
        let watchdog = self.watchdog.borrow().clone();
        let Some(command) = &watchdog.commands.arping else { return false };
        if self.arping.as_ref().is_some_and(|running| !running.is_finished()) {
            return true;
        }
        let Ok(words) = watchdog.words("arping_cmd", command, 0) else { return true };
        let now = clock::boot();
        let silent = self.complained.is_some_and(|at| now < at + REMINDER);
        if !silent {
            self.complained = Some(now);
        }
        let shared = self.shared.clone();
        self.arping = Some(tokio::task::spawn_local(async move {
            let limit = watchdog.commands.timeout.min(watchdog.lease);
            let surroundings = surroundings(&watchdog, "arping_cmd");
            let folder = &watchdog.commands.folder;
            let program = Program { words: &words, folder, surroundings: &surroundings, limit };
            let (ran, _) = program.run_quietly().await;
            if let Ran::NotStarted(why) | Ran::Failed(why) = ran
                && !silent
            {
                shared
                    .events
                    .record(Event::warn("address_not_announced", "watchdog").why(format!("arping_cmd: {why}")));
            }
        }));
        true
    }

    /// Nobody is told any more: the next word is the next holder's.
    pub(super) async fn hush(&mut self) {
        if let Some(running) = self.arping.take() {
            running.abort();
            let _ = running.await;
        }
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if let Some(running) = &self.arping {
            running.abort();
        }
    }
}

/// What each of them finds in its environment.
pub(super) fn surroundings(watchdog: &Watchdog, name: &str) -> [(&'static str, String); 3] {
    let address = watchdog.virtual_ip.map_or(String::new(), |address| address.to_string());
    [("PGHERD_HOOK", name.to_owned()), ("PGHERD_MEMBER", watchdog.name.clone()), ("PGHERD_VIRTUAL_IP", address)]
}

/// Runs one until nothing of it lives; what lives all the same.
pub(super) async fn run(
    events: &Events,
    watchdog: &Watchdog,
    name: &str,
    (words, limit): (&[String], Duration),
) -> (Ran, Option<Group>) {
    let surroundings = surroundings(watchdog, name);
    let program = Program { words, folder: &watchdog.commands.folder, surroundings: &surroundings, limit };
    program.run_whole(events).await
}
