//! The record format.

use bytes::Bytes;
use prost::Message;
use proto::journal::{Entry, Record, SnapshotEnd, SnapshotStart, entry::Kind};

/// The format version that this release writes. It reads no other yet.
pub const FORMAT: u32 = 1;

/// A record can't be read. It is never skipped: the partition waits and alarms.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes are no protobuf record.
    #[error("the journal record is damaged: {0}")]
    Damaged(String),
    /// Written by a newer release.
    #[error("the journal record has format {0}, this release reads up to {FORMAT}")]
    UnknownFormat(u32),
    /// An entry of a kind that this release does not know.
    #[error("the journal record has an entry of an unknown kind")]
    UnknownEntry,
}

/// Reads a record.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let record = Record::decode(bytes).map_err(|error| DecodeError::Damaged(error.to_string()))?;
    if record.format == 0 {
        return Err(DecodeError::Damaged("no format version".into()));
    }
    if record.format > FORMAT {
        return Err(DecodeError::UnknownFormat(record.format));
    }
    if record.entries.iter().any(|entry| entry.kind.is_none()) {
        return Err(DecodeError::UnknownEntry);
    }
    Ok(record)
}

/// Writes a record.
pub fn encode(epoch: u64, now_ms: u64, replay_from: u64, entries: Vec<Entry>) -> Bytes {
    let record = Record {
        format: FORMAT,
        epoch,
        written_at_ms: now_ms,
        entries,
        replay_from,
    };
    record.encode_to_vec().into()
}

/// An entry of this kind.
pub fn entry(kind: Kind) -> Entry {
    Entry { kind: Some(kind) }
}

/// The first record of every journal, written when the stream is created: a complete snapshot of nothing.
/// A journal that does not begin with it, or with a later snapshot, has been lost.
pub fn genesis(now_ms: u64) -> Bytes {
    let start = SnapshotStart {
        snapshot_id: Bytes::from_static(b"genesis"),
        cursor: 0,
        quarantined_blocks: Vec::new(),
        ..SnapshotStart::default()
    };
    let end = SnapshotEnd {
        snapshot_id: Bytes::from_static(b"genesis"),
        start: 1,
    };
    encode(
        0,
        now_ms,
        1,
        vec![
            entry(Kind::SnapshotStart(start)),
            entry(Kind::SnapshotEnd(end)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        let record = decode(&genesis(7)).unwrap();
        assert_eq!(
            (
                record.format,
                record.written_at_ms,
                record.replay_from,
                record.entries.len()
            ),
            (FORMAT, 7, 1, 2)
        );
    }

    #[test]
    fn refuses_what_it_cannot_know() {
        assert!(matches!(
            decode(b"\xff\xff\xff"),
            Err(DecodeError::Damaged(_))
        ));
        assert!(matches!(decode(b""), Err(DecodeError::Damaged(_))));
        let newer = Record {
            format: FORMAT + 1,
            ..Default::default()
        };
        assert_eq!(
            decode(&newer.encode_to_vec()),
            Err(DecodeError::UnknownFormat(FORMAT + 1))
        );
        let unknown = Record {
            format: FORMAT,
            entries: vec![Entry { kind: None }],
            ..Default::default()
        };
        assert_eq!(
            decode(&unknown.encode_to_vec()),
            Err(DecodeError::UnknownEntry)
        );
    }
}
