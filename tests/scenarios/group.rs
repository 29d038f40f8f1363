//! Members of a watchdog as real processes, each on a host of its own, in front of no server: what can be shown of the address and of leading
//! without any. Owner: one test. Must not contain tests.
#![allow(dead_code, unreachable_pub, reason = "shared by the modules of one test binary")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::MutexGuard;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::folder::{Folder, Owner};
use pgherd::app::demo::programs;

use crate::common::{self, SOON, eventually};
use crate::net::{self, Net, Place};
use crate::watch::Watch;
use crate::world;

/// The address that moves.
pub const VIP: &str = "10.77.3.10";
/// Name and address of each host; the last one is who votes only.
pub const MEMBERS: [(&str, &str); 3] = [("one", "10.77.3.1"), ("two", "10.77.3.2"), ("witness", "10.77.3.3")];

/// See the head of the file. Fields end in this order.
pub struct Group {
    members: Vec<(&'static str, Option<Child>)>,
    pub watch: Watch,
    pub net: Net,
    folder: Folder,
    _turn: MutexGuard<'static, ()>,
}

impl Group {
    /// Hosts with nobody on them yet, an administrator and the group's key; none without the right to make hosts.
    pub fn hosts(hosts: &[(&'static str, &str)], members: &[&'static str], vip: &str) -> Option<Self> {
        match net::allowed() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(why) => {
                common::skip("a group of proxies on hosts of its own", &why);
                return None;
            }
        }
        Some(Self::on((Net::new(hosts), world::turn()), members, vip))
    }

    /// The same on hosts that are there.
    pub fn on((net, turn): (Net, MutexGuard<'static, ()>), members: &[&'static str], vip: &str) -> Self {
        let watch = Watch::start(&net, members, vip);
        let folder = Folder::new(Owner::unprivileged().expect("an owner")).expect("a folder");
        let members = members.iter().map(|name| (*name, None)).collect();
        let group = Self { members, watch, net, folder, _turn: turn };
        group.write("watchdog.key", "a key that all of these have\n", 0o600);
        group.write("pcp.conf", "operator:5ebe2294ecd0e0f08eab7690d2a6ee69\n", 0o600);
        group.write("pcppass", "*:*:*:secret\n", 0o600);
        group
    }

    /// A pair and a witness, on which nobody runs yet.
    pub fn pair() -> Option<Self> {
        let mut hosts = MEMBERS.to_vec();
        hosts.push(("client", "10.77.3.100"));
        Self::hosts(&hosts, &MEMBERS.map(|member| member.0), VIP)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.folder().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its own");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder().join(name)).unwrap_or_default()
    }

    pub fn place(&self, name: &str) -> Place {
        self.net.host(name)
    }

    /// The usual file of a member of the pair, with more lines of `[watchdog]`.
    pub fn configure(&self, name: &str, own: &str) {
        let (_, address) = MEMBERS.iter().find(|member| member.0 == name).expect("it is a member");
        let mut text = format!(
            "pid_file = \"{name}.pid\"\n[listen]\naddresses = [\"0.0.0.0\"]\nunix_socket_directories = []\n\
             [pcp]\nusers_file = \"pcp.conf\"\n[[node]]\nid = 0\nhost = \"127.0.0.1\"\nport = 1\n\
             [watchdog]\nname = \"{name}\"\naddress = \"{address}\"\narbiter = \"witness\"\nlease = \"2s\"\nvirtual_ip = \"{VIP}\"\n\
             key_file = \"watchdog.key\"\nstate_directory = \"state-{name}\"\n{own}\n"
        );
        for (other, host) in MEMBERS.iter().filter(|member| member.0 != name) {
            text += &format!(
                "[[watchdog.peer]]\nname = \"{other}\"\nhost = \"{host}\"\nwitness = {}\n",
                *other == "witness"
            );
        }
        self.write(&format!("{name}.toml"), &text, 0o600);
    }

    /// Starts it with its file, as what (`run`, `run --once`, `witness`); what it says is added to its log.
    pub fn start(&mut self, name: &'static str, duty: &str) {
        self.start_by(name, duty, Command::new(env!("CARGO_BIN_EXE_pgherd")));
    }

