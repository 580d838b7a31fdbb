//! The index of live messages of a partition.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashTable};
use mail::MessageId;

use crate::Key;
use crate::arena::Arena;
use crate::blocks::Blocks;
use crate::deadlines::Deadlines;
use crate::delivery::{
    Deferred, Delivery, Flight, Marks, Message, NONE, State, Told, expires_s, mix, seed,
};
use crate::due::Due;
use crate::holds::Holds;
use crate::lines::Lines;
use crate::ordinals::OrdinalLists;
use crate::simulator::Simulated;
use crate::strings::{Name, Strings};

/// A delivery to be inserted.
pub(crate) struct NewDelivery<'a> {
    pub(crate) domain: &'a str,
    pub(crate) ordinals: &'a [u16],
    /// Of their addresses, in their order; none where they are not known.
    pub(crate) keys: &'a [u64],
    pub(crate) attempts: u16,
    pub(crate) deferred: Deferred,
    pub(crate) due_ms: u64,
    pub(crate) held: bool,
    pub(crate) told: Told,
}

/// A message to be inserted.
pub(crate) struct NewMessage<'a> {
    pub(crate) id: MessageId,
    pub(crate) sequence: u64,
    /// Lowest sequence that belongs to the block.
    pub(crate) block_first: u64,
    pub(crate) index: u16,
    pub(crate) tenant: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) campaign: &'a str,
    pub(crate) size: u32,
    pub(crate) priority: i8,
    /// By when its client wants it delivered; 0 = nothing is said.
    pub(crate) deliver_by_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) not_before_s: u32,
    pub(crate) marks: Marks,
    /// Upload whose chunks are the content.
    pub(crate) upload_id: &'a str,
}

/// A message whose last recipient became final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Its block, to be released when the disposition is stored.
    pub(crate) sequence: u64,
    /// Its upload, to be deleted then.
    pub(crate) upload_id: Option<Box<str>>,
}

/// What the sender of a message is owed about a recipient that is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    Nothing,
    /// That it failed.
    Failure,
    /// That it was relayed.
    Relay,
}

#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) messages: Arena<Message>,
    pub(crate) deliveries: Arena<Delivery>,
    ordinals: OrdinalLists,
    pub(crate) strings: Strings,
    pub(crate) flights: HashMap<u32, Flight>,
    /// Flights that are begun, by the time at which they are in doubt for good.
    doubts: BTreeSet<(u64, u32)>,
    /// Recipients by message slot that are final and whose DSN is not yet spooled.
    pub(crate) owed: HashMap<u32, Vec<u16>>,
    /// Those among them, or of before, that were relayed and have not failed.
    relayed: HashMap<u32, Vec<u16>>,
    /// Notices of delay by message slot that are not yet spooled: ordinal and number.
    pub(crate) delays_owed: HashMap<u32, Vec<(u16, u32)>>,
    /// Uploads by the slot of the message whose content they are.
    pub(crate) uploads: HashMap<u32, Box<str>>,
    /// By message slot.
    pub(crate) deadlines: Deadlines,
    /// Sources by which deliveries go on, by slot: of those that were greylisted.
    pub(crate) kept: HashMap<u32, Name>,
    /// What is on hold, or was.
    pub(crate) holds: Holds,
    /// What the simulator answers, by delivery slot.
    pub(crate) simulated: HashMap<u32, Box<Simulated>>,
    /// Blocks with something that lives, by sequence.
    pub(crate) blocks: Blocks,
    /// Recipients that are not final.
    pub(crate) recipients: usize,
    by_id: HashTable<u32>,
    due: Due,
    pub(crate) lines: Lines,
    generations: u32,
}

/// It waits for its time.
fn waits(delivery: &Delivery) -> bool {
    matches!(delivery.state, State::Waiting | State::HeldBack)
}

fn hash(id: &MessageId) -> u64 {
    mix(seed(id, 0))
}

