//! Finds the PostgreSQL programs of this machine and runs programs with a deadline.
//!
//! Owned by the demo's cluster and by tests. Must not know what the programs are run for.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Error;
use crate::support::clock;

/// The oldest PostgreSQL that this proxy works with.
pub const OLDEST: u32 = 13;
/// Names a folder with PostgreSQL programs that is taken before any other.
pub const BIN_VARIABLE: &str = "PGHERD_PG_BIN";
/// How often a running program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    major: u32,
}

impl Programs {
    /// The newest installation of version 13 or later: under `PGHERD_PG_BIN`, where Debian and the PGDG packages
    /// put them, or on `PATH`.
    ///
    /// # Errors
    /// [`Error::NoPostgres`] when there is none.
    pub fn find() -> Result<Self, Error> {
        if let Some(folder) = std::env::var_os(BIN_VARIABLE) {
            return Self::at(PathBuf::from(folder)).ok_or(Error::NoPostgres);
        }
        candidates().into_iter().filter_map(Self::at).max_by_key(|found| found.major).ok_or(Error::NoPostgres)
    }

    /// The installation in `folder`, if it is complete and new enough.
    fn at(folder: PathBuf) -> Option<Self> {
        let complete = ["postgres", "initdb", "pg_basebackup", "psql"].iter().all(|name| folder.join(name).is_file());
        if !complete {
            return None;
        }
        let mut command = Command::new(folder.join("postgres"));
        command.arg("--version");
        let said = run(&mut command, &[], Duration::from_secs(10)).ok()?.stdout;
        let major = major_version(&String::from_utf8_lossy(&said))?;
        (major >= OLDEST).then_some(Self { folder, major })
    }

    /// The major version, for instance 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of the program `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder of all of them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Folders that may hold PostgreSQL's programs.
fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, suffix) in [("/usr/lib/postgresql", "bin"), ("/opt/homebrew/opt", "bin"), ("/usr", "bin")] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let versioned = name.as_encoded_bytes().iter().any(u8::is_ascii_digit);
            if versioned && (parent != "/usr" || name.to_string_lossy().starts_with("pgsql-")) {
                found.push(entry.path().join(suffix));
            }
        }
    }
    if let Some(path) = std::env::var_os("PATH") {
        found.extend(std::env::split_paths(&path));
    }
    found
}

/// Reads `15` out of `postgres (PostgreSQL) 15.14 (Debian …)`.
fn major_version(said: &str) -> Option<u32> {
    let number = said.split_once("(PostgreSQL) ")?.1;
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

/// Where `name` lies on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a program wrote and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Everything that it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything that it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Standard output as text, without the last line's end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Standard error as text.
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Runs `command` to its end with `input` as its standard input. It gets a process group of its own, and all of
/// the group is killed when `limit` has passed.
///
/// # Errors
/// [`Error::Start`] when it cannot be started, [`Error::Late`] when it did not end in time (with its last output).
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Finished, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| Error::Start { program: name.clone(), source })?;
    let feeder = child.stdin.take().map(|mut stdin| {
        let input = input.to_vec();
        // A program that ends without reading all of its input is no error here.
        std::thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let ended = wait(&mut child, limit).map_err(|source| Error::Start { program: name.clone(), source })?;
    if ended.is_none() {
        kill_group(&mut child);
    }
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    drop(feeder.map(JoinHandle::join));
    match ended {
        Some(status) => Ok(Finished { status, stdout, stderr }),
        None => {
            let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            Err(Error::Late { program: name, limit, said })
        }
    }
}

/// Runs `command` and takes anything but exit code 0 for an error.
///
/// # Errors
/// Those of [`run`], and [`Error::Failed`] with what the program said.
pub fn succeed(command: &mut Command, input: &[u8], limit: Duration) -> Result<Finished, Error> {
    let finished = run(command, input, limit)?;
    if finished.status.success() {
        return Ok(finished);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let said = format!("{}{}", finished.text(), finished.complaint());
    Err(Error::Failed { program, status: finished.status, said })
}

/// Waits until `child` has ended; `None` when it still runs after `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = clock::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Kills `child` with all of its process group and takes its exit status away.
pub fn kill_group(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // Gone already is as good as killed.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    drop(child.wait());
}

/// Reads all of a pipe on a thread, so that a full pipe never stops the program.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        drop(pipe.read_to_end(&mut all));
        all
    })
}

/// What [`collect`] has read.
fn joined(reader: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    reader.and_then(|thread| thread.join().ok()).unwrap_or_default()
}

/// `psql` for scripts: no start-up file, bare values, the first error ends it.
pub fn psql(programs: &Programs, port: u16, database: &str) -> Command {
    let mut command = Command::new(programs.path("psql"));
    command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", super::SUPERUSER]);
    command.arg("-p").arg(port.to_string()).arg("-d").arg(database);
    without_surroundings(&mut command);
    command
}

/// Takes away the environment variables that change what libpq programs do.
pub fn without_surroundings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_libpq_variable(name)) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C.UTF-8").env("PGCONNECT_TIMEOUT", "10");
}

/// `PGHOST` and its kin; not `PGHERD_…`.
fn is_libpq_variable(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"PG") && !name.starts_with(b"PGHERD_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_what_postgres_says() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major_version("something else"), None);
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; sleep 60 & wait"]);
        let begun = clock::now();
        let error = run(&mut command, &[], Duration::from_millis(200)).expect_err("it sleeps for a minute");
        assert!(matches!(&error, Error::Late { said, .. } if said == "begun\n"), "{error:?}");
        assert!(clock::now() - begun < Duration::from_secs(10));
    }

    #[test]
    fn input_reaches_the_program_and_its_failure_is_told() {
        let finished = run(Command::new("cat").arg("-"), b"some input", Duration::from_secs(10)).expect("cat runs");
        assert_eq!(finished.text(), "some input");
        let error = succeed(Command::new("sh").args(["-c", "echo no >&2; exit 3"]), &[], Duration::from_secs(10));
        assert!(matches!(error, Err(Error::Failed { said, .. }) if said == "no\n"));
    }
}
