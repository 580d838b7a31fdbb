//! The fenced writer of a partition's journal.
//!
//! Every record is published with the last sequence that the writer expects in the stream and with a fixed
//! id, one in flight. A lost reply is answered by sending the same record again; a refusal for the sequence
//! by reading the tail: if the tail is our record it was stored, if it is anything else another scheduler
//! has claimed the partition and this writer is finished.

use bytes::Bytes;
use prost::Message as _;
use proto::journal::{Claim, Entry, Record, entry::Kind};

use crate::record::{decode, encode, entry};

/// Entries per record at most.
const MAX_ENTRIES: usize = 1024;
/// Bytes of entries from which a record takes no more: the server refuses what is larger than its `max_payload`
/// (8 MiB), and a record that is refused for its size would hold the journal up for ever.
const MAX_BYTES: usize = 1024 * 1024;

/// A record to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Its bytes.
    pub record: Bytes,
    /// Its Nats-Msg-Id, the same at every repetition.
    pub id: String,
    /// The publish is refused unless the stream's last sequence is this.
    pub expected_last: u64,
}

/// The newest record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Its stream sequence.
    pub sequence: u64,
    /// Its Nats-Msg-Id; empty when it has none.
    pub id: String,
    /// Its bytes.
    pub record: Bytes,
}

/// What the store answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriterEvent {
    /// The record in flight is stored (or was already).
    Stored(u64),
    /// The stream's last sequence is another.
    WrongLastSequence,
    /// No answer, or one that leaves open whether the record was stored.
    Unknown,
    /// The stream is full; the record was not stored.
    Full,
    /// The tail that was asked for; `None` when the journal is empty.
    Tail(Option<Tail>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriterEffect {
    /// Publish this record. `again` is set for a repetition, which should wait a moment.
    Append {
        /// What to publish.
        append: Append,
        /// It has been tried before.
        again: bool,
    },
    /// Read the tail.
    ReadTail,
    /// The claim is stored: this writer owns the journal.
    Claimed(Claimed),
    /// The oldest record is stored, with this many entries.
    Stored {
        /// Its sequence.
        sequence: u64,
        /// Entries in it.
        entries: usize,
    },
    /// The partition is not ours (any more).
    Lost(Lost),
}

/// A stored claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Stream sequence of the claim.
    pub epoch: u64,
    /// Where replay begins; it ends at the claim.
    pub replay_from: u64,
}

/// Why a writer gave up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Another scheduler wrote.
    #[error("another scheduler claimed the partition (record {sequence})")]
    Fenced {
        /// Sequence of its record.
        sequence: u64,
    },
    /// There is no record, not even the first: the journal was lost.
    #[error("the journal is empty: it was lost or never initialised")]
    Empty,
    /// The tail can't be read by this release.
    #[error("the newest journal record cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Debug)]
enum State {
    /// Asked for the tail, to claim after it.
    ClaimReadsTail,
    /// The claim is in flight.
    Claiming(Append, u64),
    /// A claim was refused or its reply is lost; the tail tells.
    ClaimChecksTail,
    Idle,
    InFlight(Append, usize),
    /// The tail was asked for after a refusal of this record.
    ChecksTail(Append, usize),
    Lost,
}

/// See the module.
#[derive(Debug)]
pub struct Writer {
    state: State,
    scheduler_id: String,
    claim_id: String,
    /// Stream sequence of the newest record known.
    last: u64,
    epoch: u64,
    replay_from: u64,
    records: u64,
    pending: Vec<Entry>,
}

impl Writer {
    /// A writer that will claim the partition. `claim_id` is unique per claim.
    pub fn new(scheduler_id: impl Into<String>, claim_id: impl Into<String>) -> Self {
        Self {
            state: State::Lost,
            scheduler_id: scheduler_id.into(),
            claim_id: claim_id.into(),
            last: 0,
            epoch: 0,
            replay_from: 0,
            records: 0,
            pending: Vec::new(),
        }
    }

    /// Begins the claim.
    pub fn claim(&mut self) -> WriterEffect {
        self.state = State::ClaimReadsTail;
        WriterEffect::ReadTail
    }

