//! One PostgreSQL server of a private cluster: started, stopped, killed, frozen.
//!
//! Owned by [`super::cluster::Cluster`]. Must not create or remove data folders.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Error;
use super::folder::Owner;
use super::ports::PortLock;
use super::programs::{self, Programs};
use crate::support::clock;

/// How long a start may take, crash recovery included.
const START: Duration = Duration::from_secs(60);
/// How long a stop may take before the server is killed.
const STOP: Duration = Duration::from_secs(15);
/// How often a starting server's status is read.
const POLL: Duration = Duration::from_millis(10);

/// A server's data folder, port, and process while it runs. All methods may be called from any thread.
#[derive(Debug)]
pub struct Server {
    programs: Programs,
    owner: Owner,
    name: String,
    data: PathBuf,
    port: PortLock,
    /// The postmaster; `None` while stopped.
    process: Mutex<Option<Child>>,
}

impl Server {
    /// A stopped server.
    pub(super) fn new(programs: &Programs, owner: Owner, name: &str, data: PathBuf, port: PortLock) -> Self {
        Self { programs: programs.clone(), owner, name: name.to_owned(), data, port, process: Mutex::new(None) }
    }

    /// `primary`, `standby1`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The file that its messages go to.
    pub fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The postmaster's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    /// Whether its process was started and has not ended.
    pub fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// With the end of its log, when it ends or is not ready within a minute.
    pub fn start(&self) -> Result<(), Error> {
        let mut process = self.process();
        let file_error = |source| Error::File { path: self.log(), source };
        let log = OpenOptions::new().create(true).append(true).open(self.log()).map_err(file_error)?;
        let mut command = Command::new(self.programs.path("postgres"));
        programs::without_surroundings(&mut command);
        self.owner.dress(&mut command);
        command.arg("-D").arg(&self.data).current_dir(&self.data).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let spawned = command.spawn();
        let mut child = spawned.map_err(|source| Error::Start { program: "postgres".to_owned(), source })?;
        let deadline = clock::now() + START;
        loop {
            if matches!(self.status_of(child.id()).as_deref(), Some("ready" | "standby")) {
                *process = Some(child);
                return Ok(());
            }
            let ended = !matches!(child.try_wait(), Ok(None));
            if ended || clock::now() >= deadline {
                programs::kill_group(&mut child);
                return Err(Error::NotStarted { server: self.name.clone(), log: self.last_messages() });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Stops it at once (`immediate` mode: no checkpoint, clients are cut off) and waits for the end.
    ///
    /// # Errors
    /// [`Error::Signal`] when it cannot be signalled.
    pub fn stop(&self) -> Result<(), Error> {
        self.end_by(Signal::SIGQUIT)
    }

    /// Stops it in `fast` mode: transactions are rolled back, clients told, a checkpoint written.
    ///
    /// # Errors
    /// [`Error::Signal`] when it cannot be signalled.
    pub fn stop_fast(&self) -> Result<(), Error> {
        self.end_by(Signal::SIGINT)
    }

    /// Kills the server and all its backends with SIGKILL, as the loss of its machine would.
    ///
    /// # Errors
    /// [`Error::Signal`] when it cannot be signalled.
    pub fn kill9(&self) -> Result<(), Error> {
        // First frozen, so that no backend is born while the list is read.
        let family = self.freeze_family()?;
        for pid in family {
            // A process of the list may have ended meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
        if let Some(mut child) = self.process().take() {
            drop(child.wait());
        }
        Ok(())
    }

    /// Freezes the server and all its backends: connections stay open and nothing answers.
    ///
    /// # Errors
    /// [`Error::Signal`] when it cannot be signalled.
    pub fn freeze(&self) -> Result<(), Error> {
        self.freeze_family().map(drop)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// [`Error::Signal`] when it cannot be signalled.
    pub fn thaw(&self) -> Result<(), Error> {
        let postmaster = self.postmaster()?;
        for pid in children(postmaster) {
            // A process of the list may have ended meanwhile.
            let _ = kill(pid, Signal::SIGCONT);
        }
        self.signal(postmaster, Signal::SIGCONT)
    }

    /// Makes it read its configuration again.
    ///
    /// # Errors
    /// [`Error::Signal`] when it cannot be signalled.
    pub fn reload(&self) -> Result<(), Error> {
        self.signal(self.postmaster()?, Signal::SIGHUP)
    }

    /// Runs `sql` by `psql` straight on this server as the superuser; the rows as lines, columns divided by `|`.
    ///
    /// # Errors
    /// [`Error::Failed`] with psql's message, [`Error::Late`] after a minute.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, Error> {
        let mut command = programs::psql(&self.programs, self.port(), database);
        command.args(["-f", "-"]);
        programs::succeed(&mut command, sql.as_bytes(), START).map(|finished| finished.text())
    }

    /// The last lines of its log.
    pub fn last_messages(&self) -> String {
        let all = std::fs::read(self.log()).unwrap_or_default();
        let all = String::from_utf8_lossy(&all);
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends `signal` and waits for the end; after [`STOP`] it is killed.
    fn end_by(&self, signal: Signal) -> Result<(), Error> {
        let postmaster = self.postmaster()?;
        self.signal(postmaster, signal)?;
        // A frozen server hears it only when it goes on.
        self.thaw()?;
        let mut process = self.process();
        let Some(mut child) = process.take() else { return Ok(()) };
        if !matches!(programs::wait(&mut child, STOP), Ok(Some(_))) {
            programs::kill_group(&mut child);
        }
        Ok(())
    }

    /// Freezes postmaster and children; returns all of them.
    fn freeze_family(&self) -> Result<Vec<Pid>, Error> {
        let postmaster = self.postmaster()?;
        self.signal(postmaster, Signal::SIGSTOP)?;
        let mut family = children(postmaster);
        for pid in &family {
            // A process of the list may have ended meanwhile.
            let _ = kill(*pid, Signal::SIGSTOP);
        }
        family.push(postmaster);
        Ok(family)
    }

    fn signal(&self, pid: Pid, signal: Signal) -> Result<(), Error> {
        kill(pid, signal).map_err(|errno| Error::Signal { server: self.name.clone(), source: errno.into() })
    }

    fn postmaster(&self) -> Result<Pid, Error> {
        let gone = || Error::Signal { server: self.name.clone(), source: std::io::ErrorKind::NotFound.into() };
        let pid = self.pid().ok_or_else(gone)?;
        i32::try_from(pid).map(Pid::from_raw).map_err(|_| gone())
    }

    /// The status line of `postmaster.pid`, if process `pid` wrote the file.
    fn status_of(&self, pid: u32) -> Option<String> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        (lines.next()?.trim().parse() == Ok(pid)).then_some(())?;
        lines.nth(6).map(|status| status.trim().to_owned())
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_running() {
            // The folder's remover tries again, harder.
            drop(self.stop());
        }
    }
}

/// The processes whose parent is `parent`, read from `/proc`.
fn children(parent: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may hold anything; state and parent follow it.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if after.split_whitespace().nth(1).and_then(|id| id.parse().ok()) == Some(parent.as_raw()) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}
