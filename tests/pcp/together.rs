//! Orders to any proxy of a group: those about nodes go to whoever leads, and hold everywhere, also after a restart (HA H25); reloading and
//! stopping all by one command.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::cluster::{Cluster, Options};

use crate::common::raw::{RawClient, query};
use crate::common::{self, eventually};
use crate::group::{Group, NAMES};
use crate::world::has_pgpool;

fn signal(group: &Group, of: usize, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(group.members[of].proxy.pid()).expect("a pid")), signal).expect("it runs");
}

/// A follower, and another one.
fn followers(leader: usize) -> [usize; 2] {
    [(leader + 1) % 3, (leader + 2) % 3]
}

#[test]
fn h25_an_order_given_to_any_proxy_holds_on_all_of_them_and_after_a_restart() {
    let Some(cluster) = common::cluster() else { return };
    let mut group = Group::start(cluster, "");
    let leader = group.leader();
    let [one, _] = followers(leader);
    let said = group.own(one, &["detach_node", "2"]).expect("it is passed on");
    assert_eq!(said["text"], format!("node 2 is detached (by {}, which leads)", NAMES[leader]));
    assert_eq!(group.status(one, 2), "detached", "at once where it was ordered");
    for of in 0..3 {
        eventually("all obey", || group.status(of, 2) == "detached");
    }
    let log = group.log(leader);
    let asked = log.lines().find(|line| line.contains("order_detach")).unwrap_or_else(|| panic!("{log}"));
    assert!(asked.contains("pcp user pcpu at") && asked.contains(&format!("at {}", NAMES[one])), "{asked}");
    // Whoever leads refuses in its own words.
    for (order, why) in [
        (&["detach_node", "0"][..], "--switchover"),
        (&["promote_node", "1"], "--switchover"),
        (&["switch_over"], "failover.demote_command"),
        (&["attach_node", "9"], "there is no node 9"),
        (&["recovery_node", "1"], "set recovery.command"),
    ] {
        let refused = group.own(one, order).expect_err("refused");
        assert!(refused.code == Some(1) && refused.err.contains(why), "{order:?}: {refused:?}");
    }
    // One of them, and then all, die and come back.
    for gone in [&[one][..], &[0, 1, 2]] {
        gone.iter().for_each(|of| group.members[*of].proxy.kill9());
        for of in gone {
            group.members[*of].proxy.begin(std::process::Command::new(env!("CARGO_BIN_EXE_pgherd")));
        }
        gone.iter().for_each(|of| group.members[*of].proxy.wait_ready());
        eventually("one leads, and all say so", || (0..3).all(|of| group.leader_of(of).is_some()));
        (0..3).for_each(|of| eventually("all remember", || group.status(of, 2) == "detached"));
    }
    let [one, other] = followers(group.leader());
    // The other one of the followers takes the next order, by pgpool-II's program.
    if has_pgpool("an order by the real program to a proxy that does not lead") {
        let done = group.stock(other, "pcp_attach_node -n 2");
        assert_eq!((done.out.as_str(), done.err.as_str()), ("pcp_attach_node -- Command Successful", ""));
    } else {
        group.own(other, &["attach_node", "2"]).expect("it is passed on");
    }
    for of in 0..3 {
        eventually("all use it again", || group.status(of, 2) == "up");
    }
    gracefully(&group, one, other);
    unreachable(&mut group);
}

/// `--gracefully` waits for the sessions of all proxies.
fn gracefully(group: &Group, one: usize, other: usize) {
    let busy = || {
        let told = group.own(other, &["proc_info"]).expect("told");
        told["sessions"].as_array().expect("sessions").iter().any(|session| session["node"] == 2)
    };
    // Each session draws its server: sooner or later one draws node 2.
    let mut clients = Vec::new();
    while !busy() {
        let mut client = RawClient::login(group.port(other), "postgres");
        client.send(&query("SELECT pg_sleep(4)")).expect("sent");
        clients.push(client);
        assert!(clients.len() < 40, "none draws node 2");
    }
    group.own(one, &["detach_node", "2", "--gracefully"]).expect("detached");
    assert!(!busy(), "nobody has a connection to it, at the other proxy neither");
    group.own(one, &["attach_node", "2"]).expect("attached");
    for mut client in clients {
        let frames = client.until_ready().expect("an answer");
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    }
}