    /// Sequence of the claim; 0 before it is stored.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Sequence of the newest record that is known to be stored.
    pub fn last_sequence(&self) -> u64 {
        self.last
    }

    /// Where replay would begin now.
    pub fn replay_from(&self) -> u64 {
        self.replay_from
    }

    /// Adds an entry to the next record.
    pub fn push(&mut self, kind: Kind) {
        self.pending.push(entry(kind));
    }

    /// Entries that no record carries yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether a record could be sent now.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Packs what is pending into a record, if none is in flight.
    pub fn flush(&mut self, now_ms: u64) -> Option<WriterEffect> {
        if !self.is_idle() || self.pending.is_empty() {
            return None;
        }
        let count = self.fitting();
        let rest = self.pending.split_off(count);
        let entries = std::mem::replace(&mut self.pending, rest);
        self.records += 1;
        // The record that completes a snapshot says so itself: after it the older records may be trimmed at once.
        for entry in &entries {
            if let Some(Kind::SnapshotEnd(end)) = &entry.kind {
                self.replay_from = end.start;
            }
        }
        let append = Append {
            record: encode(self.epoch, now_ms, self.replay_from, entries),
            id: format!("{}.{}", self.claim_id, self.records),
            expected_last: self.last,
        };
        self.state = State::InFlight(append.clone(), count);
        Some(WriterEffect::Append {
            append,
            again: false,
        })
    }

