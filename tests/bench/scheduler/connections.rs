//! The senders' connections: one that was not used for long is closed.

use std::collections::{HashMap, VecDeque};

use proto::dispatch::{SenderItem, SlotClosed, sender_item::Kind};
use queue::SessionId;
use scheduler::machine::Input;

/// An unused connection is closed after so long, milliseconds; as the configuration says.
const IDLE_MS: u64 = 5_000;

/// A slot of a lane at a sender.
type Slot = (SessionId, u32, u32);

/// See the module.
#[derive(Default)]
pub struct Connections {
    used_ms: HashMap<Slot, u64>,
    /// When to look at each.
    looks: VecDeque<(u64, Slot)>,
}

impl Connections {
    /// A delivery goes over a connection.
    pub fn used(&mut self, now_ms: u64, session: SessionId, lane: u32, slot: u32) {
        let slot = (session, lane, slot);
        if self.used_ms.insert(slot, now_ms).is_none() {
            self.looks.push_back((now_ms + IDLE_MS, slot));
        }
    }

    /// The scheduler wants a connection closed.
    pub fn close(&mut self, session: SessionId, lane: u32, slot: u32) -> Input {
        self.used_ms.remove(&(session, lane, slot));
        closed((session, lane, slot))
    }

    /// Those that were not used for long.
    pub fn closed(&mut self, now_ms: u64) -> Vec<Input> {
        let mut all = Vec::new();
        while let Some(&(at_ms, slot)) = self.looks.front().filter(|(at_ms, _)| *at_ms <= now_ms) {
            self.looks.pop_front();
            let Some(&used_ms) = self.used_ms.get(&slot) else {
                continue;
            };
            if used_ms + IDLE_MS > at_ms {
                self.looks.push_back((used_ms + IDLE_MS, slot));
                continue;
            }
            self.used_ms.remove(&slot);
            all.push(closed(slot));
        }
        if self.used_ms.is_empty() {
            *self = Self::default();
        }
        all
    }
}

fn closed((session, lane, slot): Slot) -> Input {
    let kind = Kind::SlotClosed(SlotClosed { lane, slot });
    Input::Sender(session, SenderItem { kind: Some(kind) })
}
