//! pgherd with its administration port, pgpool-II beside it, and the programs that talk to either. Must not contain tests.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgherd::app::demo::cluster::Cluster;
use pgherd::app::demo::folder::{Folder, Owner};
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::programs;
use serde_json::Value;

use crate::common::{self, proxy::Proxy};

/// The administrator and its password.
pub const USER: &str = "pcpu";
pub const PASSWORD: &str = "secret";
/// MD5 of the password, as pcp.conf has it.
const DIGEST: &str = "5ebe2294ecd0e0f08eab7690d2a6ee69";

/// See the head of the file. Fields end in this order.
pub struct World<'a> {
    pub proxy: Proxy,
    pub pcp: PortLock,
    pub folder: Folder,
    pub cluster: &'a Cluster,
}

/// What a program said and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl World<'static> {
    /// pgherd in front of the shared cluster; none without PostgreSQL. `more` are further lines of the file, above the nodes.
    pub fn start(more: &str) -> Option<Self> {
        Some(World::on(common::cluster()?, more))
    }
}

impl<'a> World<'a> {
    /// The same in front of a cluster of one's own.
    pub fn on(cluster: &'a Cluster, more: &str) -> Self {
        let folder = files();
        let (port, pcp) = (PortLock::any().expect("a free port"), PortLock::any().expect("a free port"));
        let text = configuration(cluster, &folder, (port.port(), pcp.port()), more);
        let hba = "host all all 127.0.0.1/32 trust\n";
        let proxy = Proxy::start_as(port, &text, hba, "");
        let world = Self { proxy, pcp, folder, cluster };
        common::eventually("all nodes are used", || {
            world
                .own(&["node_info"])
                .is_ok_and(|told| told["nodes"].as_array().expect("nodes").iter().all(|node| node["status"] == "up"))
        });
        world
    }

    /// The file with other lines.
    pub fn text(&self, more: &str) -> String {
        configuration(self.cluster, &self.folder, (self.proxy.port(), self.pcp.port()), more)
    }

    /// The file with the password.
    pub fn passfile(&self) -> PathBuf {
        self.folder.path().join("pcppass")
    }

    /// One of pgpool-II's programs.
    pub fn stock(&self, arguments: &str) -> Ran {
        stock(arguments, self.pcp.port(), &self.passfile())
    }

    /// `pgherd pcp`, as JSON.
    pub fn own(&self, arguments: &[&str]) -> Result<Value, Ran> {
        let ran = self.own_text(&[arguments, &["--json"]].concat());
        if ran.code == Some(0) { Ok(serde_json::from_str(&ran.out).expect("JSON")) } else { Err(ran) }
    }

    /// `pgherd pcp`, as people see it.
    pub fn own_text(&self, arguments: &[&str]) -> Ran {
        let mut command = self.own_command(arguments);
        ran(&mut command)
    }

    pub fn own_command(&self, arguments: &[&str]) -> Command {
        self.own_at("127.0.0.1", arguments)
    }

    /// Over the Unix socket.
    pub fn own_local(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.own_at(&self.folder.path().display().to_string(), arguments))
    }

    pub fn own_at(&self, host: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command.arg("pcp").args(arguments).args(["-h", host, "-U", USER, "-w"]);
        command.args(["-p", &self.pcp.port().to_string()]).env("PCPPASSFILE", self.passfile());
        command
    }
}

pub fn files() -> Folder {
    let folder = Folder::new(Owner::unprivileged().expect("an owner")).expect("a folder");
    for (name, text) in [("pcp.conf", format!("{USER}:{DIGEST}\n")), ("pcppass", format!("*:*:*:{PASSWORD}\n"))] {
        write(&folder, name, &text);
    }
    folder
}

/// A private file that the unprivileged user can read.
pub fn write(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its own");
    folder.owner().take(&path).expect("its own");
    path
}

pub fn configuration(cluster: &Cluster, folder: &Folder, (port, pcp): (u16, u16), more: &str) -> String {
    let place = folder.path().display();
    let (more, state) = (more.to_owned(), format!("[failover]\nstate_directory = \"{place}/state\""));
    let more =
        if more.contains("[failover]") { more.replace("[failover]", &state) } else { format!("{more}\n{state}") };
    let mut text = format!(
        "[listen]\naddresses = [\"127.0.0.1\"]\nport = {port}\nunix_socket_directories = []\nthreads = 2\n\
         [auth]\nhba_file = \"hba.conf\"\n[monitor]\nuser = \"postgres\"\ndatabase = \"postgres\"\n\
         [health_check]\nperiod = \"500ms\"\n\
         [pcp]\nport = {pcp}\nunix_socket_directories = [\"{place}\"]\nusers_file = \"{place}/pcp.conf\"\n{more}\n"
    );
    for (id, server) in cluster.servers().iter().enumerate() {
        let (name, port, data) = (server.name(), server.port(), server.data().display());
        text += &format!(
            "[[node]]\nid = {id}\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\ndata_directory = \"{data}\"\n"
        );
    }
    text
}