impl Live {
    pub(crate) fn find(&self, id: &MessageId) -> Option<u32> {
        let is_it = |&slot: &u32| {
            self.messages
                .get(slot)
                .is_some_and(|message| message.id == *id)
        };
        self.by_id.find(hash(id), is_it).copied()
    }

    /// Inserts a message without deliveries and counts it in its block. The id must be new.
    pub(crate) fn insert_message(&mut self, new: &NewMessage<'_>) -> u32 {
        let message = Message {
            id: new.id,
            sequence: new.sequence,
            expires_s: expires_s(new.expires_ms),
            not_before_s: new.not_before_s,
            index: new.index,
            priority: new.priority,
            tenant: self.strings.acquire(new.tenant),
            stream: self.strings.acquire(new.stream),
            campaign: self.strings.acquire(new.campaign),
            size: new.size,
            first: NONE,
            marks: new.marks,
        };
        let slot = self.messages.insert(message);
        self.deadlines.insert(slot, new.deliver_by_ms);
        let messages = &self.messages;
        self.by_id.insert_unique(hash(&new.id), slot, |&slot| {
            messages.get(slot).map_or(0, |message| hash(&message.id))
        });
        self.hold_block(new.block_first, new.sequence);
        if !new.upload_id.is_empty() {
            self.uploads.insert(slot, new.upload_id.into());
        }
        slot
    }

    pub(crate) fn insert_delivery(&mut self, message_slot: u32, new: NewDelivery<'_>) -> u32 {
        self.generations = self.generations.wrapping_add(1);
        let first = self
            .messages
            .get(message_slot)
            .map_or(NONE, |message| message.first);
        self.recipients += new.ordinals.len();
        let delivery = Delivery {
            due_ms: new.due_ms,
            ordinals: self.ordinals.keep(new.ordinals, new.keys),
            message: message_slot,
            next: first,
            domain: self.strings.acquire(new.domain),
            generation: self.generations,
            attempts: new.attempts,
            deferred: new.deferred,
            state: if new.held {
                State::Held
            } else {
                State::Waiting
            },
            told: new.told,
        };
        let slot = self.deliveries.insert(delivery);
        if let Some(message) = self.messages.get_mut(message_slot) {
            message.first = slot;
        }
        slot
    }

    /// Recipients that leave a delivery for one of their own, which waits for its first state.
    pub(crate) fn part(&mut self, slot: u32, leaving: &[u16]) {
        let (left, rest): (Vec<_>, Vec<_>) = self
            .recipients(slot)
            .into_iter()
            .partition(|(ordinal, _)| leaving.contains(ordinal));
        if left.is_empty() || rest.is_empty() {
            return;
        }
        self.replace_recipients(slot, &rest);
        let (left, keys): (Vec<u16>, Vec<u64>) = left.into_iter().unzip();
        let Some(delivery) = self.deliveries.get(slot) else {
            return;
        };
        self.recipients -= left.len();
        let (message, name) = (delivery.message, delivery.domain);
        let (attempts, deferred) = (delivery.attempts, delivery.deferred);
        let (due_ms, told) = (delivery.due_ms, delivery.told);
        let domain = self.strings.shared(name);
        let new = NewDelivery {
            domain: &domain,
            ordinals: &left,
            keys: &keys,
            attempts,
            deferred,
            due_ms,
            held: true,
            told,
        };
        let parted = self.insert_delivery(message, new);
        self.share_source(slot, parted);
        self.holds.share(slot, parted);
    }

    /// Recipients of a delivery that are not final.
    pub(crate) fn ordinals(&self, slot: u32) -> &[u16] {
        let delivery = self.deliveries.get(slot);
        delivery.map_or(&[], |delivery| self.ordinals.get(&delivery.ordinals))
    }

    /// The keys of their addresses, in the same order; none where they are not known.
    pub(crate) fn address_keys(&self, slot: u32) -> &[u64] {
        let delivery = self.deliveries.get(slot);
        delivery.map_or(&[], |delivery| self.ordinals.keys(&delivery.ordinals))
    }

