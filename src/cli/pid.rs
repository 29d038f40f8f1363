//! The file with the number of the running process. Its lock is what counts: the kernel lets go of it when the process
//! dies, however it dies, so a file left behind by a killed one stops nobody (S30).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{Pid, geteuid};

/// Held as long as the process serves; its drop removes the file.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Open and locked; closed only with the process or by drop.
    _lock: Flock<File>,
}

/// Why the file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PidError {
    /// The process that it names is alive.
    #[error("{}: pgherd is running already (process {pid})", path.display())]
    Running {
        /// The file.
        path: PathBuf,
        /// What it says.
        pid: Pid,
    },
    /// No process holds it.
    #[error("{}: pgherd is not running", path.display())]
    NotRunning {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to somebody else: a file in a public folder must not decide whom we signal or whether we start.
    #[error("{}: belongs to user {owner}; set `pid_file` to a file of your own", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It could not be made, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl PidFile {
    /// Takes the file for this process.
    ///
    /// # Errors
    /// [`PidError::Running`] only while the other one really is alive.
    pub fn acquire(path: &Path) -> Result<Self, PidError> {
        let io = |source| PidError::File { path: path.to_owned(), source };
        loop {
            let file = open(path, true)?;
            let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    return Err(PidError::Running { path: path.to_owned(), pid: read(&mut file, path)? });
                }
                Err((_, errno)) => return Err(io(errno.into())),
            };
            // Between our open and our lock its last owner may have removed it: then we hold a file without a name.
            let ours = lock.metadata().map_err(io)?.ino();
            if std::fs::metadata(path).is_ok_and(|named| named.ino() == ours) {
                lock.set_len(0).map_err(io)?;
                writeln!(lock, "{}", std::process::id()).map_err(io)?;
                return Ok(Self { path: path.to_owned(), _lock: lock });
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Failing leaves an unlocked file behind, which stops nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The process that holds the file now.
///
/// # Errors
/// [`PidError::NotRunning`] if nobody does, whatever the file says.
pub fn running(path: &Path) -> Result<Pid, PidError> {
    let mut file = match open(path, false) {
        Err(PidError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(PidError::NotRunning { path: path.to_owned() });
        }
        other => other?,
    };
    let pid = read(&mut file, path);
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Err(PidError::NotRunning { path: path.to_owned() }),
        Err((_, Errno::EWOULDBLOCK)) => pid,
        Err((_, errno)) => Err(PidError::File { path: path.to_owned(), source: errno.into() }),
    }
}

fn open(path: &Path, create: bool) -> Result<File, PidError> {
    let io = |source| PidError::File { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(create)
        .create(create)
        .mode(0o644)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .map_err(io)?;
    let owner = file.metadata().map_err(io)?.uid();
    let me = geteuid();
    if owner == me.as_raw() || owner == 0 || me.is_root() {
        return Ok(file);
    }
    Err(PidError::Foreign { path: path.to_owned(), owner })
}

fn read(file: &mut File, path: &Path) -> Result<Pid, PidError> {
    let mut text = String::new();
    let io = |source| PidError::File { path: path.to_owned(), source };
    file.take(32).read_to_string(&mut text).map_err(io)?;
    let number = text.trim().parse::<i32>().ok().filter(|number| *number > 1);
    let bad = || io(std::io::Error::new(std::io::ErrorKind::InvalidData, "does not hold the number of a process"));
    number.map(Pid::from_raw).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("pgherd-pid-{name}-{}", std::process::id()))
    }

    #[test]
    fn s30_only_a_live_process_stands_in_the_way() {
        let path = path("s30");
        // A killed predecessor left its file, with the number of a process that is alive but is not it.
        std::fs::write(&path, "1\n").expect("written");
        assert!(matches!(running(&path), Err(PidError::NotRunning { .. })));
        let held = PidFile::acquire(&path).expect("stale");
        assert_eq!(running(&path).expect("ours").as_raw(), std::process::id() as i32);
        let second = PidFile::acquire(&path).expect_err("held").to_string();
        assert!(second.contains("running already") && second.contains(&std::process::id().to_string()), "{second}");
        drop(held);
        assert!(!path.exists());
        assert!(matches!(running(&path), Err(PidError::NotRunning { .. })));
    }

    #[test]
    fn a_link_is_not_followed() {
        let (link, target) = (path("link"), path("target"));
        std::fs::write(&target, "precious").expect("written");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        assert!(matches!(PidFile::acquire(&link), Err(PidError::File { .. })));
        assert_eq!(std::fs::read_to_string(&target).expect("read"), "precious");
        std::fs::remove_file(&link).expect("removed");
        std::fs::remove_file(&target).expect("removed");
    }
}
