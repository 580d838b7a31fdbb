//! How an intake comes to know what lives: blocks, and the replay of the journal.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use mail::MessageId;
use proto::envelope::Recipient;
use proto::journal::entry::Kind;
use proto::journal::{
    Accepted, AcceptedMessage, Begin, DsnSpooled, LiveMessage, Moved, Outcome, Quarantined, Record,
    SnapshotPart,
};
use proto::spool::{BlockIndex, IndexEntry};

use crate::delivery::{Flight, Ordinals, State, mix};
use crate::intake::{Gate, Intake};
use crate::live::{Finished, NewDelivery, NewMessage};

/// The format version of blocks that this release reads.
const BLOCK_FORMAT: u32 = 1;
/// Bit of `BlockIndex.flags`: a copy made by repacking.
const COPY: u64 = 1;
/// Retries that came due while nobody owned the partition are spread over this time, milliseconds.
const SPREAD_MS: u64 = 5_000;

/// Ordinals are 16 bits.
const MOST_RECIPIENTS: usize = 1 << 16;

/// What NOTIFY asks for (RFC 3461 section 4.1).
const NOTIFY_FAILURE: u32 = 4;

/// A block that can't be taken; reading stops before it, since nothing is ever skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Written by a newer release.
    #[error("block {sequence} has format {format}, this release reads {BLOCK_FORMAT}")]
    UnknownFormat {
        /// Its sequence.
        sequence: u64,
        /// Its format.
        format: u32,
    },
}

/// A journal that can't be replayed; the partition stays untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An id in the journal is no message id.
    #[error("journal record {sequence} holds something that is no message id")]
    InvalidId {
        /// Sequence of the record.
        sequence: u64,
    },
}

/// What is known only while the journal is replayed.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Entries about messages whose block or snapshot part comes later.
    pending: HashMap<MessageId, Vec<Change>>,
    /// The start of the snapshot was seen.
    started: bool,
    /// Messages of blocks that were read after the snapshot began. What happened to any other is not all in the
    /// replay: it lives only if a part of the snapshot says so.
    accepted: HashSet<MessageId>,
    /// Messages that became final in the replay.
    finished: HashSet<MessageId>,
    /// DSNs that were seen: reading their blocks again must not take them for duplicates.
    spooled_dsns: HashSet<MessageId>,
}

/// An entry about one message, without what only events need.
#[derive(Debug, Clone)]
enum Change {
    Begun {
        epoch: u64,
        at_ms: u64,
        attempt: u32,
        ordinal: u16,
    },
    Outcome(Box<Outcome>),
    Moved {
        sequence: u64,
        index: u32,
    },
    Quarantined,
    DsnSpooled(Vec<u32>),
}

impl Intake {
    /// Takes a record of the journal, in order, from where replay begins up to our claim.
    pub fn replay(&mut self, sequence: u64, record: Record) -> Result<(), ReplayError> {
        let (epoch, written_ms) = (record.epoch, record.written_at_ms);
        let invalid = |_| ReplayError::InvalidId { sequence };
        self.entries_since_snapshot += record.entries.len() as u64;
        for entry in record.entries {
            match entry.kind {
                Some(Kind::SnapshotStart(start)) => {
                    // Only the snapshot that replay begins with is known to be complete: the blocks below the
                    // cursor of a later one may be in no part.
                    let is_first = self
                        .recovery
                        .as_mut()
                        .is_some_and(|recovery| !std::mem::replace(&mut recovery.started, true));
                    if is_first {
                        self.cursor = start.cursor;
                        if let Some(recovery) = &mut self.recovery {
                            recovery.accepted.clear();
                        }
                    }
                    for block in start.quarantined_blocks {
                        self.hold_quarantined(block);
                    }
                }
                Some(Kind::SnapshotPart(part)) => self.apply_part(part).map_err(invalid)?,
                Some(Kind::Accepted(accepted)) => {
                    self.accepted_up_to = self.accepted_up_to.max(accepted.sequence);
                    for message in &accepted.messages {
                        let id = MessageId::try_from(&message.message_id[..]).map_err(invalid)?;
                        if let Some(recovery) = &mut self.recovery {
                            recovery.accepted.insert(id);
                        }
                    }
                }
                Some(Kind::Begin(begin)) => self
                    .replay_begin(epoch, written_ms, &begin)
                    .map_err(invalid)?,
                Some(Kind::Outcome(outcome)) => {
                    let id = MessageId::try_from(&outcome.message_id[..]).map_err(invalid)?;
                    self.change(id, Change::Outcome(Box::new(without_texts(outcome))));
                }
                Some(Kind::Moved(moved)) => self.replay_moved(&moved).map_err(invalid)?,
                Some(Kind::Quarantined(entry)) if entry.message_ids.is_empty() => {
                    self.hold_quarantined(entry.sequence);
                }
                Some(Kind::Quarantined(entry)) => {
                    for id in &entry.message_ids {
                        let id = MessageId::try_from(&id[..]).map_err(invalid)?;
                        self.change(id, Change::Quarantined);
                    }
                }
                Some(Kind::DsnSpooled(spooled)) => {
                    let id = MessageId::try_from(&spooled.message_id[..]).map_err(invalid)?;
                    let dsn = MessageId::try_from(&spooled.dsn_message_id[..]).map_err(invalid)?;
                    if let Some(recovery) = &mut self.recovery {
                        recovery.spooled_dsns.insert(dsn);
                    }
                    self.change(id, Change::DsnSpooled(spooled.ordinals));
                }
                Some(Kind::Claim(_) | Kind::SnapshotEnd(_)) | None => {}
            }
        }
        Ok(())
    }

