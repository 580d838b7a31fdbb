//! Recovery: the replay of the journal.

use hashbrown::{HashMap, HashSet};
use mail::MessageId;
use proto::journal::entry::Kind;
use proto::journal::{
    Begin, Class, Entry, LiveMessage, Moved, Outcome, Quarantined, Record, Simulation, SnapshotPart,
};

use crate::accepting::priority;
use crate::delivery::{Deferred, Flight, Mark, State, Told, mix};
use crate::holds::Submitter;
use crate::intake::Intake;
use crate::live::{Finished, NewDelivery, NewMessage, Owed};
use crate::simulator::Simulated;
use crate::snapshot::{TELLS_HOLDS, marks_of};

/// Retries that came due while nobody owned the partition are spread over this time, milliseconds.
const SPREAD_MS: u64 = 5_000;

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
    pub(crate) pending: HashMap<MessageId, Vec<Change>>,
    /// The start of the snapshot was seen.
    pub(crate) started: bool,
    /// Messages of blocks that were read after the snapshot began. What happened to any other is not all in the
    /// replay: it lives only if a part of the snapshot says so.
    pub(crate) accepted: HashSet<MessageId>,
    /// Messages that became final in the replay.
    pub(crate) finished: HashSet<MessageId>,
    /// When the last record was written, by the clock of its owner, Unix milliseconds.
    written_ms: Option<u64>,
    /// DSNs that were seen: reading their blocks again must not take them for duplicates.
    pub(crate) spooled_dsns: HashSet<MessageId>,
}

/// An attempt that is begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    epoch: u64,
    attempt: u32,
    at_ms: u64,
    /// As in [`Flight`].
    final_reply_ms: u32,
}

/// An entry about one message, without what only events need.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Begun {
        begun: Begun,
        ordinal: u16,
    },
    Outcome(Box<Outcome>),
    Moved {
        sequence: u64,
        index: u16,
    },
    Quarantined,
    DsnSpooled(Vec<u32>),
    Touched {
        ordinal: u16,
        due_ms: u64,
        released: bool,
    },
    /// Ordinals and number of the notice of delay.
    DelayTold(Vec<u32>, u32),
}

