//! Partner proxies: what their watchdog guarantees to `failover`, without its messages, clocks and disks, which `sim/watchdog` has. One leads by
//! a lease; what it puts forward is agreed on once a majority has it on disk, and may come to be agreed on under the next leader if only
//! one has; consent waits until every other proxy that may write has stopped; rights to write run out.
//!
//! One thing is better here than there: of a pair nobody leads who lacks what was agreed on, which a pair whose arbiter stores nothing
//! cannot know.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgherd::cluster::{Accord, Epoch, Life, NodeId};
use pgherd::failover::engine::{Event, Journal};
use pgherd::watchdog::engine::Sight;

use crate::server::Tick;
use crate::world::{SECOND, World};

/// How long a word of voters lasts.
const LEASE: Tick = 3 * SECOND;
/// When what was granted is certainly over.
const CLEAR: Tick = LEASE + SECOND + SECOND / 2;
/// What a member said counts for so long.
const FRESH: Tick = SECOND;

/// What is agreed on, or put forward.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    pub(crate) version: (u64, u64),
    pub(crate) epoch: u64,
    claimed: u64,
    body: Arc<str>,
}

/// One proxy's watchdog.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// The others cannot reach it.
    pub(crate) off: bool,
    /// The newest that it has on disk.
    pub(crate) disk: Shared,
    /// The newest of which it knows that it is agreed on.
    applied: Shared,
    /// When it hears from the leader.
    news: Tick,
    /// As a follower it may begin to write until then.
    until: Tick,
    /// What it has begun counts until then.
    pub(crate) bound: Tick,
    /// The epoch that it has stopped for, or is about to.
    promised: u64,
    /// It is stopping: for whom, and when it will have.
    stopping: Option<((u64, u64), Tick)>,
    /// For which term and epoch it has stopped.
    stopped: (u64, u64),
    /// What the others have heard of its sights, and when.
    sights: (Vec<Sight>, Tick),
    /// What `failover` was told, in which process.
    pub(crate) told: (Accord, u64),
}

#[derive(Debug)]
pub(crate) struct Lead {
    pub(crate) by: usize,
    process: u64,
    pub(crate) term: u64,
    /// The end of its lease.
    until: Tick,
    /// No voter prolongs it any more, which it hears then.
    refused: Option<Tick>,
    committed: Option<(u64, u64)>,
    /// The epoch that others stop for; 0: none.
    pub(crate) prepare: u64,
    /// When each member was last given leave to write.
    granted: Vec<Tick>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) lead: Option<Lead>,
    pub(crate) members: Vec<Member>,
    term: u64,
    /// The newest version that was ever agreed on.
    agreed: (u64, u64),
    /// Nobody leads before.
    election: Tick,
}

impl Group {
    pub(crate) fn new(count: usize) -> Self {
        Self { members: (0..count).map(|_| Member::default()).collect(), ..Self::default() }
    }

