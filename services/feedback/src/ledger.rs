//! What is owed, from the journal alone.

use std::collections::BTreeMap;

use dsn::Failure;
use mail::{MessageId, Place};
use proto::journal::entry::Kind;
use proto::journal::{
    Disposition, DsnSpooled, LiveMessage, Moved, Outcome, RecipientOutcome, Record, SnapshotPart,
};

/// A DSN that is owed: about the recipients of a message that failed, or were relayed, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) message_id: MessageId,
    /// Where the message is, as far as the journal has been read.
    pub(crate) place: Place,
    /// Number of the notice of delay that it is; 0 = they failed, or were relayed.
    pub(crate) notice: u32,
    /// With a notice: until when they are tried, Unix milliseconds; 0 = not known.
    pub(crate) tried_until_ms: u64,
    /// When the owner wrote that it is owed, Unix milliseconds.
    pub(crate) written_at_ms: u64,
    /// Host of the last attempt; empty when there was none.
    pub(crate) mx_host: String,
    /// End of the last attempt, Unix milliseconds; 0 when there was none.
    pub(crate) last_attempt_ms: u64,
    pub(crate) recipients: Vec<OwedRecipient>,
}

/// A recipient of it, and why it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwedRecipient {
    pub(crate) ordinal: u32,
    pub(crate) failure: Failure,
    pub(crate) code: u32,
    pub(crate) enhanced: String,
    pub(crate) text: String,
}

impl Owed {
    /// They were relayed, and have not failed.
    pub(crate) fn is_relay(&self) -> bool {
        let first = self.recipients.first();
        first.is_some_and(|recipient| recipient.failure == Failure::Relayed)
    }

    /// The ordinals, ascending.
    pub(crate) fn ordinals(&self) -> Vec<u32> {
        let mut ordinals: Vec<u32> = self
            .recipients
            .iter()
            .map(|recipient| recipient.ordinal)
            .collect();
        ordinals.sort_unstable();
        ordinals.dedup();
        ordinals
    }
}

/// Names a DSN that is owed: sequence of the record, and position in it; of a notice of delay beside it.
pub(crate) type Key = (u64, u32);
/// Bit of the position of a notice of delay.
const DELAY: u32 = 1 << 31;
/// Bit of the position of a notice of what was relayed.
const RELAY: u32 = 1 << 30;

/// Why the sender is to be told of a recipient; `None`: this is no reason.
type Notice = fn(&RecipientOutcome) -> Option<Failure>;

fn failed(recipient: &RecipientOutcome) -> Option<Failure> {
    let why = match recipient.disposition() {
        Disposition::Expired => Failure::Expired,
        _ => Failure::Refused,
    };
    recipient.dsn_owed.then_some(why)
}

fn relayed(recipient: &RecipientOutcome) -> Option<Failure> {
    recipient.relay_owed.then_some(Failure::Relayed)
}

fn delayed(recipient: &RecipientOutcome) -> Option<Failure> {
    (recipient.delay_notice > 0).then_some(Failure::Delayed)
}

/// Reads records in order and knows which DSNs they leave owed.
///
/// A DSN is owed from the outcome that says so to the `dsn_spooled` of its recipients. When records are missing
/// (they were trimmed before this reader had read them), the next complete snapshot tells what is owed since then;
/// the replies are lost with the records.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pending: BTreeMap<Key, Owed>,
    read_up_to: u64,
    /// Records are missing: until a snapshot is complete, what it says is owed is taken from it.
    records_missing: bool,
}

impl Ledger {
    /// Begins after the record `position`; `records_missing` when what comes next is not the one after it.
    pub(crate) fn new(position: u64, records_missing: bool) -> Self {
        Self {
            pending: BTreeMap::new(),
            read_up_to: position,
            records_missing,
        }
    }

    /// Takes the next record.
    pub(crate) fn read(&mut self, sequence: u64, record: &Record) {
        for (entry, number) in record.entries.iter().zip(0..) {
            match &entry.kind {
                Some(Kind::Outcome(outcome)) => {
                    let notices: [(u32, Notice); 3] =
                        [(0, failed), (RELAY, relayed), (DELAY, delayed)];
                    for (bit, of) in notices {
                        self.owe((sequence, number | bit), record.written_at_ms, outcome, of);
                    }
                }
                Some(Kind::Moved(moved)) => self.moved(moved),
                Some(Kind::DsnSpooled(spooled)) => self.spooled(spooled),
                Some(Kind::SnapshotPart(part)) if self.records_missing => {
                    self.snapshot_part(sequence, record.written_at_ms, part);
                }
                Some(Kind::SnapshotEnd(_)) => self.records_missing = false,
                _ => {}
            }
        }
        self.read_up_to = sequence;
    }

