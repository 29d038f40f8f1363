//! Switch-over (HA H12, SCENARIOS S13).

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use pgherd::cluster::{NodeId, Status, Writes};
use pgherd::failover::engine::Order;

use crate::common::eventually;
use crate::common::raw::{Frame, RawClient, query};
use crate::herd::Herd;

const DEMOTE: &str = "promote = \"never\"\ndemote_command = \"./demote.sh '%D'\"";

/// A `demote_command` that works.
fn means(herd: &Herd) {
    let script = herd.folder.path().join("demote.sh");
    let text = "#!/bin/sh\nkill -INT $(head -1 \"$1/postmaster.pid\") || exit 1\nwhile [ -e \"$1/postmaster.pid\" ]; do sleep 0.05; done\n";
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("executable");
}

/// Moves the role to `to`, and the old primary behind it.
fn switch(herd: &Herd, to: u16) {
    let from = herd.primary().expect("there is one");
    let epoch = herd.epoch();
    let begun = Instant::now();
    herd.running().order(Order::SwitchOver(Some(NodeId(to)))).expect("switched");
    println!("switch-over from {from} to {to} took {:?}", begun.elapsed());
    assert_eq!((herd.primary(), herd.epoch()), (Some(to), epoch + 1));
    eventually("writes are open", || herd.writes() == Writes::Open);
    // What the demote_command's owner does next: start it as a standby. It knows whom to follow.
    let old = herd.server(from);
    let signal = old.data().join("standby.signal");
    std::fs::write(&signal, "").expect("written");
    herd.cluster.owner().take(&signal).expect("its own");
    eventually("its process has ended", || !old.is_running());
    old.start().expect("starts as a standby");
    let others: Vec<u16> = (0..3).filter(|id| *id != to).collect();
    herd.follow(&others, to);
    for id in others {
        herd.wait_status(id, Status::Up);
    }
}

#[test]
fn s13_roles_are_switched_and_switched_back_and_nothing_is_rebuilt() {
    let Some(herd) = Herd::start(DEMOTE, &[]) else { return };
    means(&herd);
    let (row, _) = herd.write_again(1);
    switch(&herd, 2);
    let (row, gap) = herd.write_again(row + 1);
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    // It never was a standby, and follows under its own name, not under the candidate's.
    let name = herd.server(0).name();
    let named = format!("SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}'");
    assert_eq!(herd.server(2).psql("postgres", &named).expect("it answers").trim(), "1", "{name}");
    switch(&herd, 0);
    let (row, _) = herd.write_again(row + 1);
    let rows = herd.try_sql("SELECT count(*) FROM t").expect("a read");
    assert_eq!(rows, [row.to_string()], "every row is there");
    for id in 0..3 {
        eventually("all have all rows", || {
            herd.server(id).psql("postgres", "SELECT count(*) FROM t").is_ok_and(|said| said.trim() == row.to_string())
        });
    }
}

#[test]
fn h11_a_former_primary_finds_its_slot_at_the_new_one() {
    let Some(herd) = Herd::start(DEMOTE, &[]) else { return };
    means(&herd);
    let ask = |id: u16, sql: &str| herd.server(id).psql("postgres", sql).expect("it answers");
    ask(0, "SELECT pg_create_physical_replication_slot('mine', true)");
    ask(1, "ALTER SYSTEM SET primary_slot_name = 'mine'");
    ask(1, "SELECT pg_reload_conf()");
    let active =
        |id: u16| herd.server(id).psql("postgres", "SELECT active FROM pg_replication_slots WHERE slot_name = 'mine'");
    eventually("it is used", || active(0).is_ok_and(|said| said.trim() == "t"));
    switch(&herd, 1);
    // It has kept the name, and node 2 has never heard it.
    let begun = Instant::now();
    switch(&herd, 2);
    println!("it is back {:?} behind the order", begun.elapsed());
    eventually("it is used there, too", || active(2).is_ok_and(|said| said.trim() == "t"));
}