    /// Disks that must have what is agreed on; of a pair the arbiter is the third voter.
    fn needed(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// What this one knows to be agreed on.
    pub(crate) fn agreed_by(&self, by: usize) -> Option<Journal> {
        serde_json::from_str(&self.members[by].applied.body).ok()
    }

    /// May this one begin to write under this epoch (HA H17)?
    pub(crate) fn may_begin(&self, by: usize, epoch: u64, now: Tick) -> bool {
        let member = &self.members[by];
        let may = match self.lead.as_ref().filter(|lead| lead.by == by) {
            Some(lead) => now < lead.until && lead.prepare == 0 && lead.committed.is_some(),
            None => now < member.until && member.promised <= member.disk.epoch,
        };
        may && epoch > 0 && member.disk.epoch == epoch
    }

    /// Whatever this one holds counts for nothing any more.
    pub(crate) fn is_over(&self, by: usize, now: Tick) -> bool {
        now >= self.members[by].bound
    }

    /// How the members that can speak, heard by this one, see a node: dead, and all that have looked.
    fn votes(&self, by: usize, own: &[Sight], node: NodeId, now: Tick) -> (usize, usize) {
        let others = self.heard(by, now).map(|member| member.sights.0.as_slice());
        let of = |sights: &[Sight]| sights.get(usize::from(node.0)).copied().unwrap_or(Sight::Unknown);
        let all: Vec<Sight> = others.chain([own]).map(of).filter(|sight| *sight != Sight::Unknown).collect();
        (all.iter().filter(|sight| **sight == Sight::Dead).count(), all.len())
    }

    fn heard(&self, by: usize, now: Tick) -> impl Iterator<Item = &Member> {
        let deaf = self.members[by].off;
        let fresh = move |member: &&Member| !deaf && !member.off && now < member.sights.1 + FRESH;
        self.members.iter().enumerate().filter(move |(id, _)| *id != by).map(|(_, member)| member).filter(fresh)
    }

    /// Nodes that this one sees dead, while more others see them alive than dead (HA H3).
    fn blind(&self, by: usize, own: &[Sight], now: Tick) -> BTreeSet<NodeId> {
        let alone = |node: usize| {
            let see = |sight| self.heard(by, now).filter(|member| member.sights.0.get(node) == Some(&sight)).count();
            see(Sight::Alive) > see(Sight::Dead)
        };
        let dead = own.iter().enumerate().filter(|(_, sight)| **sight == Sight::Dead).map(|(node, _)| node);
        dead.filter(|node| alone(*node)).map(|node| NodeId(u16::try_from(node).expect("few"))).collect()
    }

    /// Nobody else writes under an epoch before the prepared one any more.
    fn is_cleared(&self, lead: &Lead, now: Tick) -> bool {
        self.members.iter().enumerate().filter(|(id, _)| *id != lead.by).all(|(id, member)| {
            let stopped = member.stopped == (lead.term, lead.prepare) && member.promised >= lead.prepare;
            stopped || now >= lead.granted[id] + CLEAR
        })
    }

    /// The leader as it believes itself to be one.
    fn leading(&self, by: usize, process: u64) -> Option<&Lead> {
        self.lead.as_ref().filter(|lead| (lead.by, lead.process) == (by, process))
    }

    /// Writes something down at the leader's.
    fn propose(&mut self, change: impl FnOnce(&mut Shared)) -> (u64, u64) {
        let Some(lead) = &self.lead else { return (0, 0) };
        let disk = &mut self.members[lead.by].disk;
        change(disk);
        disk.version = if disk.version.0 == lead.term { (lead.term, disk.version.1 + 1) } else { (lead.term, 1) };
        disk.version
    }
}

impl World {
    /// One tick of what goes on between the proxies.
    pub(crate) fn group_turn(&mut self) {
        let Some(mut group) = self.group.take() else { return };
        self.renew(&mut group);
        self.elect(&mut group);
        self.spread(&mut group);
        self.stop_writing(&mut group);
        let sights: Vec<Vec<Sight>> = (0..self.proxies.len()).map(|by| self.sights(by)).collect();
        for (by, own) in sights.iter().enumerate() {
            let speaks = self.proxies[by].alive() && !group.members[by].off;
            if speaks && self.random.one_in(8) {
                group.members[by].sights = (own.clone(), self.now);
            }
        }
        let mut news = Vec::new();
        for (by, own) in sights.iter().enumerate() {
            let accord = self.accord(&group, by, own);
            let told = (accord, self.proxies[by].incarnation);
            if self.proxies[by].alive() && group.members[by].told != told {
                news.push((by, told.0.clone()));
                group.members[by].told = told;
            }
        }
        self.group = Some(group);
        for (by, accord) in news {
            self.tell(by, Event::Accord(accord));
        }
    }

    /// A process begins with what its watchdog has on disk, and has leave for nothing.
    pub(crate) fn member_starts(&mut self, by: usize) {
        let Some(group) = &mut self.group else { return };
        let member = &mut group.members[by];
        (member.applied, member.until, member.bound) = (member.disk.clone(), 0, 0);
        (member.promised, member.stopping, member.stopped) = (0, None, (0, 0));
    }

    fn sights(&self, by: usize) -> Vec<Sight> {
        let proxy = &self.proxies[by];
        let see = |id: usize| match proxy.view.node(NodeId(u16::try_from(id).expect("few"))).map(|node| node.life) {
            None | Some(Life::Unknown) => Sight::Unknown,
            Some(Life::Well | Life::Busy(_)) => Sight::Alive,
            Some(Life::Suspect(_)) => Sight::Suspect,
            Some(Life::Dead(_)) => Sight::Dead,
        };
        (0..self.servers.len()).map(see).collect()
    }

    fn is_led(&self, lead: &Lead) -> bool {
        self.proxies[lead.by].alive() && self.proxies[lead.by].incarnation == lead.process
    }

    /// Voters that a leader can have: of a pair the arbiter is one, and sides with whoever leads.
    fn there(&self, group: &Group) -> Vec<usize> {
        (0..self.proxies.len()).filter(|by| self.proxies[*by].alive() && !group.members[*by].off).collect()
    }

    fn has_votes(&self, group: &Group, by: usize) -> bool {
        let there = self.there(group);
        let arbiter = usize::from(group.members.len() == 2);
        there.contains(&by) && there.len() + arbiter > (group.members.len() + arbiter) / 2
    }

