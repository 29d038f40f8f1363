//! Who may take over, and whether enough is known to be sure that nothing acknowledged is lost (HA H6, H9). Pure functions.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::words::{Duty, Member, Settings, Standing};
use crate::cluster::{Lsn, NodeId, Timeline};

/// `synchronous_standby_names`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synchronous {
    /// How many must acknowledge.
    pub count: usize,
    /// Who may; `*` is everyone.
    pub names: Vec<String>,
}

impl Synchronous {
    /// Reads the setting; `None` if replication is asynchronous. What cannot be read is taken as a demand that nobody fulfils.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let (count, list) = match text.split_once('(') {
            Some((head, list)) if !head.contains('"') => {
                let count = head.split_whitespace().next_back().and_then(|count| count.parse().ok());
                (count, list.trim_end().strip_suffix(')'))
            }
            _ => (Some(1), Some(text)),
        };
        let read = count.zip(list.map(names)).filter(|(count, names)| *count > 0 && !names.is_empty());
        Some(read.map_or(Self { count: usize::MAX, names: Vec::new() }, |(count, names)| Self { count, names }))
    }

    fn means(&self, member: &Member) -> bool {
        self.names.iter().any(|name| name == "*" || name.eq_ignore_ascii_case(&member.application_name))
    }

    /// How many of the named must be recruited so that at least one of them has every commit that was acknowledged: n − k + 1. Several
    /// standbys may bear one name, and each of them may be the one that was waited for.
    pub fn needed(&self, standbys: usize, meant: usize) -> usize {
        let all = if self.names.iter().any(|name| name == "*") { standbys } else { self.names.len().max(meant) };
        if self.count == usize::MAX { usize::MAX } else { (all + 1).saturating_sub(self.count).max(1) }
    }

    /// How many of these nodes are among the named.
    pub fn among<'a>(&self, nodes: impl Iterator<Item = &'a Member>) -> usize {
        nodes.filter(|member| self.means(member)).count()
    }
}

