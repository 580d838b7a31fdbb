//! The simulated stores: a journal and a spool for each partition, with the rules of the real ones.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::spool::BlockIndex;

/// A fenced log.
#[derive(Default)]
pub struct Log {
    pub records: BTreeMap<u64, (String, Bytes)>,
    /// All that was ever stored, for readers that the owner's trimming does not concern.
    pub written: Vec<Bytes>,
    pub last: u64,
}

pub enum Appended {
    Stored(u64),
    WrongLast,
}

impl Log {
    pub fn append(&mut self, record: Bytes, id: &str, expected_last: u64) -> Appended {
        if let Some((sequence, _)) = self
            .records
            .iter()
            .rev()
            .take(64)
            .find(|(_, (stored, _))| stored == id)
        {
            return Appended::Stored(*sequence);
        }
        if expected_last != self.last {
            return Appended::WrongLast;
        }
        self.last += 1;
        self.written.push(record.clone());
        self.records.insert(self.last, (id.to_owned(), record));
        Appended::Stored(self.last)
    }

    pub fn purge_below(&mut self, sequence: u64) {
        self.records = self.records.split_off(&sequence);
    }
}

/// Blocks by sequence.
#[derive(Default)]
pub struct Spool {
    pub blocks: BTreeMap<u64, BlockIndex>,
    pub last: u64,
    /// The last purge that was checked.
    pub checked_below: u64,
}

impl Spool {
    pub fn store(&mut self, index: BlockIndex) -> u64 {
        self.last += 1;
        self.blocks.insert(self.last, index);
        self.last
    }

    pub fn purge_below(&mut self, sequence: u64) {
        self.blocks = self.blocks.split_off(&sequence);
    }
}