    /// How many of the pending entries go into the next record: at least one.
    fn fitting(&self) -> usize {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.encoded_len();
            bytes <= MAX_BYTES
        };
        self.pending
            .iter()
            .take(MAX_ENTRIES)
            .take_while(fits)
            .count()
            .max(1)
    }

    /// Takes an answer of the store.
    pub fn step(&mut self, now_ms: u64, event: WriterEvent) -> Option<WriterEffect> {
        let state = std::mem::replace(&mut self.state, State::Lost);
        match (state, event) {
            (State::ClaimReadsTail, WriterEvent::Tail(tail)) => self.claim_after(now_ms, tail),
            (State::Claiming(_, replay_from), WriterEvent::Stored(sequence)) => {
                Some(self.claimed(sequence, replay_from))
            }
            (State::ClaimChecksTail, WriterEvent::Tail(Some(tail))) if tail.id == self.claim_id => {
                let replay_from = decode(&tail.record)
                    .map(|record| record.replay_from)
                    .unwrap_or(0);
                Some(self.claimed(tail.sequence, replay_from))
            }
            (State::ClaimChecksTail, WriterEvent::Tail(tail)) => self.claim_after(now_ms, tail),
            (State::Claiming(..), WriterEvent::WrongLastSequence) => {
                self.state = State::ClaimChecksTail;
                Some(WriterEffect::ReadTail)
            }
            (State::Claiming(append, from), WriterEvent::Unknown | WriterEvent::Full) => {
                self.state = State::Claiming(append.clone(), from);
                Some(WriterEffect::Append {
                    append,
                    again: true,
                })
            }
            (State::ClaimReadsTail, WriterEvent::Unknown) => {
                self.state = State::ClaimReadsTail;
                Some(WriterEffect::ReadTail)
            }
            (State::ClaimChecksTail, WriterEvent::Unknown) => {
                self.state = State::ClaimChecksTail;
                Some(WriterEffect::ReadTail)
            }
            (State::InFlight(_, entries), WriterEvent::Stored(sequence)) => {
                Some(self.stored(sequence, entries))
            }
            (State::InFlight(append, entries), WriterEvent::Unknown | WriterEvent::Full) => {
                self.state = State::InFlight(append.clone(), entries);
                Some(WriterEffect::Append {
                    append,
                    again: true,
                })
            }
            (State::InFlight(append, entries), WriterEvent::WrongLastSequence) => {
                self.state = State::ChecksTail(append, entries);
                Some(WriterEffect::ReadTail)
            }
            (State::ChecksTail(append, entries), WriterEvent::Tail(Some(tail)))
                if tail.id == append.id =>
            {
                Some(self.stored(tail.sequence, entries))
            }
            (State::ChecksTail(..), WriterEvent::Tail(tail)) => {
                Some(self.lose(tail.map_or(Lost::Empty, |tail| Lost::Fenced {
                    sequence: tail.sequence,
                })))
            }
            (State::ChecksTail(append, entries), WriterEvent::Unknown) => {
                self.state = State::ChecksTail(append, entries);
                Some(WriterEffect::ReadTail)
            }
            // An answer to a question that is settled: late, and without meaning now.
            (state, _) => {
                self.state = state;
                None
            }
        }
    }

    fn claim_after(&mut self, now_ms: u64, tail: Option<Tail>) -> Option<WriterEffect> {
        let Some(tail) = tail else {
            return Some(self.lose(Lost::Empty));
        };
        let newest: Record = match decode(&tail.record) {
            Ok(record) => record,
            Err(error) => return Some(self.lose(Lost::Unreadable(error.to_string()))),
        };
        let claim = Claim {
            scheduler_id: self.scheduler_id.clone(),
            claim_id: Bytes::from(self.claim_id.clone()),
        };
        let append = Append {
            record: encode(
                0,
                now_ms,
                newest.replay_from,
                vec![entry(Kind::Claim(claim))],
            ),
            // The same id at every repetition: a claim that was stored after all is found by it.
            id: self.claim_id.clone(),
            expected_last: tail.sequence,
        };
        self.state = State::Claiming(append.clone(), newest.replay_from);
        Some(WriterEffect::Append {
            append,
            again: false,
        })
    }

    fn claimed(&mut self, sequence: u64, replay_from: u64) -> WriterEffect {
        self.state = State::Idle;
        self.last = sequence;
        self.epoch = sequence;
        self.replay_from = replay_from;
        WriterEffect::Claimed(Claimed {
            epoch: sequence,
            replay_from,
        })
    }

    fn stored(&mut self, sequence: u64, entries: usize) -> WriterEffect {
        self.state = State::Idle;
        self.last = sequence;
        WriterEffect::Stored { sequence, entries }
    }

    fn lose(&mut self, lost: Lost) -> WriterEffect {
        self.state = State::Lost;
        self.pending.clear();
        WriterEffect::Lost(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::genesis;
    use proto::journal::{DsnSpooled, SnapshotEnd};

    fn tail(sequence: u64, id: &str) -> WriterEvent {
        WriterEvent::Tail(Some(Tail {
            sequence,
            id: id.into(),
            record: genesis(0),
        }))
    }

    fn claimed() -> Writer {
        let mut writer = Writer::new("s1", "claim-1");
        assert_eq!(writer.claim(), WriterEffect::ReadTail);
        assert!(matches!(
            writer.step(0, tail(1, "")),
            Some(WriterEffect::Append { .. })
        ));
        assert_eq!(
            writer.step(0, WriterEvent::Stored(2)),
            Some(WriterEffect::Claimed(Claimed {
                epoch: 2,
                replay_from: 1
            }))
        );
        writer
    }

    fn in_flight() -> (Writer, Append) {
        let mut writer = claimed();
        writer.push(Kind::DsnSpooled(DsnSpooled::default()));
        match writer.flush(0) {
            Some(WriterEffect::Append {
                append,
                again: false,
            }) => (writer, append),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn claims_after_the_tail_and_again_after_a_newer_one() {
        let mut writer = Writer::new("s1", "claim-1");
        writer.claim();
        let Some(WriterEffect::Append { append, .. }) = writer.step(0, tail(5, "x")) else {
            panic!()
        };
        assert_eq!(append.expected_last, 5);
        assert_eq!(
            writer.step(0, WriterEvent::WrongLastSequence),
            Some(WriterEffect::ReadTail)
        );
        let Some(WriterEffect::Append { append, .. }) = writer.step(0, tail(6, "y")) else {
            panic!()
        };
        assert_eq!(append.expected_last, 6);
        assert!(
            matches!(writer.step(0, WriterEvent::Stored(7)), Some(WriterEffect::Claimed(c)) if c.epoch == 7)
        );
    }

    #[test]
    fn finds_a_claim_whose_reply_was_lost() {
        let mut writer = Writer::new("s1", "claim-1");
        writer.claim();
        writer.step(0, tail(5, "x"));
        assert!(matches!(
            writer.step(0, WriterEvent::Unknown),
            Some(WriterEffect::Append { again: true, .. })
        ));
        assert_eq!(
            writer.step(0, WriterEvent::WrongLastSequence),
            Some(WriterEffect::ReadTail)
        );
        assert!(
            matches!(writer.step(0, tail(6, "claim-1")), Some(WriterEffect::Claimed(c)) if c.epoch == 6)
        );
    }

    #[test]
    fn does_not_claim_an_empty_journal() {
        let mut writer = Writer::new("s1", "claim-1");
        writer.claim();
        assert_eq!(
            writer.step(0, WriterEvent::Tail(None)),
            Some(WriterEffect::Lost(Lost::Empty))
        );
    }

    #[test]
    fn keeps_one_record_in_flight_and_packs_the_rest() {
        let (mut writer, append) = in_flight();
        assert_eq!(append.expected_last, 2);
        writer.push(Kind::DsnSpooled(DsnSpooled::default()));
        writer.push(Kind::DsnSpooled(DsnSpooled::default()));
        assert_eq!(writer.flush(0), None);
        assert_eq!(
            writer.step(0, WriterEvent::Stored(3)),
            Some(WriterEffect::Stored {
                sequence: 3,
                entries: 1
            })
        );
        let Some(WriterEffect::Append { append, .. }) = writer.flush(0) else {
            panic!()
        };
        assert_eq!(append.expected_last, 3);
        assert_eq!(decode(&append.record).unwrap().entries.len(), 2);
    }

    #[test]
    fn a_record_stays_far_below_the_largest_that_the_server_takes() {
        let mut writer = claimed();
        let large = || {
            Kind::DsnSpooled(DsnSpooled {
                dsn_message_id: vec![0; 300 * 1024].into(),
                ..DsnSpooled::default()
            })
        };
        (0..7).for_each(|_| writer.push(large()));
        let mut counts = Vec::new();
        let mut sequence = 2;
        while let Some(WriterEffect::Append { append, .. }) = writer.flush(0) {
            counts.push(decode(&append.record).unwrap().entries.len());
            sequence += 1;
            writer.step(0, WriterEvent::Stored(sequence));
        }
        assert_eq!(counts, [3, 3, 1]);
        // What is too large by itself goes alone.
        writer.push(Kind::DsnSpooled(DsnSpooled {
            dsn_message_id: vec![0; MAX_BYTES + 1].into(),
            ..DsnSpooled::default()
        }));
        writer.push(large());
        assert!(matches!(writer.flush(0), Some(WriterEffect::Append { .. })));
        assert_eq!(writer.pending(), 1);
    }

    #[test]
    fn the_record_that_ends_a_snapshot_says_where_replay_begins() {
        let mut writer = claimed();
        let end = SnapshotEnd {
            start: 2,
            ..SnapshotEnd::default()
        };
        writer.push(Kind::SnapshotEnd(end));
        let Some(WriterEffect::Append { append, .. }) = writer.flush(0) else {
            panic!()
        };
        assert_eq!(decode(&append.record).unwrap().replay_from, 2);
    }

    #[test]
    fn sends_the_same_record_again_when_the_reply_is_lost() {
        let (mut writer, append) = in_flight();
        let Some(WriterEffect::Append {
            append: second,
            again: true,
        }) = writer.step(0, WriterEvent::Unknown)
        else {
            panic!()
        };
        assert_eq!(second, append);
    }

    #[test]
    fn knows_its_own_record_at_the_tail_and_yields_to_a_foreign_one() {
        let (mut writer, append) = in_flight();
        assert_eq!(
            writer.step(0, WriterEvent::WrongLastSequence),
            Some(WriterEffect::ReadTail)
        );
        assert_eq!(
            writer.step(0, tail(3, &append.id)),
            Some(WriterEffect::Stored {
                sequence: 3,
                entries: 1
            })
        );

        let (mut writer, _) = in_flight();
        writer.step(0, WriterEvent::WrongLastSequence);
        assert_eq!(
            writer.step(0, tail(3, "other")),
            Some(WriterEffect::Lost(Lost::Fenced { sequence: 3 }))
        );
        writer.push(Kind::DsnSpooled(DsnSpooled::default()));
        assert_eq!(writer.flush(0), None);
    }
}