    /// As an unprivileged user with these of root's rights at the most, in the words of systemd.
    pub fn start_with_rights(&mut self, name: &'static str, duty: &str, rights: &str) {
        let list =
            rights.split_whitespace().map(|right| format!(",+{}", right.trim_start_matches("CAP_").to_lowercase()));
        let list = list.fold("-all".to_owned(), |list, right| list + &right);
        let owner = Owner::unprivileged().expect("an owner");
        owner.take(self.folder()).expect("its own");
        for entry in std::fs::read_dir(self.folder()).expect("listed") {
            owner.take(&entry.expect("listed").path()).expect("its own");
        }
        let (user, group) = self.owner();
        // Everybody may open the device, as udev has it; what it is good for is a matter of rights.
        let device = "rm -f $0; mknod -m 666 $0 c 10 200 && mount --bind $0 /dev/net/tun && exec setpriv \"$@\"";
        let mut command = Command::new("unshare");
        // A device of its own: members start at the same time.
        command.args(["--mount", "sh", "-c", device, &format!("{name}.tun")]).current_dir(self.folder());
        command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
        command.args(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={list}")));
        command.arg(env!("CARGO_BIN_EXE_pgherd"));
        self.start_by(name, duty, command);
    }

    fn owner(&self) -> (u32, u32) {
        let found = std::fs::metadata(self.folder()).expect("it is there");
        (std::os::unix::fs::MetadataExt::uid(&found), std::os::unix::fs::MetadataExt::gid(&found))
    }

    fn start_by(&mut self, name: &'static str, duty: &str, mut command: Command) {
        let (config, log) = (self.file(name, "toml"), self.file(name, "log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
        command.args(duty.split(' ')).arg("--config").arg(config).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = self.place(name).inside(|| command.spawn().expect("it starts"));
        self.slot(name).replace(child);
    }

    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.folder().join(format!("{name}.{kind}"))
    }

    pub fn log(&self, name: &str) -> String {
        self.read(&format!("{name}.log"))
    }

    fn slot(&mut self, name: &str) -> &mut Option<Child> {
        &mut self.members.iter_mut().find(|member| member.0 == name).expect("it is a member").1
    }

    pub fn signal(&mut self, name: &str, signal: Signal) {
        let pid = self.slot(name).as_ref().expect("it runs").id();
        kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("it runs");
    }

    /// Signals it and waits for its end; its status.
    pub fn end(&mut self, name: &str, signal: Signal) -> Option<i32> {
        self.signal(name, signal);
        self.ended(name)
    }

    /// Waits for its end; its status.
    pub fn ended(&mut self, name: &str) -> Option<i32> {
        let mut child = self.slot(name).take().expect("it runs");
        let status =
            programs::wait(&mut child, SOON).expect("our child").unwrap_or_else(|| panic!("{name} does not end"));
        status.code()
    }

    /// The states of the members in the order of their names, as one of them tells them; empty if it does not answer.
    pub fn states(&self, of: &str) -> Vec<String> {
        let told = self.told(of);
        let members = told["members"].as_array().cloned().unwrap_or_default();
        members.iter().map(|member| member["state"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// All that a member tells.
    pub fn told(&self, of: &str) -> serde_json::Value {
        let pass = self.folder().join("pcppass");
        self.place(of).inside(|| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
            command.args(["pcp", "--json", "watchdog-info", "-h", "127.0.0.1", "-U", "operator", "-w"]);
            let ran = programs::run(command.env("PCPPASSFILE", pass), &[], SOON).expect("it ends");
            serde_json::from_str(&ran.text()).unwrap_or_default()
        })
    }

    pub fn wait_states(&self, of: &str, states: &[&str]) {
        eventually(&format!("{of} sees {states:?}"), || self.states(of) == states);
    }

    pub fn wait_holder(&self, name: &str) {
        eventually(&format!("{name} has the address"), || self.watch.holders() == [name]);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (name, child) in &mut self.members {
            if let Some(mut child) = child.take() {
                programs::kill_group(&mut child);
            }
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(60).collect();
                println!("{name}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}
