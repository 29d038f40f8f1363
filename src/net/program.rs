//! A program of the operator's: run with its arguments, without a shell, with a time limit, killed with all that it has started if it is late
//! or given up; what it says in events and log. Must not judge what a failure means.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};
use rustix::process::{getpriority_process, setpriority_pgrp};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::cluster::{Event, Events, NodeId};
use crate::support::clock;

/// Bytes of a hook's output that are kept, of each stream; the rest is read and dropped, so that it is never blocked.
const MOST_OUTPUT: usize = 16 * 1024;
/// Lines of its output that are told on.
const LINES: usize = 3;
/// Letters of these lines that an event keeps.
const MOST_TOLD: usize = 400;
/// Who is named in the event log.
const WHO: &str = "hook";
/// For what comes after a hook has ended: a server that it has started may hold its output open for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// For what was killed to be gone, and between two looks.
const GOING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// One program, run once.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Its name and its arguments.
    pub words: &'a [String],
    /// Where it runs; a relative name with a slash is found from there.
    pub folder: &'a Path,
    /// What is added to its environment.
    pub surroundings: &'a [(&'a str, String)],
    /// Then it is killed, with all that it has started.
    pub limit: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// Its exit status was 0; the last lines that it wrote.
    Well(String),
    /// It certainly did nothing.
    NotStarted(String),
    /// It failed, or was killed.
    Failed(String),
}

/// What becomes of what it has started and left running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Stays,
    Goes,
}

/// A process group of our own making: whoever gives up a program takes its children along. Dropped, it is killed.
#[derive(Debug)]
pub struct Group(Option<Pid>);

