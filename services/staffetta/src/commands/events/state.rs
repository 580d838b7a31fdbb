//! How far the journals and the stream `EVENTS` are read, in a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The next sequence to read, by partition.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Positions {
    next: BTreeMap<u32, u64>,
    /// In the stream `EVENTS`; absent in a file of an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<u64>,
}

impl Positions {
    /// Reads the file; one that is not there yet means the beginning.
    pub(super) fn load(path: &Path) -> anyhow::Result<Self> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!("{}: not a state file of `staffetta events`", path.display())
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Replaces the file: a crash leaves the old one or the new one.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let draft = path.with_file_name(name);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&draft)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_data()?;
            fs::rename(&draft, path)
        };
        write().with_context(|| format!("{}: the position can't be written", path.display()))
    }

    /// The next sequence to read; `None` = never read.
    pub(super) fn next(&self, partition: u32) -> Option<u64> {
        self.next.get(&partition).copied()
    }

    /// The next sequence of `EVENTS` to read; `None` = never read.
    pub(super) fn next_told(&self) -> Option<u64> {
        self.told
    }

    /// The record of `EVENTS` is written.
    pub(super) fn advance_told(&mut self, sequence: u64) {
        self.told = Some(sequence + 1);
    }

    /// The record is written.
    pub(super) fn advance(&mut self, partition: u32, sequence: u64) {
        self.next.insert(partition, sequence + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back_and_a_foreign_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.state");
        assert_eq!(Positions::load(&path).unwrap(), Positions::default());
        let mut positions = Positions::default();
        positions.advance(0, 41);
        positions.advance(3, 7);
        positions.save(&path).unwrap();
        positions.advance(3, 8);
        positions.save(&path).unwrap();
        let read = Positions::load(&path).unwrap();
        assert_eq!(
            (read.next(0), read.next(1), read.next(3)),
            (Some(42), None, Some(9))
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read.next_told(), None);
        positions.advance_told(11);
        positions.save(&path).unwrap();
        assert_eq!(Positions::load(&path).unwrap().next_told(), Some(12));

        fs::write(&path, "kind: Tenant\n").unwrap();
        let error = Positions::load(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("events.state: not a state file of `staffetta events`"),
            "{error}"
        );
    }
}
