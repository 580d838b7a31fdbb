//! Accepting: how the messages of a block come to live.

use bytes::Bytes;
use hashbrown::HashMap;
use mail::MessageId;
use proto::envelope::Envelope;
use proto::journal::entry::Kind;
use proto::journal::{Accepted, AcceptedMessage, DsnSpooled, Quarantined, RecipientOutcome};
use proto::spool::{BlockIndex, IndexEntry, ReportsDelay};
use smallvec::SmallVec;

use crate::delivery::{Deferred, Mark, Marks, State, TellDelays, Told};
use crate::holds::Submitter;
use crate::intake::{Gate, Intake};
use crate::live::{NewDelivery, NewMessage};
use crate::recovery::Change;
use crate::simulator::Simulated;

/// The format version of blocks that this release reads.
const BLOCK_FORMAT: u32 = 1;
/// Bit of `BlockIndex.flags`: a copy made by repacking.
const COPY: u64 = 1;
/// Bit of `IndexEntry.flags`: the simulator answers for some recipients.
const SIMULATED: u64 = 1;
/// Positions in a block are 16 bits.
const MOST_ENTRIES: usize = 1 << 16;
/// Ordinals are 16 bits.
const MOST_RECIPIENTS: usize = 1 << 16;

/// What NOTIFY asks for (RFC 3461 section 4.1).
const NOTIFY_FAILURE: u32 = 4;
const NOTIFY_DELAY: u32 = 8;

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

