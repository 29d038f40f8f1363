//! The least rights that a failover needs (HA H11), and `check`, which names what is missing (H2).

use std::process::Command;

use pgherd::cluster::NodeId;
use pgherd::failover::engine::Order;

use crate::herd::{Herd, script};

const ROLE: &str = "CREATE ROLE herder LOGIN IN ROLE pg_monitor";

/// What `pgherd check` says.
fn check(herd: &Herd) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    let config = herd.folder.path().join("pgherd.toml");
    let output = command.args(["check", "--json", "--config"]).arg(config).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Does it say that all is well?
fn is_well(said: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(said).is_ok_and(|said| said["ok"] == true)
}

/// Gives each right that `check` names until it names none; which these were.
fn given(herd: &Herd) -> Vec<String> {
    let mut given = Vec::new();
    for _ in 0..10 {
        let said = check(herd);
        let Some((_, missing)) = said.split_once("missing for a failover: ") else { break };
        let statement = missing.split([';', '"']).next().unwrap_or_default().to_owned();
        assert!(!given.contains(&statement), "asked for again: {statement}");
        herd.server(0).psql("postgres", &statement).expect("given");
        herd.cluster.wait_replayed(crate::common::SOON).expect("standbys follow");
        given.push(statement);
    }
    println!("{given:#?}");
    assert!(is_well(&check(herd)), "{}", check(herd));
    given
}

/// The primary dies; what was given is enough for another one, which the third follows.
fn survives(herd: &Herd) {
    let (row, _) = herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    herd.write_again(row + 1);
    let primary = herd.primary().expect("there is one");
    assert_ne!(primary, 0);
    herd.follow(&[3 - primary], primary);
}

const REPLICATION: &str = "ALTER ROLE herder REPLICATION";
const RELOAD: &str = "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO herder";
const POINT: &str = "GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO herder";
const PROMOTE: &str = "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO herder";
const CHECKPOINT: &str = "GRANT pg_checkpoint TO herder";

#[test]
fn h11_the_rights_that_check_asks_for_are_enough_for_a_failover() {
    let Some(herd) = Herd::start_as("herder", ROLE, "promote = \"builtin\"", &[]) else { return };
    assert_eq!(given(&herd), [REPLICATION, PROMOTE, RELOAD, POINT]);
    survives(&herd);
}

/// A `failover_command` that promotes as a superuser.
const PROMOTES: &str = "PSQL -X -h $1 -p $2 -U postgres -c 'SELECT pg_promote()' postgres";

#[test]
fn h11_a_failover_by_command_needs_to_ask_standbys_and_to_point_them_elsewhere() {
    let failover = "promote = \"command\"\nfailover_command = \"./failover.sh %H %r\"";
    let Some(herd) = Herd::start_as("herder", ROLE, failover, &[]) else { return };
    script(&herd, "failover.sh", PROMOTES);
    assert_eq!(given(&herd), [REPLICATION, RELOAD, POINT]);
    assert!(check(&herd).contains(&format!("promote_node would lack: {PROMOTE}")), "{}", check(&herd));
    survives(&herd);
}

#[test]
fn h11_with_hooks_for_both_a_failover_needs_to_ask_standbys_alone() {
    let failover = "promote = \"command\"\nfailover_command = \"./failover.sh %H %r\"\n\
        follow_primary_command = \"./follow.sh %h %p %H %r\"";
    let Some(herd) = Herd::start_as("herder", ROLE, failover, &[]) else { return };
    script(&herd, "failover.sh", PROMOTES);
    script(
        &herd,
        "follow.sh",
        "for sql in \"ALTER SYSTEM SET primary_conninfo = 'host=$3 port=$4 user=postgres'\" \"SELECT pg_reload_conf()\"; do\n\
         PSQL -X -h $1 -p $2 -U postgres -c \"$sql\" postgres || exit 1; done",
    );
    // The slots are those of the old primary.
    for id in [1, 2] {
        herd.server(id).psql("postgres", "ALTER SYSTEM SET primary_slot_name = ''").expect("set");
        herd.server(id).reload().expect("reloaded");
    }
    assert_eq!(given(&herd), [REPLICATION]);
    survives(&herd);
}

#[test]
fn h11_a_switch_over_needs_its_rights_whatever_stops_the_primary() {
    let means = ["demote_command = \"./demote.sh '%D'\"", "[recovery]\nfirst_stage_command = \"recovery_1st_stage\""];
    let all = [REPLICATION, PROMOTE, RELOAD, POINT, CHECKPOINT];
    let failover = format!("promote = \"never\"\n{}", means[0]);
    let Some(mut herd) = Herd::start_as("herder", ROLE, &failover, &[]) else { return };
    let stops =
        "kill -INT $(head -1 \"$1/postmaster.pid\") || exit 1\nwhile [ -e \"$1/postmaster.pid\" ]; do sleep 0.05; done";
    script(&herd, "demote.sh", stops);
    for statement in all {
        assert!(check(&herd).contains(statement), "{statement}: {}", check(&herd));
    }
    herd.reload(|text| text.replace(means[0], means[1]));
    assert_eq!(given(&herd), all);
    // Nothing is done without an operator, and what that one may need is told.
    let taken = PROMOTE.replace("GRANT", "REVOKE").replace(" TO ", " FROM ");
    herd.server(0).psql("postgres", &taken).expect("taken");
    herd.cluster.wait_replayed(crate::common::SOON).expect("standbys follow");
    herd.reload(|text| text.replace(means[0], ""));
    let said = check(&herd);
    assert!(is_well(&said) && said.contains(&format!("promote_node would lack: {PROMOTE}")), "{said}");
    // With all of them the role is moved.
    herd.server(0).psql("postgres", PROMOTE).expect("given");
    herd.cluster.wait_replayed(crate::common::SOON).expect("standbys follow");
    herd.reload(str::to_owned);
    assert!(is_well(&check(&herd)), "{}", check(&herd));
    herd.running().order(Order::SwitchOver(Some(NodeId(1)))).expect("moved");
    assert_eq!(herd.primary(), Some(1));
    herd.follow(&[2], 1);
}

