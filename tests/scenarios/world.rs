//! Three servers, a proxy and a client's host, each in a network namespace of its own; faults; what can be asked from outside.
//! Owner: one test. Must not contain tests.
#![allow(dead_code, unreachable_pub, reason = "shared by the modules of one test binary")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::programs;
use pgherd::app::demo::server::Server;

use crate::common::proxy::Proxy;
use crate::common::raw::{Frame, RawClient};
use crate::common::{self, eventually};
use crate::net::{self, Net, Place};

/// Name and address of each host; first the servers in the order of their nodes.
pub(crate) const HOSTS: [(&str, &str); 8] = [
    ("db1", "10.77.0.11"),
    ("db2", "10.77.0.12"),
    ("db3", "10.77.0.13"),
    ("db4", "10.77.0.14"),
    ("proxy1", "10.77.0.1"),
    ("upstream", "10.77.0.100"),
    ("proxy2", "10.77.0.2"),
    ("proxy3", "10.77.0.3"),
];
const PROXY: (&str, &str) = HOSTS[4];
pub(crate) const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all 10.77.0.0/24 trust\nhost all all fd00:77::/64 trust\n";
/// Of the role `herder`, which is like `postgres` but has to say it; pgherd finds it in a file `users`.
pub(crate) const PASSWORD: &str = "secret";
/// Reading data folders, and copying one.
const COPY: Duration = Duration::from_secs(60);

static TURN: Mutex<()> = Mutex::new(());

/// What a world is made with.
pub struct Setup<'a> {
    /// How many; two, or three.
    pub standbys: usize,
    /// Lines of `[failover]` for pgherd; may go on with other sections.
    pub failover: &'a str,
    /// Settings of all servers.
    pub settings: &'a [(&'a str, &'a str)],
    /// Lines of `[monitor]`.
    pub monitor: &'a str,
    /// `host` of the nodes is `db1`, `db2`, …, which [`World::hosts_file`] resolves, and not an address.
    pub names: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { standbys: 2, failover: "", settings: &[], monitor: "user = \"postgres\"", names: false }
    }
}

/// See the head of the file. Fields end in this order.
pub struct World {
    pub proxy: Proxy,
    /// The other one of a pair.
    pub partner: Option<Proxy>,
    pub cluster: Cluster,
    pub net: Net,
    pub(crate) text: String,
    /// Where clients find the proxy, if not at its own address.
    pub(crate) vip: Option<&'static str>,
    pub(crate) _turn: MutexGuard<'static, ()>,
}

