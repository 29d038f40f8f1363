//! What the configuration says, in the words of the engine and the links. Values only.

use std::collections::BTreeMap;

use super::super::engine::{Duty, Member, MemberId, OnQuorumLoss, Settings, Third};
use super::super::links::{Far, Place};
use super::super::seal::Seal;
use super::super::timings::{Arbiter, Timings};
use crate::cluster::NodeId;
use crate::config::{self, VipOn, Watchdog};

/// The servers whose locks decide.
const NODES: &str = "watchdog.nodes";

/// All members in the order of their names, and which of them this one is.
fn members(watchdog: &Watchdog, duty: Duty) -> (MemberId, Vec<Member>) {
    let mut members = vec![Member { name: watchdog.name.clone(), duty }];
    members.extend(
        watchdog.peers.iter().map(|peer| Member {
            name: peer.name.clone(),
            duty: if peer.witness { Duty::Witness } else { Duty::Proxy },
        }),
    );
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let me = members.iter().position(|member| member.name == watchdog.name).unwrap_or(0);
    (MemberId(u8::try_from(me).unwrap_or(u8::MAX)), members)
}

/// The place of this member among all in the order of their names, and how many there are.
pub fn seat(watchdog: &Watchdog) -> (usize, usize) {
    let (me, members) = members(watchdog, Duty::Proxy);
    (usize::from(me.0), members.len())
}

/// Who casts the deciding vote.
pub fn arbiter(config: &config::Settings, watchdog: &Watchdog) -> Arbiter {
    match (watchdog.peers.len(), watchdog.arbiter) {
        (1, config::Arbiter::Nodes) => Arbiter::Nodes(u16::try_from(config.nodes.len()).unwrap_or(u16::MAX)),
        (1, config::Arbiter::Trusted) => Arbiter::Trusted,
        _ => Arbiter::Members,
    }
}

/// For the engine.
pub fn settings(config: &config::Settings, watchdog: &Watchdog, duty: Duty) -> Settings {
    let (me, members) = members(watchdog, duty);
    let third = match arbiter(config, watchdog) {
        Arbiter::Members => Third::None,
        Arbiter::Nodes(_) => Third::Nodes(config.nodes.iter().map(|node| node.id).collect()),
        Arbiter::Trusted => Third::Trusted,
    };
    let course = config.failover.on_quorum_loss == config::OnQuorumLoss::HoldCourse
        && config.failover.promote == config::Promote::Never;
    Settings {
        me,
        members,
        priority: watchdog.priority,
        timings: Timings::of(watchdog.lease),
        third,
        address: watchdog.virtual_ip.is_some() && duty == Duty::Proxy,
        trusted: !watchdog.trusted_servers.is_empty() && duty == Duty::Proxy,
        on_quorum_loss: if course { OnQuorumLoss::HoldCourse } else { OnQuorumLoss::Stop },
        agreed: agreed(config, watchdog),
    }
}

/// What must be the same everywhere, by its name (HA H23).
fn agreed(config: &config::Settings, watchdog: &Watchdog) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
    add("watchdog.virtual_ip", watchdog.virtual_ip.map_or("none".to_owned(), |address| address.to_string()));
    add("watchdog.vip_on", if watchdog.vip_on == VipOn::Tun { "tun" } else { "interface" }.to_owned());
    add("watchdog.lease", format!("{:?}", watchdog.lease));
    if let Arbiter::Nodes(_) = arbiter(config, watchdog) {
        let ids = config.nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>().join(", ");
        // Whose locks count is fixed at the start: majorities of different sets need not meet.
        add(NODES, ids);
    }
    add("watchdog.arbiter", format!("{:?}", arbiter(config, watchdog)));
    add("monitor.database", config.monitor.database.clone());
    add("failover.promote", format!("{:?}", config.failover.promote));
    add("failover.allow_data_loss", config.failover.allow_data_loss.to_string());
    add("failover.on_quorum_loss", format!("{:?}", config.failover.on_quorum_loss));
    for node in &config.nodes {
        let id = node.id;
        // How a server is reached may differ from proxy to proxy; which one it is may not.
        add(&format!("node.{id}.name"), node.name.clone());
        add(&format!("node.{id}.port"), node.port.to_string());
        add(&format!("node.{id}.role"), format!("{:?}", node.role));
        add(&format!("node.{id}.replication"), format!("{}:{}", node.replication_host, node.replication_port));
        add(&format!("node.{id}.application_name"), node.application_name.clone());
    }
    all
}

/// Signs and opens what members say to each other; none: the key is too short.
pub(super) fn seal(watchdog: &Watchdog, incarnation: u64) -> Option<Seal> {
    let names: Vec<&str> = watchdog.peers.iter().map(|peer| peer.name.as_str()).collect();
    Seal::new(watchdog.key.expose().trim_end().as_bytes(), &watchdog.name, incarnation, &names).ok()
}

/// What of the section may change while it runs, as far as programs are concerned.
pub(super) fn reload(section: &mut Watchdog, config: &config::Settings) {
    if let Some(new) = &config.watchdog {
        section.commands.clone_from(&new.commands);
    }
}