impl Group {
    /// Of a child that was just started; who starts it may run before others, and it must not.
    fn of(child: &Child) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        if getpriority_process(None).is_ok_and(|nice| nice < 0) {
            // Fails if it has ended.
            let _ = setpriority_pgrp(group.and_then(rustix::process::Pid::from_raw), 0);
        }
        Self(group.map(Pid::from_raw))
    }

    /// Kills it, and waits a second for its end; true: something of it lives, as what runs as another user does.
    async fn end(&self) -> bool {
        let until = clock::now() + GOING;
        while self.lives() {
            if clock::now() >= until {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    /// Kills what is left of it; true: there was something.
    pub fn lives(&self) -> bool {
        let Some(group) = self.0 else { return false };
        // Refused is not gone; a process that has ended and was not waited for is.
        killpg(group, Signal::SIGKILL) != Err(Errno::ESRCH) && has_members(group).unwrap_or(true)
    }
}

/// Whether some process of a group is alive.
fn has_members(group: Pid) -> std::io::Result<bool> {
    for entry in std::fs::read_dir("/proc")? {
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        // number (name) state parent group …; a name may contain anything.
        let mut words = stat.rsplit_once(')').map_or("", |(_, words)| words).split_whitespace();
        let (state, own) = (words.next(), words.nth(1).and_then(|word| word.parse().ok()));
        if own == Some(group.as_raw()) && !matches!(state, Some("Z" | "X")) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Drop for Group {
    fn drop(&mut self) {
        self.lives();
    }
}

/// How a program has ended, and what it wrote.
struct Ended {
    well: bool,
    status: String,
    stdout: String,
    stderr: String,
}

/// The last lines of a text.
fn last(text: &str, lines: usize) -> String {
    let lines: Vec<&str> = text.lines().rev().take(lines).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}

/// The end of an output, for an event.
fn said(text: &str) -> String {
    let told: String = last(text, LINES).chars().take(MOST_TOLD).collect();
    if told.is_empty() { told } else { format!(": {told}") }
}

/// Where a program is: a bare name in PATH, another one in the folder that it runs in.
///
/// # Errors
/// For people: it is not there, or cannot be run.
pub fn find(name: &str, folder: &Path) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = if name.contains('/') {
        vec![folder.join(name)]
    } else {
        std::env::split_paths(&path).map(|place| place.join(name)).collect()
    };
    let runs = |place: &PathBuf| place.is_file() && access(place.as_path(), AccessFlags::X_OK).is_ok();
    places.into_iter().find(runs).ok_or_else(|| format!("{name} is not there, or may not be run"))
}

impl Program<'_> {
    /// Runs it: its beginning, its end and the end of its output are events about that node, all of its output is in the log. What it leaves
    /// running stays if it went well. Dropped, it is killed.
    pub async fn run(self, events: &Events, node: Option<NodeId>) -> Ran {
        self.told(events, node, Rest::Stays).await.0
    }

    /// The same, and nothing that it has started lives behind the answer; what lives all the same, because it may not be killed, is
    /// returned.
    pub async fn run_whole(self, events: &Events) -> (Ran, Option<Group>) {
        self.told(events, None, Rest::Goes).await
    }

    /// The same, without events.
    pub async fn run_quietly(self) -> (Ran, Option<Group>) {
        let (ran, _, left) = self.carry(Rest::Goes).await;
        (ran, left)
    }

    /// The same, and its output is nobody's: for what is run each second.
    pub async fn run_silently(self) -> Ran {
        let child = match self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) => return Ran::NotStarted(format!("{} cannot be run: {error}", self.words[0])),
        };
        let group = Group::of(&child);
        let Ended { well, status, .. } = self.watch(child).await;
        group.end().await;
        if well { Ran::Well(String::new()) } else { Ran::Failed(status) }
    }

    async fn told(self, events: &Events, node: Option<NodeId>, rest: Rest) -> (Ran, Option<Group>) {
        let begun = clock::now();
        let tell = |event: Event, why: String| {
            events.record(event.node(node).why(why));
        };
        let surroundings: Vec<String> =
            self.surroundings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        tell(Event::info("hook_begins", WHO), format!("{:?} is run with {}", self.words, surroundings.join(" ")));
        let (ran, why, left) = self.carry(rest).await;
        let event = match ran {
            Ran::Well(_) => Event::info("hook_done", WHO).took(begun.elapsed()),
            Ran::NotStarted(_) => Event::error("hook_failed", WHO),
            Ran::Failed(_) => Event::error("hook_failed", WHO).took(begun.elapsed()),
        };
        tell(event, why);
        (ran, left)
    }

    /// Runs it; what came of it, the same for an event, and what could not be ended.
    async fn carry(self, rest: Rest) -> (Ran, String, Option<Group>) {
        let child = match self.command().spawn() {
            Ok(child) => child,
            Err(error) => {
                let why = format!("{} cannot be run: {error}", self.words[0]);
                return (Ran::NotStarted(why.clone()), why, None);
            }
        };
        let mut group = Group::of(&child);
        let Ended { well, status, stdout, stderr } = self.watch(child).await;
        if !stdout.is_empty() || !stderr.is_empty() {
            tracing::info!(program = self.words[0], stdout, stderr, "what a hook has said");
        }
        let why = format!("{}: {status}{}{}", self.words[0], said(&stdout), said(&stderr));
        let left = match rest {
            Rest::Stays => {
                if well {
                    group.0 = None;
                }
                None
            }
            Rest::Goes => group.end().await.then_some(group),
        };
        let ran = if well {
            Ran::Well(last(&stdout, LINES))
        } else {
            Ran::Failed(format!("{}: {status}: {}", self.words[0], last(&stderr, 1)))
        };
        (ran, why, left)
    }

    /// Until it has ended, or its time has.
    async fn watch(&self, mut child: Child) -> Ended {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = tokio::time::timeout(self.limit, async {
            let mut reading = pin!(async { tokio::join!(read(stdout, &mut out), read(stderr, &mut err)) });
            let mut read = false;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut reading, if !read => read = true,
                }
            };
            if !read {
                let _ = tokio::time::timeout(LAST_WORDS, reading).await;
            }
            status
        });
        let (well, status) = match ended.await {
            Ok(Ok(status)) => (status.success(), status.to_string()),
            Ok(Err(error)) => (false, error.to_string()),
            Err(_) => (false, format!("killed after {:?}", self.limit)),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Ended { well, status, stdout: text(&out), stderr: text(&err) }
    }

    fn command(&self) -> Command {
        // A bare name is looked for in PATH, as a shell would.
        let name = &self.words[0];
        let program = if name.contains('/') { self.folder.join(name) } else { name.into() };
        let mut command = Command::new(program);
        command.current_dir(self.folder).args(&self.words[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(self.surroundings.iter().map(|(name, value)| (name, value)));
        command.process_group(0).kill_on_drop(true);
        command
    }
}

/// All of a stream, of which the beginning is kept.
async fn read(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let room = MOST_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn quietly(script: &str, limit: Duration) -> (Ran, bool) {
        let words = shell(script);
        let program = Program { words: &words, folder: Path::new("/"), surroundings: &[], limit };
        let (ran, left) = program.run_quietly().await;
        (ran, left.is_some())
    }

    #[tokio::test]
    async fn nothing_that_a_whole_program_has_started_lives_behind_its_answer() {
        let folder = std::env::temp_dir().join(format!("pgherd-program-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mark = folder.join("mark").display().to_string();
        // Ends well and leaves somebody behind; hangs; both would write later.
        let behind = format!("(sleep 0.4; touch {mark}) >/dev/null 2>&1 & exit 0");
        assert_eq!(quietly(&behind, Duration::from_secs(5)).await, (Ran::Well(String::new()), false));
        let (ran, left) = quietly(&format!("sleep 0.4 && touch {mark}"), Duration::from_millis(100)).await;
        assert!(matches!(&ran, Ran::Failed(why) if why.contains("killed after")) && !left, "{ran:?}");
        // Given up by who waits for it.
        let stays = behind.replace("& exit 0", "");
        let given_up = quietly(&stays, Duration::from_secs(5));
        assert!(tokio::time::timeout(Duration::from_millis(100), given_up).await.is_err());
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert!(!Path::new(&mark).exists(), "somebody has lived on");
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn a_program_of_who_runs_before_others_does_not() {
        // Not without the right to; the thread is this test's own.
        if rustix::process::setpriority_process(None, -10).is_err() {
            return;
        }
        let words = shell("sleep 0.2; cut -d ' ' -f 19 /proc/$$/stat");
        let limit = Duration::from_secs(5);
        let program = Program { words: &words, folder: Path::new("/"), surroundings: &[], limit };
        assert_eq!(program.run_quietly().await.0, Ran::Well("0".to_owned()));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_has_done_nothing() {
        let words = vec!["/nowhere/program".to_owned()];
        let limit = Duration::from_secs(1);
        let program = Program { words: &words, folder: Path::new("/"), surroundings: &[], limit };
        assert!(matches!(program.run_quietly().await.0, Ran::NotStarted(why) if why.contains("/nowhere/program")));
    }
}