    /// All blocks that were there at the claim are read: what the journal says of others concerns nothing that lives.
    pub fn caught_up(&mut self) {
        self.recovery = None;
    }

    /// What is due may be sent now.
    pub fn activate(&mut self, now_ms: u64) {
        self.active = true;
        self.assign_overdue(now_ms);
    }

    /// Retries that are overdue are spread, so that a restart is no burst.
    fn assign_overdue(&mut self, now_ms: u64) {
        let overdue = self.live.deliveries.iter().filter(|(_, delivery)| {
            delivery.state == State::Waiting && delivery.attempts > 0 && delivery.due_ms < now_ms
        });
        let slots: Vec<u32> = overdue.map(|(slot, _)| slot).collect();
        for slot in slots {
            self.live
                .wait_until(slot, now_ms + mix(u64::from(slot)) % SPREAD_MS);
        }
    }

    /// Takes the index of a block. Blocks come in the order of their sequences; `first` is the lowest sequence that
    /// belongs to the block.
    pub fn block(
        &mut self,
        now_ms: u64,
        first: u64,
        sequence: u64,
        index: BlockIndex,
    ) -> Result<(), BlockError> {
        if index.format != BLOCK_FORMAT {
            return Err(BlockError::UnknownFormat {
                sequence,
                format: index.format,
            });
        }
        if sequence <= self.cursor {
            // Taken already: what is finished by now must not come back.
            return Ok(());
        }
        self.note_gap(now_ms, first, sequence);
        let is_copy = index.flags & COPY != 0;
        let mut accepted = Accepted {
            sequence,
            messages: Vec::new(),
        };
        for (entry, position) in index.entries.iter().zip(0_u32..) {
            let Ok(id) = MessageId::try_from(&entry.message_id[..]) else {
                self.damaged_block(sequence, "an entry has no message id");
                continue;
            };
            let recipients = entry
                .envelope
                .as_ref()
                .map(|envelope| envelope.recipients.len());
            if recipients.is_none_or(|count| count > MOST_RECIPIENTS) {
                self.damaged_block(
                    sequence,
                    "an entry has no envelope, or more recipients than can be counted",
                );
                continue;
            }
            let taken = if is_copy {
                self.take_copied(id, (first, sequence), position, entry)
            } else {
                self.take(now_ms, id, (first, sequence), position, entry)
            };
            if taken && !is_copy {
                accepted.messages.push(accepted_message(entry));
            }
        }
        self.cursor = self.cursor.max(sequence);
        if !accepted.messages.is_empty() && sequence > self.accepted_up_to {
            self.accepted_up_to = sequence;
            self.log(Kind::Accepted(accepted), Gate::Nothing);
        }
        Ok(())
    }

