//! Two proxies with one address, on hosts of their own with two heartbeat networks; what all hosts say of the address, by netlink events.
//! Owner: one test. Must not contain tests.
#![allow(dead_code, unreachable_pub, reason = "shared by the modules of one test binary")]

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::programs;

use crate::common::proxy::Proxy;
use crate::common::raw::RawClient;
use crate::common::{SOON, eventually};
use crate::net::Place;
use crate::watch::Watch;
use crate::world::{self, HBA, PASSWORD, Setup, World, table};

/// The address that moves.
pub const VIP: &str = "10.77.0.10";
/// Name, service address and addresses on the heartbeat networks.
pub const PROXIES: [(&str, &str, &str, &str); 2] =
    [("proxy1", "10.77.0.1", "10.77.1.1", "10.77.2.1"), ("proxy2", "10.77.0.2", "10.77.1.2", "10.77.2.2")];

/// What a pair is made with.
pub struct Pair<'a> {
    pub setup: Setup<'a>,
    /// More lines of `[watchdog]`.
    pub watchdog: &'a str,
}

impl Default for Pair<'_> {
    fn default() -> Self {
        let settings = &[("synchronous_standby_names", "ANY 1 (*)")];
        Self { setup: Setup { failover: "promote = \"builtin\"", settings, ..Setup::default() }, watchdog: "" }
    }
}

/// A pair at work: the first proxy is active, the second one is ready.
pub struct Both {
    pub world: World,
    pub watch: Watch,
}

impl Both {
    /// None without PostgreSQL or the right to make hosts.
    pub fn start(pair: &Pair<'_>) -> Option<Self> {
        let mut both = Self::first(pair)?;
        both.second(pair);
        Some(both)
    }

    /// The first proxy alone, active.
    pub fn first(pair: &Pair<'_>) -> Option<Self> {
        let (net, cluster, turn) = World::hosts(&pair.setup)?;
        for (lan, which) in [("hba", 0), ("hbb", 1)] {
            let hosts = PROXIES.map(|(name, _, a, b)| (name, if which == 0 { a } else { b }));
            net.also(lan, &hosts);
        }
        let key = cluster.folder().join("watchdog.key");
        std::fs::write(&key, "a key that only these two have\n").expect("written");
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its own");
        let watch = Watch::start(&net, &PROXIES.map(|proxy| proxy.0), VIP);
        let port = net.host(PROXIES[0].0).inside(|| PortLock::any().expect("a free port"));
        let common = world::configuration(&cluster, port.port(), &pair.setup);
        let text = text(&common, 0, pair, &key.display().to_string());
        let proxy = start(&net.host(PROXIES[0].0), port, &text);
        let world = World { proxy, partner: None, cluster, net, text: common, vip: Some(VIP), _turn: turn };
        let both = Self { world, watch };
        both.wait_serving();
        Some(both)
    }

    /// The second one, too.
    pub fn second(&mut self, pair: &Pair<'_>) {
        let place = self.world.net.host(PROXIES[1].0);
        let port = self.world.proxy.port();
        let port = place.inside(|| PortLock::exactly(port).expect("nobody else is on this host"));
        let key = self.world.cluster.folder().join("watchdog.key").display().to_string();
        let text = text(&self.world.text, 1, pair, &key);
        self.world.partner = Some(start(&place, port, &text));
        eventually("the second one is ready", || self.state(1, 1) == "STANDBY" && self.state(0, 1) == "STANDBY");
    }

    /// Clients are served through the address, reads and writes.
    pub fn wait_serving(&self) {
        let address = self.world.address();
        eventually("the address serves", || {
            let client = self.world.upstream().inside(|| RawClient::login_at(address, Duration::from_secs(1)));
            let said = client.and_then(|mut client| client.try_query("CREATE TEMPORARY TABLE t (n int)"));
            said.is_ok_and(|frames| frames.iter().all(|frame| frame.tag != b'E'))
        });
    }

    pub fn place(&self, of: usize) -> Place {
        self.world.net.host(PROXIES[of].0)
    }

    /// The proxy, the first or the second one.
    pub fn proxy(&mut self, of: usize) -> &mut Proxy {
        if of == 0 { &mut self.world.proxy } else { self.world.partner.as_mut().expect("it was started") }
    }

    pub fn log(&self, of: usize) -> String {
        if of == 0 { self.world.proxy.log() } else { self.world.partner.as_ref().map_or(String::new(), Proxy::log) }
    }

