//! The second opinion before a primary is replaced (HA H2): standbys that stream from it may hear of it still.

use std::time::{Duration, Instant};

use super::Engine;
use super::run::Step;
use super::words::{Job, Opinion, Outcome};
use crate::cluster::NodeId;

/// A standby that heard from the primary more recently than this, and after the first failed probe, says that it lives (HA H2).
const FRESH: Duration = Duration::from_millis(1500);

impl Engine {
    /// Asks whoever can be asked.
    pub(super) fn doubt(&mut self, now: Instant) {
        // Those that are taken out, too: they are not used, and hear of the primary all the same.
        let all = self.settings.members.iter().map(|member| member.id);
        let standbys: Vec<NodeId> = all.filter(|id| self.stands_by(*id) && !self.is_foreign(*id)).collect();
        if let Some(run) = self.run.as_mut() {
            run.doubted = standbys.iter().copied().collect();
        }
        self.give_step(Step::Doubting, Job::Opinions(standbys), now);
    }

    /// Second opinion (HA H2): does a standby that streams from the primary itself hear of it still?
    pub(super) fn doubted(&mut self, outcome: &Outcome, now: Instant) {
        let Some(run) = &self.run else { return };
        let opinions: &[(NodeId, Opinion)] = if let Outcome::Opinions(opinions) = outcome { opinions } else { &[] };
        let addresses = self.member(run.old).map_or(&[][..], |member| &member.addresses);
        let since = now.saturating_duration_since(run.first_failed);
        let lives =
            |opinion: &Opinion| addresses.contains(&opinion.sender) && opinion.age < FRESH && opinion.age < since;
        if let Some((node, _)) = opinions.iter().find(|(_, opinion)| lives(opinion))
            && !self.stands_by(run.old)
        {
            let why = format!("the primary lives for node {node}: this proxy is cut off from it");
            self.tell("primary_gray", Some(run.old), &why, now);
            return self.abandon(&why, now);
        }
        self.wait_step(Step::Waiting, None);
    }
}
