//! Reloads while clients work: validated whole, applied whole, told whole, and no statement fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::raw::{Frame, RawClient};
use crate::common::{self, eventually};
use crate::world::World;

/// Writes the file; who reloads is told of it in the answer.
fn put(world: &World<'_>, text: &str) {
    std::fs::write(world.proxy.folder().join("pgherd.toml"), text).expect("written");
}

#[test]
fn reloads_under_load_fail_no_statement() {
    let Some(world) = World::start("") else { return };
    let database = common::database(world.cluster, "reloaded");
    RawClient::login(world.proxy.port(), &database).query("CREATE TABLE t (n int)");
    world.cluster.wait_replayed(common::SOON).expect("standbys follow");
    let stop = AtomicBool::new(false);
    let (world, database, stop) = (&world, &database, &stop);
    let statements: u64 = std::thread::scope(|scope| {
        let work = |client: u32| {
            let mut session = RawClient::login(world.proxy.port(), database);
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                // New sessions come, too.
                if done % 40 == 39 {
                    session = RawClient::login(world.proxy.port(), database);
                }
                for statement in ["SELECT count(*) FROM t", "BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"] {
                    let frames = session.query(statement);
                    let failed = frames.iter().find_map(Frame::sqlstate);
                    assert_eq!(failed, None, "client {client}: {statement}: {frames:?}");
                    done += 1;
                }
            }
            done
        };
        let workers: Vec<_> = (0..6).map(|client| scope.spawn(move || work(client))).collect();
        let end = Instant::now() + Duration::from_secs(4);
        for round in 0.. {
            let (size, balance) = (5 + round % 3, round % 2 == 0);
            let more = format!(
                "[pool]\nsize = {size}\nidle_timeout = \"{}s\"\n[routing]\nload_balance = {balance}\nconsistency = \"{}\"\n\
                 [failover]\nhold_timeout = \"{}s\"",
                60 + round,
                if balance { "session" } else { "proxy" },
                20 + round % 5,
            );
            put(world, &world.text(&more));
            let told = world.own(&["reload_config"]).expect("reloaded");
            assert!(!told["changes"].as_array().expect("a list").is_empty(), "{told}");
            if Instant::now() > end {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("no statement fails")).sum()
    });
    assert!(statements > 100, "{statements}");
}

#[test]
fn a_bad_file_changes_nothing_and_what_waits_is_told() {
    let Some(world) = World::start("") else { return };
    let balanced = || {
        let told = world.own(&["pool_status"]).expect("told");
        let all = told["settings"].as_array().expect("a list").clone();
        all.iter().find(|one| one["name"] == "routing.load_balance").expect("it is listed")["value"].clone()
    };
    // One good change beside a bad one, of each kind: a value, a file that is missing, a file that is wrong.
    let missing = "[auth]\nhba_file = \"nowhere.conf\"";
    std::fs::write(world.folder.path().join("bad.conf"), "no colon\n").expect("written");
    let bad = world.folder.path().join("bad.conf").display().to_string();
    let good = world.text("[routing]\nload_balance = false");
    for (text, why) in [
        (world.text("[routing]\nload_balance = false\n[pool]\nsize = -1"), "size"),
        (good.replace("[auth]\nhba_file = \"hba.conf\"", missing), "nowhere.conf"),
        (good.replace(&format!("{}/pcp.conf", world.folder.path().display()), &bad), "bad.conf"),
    ] {
        put(&world, &text);
        let ran = world.own(&["reload_config"]).expect_err("refused");
        assert!(ran.code == Some(1) && ran.err.contains(why), "{why}: {ran:?}");
        assert_eq!(balanced(), "true", "{why}");
    }
    let log = world.proxy.log();
    assert_eq!(log.matches("not_reloaded").count(), 3, "{log}");
    let port = format!("port = {}", world.proxy.port());
    put(&world, &good.replacen(&port, "port = 1", 1));
    let told = world.own(&["reload_config"]).expect("reloaded");
    assert!(told["text"].as_str().expect("a text").contains("after a new start only: listen.port"), "{told}");
    assert_eq!(balanced(), "false");
}

/// `pgherd reload`, which needs no administration port.
fn reload(world: &World<'_>, more: &[&str]) -> crate::world::Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.arg("reload").arg("--config").arg(world.proxy.folder().join("pgherd.toml")).args(more);
    crate::world::ran(&mut command)
}

#[test]
fn pgherd_reload_says_what_came_of_it() {
    let Some(world) = World::start("") else { return };
    let good = world.text("[routing]\nload_balance = false\n[pool]\nsize = 7");
    put(&world, &good.replacen("threads = 2", "threads = 3", 1));
    let ran = reload(&world, &[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines: Vec<_> = ran.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines[0],
        "reloaded: 2 changed (pool.size, routing.load_balance); after a new start only: listen.threads"
    );
    for line in [
        "listen.threads 2 3 after a new start",
        "pool.size 20 7 now",
        "routing.load_balance true false for new sessions",
    ] {
        assert!(lines.iter().any(|one| one == line), "{line}: {lines:?}");
    }
    // What waits is told until it waits no more.
    let waits = "reloaded: nothing has changed; after a new start only: listen.threads";
    let ran = reload(&world, &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((&told["result"], &told["text"]), (&"reloaded".into(), &waits.into()), "{ran:?}");
    // What only the process finds out: a file that the configuration names.
    let bad = crate::world::write(&world.folder, "bad.conf", "no colon\n").display().to_string();
    put(
        &world,
        &good.replace(&format!("{}/pcp.conf", world.folder.path().display()), &bad).replace("size = 7", "size = 8"),
    );
    let ran = reload(&world, &[]);
    assert!(ran.code == Some(1) && ran.out.is_empty() && ran.err.contains("bad.conf"), "{ran:?}");
    let log = world.proxy.log();
    assert!(
        log.contains(
            "pool.size: 20 -> 7, routing.load_balance: true -> false); after a new start only: listen.threads: 2 -> 3"
        ),
        "{log}"
    );
    assert!(log.contains("not_reloaded") && !log.contains("7 -> 8"), "{log}");
}

#[test]
fn administrators_and_the_level_of_the_log_change_with_a_reload() {
    let Some(world) = World::start("") else { return };
    // The digest of "other".
    let file = world.folder.path().join("pcp.conf");
    std::fs::write(&file, format!("{}:795f3202b17cb6bc3d4b771d8c6c9eaf\n", crate::world::USER)).expect("written");
    put(&world, &world.text("[log]\nlevel = \"debug\""));
    world.own(&["reload_config"]).expect("the old password holds until now");
    assert_eq!(world.own(&["node_info"]).expect_err("the old password").code, Some(1));
    crate::world::write(&world.folder, "pcppass", "*:*:*:other\n");
    world.own(&["node_info"]).expect("the new one");
    world.own(&["detach_node", "2"]).expect("detached");
    eventually("the log has more in it", || world.proxy.log().contains(" DEBUG "));
    world.own(&["attach_node", "2"]).expect("attached");
}
