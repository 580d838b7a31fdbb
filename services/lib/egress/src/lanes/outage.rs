//! Egress sources that are taken out, since no connection from them comes about or no sender has them.

use std::sync::Arc;

use super::senders::SourceId;
use super::{LaneId, Lanes, SenderId};

/// When a delivery was let through by a source that is out, nothing more is for so long, milliseconds.
const TRY_MS: u64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outages {
    /// Until when nothing is let through, by number of the source; 0 = it is not out.
    until_ms: Vec<u64>,
}

impl Outages {
    /// Until when a source keeps its lanes.
    pub(super) fn keeps(&self, source: SourceId, now_ms: u64) -> Option<u64> {
        let until_ms = *self.until_ms.get(source.0 as usize)?;
        (now_ms < until_ms).then_some(until_ms)
    }

    /// A delivery leaves by the source.
    pub(super) fn tried(&mut self, source: SourceId, now_ms: u64) {
        if let Some(until_ms) = self.until_ms.get_mut(source.0 as usize)
            && *until_ms > 0
        {
            *until_ms = now_ms + TRY_MS;
        }
    }

    fn set(&mut self, source: SourceId, until_ms: u64) {
        let position = source.0 as usize;
        if position >= self.until_ms.len() {
            self.until_ms.resize(position + 1, 0);
        }
        self.until_ms[position] = until_ms;
    }
}

impl<T> Lanes<T> {
    /// Nothing leaves by a source until then (Unix milliseconds), and from then on one delivery a minute, until
    /// [`Lanes::put_back`].
    pub fn take_out(&mut self, source: &Arc<str>, until_ms: u64) {
        let source = self.senders.source(source);
        self.outages.set(source, until_ms);
    }

    /// A source is as good as any again.
    pub fn put_back(&mut self, source: &str) {
        let Some(source) = self.senders.number(source) else {
            return;
        };
        self.outages.set(source, 0);
        self.wake_all_of(source);
    }

    /// A sender can't bind a source, or may try again to.
    pub fn sender_lacks(&mut self, sender: SenderId, source: &Arc<str>, lacks: bool) {
        self.senders.lacks(sender, source, lacks);
        if let Some(source) = self.senders.number(source) {
            self.wake_all_of(source);
        }
    }

    /// Whether any sender is attached and not about to go.
    pub fn has_senders(&self) -> bool {
        self.senders.any()
    }

    /// Whether such a sender has the source.
    pub fn is_served(&self, source: &str) -> bool {
        self.senders.serve_name(source)
    }

    /// Takes what waits out of the lanes of some sources, each lane's in order.
    pub fn take_by_source(&mut self, is_it: impl Fn(&str) -> bool) -> Vec<T> {
        let mut all = Vec::new();
        for lane in &mut self.lanes {
            if lane.queue.is_empty()
                || !self
                    .senders
                    .name(lane.source)
                    .is_some_and(|name| is_it(name))
            {
                continue;
            }
            while let Some((_, item, _)) = self.fair.pop(&mut lane.queue) {
                all.push(item);
            }
        }
        self.waiting -= all.len();
        self.note_idle_lanes();
        all
    }

    fn wake_all_of(&mut self, source: SourceId) {
        for number in 0..self.lanes.len() {
            if self.lanes[number].source == source {
                self.wake(LaneId(number as u32));
            }
        }
    }
}
