//! Running a hook: the program with its arguments, without a shell, with a time limit, what it says in events and log. Must not judge what
//! a failure means.

use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::jobs::outcome;
use super::{Servers, World};
use crate::cluster::{Event, Events, NodeId};
use crate::config;
use crate::failover::command::{self, Subject};
use crate::failover::engine::{Hook, Outcome};
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
/// Taken off the limit, so that the answer is there before the engine gives up.
const MARGIN: Duration = Duration::from_millis(500);

fn line(hook: Hook, commands: &config::FailoverCommands) -> Option<&String> {
    match hook {
        Hook::Failover => commands.failover.as_ref(),
        Hook::Follow => commands.follow_primary.as_ref(),
        Hook::Failback => commands.failback.as_ref(),
        Hook::Fence => commands.fence.as_ref(),
        Hook::Demote => commands.demote.as_ref(),
    }
}

/// A node, as placeholders see it.
pub fn place(config: &config::Settings, node: Option<NodeId>) -> command::Place {
    let Some(node) = node.and_then(|node| config.node(node)) else { return command::Place::default() };
    command::Place {
        id: Some(node.id.0),
        host: node.host.clone(),
        port: node.port.to_string(),
        data: node.data_directory.clone().unwrap_or_default(),
    }
}

impl<S: Servers, T> World<S, T> {
    /// `nodes`: whom it is about, the primary before, the primary now or to be.
    pub(super) async fn hook(&self, hook: Hook, [node, old, new]: [Option<NodeId>; 3], id: u64) -> Outcome {
        let config = self.config();
        let by_extension = hook == Hook::Demote && config.recovery.first_stage_command.is_some();
        let Some(text) = line(hook, &config.failover.commands) else {
            if let Some(node) = node.filter(|_| by_extension) {
                return outcome(self.servers.stop(node).await);
            }
            return Outcome::NotSent("the hook is configured no more".to_owned());
        };
        let subject = Subject { node: place(&config, node), new: place(&config, new), old: place(&config, old) };
        let words = match command::arguments(text, &subject) {
            Ok(words) => words,
            Err(why) => return Outcome::NotSent(why),
        };
        let commands = &config.failover.commands;
        let surroundings = [
            ("PGHERD_FAILOVER_ID", id.to_string()),
            ("PGHERD_HOOK", format!("{hook:?}")),
            ("PGHERD_EPOCH", self.shared.view().epoch.0.to_string()),
        ];
        let program = Program {
            words: &words,
            folder: &commands.folder,
            surroundings: &surroundings,
            limit: commands.timeout.saturating_sub(MARGIN).max(MARGIN),
        };
        match program.run(&self.shared.events, node).await {
            Ran::Well(_) => Outcome::Ok,
            Ran::NotStarted(why) => Outcome::NotSent(why),
            Ran::Failed(why) => Outcome::Failed(why),
        }
    }
}

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

/// A process group of our own making: whoever gives up a program takes its children along.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
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

impl Program<'_> {
    /// Runs it: its beginning, its end and the end of its output are events about that node, all of its output is in the log. Dropped, it
    /// is killed.
    pub async fn run(self, events: &Events, node: Option<NodeId>) -> Ran {
        let begun = clock::now();
        let tell = |event: Event, why: String| {
            events.record(event.node(node).why(why));
        };
        let surroundings: Vec<String> =
            self.surroundings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        tell(Event::info("hook_begins", WHO), format!("{:?} is run with {}", self.words, surroundings.join(" ")));
        let child = match self.command().spawn() {
            Ok(child) => child,
            Err(error) => {
                let why = format!("{} cannot be run: {error}", self.words[0]);
                tell(Event::error("hook_failed", WHO), why.clone());
                return Ran::NotStarted(why);
            }
        };
        let Ended { well, status, stdout, stderr } = self.watch(child).await;
        if !stdout.is_empty() || !stderr.is_empty() {
            tracing::info!(program = self.words[0], stdout, stderr, "what a hook has said");
        }
        let why = format!("{}: {status}{}{}", self.words[0], said(&stdout), said(&stderr));
        let (event, ran) = if well {
            (Event::info("hook_done", WHO), Ran::Well(last(&stdout, LINES)))
        } else {
            let failed = format!("{}: {status}: {}", self.words[0], last(&stderr, 1));
            (Event::error("hook_failed", WHO), Ran::Failed(failed))
        };
        tell(event.took(begun.elapsed()), why);
        ran
    }

    /// Until it has ended, or its time has.
    async fn watch(&self, mut child: Child) -> Ended {
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
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
        if well {
            // What it leaves running is meant to stay.
            group.0 = None;
        }
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