impl Intake {
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
        if index.entries.len() > MOST_ENTRIES {
            self.damaged_block(sequence, "it has more entries than can be counted");
        }
        for (entry, position) in index.entries.iter().zip(0..=u16::MAX) {
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

    pub(crate) fn hold_quarantined(&mut self, sequence: u64) -> bool {
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
        position: u16,
        entry: &IndexEntry,
    ) -> bool {
        let is_finished = self
            .recovery
            .as_ref()
            .is_some_and(|recovery| recovery.finished.contains(&id));
        if is_finished || self.live.find(&id).is_some() {
            return false;
        }
        let sandbox = entry.envelope.as_ref().is_some_and(|own| own.sandbox);
        if let Some(reports_on) = &entry.reports_on {
            let known = self
                .recovery
                .as_mut()
                .is_some_and(|recovery| recovery.spooled_dsns.remove(&id));
            if !known && !self.settle_dsn(&reports_on.message_id, &reports_on.ordinals, id, sandbox)
            {
                return false;
            }
        }
        if let Some(on) = &entry.reports_delay {
            let known = self
                .recovery
                .as_mut()
                .is_some_and(|recovery| recovery.spooled_dsns.remove(&id));
            if !known && !self.settle_delay(on, id, sandbox) {
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
        position: u16,
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
        position: u16,
        entry: &IndexEntry,
    ) {
        let envelope = entry.envelope.clone().unwrap_or_default();
        let size = if let Some(chunks) = &entry.chunks {
            chunks.length
        } else {
            u64::from(entry.length)
        };
        // A flag that this release does not know: the message waits, and somebody is told.
        let quarantined = entry.flags & !SIMULATED != 0;
        let marks = Marks::default()
            .with(Mark::Quarantined, quarantined)
            .with(Mark::Sandbox, envelope.sandbox)
            .with(Mark::ExpiryMoves, envelope.expires_by_stream);
        let message_slot = self.live.insert_message(&NewMessage {
            id,
            sequence,
            block_first,
            index: position,
            tenant: &envelope.tenant,
            stream: &envelope.stream,
            campaign: &envelope.campaign,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            priority: priority(envelope.priority),
            deliver_by_ms: envelope.deliver_by_ms,
            expires_ms: envelope.expires_at_ms,
            not_before_s: seconds_until(&id, envelope.not_before_ms),
            marks,
            upload_id: entry.chunks.as_ref().map_or("", |chunks| &chunks.upload_id),
        });
        if quarantined {
            self.effects
                .push(crate::Effect::Counted(crate::Counted::Quarantined));
        }
        let due_ms = envelope.not_before_ms.max(now_ms);
        let held = envelope.hold || quarantined;
        if envelope.hold {
            self.live
                .note_submitter(message_slot, Submitter::of(&envelope));
        }
        for group in group_recipients(&envelope) {
            let slot = self.live.insert_delivery(
                message_slot,
                NewDelivery {
                    domain: &group.domain,
                    ordinals: &group.ordinals,
                    keys: &self.keys_of(&envelope, &group.ordinals),
                    attempts: 0,
                    deferred: Deferred::default(),
                    due_ms,
                    held,
                    told: group.told,
                },
            );
            if let Some(simulated) = group.simulated {
                self.live.simulated.insert(slot, simulated);
            }
            if envelope.hold {
                self.live.hold(slot, id.unix_ms());
            }
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

    /// Keys of the addresses of recipients, 0 for what is none; none without keys.
    fn keys_of(&self, envelope: &Envelope, ordinals: &[u16]) -> SmallVec<[u64; 1]> {
        let Some(keys) = &self.keys else {
            return SmallVec::new();
        };
        let address = |ordinal: &u16| envelope.recipients.get(usize::from(*ordinal));
        let key = |ordinal| keys.short_of(&address(ordinal)?.address);
        ordinals
            .iter()
            .map(|ordinal| key(ordinal).unwrap_or(0))
            .collect()
    }

    /// A delivery is for the lanes, or the simulator.
    pub(crate) fn make_ready(&mut self, slot: u32) {
        if self.live.simulated.contains_key(&slot) {
            self.live.set_state(slot, State::Simulated);
            self.simulated.extend(self.live.key(slot));
        } else if let Some(key) = self.live.queue_up(slot) {
            self.effects.push(crate::Effect::Ready(key));
        }
    }

    /// A DSN is in the spool: its recipients are no longer owed one. False when none of them was.
    fn settle_dsn(
        &mut self,
        original: &Bytes,
        ordinals: &[u32],
        dsn: MessageId,
        sandbox: bool,
    ) -> bool {
        let Ok(id) = MessageId::try_from(&original[..]) else {
            return false;
        };
        let Some(slot) = self.live.find(&id) else {
            return self.settle_dsn_early(id, ordinals, dsn, sandbox);
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
            sandbox,
            ..DsnSpooled::default()
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

    /// A notice of delay is in the spool. False when it is not owed (any more): the recipients are final meanwhile, or it
    /// was spooled before.
    fn settle_delay(&mut self, on: &ReportsDelay, dsn: MessageId, sandbox: bool) -> bool {
        let Ok(id) = MessageId::try_from(&on.message_id[..]) else {
            return false;
        };
        let was_owed = match self.live.find(&id) {
            Some(_) => self.apply_delay_told(id, &on.ordinals, on.notice),
            // Its first block is gone, and its copy is behind the notice.
            None => self.settle_delay_early(id, on),
        };
        if was_owed {
            let entry = DsnSpooled {
                message_id: on.message_id.clone(),
                ordinals: Vec::new(),
                dsn_message_id: dsn.as_bytes().to_vec().into(),
                delayed_ordinals: on.ordinals.clone(),
                notice: on.notice,
                sandbox,
            };
            self.log(Kind::DsnSpooled(entry), Gate::Nothing);
        }
        was_owed
    }

    /// Only while recovering.
    fn settle_delay_early(&mut self, id: MessageId, on: &ReportsDelay) -> bool {
        let names = |recipient: &RecipientOutcome| {
            recipient.delay_notice == on.notice && on.ordinals.contains(&recipient.ordinal)
        };
        let waits = self
            .recovery
            .as_ref()
            .and_then(|recovery| recovery.pending.get(&id));
        let is_owed = waits.is_some_and(|changes| {
            let owes = changes.iter().any(|change| match change {
                Change::Outcome(outcome) => outcome.recipients.iter().any(names),
                _ => false,
            });
            let told = changes.iter().any(|change| match change {
                Change::DelayTold(ordinals, notice) => {
                    *notice == on.notice && ordinals.iter().any(|of| on.ordinals.contains(of))
                }
                _ => false,
            });
            owes && !told
        });
        if is_owed {
            self.change(id, Change::DelayTold(on.ordinals.clone(), on.notice));
        }
        is_owed
    }

    /// Only while recovering: the original's first block is gone, and its copy is behind the DSN.
    fn settle_dsn_early(
        &mut self,
        original: MessageId,
        ordinals: &[u32],
        dsn: MessageId,
        sandbox: bool,
    ) -> bool {
        let is_owed = |change: &Change| match change {
            Change::Outcome(outcome) => outcome
                .recipients
                .iter()
                .filter(|recipient| recipient.dsn_owed || recipient.relay_owed)
                .any(|recipient| ordinals.contains(&recipient.ordinal)),
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
            sandbox,
            ..DsnSpooled::default()
        };
        self.change(original, Change::DsnSpooled(ordinals.to_vec()));
        self.log(Kind::DsnSpooled(entry), Gate::Nothing);
        true
    }
}

/// Of MT-PRIORITY (RFC 6710).
pub(crate) fn priority(said: i32) -> i8 {
    i8::try_from(said.clamp(-9, 9)).unwrap_or(0)
}

/// From a message's acceptance to a time.
fn seconds_until(id: &MessageId, at_ms: u64) -> u32 {
    let seconds = at_ms.saturating_sub(id.unix_ms()).div_ceil(1000);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Recipients that one SMTP transaction can carry.
struct Group {
    domain: String,
    told: Told,
    ordinals: Vec<u16>,
    simulated: Option<Box<Simulated>>,
}

/// Groups recipients into deliveries: by domain, return path, header variant, and whether a failure is reported. Those for
/// which the simulator answers are alone.
fn group_recipients(envelope: &Envelope) -> Vec<Group> {
    let (envelope_return_path, stream) = (envelope.return_path.as_str(), envelope.stream.as_str());
    let mut groups: Vec<Group> = Vec::new();
    let mut positions: HashMap<(String, &str, u32, Told, Option<u16>), usize> = HashMap::new();
    for (recipient, ordinal) in envelope.recipients.iter().zip(0..=u16::MAX) {
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
        let delays = match recipient.notify {
            0 => TellDelays::IfConfigured,
            notify if notify & NOTIFY_DELAY != 0 => TellDelays::Asked,
            _ => TellDelays::Never,
        };
        let told = match envelope_return_path.is_empty() {
            true => Told::nobody(),
            false => Told::new(asks, delays),
        };
        let simulated = Simulated::of(envelope, recipient).map(Box::new);
        let alone = simulated.is_some().then_some(ordinal);
        let variant = recipient.header_variant;
        let position = *positions
            .entry((domain.clone(), return_path, variant, told, alone))
            .or_insert_with(|| {
                groups.push(Group {
                    domain,
                    told,
                    ordinals: Vec::new(),
                    simulated,
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
            .or_else(|| {
                let on = entry.reports_delay.as_ref()?;
                Some(on.message_id.clone())
            })
            .unwrap_or_default(),
        sandbox: envelope.sandbox,
        hold: envelope.hold,
    }
}
