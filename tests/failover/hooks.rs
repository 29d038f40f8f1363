//! Hooks: those that cannot be run, or hang (SCENARIOS S32), one that promotes (S33), one that fences (HA H8), the sample that demotes (H12).

use std::process::Command;
use std::time::Duration;

use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::app::demo::programs;
use pgherd::app::demo::server::Server;
use pgherd::cluster::{NodeId, Status, Writes};
use pgherd::failover::engine::Order;

use crate::common::{self, eventually};
use crate::herd::{Herd, script};

fn log(herd: &Herd) -> String {
    std::fs::read_to_string(herd.folder.path().join("log")).unwrap_or_default()
}

#[test]
fn s32_a_hook_that_cannot_be_run_is_told_and_an_operator_promotes() {
    let Some(herd) = Herd::start("promote = \"command\"\nfailover_command = \"./missing.sh %d %m\"", &[]) else {
        return;
    };
    herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    eventually("writes wait", || matches!(herd.writes(), Writes::Held { .. }));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((herd.primary(), herd.node(0).status), (Some(0), Status::Down), "nobody was promoted");
    herd.unmarked(1);
    // A standby whose probe is late on a busy machine is not promoted: the operator tries again.
    eventually("it is promoted", || {
        let done = herd.running().order(Order::Promote(NodeId(1)));
        done.inspect_err(|why| println!("refused: {why}")).is_ok()
    });
    assert_eq!(herd.primary(), Some(1));
    herd.write_again(2);
}

#[test]
fn s33_failover_command_promotes_once_and_follow_primary_command_is_run_for_the_other() {
    let failover = "promote = \"command\"\n\
        failover_command = \"./failover.sh %d %h %p '%D' %m %H %M %P %r '%R' %N %S\"\n\
        follow_primary_command = \"./follow.sh %d %m %P\"\n";
    let Some(herd) = Herd::start(failover, &[]) else { return };
    script(
        &herd,
        "failover.sh",
        "echo \"failover $PGHERD_FAILOVER_ID $*\" >>LOG\nexec PSQL -X -h $6 -p $9 -U postgres -c 'SELECT pg_promote()' postgres",
    );
    script(&herd, "follow.sh", "echo \"follow $*\" >>LOG");
    herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    let (_, gap) = herd.write_again(2);
    println!("by a hook: writes again after {gap:?}");
    let primary = herd.primary().expect("there is one");
    let other = 3 - primary;
    eventually("the hook for the other standby has run", || log(&herd).contains("follow"));
    std::thread::sleep(Duration::from_secs(2));
    let said = log(&herd);
    let lines: Vec<&str> = said.lines().collect();
    let (old, new) = (herd.server(0), herd.server(primary));
    let expected = format!(
        "failover 1 0 127.0.0.1 {} {} {primary} 127.0.0.1 0 0 {} {} 127.0.0.1 {}",
        old.port(),
        old.data().display(),
        new.port(),
        new.data().display(),
        old.port()
    );
    assert_eq!(lines, [expected, format!("follow {other} {primary} 0")], "each once");
    herd.unmarked(other);
}

#[test]
fn h08_a_fence_that_fails_stops_the_failover_unless_it_need_not_work() {
    for (rule, promoted) in [("required", false), ("best_effort", true)] {
        let failover = format!("promote = \"builtin\"\nfence = \"{rule}\"\nfence_command = \"./fence.sh %d\"");
        let Some(herd) = Herd::start(&failover, &[]) else { return };
        script(&herd, "fence.sh", "echo \"fence $*\" >>LOG; exit 3");
        herd.write_again(1);
        herd.server(0).kill9().expect("killed");
        eventually("the fence was tried", || log(&herd).contains("fence 0"));
        if promoted {
            herd.write_again(2);
            assert_ne!(herd.primary(), Some(0));
        } else {
            std::thread::sleep(Duration::from_secs(2));
            assert_eq!(herd.primary(), Some(0), "promoted beside a primary that may live");
        }
    }
}

