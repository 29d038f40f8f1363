//! What must survive the process: written and synced in order, the newest alone if several wait (HA H18). Blocks no thread that others
//! need. Must not judge what it keeps.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::super::engine::Kept;
use crate::support::clock::Duration;

const NAME: &str = "watchdog.json";
/// After a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// The state directory.
#[derive(Debug, Clone)]
pub struct Disk(PathBuf);

impl Disk {
    /// The folder is made if it is missing, for its owner alone.
    ///
    /// # Errors
    /// It cannot be made, read or written, or what it keeps is not ours.
    pub fn open(folder: &Path) -> io::Result<(Self, Kept)> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let kept = match fs::read(folder.join(NAME)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        let disk = Self(folder.to_owned());
        // Whether it can be written is found out now, and not when a vote depends on it.
        disk.write(&kept)?;
        Ok((disk, kept))
    }

    /// Fails as a bug would, if a test asks for it by a file of that name here (SCENARIOS S18). Not in a released program.
    #[cfg(debug_assertions)]
    pub(super) fn fail_if_asked(&self, name: &str) {
        assert!(fs::remove_file(self.0.join(name)).is_err(), "a test has asked for a failure");
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let temporary = self.0.join(format!("{NAME}.new"));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_all()?;
        fs::rename(&temporary, self.0.join(NAME))?;
        File::open(&self.0)?.sync_all()
    }

    /// Writes each newest order and tells its number when it is on disk, until nobody gives orders any more. `tell` hears of each attempt.
    pub(super) async fn serve(
        self,
        mut orders: watch::Receiver<(u64, Kept)>,
        done: mpsc::Sender<u64>,
        tell: impl Fn(io::Result<()>),
    ) {
        while orders.changed().await.is_ok() {
            loop {
                let (number, kept) = orders.borrow_and_update().clone();
                let disk = self.clone();
                let written = tokio::task::spawn_blocking(move || disk.write(&kept)).await;
                match written.unwrap_or_else(|lost| Err(io::Error::other(lost))) {
                    Ok(()) => {
                        tell(Ok(()));
                        if done.send(number).await.is_err() {
                            return;
                        }
                        break;
                    }
                    // No vote leaves meanwhile.
                    Err(error) => tell(Err(error)),
                }
                sleep(AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::watchdog::engine::{MemberId, Term};

    #[tokio::test]
    async fn h18_a_vote_comes_back_and_the_newest_of_many_is_told() {
        let folder = std::env::temp_dir().join(format!("pgherd-votes-{}", std::process::id()));
        let (disk, kept) = Disk::open(&folder).expect("a new folder");
        assert_eq!(kept, Kept::default());
        let (order, orders) = watch::channel((0, Kept::default()));
        let (done, mut told) = mpsc::channel(4);
        let of = |term| Kept { term: Term(term), vote: Some(MemberId(1)), ..Kept::default() };
        for number in 1..=20 {
            order.send_replace((number, of(number * 256)));
        }
        let serving = disk.serve(orders, done, |written| written.expect("a good disk"));
        let watching = async {
            while told.recv().await.expect("it is told") < 20 {}
            drop(order);
        };
        tokio::join!(serving, watching);
        let (_, kept) = Disk::open(&folder).expect("there");
        assert_eq!(kept, of(20 * 256));
        let mode = fs::metadata(folder.join(NAME)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.join(NAME), "not ours").expect("written");
        assert!(Disk::open(&folder).is_err(), "a vote that cannot be read was perhaps given");
        fs::remove_dir_all(&folder).expect("ours");
    }
}
