//! Two proxies with one address, or three, on hosts of their own with two heartbeat networks; what all hosts say of the address, by netlink events.
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
pub const PROXIES: [(&str, &str, &str, &str); 3] = [
    ("proxy1", "10.77.0.1", "10.77.1.1", "10.77.2.1"),
    ("proxy2", "10.77.0.2", "10.77.1.2", "10.77.2.2"),
    ("proxy3", "10.77.0.3", "10.77.1.3", "10.77.2.3"),
];
/// Hosts that have an IPv6 address on the service network, too.
const SIX: [(&str, &str); 4] =
    [("proxy1", "fd00:77::1"), ("proxy2", "fd00:77::2"), ("proxy3", "fd00:77::3"), ("upstream", "fd00:77::100")];
/// An address that moves, and needs an interface for that.
pub const VIP6: &str = "fd00:77::10";

/// What a pair is made with.
pub struct Pair<'a> {
    pub setup: Setup<'a>,
    /// More lines of `[watchdog]`.
    pub watchdog: &'a str,
    pub vip: &'static str,
    /// How many: two, or three.
    pub proxies: usize,
}

impl Default for Pair<'_> {
    fn default() -> Self {
        let settings = &[("synchronous_standby_names", "ANY 1 (*)")];
        let setup = Setup { failover: "promote = \"builtin\"", settings, ..Setup::default() };
        Self { setup, watchdog: "", vip: VIP, proxies: 2 }
    }
}

/// A pair at work: the first proxy is active, the second one is ready.
pub struct Both {
    pub world: World,
    pub watch: Watch,
    /// The others but the second one.
    more: Vec<Proxy>,
}

impl Both {
    /// None without PostgreSQL or the right to make hosts.
    pub fn start(pair: &Pair<'_>) -> Option<Self> {
        let mut both = Self::first(pair)?;
        let there = if both.world.partner.is_some() { 2 } else { 1 };
        for of in there..pair.proxies {
            both.join(pair, of, str::to_owned);
        }
        for of in 0..pair.proxies {
            eventually("all are ready", || {
                let states: Vec<String> = (0..pair.proxies).map(|member| both.state(of, member)).collect();
                states.iter().filter(|state| *state == "STANDBY").count() == pair.proxies - 1
            });
        }
        Some(both)
    }

    /// The first proxy alone, active.
    pub fn first(pair: &Pair<'_>) -> Option<Self> {
        let (net, cluster, turn) = World::hosts(&pair.setup)?;
        for (lan, which) in [("hba", 0), ("hbb", 1)] {
            let hosts = PROXIES.map(|(name, _, a, b)| (name, if which == 0 { a } else { b }));
            net.also(lan, &hosts);
        }
        for (host, address) in SIX {
            said(&net.host(host), "ip", &["addr", "add", &format!("{address}/64"), "dev", "lan0", "nodad"]);
        }
        let key = cluster.folder().join("watchdog.key");
        std::fs::write(&key, "a key that only these two have\n").expect("written");
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its own");
        let watch = Watch::start(&net, &PROXIES.map(|proxy| proxy.0), pair.vip);
        let port = net.host(PROXIES[0].0).inside(|| PortLock::any().expect("a free port"));
        let common = world::configuration(&cluster, port.port(), &pair.setup);
        let key = key.display().to_string();
        // One of three serves nobody: it takes two to begin.
        let own = text(&common, 0, pair, &key);
        let (proxy, partner) = std::thread::scope(|scope| {
            let partner = (pair.proxies > 2).then(|| {
                let (place, text) = (net.host(PROXIES[1].0), text(&common, 1, pair, &key));
                let number = port.port();
                scope.spawn(move || {
                    let port = place.inside(|| PortLock::exactly(number).expect("nobody else is on this host"));
                    start(&place, port, &text)
                })
            });
            let proxy = start(&net.host(PROXIES[0].0), port, &own);
            (proxy, partner.map(|partner| partner.join().expect("it starts")))
        });
        let world = World { proxy, partner, cluster, net, text: common, vip: Some(pair.vip), _turn: turn };
        let both = Self { world, watch, more: Vec::new() };
        both.wait_serving();
        Some(both)
    }

    /// The second one, too.
    pub fn second(&mut self, pair: &Pair<'_>) {
        self.join(pair, 1, str::to_owned);
        eventually("the second one is ready", || self.state(1, 1) == "STANDBY" && self.state(0, 1) == "STANDBY");
    }