    /// What is owed, oldest first.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (Key, &Owed)> {
        self.pending.iter().map(|(key, owed)| (*key, owed))
    }

    /// How many DSNs are owed.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// One that is owed, as it is now.
    pub(crate) fn get(&self, key: Key) -> Option<&Owed> {
        self.pending.get(&key)
    }

    /// The DSN is stored, or will never be.
    pub(crate) fn settle(&mut self, key: Key) {
        self.pending.remove(&key);
    }

    /// The last record that was read.
    pub(crate) fn read_up_to(&self) -> u64 {
        self.read_up_to
    }

    /// The record up to which nothing is owed: where reading may begin again.
    pub(crate) fn position(&self) -> u64 {
        match self.pending.first_key_value() {
            Some(((sequence, _), _)) => self.read_up_to.min(sequence.saturating_sub(1)),
            None => self.read_up_to,
        }
    }

    /// Recipients of an outcome whose sender is to be told of them together.
    fn owe(&mut self, key: Key, written_at_ms: u64, outcome: &Outcome, notice: Notice) {
        let Ok(message_id) = MessageId::try_from(&outcome.message_id[..]) else {
            return;
        };
        let told = || {
            let all = outcome.recipients.iter();
            all.filter_map(|recipient| Some((recipient, notice(recipient)?)))
        };
        let Some((first, why)) = told().next() else {
            return;
        };
        let recipients = told().map(|(recipient, failure)| {
            let reply = recipient.reply.clone().unwrap_or_default();
            OwedRecipient {
                ordinal: recipient.ordinal,
                failure,
                code: reply.code,
                enhanced: reply.enhanced,
                text: reply.text,
            }
        });
        // The same for all: they are of one delivery.
        let (notice, tried_until_ms) = match why {
            Failure::Delayed => (first.delay_notice, first.tried_until_ms),
            _ => (0, 0),
        };
        let owed = Owed {
            message_id,
            place: Place {
                sequence: outcome.sequence,
                index: outcome.index,
            },
            notice,
            tried_until_ms,
            written_at_ms,
            mx_host: outcome.mx_host.clone(),
            last_attempt_ms: if outcome.started_at_ms == 0 {
                0
            } else {
                outcome.finished_at_ms
            },
            recipients: recipients.collect(),
        };
        self.pending.insert(key, owed);
    }

    fn moved(&mut self, moved: &Moved) {
        for (id, index) in moved.message_ids.iter().zip(0..) {
            for owed in self
                .pending
                .values_mut()
                .filter(|owed| owed.message_id.as_bytes()[..] == id[..])
            {
                owed.place = Place {
                    sequence: moved.sequence,
                    index,
                };
            }
        }
    }

    fn spooled(&mut self, spooled: &DsnSpooled) {
        for owed in self
            .pending
            .values_mut()
            .filter(|owed| owed.message_id.as_bytes()[..] == spooled.message_id[..])
            .filter(|owed| owed.notice == spooled.notice)
        {
            let ordinals = match spooled.notice {
                0 => &spooled.ordinals,
                _ => &spooled.delayed_ordinals,
            };
            owed.recipients
                .retain(|recipient| !ordinals.contains(&recipient.ordinal));
        }
        self.pending.retain(|_, owed| !owed.recipients.is_empty());
    }

    fn snapshot_part(&mut self, sequence: u64, written_at_ms: u64, part: &SnapshotPart) {
        for (message, number) in part.messages.iter().zip(0..) {
            let lists = [
                (number, &message.dsn_owed, Failure::Refused),
                (number | RELAY, &message.relay_owed, Failure::Relayed),
            ];
            for (number, ordinals, what) in lists {
                let owed = self.owed_since_before(written_at_ms, message, ordinals, what);
                if let Some(owed) = owed {
                    self.pending.insert((sequence, number), owed);
                }
            }
        }
    }

    /// What a snapshot says is owed and no outcome that was read did.
    fn owed_since_before(
        &self,
        written_at_ms: u64,
        message: &LiveMessage,
        ordinals: &[u32],
        failure: Failure,
    ) -> Option<Owed> {
        let message_id = MessageId::try_from(&message.message_id[..]).ok()?;
        let is_known = |ordinal: u32| {
            self.pending.values().any(|owed| {
                owed.message_id == message_id
                    && owed.notice == 0
                    && owed
                        .recipients
                        .iter()
                        .any(|recipient| recipient.ordinal == ordinal)
            })
        };
        let recipients: Vec<OwedRecipient> = ordinals
            .iter()
            .filter(|ordinal| !is_known(**ordinal))
            .map(|ordinal| OwedRecipient {
                ordinal: *ordinal,
                failure,
                code: 0,
                enhanced: String::new(),
                text: String::new(),
            })
            .collect();
        (!recipients.is_empty()).then(|| Owed {
            message_id,
            place: Place {
                sequence: message.sequence,
                index: message.index,
            },
            notice: 0,
            tried_until_ms: 0,
            written_at_ms,
            mx_host: String::new(),
            last_attempt_ms: 0,
            recipients,
        })
    }
}

