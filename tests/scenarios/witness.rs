//! A pair and a witness as processes of this host, in front of no server: a leader is elected, and another one while the witness is there (HA H16).

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
    fn start(folder: &Path, of: usize) -> Self {
        let log = std::fs::File::create(folder.join(format!("{}.log", NAMES[of]))).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command
            .arg(if of == 2 { "witness" } else { "run" })
            .arg("--config")
            .arg(folder.join(format!("{}.toml", NAMES[of])));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).spawn();
        Self(Some(child.expect("it starts")))
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        let mut child = self.0.take().expect("it runs");
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("it runs");
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

#[test]
fn h16_a_pair_with_a_witness_has_a_leader_as_long_as_two_of_three_are_there() {
    let folder = Folder::new(Owner::unprivileged().expect("an owner")).expect("a folder");
    let folder = folder.path();
    let ports: Vec<Vec<PortLock>> =
        (0..3).map(|_| (0..4).map(|_| PortLock::any().expect("a port")).collect()).collect();
    let private = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("written");
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.join(name), own).expect("its own");
    };
    private("watchdog.key", "a key that these three have\n");
    private("pcp.conf", "operator:5ebe2294ecd0e0f08eab7690d2a6ee69\n");
    private("pcppass", "*:*:*:secret\n");
    for (of, name) in NAMES.iter().enumerate() {
        private(&format!("{name}.toml"), &text(of, &ports));
    }
    let mut members: Vec<Member> = (0..3).map(|of| Member::start(folder, of)).collect();
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
