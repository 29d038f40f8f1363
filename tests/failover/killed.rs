//! The process that replaces a primary is killed at each of its steps (SCENARIOS S37): the next one undoes it or ends it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgherd::app::demo::ports::PortLock;
use pgherd::cluster::{NodeId, Status};
use pgherd::failover::engine::Order;

use crate::common::{SOON, eventually};
use crate::herd::{Herd, script};

/// The real binary in front of a herd's servers; it tells its jobs. Dropped, it is killed.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// In place of the one that serves in this process; `more` are further sections.
    fn start(herd: &mut Herd, more: &str) -> Self {
        herd.running = None;
        let (config, log) = (herd.folder.path().join("own.toml"), herd.folder.path().join("pgherd.log"));
        let text = std::fs::read_to_string(herd.folder.path().join("pgherd.toml")).expect("a configuration");
        std::fs::write(&config, format!("{text}\n[log]\nlevel = \"debug\"\n{more}")).expect("written");
        let output = File::create(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command.arg("run").arg("--config").arg(config).stdin(Stdio::null()).stderr(output);
        Self { child: command.spawn().expect("it starts"), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// It has looked at all nodes.
    fn is_ready(&self) {
        eventually("it has looked at all nodes", || self.log().matches("event=\"node_up\"").count() == 3);
    }

    /// Kills it as soon as it has come so far.
    fn kill_at(mut self, point: &Point<'_>) {
        let begun = Instant::now();
        while !point.is_reached(&self.log()) {
            assert!(begun.elapsed() < SOON, "{point:?} is never reached:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How far it comes before it is killed.
#[derive(Debug)]
enum Point<'a> {
    /// A line of its log has all of these words: a job begins.
    Job(&'a [&'a str]),
    /// A hook runs, and has made this file.
    Hook(PathBuf),
}

impl Point<'_> {
    fn is_reached(&self, log: &str) -> bool {
        match self {
            Self::Job(words) => log.lines().any(|line| words.iter().all(|word| line.contains(word))),
            Self::Hook(file) => file.exists(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// One primary among the servers that run, every row that was acknowledged is there, and all others follow.
fn is_whole(herd: &Herd, rows: &[u32]) {
    let primary = herd.primary().expect("there is one");
    let leads =
        |id: u16| herd.server(id).psql("postgres", "SELECT pg_is_in_recovery()").is_ok_and(|said| said.trim() == "f");
    let running: Vec<u16> = (0..3).filter(|id| herd.server(*id).is_running()).collect();
    let leaders: Vec<u16> = running.iter().copied().filter(|id| leads(*id)).collect();
    assert_eq!(leaders, [primary], "one primary");
    let others: Vec<u16> = running.into_iter().filter(|id| *id != primary).collect();
    herd.follow(&others, primary);
    let list: Vec<String> = rows.iter().map(u32::to_string).collect();
    let there =
        herd.server(primary).psql("postgres", &format!("SELECT count(*) FROM t WHERE n IN ({})", list.join(", ")));
    assert_eq!(there.expect("it answers").trim(), rows.len().to_string(), "rows {list:?}");
}

/// Runs the real binary, kills the primary, and kills pgherd as soon as a job begins; the rest is another process's.
fn killed_at(words: &[&str]) {
    let Some(mut herd) = Herd::start("promote = \"builtin\"", &[]) else { return };
    killed_in(&mut herd, &Point::Job(words));
}

fn killed_in(herd: &mut Herd, point: &Point<'_>) {
    let (first, _) = herd.write_again(1);
    let process = Process::start(herd, "");
    let (second, _) = herd.write_again(first + 1);
    process.is_ready();
    // Replication is asynchronous: what no standby has yet may be lost.
    let has = |id: u16| herd.server(id).psql("postgres", &format!("SELECT count(*) FROM t WHERE n = {second}"));
    eventually("the standbys have the row", || [1, 2].iter().all(|id| has(*id).is_ok_and(|said| said.trim() == "1")));
    herd.server(0).kill9().expect("killed");
    process.kill_at(point);
    herd.begin_without(&[0]);
    let (third, gap) = herd.write_again(second + 1);
    println!("killed at {point:?}: the next process takes writes after {gap:?}");
    assert_ne!(herd.primary(), Some(0), "{point:?}");
    is_whole(herd, &[first, second, third]);
}

#[test]
fn s37_killed_while_it_recruits() {
    killed_at(&["job=Recruit"]);
}

#[test]
fn s37_killed_while_it_fences() {
    killed_at(&["job=Fence"]);
}

#[test]
fn s37_killed_while_it_promotes() {
    killed_at(&["job=Promote"]);
}

#[test]
fn s37_killed_while_the_others_are_told_to_follow() {
    killed_at(&["job=Follow"]);
}

#[test]
fn s37_killed_while_it_writes_down_whom_it_promotes() {
    killed_at(&["job=Record", "step: Promoting"]);
}

#[test]
fn s37_killed_while_the_old_primary_is_fenced_by_a_hook() {
    let failover = "promote = \"builtin\"\nfence_command = \"./fence.sh\"";
    let Some(mut herd) = Herd::start(failover, &[]) else { return };
    script(&herd, "fence.sh", "echo $PGHERD_FAILOVER_ID >>LOG; sleep 1");
    let point = Point::Hook(herd.folder.path().join("log"));
    killed_in(&mut herd, &point);
    let said = std::fs::read_to_string(herd.folder.path().join("log")).expect("it was run");
    let attempts: Vec<&str> = said.lines().collect();
    assert!(attempts.len() == 2 && attempts[0] != attempts[1], "once in each attempt: {attempts:?}");
    let unknown = herd.told("hook_unknown");
    assert!(unknown.starts_with(&format!("fence_command of attempt {} was", attempts[0])), "{unknown:?}");
}

#[test]
fn s37_killed_while_a_hook_promotes() {
    let failover = "promote = \"command\"\nfailover_command = \"./failover.sh %H %r\"";
    let Some(mut herd) = Herd::start(failover, &[]) else { return };
    let promotes = "PSQL -X -h $1 -p $2 -U postgres -c 'SELECT pg_promote()' postgres >/dev/null";
    script(&herd, "failover.sh", &format!("echo $PGHERD_FAILOVER_ID >>LOG; sleep 1; {promotes}"));
    let point = Point::Hook(herd.folder.path().join("log"));
    killed_in(&mut herd, &point);
    let said = std::fs::read_to_string(herd.folder.path().join("log")).expect("it was run");
    assert_eq!(said.lines().count(), 1, "once: {said}");
    let unknown = herd.told("hook_unknown");
    assert!(unknown.starts_with(&format!("failover_command of attempt {} was", said.trim())), "{unknown:?}");
}

/// Orders a switch-over of the real binary, and kills it as soon as a job begins, or (none) its hook. Whether the old primary was told to stop.
fn killed_while_it_switches(job: &[&str]) -> Option<(Herd, bool)> {
    let failover = "promote = \"never\"\ndemote_command = \"./demote.sh '%D'\"\ncommand_timeout = \"5s\"";
    let mut herd = Herd::start(failover, &[])?;
    let stops = "echo $PGHERD_FAILOVER_ID >>LOG; kill -INT $(head -1 \"$1/postmaster.pid\") || exit 1\n\
        while [ -e \"$1/postmaster.pid\" ]; do sleep 0.05; done";
    script(&herd, "demote.sh", stops);
    let (first, _) = herd.write_again(1);
    let private = |name: &str, text: &str| {
        let path = herd.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its own");
        path
    };
    // The MD5 of "secret".
    private("pcp.conf", "pcpu:5ebe2294ecd0e0f08eab7690d2a6ee69\n");
    let password = private("pcppass", "*:*:*:secret\n");
    let port = PortLock::any().expect("a free port");
    let pcp = format!("[pcp]\nusers_file = \"pcp.conf\"\nport = {}\n", port.port());
    let process = Process::start(&mut herd, &pcp);
    let (second, _) = herd.write_again(first + 1);
    process.is_ready();
    let mut order = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    order.args(["pcp", "switch_over", "1", "-h", "127.0.0.1", "-U", "pcpu", "-w", "-p", &port.port().to_string()]);
    let order = order.env("PCPPASSFILE", password).stdout(Stdio::piped()).stderr(Stdio::piped());
    let order = order.spawn().expect("it starts");
    let ran = herd.folder.path().join("log");
    let point = if job.is_empty() { Point::Hook(ran.clone()) } else { Point::Job(job) };
    process.kill_at(&point);
    let told = order.wait_with_output().expect("it ends");
    println!("{point:?}: {}", String::from_utf8_lossy(&told.stderr));
    // A hook that was begun a moment before has said so by then.
    std::thread::sleep(Duration::from_millis(500));
    let stopped = ran.exists();
    if stopped {
        eventually("the old primary has stopped", || !herd.server(0).is_running());
        herd.begin_without(&[0]);
    } else {
        herd.begin();
    }
    let (third, gap) = herd.write_again(second + 1);
    println!("killed at {point:?}: the next process takes writes after {gap:?}");
    assert_eq!(herd.primary() == Some(0), !stopped, "{point:?}");
    is_whole(&herd, &[first, second, third]);
    Some((herd, stopped))
}

/// Nothing was begun that cannot be taken back: the old primary is the primary, and can be asked for the same again.
fn stays_and_moves_later(job: &[&str]) {
    let Some((herd, stopped)) = killed_while_it_switches(job) else { return };
    if stopped {
        return println!("{job:?}: it had gone further when it was killed");
    }
    eventually("the role is moved", || {
        let moved = herd.running().order(Order::SwitchOver(Some(NodeId(1))));
        moved.inspect_err(|why| println!("refused: {why}")).is_ok()
    });
    assert_eq!(herd.primary(), Some(1));
}

#[test]
fn s37_killed_at_the_checkpoint_of_a_switch_over() {
    stays_and_moves_later(&["job=Checkpoint"]);
}

#[test]
fn s37_killed_while_it_writes_down_that_the_primary_is_stopped() {
    stays_and_moves_later(&["job=Record", "step: Demoting"]);
}

#[test]
fn s37_killed_while_the_old_primary_stops() {
    let Some((herd, stopped)) = killed_while_it_switches(&[]) else { return };
    assert!(stopped, "the hook was begun");
    let unknown = herd.told("hook_unknown");
    assert!(unknown.starts_with("demote_command of attempt 1 was"), "{unknown:?}");
}

#[test]
fn s37_killed_while_the_candidate_catches_up() {
    let Some((_, stopped)) = killed_while_it_switches(&["job=CatchUp"]) else { return };
    assert!(stopped, "the hook has ended");
}

/// A disk that hangs: the file that the journal is written to is a pipe that nobody reads.
#[test]
fn h13_a_disk_that_hangs_delays_what_is_to_be_written_down_and_nothing_else() {
    let Some(herd) = Herd::start("promote = \"builtin\"", &[]) else { return };
    let path = herd.folder.path().join("pgherd.state/failover.json.new");
    // The file is there for a moment while the start is written down.
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU) {
        assert!(Instant::now() < until, "a pipe: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
    herd.running().order(Order::Detach(NodeId(2))).expect("detached");
    herd.wait_status(2, Status::Detached);
    herd.server(1).stop().expect("stopped");
    herd.wait_status(1, Status::Down);
    let (row, _) = herd.write_again(1);
    // Without the journal nobody is promoted: fsync goes before the act.
    herd.server(1).start().expect("starts");
    herd.running().order(Order::Attach(NodeId(1))).expect("attached");
    herd.wait_status(1, Status::Up);
    herd.server(0).kill9().expect("killed");
    std::thread::sleep(Duration::from_secs(4));
    let recovers =
        || herd.server(1).psql("postgres", "SELECT pg_is_in_recovery()").is_ok_and(|said| said.trim() == "t");
    assert!(recovers() && herd.primary() == Some(0), "promoted before that was written down");
    // It goes on: whoever waits to write into the pipe fails, and the next one finds a file.
    let pipe = OpenOptions::new().read(true).write(true).open(&path).expect("a pipe");
    std::fs::remove_file(&path).expect("removed");
    drop(pipe);
    herd.write_again(row + 1);
    assert_eq!(herd.primary(), Some(1));
}
