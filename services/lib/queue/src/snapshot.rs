//! Snapshots of the whole index, written into the journal between its other entries.
//!
//! A snapshot is fuzzy: each part shows its messages as they are at the part's own place in the journal, and
//! replay begins at the snapshot's *start*. Messages that came after the start are found in their blocks above the
//! cursor that the start names; a block below it that no part mentions is finished.

use bytes::Bytes;
use hashbrown::HashMap;
use prost::Message as _;
use proto::journal::entry::Kind;
use proto::journal::{
    DelayOwed, LiveDelivery, LiveMessage, SnapshotEnd, SnapshotPart, SnapshotStart,
};

use crate::delivery::{Mark, Marks, State};
use crate::effect::Effect;
use crate::intake::{Gate, Intake};
use crate::live::Owed;
use crate::strings::Name;

/// Message slots per part at most.
const PART: u32 = 500;
/// Bytes of messages from which a part takes no more: a message can have hundreds of deliveries.
const PART_BYTES: usize = 128 * 1024;
/// No more parts are added while this many entries wait: other entries must not queue behind a snapshot.
const PENDING: usize = 32;

/// A snapshot being written.
#[derive(Debug)]
pub(crate) struct SnapshotRun {
    id: Bytes,
    /// Sequence of the record that holds the start, once it is stored.
    start: Option<u64>,
    /// First message slot that no part has covered.
    next_slot: u32,
    /// Slots there were when the snapshot began; messages beyond came later.
    slots: u32,
    ended: bool,
}

impl Intake {
    /// Begins a snapshot unless one is being written.
    pub fn begin_snapshot(&mut self) {
        if self.snapshot.is_some() || self.recovery.is_some() {
            return;
        }
        self.snapshots += 1;
        let id = Bytes::from(format!("{}.{}", self.writer.epoch(), self.snapshots));
        self.entries_since_snapshot = 0;
        self.snapshot = Some(SnapshotRun {
            id: id.clone(),
            start: None,
            next_slot: 0,
            slots: self.live.messages.slots(),
            ended: false,
        });
        let start = SnapshotStart {
            snapshot_id: id,
            cursor: self.cursor,
            quarantined_blocks: self.quarantined_blocks.iter().copied().collect(),
            acted: self.acts.clone(),
            operations: self.operations.clone(),
            standings_moved: self.standings_moved.clone(),
        };
        self.log(Kind::SnapshotStart(start), Gate::SnapshotStart);
    }

    /// Space is short: what the journal needs no more is to be deleted, and a snapshot begins when it would make
    /// much more of it needless.
    pub fn save_space(&mut self) {
        if self.recoverable_from > 1 {
            self.effects.push(Effect::TrimJournal {
                below: self.recoverable_from,
            });
        }
        if self.entries_since_snapshot >= (self.live.messages.len() as u64 / 4).max(32) {
            self.begin_snapshot();
        }
    }

    /// Adds parts as the journal takes them, then the end. Begins a snapshot when one is due: when replay would read
    /// four entries for each live message (an index of a million then costs a message half of its share of a
    /// snapshot), and at least the configured number.
    pub(crate) fn continue_snapshot(&mut self) {
        let due = self
            .settings
            .snapshot_entries
            .max(4 * self.live.messages.len() as u64);
        if self.snapshot.is_none() && self.entries_since_snapshot >= due {
            self.begin_snapshot();
        }
        while self.writer.pending() < PENDING {
            let Some(run) = &self.snapshot else { return };
            let Some(start) = run.start else { return };
            if run.ended {
                return;
            }
            let (id, from, slots) = (run.id.clone(), run.next_slot, run.slots);
            if from < slots {
                let (part, next) = self.part(id, from..from.saturating_add(PART).min(slots));
                if let Some(run) = &mut self.snapshot {
                    run.next_slot = next;
                }
                if !part.messages.is_empty() {
                    self.log(Kind::SnapshotPart(part), Gate::Nothing);
                }
                continue;
            }
            if let Some(run) = &mut self.snapshot {
                run.ended = true;
            }
            let end = SnapshotEnd {
                snapshot_id: id,
                start,
            };
            self.log(Kind::SnapshotEnd(end), Gate::SnapshotEnd { start });
        }
    }

    pub(crate) fn snapshot_started(&mut self, sequence: u64) {
        if let Some(run) = &mut self.snapshot {
            run.start = Some(sequence);
        }
    }

    pub(crate) fn snapshot_ended(&mut self, start: u64) {
        self.snapshot = None;
        self.recoverable_from = start;
        self.effects.push(Effect::TrimJournal { below: start });
    }

    /// The messages of these slots as far as one part holds them, and the slot to go on with.
    fn part(&self, snapshot_id: Bytes, slots: std::ops::Range<u32>) -> (SnapshotPart, u32) {
        let mut table = Table::default();
        let mut messages = Vec::new();
        let (mut bytes, mut next) = (0, slots.start);
        while next < slots.end && bytes < PART_BYTES {
            if let Some(message) = self.live_message(next, &mut table) {
                bytes += message.encoded_len();
                messages.push(message);
            }
            next += 1;
        }
        let strings = table
            .names
            .iter()
            .map(|name| self.live.strings.get(*name).to_owned())
            .collect();
        (
            SnapshotPart {
                snapshot_id,
                strings,
                messages,
            },
            next,
        )
    }

