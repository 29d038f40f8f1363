//! A pair and a witness as processes of this host, in front of no server: a leader is elected, and another one while the witness is there (HA H16);
//! what an operator and a service manager do with a witness.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::folder::{Folder, Owner};
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::programs;

use crate::common::{SOON, eventually};

const NAMES: [&str; 3] = ["a", "b", "witness"];

/// One member; killed when dropped.
struct Member(Option<Child>);

impl Member {
    fn start(folder: &Path, of: usize, environment: &[(&str, String)]) -> Self {
        let log = std::fs::File::create(folder.join(format!("{}.log", NAMES[of]))).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command
            .arg(if of == 2 { "witness" } else { "run" })
            .arg("--config")
            .arg(folder.join(format!("{}.toml", NAMES[of])));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).spawn();
        Self(Some(child.expect("it starts")))
    }

    fn signal(&self, signal: Signal) {
        let id = self.0.as_ref().expect("it runs").id();
        kill(Pid::from_raw(i32::try_from(id).expect("a pid")), signal).expect("it runs");
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.ended()
    }

    fn ended(&mut self) -> Option<i32> {
        let mut child = self.0.take().expect("it runs");
        programs::wait(&mut child, SOON).expect("our child").and_then(|status| status.code())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            programs::kill_group(&mut child);
        }
    }
}

/// Port 0 of each member is for partners, 1 for heartbeats, 2 for clients, 3 for administrators.
fn text(of: usize, ports: &[Vec<PortLock>]) -> String {
    let port = |of: usize, which: usize| ports[of][which].port();
    let mut text = format!(
        "pid_file = \"{0}.pid\"\n[listen]\naddresses = [\"127.0.0.1\"]\nport = {1}\nunix_socket_directories = []\n\
         [pcp]\naddresses = [\"127.0.0.1\"]\nport = {2}\nusers_file = \"pcp.conf\"\n\
         [[node]]\nid = 0\nhost = \"127.0.0.1\"\nport = 1\n[watchdog]\nname = \"{0}\"\naddress = \"127.0.0.1\"\nport = {3}\n\
         heartbeat_port = {4}\narbiter = \"witness\"\nlease = \"2s\"\nkey_file = \"watchdog.key\"\nstate_directory = \"state-{0}\"\n",
        NAMES[of],
        port(of, 2),
        port(of, 3),
        port(of, 0),
        port(of, 1)
    );
    for other in (0..3).filter(|other| *other != of) {
        text += &format!(
            "[[watchdog.peer]]\nname = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\nwitness = {}\nheartbeat = [\"127.0.0.1:{}\"]\n",
            NAMES[other],
            port(other, 0),
            other == 2,
            port(other, 1)
        );
    }
    text
}

/// What a proxy says of the states of all.
fn states(folder: &Path, port: u16) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args([
        "pcp",
        "--json",
        "watchdog-info",
        "-h",
        "127.0.0.1",
        "-U",
        "operator",
        "-w",
        "-p",
        &port.to_string(),
    ]);
    let ran = programs::run(command.env("PCPPASSFILE", folder.join("pcppass")), &[], SOON).expect("it ends");
    let told: serde_json::Value = serde_json::from_str(&ran.text()).unwrap_or_default();
    let members = told["members"].as_array().cloned().unwrap_or_default();
    members.iter().map(|member| member["state"].as_str().unwrap_or_default().to_owned()).collect()
}

fn private(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.join(name), own).expect("its own");
}

/// All that the three need; their ports.
fn files(folder: &Path) -> Vec<Vec<PortLock>> {
    let ports: Vec<Vec<PortLock>> =
        (0..3).map(|_| (0..4).map(|_| PortLock::any().expect("a port")).collect()).collect();
    private(folder, "watchdog.key", "a key that these three have\n");
    private(folder, "pcp.conf", "operator:5ebe2294ecd0e0f08eab7690d2a6ee69\n");
    private(folder, "pcppass", "*:*:*:secret\n");
    for (of, name) in NAMES.iter().enumerate() {
        private(folder, &format!("{name}.toml"), &text(of, &ports));
    }
    ports
}