impl Intake {
    /// Takes a record of the journal, in order, from where replay begins up to our claim.
    pub fn replay(&mut self, sequence: u64, record: Record) -> Result<(), ReplayError> {
        let (epoch, written_ms) = (record.epoch, record.written_at_ms);
        let invalid = |_| ReplayError::InvalidId { sequence };
        self.entries_since_snapshot += record.entries.len() as u64;
        let is_claim = |entry: &Entry| matches!(entry.kind, Some(Kind::Claim(_)));
        self.follow_clock(written_ms, record.entries.iter().any(is_claim));
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
                    for acted in start.acted {
                        self.keep_acted(acted);
                    }
                    for moved in start.standings_moved {
                        self.keep_move(moved);
                    }
                    for action in start.operations {
                        self.keep_operation(action);
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
                    if spooled.notice == 0 {
                        self.change(id, Change::DsnSpooled(spooled.ordinals));
                    } else {
                        let told = Change::DelayTold(spooled.delayed_ordinals, spooled.notice);
                        self.change(id, told);
                    }
                }
                Some(Kind::Acted(acted)) => self.keep_acted(acted),
                Some(Kind::StandingMoved(moved)) => self.keep_move(moved),
                Some(Kind::AdminAction(action)) => self.keep_operation(action),
                Some(Kind::Touched(touched)) => self.replay_touched(&touched).map_err(invalid)?,
                Some(Kind::Claim(_) | Kind::SnapshotEnd(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Each owner has a clock of its own, and nobody knows how long there was none. So what is in doubt waits for as much
    /// time as owners saw pass: a clock that is ahead would end the doubt while the attempt is still under permit, one
    /// that is behind would not end it. A claim is the first record by another clock.
    fn follow_clock(&mut self, written_ms: u64, is_claim: bool) {
        let Some(recovery) = &mut self.recovery else {
            return;
        };
        let before_ms = recovery.written_ms.replace(written_ms);
        let Some(before_ms) = before_ms.filter(|_| is_claim) else {
            return;
        };
        let shift_ms = written_ms.wrapping_sub(before_ms).cast_signed();
        for change in recovery.pending.values_mut().flatten() {
            if let Change::Begun { begun, .. } = change {
                begun.at_ms = begun.at_ms.saturating_add_signed(shift_ms);
            }
        }
        self.live.shift_begun(shift_ms);
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
            delivery.state == State::Waiting && delivery.is_retry() && delivery.due_ms < now_ms
        });
        let slots: Vec<u32> = overdue.map(|(slot, _)| slot).collect();
        for slot in slots {
            self.live
                .wait_until(slot, now_ms + mix(u64::from(slot)) % SPREAD_MS);
        }
    }

    pub(crate) fn apply_dsn_spooled(
        &mut self,
        id: MessageId,
        ordinals: &[u32],
    ) -> Option<Finished> {
        let slot = self.live.find(&id)?;
        if !self.live.told(slot, ordinals) {
            return None;
        }
        self.live.finish_message(slot)
    }

    /// A notice of delay is spooled. False when it was not owed.
    pub(crate) fn apply_delay_told(
        &mut self,
        id: MessageId,
        ordinals: &[u32],
        notice: u32,
    ) -> bool {
        let Some(slot) = self.live.find(&id) else {
            return false;
        };
        let is_told = |of: u16, number| number == notice && ordinals.contains(&u32::from(of));
        self.live.delay_told(slot, is_told)
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
            message.set_quarantined(true);
        }
        for delivery in self.live.deliveries_of(slot) {
            let in_flight = self.live.flights.contains_key(&delivery);
            if !in_flight {
                self.live.set_state(delivery, State::Held);
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
        if begin.simulation() != Simulation::None {
            return Ok(());
        }
        let ordinal = begin
            .ordinals
            .first()
            .and_then(|ordinal| u16::try_from(*ordinal).ok());
        if let Some(ordinal) = ordinal {
            self.change(
                id,
                Change::Begun {
                    begun: Begun {
                        epoch,
                        attempt: begin.attempt,
                        at_ms,
                        final_reply_ms: begin.final_reply_timeout_ms,
                    },
                    ordinal,
                },
            );
        }
        Ok(())
    }

    fn replay_moved(&mut self, moved: &Moved) -> Result<(), mail::MessageIdError> {
        for (id, index) in moved.message_ids.iter().zip(0_u16..) {
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
    pub(crate) fn change(&mut self, id: MessageId, change: Change) {
        let Some(slot) = self.live.find(&id) else {
            if let Some(recovery) = &mut self.recovery {
                recovery.pending.entry(id).or_default().push(change);
            }
            return;
        };
        match change {
            Change::Begun { begun, ordinal } => {
                let Some(delivery_slot) = self.live.delivery_with(slot, ordinal) else {
                    return;
                };
                self.fly(delivery_slot, begun);
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
            Change::Touched {
                ordinal,
                due_ms,
                released,
            } => {
                if let Some(delivery) = self.live.delivery_with(slot, ordinal) {
                    self.apply_touched(delivery, due_ms, released);
                }
            }
            Change::DelayTold(ordinals, notice) => {
                self.apply_delay_told(id, &ordinals, notice);
            }
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
    fn fly(&mut self, delivery_slot: u32, begun: Begun) {
        if let Some(delivery) = self.live.deliveries.get_mut(delivery_slot) {
            delivery.state = State::InFlight;
        }
        let flight = Flight {
            epoch: begun.epoch,
            attempt: begun.attempt,
            session: None,
            final_reply_ms: begun.final_reply_ms,
            begun_ms: None,
            doubt_ms: None,
        };
        self.live.begin_flight(delivery_slot, flight);
        self.note_begun(delivery_slot, begun.at_ms, begun.final_reply_ms);
    }

    /// A message is in another block now. Gives the block that it left.
    pub(crate) fn apply_moved(&mut self, id: MessageId, sequence: u64, index: u16) -> Option<u64> {
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
        let marks = marks_of(message.flags);
        let message_slot = self.live.insert_message(&NewMessage {
            id,
            sequence: message.sequence,
            block_first: if message.block_first == 0 {
                message.sequence
            } else {
                message.block_first
            },
            index: u16::try_from(message.index).unwrap_or(u16::MAX),
            tenant: text(message.tenant),
            stream: text(message.stream),
            campaign: text(message.campaign),
            size: message.size,
            priority: priority(message.priority),
            deliver_by_ms: message.deliver_by_ms,
            expires_ms: message.expires_at_ms,
            not_before_s: message.not_before_s,
            marks,
            upload_id: &message.upload_id,
        });
        let named = |position: u32| position.checked_sub(1).map_or("", text);
        self.live.note_submitter(
            message_slot,
            Submitter {
                credential: named(message.credential),
                author_domain: named(message.from_domain),
                return_domain: named(message.return_domain),
            },
        );
        let short = |ordinal: &u32| u16::try_from(*ordinal).ok();
        for (owed, about) in [
            (&message.dsn_owed, Owed::Failure),
            (&message.relay_owed, Owed::Relay),
        ] {
            for ordinal in owed.iter().filter_map(short) {
                self.live.owe(message_slot, ordinal, about);
            }
        }
        if !message.delays_owed.is_empty() {
            let owed = message.delays_owed.iter();
            let owed = owed.filter_map(|owed| Some((short(&owed.ordinal)?, owed.notice)));
            self.live.delays_owed.insert(message_slot, owed.collect());
        }
        // The list of deliveries grows at its head: backwards keeps their order.
        for delivery in message.deliveries.iter().rev() {
            let ordinals: Vec<u16> = delivery.ordinals.iter().filter_map(short).collect();
            let held = delivery.flags & 2 != 0;
            let slot = self.live.insert_delivery(
                message_slot,
                NewDelivery {
                    domain: text(delivery.domain),
                    ordinals: &ordinals,
                    keys: &delivery.address_keys,
                    attempts: u16::try_from(delivery.attempts).unwrap_or(u16::MAX),
                    deferred: Deferred::new(
                        // Earlier releases counted attempts only.
                        match delivery.deferrals {
                            0 => delivery.attempts,
                            deferrals => deferrals,
                        },
                        delivery.class(),
                        delivery.own_schedule,
                    ),
                    due_ms: delivery.due_ms,
                    held,
                    told: Told::from_flags(delivery.flags),
                },
            );
            if let Some(source) = delivery.kept_source.checked_sub(1) {
                let source = text(source);
                self.live.note_source(slot, Class::Greylisted, source);
            }
            if let Some(answers) = &delivery.simulated {
                let simulated = Simulated::new(answers.clone(), &delivery.simulated_address);
                self.live.simulated.insert(slot, Box::new(simulated));
            } else if marks.has(Mark::Sandbox) {
                let simulated = Simulated::accepting(&delivery.simulated_address);
                self.live.simulated.insert(slot, Box::new(simulated));
            }
            self.live.held_before(slot, delivery.held_for_ms);
            if delivery.held_since_ms > 0 {
                self.live.hold(slot, delivery.held_since_ms);
            } else if message.flags & TELLS_HOLDS == 0
                && held
                && !marks.has(Mark::Quarantined)
                && delivery.attempts == 0
            {
                // Written by a release that did not tell: it was on hold from its acceptance on.
                self.live.hold(slot, id.unix_ms());
            }
            if delivery.begun_epoch != 0 {
                let begun = Begun {
                    epoch: delivery.begun_epoch,
                    attempt: delivery.begun_attempt,
                    at_ms: delivery.begun_at_ms,
                    final_reply_ms: delivery.begun_final_reply_timeout_ms,
                };
                self.fly(slot, begun);
            } else if !held {
                self.live.wait_until(slot, delivery.due_ms);
            }
        }
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
        source: outcome.source,
        finished_at_ms: outcome.finished_at_ms,
        ..Default::default()
    }
}
