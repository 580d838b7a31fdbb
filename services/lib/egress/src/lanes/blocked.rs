//! Why a lane does not move.

use super::lane::Lane;
use super::shared::{Member, Shared};
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
    /// As many connections as the lanes that share a limit may have are busy, here or at other schedulers.
    SharedConnections {
        /// So many are allowed.
        allowed: u32,
    },
    /// A window is used up.
    Rate {
        /// Which.
        window: Window,
        /// Until when, Unix milliseconds.
        until_ms: u64,
    },
    /// A window that lanes share is used up.
    SharedRate {
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
    /// The same of a window that lanes share.
    SharedGrant {
        /// Which.
        window: Window,
    },
}

impl Blocked {
    /// Whether it is by a limit that the lane shares with others.
    pub fn is_shared(&self) -> bool {
        matches!(
            self,
            Self::SharedConnections { .. } | Self::SharedRate { .. } | Self::SharedGrant { .. }
        )
    }
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
        let shared = self.shared_of(lane);
        if let Some(shared) = shared
            && lane
                .slots
                .are_busy(lane.slots.used().saturating_add(shared.hoped(now_ms)))
        {
            let allowed = shared.connections;
            return Some(Blocked::SharedConnections { allowed });
        }
        if let Some((window, until_ms)) = lane.rates.blocked(now_ms) {
            return Some(Blocked::Rate { window, until_ms });
        }
        if let Some((window, until_ms)) = shared.and_then(|shared| shared.rates.blocked(now_ms)) {
            return Some(Blocked::SharedRate { window, until_ms });
        }
        if let Some(window) = lane.rates.asked() {
            return Some(Blocked::Grant { window });
        }
        let shared = shared?;
        if let Some(window) = shared.rates.asked() {
            return Some(Blocked::SharedGrant { window });
        }
        // It is about to open one anew in place of one that is worn out.
        let allowed = shared.connections;
        let waits = lane.member.as_ref().is_some_and(Member::waits_to_open);
        waits.then_some(Blocked::SharedConnections { allowed })
    }

    /// The limit that a lane shares with others.
    fn shared_of(&self, lane: &Lane) -> Option<&Shared> {
        let member = lane.member.as_ref()?;
        self.shared.get(member.of.0 as usize)
    }

    /// Deliveries in lanes that only wait for a sender: limits allow them now, a connection is free for each.
    pub fn sendable(&self, now_ms: u64) -> usize {
        // Connections that lanes may still open under the limits that they share.
        let mut room: Vec<usize> = (self.shared.iter())
            .map(|shared| shared.hoped(now_ms) as usize)
            .collect();
        let mut all = 0;
        for lane in &self.lanes {
            let shared = self.shared_of(lane);
            if lane.queue.is_empty()
                || self.outages.keeps(lane.source, now_ms).is_some()
                || now_ms < lane.suspended_until_ms
                || lane.rates.blocked(now_ms).is_some()
                || shared.is_some_and(|shared| shared.rates.blocked(now_ms).is_some())
            {
                continue;
            }
            let free = lane.slots.free(lane.hoped(now_ms)) as usize;
            let most = lane.queue.len().min(free);
            let member = lane.member.as_ref();
            all += match member.and_then(|member| room.get_mut(member.of.0 as usize)) {
                None => most,
                Some(room) => {
                    let idle = lane.slots.free(lane.slots.used()) as usize;
                    let opened = most.saturating_sub(idle).min(*room);
                    *room -= opened;
                    most.min(idle) + opened
                }
            };
        }
        all
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
                        | Blocked::SharedConnections { .. }
                        | Blocked::Rate { .. }
                        | Blocked::SharedRate { .. }
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
