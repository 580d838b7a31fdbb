//! One lane.

use std::sync::Arc;

use super::lease::{self, Lease};
use super::senders::SourceId;
use super::shared::Member;
use super::slots::Slots;
use crate::fair::Queue;
use crate::rate::Rates;

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    /// `None` = a number that is free.
    pub(super) site: Option<Arc<str>>,
    pub(super) source: SourceId,
    pub(super) connections: u32,
    pub(super) connection_share: Option<u32>,
    pub(super) messages_per_connection: u32,
    pub(super) queue: Queue,
    pub(super) slots: Slots,
    pub(super) lease: Lease,
    pub(super) rates: Rates,
    /// Its part in a limit that it shares with others.
    pub(super) member: Option<Member>,
    pub(super) ramp: Ramp,
    pub(super) suspended_until_ms: u64,
    /// The last timer that was set for it, and for its words about rates, Unix milliseconds.
    pub(super) timer_ms: u64,
    pub(super) tell_timer_ms: u64,
    /// A credit is kept for it.
    pub(super) expects: bool,
    /// In the list of runnable lanes.
    pub(super) runnable: bool,
    /// In the list of starved lanes.
    pub(super) starved: bool,
    /// In the list of idle lanes.
    pub(super) idle: bool,
}

/// How many connections a lane may have by now.
#[derive(Debug, Default)]
pub(super) struct Ramp {
    /// 0 = no ramp.
    pub(super) every_ms: u64,
    /// When the lane had its first connection.
    pub(super) since_ms: u64,
}

impl Ramp {
    fn allows(&self, now_ms: u64) -> u32 {
        let steps = now_ms
            .saturating_sub(self.since_ms)
            .checked_div(self.every_ms);
        steps.map_or(u32::MAX, |steps| {
            u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(1)
        })
    }

    /// When it allows one more.
    pub(super) fn next_ms(&self, now_ms: u64) -> u64 {
        self.since_ms + u64::from(self.allows(now_ms)) * self.every_ms
    }
}

impl Lane {
    /// Connections that its limits let it have by now, those of other schedulers apart.
    pub(super) fn ramped(&self, now_ms: u64) -> u32 {
        if self.ramp.every_ms > 0 && self.slots.used() == 0 {
            return self.connections.min(1);
        }
        self.connections.min(self.ramp.allows(now_ms))
    }

    /// Connections that it may have by now.
    pub(super) fn allowed(&self, now_ms: u64) -> u32 {
        let (limit, share) = (self.connections, self.connection_share);
        let leased = self.lease.allowed(now_ms, limit, share);
        self.ramped(now_ms).min(leased)
    }

    /// Connections that it could have by now, as far as is known: before more are asked for, others may leave them.
    pub(super) fn hoped(&self, now_ms: u64) -> u32 {
        match self.lease.is_short() {
            true => self.allowed(now_ms),
            false => self.ramped(now_ms),
        }
    }

    /// What is said about its connections now.
    pub(super) fn speak(&mut self, now_ms: u64) -> Option<(u32, u32, lease::Word)> {
        let share = self.connection_share?;
        let used = self.slots.used();
        let more = self.ramped(now_ms).saturating_sub(used);
        let waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        let most = more.min(waiting);
        let word = self.lease.speak(now_ms, used, most)?;
        Some((self.connections, share, word))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.site.is_some()
            && self.queue.is_empty()
            && self.slots.used() == 0
            && self.lease.is_over()
            && !self.runnable
            && !self.starved
    }
}
