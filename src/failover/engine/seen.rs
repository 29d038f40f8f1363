//! What a new view means: whose epoch it is, who was promoted by somebody else, and who must not be believed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::words::{Job, Mode};
use super::{Engine, Purpose, is_well};
use crate::cluster::{ClusterView, NodeId, Role, Timeline};

impl Engine {
    pub(super) fn see(&mut self, view: Arc<ClusterView>, now: Instant) {
        self.view = view.clone();
        if self.acts() {
            self.look_after_fenced(now);
            self.look_after_promised(now);
            self.judge_rivals(now);
            if self.accord.is_some() {
                self.see_together(now);
            } else {
                self.see_primary(&view, now);
            }
        }
        self.learn_succession();
        let primary = view.primary_node().filter(|node| Some(node.id.0) == self.journal.primary);
        let told = primary.and_then(|node| node.position.as_ref()?.history.clone());
        self.history = told.filter(|history| history.timeline().0 == self.journal.timeline).or(self.history.take());
    }

    fn see_primary(&mut self, view: &ClusterView, now: Instant) {
        let Some(primary) = view.primary_node().filter(|node| node.role == Role::Primary && is_well(node)) else {
            return;
        };
        let timeline = primary.position.as_ref().map_or(Timeline(0), |position| position.timeline);
        let asked = primary.position.as_ref().map(|position| position.sample.asked);
        let stopping = self.run.as_ref().is_some_and(|run| run.stopped_at.is_some());
        if stopping && self.journal.primary == Some(primary.id.0) && timeline.0 == self.journal.timeline {
            return;
        }
        if self.stopped.is_some_and(|stopped| asked.is_none_or(|asked| asked <= stopped)) {
            return;
        }
        let back = self.journal.spent == Some(primary.id.0) || self.is_past_demotion(primary.id, now);
        let new = (self.view.epoch.0 + 1, Some(primary.id.0), timeline.0, self.view.synchronous.as_ref());
        let old = &self.journal;
        if !back && new == (old.epoch, old.primary, old.timeline, old.synchronous.as_str()) || timeline.0 < old.timeline
        {
            return;
        }
        self.obeyed = self.obeyed.filter(|node| *node != primary.id);
        if Some(primary.id.0) != old.primary && !self.is_promoting(primary.id) {
            self.adopted(primary.id, now);
        }
        self.journal.spent = None;
        self.forget_demotion(primary.id, now);
        (self.journal.epoch, self.journal.primary, self.journal.timeline) =
            ((self.view.epoch.0 + 1).max(self.journal.epoch), Some(primary.id.0), timeline.0);
        self.journal.synchronous = self.view.synchronous.as_ref().to_owned();
        self.journal.system = self.system_of(primary.id).unwrap_or(self.journal.system);
        self.record(now);
    }

    pub(super) fn system_of(&self, id: NodeId) -> Option<u64> {
        self.node(id).and_then(|node| node.position.as_ref()).map(|position| position.system).filter(|id| *id != 0)
    }

    /// The system identifier of the primary that is, or was last.
    pub(super) fn system(&self) -> Option<u64> {
        let own = self.believed().and_then(|primary| self.system_of(primary));
        Some(self.journal.system).filter(|system| *system != 0).or(own)
    }

    /// It answers, and its data folder is another cluster's (HA H10): nobody is promoted for what it says, least of all itself.
    pub(super) fn is_foreign(&self, id: NodeId) -> bool {
        self.system_of(id).zip(self.system()).is_some_and(|(theirs, ours)| theirs != ours)
    }

