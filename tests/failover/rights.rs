//! The least rights that a failover needs (HA H11), and `check`, which names what is missing (H2).

use std::process::Command;

use crate::herd::Herd;

const ROLE: &str = "CREATE ROLE herder LOGIN IN ROLE pg_monitor";

/// What `pgherd check` says.
fn check(herd: &Herd) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    let config = herd.folder.path().join("pgherd.toml");
    let output = command.args(["check", "--json", "--config"]).arg(config).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn h11_the_rights_that_check_asks_for_are_enough_for_a_failover() {
    let Some(herd) = Herd::start_as("herder", ROLE, "promote = \"builtin\"", &[]) else { return };
    // Each statement that it names is given until it names none.
    let mut given = Vec::new();
    for _ in 0..10 {
        let said = check(&herd);
        let Some((_, missing)) = said.split_once("missing for a failover: ") else { break };
        let statement = missing.split([';', '"']).next().unwrap_or_default().to_owned();
        assert!(!given.contains(&statement), "asked for again: {statement}");
        herd.server(0).psql("postgres", &statement).expect("given");
        herd.cluster.wait_replayed(crate::common::SOON).expect("standbys follow");
        given.push(statement);
    }
    println!("{given:#?}");
    assert!(given.len() == 4, "{given:?}\n{}", check(&herd));
    let (row, _) = herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    herd.write_again(row + 1);
    let primary = herd.primary().expect("there is one");
    assert_ne!(primary, 0);
    herd.follow(&[3 - primary], primary);
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
