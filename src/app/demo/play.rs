//! `pgherd demo`: starts the stage, tells what to type, shows where the work goes, and ends on a signal.
//!
//! Owned by the command line. Must leave nothing behind, however it ends; what it cannot remove itself (killed, or told
//! twice to stop) the folder's remover does.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::load::{self, Done, Load};
use super::stage::{DATABASE, Stage, Work};
use super::{Error, programs};

/// How often it is shown where the work went, if there was any.
const SHOW: Duration = Duration::from_secs(5);

/// What the demo shall do.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// The proxy's port; 0: any free one.
    pub port: u16,
    /// Run a small load for so many seconds, judge what came of it, and end.
    pub seconds: Option<u64>,
}

/// Runs the demo to its end. False: the load did not do what it should, and it was said why.
///
/// # Errors
/// What could not be started, or failed later.
pub fn run(wishes: Wishes) -> Result<bool, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(Error::Runtime)?
    };
    refuse_taken(wishes.port)?;
    say("Starting a private primary with two standbys, and pgherd in front of them …");
    let mut starting = on_a_thread(move || Stage::start(wishes.port));
    let Some(started) = signals.unless(&runtime, &mut starting) else {
        say("Stopping as soon as the servers can be stopped. Once more Ctrl-C: at once");
        drop(signals.unless(&runtime, &mut starting));
        return Ok(true);
    };
    let mut stage = started?;
    let before = stage.work()?;
    let verdict = match wishes.seconds {
        Some(seconds) => perform(&mut stage, seconds, &before, (&runtime, &mut signals)),
        None => watch(&mut stage, &before, (&runtime, &mut signals)).map(|()| true),
    };
    drop(stage);
    say("All of it is stopped and removed.");
    verdict
}

/// Lets the user play until a signal comes.
fn watch(stage: &mut Stage, before: &[Work], (runtime, signals): (&Runtime, &mut Signals)) -> Result<(), Error> {
    say(&invitation(stage));
    let mut shown = before.to_vec();
    loop {
        if runtime.block_on(async { tokio::time::timeout(SHOW, signals.next()).await }).is_ok() {
            break;
        }
        let now = stage.work()?;
        if now != shown {
            say(&table(stage, before, &now));
            shown = now;
        }
    }
    stage.stop_proxy();
    let now = stage.work()?;
    say(&format!("\nWhere the work went:\n{}", table(stage, before, &now)));
    Ok(())
}

/// Runs the load, then shows and judges what came of it.
fn perform(
    stage: &mut Stage,
    seconds: u64,
    before: &[Work],
    (runtime, signals): (&Runtime, &mut Signals),
) -> Result<bool, Error> {
    say(&format!("{} clients read and two write, for {seconds} s …", load::READERS));
    let load = Load::new(stage, seconds);
    let Some(done) = signals.unless(runtime, &mut on_a_thread(move || load.run())) else { return Ok(false) };
    let done: Done = done?;
    stage.stop_proxy();
    let now = stage.work()?;
    let work: Vec<Work> = now.iter().zip(before).map(|(now, before)| now.since(*before)).collect();
    say(&table(stage, before, &now));
    say(&format!("pgbench: {} reads, {} transactions that wrote, no errors", done.reads, done.writes));
    let faults = load::faults(stage.cluster(), done, &work)?;
    for fault in &faults {
        say(&format!("WRONG: {fault}"));
    }
    Ok(faults.is_empty())
}

/// What to type next.
fn invitation(stage: &Stage) -> String {
    let to = format!("-h 127.0.0.1 -p {} -U {DATABASE}", stage.port());
    let program = |name: &str| match programs::on_path(name) {
        Some(_) => name.to_owned(),
        None => stage.cluster().programs().path(name).display().to_string(),
    };
    let (psql, pgbench) = (program("psql"), program("pgbench"));
    let servers = stage.cluster().servers().iter().map(|server| format!("{} on {}", server.name(), server.port()));
    let (servers, version) = (servers.collect::<Vec<_>>().join(", "), stage.cluster().programs().major());
    format!(
        "\npgherd listens on 127.0.0.1:{port}. Behind it: PostgreSQL {version}, {servers}.\n\
         Everyone on this machine may log in to them as long as this runs. Type in another terminal:\n\n    \
         {psql} {to} {DATABASE}\n    \
         {psql} {to} -c 'SHOW POOL_NODES' {DATABASE}\n    \
         {psql} {to} -c \"PGPOOL SHOW ROUTE 'SELECT count(*) FROM pgbench_accounts'\" {DATABASE}\n    \
         {psql} {to} -c \"PGPOOL SHOW ROUTE 'SELECT * FROM pgbench_tellers FOR UPDATE'\" {DATABASE}\n    \
         {pgbench} {to} -c 8 -T 20 -S {DATABASE}        # reads: spread over all three servers\n    \
         {pgbench} {to} -c 8 -T 20 {DATABASE}           # transactions that write: the primary\n\n\
         Ctrl-C ends all of it and leaves nothing behind.\n",
        port = stage.port(),
    )
}

/// What each server did since `before`.
fn table(stage: &Stage, before: &[Work], now: &[Work]) -> String {
    let mut text = format!("{:<10} {:>14} {:>14}", "server", "transactions", "rows written");
    for (server, (now, before)) in stage.cluster().servers().iter().zip(now.iter().zip(before)) {
        let work = now.since(*before);
        // A standby writes what the primary wrote; it counts no rows of its own.
        text.push_str(&format!("\n{:<10} {:>14} {:>14}", server.name(), work.transactions, work.rows_written));
    }
    text
}

fn refuse_taken(port: u16) -> Result<(), Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|source| Error::Port { port, source })
}

/// Standard output may be gone; that must not keep anything from being removed.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Runs `work` on a thread, because it waits for programs. Whoever does not want the result does not wait for it.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || drop(sender.send(work())));
    receiver
}

/// The signals that end the demo.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.quit.recv() => {}
        }
    }

    /// Waits for what a thread makes; `None` if a signal came first.
    fn unless<T>(&mut self, runtime: &Runtime, made: &mut oneshot::Receiver<T>) -> Option<T> {
        runtime.block_on(async {
            tokio::select! {
                made = made => Some(made.expect("the thread sends unless it panics")),
                () = self.next() => None,
            }
        })
    }
}
