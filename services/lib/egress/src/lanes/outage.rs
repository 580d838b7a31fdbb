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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair::Flow;
    use crate::lanes::{Decision, LaneLimits};

    const SENDER: SenderId = SenderId(1);

    /// Lanes of these sources, in which the numbers from 0 on wait.
    fn lanes(waiting: &[&str]) -> Lanes<u32> {
        let mut lanes = Lanes::default();
        let limits = || LaneLimits {
            connections: 9,
            ..LaneLimits::default()
        };
        for (source, item) in waiting.iter().zip(0..) {
            let lane = lanes.lane(&(*source).into(), &"site".into(), limits);
            lanes.push(lane, &Flow::default(), item, 0);
        }
        lanes
    }

    /// What leaves now.
    fn leaving(lanes: &mut Lanes<u32>, now_ms: u64) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(decision) = lanes.next(now_ms) {
            let Decision::Assign { item, .. } = decision else {
                panic!("{decision:?}")
            };
            all.push(item);
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn a_source_that_is_out_lets_one_through_each_minute_and_others_go_on() {
        let mut lanes = lanes(&["good", "bad", "good", "bad", "bad", "bad"]);
        lanes.take_out(&"bad".into(), 5_000);
        lanes.sender_up(SENDER, 10, []);
        assert_eq!(leaving(&mut lanes, 0), [0, 2]);
        for (now_ms, expected) in [
            (4_999, &[][..]),
            (5_000, &[1]),
            (64_999, &[]),
            (65_000, &[3]),
        ] {
            assert_eq!(leaving(&mut lanes, now_ms), expected, "{now_ms}");
        }
        lanes.put_back("bad");
        assert_eq!(leaving(&mut lanes, 65_001), [4, 5]);
    }

    #[test]
    fn what_no_sender_can_bind_waits_until_it_may_try_again() {
        let mut lanes = lanes(&["a", "b"]);
        assert!(!lanes.has_senders() && !lanes.is_served("a"));
        lanes.sender_up(SENDER, 10, []);
        assert!(lanes.has_senders() && lanes.is_served("a"));
        lanes.sender_lacks(SENDER, &"a".into(), true);
        assert!(lanes.has_senders() && !lanes.is_served("a"));
        assert_eq!(leaving(&mut lanes, 0), [1]);
        lanes.sender_lacks(SENDER, &"a".into(), false);
        assert_eq!(leaving(&mut lanes, 0), [0]);
    }

    #[test]
    fn what_waits_for_a_source_can_be_taken_out_for_another() {
        let mut lanes = lanes(&["a", "b", "b", "a", "b"]);
        assert_eq!(lanes.take_by_source(|source| source == "a"), [0, 3]);
        assert_eq!(lanes.waiting(), 3);
        lanes.sender_up(SENDER, 10, []);
        assert_eq!(leaving(&mut lanes, 0), [1, 2, 4]);
    }
}