    /// Recipients of a delivery that are not final, each with the key of its address, or 0.
    pub(crate) fn recipients(&self, slot: u32) -> Vec<(u16, u64)> {
        let delivery = self.deliveries.get(slot);
        delivery.map_or_else(Vec::new, |delivery| {
            self.ordinals.with_keys(&delivery.ordinals)
        })
    }

    fn replace_recipients(&mut self, slot: u32, recipients: &[(u16, u64)]) {
        if let Some(delivery) = self.deliveries.get_mut(slot) {
            self.ordinals.forget(delivery.ordinals);
            delivery.ordinals = self.ordinals.keep_pairs(recipients);
        }
    }

    /// Slots of a message's deliveries.
    pub(crate) fn deliveries_of(&self, message_slot: u32) -> Vec<u32> {
        let mut slots = Vec::new();
        let mut next = self
            .messages
            .get(message_slot)
            .map_or(NONE, |message| message.first);
        while let Some(delivery) = self.deliveries.get(next) {
            slots.push(next);
            next = delivery.next;
        }
        slots
    }

    /// The delivery of a message that holds this recipient.
    pub(crate) fn delivery_with(&self, message_slot: u32, ordinal: u16) -> Option<u32> {
        let mut next = self.messages.get(message_slot)?.first;
        while let Some(delivery) = self.deliveries.get(next) {
            if self.ordinals.contains(&delivery.ordinals, ordinal) {
                return Some(next);
            }
            next = delivery.next;
        }
        None
    }

    /// The slot of a delivery, if the key is of this very delivery.
    pub(crate) fn resolve(&self, key: Key) -> Option<u32> {
        let delivery = self.deliveries.get(key.slot)?;
        (delivery.generation == key.generation).then_some(key.slot)
    }

    pub(crate) fn key(&self, slot: u32) -> Option<Key> {
        let generation = self.deliveries.get(slot)?.generation;
        Some(Key { slot, generation })
    }

    /// A delivery waits for its time.
    pub(crate) fn wait_until(&mut self, slot: u32, due_ms: u64) {
        let Some(delivery) = self.deliveries.get(slot) else {
            return;
        };
        // In quarantine it was perhaps in flight when another delivery of its message found out.
        if self
            .messages
            .get(delivery.message)
            .is_some_and(Message::is_quarantined)
        {
            self.set_state(slot, State::Held);
            return;
        }
        self.set_state(slot, State::Waiting);
        let Some(delivery) = self.deliveries.get_mut(slot) else {
            return;
        };
        delivery.due_ms = due_ms;
        self.due.push(due_ms, slot, delivery.generation);
    }

    /// A delivery that was due waits for a later time.
    pub(crate) fn hold_back_until(&mut self, slot: u32, due_ms: u64) {
        self.wait_until(slot, due_ms);
        if let Some(delivery) = self.deliveries.get_mut(slot)
            && delivery.state == State::Waiting
        {
            delivery.state = State::HeldBack;
        }
    }

    /// A delivery is at a sender. Replaces an earlier flight of it.
    pub(crate) fn begin_flight(&mut self, slot: u32, flight: Flight) {
        self.end_flight(slot);
        self.flights.insert(slot, flight);
    }

    /// A flight is begun; from `doubt_ms` on it is in doubt for good.
    pub(crate) fn note_begun(&mut self, slot: u32, begun_ms: u64, doubt_ms: u64) {
        let Some(flight) = self.flights.get_mut(&slot) else {
            return;
        };
        flight.begun_ms = Some(begun_ms);
        if let Some(earlier) = flight.doubt_ms.replace(doubt_ms) {
            self.doubts.remove(&(earlier, slot));
        }
        self.doubts.insert((doubt_ms, slot));
    }

