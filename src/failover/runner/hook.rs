//! Running a hook: the program with its arguments, without a shell, with a time limit, its output in the event log. Must not judge what
//! a failure means.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::{Servers, World, millis};
use crate::cluster::NodeId;
use crate::config;
use crate::failover::command::{self, Subject};
use crate::failover::engine::{Hook, Outcome};
use crate::support::clock;

/// Bytes of a hook's output that are kept, of each stream; the rest is read and dropped, so that it is never blocked.
const MOST_OUTPUT: usize = 16 * 1024;
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

fn place(config: &config::Settings, node: Option<NodeId>) -> command::Place {
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
        let Some(text) = line(hook, &config.failover.commands) else {
            return Outcome::NotSent("the hook is configured no more".to_owned());
        };
        let subject = Subject { node: place(&config, node), new: place(&config, new), old: place(&config, old) };
        let words = match command::arguments(text, &subject) {
            Ok(words) => words,
            Err(why) => return Outcome::NotSent(why),
        };
        let begun = clock::now();
        let folder = &config.failover.commands.folder;
        // A bare name is looked for in PATH, as a shell would.
        let program = if words[0].contains('/') { folder.join(&words[0]) } else { words[0].clone().into() };
        let mut command = Command::new(program);
        command.current_dir(folder);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("PGHERD_FAILOVER_ID", id.to_string()).env("PGHERD_HOOK", format!("{hook:?}"));
        command.env("PGHERD_EPOCH", self.shared.view().epoch.0.to_string()).process_group(0).kill_on_drop(true);
        tracing::info!(event = "hook_begins", hook = ?hook, id, command = ?words, "a hook is run");
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let why = format!("{} cannot be run: {error}", words[0]);
                tracing::error!(event = "hook_failed", hook = ?hook, id, why, "a hook was not run");
                return Outcome::NotSent(why);
            }
        };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let limit = config.failover.commands.timeout.saturating_sub(MARGIN).max(MARGIN);
        let work = async { tokio::join!(child.wait(), read(out), read(err)) };
        let ended = tokio::time::timeout(limit, work).await;
        let (status, out, err) = match ended {
            Ok((status, out, err)) => (status.map(|status| status.to_string()), out, err),
            Err(_) => {
                // The group is the hook's own: its children go with it.
                if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
                    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                }
                (Ok(format!("killed after {limit:?}")), String::new(), String::new())
            }
        };
        let status = status.unwrap_or_else(|error| error.to_string());
        let took = millis(begun.elapsed());
        if status == "exit status: 0" {
            tracing::info!(event = "hook_done", hook = ?hook, id, took_ms = took, stdout = out, stderr = err, "a hook has ended");
            return Outcome::Ok;
        }
        tracing::error!(event = "hook_failed", hook = ?hook, id, took_ms = took, status, stdout = out, stderr = err, "a hook has failed");
        Outcome::Failed(format!("{}: {status}: {}", words[0], err.lines().last().unwrap_or_default()))
    }
}

/// All of a stream, of which the beginning is kept.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let room = MOST_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}
