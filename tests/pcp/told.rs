//! What each member of a group tells of it: the same where all are well, and the truth where one is dead, or hears others no more while
//! they hear it; what it cannot know is not there.

use serde_json::Value;

use crate::common::raw::RawClient;
use crate::common::{self, eventually};
use crate::group::{Group, NAMES};
use crate::world::has_pgpool;

/// What `of` says of `member`.
fn of_member(group: &Group, of: usize, member: usize) -> Value {
    group.watchdog(of).expect("it answers")["members"][member].clone()
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::INFINITY)
}

/// Heard by every way, and hears us.
fn is_well(told: &Value) -> bool {
    let links = told["links"].as_array().expect("links");
    let heard = links.iter().all(|link| seconds(&link["heard_seconds"]) < 2.0);
    heard && links.len() == 2 && links[0]["connected"] == true && seconds(&told["heard_by_seconds"]) < 2.0
}

#[test]
fn each_member_tells_the_truth_about_all() {
    let Some(cluster) = common::cluster() else { return };
    let mut group = Group::start(cluster, "");
    let leader = group.leader();
    healthy(&group, leader);
    cut(&group, leader);
    dead(&mut group, leader);
}

fn healthy(group: &Group, leader: usize) {
    let told: Vec<Value> = (0..3).map(|of| group.watchdog(of).expect("it answers")).collect();
    for (of, told) in told.iter().enumerate() {
        assert_eq!((&told["leader"], &told["quorum"]), (&NAMES[leader].into(), &true.into()), "{told:#}");
        assert_eq!((&told["term"], &told["epoch"]), (&group.watchdog(0).expect("told")["term"], &1.into()));
        assert!(told["writes"] == "lease" && seconds(&told["lease_seconds"]) <= 2.0, "{told:#}");
        for member in 0..3 {
            eventually("all ways are open and all say the same", || {
                let one = of_member(group, of, member);
                let says = one["says_leader"] == NAMES[leader] && one["says_epoch"] == 1;
                says && one["reaches_nodes"] == 3 && (of == member || is_well(&one))
            });
            // All of them are on this host.
            let clock = of_member(group, of, member)["clock_ahead_ms"].as_i64();
            assert_eq!(clock.is_some(), of != member, "its own clock is no other's");
            assert!(clock.is_none_or(|ahead| ahead.abs() < 5_000), "{clock:?}");
        }
    }
    let mut client = RawClient::login(group.port(0), "postgres");
    let frames = client.query("SHOW POOL_WATCHDOG");
    assert_eq!(frames.iter().filter(|frame| frame.tag == b'D').count(), 3, "{frames:?}");
    let text = group.own_text(0, &["watchdog-info"]).out;
    for part in [&format!("a majority has confirmed {} as leader", NAMES[leader]), "HEARS US S AGO", "udp 127.0.0.1:"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    if has_pgpool("pcp_watchdog_info of each member") {
        for of in 0..3 {
            let theirs = group.stock(of, "pcp_watchdog_info").out;
            assert!(theirs.starts_with(&format!("3 3 NO {} ", NAMES[leader])), "{theirs}");
        }
    }
}

/// One follower hears the other one no more, by nothing; the other one hears it as before.
fn cut(group: &Group, leader: usize) {
    let [deaf, mute] = [(leader + 1) % 3, (leader + 2) % 3];
    group.cut(mute, deaf, true);
    eventually("who hears nothing says so", || of_member(group, deaf, mute)["state"] == "LOST");
    let one = of_member(group, deaf, mute);
    for unknown in ["heard_by_seconds", "says_leader", "says_term", "clock_ahead_ms", "reaches_nodes", "priority"] {
        assert!(one[unknown].is_null(), "{unknown}: nobody can know that here: {one:#}");
    }
    assert!(seconds(&one["heard_seconds"]) > 0.5 && one["links"][0]["connected"] == true, "{one:#}");
    eventually("who is not heard knows that", || {
        let one = of_member(group, mute, deaf);
        let silent = seconds(&one["heard_by_seconds"]) > 3.0 && seconds(&one["heard_by_seconds"]).is_finite();
        silent && one["state"] == "STANDBY" && seconds(&one["heard_seconds"]) < 2.0
    });
    for of in [deaf, mute] {
        let told = group.watchdog(of).expect("it answers");
        assert_eq!((&told["leader"], &told["quorum"]), (&NAMES[leader].into(), &true.into()), "{told:#}");
    }
    for member in [deaf, mute] {
        assert!(is_well(&of_member(group, leader, member)), "the leader hears both");
    }
    group.cut(mute, deaf, false);
    eventually("it is heard again", || {
        is_well(&of_member(group, deaf, mute)) && is_well(&of_member(group, mute, deaf))
    });
}

/// The leader is killed: the others say so, and name the new one; alone, one knows of nothing but itself.
fn dead(group: &mut Group, leader: usize) {
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    group.members[leader].proxy.kill9();
    for of in [one, other] {
        eventually("another one leads", || {
            let told = group.watchdog(of).expect("it answers");
            told["leader"].as_str().is_some_and(|name| name != NAMES[leader])
        });
        let told = of_member(group, of, leader);
        assert_eq!(told["state"], "LOST", "{told:#}");
        assert!(told["says_leader"].is_null() && told["reaches_primary"].is_null(), "{told:#}");
        assert!(seconds(&told["heard_seconds"]) > 0.0 && seconds(&told["heard_seconds"]) < 60.0, "{told:#}");
    }
    group.members[other].proxy.kill9();
    eventually("alone it leads nobody", || group.watchdog(one).expect("it answers")["leader"].is_null());
    let told = group.watchdog(one).expect("it answers");
    assert_eq!((&told["quorum"], &told["writes"]), (&false.into(), &"stop".into()), "{told:#}");
    if has_pgpool("pcp_watchdog_info without a leader") {
        let theirs = group.stock(one, "pcp_watchdog_info -v").out;
        assert!(theirs.contains("NO LEADER NODE") && theirs.contains("Not_Set"), "{theirs}");
    }
}