#[test]
fn h08_a_fence_that_hangs_is_killed_and_nobody_is_promoted_before_one_has_worked() {
    let failover = "promote = \"builtin\"\nfence_command = \"./fence.sh %d\"\ncommand_timeout = \"2s\"";
    let Some(herd) = Herd::start(failover, &[]) else { return };
    script(&herd, "fence.sh", "echo \"$1 $PGHERD_FAILOVER_ID\" >>LOG; [ -e LOG.works ] || sleep 1000");
    herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    let waits = || herd.told("failover_waits");
    eventually("it is told", || waits().contains("fence_command failed") && waits().contains("killed after"));
    eventually("it is tried again", || log(&herd).lines().count() == 2);
    assert_eq!(herd.primary(), Some(0), "promoted beside a primary that may live");
    std::fs::write(herd.folder.path().join("log.works"), "").expect("written");
    herd.write_again(2);
    let primary = herd.primary().expect("there is one");
    assert_ne!(primary, 0);
    herd.follow(&[3 - primary], primary);
    let said = log(&herd);
    let mut attempts: Vec<&str> = said.lines().collect();
    attempts.dedup();
    assert_eq!(attempts.len(), said.lines().count(), "once in each attempt: {attempts:?}");
}

#[test]
fn s32_a_failover_command_that_hangs_is_killed_and_its_candidate_may_be_promoted_by_hand_and_nobody_else() {
    let failover = "promote = \"command\"\nfailover_command = \"./failover.sh %m\"\ncommand_timeout = \"2s\"";
    let Some(herd) = Herd::start(failover, &[]) else { return };
    script(&herd, "failover.sh", "echo $1 >>LOG; sleep 1000 & echo $! >LOG.child; wait");
    herd.write_again(1);
    herd.server(0).kill9().expect("killed");
    let failed = || herd.told("failover_command_failed");
    eventually("it is told", || failed().contains("killed after") && failed().contains("promote a standby by hand"));
    let child = std::fs::read_to_string(herd.folder.path().join("log.child")).expect("it has a child");
    eventually("its child has ended", || !std::path::Path::new(&format!("/proc/{}", child.trim())).exists());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(herd.primary(), Some(0), "nobody was promoted");
    let candidate: u16 = log(&herd).trim().parse().expect("it was run once, for one");
    let other = 3 - candidate;
    let why = herd.running().order(Order::Promote(NodeId(other))).expect_err("two could be promoted");
    assert!(why.contains(&format!("failover_command was told to promote node {candidate}")), "{why}");
    eventually("it is promoted", || {
        let done = herd.running().order(Order::Promote(NodeId(candidate)));
        done.inspect_err(|why| println!("refused: {why}")).is_ok()
    });
    herd.write_again(2);
    assert_eq!(herd.primary(), Some(candidate));
    herd.follow(&[other], candidate);
}

/// The sample `demote.sh` about a server of this host: whether it says that it has worked, and what it says.
fn demote(server: &Server, seconds: u32) -> (bool, String) {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/hooks/demote.sh"));
    command.args(["0", "127.0.0.1", &server.port().to_string()]).arg(server.data());
    command.env("PGHERD_TIMEOUT", seconds.to_string());
    let done = programs::run(&mut command, &[], Duration::from_secs(60)).expect("it ends");
    (done.status.success(), format!("{}{}", done.text(), done.complaint()))
}

