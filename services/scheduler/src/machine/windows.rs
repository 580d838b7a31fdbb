//! Deliveries that wait for the window of their stream, or for their place in its spread.

use config::{Snapshot, Timing};
use queue::RouteOf;

use super::policies::ByConfig;
use super::{Item, Machine};

/// Until when a delivery is to wait, Unix milliseconds; `None`: it may be sent. Deterministic from the message, the
/// configuration and the time, so that nothing of it is kept anywhere.
pub(super) fn held_back_until(timing: &Timing, now_ms: u64, of: &RouteOf<'_>) -> Option<u64> {
    if !of.is_retry {
        let first_ms = timing.first_attempt_ms(of.from_ms, of.spread_seed);
        if first_ms > now_ms {
            return Some(first_ms);
        }
    }
    timing.opens_ms(now_ms)
}

impl Machine {
    /// The configuration is about to be another.
    pub(super) fn windows_change(&mut self, now_ms: u64, config: &Snapshot) {
        let some = |config: &Snapshot, is: fn(&Timing) -> bool| {
            let streams = config.tenants().flat_map(|tenant| &tenant.streams);
            let mut timings = streams.filter_map(|stream| stream.timing.as_deref());
            timings.any(is)
        };
        self.has_windows = some(config, |timing| timing.window.is_some());
        if some(&self.config, |_| true) {
            for owned in self.partitions.values_mut() {
                owned.intake.release_held_back(now_ms);
            }
        }
    }

    /// A delivery may have waited in its lane until its window closed. Then it waits for the window, and true is given.
    /// Costs nothing where no stream has a window.
    pub(super) fn is_too_late(&mut self, now_ms: u64, item: Item) -> bool {
        if !self.has_windows {
            return false;
        }
        let Some(owned) = self.partitions.get_mut(&item.partition) else {
            return false;
        };
        let Some(of) = owned.intake.route_of(item.key) else {
            return false;
        };
        let stream = self.config.stream(of.tenant, of.stream);
        let timing = stream.and_then(|stream| stream.timing.as_deref());
        let Some(until_ms) = timing.and_then(|timing| timing.opens_ms(now_ms)) else {
            return false;
        };
        let policies = ByConfig(self.config.clone());
        owned.intake.hold_back(item.key, until_ms, &policies);
        true
    }
}
