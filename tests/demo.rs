//! The real program's `demo`, from its start to the end of its folder. Needs PostgreSQL's programs.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::{Error, programs::Programs};

/// A temporary folder of this test's own, so that what is left in it is ours.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pgherd-demo-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a fresh folder");
        // The servers' user must be able to pass.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        Self(path)
    }

    fn demo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command.arg("demo").args(args).env("TMPDIR", &self.0);
        command
    }

    /// Waits until nothing is left on disk, and no process works there.
    fn becomes_empty(&self) {
        for _ in 0..600 {
            let files = std::fs::read_dir(&self.0).expect("it exists").count();
            if files == 0 && self.processes() == 0 {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("left behind in {}, or {} processes", self.0.display(), self.processes());
    }

    fn processes(&self) -> usize {
        let all = std::fs::read_dir("/proc").expect("Linux").flatten();
        let inside = |entry: std::fs::DirEntry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder.starts_with(&self.0))
        };
        all.map(inside).filter(|inside| *inside).count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn here() -> bool {
    match Programs::find() {
        Ok(_) => true,
        Err(Error::NoPostgres) if std::env::var_os("STRICT").is_none() => false,
        Err(error) => panic!("{error}"),
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a small number")), signal).expect("it runs");
}

#[test]
fn r24_demo_spreads_reads_and_leaves_nothing_behind() {
    if !here() {
        return println!("SKIP r24_demo_spreads_reads: no PostgreSQL programs");
    }
    let place = Place::new("load");
    let output = place.demo(&["--port", "0", "--seconds", "3"]).output().expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("standby2"), "{}", said(&output));
    place.becomes_empty();
}

#[test]
fn r24_demo_ends_on_sigint_and_sigkill() {
    if !here() {
        return println!("SKIP r24_demo_ends: no PostgreSQL programs");
    }
    let place = Place::new("signals");
    let mut child = place.demo(&["--port", "0"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let invited = lines.any(|line| line.is_ok_and(|line| line.starts_with("Ctrl-C ends")));
    assert!(invited, "it says what to type");
    signal(&child, Signal::SIGINT);
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("stopped and removed"))));
    assert!(child.wait().expect("our child").success());
    assert_eq!(place.processes(), 0);
    place.becomes_empty();

    // During the start, a moment in which nothing of it can clean up.
    let mut child = place.demo(&["--port", "0"]).stdout(Stdio::null()).spawn().expect("it starts");
    while std::fs::read_dir(&place.0).expect("it exists").count() == 0 {
        assert!(child.try_wait().expect("our child").is_none(), "it ended before it made its folder");
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(300));
    signal(&child, Signal::SIGKILL);
    child.wait().expect("our child");
    place.becomes_empty();
}

#[test]
fn r24_a_taken_port_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("bound").port().to_string();
    let place = Place::new("port");
    let output = place.demo(&["--port", &port]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains(&port) && said.contains("PORT="), "{said}");
    place.becomes_empty();
}