    fn live_message(&self, slot: u32, table: &mut Table) -> Option<LiveMessage> {
        let message = self.live.messages.get(slot)?;
        let deliveries = self.live.deliveries_of(slot);
        let owed = |of| self.live.owed_about(slot, of).map(u32::from).collect();
        let is_simulated = deliveries
            .iter()
            .any(|slot| self.live.simulated.contains_key(slot));
        let mut named = |name: Option<Name>| name.map_or(0, |name| table.position(name) + 1);
        let submitter = self.live.holds.submitter(slot);
        let credential = named(submitter.and_then(|names| names.credential));
        let from_domain = named(submitter.and_then(|names| names.author_domain));
        let return_domain = named(submitter.and_then(|names| names.return_domain));
        Some(LiveMessage {
            message_id: message.id.as_bytes().to_vec().into(),
            sequence: message.sequence,
            block_first: self.live.block_first(message.sequence),
            index: message.index.into(),
            tenant: table.position(message.tenant),
            stream: table.position(message.stream),
            campaign: table.position(message.campaign),
            accepted_at_ms: message.id.unix_ms(),
            expires_at_ms: message.expires_ms().unwrap_or(0),
            not_before_s: message.not_before_s,
            flags: flags_of(message.marks, is_simulated),
            deliveries: deliveries
                .into_iter()
                .filter_map(|slot| self.live_delivery(slot, table))
                .collect(),
            dsn_owed: owed(Owed::Failure),
            relay_owed: owed(Owed::Relay),
            delays_owed: self
                .live
                .delays_owed
                .get(&slot)
                .into_iter()
                .flatten()
                .map(|(ordinal, notice)| DelayOwed {
                    ordinal: u32::from(*ordinal),
                    notice: *notice,
                })
                .collect(),
            size: message.size,
            priority: message.priority.into(),
            deliver_by_ms: self.live.deadlines.get(slot),
            credential,
            from_domain,
            return_domain,
            upload_id: self
                .live
                .uploads
                .get(&slot)
                .map(|id| id.to_string())
                .unwrap_or_default(),
        })
    }

    fn live_delivery(&self, slot: u32, table: &mut Table) -> Option<LiveDelivery> {
        let delivery = self.live.deliveries.get(slot)?;
        let begun = self
            .live
            .flights
            .get(&slot)
            .and_then(|flight| flight.begun_ms.map(|at| (flight, at)));
        let held = delivery.state == State::Held;
        let simulated = self.live.simulated.get(&slot);
        let (held_since_ms, held_for_ms) = self.live.holds.times(slot);
        Some(LiveDelivery {
            domain: table.position(delivery.domain),
            ordinals: self
                .live
                .ordinals(slot)
                .iter()
                .copied()
                .map(u32::from)
                .collect(),
            attempts: delivery.attempts.into(),
            due_ms: delivery.due_ms,
            begun_at_ms: begun.map_or(0, |(_, at)| at),
            flags: delivery.told.flags() | u32::from(held) << 1,
            begun_epoch: begun.map_or(0, |(flight, _)| flight.epoch),
            begun_attempt: begun.map_or(0, |(flight, _)| flight.attempt),
            begun_final_reply_timeout_ms: begun.map_or(0, |(flight, _)| flight.final_reply_ms),
            deferrals: delivery.deferred.times.into(),
            own_schedule: delivery.deferred.has_own_schedule(),
            class: delivery.deferred.class().into(),
            kept_source: match self.live.kept.get(&slot) {
                Some(name) => table.position(*name) + 1,
                None => 0,
            },
            simulated: simulated.map(|simulated| simulated.answers().clone()),
            simulated_address: simulated
                .map(|simulated| simulated.address().to_owned())
                .unwrap_or_default(),
            held_since_ms,
            held_for_ms,
            address_keys: self.live.address_keys(slot).to_vec(),
        })
    }
}

/// Bits of `LiveMessage.flags`.
const QUARANTINED: u32 = 1;
const SIMULATED: u32 = 1 << 1;
const SANDBOX: u32 = 1 << 2;
const SIMULATED_QUARANTINED: u32 = 1 << 3;
const EXPIRY_MOVES: u32 = 1 << 4;
/// Since when deliveries are on hold is told: earlier releases did not.
pub(crate) const TELLS_HOLDS: u32 = 1 << 5;

/// What is the simulator's is shown as if in quarantine to releases that would send it.
fn flags_of(marks: Marks, is_simulated: bool) -> u32 {
    let bit = |bit: u32, is: bool| if is { bit } else { 0 };
    let (quarantined, sandbox) = (marks.has(Mark::Quarantined), marks.has(Mark::Sandbox));
    let is_simulated = is_simulated || sandbox;
    bit(QUARANTINED, quarantined || is_simulated)
        | bit(SIMULATED, is_simulated)
        | bit(SANDBOX, sandbox)
        | bit(SIMULATED_QUARANTINED, is_simulated && quarantined)
        | bit(EXPIRY_MOVES, marks.has(Mark::ExpiryMoves))
        | TELLS_HOLDS
}

pub(crate) fn marks_of(flags: u32) -> Marks {
    let is = |bit: u32| flags & bit != 0;
    let quarantined = if is(SIMULATED) {
        is(SIMULATED_QUARANTINED)
    } else {
        is(QUARANTINED)
    };
    Marks::default()
        .with(Mark::Quarantined, quarantined)
        .with(Mark::Sandbox, is(SANDBOX))
        .with(Mark::ExpiryMoves, is(EXPIRY_MOVES))
}

/// Names by their position in a part's table.
#[derive(Default)]
struct Table {
    names: Vec<Name>,
    positions: HashMap<Name, u32>,
}

impl Table {
    fn position(&mut self, name: Name) -> u32 {
        *self.positions.entry(name).or_insert_with(|| {
            self.names.push(name);
            (self.names.len() - 1) as u32
        })
    }
}
