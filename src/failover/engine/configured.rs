//! What other settings mean for what is under way and for what is remembered of nodes.

use std::time::{Duration, Instant};

use super::Engine;
use super::words::Settings;
use crate::cluster::NodeId;

impl Engine {
    /// What is under way goes on if its nodes are still there; who is new is looked at for what a process before may have left on it.
    pub(super) fn configure(&mut self, settings: Settings, now: Instant) {
        let is = |settings: &Settings, id: NodeId| settings.members.iter().any(|member| member.id == id);
        let new: Vec<NodeId> =
            settings.members.iter().map(|member| member.id).filter(|id| !is(&self.settings, *id)).collect();
        let gone = |id: NodeId| is(&self.settings, id) && !is(&settings, id);
        let touched = self.run.as_ref().is_some_and(|run| {
            !run.irrevocable()
                && !run.is_being_written()
                && (run.standings.keys().chain(&run.asked).any(|id| gone(*id)) || gone(run.old))
        });
        // Behind the promotion, too: whoever takes the candidate out of the file says that it does not come back as it is (HA H7).
        let lost = self.run.as_ref().and_then(|run| run.candidate.filter(|node| run.irrevocable() && gone(*node)));
        if touched {
            self.abandon("its nodes are configured no more", now);
        } else if let Some(node) = lost {
            let why = format!(
                "node {node} was taken out of the configuration behind its promotion: it must not come back as it is"
            );
            self.note("candidate_removed", Some(node), why.clone(), Duration::ZERO);
            self.abandon(&why, now);
        }
        self.settings = settings;
        self.unseen.extend(new);
        let Self { settings, journal, absent, unseen, pauses, rivals, .. } = self;
        absent.keep(|id| is(settings, id));
        unseen.retain(|id| is(settings, *id));
        pauses.retain(|id, _| is(settings, *id));
        rivals.retain(|id, _| is(settings, *id));
        let known = |id: &u16| is(settings, NodeId(*id));
        let lists = [
            &mut journal.detached,
            &mut journal.condemned,
            &mut journal.recruited,
            &mut journal.following,
            &mut journal.hooked,
        ];
        let mut changed = journal.promised.take_if(|promised| !known(&promised.0)).is_some();
        changed |= journal.fenced.take_if(|fenced| !known(&fenced.0)).is_some();
        for list in lists {
            let before = list.len();
            list.retain(known);
            changed |= list.len() != before;
        }
        if changed {
            self.record(now);
        }
    }
}