    /// A block whose index can't be read: kept for ever, alarmed, and the next ones go on.
    pub fn damaged_block(&mut self, sequence: u64, reason: &str) {
        self.cursor = self.cursor.max(sequence);
        if self.hold_quarantined(sequence) {
            let entry = Quarantined {
                sequence,
                message_ids: Vec::new(),
                reason: reason.to_owned(),
            };
            self.log(Kind::Quarantined(entry), Gate::Nothing);
            self.effects
                .push(crate::Effect::Counted(crate::Counted::Quarantined));
        }
    }

    fn hold_quarantined(&mut self, sequence: u64) -> bool {
        let is_new = self.quarantined_blocks.insert(sequence);
        if is_new {
            self.live.hold_block(sequence, sequence);
        }
        is_new
    }

    /// Inserts a message of a block, unless it is known or is a DSN nobody waits for. True when it was accepted here.
    fn take(
        &mut self,
        now_ms: u64,
        id: MessageId,
        block: (u64, u64),
        position: u32,
        entry: &IndexEntry,
    ) -> bool {
        let is_finished = self
            .recovery
            .as_ref()
            .is_some_and(|recovery| recovery.finished.contains(&id));
        if is_finished || self.live.find(&id).is_some() {
            return false;
        }
        if let Some(reports_on) = &entry.reports_on {
            let known = self
                .recovery
                .as_mut()
                .is_some_and(|recovery| recovery.spooled_dsns.remove(&id));
            if !known && !self.settle_dsn(&reports_on.message_id, &reports_on.ordinals, id) {
                return false;
            }
        }
        self.insert_entry(now_ms, id, block, position, entry);
        true
    }

    /// A copy has an effect only when the journal named it, the message's first block is gone, and all that ever
    /// happened to the message is in the replay: the copy names recipients that were final before it was made, too.
    fn take_copied(
        &mut self,
        id: MessageId,
        block: (u64, u64),
        position: u32,
        entry: &IndexEntry,
    ) -> bool {
        let Some(recovery) = &self.recovery else {
            return false;
        };
        let named = recovery.pending.get(&id).is_some_and(|changes| {
            changes.iter().any(
                |change| matches!(change, Change::Moved { sequence: to, .. } if *to == block.1),
            )
        });
        let is_new = named
            && recovery.accepted.contains(&id)
            && !recovery.finished.contains(&id)
            && self.live.find(&id).is_none();
        if is_new {
            self.insert_entry(0, id, block, position, entry);
        }
        is_new
    }

    fn insert_entry(
        &mut self,
        now_ms: u64,
        id: MessageId,
        (block_first, sequence): (u64, u64),
        position: u32,
        entry: &IndexEntry,
    ) {
        let envelope = entry.envelope.clone().unwrap_or_default();
        let size = if let Some(chunks) = &entry.chunks {
            chunks.length
        } else {
            u64::from(entry.length)
        };
        // A flag that this release does not know: the message waits, and somebody is told.
        let quarantined = entry.flags != 0;
        let message_slot = self.live.insert_message(&NewMessage {
            id,
            sequence,
            block_first,
            index: position,
            tenant: &envelope.tenant,
            stream: &envelope.stream,
            campaign: &envelope.campaign,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            expires_ms: envelope.expires_at_ms,
            quarantined,
            upload_id: entry.chunks.as_ref().map_or("", |chunks| &chunks.upload_id),
        });
        if quarantined {
            self.effects
                .push(crate::Effect::Counted(crate::Counted::Quarantined));
        }
        let due_ms = envelope.not_before_ms.max(now_ms);
        let held = envelope.hold || quarantined;
        for group in group_recipients(
            &envelope.recipients,
            &envelope.return_path,
            &envelope.stream,
        ) {
            let slot = self.live.insert_delivery(
                message_slot,
                NewDelivery {
                    domain: &group.domain,
                    ordinals: Ordinals::new(&group.ordinals),
                    attempts: 0,
                    due_ms,
                    held,
                    wants_dsn: group.wants_dsn,
                },
            );
            if held {
                continue;
            }
            if self.active && due_ms <= now_ms {
                self.make_ready(slot);
            } else {
                self.live.wait_until(slot, due_ms);
            }
        }
        let pending = self
            .recovery
            .as_mut()
            .and_then(|recovery| recovery.pending.remove(&id));
        for change in pending.into_iter().flatten() {
            self.change(id, change);
        }
        // A message without recipients can't be delivered and must not stay.
        if let Some(finished) = self
            .live
            .find(&id)
            .and_then(|slot| self.live.finish_message(slot))
        {
            self.live.release_block(finished.sequence);
        }
    }