#[test]
fn h12_without_a_means_to_stop_it_or_with_one_that_fails_the_primary_stays() {
    let Some(herd) = Herd::start("promote = \"builtin\"\ndemote_command = \"false\"", &[]) else { return };
    herd.write_again(1);
    let epoch = herd.epoch();
    let why = herd.running().order(Order::SwitchOver(None)).expect_err("it cannot be stopped");
    assert!(why.contains("stays the primary"), "{why}");
    eventually("writes are open", || herd.writes() == Writes::Open);
    herd.write_again(2);
    assert_eq!((herd.primary(), herd.epoch()), (Some(0), epoch));
    drop(herd);
    let Some(herd) = Herd::start("promote = \"builtin\"", &[]) else { return };
    let why = herd.running().order(Order::SwitchOver(None)).expect_err("no means");
    assert!(why.contains("demote_command"), "{why}");
}

#[test]
fn h12_sessions_that_only_keep_a_connection_do_not_stand_in_the_way() {
    // Sessions of template1 keep their connection for good.
    let failover = format!("{DEMOTE}\n[[pool.rule]]\ndatabase = \"template1\"\nmode = \"session\"");
    let Some(herd) = Herd::start(&failover, &[]) else { return };
    means(&herd);
    herd.write_again(1);
    let mut plain = herd.client();
    let mut kept = RawClient::login(herd.port(), "template1");
    kept.query("SET application_name = 'kept'");
    kept.query("SELECT pg_current_wal_lsn()");
    let mut states: Vec<RawClient> = ["LISTEN news", "CREATE TEMPORARY TABLE mine (n int)"]
        .map(|sql| {
            let mut client = herd.client();
            assert!(!client.query(sql).iter().any(|frame| frame.tag == b'E'));
            client
        })
        .into();
    // A transaction that ends while the switch-over waits for it loses nothing.
    let mut last = herd.client();
    last.query("BEGIN");
    last.query("INSERT INTO t VALUES (50)");
    std::thread::scope(|scope| {
        let ends = scope.spawn(|| {
            eventually("writes wait", || matches!(herd.writes(), Writes::Held { .. }));
            std::thread::sleep(Duration::from_millis(300));
            last.query("COMMIT")
        });
        switch(&herd, 1);
        let frames = ends.join().expect("it ends");
        assert!(!frames.iter().any(|frame| frame.tag == b'E'), "{frames:?}");
    });
    for (client, state) in states.iter_mut().zip(["LISTEN", "temporary objects"]) {
        let said = client.frame().expect("a farewell");
        assert_eq!((said.tag, said.sqlstate().as_deref()), (b'E', Some("57P01")), "{said:?}");
        let text = said.field(b'M').expect("a text");
        assert!(text.contains("moved to another server") && text.contains(state), "{text}");
    }
    assert_eq!(kept.values("SHOW application_name"), ["kept"]);
    assert_eq!(kept.values("SELECT pg_is_in_recovery()"), ["f"]);
    assert_eq!(plain.values("SELECT n FROM t WHERE n = 50 FOR UPDATE"), ["50"]);
}

#[test]
fn h12_a_transaction_that_does_not_end_keeps_its_primary_and_the_switch_over_is_given_up() {
    let Some(herd) = Herd::start(&format!("{DEMOTE}\nhold_timeout = \"6s\""), &[]) else { return };
    means(&herd);
    herd.write_again(1);
    let (mut listens, mut long, mut held) = (herd.client(), herd.client(), herd.client());
    listens.query("LISTEN news");
    held.query("SELECT 1");
    long.query("BEGIN");
    long.query("INSERT INTO t VALUES (60)");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            eventually("writes wait", || matches!(herd.writes(), Writes::Held { .. }));
            held.send(&query("INSERT INTO t VALUES (61)")).expect("sent");
            held.until_ready().expect("an answer")
        });
        let why = herd.running().order(Order::SwitchOver(None)).expect_err("a transaction is open");
        assert!(why.contains("1 of the transactions on node 0"), "{why}");
        let frames = waits.join().expect("it ends");
        assert_eq!(frames.iter().find_map(Frame::sqlstate), None, "{frames:?}");
    });
    let gap = begun.elapsed();
    assert!(gap < Duration::from_secs(6), "what waited for the switch-over must not be refused for it: {gap:?}");
    assert_eq!(herd.primary(), Some(0));
    let frames = long.query("COMMIT");
    assert!(!frames.iter().any(|frame| frame.tag == b'E'), "{frames:?}");
    listens.query("NOTIFY news");
    assert_eq!(herd.try_sql("SELECT count(*) FROM t WHERE n IN (60, 61)").expect("a read"), ["2"]);
}