/// Nobody leads, or whoever does hangs: a clear refusal in a bounded time.
fn unreachable(group: &mut Group) {
    let leader = group.leader();
    let [one, other] = followers(leader);
    signal(group, leader, Signal::SIGSTOP);
    let begun = Instant::now();
    let said = group.own(one, &["attach_node", "2"]);
    let took = begun.elapsed();
    signal(group, leader, Signal::SIGCONT);
    assert!(took < Duration::from_secs(15), "{took:?}");
    // Asked before it was missed, or behind the election of another one.
    let silent = |ran: &crate::world::Ran| ran.err.contains("does not answer") || ran.err.contains("does not lead");
    assert!(said.as_ref().is_ok() || said.as_ref().is_err_and(silent), "{said:?}");
    eventually("all agree again", || (0..3).all(|of| group.leader_of(of).is_some()));
    let leader = group.leader();
    let one = if leader == one { other } else { one };
    for of in 0..3 {
        if of != one {
            group.cut(one, of, true);
            group.cut(of, one, true);
        }
    }
    eventually("it is alone", || {
        let told = group.watchdog(one).expect("told");
        told["members"].as_array().is_some_and(|all| all.iter().filter(|member| member["state"] == "LOST").count() == 2)
    });
    let refused = group.own(one, &["detach_node", "2"]).expect_err("nobody leads it");
    assert!(refused.err.contains("nobody leads") && refused.err.contains("watchdog_info"), "{refused:?}");
}

