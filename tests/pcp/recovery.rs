//! Online recovery on real servers (SCENARIOS S10, S12, S13): by our sample hooks and by pgpool-II's extension, asked for with its own program and
//! with ours; hooks that fail or hang, a failover in the middle, two at a time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::programs;
use serde_json::Value;

use crate::common::raw::{Frame, RawClient};
use crate::common::sshd::Sshd;
use crate::common::{self, eventually};
use crate::world::{Ran, World, has_pgpool, stock};

const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/hooks");
const LINE: &str = "%d %h %p %D %H %r";

/// A cluster of one's own whose servers can be rewound.
fn cluster(name: &str) -> Option<Cluster> {
    let mut settings = ["wal_log_hints", "full_page_writes"].map(|name| (name.to_owned(), "on".to_owned())).to_vec();
    // Where the extension finds what stops a server.
    let programs = programs::Programs::find().map(|programs| programs.path("pg_ctl").display().to_string());
    settings.extend(programs.map(|path| ("pgpool.pg_ctl".to_owned(), path)));
    match Cluster::start(&Options { settings, ..Options::default() }) {
        Ok(cluster) => {
            cluster.primary().psql("postgres", "CREATE TABLE t (n int PRIMARY KEY)").expect("a table");
            cluster.wait_replayed(common::SOON).expect("standbys follow");
            Some(cluster)
        }
        Err(Error::NoPostgres) => {
            common::skip(name, "no PostgreSQL programs of version 13 or later");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The lines for a hook.
fn with(command: &str) -> String {
    format!(
        "[failover]\npromote = \"builtin\"\nauto_failback = false\n[recovery]\ncommand = \"{command}\"\ntimeout = \"60s\"\ncopy_timeout = \"60s\""
    )
}

fn reconfigure(world: &World<'_>, more: &str) {
    std::fs::write(world.proxy.folder().join("pgherd.toml"), world.text(more)).expect("written");
    world.own(&["reload_config"]).expect("reloaded");
}

/// What pgherd says of a node.
fn told(world: &World<'_>, node: usize, key: &str) -> String {
    let told = world.own(&["node_info"]).expect("told");
    told["nodes"][node][key].as_str().unwrap_or_default().to_owned()
}

fn events(world: &World<'_>, name: &str) -> Vec<String> {
    let told = world.own(&["events", "--most", "1000"]).expect("told");
    let all = told["events"].as_array().expect("events");
    let why = |event: &Value| event["why"].as_str().expect("a text").to_owned();
    all.iter().filter(|event| event["event"] == name).map(why).collect()
}

/// Nothing is left in a server's data folder.
fn empty(data: &Path) {
    for entry in std::fs::read_dir(data).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.expect("removed");
    }
}

/// A server has the same rows as the primary, and streams from it.
fn follows(world: &World<'_>, node: usize, primary: usize) {
    let servers = world.cluster.servers();
    let sql = "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    let port = servers[primary].port().to_string();
    eventually("it streams from the primary", || {
        servers[node].psql("postgres", sql).is_ok_and(|said| said.trim() == port)
    });
    let rows = "SELECT count(*) || ' ' || coalesce(sum(n), 0) FROM t";
    eventually("it has the primary's rows", || {
        servers[node].psql("postgres", rows).ok() == servers[primary].psql("postgres", rows).ok()
    });
    assert_eq!(told(world, node, "status"), "up");
}

/// Writes and reads by one session as long as `meanwhile` takes; whatever fails.
fn beside<T>(world: &World<'_>, next: &AtomicU32, meanwhile: impl FnOnce() -> T) -> (T, Vec<String>) {
    let (stop, port) = (AtomicBool::new(false), world.proxy.port());
    std::thread::scope(|scope| {
        let works = scope.spawn(|| {
            let mut session = RawClient::login(port, "postgres");
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let row = next.fetch_add(1, Ordering::Relaxed);
                for sql in [format!("INSERT INTO t VALUES ({row})"), "SELECT count(*) FROM t".to_owned()] {
                    failed.extend(session.query(&sql).iter().find_map(Frame::sqlstate));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            failed
        });
        let done = meanwhile();
        stop.store(true, Ordering::Relaxed);
        (done, works.join().expect("a session"))
    })
}

#[test]
fn s10_s12_a_dropped_standby_is_copied_and_an_old_primary_is_rewound() {
    let Some(cluster) = cluster("recovery by a hook") else { return };
    let world = World::on(&cluster, &with(&format!("{HOOKS}/recover.sh {LINE}")));
    let (servers, next) = (cluster.servers(), AtomicU32::new(1));
    servers[1].stop().expect("stopped");
    empty(servers[1].data());
    eventually("it is missed", || told(&world, 1, "status") != "up");
    let (done, failed) = beside(&world, &next, || world.own(&["recovery_node", "1"]));
    let done = done.expect("recovered");
    assert_eq!(failed, [""; 0], "no statement notices");
    assert!(done["text"].as_str().is_some_and(|text| text.contains("streams from the primary")), "{done}");
    follows(&world, 1, 0);
    assert!(events(&world, "recovery_copied")[0].contains("copied "), "{:?}", events(&world, "recovery_copied"));
    // The primary is killed, and comes back with a row that nobody else has.
    servers[0].kill9().expect("killed");
    eventually("another one leads", || {
        !["0", ""].contains(&world.own(&["overview"]).expect("told")["primary"].to_string().as_str())
    });
    let new =
        usize::try_from(world.own(&["overview"]).expect("told")["primary"].as_u64().expect("one")).expect("a node");
    servers[0].start().expect("starts as a primary");
    servers[0].psql("postgres", "INSERT INTO t VALUES (-1)").expect("its own");
    eventually("it is not used", || told(&world, 0, "status") != "up");
    let (done, failed) =
        beside(&world, &next, || world.own_command(&["recovery_node", "-n", "0"]).output().expect("ran"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(failed, [""; 0], "no statement notices");
    follows(&world, 0, new);
    assert!(events(&world, "recovery_copied")[1].contains("rewound "), "{:?}", events(&world, "recovery_copied"));
    assert_eq!(servers[0].psql("postgres", "SELECT count(*) FROM t WHERE n < 0").expect("a read"), "0");
}

#[test]
fn hooks_that_fail_or_hang_end_and_leave_the_node_out() {
    let Some(cluster) = cluster("hooks of a recovery") else { return };
    let world = World::on(&cluster, &with("false"));
    let refused = |node: &str| world.own_text(&["recovery_node", node]);
    assert!(refused("1").err.contains("alive"), "{:?}", refused("1"));
    assert!(refused("0").err.contains("is the primary"), "{:?}", refused("0"));
    cluster.standby(0).stop().expect("stopped");
    eventually("it is missed", || told(&world, 1, "status") != "up");
    let failed = refused("1");
    assert!(failed.code == Some(1) && failed.err.contains("exit status: 1"), "{failed:?}");
    assert_eq!(events(&world, "detached").len(), 1, "it stays out");
    // One that hangs, with a child: both end with it.
    let mark = format!("98{}", world.pcp.port());
    reconfigure(
        &world,
        &with(&format!("sh -c 'sleep {mark} & sleep {mark}'"))
            .replace("copy_timeout = \"60s\"", "copy_timeout = \"2s\""),
    );
    let begun = Instant::now();
    let failed = refused("1");
    assert!(failed.err.contains("copy_timeout") || failed.err.contains("killed after"), "{failed:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let sleeping =
        || programs::run(Command::new("pgrep").args(["-f", &format!("sleep {mark}")]), &[], common::SOON).expect("ran");
    eventually("nothing is left of it", || sleeping().status.code() == Some(1));
    // A second one beside it; a failover in the middle.
    reconfigure(&world, &with(&format!("sleep {mark}")));
    let mut first = world.own_command(&["recovery_node", "1"]);
    let first = first.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    eventually("it copies", || {
        world.own(&["overview"]).expect("told")["recovery"].as_str().is_some_and(|text| text.contains("the copy"))
    });
    let second = refused("1");
    assert!(second.err.contains("a recovery of node 1 is under way"), "{second:?}");
    cluster.primary().kill9().expect("killed");
    let ended = first.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains("primary no more"), "{said}");
    eventually("nothing is left of it", || sleeping().status.code() == Some(1));
    // What was given up is simply asked for again.
    reconfigure(&world, &with(&format!("{HOOKS}/recover.sh {LINE}")));
    world.own(&["recovery_node", "1"]).expect("recovered");
    follows(&world, 1, 2);
    assert_eq!(events(&world, "recovery_failed").len(), 3);
}

/// The sample scripts for the extension, in a primary's data folder.
fn install(cluster: &Cluster, server: usize) {
    for name in ["recovery_1st_stage", "pgpool_remote_start", "reach.sh", "on-node.sh", "hooks.conf"] {
        let place = cluster.servers()[server].data().join(name);
        std::fs::copy(Path::new(HOOKS).join(name), &place).expect("copied");
        cluster.owner().take(&place).expect("its owner's");
    }
}

#[test]
fn pgpools_own_program_recovers_by_its_own_extension() {
    if !has_pgpool("recovery by the extension") {
        return;
    }
    let Some(cluster) = cluster("recovery by the extension") else { return };
    let here = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pgpool_recovery'";
    if cluster.primary().psql("postgres", here).expect("told") == "0" {
        return common::skip("recovery by the extension", "Debian's postgresql-15-pgpool2 is missing");
    }
    let text = "[recovery]\nfirst_stage_command = \"recovery_1st_stage\"\ntimeout = \"60s\"\ncopy_timeout = \"3s\"";
    let world = World::on(&cluster, text);
    let asks = || world.stock("pcp_recovery_node -n 1");
    cluster.standby(0).stop().expect("stopped");
    empty(cluster.standby(0).data());
    eventually("it is missed", || told(&world, 1, "status") != "up");
    assert!(asks().err.contains("CREATE EXTENSION pgpool_recovery"), "{:?}", asks());
    cluster.primary().psql("postgres", "CREATE EXTENSION pgpool_recovery").expect("installed");
    assert!(asks().err.contains("pgpool_recovery failed"), "there is no script yet: {:?}", asks());
    // One that hangs is given up, and as long as it runs nobody else begins.
    let script = cluster.primary().data().join("recovery_1st_stage");
    install(&cluster, 0);
    std::fs::write(&script, "#!/bin/sh\nsleep 8\nexit 1\n").expect("written");
    let late = asks();
    assert!(late.err.contains("may still run on node 0"), "{late:?}");
    let locked = asks();
    assert!(locked.err.contains("another recovery of node 1 is under way on node 0"), "{locked:?}");
    install(&cluster, 0);
    reconfigure(&world, &text.replace("copy_timeout = \"3s\"", "copy_timeout = \"60s\""));
    let done = Ran { code: Some(0), out: "pcp_recovery_node -- Command Successful".to_owned(), err: String::new() };
    let mut last = asks();
    eventually("the lock goes with the script", || {
        let locked = last.err.contains("another recovery");
        if locked {
            last = asks();
        }
        !locked
    });
    assert_eq!(last, done);
    follows(&world, 1, 0);
    let again = stock("pcp_recovery_node -n 1", world.pcp.port(), &world.passfile());
    assert!(again.err.contains("alive"), "{again:?}");
    // HA H12: it stops a primary, too; the one that was stopped comes back by a recovery.
    install(&cluster, 2);
    let moved = world.stock("pcp_promote_node -n 2 -s");
    assert_eq!((moved.code, moved.err.as_str()), (Some(0), ""), "{moved:?}");
    eventually("the old primary has ended", || !cluster.primary().is_running());
    assert_eq!(world.stock("pcp_recovery_node -n 0"), done);
    follows(&world, 0, 2);
}

#[test]
fn the_hook_works_over_ssh() {
    let Some(sshd) = Sshd::installed() else {
        return common::skip("recovery over ssh", "it takes root and Debian's openssh-server");
    };
    let Some(cluster) = cluster("recovery over ssh") else { return };
    let (place, port) = (cluster.folder().join("ssh"), PortLock::any().expect("a port"));
    let daemon = Sshd::start(&sshd, &place, &format!("127.0.0.1:{}", port.port()), |command| {
        command.spawn().expect("it starts")
    });
    // A copy of the hooks with settings of their own; no name for this host that they would know.
    for name in ["recover.sh", "reach.sh", "on-node.sh"] {
        std::fs::copy(Path::new(HOOKS).join(name), place.join(name)).expect("copied");
    }
    let options = format!("-p {} {}", port.port(), daemon.options());
    let settings = std::fs::read_to_string(Path::new(HOOKS).join("hooks.conf")).expect("read");
    std::fs::write(
        place.join("hooks.conf"),
        format!("{settings}\nSSH_USER=root\nSSH_OPTIONS=\"{options}\"\nSLOT=pgherd_%d\n"),
    )
    .expect("written");
    let local = std::fs::read_to_string(place.join("reach.sh")).expect("read").replace("127.*", "none");
    std::fs::write(place.join("reach.sh"), local).expect("written");
    let standby = cluster.standby(0);
    standby.stop().expect("stopped");
    let mut command = Command::new(place.join("recover.sh"));
    let (own, other) = (standby.port().to_string(), cluster.primary().port().to_string());
    command
        .args(["1", "127.0.0.1", &own])
        .arg(standby.data())
        .args(["127.0.0.1", &other])
        .env("PGHERD_APPLICATION_NAME", "standby1");
    let done = programs::run(&mut command, &[], Duration::from_secs(60)).expect("it ends");
    assert!(done.status.success(), "{}{}", done.text(), done.complaint());
    let sql = "SELECT application_name || ' ' || (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'pgherd_1' AND active) \
               FROM pg_stat_replication WHERE application_name = 'standby1'";
    eventually("it streams by its slot", || {
        cluster.primary().psql("postgres", sql).is_ok_and(|said| said.trim() == "standby1 1")
    });
}
