//! The hatch: a Unix socket beside the pid file, by which the command line of this host asks the running process to reload, and hears what
//! came of it. For the process's own user and root alone; there without any administration port. Must not decide.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Pid, geteuid};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::net::connect_unix;
use crate::support::clock::Duration;

use super::pcp::Wish;

/// What can be asked.
const RELOAD: &[u8] = b"reload\n";
/// Who asks at a time; others wait in the socket's queue.
const MOST: usize = 4;
/// How long a client may take to ask, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an accept that failed for want of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(50);
/// How long the command line waits for a reload.
const RELOADING: Duration = Duration::from_secs(60);

/// The open hatch; its drop removes the socket.
pub(super) struct Hatch {
    listener: UnixListener,
    _name: Name,
}

/// The socket's file, as long as it is ours.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        // Who comes next removes what is left behind.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Beside the pid file.
fn place(pid_file: &Path) -> PathBuf {
    let mut name = OsString::from(pid_file);
    name.push(".sock");
    name.into()
}

/// A path that fits into a socket's address however long the folder's name is, good as long as the folder is open.
fn short(path: &Path) -> io::Result<(File, PathBuf)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, path))
}

impl Hatch {
    /// Opens it. Only for who holds the pid file, and within a runtime.
    ///
    /// # Errors
    /// The socket cannot be had.
    pub(super) fn open(pid_file: &Path) -> io::Result<Self> {
        let path = place(pid_file);
        let (_folder, short) = short(&path)?;
        // A dead process's, for the pid file is ours; what is somebody else's cannot be removed, and stands in the way.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&short)?;
        let name = Name(path);
        std::fs::set_permissions(&short, Permissions::from_mode(0o600))?;
        Ok(Self { listener, _name: name })
    }

    /// Serves until it is dropped, on the main thread.
    pub(super) async fn serve(self, wishes: mpsc::Sender<Wish>) {
        let places = Arc::new(Semaphore::new(MOST));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let wishes = wishes.clone();
                    tokio::spawn(async move {
                        // Who asked may have gone; what was asked is done all the same.
                        let _ = answer(stream, &wishes).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept at the hatch");
                    tokio::time::sleep(BREATHER).await;
                }
            }
        }
    }
}

async fn answer(mut stream: UnixStream, wishes: &mpsc::Sender<Wish>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let mut asked = [0; RELOAD.len()];
    let told = if uid != 0 && uid != geteuid().as_raw() {
        json!({ "refused": "only the user of the process, and root, may ask" })
    } else {
        timeout(PATIENCE, stream.read_exact(&mut asked)).await??;
        if asked == RELOAD {
            reload(uid, wishes).await
        } else {
            json!({ "refused": "nothing but a reload can be asked for" })
        }
    };
    timeout(PATIENCE, stream.write_all(format!("{told}\n").as_bytes())).await?
}

async fn reload(uid: u32, wishes: &mpsc::Sender<Wish>) -> Value {
    let (sender, outcome) = oneshot::channel();
    let ends = || json!({ "refused": "the process is about to end" });
    if wishes.send(Wish::Reload(format!("pgherd reload by user {uid}"), Some(sender))).await.is_err() {
        return ends();
    }
    match outcome.await {
        Ok(Ok(reloaded)) => json!({ "reloaded": reloaded.json() }),
        Ok(Err(why)) => json!({ "refused": why }),
        Err(_) => ends(),
    }
}

/// Why a reload was not heard of, or is none.
#[derive(Debug, thiserror::Error)]
pub enum Unheard {
    /// The process cannot be asked; a signal still reaches it.
    #[error("it cannot be asked: {0}")]
    Closed(io::Error),
    /// It was asked, and the connection was lost.
    #[error("it was asked to reload, and did not say what came of it: {0}")]
    Lost(io::Error),
    /// It says why it did not.
    #[error("{0}")]
    Refused(String),
}

/// Asks the process `pid`, which holds `pid_file`, to reload, and waits for what it says: as [`Reloaded::json`](crate::pcp::Reloaded::json).
///
/// # Errors
/// It is not reloaded, or nobody knows.
pub fn ask(pid_file: &Path, pid: Pid) -> Result<Value, Unheard> {
    let mut stream = connect(pid_file, pid).map_err(Unheard::Closed)?;
    stream.write_all(RELOAD).map_err(Unheard::Lost)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(Unheard::Lost)?;
    let lost = |error: serde_json::Error| Unheard::Lost(io::Error::new(io::ErrorKind::InvalidData, error));
    let mut told: Value = serde_json::from_str(&line).map_err(lost)?;
    match told["refused"].as_str() {
        Some(why) => Err(Unheard::Refused(why.to_owned())),
        None => Ok(told["reloaded"].take()),
    }
}

fn connect(pid_file: &Path, pid: Pid) -> io::Result<Blocking> {
    let (_folder, path) = short(&place(pid_file))?;
    let stream = connect_unix(&path, PATIENCE)?;
    // In a public folder anybody could have put a socket there.
    if getsockopt(&stream, PeerCredentials)?.pid() != pid.as_raw() {
        return Err(io::Error::other("the socket beside the pid file is another process's"));
    }
    stream.set_read_timeout(Some(RELOADING))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcp::Reloaded;

    /// The process's side, which answers so many times, in a folder whose name is too long for a socket's address.
    fn opened(folder: &Path, answers: Vec<Result<Reloaded, String>>) -> (PathBuf, std::thread::JoinHandle<()>) {
        let folder = folder.join("f".repeat(120));
        std::fs::create_dir_all(&folder).expect("a folder");
        let pid_file = folder.join("pid");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let hatch = {
            let _inside = runtime.enter();
            Hatch::open(&pid_file).expect("opened")
        };
        let serving = move || {
            let (wish, mut wishes) = mpsc::channel(1);
            runtime.spawn(hatch.serve(wish));
            for answer in answers {
                let Some(Wish::Reload(_, Some(sender))) = runtime.block_on(wishes.recv()) else { panic!("a reload") };
                sender.send(answer).expect("somebody waits");
            }
            // Until the last one has its answer.
            let _ = runtime.block_on(async { timeout(PATIENCE / 20, wishes.recv()).await });
        };
        (pid_file, std::thread::spawn(serving))
    }

    /// Removed however the test ends.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn who_asks_hears_what_came_of_it() {
        let kept = Folder(std::env::temp_dir().join(format!("pgherd-hatch-{}", std::process::id())));
        let folder = &kept.0;
        let left = Reloaded { left: vec!["later".to_owned()], ..Reloaded::default() };
        let (pid_file, serving) = opened(folder, vec![Ok(left), Err("a bad file".to_owned())]);
        let told = ask(&pid_file, Pid::this()).expect("reloaded");
        assert_eq!(told["text"], "reloaded: nothing has changed; later");
        assert!(matches!(ask(&pid_file, Pid::this()), Err(Unheard::Refused(why)) if why == "a bad file"));
        let other = ask(&pid_file, Pid::from_raw(1));
        assert!(
            matches!(&other, Err(Unheard::Closed(error)) if error.to_string().contains("another process")),
            "{other:?}"
        );
        let mut stranger = connect(&pid_file, Pid::this()).expect("it is there");
        stranger.write_all(b"restart").expect("sent");
        let mut answer = String::new();
        BufReader::new(stranger).read_line(&mut answer).expect("an answer");
        assert!(answer.contains("nothing but a reload"), "{answer}");
        serving.join().expect("it ends");
        assert!(matches!(ask(&pid_file, Pid::this()), Err(Unheard::Closed(_))), "gone with its process");
        assert!(!place(&pid_file).exists());
    }
}
