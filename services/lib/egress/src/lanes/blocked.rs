//! Why a lane does not move.

use super::{LaneId, Lanes};
use crate::rate::Window;

/// The one thing that keeps the next delivery of a lane from leaving. Without it the delivery would leave, or meet
/// the next thing in the order of these variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// The source is taken out.
    SourceOut {
        /// Then one delivery is let through, Unix milliseconds.
        until_ms: u64,
    },
    /// Nothing is to leave.
    Suspended {
        /// Until when, Unix milliseconds.
        until_ms: u64,
    },
    /// No attached sender has the lane's source.
    NoSender,
    /// Every sender that has the source holds as many deliveries as it takes.
    NoCredit,
    /// As many connections as allowed are busy, here or at other schedulers.
    Connections {
        /// So many are allowed now.
        allowed: u32,
        /// When the ramp allows one more, Unix milliseconds; `None` = by one that becomes free.
        until_ms: Option<u64>,
    },
    /// A window is used up.
    Rate {
        /// Which.
        window: Window,
        /// Until when, Unix milliseconds.
        until_ms: u64,
    },
    /// The answer about a grant of this window is on its way.
    Grant {
        /// Which.
        window: Window,
    },
}

/// Deliveries in a lane that is blocked from which others had better go elsewhere.
const JAM: usize = 8;

impl<T> Lanes<T> {
    /// What keeps the next delivery of a lane from leaving; `None` when nothing does: it leaves with the next
    /// decision, or as soon as something is in the lane.
    pub fn blocked(&self, now_ms: u64, lane: LaneId) -> Option<Blocked> {
        let lane = self.lanes.get(lane.0 as usize)?;
        if let Some(until_ms) = self.outages.keeps(lane.source, now_ms) {
            return Some(Blocked::SourceOut { until_ms });
        }
        if now_ms < lane.suspended_until_ms {
            let until_ms = lane.suspended_until_ms;
            return Some(Blocked::Suspended { until_ms });
        }
        if !self.senders.serve(lane.source) {
            return Some(Blocked::NoSender);
        }
        let is_kept = lane.starved && !self.senders.has_credit();
        if is_kept || !self.senders.any_able(lane.source) {
            return Some(Blocked::NoCredit);
        }
        let allowed = lane.hoped(now_ms);
        if lane.slots.are_busy(allowed) {
            let by_ramp = lane.ramped(now_ms) < lane.connections;
            let until_ms = by_ramp.then(|| lane.ramp.next_ms(now_ms));
            // Of all schedulers: those that are not ours are busy elsewhere.
            let allowed = lane.ramped(now_ms);
            return Some(Blocked::Connections { allowed, until_ms });
        }
        if let Some((window, until_ms)) = lane.rates.blocked(now_ms) {
            return Some(Blocked::Rate { window, until_ms });
        }
        lane.rates.asked().map(|window| Blocked::Grant { window })
    }

    /// Deliveries in lanes that only wait for a sender: limits allow them now, a connection is free for each.
    pub fn sendable(&self, now_ms: u64) -> usize {
        let of_lane = |lane: &super::Lane| {
            if lane.queue.is_empty()
                || self.outages.keeps(lane.source, now_ms).is_some()
                || now_ms < lane.suspended_until_ms
                || lane.rates.blocked(now_ms).is_some()
            {
                return 0;
            }
            let free = lane.slots.free(lane.hoped(now_ms)) as usize;
            lane.queue.len().min(free)
        };
        self.lanes.iter().map(of_lane).sum()
    }

    /// Whether deliveries wait in a lane whose own limits keep it: what comes now may go by another one.
    pub fn is_jammed(&self, now_ms: u64, lane: LaneId) -> bool {
        self.waiting_in(lane) >= JAM
            && matches!(
                self.blocked(now_ms, lane),
                Some(
                    Blocked::SourceOut { .. }
                        | Blocked::Suspended { .. }
                        | Blocked::NoSender
                        | Blocked::Connections { .. }
                        | Blocked::Rate { .. }
                )
            )
    }

    /// Whether such a delivery waits in a lane; looks at all that do.
    pub fn holds(&self, lane: LaneId, is_it: impl Fn(&T) -> bool) -> bool {
        let lane = self.lanes.get(lane.0 as usize);
        lane.is_some_and(|lane| self.fair.holds(lane.queue, is_it))
    }

    /// Deliveries that wait in a lane.
    pub fn waiting_in(&self, lane: LaneId) -> usize {
        self.lanes
            .get(lane.0 as usize)
            .map_or(0, |lane| lane.queue.len())
    }
}