    /// The second one, or then the third one, starts with a file that was edited.
    pub fn join(&mut self, pair: &Pair<'_>, of: usize, edit: impl FnOnce(&str) -> String) {
        let place = self.place(of);
        let port = self.world.proxy.port();
        let port = place.inside(|| PortLock::exactly(port).expect("nobody else is on this host"));
        let text = edit(&self.text(pair, of));
        let proxy = start(&place, port, &text);
        if of == 1 {
            self.world.partner = Some(proxy);
        } else {
            self.more.push(proxy);
        }
    }

    /// The file of one of them.
    pub fn text(&self, pair: &Pair<'_>, of: usize) -> String {
        let key = self.world.cluster.folder().join("watchdog.key").display().to_string();
        text(&self.world.text, of, pair, &key)
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
        match of {
            0 => &mut self.world.proxy,
            1 => self.world.partner.as_mut().expect("it was started"),
            of => &mut self.more[of - 2],
        }
    }

    pub fn log(&self, of: usize) -> String {
        let proxy = match of {
            0 => Some(&self.world.proxy),
            1 => self.world.partner.as_ref(),
            of => self.more.get(of - 2),
        };
        proxy.map_or(String::new(), Proxy::log)
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

    /// A proxy that has ended starts with another file; whether it comes to serve anybody is for the caller to see.
    pub fn begin(&mut self, of: usize, text: &str) {
        let place = self.place(of);
        let proxy = self.proxy(of);
        std::fs::write(proxy.folder().join("pgherd.toml"), text).expect("written");
        place.inside(|| proxy.begin(Command::new(env!("CARGO_BIN_EXE_pgherd"))));
    }

    /// The watchdog's part of a proxy fails, as by a bug; returns when that is told.
    pub fn fail(&mut self, of: usize) {
        self.fail_at(of, "fail");
    }

    /// The same of one of its tasks: `fail-address`.
    pub fn fail_at(&mut self, of: usize, what: &str) {
        let before = self.log(of).matches("event=\"watchdog_failed\"").count();
        std::fs::write(self.proxy(of).folder().join("state").join(what), "").expect("written");
        eventually("it has failed", || self.log(of).matches("event=\"watchdog_failed\"").count() > before);
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
            let tell = |name: &str, log: &str| {
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                println!("{name}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            };
            for (of, proxy) in PROXIES.iter().enumerate() {
                tell(proxy.0, &self.log(of));
            }
            for server in self.world.cluster.servers() {
                tell(server.name(), &std::fs::read_to_string(server.log()).unwrap_or_default());
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
    let listen = "addresses = [\"127.0.0.1\", \"10.77.0.1\"]";
    assert!(common.contains(listen));
    // The administration socket is in a folder that both see.
    let folder = "[pcp]\naddresses = []\nunix_socket_directories = [\"";
    let pcp = format!("[pcp]\naddresses = [\"0.0.0.0\"]\nport = {}\nunix_socket_directories = [] # [\"", 19_898);
    let everywhere = if pair.vip == VIP { "addresses = [\"0.0.0.0\"]" } else { "addresses = [\"*\"]" };
    let mut text = common.replace(listen, everywhere).replace(folder, &pcp);
    text += &format!(
        "\n[watchdog]\nname = \"{}\"\naddress = \"0.0.0.0\"\nkey_file = \"{key}\"\nstate_directory = \"state\"\n\
         virtual_ip = \"{}\"\n{}\n",
        PROXIES[of].0, pair.vip, pair.watchdog
    );
    for (_, (name, host, a, b)) in PROXIES.iter().enumerate().take(pair.proxies).filter(|(at, _)| *at != of) {
        text += &format!(
            "[[watchdog.peer]]\nname = \"{name}\"\nhost = \"{host}\"\nheartbeat = [\"{a}:9694\", \"{b}:9694\"]\n"
        );
    }
    text
}

/// Runs a program on a host.
pub fn said(place: &Place, program: &str, arguments: &[&str]) -> String {
    place.inside(|| {
        let mut command = Command::new(program);
        let done = programs::run(command.args(arguments), &[], SOON).expect("it ends");
        String::from_utf8_lossy(&done.stdout).into_owned() + &done.complaint()
    })
}
