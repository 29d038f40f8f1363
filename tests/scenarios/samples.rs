//! The sample files of `conf/watchdog`, run as they are but for addresses, ports of servers and folders, each by all of its members on hosts
//! of their own in front of real servers. A sample that does not start, or does not serve, fails. The rights that the systemd unit gives are
//! those that are needed.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::eventually;
use crate::common::raw::{RawClient, startup};
use crate::group::Group;
use crate::pair::VIP;
use crate::world::{Setup, World};

/// What the samples call a member, the last number of its address, and on which host it runs here.
const MEMBERS: [(&str, u8, &str); 4] =
    [("proxy-a", 1, "proxy1"), ("proxy-b", 2, "proxy2"), ("proxy-c", 3, "proxy3"), ("witness", 3, "proxy3")];

/// The file of another member: it and proxy-a change their places, as the head of each sample says.
fn file_of(sample: &str, (name, number, _): (&str, u8, &str)) -> String {
    let swap = |text: String, one: &str, other: &str| text.replace(one, "\0").replace(other, one).replace('\0', other);
    let mut text = swap(sample.to_owned(), "name = \"proxy-a\"", &format!("name = \"{name}\""));
    for (network, end) in [("192.0.2.", "\""), ("192.0.2.", ":"), ("10.9.0.", ":")] {
        text = swap(text, &format!("{network}1{end}"), &format!("{network}{number}{end}"));
    }
    if name == "witness" { text.replace("witness = true\n", "") } else { text }
}

/// Where it runs here.
fn here(text: &str, folder: &Path, member: &str, ports: &[u16]) -> String {
    let own = folder.join(member).display().to_string();
    let mut text = text
        .replace("\"192.0.2.254\"", "\"10.77.0.100\"")
        .replace("192.0.2.", "10.77.0.")
        .replace("10.9.0.", "10.77.1.")
        .replace("/etc/pgherd/watchdog.key", &folder.join("watchdog.key").display().to_string())
        .replace("/var/lib/pgherd", &own)
        .replace("addresses = [\"*\"]", &format!("addresses = [\"*\"]\nunix_socket_directories = [\"{own}\"]"));
    for (id, port) in ports.iter().enumerate() {
        let host = format!("host = \"10.77.0.1{}\"", id + 1);
        text = text.replace(&host, &format!("{host}\nport = {port}"));
    }
    assert!(!text.contains("192.0.2.") && !text.contains("/var/lib"), "{text}");
    text
}

/// Somebody answers there as PostgreSQL does: it wants a password, since no sample names an `hba_file`.
fn serves(group: &Group, address: &str) -> bool {
    let address = format!("{address}:9999").parse().expect("an address");
    group.place("upstream").inside(|| {
        let Ok(mut client) = RawClient::connect_to(address, Duration::from_secs(1)) else { return false };
        let hello = startup(196_608, &[("user", "somebody"), ("database", "postgres")]);
        client.send(&hello).is_ok()
            && client.frame().is_ok_and(|frame| frame.tag == b'R' && frame.body.ends_with(b"SCRAM-SHA-256\0\0"))
    })
}

#[test]
fn the_sample_files_of_proxies_that_watch_each_other_start_and_serve() {
    let Some((net, cluster, turn)) = World::hosts(&Setup::default()) else { return };
    let sql = "CREATE ROLE pgherd SUPERUSER LOGIN";
    net.host("db1").inside(|| cluster.primary().psql("postgres", sql)).expect("a role");
    net.also("hba", &[("proxy1", "10.77.1.1"), ("proxy2", "10.77.1.2")]);
    let ports: Vec<u16> = cluster.servers().iter().map(pgherd::app::demo::server::Server::port).collect();
    let mut group = Group::on((net, turn), &["proxy1", "proxy2", "proxy3"], VIP);
    for (sample, members) in [
        ("pair.toml", &MEMBERS[..2]),
        ("witness.toml", &[MEMBERS[0], MEMBERS[1], MEMBERS[3]]),
        ("three.toml", &MEMBERS[..3]),
    ] {
        println!("{sample}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/watchdog").join(sample);
        let text = std::fs::read_to_string(path).expect("a sample");
        for member in members {
            let folder = group.folder().join(member.2);
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir(&folder).expect("a folder");
            let own = here(&file_of(&text, *member), group.folder(), member.2, &ports);
            group.write(&format!("{}.toml", member.2), &own, 0o600);
            group.write(&format!("{}.log", member.2), "", 0o644);
            group.start(member.2, if member.0 == "witness" { "witness" } else { "run" });
        }
        for member in members {
            let met = |group: &Group| group.log(member.2).contains("event=\"member_joined\"");
            eventually(&format!("{sample}: {} meets the others", member.0), || met(&group));
        }
        let leads = |group: &Group| {
            let led = |member: &&(&str, u8, &str)| group.log(member.2).contains("event=\"leader\"");
            members.iter().find(led).map(|member| member.2)
        };
        eventually(&format!("{sample}: somebody leads"), || leads(&group).is_some());
        let first = leads(&group).expect("just seen");
        let proxies: Vec<_> = members.iter().filter(|member| member.0 != "witness").collect();
        if text.contains("virtual_ip =") {
            group.wait_holder(first);
            eventually(&format!("{sample}: the address serves"), || serves(&group, VIP));
        }
        for member in &proxies {
            eventually(&format!("{sample}: {} serves", member.0), || serves(&group, &format!("10.77.0.{}", member.1)));
        }
        // Whoever leads stops in order; another one leads.
        assert_eq!(group.end(first, Signal::SIGINT), Some(0), "{sample}");
        let rest: Vec<_> = members.iter().filter(|member| member.2 != first).collect();
        eventually(&format!("{sample}: another one leads"), || {
            rest.iter().any(|member| group.log(member.2).contains("event=\"leader\""))
        });
        if text.contains("virtual_ip =") {
            eventually(&format!("{sample}: the address serves"), || {
                group.watch.holders() != [first] && serves(&group, VIP)
            });
        }
        for member in rest {
            assert_eq!(group.end(member.2, Signal::SIGINT), Some(0), "{sample}: {}", member.0);
        }
        eventually("the address is gone", || group.watch.holders().is_empty());
    }
    group.watch.judge();
}

#[test]
fn the_rights_of_the_systemd_unit_are_enough_and_needed() {
    let Some(mut group) = Group::pair() else { return };
    let unit = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/watchdog/systemd.conf"))
        .expect("a unit");
    let line = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).expect("it is there").to_owned();
    let rights = line("AmbientCapabilities=");
    assert_eq!(rights, line("CapabilityBoundingSet="));
    assert!(unit.contains("DeviceAllow=/dev/net/tun rw"));
    let arping = "arping_cmd = \"/usr/bin/arping -q -U $_IP_$ -w 1 -I lan0\"\n";
    group.configure("one", &format!("{arping}priority = 2\n"));
    group.configure("two", "");
    group.configure("witness", "");
    group.start_with_rights("witness", "witness", "");
    group.start_with_rights("one", "run", &rights);
    group.wait_holder("one");
    std::thread::sleep(Duration::from_secs(2));
    let log = group.log("one");
    assert!(
        !log.contains(" WARN watchdog") && !log.contains("address_not_announced") && !log.contains("address_failed"),
        "{log}"
    );
    group.start_with_rights("two", "run", "");
    eventually("what is missing is told", || {
        let log = group.log("two");
        log.contains("address_unavailable") && log.contains("CAP_NET_ADMIN")
    });
}
