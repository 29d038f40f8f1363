//! `pgherd pcp`: what pgpool-II has not, and how it ends.

use std::time::{Duration, Instant};

use crate::common::raw::{Frame, RawClient, query};
use crate::common::{self, eventually};
use crate::world::World;

fn field(told: &serde_json::Value, name: &str) -> u64 {
    told[name].as_u64().unwrap_or_else(|| panic!("no {name} in {told}"))
}

#[test]
fn a_pause_holds_new_statements_reads_and_writes_and_lets_transactions_end() {
    let Some(world) = World::start("") else { return };
    let database = common::database(world.cluster, "paused");
    let mut open = RawClient::login(world.proxy.port(), &database);
    open.query("CREATE TABLE t (n int)");
    open.query("BEGIN; INSERT INTO t VALUES (1)");
    // Who will wait.
    let mut waiting: Vec<_> = (0..2).map(|_| RawClient::login(world.proxy.port(), &database)).collect();
    let told = world.own(&["pause", "--for", "60"]).expect("paused");
    assert_eq!(field(&told, "at_work"), 1, "{told}");
    waiting[0].send(&query("SELECT 2")).expect("sent");
    waiting[1].send(&query("INSERT INTO t VALUES (2)")).expect("sent");
    eventually("both wait", || field(&world.own(&["overview"]).expect("told"), "held") == 2);
    let told = world.own(&["overview"]).expect("told");
    assert!((1..=60).contains(&field(&told, "paused_seconds")), "{told}");
    assert_eq!(told["waiting"].as_array().expect("a list").len(), 2, "{told}");
    let shown = world.own_text(&["overview"]).out;
    assert!(shown.contains("PAUSED") && shown.contains("waiting clients"), "{shown}");
    // The transaction goes on and ends; then nobody is at work.
    for statement in ["INSERT INTO t VALUES (3)", "COMMIT"] {
        assert!(open.query(statement).iter().all(|frame| frame.tag != b'E'), "{statement}");
    }
    let told = world.own(&["pause", "--wait"]).expect("nobody is at work");
    assert_eq!(field(&told, "at_work"), 0, "{told}");
    let begun = Instant::now();
    let told = world.own(&["resume"]).expect("resumed");
    assert_eq!(field(&told, "held"), 2, "{told}");
    for client in &mut waiting {
        let frames = client.until_ready().expect("an answer");
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(world.own(&["resume"]).expect_err("not paused").code, Some(1));
    // It ends by itself, too.
    world.own(&["pause", "--for", "1"]).expect("paused");
    assert!(open.query("SELECT 1").iter().all(|frame| frame.tag != b'E'));
    let count = |name: &str| {
        let told = world.own(&["events"]).expect("told");
        told["events"].as_array().expect("a list").iter().filter(|one| one["event"] == name).count()
    };
    eventually("all of it is in the history", || (count("paused"), count("resumed")) == (3, 2));
}

#[test]
fn a_pause_holds_who_always_has_a_statement_under_way() {
    let Some(world) = World::start("") else { return };
    let database = common::database(world.cluster, "ahead");
    let mut client = RawClient::login(world.proxy.port(), &database);
    let mut other = RawClient::login(world.proxy.port(), &database);
    client.query("CREATE TABLE t (n int)");
    let count = || world.cluster.primary().psql(&database, "SELECT count(*) FROM t").expect("counted");
    client.send(&query("INSERT INTO t SELECT 1 FROM (SELECT pg_sleep(1)) s")).expect("sent");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'INSERT%'";
    eventually("it runs", || world.cluster.primary().psql(&database, running).expect("counted") == "1");
    assert_eq!(field(&world.own(&["pause", "--for", "60"]).expect("paused"), "at_work"), 1);
    // Ahead of the answer to the first.
    client.send(&query("INSERT INTO t VALUES (2)")).expect("sent");
    client.send(&query("INSERT INTO t VALUES (3)")).expect("sent");
    assert!(client.until_ready().expect("an answer").iter().all(|frame| frame.tag != b'E'));
    eventually("the second waits", || field(&world.own(&["overview"]).expect("told"), "held") == 1);
    assert_eq!(count(), "1");
    // Within a transaction they go on.
    world.own(&["resume"]).expect("resumed");
    for _ in 0..2 {
        assert!(client.until_ready().expect("an answer").iter().all(|frame| frame.tag != b'E'));
    }
    other.query("BEGIN; INSERT INTO t VALUES (4)");
    world.own(&["pause", "--for", "60"]).expect("paused");
    other
        .send(&[query("INSERT INTO t SELECT 5 FROM (SELECT pg_sleep(0.2)) s"), query("COMMIT")].concat())
        .expect("sent");
    for _ in 0..2 {
        assert!(other.until_ready().expect("an answer").iter().all(|frame| frame.tag != b'E'));
    }
    world.own(&["resume"]).expect("resumed");
    assert_eq!(count(), "5");
}

#[test]
fn a_statement_that_waits_too_long_in_a_pause_is_told_why() {
    let Some(world) = World::start("[failover]\nhold_timeout = \"1s\"\nmax_held = 1") else { return };
    let mut clients: Vec<_> = (0..2).map(|_| RawClient::login(world.proxy.port(), "template1")).collect();
    let told = world.own(&["pause", "--for", "60"]).expect("paused");
    assert!(told["text"].as_str().expect("a text").contains("failover.hold_timeout"), "{told}");
    clients[0].send(&query("SELECT 1")).expect("sent");
    eventually("one waits", || field(&world.own(&["overview"]).expect("told"), "held") == 1);
    // No more than max_held wait.
    let refused = clients[1].query("SELECT 1");
    let text = refused.iter().find(|frame| frame.tag == b'E').map(|frame| format!("{frame:?}")).expect("refused");
    assert!(text.contains("57P03") && text.contains("paused") && text.contains("max_held"), "{text}");
    let late = clients[0].until_ready().expect("an answer");
    let text = late.iter().find(|frame| frame.tag == b'E').map(|frame| format!("{frame:?}")).expect("refused");
    assert!(text.contains("57P03") && text.contains("paused"), "{text}");
    world.own(&["resume"]).expect("resumed");
    assert!(clients[0].query("SELECT 1").iter().all(|frame| frame.tag != b'E'));
}

#[test]
fn sessions_are_cancelled_and_ended_by_their_number() {
    let Some(world) = World::start("") else { return };
    let (mut sleeper, other) =
        (RawClient::login(world.proxy.port(), "template1"), RawClient::login(world.proxy.port(), "postgres"));
    sleeper.send(&query("SELECT pg_sleep(60)")).expect("sent");
    let find = || {
        let told = world.own(&["proc_info"]).expect("told");
        let all = told["sessions"].as_array().expect("a list").clone();
        all.into_iter()
            .find(|one| one["database"] == "template1" && one["state"] == "active" && one["server_pid"].is_number())
    };
    eventually("it sleeps", || find().is_some());
    let number = find().expect("it sleeps")["session"].to_string();
    let one = world.own(&["proc_info", "-P", &number]).expect("told");
    assert_eq!(one["sessions"].as_array().map(Vec::len), Some(1));
    world.own(&["cancel", &number]).expect("cancelled");
    let code = sleeper.until_ready().expect("an answer").iter().find_map(Frame::sqlstate);
    assert_eq!(code.as_deref(), Some("57014"));
    world.own(&["end", &number]).expect("ended");
    let farewell = sleeper.frame().expect("a farewell");
    assert_eq!(farewell.sqlstate().as_deref(), Some("57P01"), "{farewell:?}");
    assert!(sleeper.ended());
    for bad in [number.as_str(), "1", "4194304", "2147483647"] {
        eventually("it is gone", || world.own(&["end", bad]).is_err_and(|ran| ran.err.contains("no session")));
    }
    drop(other);
}

#[test]
fn a_pool_is_reset_without_a_failed_statement() {
    let Some(world) = World::start("") else { return };
    let database = common::database(world.cluster, "reset");
    let mut client = RawClient::login(world.proxy.port(), &database);
    let pid = |client: &mut RawClient| crate::common::raw::values(&client.query("SELECT pg_backend_pid()"))[0].clone();
    client.query("BEGIN");
    let before = pid(&mut client);
    let other = world.own(&["reset_pool", "--database", "nobody_uses_this"]).expect("reset");
    assert_eq!(field(&other, "connections"), 0);
    let told = world.own(&["reset_pool", "--database", &database]).expect("reset");
    assert!(field(&told, "connections") >= 1, "{told}");
    assert_eq!(pid(&mut client), before, "a transaction keeps its connection");
    client.query("COMMIT");
    assert_ne!(pid(&mut client), before);
    assert_eq!(world.own(&["reset_pool", "--node", "9"]).expect_err("no such node").code, Some(1));
}

#[test]
fn answers_are_tables_or_json_and_the_status_tells() {
    let Some(world) = World::start("") else { return };
    let _client = RawClient::login(world.proxy.port(), "template1");
    for (command, word) in [
        ("node_info", "REPLICATION"),
        ("health_check_stats", "RETRIES"),
        ("proc_info", "template1"),
        ("pools", "LONGEST"),
        ("pool_status", "listen_addresses"),
        ("events", "started"),
        ("reload_config", "reloaded: nothing has changed"),
        ("overview", "primary 0"),
    ] {
        let ran = world.own_text(&[command]);
        assert!(ran.code == Some(0) && ran.out.contains(word), "{command}: {ran:?}");
        world.own(&[command]).unwrap_or_else(|ran| panic!("{command}: {ran:?}"));
    }
    eventually("a standby's stream is known", || {
        let told = world.own(&["node_info"]).expect("told");
        let upstream = format!("127.0.0.1:{}", world.cluster.primary().port());
        let [primary, standby] = [0, 1].map(|id| ["upstream", "slot"].map(|name| told["nodes"][id][name].as_str()));
        (primary, standby) == ([None, None], [Some(&*upstream), Some("standby1")])
    });
    assert_eq!(world.own_text(&["node_count"]).out, "3");
    assert!(world.own_text(&["proc_count"]).out.parse::<u32>().is_ok_and(|count| count >= 1));
    let watched = world.own_text(&["overview", "--watch", "1", "--times", "2"]);
    assert!(watched.code == Some(0) && watched.out.matches("primary 0").count() == 2, "{watched:?}");
    assert!(!watched.out.contains('\u{1b}'), "no terminal, no escapes");
    for (arguments, code) in [
        (&["node_info", "9"][..], 1),
        (&["watchdog_info"], 1),
        (&["attach_node"], 2),
        (&["no_such"], 2),
        (&["pause", "--for", "0"], 1),
    ] {
        let ran = world.own_text(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
    }
    // A wrong password, and nobody there.
    let wrong = crate::world::write(&world.folder, "wrong", "*:*:*:wrong\n");
    let mut command = world.own_command(&["node_info"]);
    let ran = crate::world::ran(command.env("PCPPASSFILE", &wrong));
    assert!(ran.code == Some(1) && ran.err.contains("does not match"), "{ran:?}");
    let ran = crate::world::ran(&mut world.own_at("/nonexistent", &["node_info"]));
    assert!(ran.code == Some(1) && ran.err.contains("cannot connect"), "{ran:?}");
    // The Unix socket.
    let ran = world.own_local(&["node_count"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "3"), "{ran:?}");
}

#[test]
fn stop_ends_the_process_and_the_client_hears_of_it() {
    let Some(mut world) = World::start("") else { return };
    let ran = world.own_text(&["stop_pgpool", "--mode", "fast"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "stopping"), "{ran:?}");
    assert_eq!(world.proxy.ended(), Some(0));
}