/// Scenarios take turns, so that timings mean something.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// With synchronous replication to any one standby, and promotion by pgherd; everything else as it comes.
    pub fn usual() -> Option<Self> {
        let settings = &[("synchronous_standby_names", "ANY 1 (*)")];
        Self::start(&Setup { failover: "promote = \"builtin\"", settings, ..Setup::default() })
    }

    /// None without PostgreSQL or without the right to make hosts.
    pub fn start(setup: &Setup<'_>) -> Option<Self> {
        let (net, cluster, turn) = Self::hosts(setup)?;
        let port = net.host(PROXY.0).inside(|| PortLock::any().expect("a free port"));
        let text = configuration(&cluster, port.port(), setup);
        let program = if setup.names { named(&cluster) } else { Command::new(env!("CARGO_BIN_EXE_pgherd")) };
        let proxy = net.host(PROXY.0).inside(|| Proxy::start_by(program, port, &text, (HBA, PASSWORD)));
        let world = Self { proxy, partner: None, cluster, net, text, vip: None, _turn: turn };
        world.wait_status(&(0..=setup.standbys).map(|id| (id, "up")).collect::<Vec<_>>());
        Some(world)
    }

    /// Hosts and servers; the caller's turn.
    pub(crate) fn hosts(setup: &Setup<'_>) -> Option<(Net, Cluster, MutexGuard<'static, ()>)> {
        match net::allowed() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(why) => {
                common::skip("a scenario on hosts of its own", &why);
                return None;
            }
        }
        let turn = turn();
        let net = Net::new(&HOSTS);
        let cluster = servers(&net, setup)?;
        tools(&cluster);
        Some((net, cluster, turn))
    }

    /// Where clients find the proxy.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.vip.unwrap_or(PROXY.1).parse().expect("an address"), self.proxy.port())
    }

    /// The client's host.
    pub fn upstream(&self) -> Place {
        self.net.host("upstream")
    }

    pub fn server(&self, id: usize) -> &Server {
        &self.cluster.servers()[id]
    }

    /// The name of a server's host.
    pub fn name(&self, id: usize) -> &'static str {
        HOSTS[id].0
    }

    /// Asks a server itself, from its own host: no cut is in the way.
    pub fn ask(&self, id: usize, sql: &str) -> Result<String, Error> {
        self.net.host(self.name(id)).inside(|| self.server(id).psql("postgres", sql)).map(|said| said.trim().to_owned())
    }

    /// The same where it must answer.
    pub fn told(&self, id: usize, sql: &str) -> String {
        self.ask(id, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// A server that was stopped or killed starts again on its host.
    pub fn start_server(&self, id: usize) {
        self.net.host(self.name(id)).inside(|| self.server(id).start()).expect("it starts");
    }

    /// Its processes freeze and its packets vanish.
    pub fn power_lost(&self, id: usize) {
        self.net.cut(self.name(id));
        self.server(id).freeze().expect("frozen");
    }

    /// Cuts a server off from the proxy alone.
    pub fn part(&self, id: usize) {
        self.net.part(HOSTS[id], PROXY);
    }

    /// Ends what [`World::part`] did.
    pub fn join(&self, id: usize) {
        self.net.join(HOSTS[id], PROXY);
    }

    /// What resolves names for pgherd, if it was made with names.
    pub fn hosts_file(&self) -> PathBuf {
        self.cluster.folder().join("hosts")
    }

    /// Two servers do not hear each other any more.
    pub fn part_servers(&self, one: usize, other: usize) {
        self.net.part(HOSTS[one], HOSTS[other]);
    }

    /// Ends what [`World::part_servers`] did.
    pub fn join_servers(&self, one: usize, other: usize) {
        self.net.join(HOSTS[one], HOSTS[other]);
    }

    /// A session from the client's host.
    pub fn client(&self) -> RawClient {
        let address = self.address();
        self.upstream().inside(|| RawClient::login_at(address, common::SOON)).expect("a login")
    }

    /// `SHOW POOL_NODES`: of each node each column.
    pub fn nodes(&self) -> BTreeMap<usize, BTreeMap<String, String>> {
        let row = |row: BTreeMap<String, String>| (row["node_id"].parse().expect("a number"), row);
        table(&self.client().query("SHOW POOL_NODES")).into_iter().map(row).collect()
    }

    /// One of pgherd's counters.
    pub fn counter(&self, name: &str) -> u64 {
        let all = table(&self.client().query("PGPOOL SHOW COUNTERS"));
        let row = all.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no counter {name}"));
        row["value"].parse().expect("a number")
    }

    /// The node that pgherd sends writes to; none while it is down.
    pub fn primary(&self) -> Option<usize> {
        self.nodes().iter().find(|(_, row)| row["role"] == "primary" && row["status"] == "up").map(|(id, _)| *id)
    }

    /// Waits until nodes have these states.
    pub fn wait_status(&self, wanted: &[(usize, &str)]) {
        eventually(&format!("{wanted:?}"), || {
            let nodes = self.nodes();
            wanted.iter().all(|(id, status)| nodes[id]["status"] == *status)
        });
    }

    /// Waits until another than `old` takes writes; which.
    pub fn wait_promoted(&self, old: usize) -> usize {
        let mut found = None;
        eventually("another is primary", || {
            found = self.primary().filter(|id| *id != old);
            found.is_some()
        });
        found.expect("looked at")
    }

    /// Waits until a server streams from `primary`, has no trace of a failover, and is used.
    pub fn wait_follows(&self, id: usize, primary: usize) {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = {}) AND \
             current_setting('primary_conninfo') NOT LIKE '%pgherd_recruited%'",
            self.server(primary).port()
        );
        eventually(&format!("node {id} streams from node {primary}"), || {
            self.ask(id, &sql).is_ok_and(|said| said == "t")
        });
        self.wait_status(&[(id, "up")]);
    }

    /// How often pgherd has logged an event.
    pub fn events(&self, event: &str) -> usize {
        self.proxy.log().matches(&format!("event=\"{event}\"")).count()
    }

    /// The line that told an event last.
    pub fn last_event(&self, event: &str) -> Option<String> {
        let log = self.proxy.log();
        log.lines().rev().find(|line| line.contains(&format!("event=\"{event}\""))).map(str::to_owned)
    }

    /// The configuration that pgherd was started with.
    pub fn configuration(&self) -> &str {
        &self.text
    }

    /// pgherd starts again after [`Proxy::kill9`].
    pub fn restart_proxy(&mut self) {
        let place = self.net.host(PROXY.0);
        let proxy = &mut self.proxy;
        place.inside(|| {
            proxy.begin(Command::new(env!("CARGO_BIN_EXE_pgherd")));
            proxy.wait_ready();
        });
    }

    /// An operator's order, by `pgherd pcp`; what it was answered.
    pub fn order(&self, words: &[&str]) -> Result<String, String> {
        let folder = self.cluster.folder();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command.arg("pcp").args(words).arg("-h").arg(folder).args(["-U", "operator", "-w"]);
        command.env("PCPPASSFILE", folder.join("pcppass"));
        let ran = programs::run(&mut command, &[], COPY).expect("it ends");
        if ran.status.success() { Ok(ran.text()) } else { Err(ran.complaint()) }
    }

    /// A primary that was stopped for a switch-over starts as a standby: it was told whom it follows.
    pub fn start_demoted(&self, id: usize) {
        eventually("it has ended", || !self.server(id).is_running());
        self.write(&self.server(id).data().join("standby.signal"), b"");
        self.start_server(id);
    }

    /// A former primary becomes a standby of `primary`: its own timeline is taken back by pg_rewind, or it is copied anew. True if it was
    /// rewound.
    pub fn rebuild(&self, id: usize, primary: usize) -> bool {
        let server = self.server(id);
        if server.is_running() {
            server.kill9().expect("killed");
        }
        let place = self.net.host(self.name(id));
        let source =
            format!("host={} port={} user=postgres dbname=postgres", HOSTS[primary].1, self.server(primary).port());
        let kept =
            ["server.conf", "pg_hba.conf"].map(|name| (name, std::fs::read(server.data().join(name)).expect("read")));
        let there: SocketAddr =
            format!("{}:{}", HOSTS[primary].1, self.server(primary).port()).parse().expect("an address");
        let reached = || TcpStream::connect_timeout(&there, Duration::from_secs(1)).is_ok();
        eventually("the network is mended", || place.inside(reached));
        // What it finds behind the fork must be on disk, and the copy's control file must know the new timeline.
        self.told(primary, "CHECKPOINT");
        let mut rewind = Command::new(self.cluster.programs().path("pg_rewind"));
        rewind.arg("--target-pgdata").arg(server.data()).arg("--source-server").arg(&source).arg("--no-sync");
        let rewound = place.inside(|| self.run_as_owner(&mut rewind));
        if let Err(why) = &rewound {
            println!("node {id} is not rewound but copied: {why}");
            std::fs::remove_dir_all(server.data()).expect("removed");
            let mut copy = Command::new(self.cluster.programs().path("pg_basebackup"));
            copy.args(["-X", "stream", "--checkpoint=fast", "--no-sync", "-D"])
                .arg(server.data())
                .arg("-d")
                .arg(&source);
            place.inside(|| self.run_as_owner(&mut copy)).expect("copied");
        }
        for (name, text) in kept {
            self.write(&server.data().join(name), &text);
        }
        self.write(&server.data().join("postgresql.auto.conf"), conninfo(&self.cluster, primary, id).as_bytes());
        self.write(&server.data().join("standby.signal"), b"");
        self.start_server(id);
        rewound.is_ok()
    }

    fn write(&self, path: &Path, text: &[u8]) {
        std::fs::write(path, text).expect("written");
        self.cluster.owner().take(path).expect("its own");
    }

    fn run_as_owner(&self, command: &mut Command) -> Result<(), Error> {
        programs::without_surroundings(command);
        self.cluster.owner().dress(command);
        command.current_dir(self.cluster.folder());
        programs::succeed(command, &[], COPY).map(drop)
    }
}