    fn make_ready(&mut self, slot: u32) {
        if let Some(delivery) = self.live.deliveries.get_mut(slot) {
            delivery.state = State::Ready;
        }
        if let Some(key) = self.live.key(slot) {
            self.effects.push(crate::Effect::Ready(key));
        }
    }

    /// A DSN is in the spool: its recipients are no longer owed one. False when none of them was.
    fn settle_dsn(&mut self, original: &Bytes, ordinals: &[u32], dsn: MessageId) -> bool {
        let Ok(id) = MessageId::try_from(&original[..]) else {
            return false;
        };
        let Some(slot) = self.live.find(&id) else {
            return self.settle_dsn_early(id, ordinals, dsn);
        };
        let is_owed = self
            .live
            .owed
            .get(&slot)
            .is_some_and(|owed| owed.iter().any(|o| ordinals.contains(&u32::from(*o))));
        if !is_owed {
            return false;
        }
        let finished = self.apply_dsn_spooled(id, ordinals);
        let entry = DsnSpooled {
            message_id: original.clone(),
            ordinals: ordinals.to_vec(),
            dsn_message_id: dsn.as_bytes().to_vec().into(),
        };
        self.log(
            Kind::DsnSpooled(entry),
            Gate::Outcome {
                report: None,
                finished,
            },
        );
        true
    }

    /// Only while recovering: the original's first block is gone, and its copy is behind the DSN.
    fn settle_dsn_early(&mut self, original: MessageId, ordinals: &[u32], dsn: MessageId) -> bool {
        let is_owed = |change: &Change| match change {
            Change::Outcome(outcome) => outcome
                .recipients
                .iter()
                .any(|recipient| recipient.dsn_owed && ordinals.contains(&recipient.ordinal)),
            _ => false,
        };
        let waits = self
            .recovery
            .as_ref()
            .and_then(|recovery| recovery.pending.get(&original));
        if !waits.is_some_and(|changes| changes.iter().any(is_owed)) {
            return false;
        }
        let entry = DsnSpooled {
            message_id: original.as_bytes().to_vec().into(),
            ordinals: ordinals.to_vec(),
            dsn_message_id: dsn.as_bytes().to_vec().into(),
        };
        self.change(original, Change::DsnSpooled(ordinals.to_vec()));
        self.log(Kind::DsnSpooled(entry), Gate::Nothing);
        true
    }

    fn apply_dsn_spooled(&mut self, id: MessageId, ordinals: &[u32]) -> Option<Finished> {
        let slot = self.live.find(&id)?;
        let owed = self.live.owed.get_mut(&slot)?;
        owed.retain(|ordinal| !ordinals.contains(&u32::from(*ordinal)));
        if owed.is_empty() {
            self.live.owed.remove(&slot);
        }
        self.live.finish_message(slot)
    }

    pub(crate) fn apply_quarantined(&mut self, entry: &Quarantined) {
        for id in &entry.message_ids {
            if let Ok(id) = MessageId::try_from(&id[..]) {
                self.quarantine(id);
            }
        }
    }

    fn quarantine(&mut self, id: MessageId) {
        let Some(slot) = self.live.find(&id) else {
            return;
        };
        if let Some(message) = self.live.messages.get_mut(slot) {
            message.quarantined = true;
        }
        for delivery in self.live.deliveries_of(slot) {
            let in_flight = self.live.flights.contains_key(&delivery);
            if let Some(delivery) = self
                .live
                .deliveries
                .get_mut(delivery)
                .filter(|_| !in_flight)
            {
                delivery.state = State::Held;
            }
        }
    }