    /// Voters prolong the lease, or do not.
    fn renew(&mut self, group: &mut Group) {
        let now = self.now;
        let Some(mut lead) = group.lead.take() else { return };
        let by = lead.by;
        if lead.refused.is_none() && self.is_led(&lead) && self.has_votes(group, by) {
            lead.until = now + LEASE;
            if lead.prepare == 0 {
                lead.granted.fill(now);
            }
            let version = group.members[by].disk.version;
            let have = group.members.iter().filter(|member| member.disk.version >= version).count();
            let alone = group.members.len() == 2 && self.there(group).len() == 1;
            if lead.committed != Some(version) && (have >= group.needed() || alone) {
                lead.committed = Some(version);
                group.agreed = group.agreed.max(version);
                group.members[by].applied = group.members[by].disk.clone();
            }
        }
        if self.is_led(&lead) {
            group.members[by].bound = group.members[by].bound.max(lead.until);
        }
        let heard = lead.refused.is_some_and(|at| now >= at);
        if now < lead.until && !heard {
            group.lead = Some(lead);
            return;
        }
        self.say(|_| format!("proxy {by} leads no more"));
        let busy = self.is_led(&lead) && !self.proxies[by].at_rest();
        self.tally.deposed += u64::from(busy);
        let pause = if self.random.one_in(4) { 6 * SECOND } else { SECOND };
        group.members[by].until = 0;
        group.election = now + self.random.below(pause);
    }

    fn elect(&mut self, group: &mut Group) {
        if group.lead.is_some() || self.now < group.election {
            return;
        }
        let there = self.there(group);
        let newest = there.iter().map(|by| &group.members[*by].disk).max_by_key(|disk| disk.version).cloned();
        let Some(newest) = newest.filter(|newest| newest.version >= group.agreed) else { return };
        let by = there[self.random.below(there.len() as u64) as usize];
        if !self.has_votes(group, by) {
            return;
        }
        group.term += 1;
        let (term, process) = (group.term, self.proxies[by].incarnation);
        group.members[by].disk = newest;
        group.members[by].until = 0;
        let granted = vec![self.now; group.members.len()];
        let until = self.now + LEASE;
        group.lead = Some(Lead { by, process, term, until, refused: None, committed: None, prepare: 0, granted });
        group.propose(|_| ());
        self.tally.leaders += 1;
        self.say(|_| format!("proxy {by} leads in term {term}"));
    }

    /// The leader is heard: what it has written down, what is agreed on, who must stop, who may write.
    fn spread(&mut self, group: &mut Group) {
        let now = self.now;
        let Some(lead) = group.lead.as_ref().filter(|lead| lead.refused.is_none() && self.is_led(lead)) else { return };
        let (by, term, prepare, committed) = (lead.by, lead.term, lead.prepare, lead.committed);
        if group.members[by].off {
            return;
        }
        let theirs = group.members[by].disk.clone();
        for id in 0..group.members.len() {
            let member = &mut group.members[id];
            if id == by || member.off || !self.proxies[id].alive() || now < member.news {
                continue;
            }
            member.news = now + 1 + self.random.below(SECOND / 4);
            if theirs.version > member.disk.version {
                member.disk = theirs.clone();
            }
            if committed == Some(member.disk.version) {
                member.applied = member.disk.clone();
            }
            let wanted = (term, prepare);
            let heeds = member.stopping.is_some_and(|(of, _)| of == wanted) || member.stopped == wanted;
            if prepare > 0 && !heeds {
                member.promised = prepare;
                (member.until, member.stopping) = (0, Some((wanted, now + self.random.below(SECOND))));
            } else if prepare == 0 && committed == Some(member.disk.version) {
                (member.promised, member.stopping, member.stopped) = (member.disk.epoch, None, (0, 0));
                member.until = now + LEASE - 4;
                member.bound = member.bound.max(member.until);
            }
        }
    }

    /// What is under way ends where somebody else is going to be the primary, and where the right to write has run out.
    fn stop_writing(&mut self, group: &mut Group) {
        for (by, member) in group.members.iter_mut().enumerate() {
            let over = self.now >= member.bound;
            if let Some((wanted, _)) = member.stopping.take_if(|(_, at)| over || *at <= self.now) {
                member.stopped = wanted;
                self.proxies[by].connections.clear();
            }
            if over {
                self.proxies[by].connections.clear();
            }
        }
    }

