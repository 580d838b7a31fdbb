//! The scheduler's clock: Unix milliseconds that never go back or jump.

use std::time::{Duration, Instant};

/// Counts on from the wall clock's time at its making. A step of the wall clock later has no effect: leases and
/// limits must not see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base_ms: u64,
    since: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            base_ms: runtime::now_ms(),
            since: Instant::now(),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.at(Instant::now())
    }

    /// The time of an instant.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        let passed = instant.saturating_duration_since(self.since);
        self.base_ms + u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long until a time.
    pub(crate) fn until(&self, at_ms: u64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.now_ms()))
    }
}