/// Where Debian puts daemons and their tools.
pub fn installed(name: &str) -> Option<PathBuf> {
    let usual = Path::new("/usr/sbin").join(name);
    if usual.is_file() { Some(usual) } else { programs::on_path(name) }
}

/// Whether pgpool-II is here; says that a test is left out if it is not.
pub fn has_pgpool(test: &str) -> bool {
    let here = ["pgpool", "pcp_node_info"].iter().all(|name| installed(name).is_some());
    if !here {
        common::skip(test, "pgpool-II's programs are missing (Debian's package pgpool2)");
    }
    here
}

/// One of pgpool-II's programs against a port of 127.0.0.1.
pub fn stock(arguments: &str, port: u16, passfile: &Path) -> Ran {
    let mut words = arguments.split_whitespace();
    let program = words.next().expect("a name");
    let mut command = Command::new(installed(program).unwrap_or_else(|| panic!("no {program}")));
    command.args(words).args(["-h", "127.0.0.1", "-U", USER, "-w", "-p", &port.to_string()]);
    command.env("PCPPASSFILE", passfile);
    ran(&mut command)
}

pub fn ran(command: &mut Command) -> Ran {
    let finished = programs::run(command, &[], Duration::from_secs(60)).expect("it ends");
    Ran { code: finished.status.code(), out: finished.text(), err: finished.complaint().trim().to_owned() }
}

/// A real pgpool-II in front of the same servers.
pub struct Pgpool {
    child: Child,
    port: PortLock,
    pcp: PortLock,
    folder: Folder,
}

impl Pgpool {
    pub fn start(cluster: &Cluster) -> Self {
        let folder = files();
        let (port, pcp) = (PortLock::any().expect("a free port"), PortLock::any().expect("a free port"));
        let place = folder.path().display();
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nsocket_dir = '{place}'\npcp_listen_addresses = '127.0.0.1'\npcp_port = {}\n\
             pcp_socket_dir = '{place}'\npid_file_name = '{place}/pid'\nlogdir = '{place}'\nnum_init_children = 2\nmax_pool = 1\n\
             backend_clustering_mode = 'streaming_replication'\nsr_check_period = 1\nsr_check_user = 'postgres'\n\
             sr_check_database = 'postgres'\nhealth_check_period = 1\nhealth_check_user = 'postgres'\nhealth_check_max_retries = 2\n",
            port.port(),
            pcp.port()
        );
        for (id, server) in cluster.servers().iter().enumerate() {
            text += &format!(
                "backend_hostname{id} = '127.0.0.1'\nbackend_port{id} = {}\nbackend_weight{id} = 1\n\
                 backend_flag{id} = 'ALLOW_TO_FAILOVER'\nbackend_application_name{id} = '{}'\n",
                server.port(),
                server.name()
            );
        }
        let config = write(&folder, "pgpool.conf", &text);
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(installed("pgpool").expect("it is here"));
        command.arg("-n").arg("-D").arg("-f").arg(config).arg("-F").arg(folder.path().join("pcp.conf"));
        command.current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        folder.owner().dress(&mut command);
        let child = command.spawn().expect("pgpool starts");
        let pgpool = Self { child, port, pcp, folder };
        common::eventually("pgpool knows its primary and all standbys", || {
            let told = pgpool.stock("pcp_node_info").out;
            told.matches(" streaming async ").count() == 2 && told.contains(" primary primary ")
        });
        pgpool
    }

    pub fn stock(&self, arguments: &str) -> Ran {
        stock(arguments, self.pcp.port(), &self.folder.path().join("pcppass"))
    }

    /// The same with another file of passwords.
    pub fn stock_with(&self, arguments: &str, passfile: &Path) -> Ran {
        stock(arguments, self.pcp.port(), passfile)
    }

    /// Where its clients connect.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// Has it ended by itself?
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }
}

impl Drop for Pgpool {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        if !self.has_ended() {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        }
        if !matches!(programs::wait(&mut self.child, Duration::from_secs(10)), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
