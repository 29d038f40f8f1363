//! What a real pair of pgpool-II shows in SCENARIOS S20, S21 and S25, on the same kind of hosts, for the table. It judges nothing: what is
//! compared with is written down as it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use pgherd::app::demo::cluster::{Cluster, Options};

use crate::common;
use crate::common::raw::RawClient;
use crate::net::{self, Net, Place};
use crate::table::{self, seconds};

const HOSTS: [(&str, &str); 4] =
    [("proxy1", "10.77.0.1"), ("proxy2", "10.77.0.2"), ("db1", "10.77.0.11"), ("upstream", "10.77.0.100")];
const LANS: [(&str, [(&str, &str); 2]); 2] = [
    ("hba", [("proxy1", "10.77.2.1"), ("proxy2", "10.77.2.2")]),
    ("hbb", [("proxy1", "10.77.3.1"), ("proxy2", "10.77.3.2")]),
];
const VIP: &str = "10.77.0.10";
const PORT: u16 = 9999;
/// How long a pair is watched after a fault: pgpool-II's own `wd_heartbeat_deadtime` (30 s) and `wd_interval` (10 s), and then some.
const WATCHED: Duration = Duration::from_secs(90);
/// For what a pair does by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of the pair.
struct Member {
    child: Child,
    watcher: Watcher,
}

