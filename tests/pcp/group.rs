//! Proxies that watch each other, as processes of this host in front of the same servers, all of them at work (no virtual address). What one
//! says to another goes by relays that can be cut. Must not contain tests.
#![allow(dead_code, unreachable_pub, reason = "shared by the modules of one test binary")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgherd::app::demo::cluster::Cluster;
use pgherd::app::demo::folder::Folder;
use pgherd::app::demo::ports::PortLock;
use serde_json::Value;

use crate::common::proxy::Proxy;
use crate::common::{SOON, eventually};
use crate::world::{Ran, USER, configuration, files, ran, stock, write};

pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// What they have in common.
pub const KEY: &str = "a key that these three have\n";
const HBA: &str = "host all all 127.0.0.1/32 trust\n";

/// One proxy; its fields end in this order.
pub struct Member {
    pub proxy: Proxy,
    pub folder: Folder,
    pcp: PortLock,
}

/// See the head of the file.
pub struct Group {
    pub members: Vec<Member>,
    relays: Vec<((usize, usize), Relay)>,
    ports: Vec<[PortLock; 2]>,
}

impl Group {
    /// Three of them, each with `more` in its file above the nodes; everybody sees everybody, and one leads.
    pub fn start(cluster: &Cluster, more: &str) -> Self {
        let pair = || [(); 2].map(|()| PortLock::any().expect("a free port"));
        let ports: Vec<[PortLock; 2]> = NAMES.iter().map(|_| pair()).collect();
        let ways = (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let relays: Vec<_> = ways.map(|way| (way, Relay::start(ports[way.1].each_ref().map(PortLock::port)))).collect();
        let start = |of: usize| {
            let folder = files();
            let (port, pcp) = (PortLock::any().expect("a free port"), PortLock::any().expect("a free port"));
            write(&folder, "watchdog.key", KEY);
            let mut text = configuration(cluster, &folder, (port.port(), pcp.port()), more);
            text += &watchdog(of, &folder, &ports, &relays);
            (Proxy::start_by(Command::new(env!("CARGO_BIN_EXE_pgherd")), port, &text, (HBA, "")), folder, pcp)
        };
        let start = &start;
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|of| scope.spawn(move || start(of))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it starts")).collect()
        });
        let members = started.into_iter().map(|(proxy, folder, pcp)| Member { proxy, folder, pcp }).collect();
        let group = Self { members, relays, ports };
        eventually("one leads, and all say so", || {
            let told: Vec<Option<usize>> = (0..3).map(|of| group.leader_of(of)).collect();
            told[0].is_some() && told.iter().all(|leader| *leader == told[0])
        });
        for of in 0..3 {
            eventually("all nodes are used", || (0..cluster.servers().len()).all(|id| group.status(of, id) == "up"));
        }
        group
    }

    /// Who leads, as one of them says.
    pub fn leader_of(&self, of: usize) -> Option<usize> {
        let told = self.watchdog(of)?;
        let all = told["members"].as_array()?;
        let states = || all.iter().map(|member| member["state"].as_str().unwrap_or_default());
        let settled = states().all(|state| ["LEADER", "STANDBY"].contains(&state));
        states().position(|state| state == "LEADER").filter(|_| settled)
    }

    pub fn leader(&self) -> usize {
        self.leader_of(0).expect("one leads")
    }

    /// `pgherd pcp watchdog_info` of one of them.
    pub fn watchdog(&self, of: usize) -> Option<Value> {
        self.own(of, &["watchdog_info"]).ok()
    }

    /// A node's status, as one of them says; empty if it does not answer.
    pub fn status(&self, of: usize, node: usize) -> String {
        let told = self.own(of, &["node_info"]).unwrap_or_default();
        told["nodes"][node]["status"].as_str().unwrap_or_default().to_owned()
    }

    pub fn port(&self, of: usize) -> u16 {
        self.members[of].proxy.port()
    }

    /// `pgherd pcp` to one of them, as JSON.
    pub fn own(&self, of: usize, arguments: &[&str]) -> Result<Value, Ran> {
        let ran = ran(self.command(of, arguments).arg("--json"));
        if ran.code == Some(0) { Ok(serde_json::from_str(&ran.out).expect("JSON")) } else { Err(ran) }
    }

    /// The same as people see it.
    pub fn own_text(&self, of: usize, arguments: &[&str]) -> Ran {
        ran(&mut self.command(of, arguments))
    }

    fn command(&self, of: usize, arguments: &[&str]) -> Command {
        let member = &self.members[of];
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command.arg("pcp").args(arguments).args(["-h", "127.0.0.1", "-U", USER, "-w"]);
        command.args(["-p", &member.pcp.port().to_string()]).env("PCPPASSFILE", self.passfile(of));
        command
    }

    fn passfile(&self, of: usize) -> PathBuf {
        self.members[of].folder.path().join("pcppass")
    }

    /// One of pgpool-II's programs to one of them.
    pub fn stock(&self, of: usize, arguments: &str) -> Ran {
        stock(arguments, self.members[of].pcp.port(), &self.passfile(of))
    }

    /// One of them hears another one no more, or again; nobody is told.
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        let relay = self.relays.iter().find(|(way, _)| *way == (from, to)).expect("two of them");
        relay.1.cut.store(cut, Ordering::Relaxed);
    }

    /// Where one of them listens for the others.
    pub fn place(&self, of: usize) -> ([u8; 4], u16) {
        ([127, 0, 0, 1], self.ports[of][0].port())
    }

    pub fn log(&self, of: usize) -> String {
        self.members[of].proxy.log()
    }
}

