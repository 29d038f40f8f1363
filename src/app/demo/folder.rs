//! A temporary folder that goes away with the process that made it, however that process ends.
//!
//! A small shell process stands beside us and reads from a pipe that only we hold. When we drop the folder, exit,
//! panic or are killed, the pipe closes; then it ends every process that works in the folder and removes it.
//! Must not be used for data that anyone wants to keep.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::unistd::{Gid, Uid};

use super::{Error, programs};

/// PostgreSQL removes its shared memory when it ends by SIGQUIT; one that was frozen must be woken to hear it. What
/// is left of servers that were killed is a SysV segment, named by line 7 of `postmaster.pid`.
const SCRIPT: &str = r#"
cat >/dev/null
inside() {
    for p in $(find /proc/[0-9]* -maxdepth 1 -name cwd '(' -lname "$1" -o -lname "$1/*" ')' 2>/dev/null); do
        p=${p#/proc/}; echo "${p%/cwd}"
    done
}
try=0
while left=$(inside "$1"); [ -n "$left" ] && [ $try -lt 60 ]; do
    if [ $try -lt 30 ]; then kill -QUIT $left 2>/dev/null; kill -CONT $left 2>/dev/null
    else kill -KILL $left 2>/dev/null; fi
    try=$((try + 1)); sleep 0.1
done
for f in "$1"/*/postmaster.pid; do
    [ -f "$f" ] || continue
    set -- "$1" $(sed -n 7p "$f")
    [ -n "$3" ] && ipcrm -m "$3" 2>/dev/null
done
try=0
while [ -e "$1" ] && [ $try -lt 20 ]; do rm -rf "$1" 2>/dev/null; try=$((try + 1)); [ -e "$1" ] && sleep 0.1; done
"#;

/// Who owns the folder and runs in it.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// User and group to become; `None` when we are an ordinary user, who stays what they are.
    become_ids: Option<(Uid, Gid)>,
}

impl Owner {
    /// Ourselves, or `nobody` when we are root: PostgreSQL refuses to run as root. Not `postgres`, because a demo that lets
    /// everyone in must not open the door to the files of a real cluster on the same machine.
    ///
    /// # Errors
    /// [`Error::NoOwner`] when we are root and there is no such user.
    pub fn unprivileged() -> Result<Self, Error> {
        if !Uid::effective().is_root() {
            return Ok(Self { become_ids: None });
        }
        let user = nix::unistd::User::from_name("nobody").ok().flatten().ok_or(Error::NoOwner)?;
        Ok(Self { become_ids: Some((user.uid, user.gid)) })
    }

    /// Makes `command` run as this owner.
    pub fn dress(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.become_ids {
            command.uid(uid.as_raw()).gid(gid.as_raw()).env("HOME", "/");
        }
    }

    /// Gives `path` to this owner.
    ///
    /// # Errors
    /// [`Error::File`] when the file system refuses.
    pub fn take(&self, path: &Path) -> Result<(), Error> {
        let Some((uid, gid)) = self.become_ids else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
            .map_err(|source| Error::File { path: path.to_owned(), source })
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    owner: Owner,
    remover: Child,
    /// Closing it starts the removal.
    lifeline: Option<ChildStdin>,
}

impl Folder {
    /// Makes a fresh folder that only `owner` (and root) can read.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be made, [`Error::Start`] when there is no shell.
    pub fn new(owner: Owner) -> Result<Self, Error> {
        Self::new_in(&std::env::temp_dir(), owner)
    }

    /// Makes it in `parent` instead of the temporary folder.
    ///
    /// # Errors
    /// Those of [`Folder::new`].
    pub fn new_in(parent: &Path, owner: Owner) -> Result<Self, Error> {
        let path = fresh(parent)?;
        owner.take(&path)?;
        let spawned = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "pgherd-remover"])
            .arg(&path)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut remover = spawned.map_err(|source| Error::Start { program: "/bin/sh".to_owned(), source })?;
        let lifeline = remover.stdin.take();
        Ok(Self { path, owner, remover, lifeline })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // Left to itself it still does its work; nothing more can be done here.
        drop(programs::wait(&mut self.remover, Duration::from_secs(15)));
    }
}

/// Makes a folder under `parent` with a name that nobody had.
fn fresh(parent: &Path) -> Result<PathBuf, Error> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("pgherd-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::File { path, source }),
        }
    }
    let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
    Err(Error::File { path: parent.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_in_the_folder_ends_with_it() {
        let folder = Folder::new(Owner::unprivileged().expect("nobody exists")).expect("a folder");
        let path = folder.path().to_owned();
        let mut command = Command::new("sleep");
        folder.owner().dress(&mut command);
        let mut sleeper = command.arg("60").current_dir(&path).process_group(0).spawn().expect("sleep starts");
        drop(folder);
        assert!(!path.exists());
        let ended = programs::wait(&mut sleeper, Duration::from_secs(5)).expect("it is our child");
        assert!(ended.is_some(), "the process outlived its folder");
    }
}
