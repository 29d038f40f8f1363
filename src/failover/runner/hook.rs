//! Hooks of a failover: which program, about which nodes, with what in its surroundings. Must not judge what a failure means.

use std::time::Duration;

use super::jobs::outcome;
use super::{Servers, World};
use crate::cluster::NodeId;
use crate::config;
use crate::failover::command::{self, Subject};
use crate::failover::engine::{Hook, Outcome};
use crate::net::program::{Program, Ran};

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
        let limit = commands.timeout.saturating_sub(MARGIN).max(MARGIN);
        let surroundings = [
            ("PGHERD_FAILOVER_ID", id.to_string()),
            ("PGHERD_HOOK", format!("{hook:?}")),
            ("PGHERD_EPOCH", self.shared.view().epoch.0.to_string()),
            // Whole seconds; 0 would be no limit for `timeout`.
            ("PGHERD_TIMEOUT", limit.as_secs().max(1).to_string()),
        ];
        let program = Program { words: &words, folder: &commands.folder, surroundings: &surroundings, limit };
        match program.run(&self.shared.events, node).await {
            Ran::Well(_) => Outcome::Ok,
            Ran::NotStarted(why) => Outcome::NotSent(why),
            Ran::Failed(why) => Outcome::Failed(why),
        }
    }
}