    /// What a proxy says by `SHOW POOL_WATCHDOG` of a member; empty if it does not answer.
    pub fn state(&self, of: usize, member: usize) -> String {
        let port = self.world.proxy.port();
        self.place(of).inside(|| {
            let address = format!("127.0.0.1:{port}").parse().expect("an address");
            let said = RawClient::login_at(address, SOON).and_then(|mut client| client.try_query("SHOW POOL_WATCHDOG"));
            let Ok(frames) = said.filter_error() else { return String::new() };
            let rows = table(&frames);
            let row = rows.into_iter().find(|row| row["name"] == PROXIES[member].0);
            row.map_or(String::new(), |row| row["state"].clone())
        })
    }

    /// What an administration program says, asked on the proxy's host; pgpool-II's, or pgherd's own with `pcp` first.
    pub fn pcp(&self, of: usize, program: &str, words: &[&str]) -> Result<String, String> {
        let pass = self.world.cluster.folder().join("pcppass");
        self.place(of).inside(|| {
            let mut command = Command::new(program);
            command.args(words).args(["-h", "127.0.0.1", "-p", "19898", "-U", "operator", "-w"]);
            let ran = programs::run(command.env("PCPPASSFILE", pass), &[], SOON).map_err(|error| error.to_string())?;
            if ran.status.success() { Ok(ran.text()) } else { Err(ran.complaint()) }
        })
    }

    pub fn signal(&mut self, of: usize, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.proxy(of).pid()).expect("a pid"));
        kill(pid, signal).expect("it runs");
    }

    /// A proxy that was killed or has ended starts again.
    pub fn restart(&mut self, of: usize) {
        let place = self.place(of);
        let proxy = self.proxy(of);
        place.inside(|| {
            proxy.begin(Command::new(env!("CARGO_BIN_EXE_pgherd")));
            proxy.wait_ready();
        });
        eventually("it is a standby again", || self.state(of, of) == "STANDBY");
    }

    /// Who has the address by the newest events; it must be one.
    pub fn holder(&self) -> Option<usize> {
        let now = self.watch.holders();
        assert!(now.len() <= 1, "the address is on {now:?}");
        now.first().map(|name| PROXIES.iter().position(|proxy| proxy.0 == *name).expect("one of them"))
    }

    pub fn wait_holder(&self, of: usize) {
        eventually(&format!("{} has the address", PROXIES[of].0), || self.watch.holders() == [PROXIES[of].0]);
    }

    /// Cuts the heartbeat networks of the second proxy.
    pub fn cut_heartbeats(&self, cut: bool) {
        for lan in ["hba", "hbb"] {
            self.world.net.cut_also(lan, PROXIES[1].0, cut);
        }
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (of, proxy) in PROXIES.iter().enumerate() {
                let log = self.log(of);
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                println!("{}:\n{}", proxy.0, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

trait FilterError {
    type Frames;
    fn filter_error(self) -> Result<Self::Frames, ()>;
}

impl FilterError for std::io::Result<Vec<crate::common::raw::Frame>> {
    type Frames = Vec<crate::common::raw::Frame>;
    fn filter_error(self) -> Result<Self::Frames, ()> {
        self.ok().filter(|frames| frames.iter().any(|frame| frame.tag == b'T')).ok_or(())
    }
}

fn start(place: &Place, port: PortLock, text: &str) -> Proxy {
    let program = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    place.inside(|| Proxy::start_by(program, port, text, (HBA, PASSWORD)))
}

fn text(common: &str, of: usize, pair: &Pair<'_>, key: &str) -> String {
    let (own, other) = (PROXIES[of], PROXIES[1 - of]);
    let listen = "addresses = [\"127.0.0.1\", \"10.77.0.1\"]";
    assert!(common.contains(listen));
    // The administration socket is in a folder that both see.
    let folder = "[pcp]\naddresses = []\nunix_socket_directories = [\"";
    let pcp = format!("[pcp]\naddresses = [\"0.0.0.0\"]\nport = {}\nunix_socket_directories = [] # [\"", 19_898);
    let common = common.replace(listen, "addresses = [\"0.0.0.0\"]").replace(folder, &pcp);
    format!(
        "{common}\n[watchdog]\nname = \"{}\"\naddress = \"0.0.0.0\"\nkey_file = \"{key}\"\nstate_directory = \"state\"\n\
         virtual_ip = \"{VIP}\"\n{}\n[[watchdog.peer]]\nname = \"{}\"\nhost = \"{}\"\nheartbeat = [\"{}:9694\", \"{}:9694\"]\n",
        own.0, pair.watchdog, other.0, other.1, other.2, other.3
    )
}

/// Runs a program on a host.
pub fn said(place: &Place, program: &str, arguments: &[&str]) -> String {
    place.inside(|| {
        let mut command = Command::new(program);
        let done = programs::run(command.args(arguments), &[], SOON).expect("it ends");
        String::from_utf8_lossy(&done.stdout).into_owned() + &done.complaint()
    })
}