/// Rows by their columns' names.
pub fn table(frames: &[Frame]) -> Vec<BTreeMap<String, String>> {
    let header = frames.iter().find(|frame| frame.tag == b'T').unwrap_or_else(|| panic!("no table: {frames:?}"));
    let mut names = Vec::new();
    let mut rest = &header.body[2..];
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).expect("a name ends");
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = &rest[end + 19..];
    }
    let rows = frames.iter().filter(|frame| frame.tag == b'D');
    let cells = |row: &Frame| row.columns().into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>();
    rows.map(|row| names.iter().cloned().zip(cells(row)).collect()).collect()
}

/// Starts all servers on the first host, where they are copied, and then moves the standbys to their own.
fn servers(net: &Net, setup: &Setup<'_>) -> Option<Cluster> {
    let always = [("listen_addresses", "*"), ("wal_log_hints", "on"), ("full_page_writes", "on")];
    let settings =
        always.iter().chain(setup.settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let cluster = match net
        .host("db1")
        .inside(|| Cluster::start(&Options { settings, standbys: setup.standbys, ..Options::default() }))
    {
        Ok(cluster) => cluster,
        Err(Error::NoPostgres) => {
            common::skip("a scenario on hosts of its own", "no PostgreSQL programs of version 13 or later");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let primary = |sql: &str| net.host("db1").inside(|| cluster.primary().psql("postgres", sql));
    primary(&format!("CREATE ROLE herder SUPERUSER LOGIN PASSWORD '{PASSWORD}'")).expect("a role");
    for (id, server) in cluster.servers().iter().enumerate() {
        let hba = server.data().join("pg_hba.conf");
        let rules = "host all herder 10.77.0.0/24 scram-sha-256\nhost all all 10.77.0.0/24 trust\n\
            host replication all 10.77.0.0/24 trust\n";
        let text = std::fs::read_to_string(&hba).expect("it has one");
        std::fs::write(&hba, format!("{text}{rules}")).expect("written");
        if id == 0 {
            server.reload().expect("it runs");
            continue;
        }
        server.stop_fast().expect("stopped");
        let slot = format!("primary_slot_name = '{}'\n", server.name());
        let text = conninfo(&cluster, 0, id).replace("primary_slot_name = ''\n", &slot);
        std::fs::write(server.data().join("postgresql.auto.conf"), text).expect("written");
        net.host(HOSTS[id].0).inside(|| server.start()).expect("it starts on its host");
    }
    eventually("all standbys stream", || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        primary(sql).is_ok_and(|said| said.trim() == setup.standbys.to_string())
    });
    Some(cluster)
}

/// What an operator has: a password, and a `demote_command`.
fn tools(cluster: &Cluster) {
    let demote = "#!/bin/sh\nkill -INT $(head -1 \"$1/postmaster.pid\") || exit 1\nwhile [ -e \"$1/postmaster.pid\" ]; do sleep 0.02; done\n";
    let digest = "5ebe2294ecd0e0f08eab7690d2a6ee69";
    for (name, text, mode) in [
        ("demote.sh", demote.to_owned(), 0o755),
        ("pcp.conf", format!("operator:{digest}\n"), 0o600),
        ("pcppass", "*:*:*:secret\n".to_owned(), 0o600),
    ] {
        let path = cluster.folder().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("its own");
    }
}

/// The lines that let `id` follow `primary`.
fn conninfo(cluster: &Cluster, primary: usize, id: usize) -> String {
    let (from, own) = (&cluster.servers()[primary], &cluster.servers()[id]);
    let source = format!("host={} port={} user=postgres", HOSTS[primary].1, from.port());
    format!("primary_conninfo = '{source} application_name={}'\nprimary_slot_name = ''\n", own.name())
}

pub(crate) fn configuration(cluster: &Cluster, port: u16, setup: &Setup<'_>) -> String {
    let folder = cluster.folder().display();
    let mut text = format!(
        "pid_file = \"pgherd.pid\"\n\
         [listen]\naddresses = [\"127.0.0.1\", \"{}\"]\nport = {port}\nunix_socket_directories = [\".\"]\n\
         [auth]\nhba_file = \"hba.conf\"\n[monitor]\n{}\ndatabase = \"postgres\"\n\
         [pcp]\naddresses = []\nunix_socket_directories = [\"{folder}\"]\nusers_file = \"{folder}/pcp.conf\"\n\
         [failover]\nauto_failback = true\nauto_failback_interval = \"0s\"\n\
         demote_command = \"{folder}/demote.sh '%D'\"\n{}\n",
        PROXY.1, setup.monitor, setup.failover
    );
    for (id, server) in cluster.servers().iter().enumerate() {
        let host = if setup.names { HOSTS[id].0 } else { HOSTS[id].1 };
        let (name, port, data) = (server.name(), server.port(), server.data().display());
        text += &format!(
            "[[node]]\nid = {id}\nname = \"{name}\"\nhost = \"{host}\"\nport = {port}\ndata_directory = \"{data}\"\n"
        );
    }
    text
}

/// pgherd with a hosts file and a name server of its own: the file is all that knows names, and who empties it ends them; the name server
/// never answers.
fn named(cluster: &Cluster) -> Command {
    let folder = cluster.folder().display();
    let lines = HOSTS.map(|(name, address)| format!("{address} {name}\n")).concat();
    std::fs::write(cluster.folder().join("hosts"), lines).expect("written");
    std::fs::write(cluster.folder().join("resolv.conf"), "nameserver 10.77.0.200\n").expect("written");
    let mut command = Command::new("unshare");
    let script = format!(
        "mount --bind {folder}/hosts /etc/hosts && mount --bind {folder}/resolv.conf /etc/resolv.conf && exec \"$@\""
    );
    command.args(["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_pgherd")]);
    command
}

/// Waits until `condition` holds, and says how long that took.
pub fn timed(what: &str, condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    eventually(what, condition);
    begun.elapsed()
}