    /// A candidate that was fenced behind its promotion and says now that it is primary was let back by whoever fenced it. As long as nobody
    /// else has been primary since, it has all that was acknowledged, and is the primary that was wanted.
    fn look_after_fenced(&mut self, now: Instant) {
        let Some((node, timeline)) = self.journal.fenced else { return };
        let fenced = NodeId(node);
        let replaced = self.believed().is_some_and(|primary| primary != fenced && self.leads(primary));
        if replaced || !self.is_condemned(fenced) {
            self.journal.fenced = None;
            self.record(now);
        } else if self.leads_beyond(fenced, Timeline(timeline))
            && !self.run.as_ref().is_some_and(|run| run.irrevocable())
        {
            self.journal.fenced = None;
            self.journal.condemned.retain(|id| *id != node);
            // Where it was primary already, before it was fenced, nobody adopts it anew.
            let others = self.settings.members.iter().map(|member| member.id.0).filter(|id| *id != node);
            self.journal.following = others.filter(|_| self.settings.mode != Mode::Command).collect();
            self.lifted = Some(fenced);
            self.record(now);
            let why = "it was fenced behind its promotion, and is primary now: nobody was in the meantime";
            self.note("fence_lifted", Some(fenced), why.to_owned(), Duration::ZERO);
        }
    }

    /// Whom `failover_command` may still promote over what the returned primary has written.
    pub(super) fn late(&self) -> Option<NodeId> {
        self.journal.promised.filter(|_| self.journal.late).map(|(node, _)| NodeId(node))
    }

    /// The old primary is back while `failover_command` may still promote somebody: whoever is promoted then lacks what is written from now on.
    fn look_after_promised(&mut self, now: Instant) {
        let Some((node, _)) = self.journal.promised else { return };
        let promised = NodeId(node);
        let back = self.view.primary.is_some_and(|primary| primary != promised && self.leads(primary));
        if back && self.run.is_none() && !self.journal.late {
            self.journal.late = true;
            self.record(now);
            let why = "failover_command may still promote it, and the primary is back: restart it as a standby, detach it, then attach it";
            self.note("late_promotion_feared", Some(promised), why.to_owned(), Duration::ZERO);
        }
    }

    /// Who was promoted while the primary lived lacks what that one has written since, and must not take its place later, not even for the
    /// next process: unless the old primary itself follows it.
    fn judge_rivals(&mut self, now: Instant) {
        let Some(primary) = self.believed().filter(|_| self.run.is_none()) else { return };
        let timeline = Timeline(self.journal.timeline);
        let Some(position) = self.node(primary).and_then(|node| node.position.clone()) else { return };
        if self.stands_by(primary) && position.timeline > timeline {
            self.journal.condemned.clear();
        }
        let ids: Vec<NodeId> =
            self.settings.members.iter().map(|member| member.id).filter(|id| *id != primary).collect();
        for id in ids {
            if !self.leads_beyond(id, timeline) {
                self.rivals.remove(&id);
                continue;
            }
            let noticed = *self.rivals.entry(id).or_insert(now);
            let lived = self.view.primary == Some(primary) && self.leads(primary) && position.sample.asked > noticed;
            if lived && !self.is_condemned(id) {
                self.journal.condemned.push(id.0);
                self.record(now);
                let why =
                    "promoted while the primary lives: it is not used until it is rebuilt as a standby and attached";
                self.note("rival", Some(id), why.to_owned(), Duration::ZERO);
            }
        }
    }

    /// Somebody else has promoted this node: it is obeyed.
    pub(super) fn adopted(&mut self, node: NodeId, now: Instant) {
        let from = self.journal.primary.map(NodeId);
        self.journal.hooked.clear();
        let all = self.settings.members.iter().map(|member| member.id.0);
        // With `never` somebody else sees to it, unless an operator had us promote it; with `command` it is not known whether the hook has.
        let promotes = match self.settings.mode {
            Mode::Builtin => true,
            Mode::Never => self.lifted == Some(node),
            Mode::Command => false,
        };
        let ours = promotes && from.is_some();
        self.lifted = None;
        self.journal.following = all.filter(|id| ours && *id != node.0).collect();
        self.journal.promised = self.journal.promised.filter(|(promised, _)| *promised != node.0);
        if let Some(from) = from {
            self.journal.leader = Some((from.0, self.journal.attempts));
            if self.is_dead(from) {
                self.absent.replaced(from);
            }
            self.closing = Some(self.give_for(Purpose::Close, Job::Fence(from), now));
            self.note("primary_adopted", Some(node), "promoted by somebody else".to_owned(), Duration::ZERO);
        }
    }
}
