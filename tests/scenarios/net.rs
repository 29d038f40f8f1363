//! Hosts of our own: network namespaces on one bridge, with links that can be cut. Owner: [`crate::world::World`]. Touches no address
//! outside. A namespace lives as long as a small process in it, which reads from a pipe that we hold: it goes however we end.
#![allow(dead_code, unreachable_pub, reason = "shared by the modules of one test binary")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use pgherd::app::demo::programs;

/// How long `ip` may take on a busy machine.
const STEP: Duration = Duration::from_secs(20);
/// Set in the process that lives in a user namespace of its own.
const INSIDE: &str = "PGHERD_SCENARIO_INSIDE";

/// A namespace without a link yet.
struct Namespace {
    holder: Child,
    /// Closing it ends the namespace.
    _lifeline: ChildStdin,
}

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"]).process_group(0);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare starts");
        let lifeline = holder.stdin.take().expect("a pipe");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut said).expect("it speaks");
        assert_eq!(said, "ready\n", "no network namespace");
        Self { holder, _lifeline: lifeline }
    }

    fn place(&self) -> Place {
        Place(format!("/proc/{}/ns/net", self.holder.id()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        programs::kill_group(&mut self.holder);
    }
}

/// Where threads can go to.
#[derive(Debug, Clone)]
pub struct Place(String);

impl Place {
    /// Moves the calling thread, and what it starts from now on, for ever.
    pub fn enter(&self) {
        let file = File::open(&self.0).expect("the namespace lives");
        setns(file, CloneFlags::CLONE_NEWNET).expect("a thread may change its namespace");
    }

    /// Does something there, on a thread of its own.
    pub fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let there = || {
            self.enter();
            work()
        };
        std::thread::scope(|scope| scope.spawn(there).join().unwrap_or_else(|panic| resume_unwind(panic)))
    }

    fn ip(&self, arguments: &str) {
        self.inside(|| {
            let mut command = Command::new("ip");
            command.args(arguments.split_whitespace());
            let done = programs::run(&mut command, &[], STEP).expect("ip ends");
            assert!(done.status.success(), "ip {arguments}: {}", done.complaint());
        });
    }
}

/// See the head of the file.
pub struct Net {
    hosts: Vec<(&'static str, Namespace)>,
    bridge: Namespace,
}

impl Net {
    /// Makes hosts with these names and addresses, all on one bridge.
    pub fn new(hosts: &[(&'static str, &str)]) -> Self {
        let bridge = Namespace::new();
        bridge.place().ip("link add lan type bridge");
        bridge.place().ip("link set lan up");
        let mut net = Self { hosts: Vec::new(), bridge };
        for (name, address) in hosts {
            let host = Namespace::new();
            let pid = host.holder.id();
            net.bridge.place().ip(&format!("link add {name} type veth peer name lan0 netns {pid}"));
            net.bridge.place().ip(&format!("link set {name} master lan up"));
            host.place().ip(&format!("addr add {address}/24 dev lan0"));
            host.place().ip("link set lan0 up");
            net.hosts.push((name, host));
        }
        net
    }

    /// A second network (`hba`, …) of hosts that are there: on each an interface of that name with this address.
    pub fn also(&self, lan: &str, hosts: &[(&str, &str)]) {
        self.bridge.place().ip(&format!("link add {lan} type bridge"));
        self.bridge.place().ip(&format!("link set {lan} up"));
        for (name, address) in hosts {
            let pid = self.hosts.iter().find(|(known, _)| known == name).expect("it is there").1.holder.id();
            self.bridge.place().ip(&format!("link add {name}-{lan} type veth peer name {lan} netns {pid}"));
            self.bridge.place().ip(&format!("link set {name}-{lan} master {lan} up"));
            self.host(name).ip(&format!("addr add {address}/24 dev {lan}"));
            self.host(name).ip(&format!("link set {lan} up"));
        }
    }

    /// Cuts a host off from such a network, or ends that.
    pub fn cut_also(&self, lan: &str, name: &str, cut: bool) {
        let master = if cut { "nomaster".to_owned() } else { format!("master {lan}") };
        self.bridge.place().ip(&format!("link set {name}-{lan} {master}"));
    }

    /// The host with this name.
    pub fn host(&self, name: &str) -> Place {
        let found = self.hosts.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no host {name}")).1.place()
    }

    /// Cuts a host off: packets vanish, and nobody is told.
    pub fn cut(&self, name: &str) {
        self.bridge.place().ip(&format!("link set {name} nomaster"));
    }

    /// Pulls a host's plug: its own side sees the link go.
    pub fn unplug(&self, name: &str) {
        self.bridge.place().ip(&format!("link set {name} down"));
    }

    /// Ends what [`Net::cut`] or [`Net::unplug`] did.
    pub fn mend(&self, name: &str) {
        self.bridge.place().ip(&format!("link set {name} master lan up"));
    }

    /// Two hosts, each by name and address, do not hear each other any more, everybody else does: what they send goes to a hardware address
    /// that nobody has, so that neither is told.
    pub fn part(&self, one: (&str, &str), other: (&str, &str)) {
        for ((name, _), (_, far)) in [(one, other), (other, one)] {
            self.host(name).ip(&format!("neigh replace {far} lladdr 02:00:00:00:00:ff dev lan0 nud permanent"));
        }
    }

    /// Ends what [`Net::part`] did.
    pub fn join(&self, one: (&str, &str), other: (&str, &str)) {
        for ((name, _), (_, far)) in [(one, other), (other, one)] {
            self.host(name).ip(&format!("neigh del {far} dev lan0"));
        }
    }
}

/// What this process lacks to make hosts; `Ok(false)` if the calling test has run in a user namespace of its own instead.
pub fn allowed() -> Result<bool, String> {
    let works = |command: &mut Command| {
        programs::run(command, &[], STEP)
            .map_err(|error| error.to_string())
            .and_then(|done| if done.status.success() { Ok(()) } else { Err(done.complaint().trim().to_owned()) })
    };
    works(Command::new("ip").arg("-V")).map_err(|why| format!("no ip (iproute2): {why}"))?;
    let tried = works(Command::new("unshare").args(["--net", "ip", "link", "add", "lan", "type", "bridge"]));
    if tried.is_ok() || std::env::var_os(INSIDE).is_some() {
        return tried.map(|()| true);
    }
    let own = ["--user", "--map-current-user", "--keep-caps", "--net"];
    works(Command::new("unshare").args(own).args(["ip", "link", "add", "lan", "type", "bridge"]))
        .map_err(|why| format!("neither root nor a user namespace may make network namespaces: {why}"))?;
    let thread = std::thread::current();
    let test = thread.name().expect("a test's thread has its name");
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new("unshare");
    command.args(own).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(program);
    let status = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").status().expect("it runs");
    assert!(status.success(), "{test} has failed in its user namespace");
    Ok(false)
}
