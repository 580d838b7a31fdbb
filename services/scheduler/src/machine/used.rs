//! When what was counted in the windows of a lane has happened.
//!
//! An assignment counts from the start. The connection that is opened for it is dated when its message begins, the message
//! when the sender says that it has left: with the final dot, so that the limit holds for hosts that count MAIL and for
//! those that count messages, or at the latest one window after MAIL. Nothing is dated earlier than it was.

use egress::{Became, Drawn, LaneId, Unit};
use proto::dispatch::{Left, ReturnReason};
use queue::SessionId;

use super::Machine;
use super::sessions::{Held, Lost, key_of};

/// So long after its stream broke, or its partition went elsewhere, a sender may still begin what it holds, milliseconds:
/// until it has seen that.
const UNSEEN_MS: u64 = 20_000;

/// How an assignment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a report.
    Reported,
    /// It is given back, not begun.
    Returned(ReturnReason),
    /// The sender is told to drop it.
    Refused,
}

/// It has happened by now; times are whole milliseconds.
fn by(now_ms: u64) -> Became {
    Became::Over(now_ms + 1)
}

impl Machine {
    /// A message begins: its connection is open.
    pub(super) fn note_begun(&mut self, now_ms: u64, begins: Option<(LaneId, Drawn)>) {
        if let Some((lane, drawn)) = begins {
            self.lanes
                .settle(lane, drawn, Unit::Connections, by(now_ms));
        }
    }

    pub(super) fn left(&mut self, now_ms: u64, session: SessionId, left: Left) {
        let Some(delivery) = left.delivery else {
            return;
        };
        let state = self.sessions.get_mut(&session);
        let held = state.and_then(|state| state.held_mut(&key_of(&delivery)));
        let Some(held) = held.filter(|held| !held.has_left) else {
            return;
        };
        held.has_left = true;
        let (lane, drawn) = (held.lane, held.drawn);
        self.lanes.settle(lane, drawn, Unit::Messages, by(now_ms));
    }

    /// An assignment is over.
    pub(super) fn settle(&mut self, now_ms: u64, held: &Held, end: End) {
        let connection = match end {
            _ if held.has_begun => None,
            // A large message begins when only its dot is left.
            _ if held.has_left => Some(by(now_ms)),
            // It may have been opened, or not have been accepted.
            End::Reported | End::Refused => Some(by(now_ms)),
            End::Returned(reason) => Some(match reason {
                ReturnReason::NotFound
                | ReturnReason::Damaged
                | ReturnReason::SiteChanged
                | ReturnReason::SignerUnavailable
                | ReturnReason::StorageUnavailable => Became::Nothing,
                // A smart host or a proxy of the source may have been connected to.
                ReturnReason::Source
                | ReturnReason::Unspecified
                | ReturnReason::Draining
                | ReturnReason::StaleEpoch
                | ReturnReason::Connection => by(now_ms),
            }),
        };
        let message = match end {
            _ if held.has_left => None,
            _ if held.has_begun => Some(by(now_ms)),
            End::Reported | End::Returned(_) => Some(Became::Nothing),
            // It may be about to begin.
            End::Refused => Some(Became::Unknown(now_ms + UNSEEN_MS)),
        };
        let units = [(Unit::Connections, connection), (Unit::Messages, message)];
        for (unit, became) in units {
            if let Some(became) = became {
                self.lanes.settle(held.lane, held.drawn, unit, became);
            }
        }
    }

    /// Nobody will tell what becomes of these.
    pub(super) fn settle_lost(&mut self, now_ms: u64, lost: Lost) {
        let became = Became::Unknown(now_ms + UNSEEN_MS);
        for held in lost.0 {
            if !held.has_begun {
                let (lane, drawn) = (held.lane, held.drawn);
                self.lanes.settle(lane, drawn, Unit::Connections, became);
            }
            if !held.has_left {
                let (lane, drawn) = (held.lane, held.drawn);
                self.lanes.settle(lane, drawn, Unit::Messages, became);
            }
        }
    }
}