/// What holds of the settings that must agree while it runs: members, lease, address and the servers that decide take a restart, so that what
/// holds is what was compared. And a sentence if other servers would decide.
pub(super) fn agreed_while_running(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> (BTreeMap<String, String>, Option<String>) {
    let fixed = |name: &str| name.starts_with("watchdog.");
    let mut agreed = new.clone();
    agreed.retain(|name, _| !fixed(name));
    agreed.extend(old.iter().filter(|(name, _)| fixed(name)).map(|(name, value)| (name.clone(), value.clone())));
    let said = |map: &BTreeMap<String, String>| map.get(NODES).cloned().unwrap_or("none".to_owned());
    let why = (old.get(NODES) != new.get(NODES)).then(|| {
        format!(
            "the locks of nodes {} decide until all members have been restarted, then those of {}: one that is restarted alone is refused \
             by the others",
            said(old),
            said(new)
        )
    });
    (agreed, why)
}

/// The servers whose locks are the third vote.
pub(super) fn locked(settings: &Settings) -> Vec<NodeId> {
    if let Third::Nodes(nodes) = &settings.third { nodes.clone() } else { Vec::new() }
}

/// The number of the advisory lock, the same for the whole group, and of no other group on the same servers.
pub(super) fn lock_key(settings: &Settings, watchdog: &Watchdog) -> i64 {
    let names: Vec<&str> = settings.members.iter().map(|member| member.name.as_str()).collect();
    let address = watchdog.virtual_ip.map_or(String::new(), |address| address.to_string());
    let text = format!("pgherd watchdog\n{}\n{address}", names.join("\n"));
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let first = digest.as_ref().first_chunk::<8>().map_or(0, |first| i64::from_be_bytes(*first));
    first & 0x7FFF_FFFF_FFFF_FFFF
}

/// Where this member listens.
pub(super) fn here(watchdog: &Watchdog) -> Place {
    (watchdog.address.clone(), watchdog.port)
}

/// How the others are reached, in the order of the configuration.
pub(super) fn far(watchdog: &Watchdog) -> Vec<Far> {
    let heartbeat = |peer: &config::Peer| -> Vec<Place> {
        if peer.heartbeat.is_empty() {
            return vec![(peer.host.clone(), watchdog.heartbeat_port)];
        }
        peer.heartbeat.iter().map(|text| place(text, watchdog.heartbeat_port)).collect()
    };
    let far = |peer: &config::Peer| Far { host: (peer.host.clone(), peer.port), heartbeat: heartbeat(peer) };
    watchdog.peers.iter().map(far).collect()
}

/// `host:port`, `[address]:port`, or a host alone.
fn place(text: &str, port: u16) -> Place {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match text.rsplit_once(':') {
        Some((host, own)) if !host.contains(':') || host.ends_with(']') => match own.parse() {
            Ok(own) => (bare(host), own),
            Err(_) => (bare(text), port),
        },
        _ => (bare(text), port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings as Config;

    /// A member with so many nodes and peers, one of which may be a witness.
    fn config(nodes: usize, peers: &[&str], arbiter: &str) -> Config {
        use std::os::unix::fs::PermissionsExt;
        let key =
            std::env::temp_dir().join(format!("pgherd-key-{}-{nodes}{arbiter}{}", std::process::id(), peers.len()));
        std::fs::write(&key, "a key that is long enough for this\n").expect("written");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("ours");
        let mut text = format!(
            "[watchdog]\nname = \"a\"\naddress = \"127.0.0.1\"\nkey_file = \"{}\"\narbiter = \"{arbiter}\"\n\
             trusted_servers = [\"192.0.2.1\"]\nstate_directory = \"/tmp\"\n",
            key.display()
        );
        for peer in peers {
            text += &format!("[[watchdog.peer]]\nname = \"{peer}\"\nhost = \"127.0.0.1\"\n");
        }
        for node in 0..nodes {
            text += &format!("[[node]]\nid = {node}\nhost = \"192.0.2.{}\"\n", node + 1);
        }
        let config = Config::parse(&text, std::path::Path::new("/etc/pgherd/pgherd.toml"));
        std::fs::remove_file(&key).expect("ours");
        config.unwrap_or_else(|error| panic!("{error}"))
    }

    fn agreed_of(config: &Config) -> BTreeMap<String, String> {
        agreed(config, config.watchdog.as_ref().expect("there"))
    }

    #[test]
    fn h23_a_node_more_or_less_matters_among_members_only_where_the_locks_of_nodes_decide() {
        for (peers, arbiter) in [(&["b", "c"][..], "nodes"), (&["b"], "trusted")] {
            let (old, new) = (agreed_of(&config(3, peers, arbiter)), agreed_of(&config(4, peers, arbiter)));
            let (running, told) = agreed_while_running(&old, &new);
            assert_eq!((&running, told), (&new, None), "as one that has been restarted: {arbiter}");
            assert!(old != new && new.contains_key("node.3.name"));
        }
        let (old, new) = (agreed_of(&config(3, &["b"], "nodes")), agreed_of(&config(4, &["b"], "nodes")));
        let (running, told) = agreed_while_running(&old, &new);
        assert_eq!((running.get(NODES), running.contains_key("node.3.name")), (old.get(NODES), true));
        let why = told.expect("it is told");
        assert!(why.contains("nodes 0, 1, 2 decide") && why.contains("those of 0, 1, 2, 3"), "{why}");
        assert_eq!(agreed_while_running(&old, &agreed_of(&config(3, &["b"], "nodes"))), (old, None));
    }

    #[test]
    fn a_heartbeat_link_is_a_host_with_or_without_a_port() {
        for (text, host, port) in [
            ("10.0.0.1:9000", "10.0.0.1", 9000),
            ("10.0.0.1", "10.0.0.1", 7),
            ("[2001:db8::1]:9000", "2001:db8::1", 9000),
            ("2001:db8::1", "2001:db8::1", 7),
            ("[2001:db8::1]", "2001:db8::1", 7),
        ] {
            assert_eq!(place(text, 7), (host.to_owned(), port), "{text}");
        }
    }
}
