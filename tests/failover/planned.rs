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
    let old = moved(herd, to);
    behind(herd, old, to);
}

/// Moves the role to `to`; from whom?
fn moved(herd: &Herd, to: u16) -> u16 {
    let from = herd.primary().expect("there is one");
    let epoch = herd.epoch();
    let begun = Instant::now();
    herd.running().order(Order::SwitchOver(Some(NodeId(to)))).expect("switched");
    println!("switch-over from {from} to {to} took {:?}", begun.elapsed());
    assert_eq!((herd.primary(), herd.epoch()), (Some(to), epoch + 1));
    eventually("writes are open", || herd.writes() == Writes::Open);
    from
}

/// What the demote_command's owner does next: start it as a standby. It knows whom to follow.
fn behind(herd: &Herd, old: u16, to: u16) {
    let old = herd.server(old);
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

/// Node 1 streams from node 0 by the slot `mine`.
fn slotted(herd: &Herd) {
    ask(herd, 0, "SELECT pg_create_physical_replication_slot('mine', true)");
    ask(herd, 1, "ALTER SYSTEM SET primary_slot_name = 'mine'");
    ask(herd, 1, "SELECT pg_reload_conf()");
    eventually("it is used", || active(herd, 0));
}

fn ask(herd: &Herd, id: u16, sql: &str) -> String {
    herd.server(id).psql("postgres", sql).expect("it answers").trim().to_owned()
}

/// Does somebody stream by the slot?
fn active(herd: &Herd, id: u16) -> bool {
    ask(herd, id, "SELECT active FROM pg_replication_slots WHERE slot_name = 'mine'") == "t"
}

#[test]
fn h11_a_former_primary_finds_its_slot_at_the_new_one() {
    let Some(herd) = Herd::start(DEMOTE, &[]) else { return };
    means(&herd);
    slotted(&herd);
    switch(&herd, 1);
    // It has kept the name, and node 2 has never heard it.
    let begun = Instant::now();
    switch(&herd, 2);
    println!("it is back {:?} behind the order", begun.elapsed());
    eventually("it is used there, too", || active(&herd, 2));
}

#[test]
fn h11_a_slot_that_has_lost_what_it_kept_is_made_anew() {
    let Some(herd) = Herd::start(DEMOTE, &[]) else { return };
    means(&herd);
    slotted(&herd);
    // Left there by somebody, used by nobody.
    ask(&herd, 2, "SELECT pg_create_physical_replication_slot('mine', true)");
    ask(&herd, 2, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    ask(&herd, 2, "SELECT pg_reload_conf()");
    eventually("it is lost", || {
        for (id, sql) in [(0, "SELECT pg_logical_emit_message(true, '', '')"), (0, "SELECT pg_switch_wal()")] {
            ask(&herd, id, sql);
        }
        for id in [0, 2] {
            ask(&herd, id, "CHECKPOINT");
        }
        ask(&herd, 2, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'mine'") == "lost"
    });
    // A slot that is dropped takes it along.
    let mark = herd.server(2).data().join("pg_replslot/mine/mark");
    std::fs::write(&mark, "").expect("written");
    let old = moved(&herd, 2);
    eventually("it is used", || active(&herd, 2));
    behind(&herd, old, 2);
    assert!(!mark.exists(), "the lost one was kept");
    eventually("the former primary keeps nothing for it", || {
        ask(&herd, 0, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'mine'") == "0"
    });
}

#[test]
fn h12_a_standby_whose_settings_hold_a_password_does_not_become_the_model_of_the_old_primary() {
    let Some(herd) = Herd::start(DEMOTE, &[]) else { return };
    means(&herd);
    let own = ask(&herd, 1, "SHOW primary_conninfo").replace('\'', "''");
    ask(&herd, 1, &format!("ALTER SYSTEM SET primary_conninfo = '{own} password=quite-secret'"));
    ask(&herd, 1, "SELECT pg_reload_conf()");
    herd.wait_status(1, Status::Up);
    let why = herd.running().order(Order::SwitchOver(Some(NodeId(1)))).expect_err("it would be logged");
    assert!(why.contains("passfile") && !why.contains("quite-secret"), "{why}");
    eventually("writes are open", || herd.writes() == Writes::Open);
    assert_eq!(herd.primary(), Some(0));
    herd.write_again(1);
    let log = std::fs::read_to_string(herd.server(0).log()).expect("its log");
    assert!(!log.contains("quite-secret"), "the old primary has been told");
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
    assert_eq!(ask(&herd, 0, "SELECT count(*) FROM t WHERE n IN (60, 61)"), "2");
}
