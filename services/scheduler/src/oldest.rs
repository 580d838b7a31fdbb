//! How old the oldest message is. The index has no order by age, so it is looked through piece by piece.

use std::collections::HashMap;

use mail::PartitionId;
use telemetry::IntGauge;

use crate::machine::Machine;

/// Messages of a partition that are looked at in one step; a step is made every second and takes below a millisecond.
const AT_ONCE: u32 = 50_000;

/// The gauge, and how far the look through each partition is.
pub(crate) struct Oldest {
    gauge: IntGauge,
    looks: HashMap<PartitionId, Look>,
}

#[derive(Default)]
struct Look {
    next: u32,
    /// The earliest acceptance in this round so far, Unix milliseconds.
    earliest_ms: Option<u64>,
    /// That of the last round that was finished.
    found_ms: Option<u64>,
}

impl Oldest {
    pub(crate) fn new() -> Self {
        Self {
            gauge: telemetry::gauge(
                "staffetta_scheduler_oldest_message_seconds",
                "Age of the oldest message with a recipient that is not final; 0 without any.",
            ),
            looks: HashMap::new(),
        }
    }

    /// Looks a step further. With more than 50,000 messages in a partition the gauge is some seconds behind.
    pub(crate) fn update(&mut self, now_ms: u64, machine: &Machine) {
        let mut looks = std::mem::take(&mut self.looks);
        for intake in machine.intakes() {
            let partition = intake.partition();
            let mut look = looks.remove(&partition).unwrap_or_default();
            let (earliest_ms, next) = intake.earliest_among(look.next, AT_ONCE);
            look.earliest_ms = [look.earliest_ms, earliest_ms].into_iter().flatten().min();
            look.next = next;
            if next == 0 {
                look.found_ms = look.earliest_ms.take();
            }
            self.looks.insert(partition, look);
        }
        let earliest_ms = self.looks.values().filter_map(|look| look.found_ms).min();
        let age_ms = earliest_ms.map_or(0, |earliest_ms| now_ms.saturating_sub(earliest_ms));
        self.gauge
            .set(i64::try_from(age_ms / 1000).unwrap_or(i64::MAX));
    }
}
