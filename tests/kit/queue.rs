//! What the schedulers say of what waits.

use anyhow::{Context, Result};

/// The totals of `staffetta queue`, over all partitions that have an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Recipients that wait: ready or deferred.
    pub waiting: u64,
    /// Deliveries at a sender.
    pub in_flight: u64,
    /// Deliveries that were begun and of whose outcome nothing is known.
    pub in_doubt: u64,
    /// Recipients whose DSN is not yet stored.
    pub dsn_owed: u64,
    /// Messages that cannot be read and are kept.
    pub quarantined: u64,
    /// Partitions without an owner; what waits there is not counted.
    pub unowned: u64,
}

impl Queue {
    /// Nothing is under way any more; what is in doubt aside.
    pub fn is_still(&self) -> bool {
        self.waiting + self.in_flight + self.dsn_owed + self.unowned == 0
    }

    /// Reads the output of `staffetta queue --output json`.
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        let value: serde_json::Value =
            serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
        let total = |name: &str| value[name].as_u64().unwrap_or(0);
        Ok(Self {
            waiting: total("waiting"),
            in_flight: total("inFlight"),
            in_doubt: total("inDoubt"),
            dsn_owed: total("dsnOwed"),
            quarantined: total("quarantined"),
            unowned: value["partitionsWithoutOwner"]
                .as_array()
                .map_or(0, |partitions| partitions.len() as u64),
        })
    }
}