    fn replay_begin(
        &mut self,
        epoch: u64,
        at_ms: u64,
        begin: &Begin,
    ) -> Result<(), mail::MessageIdError> {
        let id = MessageId::try_from(&begin.message_id[..])?;
        let ordinal = begin
            .ordinals
            .first()
            .and_then(|ordinal| u16::try_from(*ordinal).ok());
        if let Some(ordinal) = ordinal {
            self.change(
                id,
                Change::Begun {
                    epoch,
                    at_ms,
                    attempt: begin.attempt,
                    ordinal,
                },
            );
        }
        Ok(())
    }

    fn replay_moved(&mut self, moved: &Moved) -> Result<(), mail::MessageIdError> {
        for (id, index) in moved.message_ids.iter().zip(0_u32..) {
            let id = MessageId::try_from(&id[..])?;
            self.change(
                id,
                Change::Moved {
                    sequence: moved.sequence,
                    index,
                },
            );
        }
        Ok(())
    }

    /// Applies a change to a message, or keeps it until the message appears.
    fn change(&mut self, id: MessageId, change: Change) {
        let Some(slot) = self.live.find(&id) else {
            if let Some(recovery) = &mut self.recovery {
                recovery.pending.entry(id).or_default().push(change);
            }
            return;
        };
        match change {
            Change::Begun {
                epoch,
                at_ms,
                attempt,
                ordinal,
            } => {
                let Some(delivery_slot) = self.live.delivery_with(slot, ordinal) else {
                    return;
                };
                self.fly(delivery_slot, epoch, attempt, at_ms);
            }
            Change::Outcome(outcome) => {
                if let Some(finished) = self.apply_outcome(&outcome) {
                    self.live.release_block(finished.sequence);
                    self.note_finished(id);
                }
            }
            Change::Moved { sequence, index } => {
                if let Some(left) = self.apply_moved(id, sequence, index) {
                    self.live.release_block(left);
                }
            }
            Change::Quarantined => self.quarantine(id),
            Change::DsnSpooled(ordinals) => {
                if let Some(finished) = self.apply_dsn_spooled(id, &ordinals) {
                    self.live.release_block(finished.sequence);
                    self.note_finished(id);
                }
            }
        }
    }

    /// A part may show a message of a block above the cursor (its slot was free when the snapshot began). When it
    /// is finished after that, its block must not bring it back.
    fn note_finished(&mut self, id: MessageId) {
        if let Some(recovery) = &mut self.recovery {
            recovery.finished.insert(id);
        }
    }

    /// A begun attempt of an earlier owner: in doubt until its sender reports.
    fn fly(&mut self, delivery_slot: u32, epoch: u64, attempt: u32, begun_ms: u64) {
        if let Some(delivery) = self.live.deliveries.get_mut(delivery_slot) {
            delivery.state = State::InFlight;
        }
        let flight = Flight {
            epoch,
            attempt,
            session: None,
            begun_ms: None,
            doubt_ms: None,
        };
        self.live.begin_flight(delivery_slot, flight);
        self.note_begun(delivery_slot, begun_ms);
    }

    /// A message is in another block now. Gives the block that it left.
    pub(crate) fn apply_moved(&mut self, id: MessageId, sequence: u64, index: u32) -> Option<u64> {
        let slot = self.live.find(&id)?;
        let message = self.live.messages.get_mut(slot)?;
        if message.sequence == sequence {
            return None;
        }
        let left = std::mem::replace(&mut message.sequence, sequence);
        message.index = index;
        self.live.hold_block(sequence, sequence);
        Some(left)
    }

    fn apply_part(&mut self, part: SnapshotPart) -> Result<(), mail::MessageIdError> {
        for message in &part.messages {
            let id = MessageId::try_from(&message.message_id[..])?;
            // The part holds all that came before it.
            if let Some(recovery) = &mut self.recovery {
                recovery.pending.remove(&id);
            }
            if let Some(known) = self.live.find(&id) {
                self.live.forget(known);
            }
            self.restore(id, message, &part.strings);
        }
        Ok(())
    }

