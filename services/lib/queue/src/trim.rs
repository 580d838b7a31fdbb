//! Freeing the spool from its head.
//!
//! The spool is only ever purged from its head. When a few survivors at the head keep many finished blocks behind
//! them, they are copied forward into a new block, which has no effect until the journal's `moved` names it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mail::{MessageId, Place};
use proto::journal::Moved;
use proto::journal::entry::Kind;

use crate::effect::Effect;
use crate::intake::{Gate, Intake};

/// Messages that one copy moves at most.
const BATCH: usize = 16;
/// Blocks between head and cursor from which copying is worth its reads and writes.
const SPAN: u64 = 256;
/// Least time between two scans of the index for candidates, milliseconds: a scan is O(live messages).
const SCAN_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(crate) struct Trim {
    /// Below this the purge was asked for.
    purged_below: u64,
    last_ms: u64,
    copying: bool,
    /// Messages of the older half of the span, by place, from the last scan of the index.
    candidates: VecDeque<MessageId>,
    scanned_ms: u64,
    /// Sequences that may be parts of a block which is not stored yet, and since when they are known.
    gaps: BTreeMap<u64, u64>,
}

/// How long a block may follow its parts, milliseconds: its publish is repeated for 5 minutes.
const PARTS_MS: u64 = 330_000;
/// Sequences in front of a block that are looked at: a longer gap was purged.
const GAP: u64 = 64;
/// Such sequences remembered in all.
const GAPS: usize = 64 * 1024;

/// Survivors at the head, to be copied into a new block in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Epoch of the owner that wants it; of no use to a later one.
    pub epoch: u64,
    /// The messages and where they are.
    pub messages: Vec<(MessageId, Place)>,
}

impl Intake {
    /// Asks for a purge when the head has moved: at once when by much, else every 5 seconds at most.
    pub(crate) fn trim_head(&mut self, now_ms: u64) {
        if !self.active {
            return;
        }
        while let Some((&first, &since_ms)) = self.trim.gaps.first_key_value() {
            if now_ms < since_ms + PARTS_MS {
                break;
            }
            self.trim.gaps.remove(&first);
        }
        let head = self
            .head()
            .min(self.trim.gaps.keys().next().copied().unwrap_or(u64::MAX));
        let moved = head.saturating_sub(self.trim.purged_below.max(1));
        if moved >= 128 || (moved > 0 && now_ms >= self.trim.last_ms + 5_000) {
            self.trim.purged_below = head;
            self.trim.last_ms = now_ms;
            self.effects.push(Effect::TrimSpool { below: head });
        }
    }

    /// Before a block there may be sequences of no block so far: parts of a large index go before their block, and
    /// nothing that lives protects them until it is stored. They are kept for as long as it may come. `first` is the
    /// first part of the block at `sequence`; most have one at most.
    pub(crate) fn note_gap(&mut self, now_ms: u64, first: u64, sequence: u64) {
        let unread = self.cursor + 1..sequence;
        for part in unread.start.max(sequence.saturating_sub(GAP))..sequence {
            if self.trim.gaps.len() < GAPS {
                self.trim.gaps.insert(part, now_ms);
            }
        }
        self.trim.gaps.remove(&first);
    }

    /// First sequence that must be kept: the first block with something that lives, or the first unread one.
    fn head(&self) -> u64 {
        self.live
            .first_needed()
            .unwrap_or(u64::MAX)
            .min(self.cursor + 1)
    }

    /// What should be copied forward now, if anything. `urgent` is set when the spool is short of space. At most one
    /// copy is under way: answer with [`Intake::copied`] or [`Intake::copy_failed`].
    pub fn wants_copy(&mut self, now_ms: u64, urgent: bool) -> Option<Copy> {
        if self.trim.copying || self.recovery.is_some() {
            return None;
        }
        let head = self.head();
        // A block in quarantine stays: copying what is behind it would free nothing.
        if self.quarantined_blocks.contains(&head) {
            return None;
        }
        let span = (self.cursor + 1).saturating_sub(head);
        let live = self.live.blocks.len() as u64;
        let sparse = live.saturating_mul(if urgent { 2 } else { 4 }) <= span;
        if !sparse || span < if urgent { 8 } else { SPAN } {
            return None;
        }
        if self.trim.candidates.is_empty() && now_ms >= self.trim.scanned_ms + SCAN_MS {
            self.trim.scanned_ms = now_ms;
            self.scan(head + span / 2);
        }
        let mut messages = Vec::new();
        while messages.len() < BATCH {
            let Some(id) = self.trim.candidates.pop_front() else {
                break;
            };
            messages.extend(self.survivor(&id).map(|place| (id, place)));
        }
        if messages.is_empty() {
            return None;
        }
        self.trim.copying = true;
        Some(Copy {
            epoch: self.epoch(),
            messages,
        })
    }

    /// Finds the messages of blocks below a sequence.
    fn scan(&mut self, below: u64) {
        let old = self
            .live
            .messages
            .iter()
            .filter(|(_, message)| message.sequence < below);
        let mut found: Vec<(u64, u16, MessageId)> =
            old.map(|(_, m)| (m.sequence, m.index, m.id)).collect();
        found.sort_unstable();
        self.trim.candidates = found.into_iter().map(|(_, _, id)| id).collect();
    }

    /// Where a message is, if it lives and may be moved: not in flight, not quarantined.
    fn survivor(&self, id: &MessageId) -> Option<Place> {
        let slot = self.live.find(id)?;
        let message = self.live.messages.get(slot)?;
        let in_flight = self
            .live
            .deliveries_of(slot)
            .iter()
            .any(|d| self.live.flights.contains_key(d));
        (!in_flight && !message.is_quarantined()).then_some(Place {
            sequence: message.sequence,
            index: message.index.into(),
        })
    }

    /// The copy that was wanted under this epoch is stored as a block at `sequence`; its entries are `ids` in order
    /// (finished ones may be among them).
    pub fn copied(&mut self, epoch: u64, sequence: u64, ids: &[MessageId]) {
        if epoch != self.epoch() {
            return;
        }
        self.trim.copying = false;
        let mut left = Vec::new();
        for (id, index) in ids.iter().zip(0_u16..) {
            left.extend(self.apply_moved(*id, sequence, index));
        }
        let message_ids = ids
            .iter()
            .map(|id| Bytes::from(id.as_bytes().to_vec()))
            .collect();
        self.log(
            Kind::Moved(Moved {
                sequence,
                message_ids,
            }),
            Gate::Moved { left },
        );
    }

    /// The copy could not be made.
    pub fn copy_failed(&mut self, epoch: u64) {
        if epoch != self.epoch() {
            return;
        }
        self.trim.copying = false;
    }
}
