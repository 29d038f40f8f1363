//! The proxy under test: the real binary with a configuration of its own, in a folder that goes away with it.
//!
//! With `PGHERD_TEST_DIRECT` set it is the primary itself, so that the tests can be tested.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::cluster::Cluster;
use pgherd::app::demo::folder::{Folder, Owner};
use pgherd::app::demo::ports::PortLock;
use pgherd::app::demo::programs;

use super::raw::RawClient;

/// What to write into the configuration.
pub struct Options {
    /// `pool.mode`.
    pub mode: &'static str,
    /// `pool.size`.
    pub size: u32,
    /// One weight for each node, the primary first.
    pub weights: Vec<f64>,
    /// The nodes' ports; empty: those of the cluster.
    pub ports: Vec<u16>,
    /// More lines for `[listen]`.
    pub listen: String,
    /// More lines for `[pool]`.
    pub pool: String,
    /// More lines for `[routing]`.
    pub routing: String,
    /// More lines for each `[[node]]`.
    pub node: String,
    /// `hba_file`.
    pub hba: String,
    /// `users_file`.
    pub users: String,
    /// More lines for `[auth]`, and more sections behind it.
    pub auth: String,
    /// Its environment, beyond the one of the tests.
    pub environment: Vec<(&'static str, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: "transaction",
            size: 20,
            weights: vec![1.0, 1.0, 1.0],
            ports: Vec::new(),
            listen: String::new(),
            pool: String::new(),
            routing: String::new(),
            node: String::new(),
            hba: "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
                .into(),
            users: String::new(),
            auth: String::new(),
            environment: Vec::new(),
        }
    }
}

/// A running proxy. Dropped without a failure of the test, it must stop cleanly.
pub struct Proxy {
    process: Option<Child>,
    port: u16,
    log: PathBuf,
    _reservation: Option<PortLock>,
    folder: Option<Folder>,
}

impl Proxy {
    /// Starts the binary and waits until it answers a query.
    pub fn start(cluster: &Cluster, options: &Options) -> Self {
        if super::direct() {
            let port = cluster.primary().port();
            return Self { process: None, port, log: PathBuf::new(), _reservation: None, folder: None };
        }
        let reservation = PortLock::any().expect("a free port");
        let text = configuration(cluster, options, reservation.port());
        let mut program = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        program.envs(options.environment.iter().cloned());
        Self::start_by(program, reservation, &text, (&options.hba, &options.users))
    }

    /// Starts it with this configuration, in the network namespace of the calling thread; on `reservation` of 127.0.0.1 it must answer.
    pub fn start_as(reservation: PortLock, text: &str, hba: &str, users: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_pgherd")), reservation, text, (hba, users))
    }

    /// The same by a `program` of its own; see [`Proxy::begin`].
    pub fn start_by(program: Command, reservation: PortLock, text: &str, (hba, users): (&str, &str)) -> Self {
        let folder = Folder::new(Owner::unprivileged().expect("an owner")).expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its own");
        };
        write("hba.conf", hba);
        write("users", users);
        write("pgherd.toml", text);
        let log = folder.path().join("pgherd.log");
        let port = reservation.port();
        let mut proxy = Self { process: None, port, log, _reservation: Some(reservation), folder: Some(folder) };
        proxy.begin(program);
        proxy.wait_ready();
        proxy
    }

    /// Starts the process; `program` may be one that becomes pgherd with the arguments that follow. Its log goes on.
    pub fn begin(&mut self, program: Command) {
        let folder = self.folder();
        let output = File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = program;
        command.arg("run").arg("--config").arg(folder.join("pgherd.toml")).current_dir(&folder).process_group(0);
        command.env("RUST_BACKTRACE", "1").stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        self.process = Some(command.spawn().expect("the binary starts"));
    }

    /// Its folder, where it works and where its configuration is. Panics without a proxy in between.
    pub fn folder(&self) -> PathBuf {
        self.folder.as_ref().expect("a proxy").path().to_owned()
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("it runs");
        child.wait().expect("our child");
    }

    /// Gives it another configuration and has it read by SIGHUP. It applies it a moment later.
    pub fn reconfigure(&self, text: &str) {
        std::fs::write(self.folder().join("pgherd.toml"), text).expect("written");
        kill(Pid::from_raw(i32::try_from(self.pid()).expect("a pid")), Signal::SIGHUP).expect("it runs");
    }

    /// Waits until it answers on 127.0.0.1.
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + super::SOON;
        loop {
            let ended = self.process.as_mut().and_then(|child| child.try_wait().expect("our child"));
            assert!(ended.is_none(), "the proxy ended ({ended:?}):\n{}", self.log());
            let answered = RawClient::try_login(self.port, "postgres", "postgres")
                .and_then(|mut client| client.try_query("SELECT 1"));
            match answered {
                Ok(frames) if frames.iter().any(|frame| frame.tag == b'D') => return,
                other => assert!(Instant::now() < deadline, "not ready: {other:?}\n{}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process. Panics without a proxy in between.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a proxy").id()
    }

    /// Resident memory in bytes; `None` when there is no proxy in between.
    pub fn resident(&self) -> Option<u64> {
        let pid = self.process.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        Some(kilobytes * 1024)
    }

    /// Gives it another configuration by SIGHUP, as `pgherd reload` does. It applies it a moment later.
    pub fn reload(&self, cluster: &Cluster, options: &Options) {
        self.reconfigure(&configuration(cluster, options, self.port));
    }

    /// Waits until it has ended by itself, as somebody has asked it to; its exit code. None if it has not ended.
    pub fn ended(&mut self) -> Option<i32> {
        let mut child = self.process.take().expect("it ran");
        match programs::wait(&mut child, super::SOON).expect("our child") {
            Some(status) => status.code(),
            None => {
                self.process = Some(child);
                None
            }
        }
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops it as Ctrl-C would; it must end by itself with exit code 0, without a panic ever in its log.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(mut child) = self.process.take() else { return };
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
        let status = programs::wait(&mut child, Duration::from_secs(20)).expect("our child");
        if status.is_none() {
            programs::kill_group(&mut child);
        }
        let log = self.log();
        if std::thread::panicking() {
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            return eprintln!("the proxy's log ends:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let count = |text: &str| log.matches(text).count();
        assert_eq!(count("panicked at"), count("a test has asked for a failure"), "the proxy panicked:\n{log}");
        assert_eq!(status.and_then(|status| status.code()), Some(0), "the proxy did not end well:\n{log}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// The text of `pgherd.toml`.
fn configuration(cluster: &Cluster, options: &Options, port: u16) -> String {
    let Options { mode, size, listen, pool, routing, auth, .. } = options;
    let mut text = format!(
        "[listen]\naddresses = [\"127.0.0.1\"]\nport = {port}\n{listen}\n\
         [pool]\nmode = \"{mode}\"\nsize = {size}\n{pool}\n\
         [auth]\nhba_file = \"hba.conf\"\nusers_file = \"users\"\n{auth}\n\
         [monitor]\nuser = \"postgres\"\ndatabase = \"postgres\"\n\
         [routing]\n{routing}\n\
         [health_check]\nperiod = \"500ms\"\n"
    );
    for (id, server) in cluster.servers().iter().enumerate() {
        let (name, weight) = (server.name(), options.weights[id]);
        let port = options.ports.get(id).copied().unwrap_or(server.port());
        text += &format!(
            "[[node]]\nid = {id}\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\nweight = {weight:?}\n{}\n",
            options.node
        );
    }
    text
}