impl Member {
    fn start(net: &Net, number: usize, folder: &Path, backend: &str) -> Self {
        let place = folder.join(format!("pgpool{number}"));
        std::fs::create_dir_all(&place).expect("a folder");
        std::fs::write(place.join("pgpool.conf"), configuration(&place, backend)).expect("written");
        std::fs::write(place.join("pgpool_node_id"), number.to_string()).expect("written");
        let log = std::fs::File::create(place.join("log")).expect("a log");
        let host = net.host(HOSTS[number].0);
        let child = host.inside(|| {
            let mut command = Command::new(pgpool().expect("looked for"));
            command.args(["-n", "-D", "-f"]).arg(place.join("pgpool.conf")).current_dir(&place).stdin(Stdio::null());
            command.stdout(log.try_clone().expect("a second handle")).stderr(log).process_group(0);
            command.spawn().expect("pgpool starts")
        });
        Self { child, watcher: Watcher::start(&host) }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    fn holds(&self) -> bool {
        self.watcher.holds.load(Ordering::Acquire)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Looks at a host's addresses every 5 ms.
struct Watcher {
    holds: Arc<AtomicBool>,
    /// Since when and until when the host had the address.
    spans: Arc<Mutex<Vec<(Instant, Instant)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    fn start(host: &Place) -> Self {
        let (holds, stop): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let spans: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
        let (host, theirs) = (host.clone(), (holds.clone(), spans.clone(), stop.clone()));
        let look = move || {
            host.enter();
            let (holds, spans, stop) = theirs;
            while !stop.load(Ordering::Acquire) {
                let has = has_address();
                let mut spans = spans.lock().expect("no panic inside");
                match spans.last_mut() {
                    Some(span) if has && holds.load(Ordering::Acquire) => span.1 = Instant::now(),
                    _ if has => spans.push((Instant::now(), Instant::now())),
                    _ => {}
                }
                holds.store(has, Ordering::Release);
                drop(spans);
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        Self { holds, spans, stop, thread: Some(std::thread::spawn(look)) }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn has_address() -> bool {
    let vip: IpAddr = VIP.parse().expect("an address");
    let here = |address: nix::ifaddrs::InterfaceAddress| {
        let address = address.address.and_then(|address| address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip())));
        address == Some(vip)
    };
    nix::ifaddrs::getifaddrs().expect("the system tells").any(here)
}

/// A pair, its server, and a client that connects and reads every 100 ms.
struct Pair {
    members: [Member; 2],
    net: Net,
    cluster: Cluster,
    prober: Prober,
}

impl Pair {
    fn start() -> Option<Self> {
        match net::allowed() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(why) => {
                common::skip("pgpool-II's pair", &why);
                return None;
            }
        }
        if pgpool().is_none() || !["/usr/bin/arping", "/usr/bin/ping"].iter().all(|path| Path::new(path).exists()) {
            common::skip("pgpool-II's pair", "pgpool2, iputils-ping or iputils-arping is missing");
            return None;
        }
        let net = Net::new(&HOSTS);
        for (lan, hosts) in &LANS {
            net.also(lan, hosts);
        }
        let settings = vec![("listen_addresses".to_owned(), "*".to_owned())];
        let options = Options { settings, standbys: 0, ..Options::default() };
        let cluster = net.host("db1").inside(|| Cluster::start(&options)).expect("a server");
        let server = cluster.primary();
        let hba = server.data().join("pg_hba.conf");
        let text = std::fs::read_to_string(&hba).expect("it has one");
        std::fs::write(&hba, format!("{text}host all all 10.77.0.0/24 trust\n")).expect("written");
        server.reload().expect("it runs");
        let backend = format!("backend_hostname0 = '10.77.0.11'\nbackend_port0 = {}\n", server.port());
        let first = Member::start(&net, 0, cluster.folder(), &backend);
        // It waits for the other before it takes the address: for the majority of a pair, both are needed at the beginning.
        let second = Member::start(&net, 1, cluster.folder(), &backend);
        let prober = Prober::start(&net.host("upstream"));
        let pair = Self { members: [first, second], net, cluster, prober };
        let deadline = Instant::now() + PATIENCE;
        while pair.members.iter().filter(|member| member.holds()).count() != 1 || pair.prober.good() <= 5 {
            assert!(Instant::now() < deadline, "the pair does not serve by its address: {}", pair.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
        // The lifecheck begins once each has seen the other.
        std::thread::sleep(Duration::from_secs(30));
        Some(pair)
    }

    fn logs(&self) -> String {
        let logs = [0, 1].map(|number| self.cluster.folder().join(format!("pgpool{number}/log")));
        logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).concat()
    }

    /// Who has the address.
    fn active(&self) -> usize {
        self.members.iter().position(Member::holds).expect("one has it")
    }

    /// Watches for a while, and tells what became of the clients and of the address.
    fn tell(&self, scenario: &str, fault: &str, bound: &str, since: Instant) {
        std::thread::sleep(WATCHED.saturating_sub(since.elapsed()));
        let (errors, gap, again) = self.prober.since(since);
        let both = overlap(&self.members, since);
        let held: Vec<_> =
            self.members.iter().enumerate().filter(|(_, member)| member.holds()).map(|(at, _)| HOSTS[at].0).collect();
        let gap = if again { format!("gap {}", seconds(gap)) } else { format!("not served again within {WATCHED:?}") };
        let end = if held.is_empty() { "nobody".to_owned() } else { held.join(" and ") };
        let saw = format!("{errors} errors; two hosts had the address for {}; at the end {end} had it", seconds(both));
        table::line(&format!("{scenario}, pgpool-II 4.3.5"), fault, &gap, bound, &saw);
    }
}

/// How long both had the address since then.
fn overlap(members: &[Member; 2], since: Instant) -> Duration {
    let [one, other] = [0, 1].map(|at| members[at].watcher.spans.lock().expect("no panic inside").clone());
    let shared = |a: &(Instant, Instant), b: &(Instant, Instant)| {
        a.1.min(b.1).saturating_duration_since(a.0.max(b.0).max(since))
    };
    one.iter().flat_map(|a| other.iter().map(move |b| shared(a, b))).sum()
}

/// When each of its tries succeeded, or failed.
type Tries = BTreeMap<Instant, bool>;

struct Prober {
    tries: Arc<Mutex<Tries>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    fn start(host: &Place) -> Self {
        let (tries, stop): (Arc<Mutex<Tries>>, Arc<AtomicBool>) = Default::default();
        let (host, theirs) = (host.clone(), (tries.clone(), stop.clone()));
        let probe = move || {
            host.enter();
            let address: SocketAddr = format!("{VIP}:{PORT}").parse().expect("an address");
            while !theirs.1.load(Ordering::Acquire) {
                let begun = Instant::now();
                let good = RawClient::login_at(address, Duration::from_secs(1)).is_ok();
                theirs.0.lock().expect("no panic inside").insert(Instant::now(), good);
                std::thread::sleep(Duration::from_millis(100).saturating_sub(begun.elapsed()));
            }
        };
        Self { tries, stop, thread: Some(std::thread::spawn(probe)) }
    }

    fn good(&self) -> usize {
        self.tries.lock().expect("no panic inside").values().filter(|good| **good).count()
    }

    /// Errors, the longest time without success, and whether there was one in the last ten seconds.
    fn since(&self, since: Instant) -> (usize, Duration, bool) {
        let tries = self.tries.lock().expect("no panic inside");
        let errors = tries.range(since..).filter(|(_, good)| !**good).count();
        let (mut last, mut longest) = (since, Duration::ZERO);
        for (at, _) in tries.range(since..).filter(|(_, good)| **good) {
            longest = longest.max(*at - last);
            last = *at;
        }
        (errors, longest, last.elapsed() < Duration::from_secs(10) && last > since)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pgpool() -> Option<&'static Path> {
    [Path::new("/usr/sbin/pgpool"), Path::new("/usr/local/bin/pgpool")].into_iter().find(|path| path.exists())
}

/// Defaults wherever there are any, but that one of two may go on alone: without it a pair of pgpool-II has no address once one is gone.
fn configuration(place: &Path, backend: &str) -> String {
    let (place, [(_, a), (_, b)]) = (place.display(), LANS);
    let mut text = format!(
        "listen_addresses = '*'\nport = {PORT}\nsocket_dir = '{place}'\npcp_socket_dir = '{place}'\npid_file_name = '{place}/pid'\n\
         logdir = '{place}'\nnum_init_children = 8\nmax_pool = 1\nbackend_clustering_mode = 'streaming_replication'\n\
         sr_check_user = 'postgres'\nsr_check_database = 'postgres'\nhealth_check_period = 2\nhealth_check_user = 'postgres'\n\
         {backend}backend_weight0 = 1\nuse_watchdog = on\nwd_ipc_socket_dir = '{place}'\ndelegate_IP = '{VIP}'\n\
         if_cmd_path = '/'\nif_up_cmd = '/usr/sbin/ip addr add $_IP_$/24 dev lan0'\nif_down_cmd = '/usr/sbin/ip addr del $_IP_$/24 dev lan0'\n\
         arping_path = '/'\narping_cmd = '/usr/bin/arping -U $_IP_$ -w 1 -I lan0'\nping_path = '/usr/bin'\n\
         trusted_servers = '10.77.0.100'\nenable_consensus_with_half_votes = on\nwd_lifecheck_method = 'heartbeat'\n"
    );
    for number in 0..2 {
        text += &format!(
            "hostname{number} = '{}'\nwd_port{number} = 9000\npgpool_port{number} = {PORT}\n\
             heartbeat_hostname{number} = '{};{}'\nheartbeat_port{number} = 9694\nheartbeat_device{number} = 'hba;hbb'\n",
            HOSTS[number].1, a[number].1, b[number].1
        );
    }
    text
}

#[test]
fn s20_s21_s25_what_a_pair_of_pgpool_shows() {
    {
        let Some(pair) = Pair::start() else { return };
        let since = Instant::now();
        kill(pair.members[pair.active()].pid(), Signal::SIGKILL).expect("killed");
        pair.tell("S20", "active's main process `kill -9`", "4 s", since);
    }
    {
        let Some(pair) = Pair::start() else { return };
        let since = Instant::now();
        killpg(pair.members[pair.active()].pid(), Signal::SIGKILL).expect("killed");
        pair.tell("S21", "every process of the active `kill -9`", "6 s", since);
    }
    let Some(pair) = Pair::start() else { return };
    let since = Instant::now();
    for (lan, _) in &LANS {
        pair.net.cut_also(lan, "proxy1", true);
    }
    pair.tell("S25", "both heartbeat LANs cut", "0 errors, one holder", since);
}