#[test]
fn h06_check_finds_that_pg_hba_does_not_let_the_role_in_for_replication() {
    let failover = "promote = \"command\"\nfailover_command = \"./failover.sh %H %r\"";
    let Some(herd) = Herd::start(failover, &[]) else { return };
    script(&herd, "failover.sh", PROMOTES);
    herd.server(0).psql("postgres", "CREATE ROLE herder LOGIN REPLICATION SUPERUSER").expect("made");
    herd.cluster.wait_replayed(crate::common::SOON).expect("standbys follow");
    let own = herd.folder.path().join("pgherd.toml");
    let text = std::fs::read_to_string(&own).expect("read");
    std::fs::write(&own, text.replace("user = \"postgres\"", "user = \"herder\"")).expect("written");
    let said = check(&herd);
    assert!(is_well(&said), "{said}");
    // The one standby has no line for it; the other one has one that refuses.
    for (id, other) in [(1, ""), (2, "host replication herder 127.0.0.1/32 reject\n")] {
        let file = herd.server(id).data().join("pg_hba.conf");
        let lines =
            "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication postgres 127.0.0.1/32 trust\n";
        std::fs::write(&file, format!("{other}{lines}")).expect("written");
        herd.server(id).reload().expect("reloaded");
    }
    let line = "a line in pg_hba.conf: host replication herder 127.0.0.1/32";
    crate::common::eventually("both are told", || check(&herd).matches(line).count() == 2);
    assert!(check(&herd).contains("missing for a failover: "), "{}", check(&herd));
    for id in [1, 2] {
        let file = herd.server(id).data().join("pg_hba.conf");
        std::fs::write(&file, "host all,replication all 127.0.0.1/32 trust\n").expect("written");
        herd.server(id).reload().expect("reloaded");
    }
    crate::common::eventually("all is well", || is_well(&check(&herd)));
}

#[test]
fn h02_check_finds_a_standby_that_streams_from_a_name_that_nobody_knows() {
    let Some(herd) = Herd::start("promote = \"builtin\"", &[]) else { return };
    assert!(is_well(&check(&herd)), "{}", check(&herd));
    let (port, name) = (herd.server(0).port(), herd.server(1).name());
    let change = format!(
        "ALTER SYSTEM SET primary_conninfo = 'host=localhost port={port} user=postgres application_name={name}'"
    );
    herd.server(1).psql("postgres", &change).expect("set");
    herd.server(1).reload().expect("reloaded");
    crate::common::eventually("it is told", || check(&herd).contains("it streams from localhost"));
    assert!(check(&herd).contains("replication_host = \\\"localhost\\\""), "{}", check(&herd));
    // By that name it is known, and so are the others by theirs.
    let own = herd.folder.path().join("pgherd.toml");
    let text = std::fs::read_to_string(&own).expect("read");
    let more = format!("port = {port}\nreplication_host = \"localhost\"\n");
    std::fs::write(&own, text.replace(&format!("port = {port}\n"), &more)).expect("written");
    assert!(is_well(&check(&herd)), "{}", check(&herd));
}

#[test]
fn h09_check_refuses_two_synchronous_standbys_of_one_name() {
    let Some(herd) = Herd::start("promote = \"builtin\"", &[]) else { return };
    let own = herd.folder.path().join("pgherd.toml");
    let text = std::fs::read_to_string(&own).expect("read");
    let same = |id: u16| (format!("id = {id}\n"), format!("id = {id}\napplication_name = \"walreceiver\"\n"));
    let text = [1, 2].map(same).iter().fold(text, |text, (from, to)| text.replace(from, to));
    std::fs::write(&own, text).expect("written");
    assert!(is_well(&check(&herd)), "nobody counts: {}", check(&herd));
    herd.server(0).psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'").expect("set");
    herd.server(0).reload().expect("reloaded");
    crate::common::eventually("it is told", || check(&herd).contains("nodes 1 and 2 have the same application_name"));
}

#[test]
fn h05_a_password_in_primary_conninfo_is_refused_before_it_is_too_late() {
    let Some(herd) = Herd::start("promote = \"builtin\"", &[]) else { return };
    let change = "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 password=secret'";
    herd.server(1).psql("postgres", change).expect("set");
    herd.server(1).reload().expect("reloaded");
    crate::common::eventually("check sees it", || check(&herd).contains("passfile"));
}

#[test]
fn h02_check_refuses_standbys_that_trust_a_silent_primary_for_long() {
    let Some(herd) = Herd::start("promote = \"builtin\"", &[("wal_receiver_timeout", "1min")]) else { return };
    assert!(check(&herd).contains("wal_receiver_timeout"), "{}", check(&herd));
}
