//! Tells the operator's programs that this proxy leads, and that it does so no more: one at a time, the newest truth last. Part of the runner;
//! nothing depends on what they do, and nobody waits for them but the end of the process, for a while.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::Shared;
use crate::config::Watchdog;
use crate::net::program::Program;
use crate::support::clock::Duration;

/// How long the end of the process waits for what is told last.
const FAREWELL: Duration = Duration::from_secs(5);

/// The way to the task that runs them. It outlives a failure of the watchdog, which is an end of leading, too.
#[derive(Debug, Clone)]
pub(super) struct Post {
    leads: watch::Sender<bool>,
    told: watch::Receiver<bool>,
}

impl Post {
    /// Begins with nobody leading, of which nobody is told.
    pub(super) fn start(shared: Arc<Shared>, watchdog: watch::Receiver<Watchdog>) -> Self {
        let ((leads, wanted), (done, told)) = (watch::channel(false), watch::channel(false));
        tokio::task::spawn_local(serve((shared, watchdog), wanted, done));
        Self { leads, told }
    }

    /// Whether this proxy leads now.
    pub(super) fn tell(&self, leads: bool) {
        self.leads.send_if_modified(|known| std::mem::replace(known, leads) != leads);
    }

    /// It leads no more; waits until the operator's program knows, for five seconds at the most.
    pub(super) async fn farewell(&mut self) {
        self.tell(false);
        let _ = timeout(FAREWELL, self.told.wait_for(|told| !told)).await;
    }
}

async fn serve(
    (shared, watchdog): (Arc<Shared>, watch::Receiver<Watchdog>),
    mut wanted: watch::Receiver<bool>,
    done: watch::Sender<bool>,
) {
    while wanted.wait_for(|wanted| *wanted != *done.borrow()).await.is_ok() {
        let leads = *wanted.borrow_and_update();
        // From now on there is something to be taken back, however far it comes.
        done.send_replace(true);
        let watchdog = watchdog.borrow().clone();
        let running = run(&shared, &watchdog, leads);
        if leads {
            tokio::select! {
                () = running => {}
                _ = wanted.wait_for(|wanted| !wanted) => {}
            }
        } else {
            running.await;
            done.send_replace(false);
        }
    }
}

async fn run(shared: &Shared, watchdog: &Watchdog, leads: bool) {
    let commands = &watchdog.commands;
    let (name, command) = if leads {
        ("escalation_command", &commands.escalation)
    } else {
        ("de_escalation_command", &commands.de_escalation)
    };
    let Some(words) = command.as_ref().and_then(|command| watchdog.words(name, command, 0).ok()) else { return };
    let surroundings = super::commands::surroundings(watchdog, name);
    let program =
        Program { words: &words, folder: &commands.folder, surroundings: &surroundings, limit: commands.timeout };
    program.run(&shared.events, None).await;
}