#[test]
fn h25_a_switch_over_ordered_at_a_proxy_that_does_not_lead_is_done_by_the_one_that_does() {
    let cluster = match Cluster::start(&Options::default()) {
        Ok(cluster) => cluster,
        Err(pgherd::app::demo::Error::NoPostgres) => return common::skip("a switch-over by a group", "no PostgreSQL"),
        Err(error) => panic!("{error}"),
    };
    let demote = crate::orders::demote(&cluster);
    let group = Group::start(&cluster, &format!("[failover]\npromote = \"builtin\"\ndemote_command = \"{demote}\""));
    let leader = group.leader();
    let [one, other] = followers(leader);
    let ran = group.own_text(one, &["promote_node", "--switchover", "1"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for of in [leader, one, other] {
        let primary =
            || group.own(of, &["node_info", "-n", "1"]).is_ok_and(|told| told["nodes"][0]["role"] == "primary");
        eventually("all know the new primary", primary);
        let mut client = RawClient::login(group.port(of), "postgres");
        client.query(&format!("CREATE TABLE by_{of} ()"));
    }
    let promoted = |of: usize| group.log(of).matches("event=\"promoted\"").count();
    assert_eq!((promoted(leader), promoted(one), promoted(other)), (1, 0, 0), "by one of them");
}

#[test]
fn h25_all_are_reloaded_and_stopped_by_one_command_each() {
    let Some(cluster) = common::cluster() else { return };
    let mut group = Group::start(cluster, "");
    let leader = group.leader();
    let [one, other] = followers(leader);
    let real = has_pgpool("pcp_reload_config -s cluster and pcp_stop_pgpool -s cluster");
    let resize = |group: &Group, of: usize, size: &str| {
        let member = &group.members[of];
        let file = member.proxy.folder().join("pgherd.toml");
        let text = std::fs::read_to_string(&file).expect("read");
        let from = text.split("max_clients = ").nth(1).and_then(|rest| rest.lines().next());
        let line = from.map(|old| format!("max_clients = {old}"));
        let text = match line {
            Some(line) => text.replace(&line, &format!("max_clients = {size}")),
            None => text.replacen("[listen]\n", &format!("[listen]\nmax_clients = {size}\n"), 1),
        };
        std::fs::write(&file, text).expect("written");
    };
    let clients = |of: usize| group.own(of, &["overview"]).expect("told")["max_clients"].clone();
    (0..3).for_each(|of| resize(&group, of, "77"));
    let told = group.own(one, &["reload_config", "--group"]).expect("all do");
    let text = told["text"].as_str().expect("a text");
    for name in NAMES {
        assert!(text.contains(&format!("{name}: reloaded: 1 changed (listen.max_clients)")), "{text}");
    }
    assert_eq!([0, 1, 2].map(clients), [77, 77, 77]);
    if real {
        (0..3).for_each(|of| resize(&group, of, "78"));
        assert_eq!(group.stock(other, "pcp_reload_config -s l").out, "pcp_reload_config -- Command Successful");
        assert_eq!((clients(one), clients(other)), (77.into(), 78.into()), "itself alone");
        assert_eq!(group.stock(other, "pcp_reload_config -s c").out, "pcp_reload_config -- Command Successful");
        assert_eq!([0, 1, 2].map(clients), [78, 78, 78]);
    }
    // One that cannot read its file is named, the others have read theirs.
    (0..3).for_each(|of| resize(&group, of, "79"));
    std::fs::write(group.members[leader].proxy.folder().join("pgherd.toml"), "nonsense = 1\n").expect("written");
    let refused = group.own(one, &["reload_config", "--group"]).expect_err("one cannot");
    assert!(refused.err.contains(&format!("{}: FAILED", NAMES[leader])), "{refused:?}");
    assert_eq!([leader, one, other].map(clients)[1..], [79, 79]);
    stop_all(&mut group, one, real);
}

fn stop_all(group: &mut Group, one: usize, real: bool) {
    let said = if real {
        group.stock(one, "pcp_stop_pgpool -m f -s c").out
    } else {
        group.own_text(one, &["stop", "--mode", "fast", "--group"]).out
    };
    assert!(said.contains("Command Successful") || said.contains("stopping"), "{said}");
    for member in &mut group.members {
        assert_eq!(member.proxy.ended(), Some(0), "{}", member.proxy.log());
    }
}

/// A group whose first leader that recruits standbys is at fencing for longer than anybody waits.
fn fencing(cluster: &Cluster) -> Group {
    let folder = cluster.folder();
    let script = folder.join("fence.sh");
    let text = format!("#!/bin/sh\nmkdir '{}/fenced' 2>/dev/null && exec sleep 25\nexit 0\n", folder.display());
    std::fs::write(&script, text).expect("written");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).expect("executable");
    Group::start(cluster, &format!("[failover]\npromote = \"builtin\"\nfence_command = \"{}\"", script.display()))
}

/// HA H5: whoever recruits standbys and then freezes lets go of their locks without running a line, and gets none of them back unnoticed.
#[test]
fn h05_a_leader_that_freezes_with_recruits_is_replaced_and_promotes_nobody_when_it_wakes() {
    let cluster = match Cluster::start(&Options::default()) {
        Ok(cluster) => cluster,
        Err(pgherd::app::demo::Error::NoPostgres) => return common::skip("a frozen recruiter", "no PostgreSQL"),
        Err(error) => panic!("{error}"),
    };
    let (group, folder) = (fencing(&cluster), cluster.folder());
    let leader = group.leader();
    let [one, other] = followers(leader);
    RawClient::login(group.port(one), "postgres").query("CREATE TABLE kept ()");
    cluster.wait_replayed(common::SOON).expect("standbys follow");
    cluster.primary().kill9().expect("killed");
    eventually("it fences", || folder.join("fenced").exists());
    signal(&group, leader, Signal::SIGSTOP);
    let begun = Instant::now();
    let primary = |of: usize| {
        let told = group.own(of, &["node_info"]).unwrap_or_default();
        let nodes = told["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().position(|node| node["role"] == "primary" && node["status"] == "up").filter(|node| *node != 0)
    };
    eventually("another one promotes", || primary(one).is_some() && primary(one) == primary(other));
    println!("promoted {:?} after the freeze", begun.elapsed());
    let new = primary(one).expect("looked at");
    signal(&group, leader, Signal::SIGCONT);
    eventually("it obeys", || primary(leader) == Some(new));
    let promoted = |of: usize| group.log(of).matches("event=\"promoted\"").count();
    assert_eq!((promoted(leader), promoted(one) + promoted(other)), (0, 1), "by one of the others");
    let standby = cluster.servers()[3 - new].psql("postgres", "SELECT pg_is_in_recovery()").expect("it answers");
    assert_eq!(standby.trim(), "t");
    assert_eq!(RawClient::login(group.port(leader), "postgres").values("SELECT count(*) FROM kept"), ["0"]);
}

/// HA H5: what a leader has changed is put back as it was by whoever leads next, the file that it came from included.
#[test]
fn h05_originals_are_put_back_by_whoever_leads_next() {
    let cluster = match Cluster::start(&Options::default()) {
        Ok(cluster) => cluster,
        Err(pgherd::app::demo::Error::NoPostgres) => return common::skip("originals at partners", "no PostgreSQL"),
        Err(error) => panic!("{error}"),
    };
    let standby = &cluster.servers()[1];
    let (own, auto) = (standby.data().join("server.conf"), standby.data().join("postgresql.auto.conf"));
    let setting = std::fs::read_to_string(&auto).expect("read");
    assert!(setting.contains("primary_conninfo"), "{setting}");
    std::fs::write(&own, std::fs::read_to_string(&own).expect("read") + "\n" + &setting).expect("written");
    std::fs::write(&auto, "").expect("written");
    let ask = |sql: &str| standby.psql("postgres", sql).expect("it answers").trim().to_owned();
    ask("SELECT pg_reload_conf()");
    let source = || ask("SELECT sourcefile FROM pg_settings WHERE name = 'primary_conninfo'");
    eventually("it comes from the other file", || source().ends_with("server.conf"));
    let before = ask("SHOW primary_conninfo");
    let mut group = fencing(&cluster);
    let leader = group.leader();
    let [one, other] = followers(leader);
    cluster.primary().freeze().expect("frozen");
    eventually("it fences", || cluster.folder().join("fenced").exists());
    assert!(ask("SHOW primary_conninfo").contains("pgherd_recruited") && source().ends_with("auto.conf"));
    for of in [one, other] {
        let copy = group.members[of].folder.path().join("state/recruited-1.json");
        let text = std::fs::read_to_string(&copy).unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
        assert!(text.contains("server.conf"), "{text}");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    group.members[leader].proxy.kill9();
    cluster.primary().thaw().expect("it goes on");
    eventually("it is as it was", || ask("SHOW primary_conninfo") == before);
    eventually("and from where it was", || source().ends_with("server.conf"));
    assert_eq!(ask("SELECT pg_is_in_recovery()"), "t");
}