    fn accord(&self, group: &Group, by: usize, own: &[Sight]) -> Accord {
        let member = &group.members[by];
        let lead = group.leading(by, self.proxies[by].incarnation).filter(|lead| lead.committed.is_some());
        Accord {
            leads: lead.map(|lead| lead.term),
            version: member.applied.version,
            epoch: Epoch(member.applied.epoch),
            writes: group.may_begin(by, member.applied.epoch, self.now),
            body: member.applied.body.clone(),
            blind: group.blind(by, own, self.now),
        }
    }

    /// Another one is to lead, for no reason that `failover` knows.
    pub(crate) fn refuse_leader(&mut self) {
        let (now, early) = (self.now, self.random.below(LEASE));
        if let Some(lead) =
            self.group.as_mut().and_then(|group| group.lead.as_mut()).filter(|lead| lead.refused.is_none())
        {
            lead.refused = Some(now + early);
        }
    }

    /// Who leads, as it knows itself.
    pub(crate) fn leader(&self) -> Option<usize> {
        let group = self.group.as_ref()?;
        group.lead.as_ref().filter(|lead| group.members[lead.by].told.0.leads.is_some()).map(|lead| lead.by)
    }

    /// A journal is put forward: its version.
    pub(crate) fn put_forward(&mut self, by: usize, journal: &Journal) -> Result<(u64, u64), String> {
        let process = self.proxies[by].incarnation;
        let body: Arc<str> = serde_json::to_string(journal).expect("a journal").into();
        let stray = self.random.below(4 * self.proxies.len() as u64) as usize;
        let reached = self.proxies.get(stray).is_some_and(crate::proxy::Proxy::alive);
        let (now, group) = (self.now, self.group.as_mut().ok_or("nobody to agree with")?);
        let lead = group.leading(by, process).filter(|lead| lead.committed.is_some()).ok_or("it does not lead")?;
        let (epoch, agreed, refused) = (journal.epoch, group.members[by].disk.epoch, lead.refused.is_some());
        if epoch > agreed && agreed > 0 && (epoch != lead.prepare || !group.is_cleared(lead, now)) {
            return Err(format!("epoch {epoch} was not prepared"));
        }
        if epoch < agreed {
            return Err("of a past epoch".to_owned());
        }
        let version = group.propose(|shared| {
            (shared.epoch, shared.body, shared.claimed) = (epoch, body, shared.claimed.max(epoch));
        });
        if let Some(lead) = group.lead.as_mut().filter(|lead| epoch >= lead.prepare) {
            lead.prepare = 0;
        }
        // One of those that do not obey it any more may have it on disk all the same.
        if refused && reached && stray != by && !group.members[stray].off {
            let theirs = group.members[by].disk.clone();
            let member = &mut group.members[stray];
            if theirs.version > member.disk.version {
                member.disk = theirs;
            }
        }
        Ok(version)
    }

    /// A majority has it; none: not yet.
    pub(crate) fn is_recorded(&self, by: usize, version: (u64, u64)) -> Option<Result<(), String>> {
        let lead = self.group.as_ref()?.leading(by, self.proxies[by].incarnation);
        match lead.map(|lead| lead.committed) {
            None => Some(Err("it leads no more".to_owned())),
            Some(committed) => committed.filter(|committed| *committed >= version).map(|_| Ok(())),
        }
    }

    /// Leave to replace a primary, in which epoch, and how many see it dead; none: not yet.
    pub(crate) fn consents(
        &mut self,
        by: usize,
        (node, planned): (NodeId, bool),
    ) -> Option<Result<(u64, (usize, usize)), String>> {
        let (now, process, own) = (self.now, self.proxies[by].incarnation, self.sights(by));
        let group = self.group.as_mut()?;
        let Some(lead) = group.leading(by, process) else { return Some(Err("it does not lead".to_owned())) };
        let votes = group.votes(by, &own, node, now);
        let enough = planned || votes.0 > votes.1 / 2;
        if !enough || lead.refused.is_some() || lead.committed != Some(group.members[by].disk.version) {
            return None;
        }
        if lead.prepare == 0 {
            let disk = &group.members[by].disk;
            let next = disk.epoch.max(disk.claimed) + 1;
            group.propose(|shared| shared.claimed = next);
            group.lead.iter_mut().for_each(|lead| lead.prepare = next);
            return None;
        }
        group.is_cleared(lead, now).then_some(Ok((lead.prepare, votes)))
    }

    /// What leave was given for does not happen.
    pub(crate) fn give_back(&mut self, by: usize) {
        let process = self.proxies[by].incarnation;
        let lead = self.group.as_mut().and_then(|group| group.lead.as_mut());
        if let Some(lead) = lead.filter(|lead| (lead.by, lead.process) == (by, process)) {
            lead.prepare = 0;
        }
    }
}
