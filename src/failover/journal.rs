//! The state directory: the journal, and the originals of what recruiting changes (HA H5, H13). Every write is synced before it counts.
//! Owner: `runner`. Must not judge what it keeps.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::engine::Journal;
use crate::cluster::NodeId;

const NAME: &str = "failover.json";

/// See the head of the file.
#[derive(Debug, Clone)]
pub struct Store {
    folder: Option<PathBuf>,
}

impl Store {
    /// The folder is made if it is missing, for its owner alone.
    ///
    /// # Errors
    /// It cannot be made or read, or what it keeps is no journal of ours.
    pub fn open(folder: &Path) -> io::Result<(Self, Journal)> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let store = Self { folder: Some(folder.to_owned()) };
        let journal = match fs::read(folder.join(NAME)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Journal::default(),
            Err(error) => return Err(error),
        };
        // Whether it can be written is found out now and not in the middle of a failover.
        store.write(NAME, &serde_json::to_vec_pretty(&journal)?)?;
        Ok((store, journal))
    }

    /// Nothing is kept: for who promotes nobody.
    pub fn forgetful() -> Self {
        Self { folder: None }
    }

    /// Is anything kept?
    pub fn keeps(&self) -> bool {
        self.folder.is_some()
    }

    /// Keeps the journal.
    ///
    /// # Errors
    /// It is not on disk, or nobody knows.
    pub fn save(&self, journal: &Journal) -> io::Result<()> {
        self.write(NAME, &serde_json::to_vec_pretty(journal)?)
    }

    /// Keeps the original `primary_conninfo` of a node and the file that it came from.
    ///
    /// # Errors
    /// It is not on disk, or nobody knows.
    pub fn keep(&self, node: NodeId, conninfo: &str, source: &str) -> io::Result<()> {
        let kept = serde_json::json!({ "primary_conninfo": conninfo, "source": source });
        self.write(&original(node), &serde_json::to_vec_pretty(&kept)?)
    }

    /// The kept original of a node: value and source.
    pub fn kept(&self, node: NodeId) -> Option<(String, String)> {
        let bytes = fs::read(self.folder.as_ref()?.join(original(node))).ok()?;
        let kept: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let text = |name: &str| kept.get(name)?.as_str().map(str::to_owned);
        Some((text("primary_conninfo")?, text("source")?))
    }

    /// It is restored: the original is of no use any more.
    pub fn forget(&self, node: NodeId) {
        if let Some(folder) = &self.folder {
            // Left behind it does no harm: the marker alone says that something is to be restored.
            let _ = fs::remove_file(folder.join(original(node)));
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let temporary = folder.join(format!("{name}.new"));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(name))?;
        File::open(folder)?.sync_all()
    }
}

fn original(node: NodeId) -> String {
    format!("recruited-{node}.json")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn h13_what_is_kept_comes_back_and_is_its_owners_alone() {
        let folder = std::env::temp_dir().join(format!("pgherd-journal-{}", std::process::id()));
        let (store, journal) = Store::open(&folder).expect("a new folder");
        assert_eq!(journal, Journal::default());
        let written = Journal { epoch: 7, primary: Some(2), detached: vec![1], ..Journal::default() };
        store.save(&written).expect("written");
        store.keep(NodeId(3), "host=a", "/etc/x.conf").expect("written");
        let (store, read) = Store::open(&folder).expect("there");
        assert_eq!(read, written);
        assert_eq!(store.kept(NodeId(3)), Some(("host=a".to_owned(), "/etc/x.conf".to_owned())));
        for name in [NAME.to_owned(), original(NodeId(3))] {
            let mode = fs::metadata(folder.join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        store.forget(NodeId(3));
        assert_eq!(store.kept(NodeId(3)), None);
        fs::write(folder.join(NAME), "not a journal").expect("written");
        assert!(Store::open(&folder).is_err());
        fs::remove_dir_all(&folder).expect("ours");
    }
}