#[cfg(test)]
mod tests {
    use proto::journal::{Entry, Reply, SnapshotEnd};

    use super::*;

    fn id(byte: u8) -> MessageId {
        MessageId::from_bytes([byte; 16])
    }

    fn bytes(id: MessageId) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(id.as_bytes())
    }

    fn record(kinds: Vec<Kind>) -> Record {
        let entries = kinds
            .into_iter()
            .map(|kind| Entry { kind: Some(kind) })
            .collect();
        Record {
            format: 1,
            written_at_ms: 1000,
            entries,
            ..Record::default()
        }
    }

    fn bounce(message: MessageId, ordinals: &[(u32, bool)]) -> Kind {
        let recipients = ordinals.iter().map(|(ordinal, dsn_owed)| RecipientOutcome {
            ordinal: *ordinal,
            disposition: Disposition::Bounced.into(),
            dsn_owed: *dsn_owed,
            reply: Some(Reply {
                code: 550,
                ..Reply::default()
            }),
            ..RecipientOutcome::default()
        });
        Kind::Outcome(Outcome {
            message_id: bytes(message),
            recipients: recipients.collect(),
            sequence: 5,
            index: 1,
            ..Outcome::default()
        })
    }

    fn spooled(message: MessageId, ordinals: &[u32]) -> Kind {
        Kind::DsnSpooled(DsnSpooled {
            message_id: bytes(message),
            ordinals: ordinals.to_vec(),
            ..DsnSpooled::default()
        })
    }

    #[test]
    fn an_outcome_owes_one_dsn_about_those_recipients_that_are_owed_one() {
        let mut ledger = Ledger::new(9, false);
        ledger.read(
            10,
            &record(vec![
                bounce(id(1), &[(2, true), (0, true), (1, false)]),
                bounce(id(2), &[(0, false)]),
            ]),
        );
        let (key, owed) = ledger.pending().next().unwrap();
        assert_eq!(
            (key, owed.ordinals(), ledger.len()),
            ((10, 0), vec![0, 2], 1)
        );
        assert_eq!(
            owed.place,
            Place {
                sequence: 5,
                index: 1
            }
        );
    }

    #[test]
    fn what_was_relayed_is_told_apart_from_what_failed() {
        let outcome = Outcome {
            message_id: bytes(id(1)),
            recipients: [(0, true, false), (1, false, true), (2, false, false)]
                .map(|(ordinal, dsn_owed, relay_owed)| RecipientOutcome {
                    ordinal,
                    dsn_owed,
                    relay_owed,
                    ..RecipientOutcome::default()
                })
                .into(),
            ..Outcome::default()
        };
        let mut ledger = Ledger::new(9, false);
        ledger.read(10, &record(vec![Kind::Outcome(outcome)]));
        let owed = |ledger: &Ledger| -> Vec<(bool, Vec<u32>)> {
            let pending = ledger.pending();
            pending
                .map(|(_, owed)| (owed.is_relay(), owed.ordinals()))
                .collect()
        };
        assert_eq!(owed(&ledger), [(false, vec![0]), (true, vec![1])]);
        ledger.read(11, &record(vec![spooled(id(1), &[1])]));
        assert_eq!(owed(&ledger), [(false, vec![0])]);

        let message = LiveMessage {
            message_id: bytes(id(2)),
            dsn_owed: vec![4],
            relay_owed: vec![5],
            ..LiveMessage::default()
        };
        let part = SnapshotPart {
            messages: vec![message],
            ..SnapshotPart::default()
        };
        let mut ledger = Ledger::new(9, true);
        ledger.read(10, &record(vec![Kind::SnapshotPart(part)]));
        assert_eq!(owed(&ledger), [(false, vec![4]), (true, vec![5])]);
    }

    #[test]
    fn the_position_waits_for_what_is_owed() {
        let mut ledger = Ledger::new(9, false);
        ledger.read(10, &record(vec![]));
        assert_eq!(ledger.position(), 10);
        ledger.read(11, &record(vec![bounce(id(1), &[(0, true)])]));
        ledger.read(12, &record(vec![]));
        assert_eq!((ledger.position(), ledger.read_up_to()), (10, 12));
        ledger.settle((11, 0));
        assert_eq!(ledger.position(), 12);
    }

    #[test]
    fn what_was_spooled_before_is_not_owed() {
        let mut ledger = Ledger::new(0, false);
        ledger.read(
            1,
            &record(vec![
                bounce(id(1), &[(0, true), (1, true)]),
                bounce(id(2), &[(0, true)]),
            ]),
        );
        ledger.read(2, &record(vec![spooled(id(1), &[0])]));
        assert_eq!(ledger.get((1, 0)).unwrap().ordinals(), [1]);
        ledger.read(3, &record(vec![spooled(id(1), &[1]), spooled(id(2), &[0])]));
        assert_eq!((ledger.len(), ledger.position()), (0, 3));
    }

    #[test]
    fn a_delay_is_owed_beside_a_failure_and_told_by_itself() {
        let recipient = |ordinal, dsn_owed, delay_notice| RecipientOutcome {
            ordinal,
            dsn_owed,
            delay_notice,
            tried_until_ms: 5,
            ..RecipientOutcome::default()
        };
        let outcome = Kind::Outcome(Outcome {
            message_id: bytes(id(1)),
            recipients: vec![
                recipient(0, true, 0),
                recipient(1, false, 2),
                recipient(2, false, 0),
            ],
            ..Outcome::default()
        });
        let mut ledger = Ledger::new(0, false);
        ledger.read(1, &record(vec![outcome]));
        let of = |ledger: &Ledger| -> Vec<(u32, Vec<u32>)> {
            let pending = ledger.pending();
            pending
                .map(|(_, owed)| (owed.notice, owed.ordinals()))
                .collect()
        };
        assert_eq!(of(&ledger), [(0, vec![0]), (2, vec![1])]);
        let told = |notice| {
            Kind::DsnSpooled(DsnSpooled {
                message_id: bytes(id(1)),
                delayed_ordinals: vec![0, 1],
                notice,
                ..DsnSpooled::default()
            })
        };
        ledger.read(2, &record(vec![told(1)]));
        assert_eq!(ledger.len(), 2);
        ledger.read(3, &record(vec![told(2)]));
        assert_eq!(of(&ledger), [(0, vec![0])]);
    }

    #[test]
    fn follows_a_message_that_moves() {
        let mut ledger = Ledger::new(0, false);
        ledger.read(1, &record(vec![bounce(id(1), &[(0, true)])]));
        ledger.read(
            2,
            &record(vec![Kind::Moved(Moved {
                sequence: 77,
                message_ids: vec![bytes(id(9)), bytes(id(1))],
            })]),
        );
        assert_eq!(
            ledger.get((1, 0)).unwrap().place,
            Place {
                sequence: 77,
                index: 1
            }
        );
    }

    #[test]
    fn after_missing_records_a_snapshot_tells_what_is_owed() {
        let live = |message, owed: &[u32]| LiveMessage {
            message_id: bytes(message),
            sequence: 3,
            dsn_owed: owed.to_vec(),
            ..LiveMessage::default()
        };
        let part = || {
            Kind::SnapshotPart(SnapshotPart {
                messages: vec![live(id(1), &[4]), live(id(2), &[0, 1]), live(id(3), &[])],
                ..SnapshotPart::default()
            })
        };
        let end = || Kind::SnapshotEnd(SnapshotEnd::default());

        let mut complete = Ledger::new(0, false);
        complete.read(1, &record(vec![part(), end()]));
        assert_eq!(complete.len(), 0);

        let mut missing = Ledger::new(20, true);
        missing.read(30, &record(vec![bounce(id(2), &[(1, true)])]));
        missing.read(31, &record(vec![part()]));
        missing.read(32, &record(vec![end()]));
        missing.read(33, &record(vec![part()]));
        let owed: Vec<_> = missing
            .pending()
            .map(|(key, owed)| (key, owed.message_id, owed.ordinals()))
            .collect();
        assert_eq!(
            owed,
            [
                ((30, 0), id(2), vec![1]),
                ((31, 0), id(1), vec![4]),
                ((31, 1), id(2), vec![0])
            ]
        );
        assert_eq!(missing.position(), 29);
    }
}
