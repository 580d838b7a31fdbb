//! What was submitted and what came of it: a file with one line for each event, on a machine that keeps
//! its power.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use mail::{MessageId, PartitionId, Place};
use spool::Stored;

/// Writes the file. A line is written before its event is counted, and nothing is buffered.
pub struct Ledger(Mutex<File>);

/// An acknowledged message.
pub struct Acknowledged {
    /// What the relay would note of it.
    pub stored: Stored,
    /// Bytes of its content.
    pub length: usize,
    /// CRC-32C of its content.
    pub crc: u32,
}

/// The ledger read back.
#[derive(Default)]
pub struct Entries {
    /// Messages whose storing was reported.
    pub acknowledged: HashMap<MessageId, Acknowledged>,
    /// All messages handed in.
    pub submitted: HashSet<MessageId>,
    /// Messages that certainly were not stored, says the writer.
    pub refused: HashSet<MessageId>,
    /// Acknowledged records of the journals: place, length, CRC-32C. After a loss a place may be taken twice.
    pub journal: Vec<((PartitionId, u64), (usize, u32))>,
}

impl Ledger {
    /// Goes on with the file, or begins it.
    pub fn append(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Self(Mutex::new(
            file.with_context(|| path.display().to_string())?,
        )))
    }

    fn line(&self, line: String) -> Result<()> {
        let mut file = self.0.lock().expect("no writer of the ledger panics");
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }

    pub fn submitted(&self, id: MessageId) -> Result<()> {
        self.line(format!("submitted {id}"))
    }

    pub fn refused(&self, id: MessageId) -> Result<()> {
        self.line(format!("refused {id}"))
    }

    pub fn acknowledged(&self, id: MessageId, stored: Stored, content: &[u8]) -> Result<()> {
        let Stored {
            partition,
            place: Place { sequence, index },
        } = stored;
        let (length, crc) = (content.len(), crc32c::crc32c(content));
        self.line(format!(
            "acknowledged {id} {partition} {sequence} {index} {length} {crc}"
        ))
    }

    pub fn appended(&self, partition: PartitionId, sequence: u64, record: &[u8]) -> Result<()> {
        self.line(format!(
            "appended {partition} {sequence} {} {}",
            record.len(),
            crc32c::crc32c(record)
        ))
    }
}

impl Entries {
    /// Reads the file. A last line without its end was being written when the client was ended.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut entries = Self::default();
        for line in text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
        {
            entries
                .take(line)
                .with_context(|| format!("in the ledger: {line}"))?;
        }
        Ok(entries)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        let mut next = || words.next().context("too short");
        match next()? {
            "submitted" => _ = self.submitted.insert(next()?.parse()?),
            "refused" => _ = self.refused.insert(next()?.parse()?),
            "acknowledged" => {
                let id = next()?.parse()?;
                let partition = PartitionId(next()?.parse()?);
                let place = Place {
                    sequence: next()?.parse()?,
                    index: next()?.parse()?,
                };
                let (length, crc) = (next()?.parse()?, next()?.parse()?);
                self.acknowledged.insert(
                    id,
                    Acknowledged {
                        stored: Stored { partition, place },
                        length,
                        crc,
                    },
                );
            }
            "appended" => {
                let place = (PartitionId(next()?.parse()?), next()?.parse()?);
                self.journal
                    .push((place, (next()?.parse()?, next()?.parse()?)));
            }
            other => anyhow::bail!("unknown event {other}"),
        }
        Ok(())
    }
}