    /// Other clocks are looked at from now on, which show so much more, milliseconds. Cost O(flights).
    pub(crate) fn shift_begun(&mut self, shift_ms: i64) {
        self.doubts.clear();
        for (slot, flight) in &mut self.flights {
            let shifted = |at_ms: u64| at_ms.saturating_add_signed(shift_ms);
            flight.begun_ms = flight.begun_ms.map(shifted);
            flight.doubt_ms = flight.doubt_ms.map(shifted);
            self.doubts
                .extend(flight.doubt_ms.map(|doubt_ms| (doubt_ms, *slot)));
        }
    }

    /// A delivery is no longer at a sender, as far as we are concerned.
    pub(crate) fn end_flight(&mut self, slot: u32) {
        let ended = self.flights.remove(&slot);
        if let Some(doubt_ms) = ended.and_then(|flight| flight.doubt_ms) {
            self.doubts.remove(&(doubt_ms, slot));
        }
    }

    /// When the next flight is in doubt for good.
    pub(crate) fn next_doubt(&self) -> Option<u64> {
        self.doubts.first().map(|(at, _)| *at)
    }

    /// The next flight that is in doubt for good by now, once.
    pub(crate) fn pop_doubt(&mut self, now_ms: u64) -> Option<u32> {
        let (_, slot) = self
            .doubts
            .first()
            .filter(|(at, _)| *at <= now_ms)
            .copied()?;
        self.doubts.pop_first();
        if let Some(flight) = self.flights.get_mut(&slot) {
            flight.doubt_ms = None;
        }
        Some(slot)
    }

