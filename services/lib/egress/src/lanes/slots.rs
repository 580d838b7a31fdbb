//! The connection slots of a lane.

use super::{SenderId, SlotId};

/// No slot.
const NONE: u32 = u32::MAX;
/// Idle connections that are looked at for one of a certain sender: the latest come first.
const LOOKED_AT: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// Open (perhaps) and idle at its holder.
    Idle,
    Busy,
    /// Its holder was asked to close it.
    Closing,
}

#[derive(Debug)]
struct Slot {
    holder: SenderId,
    state: State,
    /// Messages over the present connection, and since when there is one, Unix milliseconds.
    uses: u32,
    since_ms: u64,
    /// The next free or idle one, and the idle one before.
    next: u32,
    before: u32,
}

/// See the module. Without a connection it takes no memory of its own.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: u32,
    idle: u32,
    /// Idle and busy ones.
    open: u32,
    /// All that are not free.
    used: u32,
    /// Idle ones.
    idles: u32,
}

/// What a delivery for a sender can have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// A slot, and whose it will be.
    Slot(SlotId, SenderId),
    /// A slot that its holder must close first.
    Close(SlotId, SenderId),
    /// Nothing.
    Full,
}

/// An idle connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    pub(super) slot: SlotId,
    pub(super) holder: SenderId,
    /// As many messages went over it as may.
    pub(super) is_worn_out: bool,
    pub(super) is_old: bool,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            idle: NONE,
            open: 0,
            used: 0,
            idles: 0,
        }
    }
}