    fn restore(&mut self, id: MessageId, message: &LiveMessage, strings: &[String]) {
        let text = |position: u32| strings.get(position as usize).map_or("", String::as_str);
        let quarantined = message.flags & 1 != 0;
        let message_slot = self.live.insert_message(&NewMessage {
            id,
            sequence: message.sequence,
            block_first: if message.block_first == 0 {
                message.sequence
            } else {
                message.block_first
            },
            index: message.index,
            tenant: text(message.tenant),
            stream: text(message.stream),
            campaign: text(message.campaign),
            size: message.size,
            expires_ms: message.expires_at_ms,
            quarantined,
            upload_id: &message.upload_id,
        });
        let short = |ordinal: &u32| u16::try_from(*ordinal).ok();
        if !message.dsn_owed.is_empty() {
            self.live.owed.insert(
                message_slot,
                message.dsn_owed.iter().filter_map(short).collect(),
            );
        }
        // The list of deliveries grows at its head: backwards keeps their order.
        for delivery in message.deliveries.iter().rev() {
            let ordinals: Vec<u16> = delivery.ordinals.iter().filter_map(short).collect();
            let held = delivery.flags & 2 != 0;
            let slot = self.live.insert_delivery(
                message_slot,
                NewDelivery {
                    domain: text(delivery.domain),
                    ordinals: Ordinals::new(&ordinals),
                    attempts: u16::try_from(delivery.attempts).unwrap_or(u16::MAX),
                    due_ms: delivery.due_ms,
                    held,
                    wants_dsn: delivery.flags & 1 != 0,
                },
            );
            if delivery.begun_epoch != 0 {
                self.fly(
                    slot,
                    delivery.begun_epoch,
                    delivery.begun_attempt,
                    delivery.begun_at_ms,
                );
            } else if !held {
                self.live.wait_until(slot, delivery.due_ms);
            }
        }
    }
}

/// Recipients that one SMTP transaction can carry.
struct Group {
    domain: String,
    wants_dsn: bool,
    ordinals: Vec<u16>,
}

/// Groups recipients into deliveries: by domain, return path, header variant, and whether a failure is reported.
fn group_recipients(
    recipients: &[Recipient],
    envelope_return_path: &str,
    stream: &str,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut positions: HashMap<(String, &str, u32, bool), usize> = HashMap::new();
    for (recipient, ordinal) in recipients.iter().zip(0..=u16::MAX) {
        let domain = match recipient.address.rfind('@') {
            Some(at) => mail::Domain::parse(&recipient.address[at + 1..]).map_or_else(
                |_| recipient.address[at + 1..].to_ascii_lowercase(),
                |domain| domain.as_str().to_owned(),
            ),
            None => String::new(),
        };
        let own = recipient.return_path.as_str();
        let return_path = if own.is_empty() {
            envelope_return_path
        } else {
            own
        };
        // Without a word from the client, failures of bulk mail are events only; a null return path gets no mail.
        let asks = if recipient.notify == 0 {
            stream != "bulk"
        } else {
            recipient.notify & NOTIFY_FAILURE != 0
        };
        let wants_dsn = asks && !envelope_return_path.is_empty();
        let position = *positions
            .entry((
                domain.clone(),
                return_path,
                recipient.header_variant,
                wants_dsn,
            ))
            .or_insert_with(|| {
                groups.push(Group {
                    domain,
                    wants_dsn,
                    ordinals: Vec::new(),
                });
                groups.len() - 1
            });
        groups[position].ordinals.push(ordinal);
    }
    groups
}

fn accepted_message(entry: &IndexEntry) -> AcceptedMessage {
    let envelope = entry.envelope.clone().unwrap_or_default();
    AcceptedMessage {
        message_id: entry.message_id.clone(),
        tenant: envelope.tenant,
        stream: envelope.stream,
        campaign: envelope.campaign,
        recipients: u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX),
        size: entry
            .chunks
            .as_ref()
            .map_or(u64::from(entry.length), |chunks| chunks.length),
        reports_on: entry
            .reports_on
            .as_ref()
            .map(|on| on.message_id.clone())
            .unwrap_or_default(),
    }
}

fn without_texts(mut outcome: Outcome) -> Outcome {
    for recipient in &mut outcome.recipients {
        recipient.reply = None;
        recipient.address = String::new();
    }
    Outcome {
        message_id: outcome.message_id,
        attempt: outcome.attempt,
        recipients: outcome.recipients,
        ..Default::default()
    }
}