fn watchdog(of: usize, folder: &Folder, ports: &[[PortLock; 2]], relays: &[((usize, usize), Relay)]) -> String {
    let place = folder.path().display();
    let mut text = format!(
        "[watchdog]\nname = \"{}\"\naddress = \"127.0.0.1\"\nport = {}\nheartbeat_port = {}\nlease = \"2s\"\n\
         key_file = \"{place}/watchdog.key\"\nstate_directory = \"{place}/votes\"\n",
        NAMES[of],
        ports[of][0].port(),
        ports[of][1].port(),
    );
    for ((_, to), relay) in relays.iter().filter(|((from, _), _)| *from == of) {
        text += &format!(
            "[[watchdog.peer]]\nname = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\nheartbeat = [\"127.0.0.1:{}\"]\n",
            NAMES[*to], relay.tcp, relay.udp
        );
    }
    text
}

/// Carries what one says to another, by TCP and by UDP, as long as it is not cut. Its threads end with the test program.
struct Relay {
    tcp: u16,
    udp: u16,
    cut: Arc<AtomicBool>,
}

impl Relay {
    fn start([tcp, udp]: [u16; 2]) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
        let port = |address: std::io::Result<std::net::SocketAddr>| address.expect("it has one").port();
        let relay = Self { tcp: port(listener.local_addr()), udp: port(socket.local_addr()), cut: cut.clone() };
        let is_cut = cut.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let cut = is_cut.clone();
                std::thread::spawn(move || carry(near, tcp, &cut));
            }
        });
        std::thread::spawn(move || {
            let mut bytes = [0; 2_048];
            loop {
                // An error is one of a datagram before: nobody listened.
                let Ok(count) = socket.recv(&mut bytes) else { continue };
                if !cut.load(Ordering::Relaxed) {
                    let _ = socket.send_to(&bytes[..count], ("127.0.0.1", udp));
                }
            }
        });
        relay
    }
}

/// What was said while it was cut is lost, and a connection that has lost something ends with the cut.
fn carry(mut near: TcpStream, port: u16, cut: &AtomicBool) {
    let Ok(mut far) = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), SOON) else { return };
    let (Ok(mut back), Ok(end)) = (far.try_clone(), near.try_clone()) else { return };
    std::thread::spawn(move || {
        // Nobody says anything in this direction; its end is the end.
        let _ = back.read(&mut [0; 1]);
        let _ = end.shutdown(std::net::Shutdown::Both);
    });
    let mut bytes = [0; 16_384];
    while let Ok(count) = near.read(&mut bytes) {
        let mut lost = false;
        while cut.load(Ordering::Relaxed) {
            lost = true;
            std::thread::sleep(Duration::from_millis(20));
        }
        if count == 0 || lost || far.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (near.shutdown(std::net::Shutdown::Both), far.shutdown(std::net::Shutdown::Both));
}