fn names(list: &str) -> Vec<String> {
    let (mut found, mut name, mut quoted) = (Vec::new(), String::new(), false);
    for letter in list.chars().chain([',']) {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => found.push(std::mem::take(&mut name)),
            letter if letter.is_whitespace() && !quoted => {}
            letter => name.push(letter),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The old primary, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Lost<'a> {
    /// Its number.
    pub node: NodeId,
    /// Its timeline; 0 if unknown.
    pub timeline: Timeline,
    /// The last position that was read from it.
    pub lsn: Option<Lsn>,
    /// Its `synchronous_standby_names`.
    pub synchronous: &'a str,
}

/// How many standbys must be recruited before one of them may be promoted (HA H5). `out` are those that an operator took out.
pub fn majority(settings: &Settings, old: Option<NodeId>, out: &[u16]) -> usize {
    let standbys = settings.members.iter().filter(|member| Some(member.id) != old && !out.contains(&member.id.0));
    standbys.count() / 2 + 1
}

/// The best of the recruited, or why there is none. `wanted` is an operator's choice.
///
/// # Errors
/// For people: why nobody may be promoted now.
pub fn best(
    settings: &Settings,
    lost: Lost<'_>,
    recruits: &BTreeMap<NodeId, Standing>,
    wanted: Option<NodeId>,
) -> Result<NodeId, String> {
    let member = |id: NodeId| settings.members.iter().find(|member| member.id == id);
    let comparable = |standing: &Standing| lost.timeline == Timeline(0) || standing.timeline == lost.timeline;
    if let Some((id, standing)) = recruits.iter().find(|(_, standing)| standing.timeline > lost.timeline)
        && lost.timeline != Timeline(0)
    {
        let (new, old) = (standing.timeline.0, lost.timeline.0);
        return Err(format!(
            "node {id} is on timeline {new}, later than the primary's {old}: it follows somebody else"
        ));
    }
    let usable: BTreeMap<NodeId, Standing> =
        recruits.iter().filter(|(_, standing)| comparable(standing)).map(|(id, standing)| (*id, *standing)).collect();
    let furthest = usable.values().map(|standing| standing.lsn).max().unwrap_or_default();
    let key = |(id, standing): &(&NodeId, &Standing)| {
        (standing.lsn, !standing.slow, Reverse(standing.lsn.0.saturating_sub(standing.replayed.0)), Reverse(**id))
    };
    let may = |id: NodeId| member(id).is_some_and(|member| member.duty == Duty::Any);
    let allowed = usable.iter().filter(|(id, _)| may(**id) && wanted.is_none_or(|wanted| wanted == **id));
    let (id, standing) = allowed.max_by_key(key).ok_or_else(|| match wanted {
        Some(wanted) => {
            format!("node {wanted} could not be recruited on the primary's timeline, or may not be primary")
        }
        None => "no standby on the primary's timeline that may be primary could be recruited".to_owned(),
    })?;
    if settings.allow_data_loss {
        return Ok(*id);
    }
    // Who was the primary has whatever it acknowledged.
    let complete = usable.contains_key(&lost.node);
    if let Some(synchronous) = Synchronous::parse(lost.synchronous).filter(|_| !complete) {
        let standbys = || settings.members.iter().filter(|member| member.id != lost.node);
        let needed = synchronous.needed(standbys().count(), synchronous.among(standbys()));
        let have = synchronous.among(usable.keys().filter_map(|id| member(*id)));
        if have < needed {
            let names = lost.synchronous;
            return Err(format!(
                "{have} of the synchronous standbys ({names}) are recruited, {needed} are needed: a commit may be missing"
            ));
        }
    }
    if standing.lsn < furthest && (wanted.is_some() || complete || !lost.synchronous.trim().is_empty()) {
        return Err(format!("node {id} has received up to {}, another standby up to {furthest}", standing.lsn));
    }
    match (settings.max_lag, lost.lsn) {
        (Some(most), Some(known)) if known.0.saturating_sub(standing.lsn.0) > most => {
            let lag = known.0 - standing.lsn.0;
            Err(format!("node {id} lacks at least {lag} bytes, more than max_lag_on_failover allows"))
        }
        _ => Ok(*id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::engine::tests::settings;

    fn standing(timeline: u32, lsn: u64) -> Standing {
        Standing { timeline: Timeline(timeline), lsn: Lsn(lsn), replayed: Lsn(lsn), started: 0, slow: false }
    }

    fn recruits(list: &[(u16, u32, u64)]) -> BTreeMap<NodeId, Standing> {
        list.iter().map(|&(id, timeline, lsn)| (NodeId(id), standing(timeline, lsn))).collect()
    }

    fn lost(synchronous: &str) -> Lost<'_> {
        Lost { node: NodeId(0), timeline: Timeline(2), lsn: Some(Lsn(1000)), synchronous }
    }

    #[test]
    fn h09_the_setting_is_read_in_all_its_forms() {
        let read = |text| Synchronous::parse(text).map(|read| (read.count, read.names.join("|")));
        assert_eq!(read("  "), None);
        assert_eq!(read("a, b"), Some((1, "a|b".to_owned())));
        assert_eq!(read("FIRST 2 (a, \"b, c\", d)"), Some((2, "a|b, c|d".to_owned())));
        assert_eq!(read("ANY 1 (a,b,c)"), Some((1, "a|b|c".to_owned())));
        assert_eq!(read("2 (*)"), Some((2, "*".to_owned())));
        assert_eq!(read("ANY x (a)").map(|(count, _)| count), Some(usize::MAX), "nobody fulfils what nobody can read");
    }

    #[test]
    fn h09_n_minus_k_plus_1_of_the_named_must_be_there() {
        let settings = settings(4);
        let ask = |names, list: &[(u16, u32, u64)]| best(&settings, lost(names), &recruits(list), None);
        // S39: ANY 1 of three, one of them away: it may be the only one that has the last commit.
        assert!(ask("ANY 1 (node1, node2, node3)", &[(1, 2, 900), (2, 2, 950)]).is_err());
        assert_eq!(ask("ANY 2 (node1, node2, node3)", &[(1, 2, 900), (2, 2, 950)]), Ok(NodeId(2)));
        assert_eq!(ask("ANY 1 (node1)", &[(1, 2, 900), (2, 2, 850)]), Ok(NodeId(1)));
        assert!(ask("ANY 1 (node1)", &[(2, 2, 950), (3, 2, 950)]).is_err());
        assert!(ask("FIRST 1 (*)", &[(1, 2, 900), (2, 2, 950)]).is_err());
        let loss = Settings { allow_data_loss: true, ..settings.clone() };
        let names = "ANY 1 (node1, node2, node3)";
        assert_eq!(best(&loss, lost(names), &recruits(&[(1, 2, 900), (2, 2, 950)]), None), Ok(NodeId(2)));
    }

    #[test]
    fn h09_standbys_of_one_name_count_each() {
        let mut settings = settings(4);
        for member in &mut settings.members {
            member.application_name = "walreceiver".to_owned();
        }
        let ask = |list: &[(u16, u32, u64)]| best(&settings, lost("walreceiver"), &recruits(list), None);
        assert!(ask(&[(1, 2, 900), (2, 2, 950)]).is_err(), "the third may be the only one that has the last commit");
        assert_eq!(ask(&[(1, 2, 900), (2, 2, 950), (3, 2, 940)]), Ok(NodeId(2)));
    }

    #[test]
    fn h06_the_furthest_on_the_timeline_is_chosen() {
        let mut settings = settings(4);
        let ask =
            |settings: &Settings, list: &[(u16, u32, u64)], wanted| best(settings, lost(""), &recruits(list), wanted);
        assert_eq!(ask(&settings, &[(1, 2, 900), (2, 2, 950), (3, 1, 9999)], None), Ok(NodeId(2)));
        assert_eq!(ask(&settings, &[(1, 2, 950), (2, 2, 950)], None), Ok(NodeId(1)));
        assert!(ask(&settings, &[(1, 2, 900), (2, 3, 10)], None).is_err(), "somebody has promoted already");
        assert!(ask(&settings, &[(1, 2, 900), (2, 2, 950)], Some(NodeId(1))).is_err());
        assert_eq!(ask(&settings, &[(1, 2, 950), (2, 2, 950)], Some(NodeId(2))), Ok(NodeId(2)));
        settings.members[2].duty = Duty::Standby;
        assert_eq!(ask(&settings, &[(1, 2, 900), (2, 2, 950)], None), Ok(NodeId(1)));
        settings.max_lag = Some(99);
        assert!(ask(&settings, &[(1, 2, 900)], None).is_err());
    }
}