#[test]
fn h12_the_sample_that_demotes_stops_in_order_or_says_that_it_did_not() {
    if common::cluster().is_none() {
        return;
    }
    let cluster = Cluster::start(&Options { standbys: 0, ..Options::default() }).expect("a server");
    let server = cluster.primary();
    let (well, said) = demote(server, 30);
    assert!(well && said.contains("stopped"), "{said}");
    eventually("it has ended", || !server.is_running());
    assert!(demote(server, 30).0, "it has stopped in order already");
    server.start().expect("starts");
    server.kill9().expect("killed");
    let (well, said) = demote(server, 30);
    assert!(!well && said.contains("did not stop in order: in production"), "{said}");
    drop(cluster);
    // One that is not done in time: what it has not archived goes on being archived.
    let settings = [("archive_mode", "on"), ("archive_command", "sleep 20")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = Cluster::start(&Options { standbys: 0, settings, ..Options::default() }).expect("a server");
    let (well, said) = demote(cluster.primary(), 2);
    assert!(!well && said.contains("has not stopped yet"), "{said}");
    assert!(cluster.primary().is_running(), "stopped by other means");
}

/// All of pgpool-II's placeholders.
const ALL: &str = "%d %h %p '%D' %m %H %r '%R' %M %P %N %S 100%%";

/// What these stand for.
fn filled(herd: &Herd, node: u16, new: u16, old: u16) -> String {
    let port = |id: u16| herd.server(id).port();
    let data = |id: u16| herd.server(id).data().display().to_string();
    let (own, other) = (format!("{node} 127.0.0.1 {} {}", port(node), data(node)), format!("{old} {old} 127.0.0.1"));
    format!("{own} {new} 127.0.0.1 {} {} {other} {} 100%", port(new), data(new), port(old))
}

/// Waits for the line that a hook has logged for a node, behind `from` lines.
fn expect(herd: &Herd, from: usize, line: &str) {
    let deadline = std::time::Instant::now() + crate::common::SOON;
    while !log(herd).lines().skip(from).any(|said| said == line) {
        assert!(std::time::Instant::now() < deadline, "{line:?} is not among\n{}", log(herd));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_hook_is_run_with_all_placeholders_and_what_comes_of_it_is_told() {
    let all = ["failover", "follow_primary", "failback", "fence", "demote"];
    let lines = all.map(|name| format!("{name}_command = \"./note.sh {name} {ALL}\"\n"));
    let settings =
        format!("promote = \"builtin\"\nauto_failback = false\ncommand_timeout = \"3s\"\n{}", lines.concat());
    let Some(herd) = Herd::start(&settings, &[]) else { return };
    // Told of the death of node 2 it hangs, with a child; `failback` fails; `demote` stops its server.
    script(
        &herd,
        "note.sh",
        "echo \"$*\" >>LOG; echo \"$1 $2 of $PGHERD_HOOK $PGHERD_FAILOVER_ID $PGHERD_EPOCH $PGHERD_TIMEOUT\"\n\
         case \"$1 $2\" in\n\
         'failover 2') sleep 1000 & echo $! >LOG.child; wait;;\n\
         'failback 2') echo 'no luck' >&2; exit 3;;\n\
         demote*) kill -INT $(head -1 \"$5/postmaster.pid\") || exit 1\n\
           while [ -e \"$5/postmaster.pid\" ]; do sleep 0.05; done;;\n\
         esac",
    );
    herd.write_again(1);
    // A standby dies.
    herd.server(2).kill9().expect("killed");
    expect(&herd, 0, &format!("failover {}", filled(&herd, 2, 0, 0)));
    eventually("it is killed", || herd.told("hook_failed").contains("killed after"));
    let child = std::fs::read_to_string(herd.folder.path().join("log.child")).expect("it has a child");
    let ended = || !std::path::Path::new(&format!("/proc/{}", child.trim())).exists();
    eventually("its child has ended with it", ended);
    assert!(herd.told("hook_failed").contains("failover 2 of Failover 1 1 2"), "{}", herd.told("hook_failed"));
    // It comes back; the hook fails, and the server is used all the same.
    herd.server(2).start().expect("starts");
    herd.wait_status(2, Status::Detached);
    herd.running().order(Order::Attach(NodeId(2))).expect("attached");
    herd.wait_status(2, Status::Up);
    expect(&herd, 1, &format!("failback {}", filled(&herd, 2, 0, 0)));
    let failed = |text: &str| herd.told("hook_failed").contains(text);
    eventually("its failure is told", || failed("exit status: 3") && failed("no luck"));
    // The role is moved.
    herd.running().order(Order::SwitchOver(Some(NodeId(1)))).expect("moved");
    expect(&herd, 2, &format!("demote {}", filled(&herd, 0, 1, 0)));
    expect(&herd, 3, &format!("follow_primary {}", filled(&herd, 0, 1, 0)));
    herd.follow(&[2], 1);
    expect(&herd, 4, &format!("failover {}", filled(&herd, 0, 1, 0)));
    let done = || herd.told("hook_done");
    eventually("what it has said is told", || done().contains("exit status: 0") && done().contains(" of F"));
    // The new primary dies, and must be fenced before another takes its place.
    let signal = herd.server(0).data().join("standby.signal");
    std::fs::write(&signal, "").expect("written");
    herd.cluster.owner().take(&signal).expect("its own");
    herd.server(0).start().expect("starts as a standby");
    herd.follow(&[0, 2], 1);
    herd.wait_status(0, Status::Up);
    let before = log(&herd).lines().count();
    herd.server(1).kill9().expect("killed");
    herd.write_again(2);
    let primary = herd.primary().expect("there is one");
    expect(&herd, before, &format!("fence {}", filled(&herd, 1, primary, 1)));
    expect(&herd, before, &format!("failover {}", filled(&herd, 1, primary, 1)));
    let other = 2 - primary;
    expect(&herd, before, &format!("follow_primary {}", filled(&herd, other, primary, 1)));
    let said = log(&herd);
    let again: Vec<&str> = said.lines().skip(before).collect();
    assert!(again[0].starts_with("fence"), "fenced before anything else: {again:?}");
    assert_eq!(again.len(), 3, "each once: {again:?}");
}
