//! The connections of senders: opened for a delivery, kept for the next, closed when idle, worn out or asked for.

use proto::dispatch::SlotClosed;

use super::*;

impl World {
    /// The delivery over this slot is over: its connection is kept for the next one, or closed.
    pub(super) fn rest(&mut self, sender: usize, slot: SlotKey, is_broken: bool) {
        if is_broken {
            self.cut_connection(sender, slot);
        }
        let state = &mut self.senders[sender];
        let is_attached = self.streams[slot.0].seen_by_sender;
        let Some(connection) = state.connections.get_mut(&slot) else {
            self.say_free(sender, slot);
            return;
        };
        let lane = &state.lanes[&(slot.0, slot.1)];
        let worn_out = lane.most_messages > 0 && connection.messages >= lane.most_messages;
        let idle_ms = lane.idle_ms;
        if !is_attached || worn_out || connection.closes || state.drains {
            self.quit(sender, slot);
            return;
        }
        connection.state = Use::Idle;
        let (number, messages) = (connection.number, connection.messages);
        // Senders look every half second.
        let delay = idle_ms + self.rng.random_range(0..500);
        let idle = Event::Idle {
            sender,
            slot,
            number,
            messages,
        };
        self.after(delay, idle);
    }

    /// It was idle for long, when nothing was sent since.
    pub(super) fn idle(&mut self, sender: usize, slot: SlotKey, number: u64, messages: u32) {
        let connection = self.senders[sender].connections.get(&slot);
        let is_idle =
            |c: &Connection| (c.number, c.messages, c.state) == (number, messages, Use::Idle);
        if connection.is_some_and(is_idle) {
            self.quit(sender, slot);
        }
    }

    /// Says QUIT; the host takes its time.
    pub(super) fn quit(&mut self, sender: usize, slot: SlotKey) {
        let slow = self.faulty() && self.chance(5);
        let delay = self.rng.random_range(1..if slow { 4_000 } else { 60 });
        let Some(connection) = self.senders[sender].connections.get_mut(&slot) else {
            return;
        };
        connection.state = Use::Closing;
        let number = connection.number;
        let closed = Event::Closed {
            sender,
            slot,
            number,
        };
        self.after(delay, closed);
    }

    pub(super) fn closed(&mut self, sender: usize, slot: SlotKey, number: u64) {
        let connection = self.senders[sender].connections.get(&slot);
        if connection.is_some_and(|connection| connection.number == number) {
            self.cut_connection(sender, slot);
            self.say_free(sender, slot);
        }
    }

    /// A slot has no connection. One for which a delivery waits is not free.
    pub(super) fn say_free(&mut self, sender: usize, slot: SlotKey) {
        let state = &self.senders[sender];
        let is_wanted = state.holds.values().any(|holding| holding.slot == slot);
        if is_wanted || state.connections.contains_key(&slot) {
            return;
        }
        let (stream, lane, slot) = slot;
        if self.streams[stream].seen_by_sender {
            let closed = ToScheduler::SlotClosed(SlotClosed { lane, slot });
            self.send(stream, closed);
        }
    }

    /// The scheduler wants a slot back.
    pub(super) fn close_slot(&mut self, sender: usize, slot: SlotKey) {
        match self.senders[sender].connections.get_mut(&slot) {
            None => self.say_free(sender, slot),
            Some(connection) if connection.state == Use::Idle => self.quit(sender, slot),
            Some(connection) => connection.closes = true,
        }
    }

    /// Deliveries may have been broken off, and streams: their connections go.
    pub(super) fn tidy(&mut self, sender: usize) {
        let state = &self.senders[sender];
        let serves = |slot: &SlotKey| {
            let mut holds = state.holds.values();
            holds.any(|holding| holding.slot == *slot && holding.stage != Holds::Assigned)
        };
        let (mut cut, mut quit) = (Vec::new(), Vec::new());
        for (slot, connection) in &state.connections {
            let is_attached = self.streams[slot.0].seen_by_sender;
            match connection.state {
                Use::Busy if !serves(slot) => cut.push(*slot),
                Use::Idle if !is_attached || state.drains => quit.push(*slot),
                _ => {}
            }
        }
        for slot in cut {
            self.cut_connection(sender, slot);
            self.say_free(sender, slot);
        }
        quit.into_iter().for_each(|slot| self.quit(sender, slot));
    }
}
