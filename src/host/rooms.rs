//! Rooms that outlive the host: their names and the digests of their keys, in a file only its owner can read.

use super::config::HostError;
use crate::protocol::room::Rooms;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const ROOMS_FILE: &str = "host-rooms.json";

/// The file and what is in it.
pub(super) struct RoomsFile {
    path: PathBuf,
    written: Rooms,
}

impl RoomsFile {
    /// Reads what a host before has kept; nothing if there was none. A file that cannot be read is an error and left alone.
    pub(super) fn open(data_dir: &Path) -> Result<Self, HostError> {
        let path = data_dir.join(ROOMS_FILE);
        let unusable = |reason: String| HostError::Rooms { path: path.clone(), reason };
        std::fs::create_dir_all(data_dir)
            .map_err(|e| HostError::DataDir { path: data_dir.to_owned(), reason: e.to_string() })?;
        let written = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| unusable(e.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Rooms::default(),
            Err(error) => return Err(unusable(error.to_string())),
        };
        Ok(Self { path, written })
    }

    /// What is in it.
    pub(super) fn rooms(&self) -> Rooms {
        self.written.clone()
    }

    /// Writes `rooms` if they have changed: all or nothing. Some kilobytes without waiting for the disk, since all sockets wait meanwhile. What cannot be written is said in the log; the host goes on.
    pub(super) fn keep(&mut self, rooms: &Rooms) {
        if *rooms == self.written {
            return;
        }
        match self.write(rooms) {
            Ok(()) => self.written = rooms.clone(),
            Err(error) => tracing::warn!(%error, path = %self.path.display(), "the rooms could not be kept"),
        }
    }

    fn write(&self, rooms: &Rooms) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(rooms)?)?;
        file.persist(&self.path).map_err(|e| e.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_named_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(ROOMS_FILE);
        std::fs::write(&path, "nonsense").expect("written");
        let error = RoomsFile::open(folder.path()).err().expect("refused").to_string();
        assert!(error.contains(ROOMS_FILE), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "nonsense");
    }
}
