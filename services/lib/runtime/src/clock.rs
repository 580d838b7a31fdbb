//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds. For records and comparisons with other machines; time-outs use
/// `std::time::Instant`.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