impl Slots {
    /// Slots with a connection.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Slots with a connection that is idle or busy, so not about to be closed.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    pub(super) fn has_idle(&self) -> bool {
        self.idle != NONE
    }

    /// An idle connection, and whether it is worn out, or so old.
    pub(super) fn spare(&self, now_ms: u64, most: u32, old_ms: u64) -> Option<Spare> {
        let slot = self.slots.get(self.idle as usize)?;
        Some(Spare {
            slot: SlotId(self.idle),
            holder: slot.holder,
            is_worn_out: most > 0 && slot.uses >= most,
            is_old: now_ms >= slot.since_ms + old_ms,
        })
    }

    /// Whether no delivery can have a slot, as long as so many connections are allowed.
    pub(super) fn are_busy(&self, limit: u32) -> bool {
        self.idle == NONE && self.used >= limit
    }

    /// Deliveries that could have a slot now.
    pub(super) fn free(&self, limit: u32) -> u32 {
        let busy = self.used - self.idles;
        limit.saturating_sub(busy)
    }

    /// When more connections are open than allowed (any more), an idle one is to be closed. Else: an idle connection
    /// of the sender, else a free slot for it, else the idle connection of another able sender, else that of any
    /// sender, which must close it first.
    pub(super) fn choose(
        &self,
        limit: u32,
        sender: SenderId,
        able: impl Fn(SenderId) -> bool,
    ) -> Choice {
        let first_idle = || match self.slots.get(self.idle as usize) {
            Some(slot) => Choice::Close(SlotId(self.idle), slot.holder),
            None => Choice::Full,
        };
        if self.open > limit {
            return first_idle();
        }
        if let Some((own, _)) = self.idle().find(|(_, slot)| slot.holder == sender) {
            return Choice::Slot(SlotId(own), sender);
        }
        if self.used < limit {
            let new = self.slots.len() as u32;
            return Choice::Slot(
                SlotId(if self.free == NONE { new } else { self.free }),
                sender,
            );
        }
        match self.idle().find(|(_, slot)| able(slot.holder)) {
            Some((idle, slot)) => Choice::Slot(SlotId(idle), slot.holder),
            None => first_idle(),
        }
    }

    /// An idle connection, when more are open than allowed.
    pub(super) fn surplus(&self, limit: u32) -> Option<(SlotId, SenderId)> {
        let slot = self.slots.get(self.idle as usize)?;
        (self.open > limit).then_some((SlotId(self.idle), slot.holder))
    }

    /// The latest idle ones.
    fn idle(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let at = |slot: u32| Some((slot, self.slots.get(slot as usize)?));
        std::iter::successors(at(self.idle), move |(_, slot)| at(slot.next)).take(LOOKED_AT)
    }

    /// Whether a message over this slot needs a new connection. `most` messages go over one; 0 = any number.
    pub(super) fn opens(&self, slot: SlotId, most: u32) -> bool {
        self.slots
            .get(slot.0 as usize)
            .is_none_or(|slot| slot.state == State::Free || (most > 0 && slot.uses >= most))
    }

    /// A message goes over a slot that was chosen; it opens a connection, or not.
    pub(super) fn occupy(&mut self, now_ms: u64, slot: SlotId, sender: SenderId, opens: bool) {
        if slot.0 as usize == self.slots.len() {
            self.slots.push(Slot {
                holder: sender,
                state: State::Busy,
                uses: 1,
                since_ms: now_ms,
                next: NONE,
                before: NONE,
            });
            self.open += 1;
            self.used += 1;
            return;
        }
        match self.state(slot) {
            State::Free => {
                // The first of them is what is chosen.
                self.free = self.slots[slot.0 as usize].next;
                self.open += 1;
                self.used += 1;
            }
            State::Idle => self.unlink(slot),
            State::Busy | State::Closing => {}
        }
        let state = &mut self.slots[slot.0 as usize];
        state.state = State::Busy;
        state.holder = sender;
        (state.uses, state.since_ms) = match opens {
            true => (1, now_ms),
            false => (state.uses + 1, state.since_ms),
        };
    }

    /// The sender is asked to close an idle connection.
    pub(super) fn close(&mut self, slot: SlotId) {
        if self.state(slot) == State::Idle {
            self.unlink(slot);
            self.slots[slot.0 as usize].state = State::Closing;
            self.open -= 1;
        }
    }

    /// What was under way over the slot is over.
    pub(super) fn release(&mut self, slot: SlotId, sender: SenderId) {
        if self.state(slot) != State::Busy || !self.is_of(slot, sender) {
            return;
        }
        self.idles += 1;
        let first = std::mem::replace(&mut self.idle, slot.0);
        if let Some(first) = self.slots.get_mut(first as usize) {
            first.before = slot.0;
        }
        let state = &mut self.slots[slot.0 as usize];
        state.state = State::Idle;
        (state.next, state.before) = (first, NONE);
    }

    /// Its holder closed the connection.
    pub(super) fn closed(&mut self, slot: SlotId, sender: SenderId) {
        let is_closable = matches!(self.state(slot), State::Idle | State::Closing);
        if is_closable && self.is_of(slot, sender) {
            self.make_free(slot);
        }
    }

    /// A sender is gone with all its connections.
    pub(super) fn gone(&mut self, sender: SenderId) {
        for slot in (0..self.slots.len() as u32).map(SlotId) {
            if self.is_of(slot, sender) {
                self.make_free(slot);
            }
        }
    }

    fn make_free(&mut self, slot: SlotId) {
        match self.state(slot) {
            State::Free => return,
            State::Idle => {
                self.unlink(slot);
                self.open -= 1;
            }
            State::Busy => self.open -= 1,
            State::Closing => {}
        }
        self.used -= 1;
        if self.used == 0 {
            *self = Self::default();
            return;
        }
        let state = &mut self.slots[slot.0 as usize];
        state.state = State::Free;
        state.next = std::mem::replace(&mut self.free, slot.0);
    }

    fn unlink(&mut self, slot: SlotId) {
        let Some(&Slot { next, before, .. }) = self.slots.get(slot.0 as usize) else {
            return;
        };
        self.idles -= 1;
        match self.slots.get_mut(before as usize) {
            Some(before) => before.next = next,
            None => self.idle = next,
        }
        if let Some(next) = self.slots.get_mut(next as usize) {
            next.before = before;
        }
    }

    fn state(&self, slot: SlotId) -> State {
        self.slots
            .get(slot.0 as usize)
            .map_or(State::Free, |slot| slot.state)
    }

    fn is_of(&self, slot: SlotId, sender: SenderId) -> bool {
        self.slots
            .get(slot.0 as usize)
            .is_some_and(|slot| slot.state != State::Free && slot.holder == sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SenderId = SenderId(1);
    const OTHER: SenderId = SenderId(2);

    /// Connections, those not about to be closed, deliveries that could have one of three now, and whether one is idle.
    fn counts(slots: &Slots) -> (u32, u32, u32, bool) {
        (slots.used(), slots.open(), slots.free(3), slots.has_idle())
    }

    /// Three busy ones: the first and the last of `ONE`.
    fn busy() -> Slots {
        let mut slots = Slots::default();
        for (slot, sender) in (0..).map(SlotId).zip([ONE, OTHER, ONE]) {
            slots.occupy(0, slot, sender, true);
        }
        slots
    }

    #[test]
    fn counts_what_is_busy_idle_and_about_to_be_closed() {
        let mut slots = busy();
        assert_eq!(counts(&slots), (3, 3, 0, false));
        slots.release(SlotId(1), OTHER);
        assert_eq!(counts(&slots), (3, 3, 1, true));
        slots.occupy(0, SlotId(1), OTHER, false);
        assert_eq!(counts(&slots), (3, 3, 0, false));
        slots.release(SlotId(1), OTHER);
        slots.close(SlotId(1));
        assert_eq!(counts(&slots), (3, 2, 0, false));
        slots.gone(ONE);
        assert_eq!(counts(&slots), (1, 0, 2, false));
        slots.closed(SlotId(1), OTHER);
        assert_eq!(counts(&slots), (0, 0, 3, false));
    }

    #[test]
    fn takes_nothing_from_a_sender_that_is_not_the_holder_nor_twice() {
        let mut slots = busy();
        slots.release(SlotId(1), ONE);
        assert_eq!(counts(&slots), (3, 3, 0, false));
        slots.release(SlotId(1), OTHER);
        slots.release(SlotId(1), OTHER);
        assert_eq!(counts(&slots), (3, 3, 1, true));
        // It is not its own, and this one is busy.
        slots.closed(SlotId(1), ONE);
        slots.closed(SlotId(0), ONE);
        assert_eq!(counts(&slots), (3, 3, 1, true));
        slots.gone(ONE);
        assert_eq!(counts(&slots), (1, 1, 3, true));
        // It is free, though it was its own.
        slots.gone(ONE);
        assert_eq!(counts(&slots), (1, 1, 3, true));
    }

    #[test]
    fn an_idle_one_is_too_many_only_when_more_are_open_than_allowed() {
        let mut slots = busy();
        assert_eq!(slots.surplus(2), None);
        slots.release(SlotId(1), OTHER);
        assert_eq!(slots.surplus(3), None);
        assert_eq!(slots.surplus(2), Some((SlotId(1), OTHER)));
    }
}
