//! Lines: ready deliveries of one tenant, stream, campaign and domain, first attempts and retries apart, and so those of
//! higher and of lower priority.
//!
//! Of each line a bounded number is with the lanes; the others are only noted here, in order, until some of those leave.
//! So the lanes stay small whatever waits, a change of routes moves little, and who has a million ready deliveries to
//! one domain has them in a line of its own.

use std::collections::VecDeque;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::Key;
use crate::delivery::State;
use crate::live::Live;
use crate::strings::Name;

/// Deliveries of a line that are with the lanes at a time.
pub(crate) const WINDOW: u32 = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct LineKey {
    tenant: Name,
    stream: Name,
    campaign: Name,
    domain: Name,
    retry: bool,
    /// Asked for by the client: below, at or above what is usual.
    priority: i8,
}

#[derive(Debug, Default)]
struct Line {
    /// With the lanes.
    out: u32,
    /// Those behind. Some may have changed their state since.
    behind: VecDeque<Key>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: HashMap<LineKey, Line>,
    /// Deliveries that moved up and are to be handed to the lanes.
    pub(crate) moved_up: Vec<Key>,
}

#[cfg(test)]
impl Lines {
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }
}

impl Live {
    fn line_of(&self, slot: u32) -> Option<LineKey> {
        let delivery = self.deliveries.get(slot)?;
        let message = self.messages.get(delivery.message)?;
        Some(LineKey {
            tenant: message.tenant,
            stream: message.stream,
            campaign: message.campaign,
            domain: delivery.domain,
            retry: delivery.is_retry(),
            priority: message.priority.signum(),
        })
    }

    /// A delivery may be sent: it is for the lanes when its line has room there, else it stays behind.
    pub(crate) fn queue_up(&mut self, slot: u32) -> Option<Key> {
        let (line, key) = (self.line_of(slot)?, self.key(slot)?);
        let line = self.lines.lines.entry(line).or_default();
        if line.out >= WINDOW {
            line.behind.push_back(key);
            self.set_state(slot, State::Behind);
            return None;
        }
        line.out += 1;
        self.set_state(slot, State::Ready);
        Some(key)
    }

    /// Changes the state of a delivery; when it was with the lanes others may move up.
    pub(crate) fn set_state(&mut self, slot: u32, state: State) {
        let Some(delivery) = self.deliveries.get_mut(slot) else {
            return;
        };
        let before = std::mem::replace(&mut delivery.state, state);
        if before == State::Ready && state != State::Ready {
            self.leave_line(slot);
        }
    }

    fn leave_line(&mut self, slot: u32) {
        let Some(key) = self.line_of(slot) else {
            return;
        };
        let Entry::Occupied(mut entry) = self.lines.lines.entry(key) else {
            return;
        };
        let line = entry.get_mut();
        line.out = line.out.saturating_sub(1);
        // Many at a time: what they need is read once.
        if line.out <= WINDOW / 2 {
            while line.out < WINDOW {
                let Some(key) = line.behind.pop_front() else {
                    break;
                };
                let deliveries = &mut self.deliveries;
                let next = deliveries.get_mut(key.slot).filter(|delivery| {
                    delivery.generation == key.generation && delivery.state == State::Behind
                });
                if let Some(next) = next {
                    next.state = State::Ready;
                    line.out += 1;
                    self.lines.moved_up.push(key);
                }
            }
        }
        if line.out == 0 {
            entry.remove();
        }
    }
}