    /// When to look again for what is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.next()
    }

    /// Takes a delivery that is due out of those that wait; it is to be queued up.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<u32> {
        let deliveries = &self.deliveries;
        self.due.advance(now_ms, |slot| {
            let delivery = deliveries.get(slot).filter(|delivery| waits(delivery))?;
            Some((delivery.due_ms, delivery.generation))
        });
        while let Some((due, slot, generation)) = self.due.pop(now_ms) {
            let key = Key { slot, generation };
            let Some(slot) = self.resolve(key) else {
                continue;
            };
            let Some(delivery) = self.deliveries.get_mut(slot) else {
                continue;
            };
            if waits(delivery) && delivery.due_ms == due {
                delivery.state = State::Behind;
                return Some(slot);
            }
        }
        None
    }

    /// A recipient is final: takes it out of its delivery, and the delivery out of its message when it was the last.
    pub(crate) fn finish_recipient(&mut self, delivery_slot: u32, ordinal: u16, owed: Owed) {
        let Some(delivery) = self.deliveries.get(delivery_slot) else {
            return;
        };
        let message_slot = delivery.message;
        match self.ordinals.get(&delivery.ordinals) {
            present if !present.contains(&ordinal) => return,
            [_] => self.remove_delivery(delivery_slot),
            _ => {
                if let Some(delivery) = self.deliveries.get_mut(delivery_slot) {
                    self.ordinals.take_out(&mut delivery.ordinals, ordinal);
                }
            }
        }
        self.recipients -= 1;
        self.delay_told(message_slot, |of, _| of == ordinal);
        self.owe(message_slot, ordinal, owed);
    }

    /// Its sender is owed a DSN about a recipient that is final.
    pub(crate) fn owe(&mut self, message_slot: u32, ordinal: u16, owed: Owed) {
        if owed == Owed::Nothing {
            return;
        }
        self.owed.entry(message_slot).or_default().push(ordinal);
        if owed == Owed::Relay {
            self.relayed.entry(message_slot).or_default().push(ordinal);
        }
    }

    /// What is owed about recipients of a message: of those that failed, or of those that were relayed.
    pub(crate) fn owed_about(&self, message_slot: u32, of: Owed) -> impl Iterator<Item = u16> {
        let relayed = self.relayed.get(&message_slot);
        let owed = self.owed.get(&message_slot).into_iter().flatten().copied();
        owed.filter(move |ordinal| {
            let is_relayed = relayed.is_some_and(|relayed| relayed.contains(ordinal));
            is_relayed == (of == Owed::Relay)
        })
    }

    /// The DSN about these recipients is spooled. False when nothing was owed.
    pub(crate) fn told(&mut self, message_slot: u32, ordinals: &[u32]) -> bool {
        let Some(owed) = self.owed.get_mut(&message_slot) else {
            return false;
        };
        owed.retain(|ordinal| !ordinals.contains(&u32::from(*ordinal)));
        if owed.is_empty() {
            self.owed.remove(&message_slot);
            self.relayed.remove(&message_slot);
        }
        true
    }

    /// Notices of delay of a message that are not owed any more. False when there was none. Costs nothing while none is
    /// owed in the partition.
    pub(crate) fn delay_told(
        &mut self,
        message_slot: u32,
        is_told: impl Fn(u16, u32) -> bool,
    ) -> bool {
        if self.delays_owed.is_empty() {
            return false;
        }
        let Some(owed) = self.delays_owed.get_mut(&message_slot) else {
            return false;
        };
        let before = owed.len();
        owed.retain(|(ordinal, notice)| !is_told(*ordinal, *notice));
        let some = owed.len() < before;
        if owed.is_empty() {
            self.delays_owed.remove(&message_slot);
        }
        some
    }

    fn remove_delivery(&mut self, slot: u32) {
        // Others of its line may move up.
        self.set_state(slot, State::Held);
        let Some(removed) = self.deliveries.remove(slot) else {
            return;
        };
        self.end_flight(slot);
        self.strings.release(removed.domain);
        self.ordinals.forget(removed.ordinals);
        self.forget_source(slot);
        self.holds.forget(slot);
        self.simulated.remove(&slot);
        let Some(message) = self.messages.get_mut(removed.message) else {
            return;
        };
        if message.first == slot {
            message.first = removed.next;
            return;
        }
        let mut at = message.first;
        while let Some(delivery) = self.deliveries.get_mut(at) {
            if delivery.next == slot {
                delivery.next = removed.next;
                return;
            }
            at = delivery.next;
        }
    }

    /// Forgets a message that has neither deliveries nor DSNs owed. Its block stays held until the caller releases it.
    pub(crate) fn finish_message(&mut self, slot: u32) -> Option<Finished> {
        let message = self.messages.get(slot)?;
        if message.first != NONE || self.owed.contains_key(&slot) {
            return None;
        }
        let removed = self.messages.remove(slot)?;
        self.deadlines.remove(slot);
        self.forget_submitter(slot);
        if let Ok(entry) = self
            .by_id
            .find_entry(hash(&removed.id), |&found| found == slot)
        {
            entry.remove();
        }
        for name in [removed.tenant, removed.stream, removed.campaign] {
            self.strings.release(name);
        }
        Some(Finished {
            sequence: removed.sequence,
            upload_id: self.uploads.remove(&slot),
        })
    }

    /// Forgets a message with all that belongs to it, without any disposition.
    pub(crate) fn forget(&mut self, message_slot: u32) {
        for slot in self.deliveries_of(message_slot) {
            self.recipients -= self.ordinals(slot).len();
            self.remove_delivery(slot);
        }
        self.owed.remove(&message_slot);
        self.relayed.remove(&message_slot);
        self.delays_owed.remove(&message_slot);
        if let Some(finished) = self.finish_message(message_slot) {
            self.release_block(finished.sequence);
        }
    }

    /// One more live message in a block.
    pub(crate) fn hold_block(&mut self, first: u64, sequence: u64) {
        self.blocks.hold(first, sequence);
    }

    /// One live message less in a block.
    pub(crate) fn release_block(&mut self, sequence: u64) {
        self.blocks.release(sequence);
    }

    /// Lowest sequence that belongs to a block with something that lives.
    pub(crate) fn block_first(&self, sequence: u64) -> u64 {
        self.blocks.first_of(sequence)
    }

    /// Lowest sequence that something which lives needs.
    pub(crate) fn first_needed(&self) -> Option<u64> {
        // A later block can begin before an earlier one, when its parts were stored between those of another.
        self.blocks.iter().take(64).map(|(_, first)| first).min()
    }
}