#[test]
fn h16_a_pair_with_a_witness_has_a_leader_as_long_as_two_of_three_are_there() {
    let folder = Folder::new(Owner::unprivileged().expect("an owner")).expect("a folder");
    let folder = folder.path();
    let ports = files(folder);
    let mut members: Vec<Member> = (0..3).map(|of| Member::start(folder, of, &[])).collect();
    let said = |of: usize| states(folder, ports[of][3].port());
    let mut leader = 0;
    eventually("one of them leads", || {
        let all = [said(0), said(1)];
        leader = all[0].iter().position(|state| state == "LEADER").unwrap_or(2);
        leader < 2 && all[0] == all[1] && all[0][2] == "STANDBY"
    });
    let other = 1 - leader;
    assert_eq!(said(leader)[other], "STANDBY");
    members[leader].end(Signal::SIGKILL);
    eventually("the other one leads", || said(other).get(other).is_some_and(|state| state == "LEADER"));
    assert_eq!(members[2].end(Signal::SIGTERM), Some(0), "the witness stops in order");
    eventually("alone it leads no more", || said(other).get(other).is_some_and(|state| state == "STANDBY"));
    let log = std::fs::read_to_string(folder.join(format!("{}.log", NAMES[other]))).expect("a log");
    assert!(log.contains("event=\"quorum_lost\""), "{log}");
    assert_eq!(members[other].end(Signal::SIGINT), Some(0));
}

#[test]
fn a_witness_is_reloaded_and_stopped_where_it_runs_as_a_proxy_is() {
    let folder = Folder::new(Owner::unprivileged().expect("an owner")).expect("a folder");
    let folder = folder.path();
    let _ports = files(folder);
    let manager = UnixDatagram::bind(folder.join("manager")).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("set");
    let next = || {
        let mut buffer = [0; 4096];
        let count = manager.recv(&mut buffer).expect("it says something");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let environment = [
        ("NOTIFY_SOCKET", folder.join("manager").display().to_string()),
        ("WATCHDOG_USEC", Duration::from_secs(3).as_micros().to_string()),
    ];
    let mut witness = Member::start(folder, 2, &environment);
    let ready = "READY=1\nSTATUS=votes, and serves nobody\n";
    assert_eq!(next(), ready);
    for _ in 0..2 {
        assert_eq!(next(), "WATCHDOG=1\n", "a sign of life");
    }
    let awake = || std::iter::repeat_with(next).find(|said| said != "WATCHDOG=1\n").expect("it goes on");
    // By the command line, which tells what came of it.
    let file = folder.join("witness.toml");
    let text = std::fs::read_to_string(&file).expect("it is there");
    let edited = |from: &str, to: &str| {
        assert!(text.contains(from));
        std::fs::write(&file, text.replace(from, to)).expect("written");
    };
    let pgherd = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        programs::run(command.args(words).arg("--config").arg(&file), &[], SOON).expect("it ends")
    };
    edited("lease = \"2s\"", "lease = \"2s\"\npriority = 7");
    let done = pgherd(&["reload"]);
    assert!(done.status.success() && done.text().contains("watchdog.priority"), "{done:?}");
    assert!(awake().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(awake(), ready);
    edited("lease = \"2s\"", "lease = \"2s\"\npriority = 8\nkey_fil = 1");
    let done = pgherd(&["reload"]);
    assert!(!done.status.success() && done.complaint().contains("key_fil"), "{done:?}");
    // By the signal; what the refused file said is not taken.
    edited("lease = \"2s\"", "lease = \"2s\"\npriority = 9");
    witness.signal(Signal::SIGHUP);
    let log = || std::fs::read_to_string(folder.join("witness.log")).expect("a log");
    eventually("reloaded by the signal", || log().contains("watchdog.priority: 7 -> 9"));
    // One at a time.
    let second = Member::start(folder, 2, &[]).ended();
    assert_eq!(second, Some(1), "{}", log());
    let done = pgherd(&["stop", "--mode", "fast"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(witness.ended(), Some(0));
    assert!(std::iter::repeat_with(awake).any(|said| said == "STOPPING=1\n"));
    assert!(!folder.join("witness.pid.sock").exists(), "the socket beside the pid file goes");
}
