//! An ssh daemon of a test's own that lets one key in.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pgherd::app::demo::programs;

use super::{SOON, eventually};

pub struct Sshd {
    daemon: Child,
    key: PathBuf,
}

impl Sshd {
    /// The program, if this machine can run one.
    pub fn installed() -> Option<PathBuf> {
        // Only root's daemon lets anybody in; its folder is seldom on the path.
        let usual = PathBuf::from("/usr/sbin/sshd");
        Some(usual)
            .filter(|path| path.is_file())
            .or_else(|| programs::on_path("sshd"))
            .filter(|_| nix::unistd::geteuid().is_root())
    }

    /// Listens at `address` (HOST:PORT) when this returns; `spawn` starts it where the test wants it. Keys and log are kept in `folder`.
    pub fn start(program: &Path, folder: &Path, address: &str, spawn: impl FnOnce(&mut Command) -> Child) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::create_dir_all("/run/sshd").expect("where it looks for its empty folder");
        for name in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name));
            programs::succeed(&mut command, &[], SOON).expect("a key");
        }
        let log = folder.join("log");
        let mut command = Command::new(program);
        command.args(["-D", "-f", "/dev/null", "-h"]).arg(folder.join("host")).arg("-E").arg(&log);
        for option in [
            format!("AuthorizedKeysFile={}", folder.join("user.pub").display()),
            format!("ListenAddress={address}"),
            "StrictModes=no".to_owned(),
            "PidFile=none".to_owned(),
            "PermitRootLogin=yes".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        let daemon = spawn(command.stdin(Stdio::null()));
        let started = Self { daemon, key: folder.join("user") };
        eventually("the ssh daemon listens", || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("Server listening"))
        });
        started
    }

    /// What `ssh` has to be told to get in.
    pub fn options(&self) -> String {
        format!("-i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null", self.key.display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
