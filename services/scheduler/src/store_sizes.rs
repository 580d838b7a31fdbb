//! How full the streams of owned partitions are, for Prometheus.

use mail::PartitionId;
use spool::Usage;
use telemetry::IntGaugeVec;

/// The series of one partition; they end with it, since its next owner shows them then.
pub(crate) struct StoreSizes {
    partition: String,
    bytes: IntGaugeVec,
    limit_bytes: IntGaugeVec,
}

impl StoreSizes {
    pub(crate) fn new(partition: PartitionId) -> Self {
        let labels = ["partition", "store"];
        Self {
            partition: partition.to_string(),
            bytes: telemetry::gauge_with(
                "staffetta_scheduler_store_bytes",
                "What the streams of owned partitions hold, by partition and store: spool, chunks, journal.",
                &labels,
            ),
            limit_bytes: telemetry::gauge_with(
                "staffetta_scheduler_store_limit_bytes",
                "What they may hold. At 70 % of it the owner makes space, from 85 % ingress gives the partition no more mail.",
                &labels,
            ),
        }
    }

    pub(crate) fn show(&self, usage: &Usage) {
        let stores = [
            ("spool", usage.spool_bytes, usage.spool_max_bytes),
            ("chunks", usage.chunks_bytes, usage.chunks_max_bytes),
            ("journal", usage.journal_bytes, usage.journal_max_bytes),
        ];
        for (store, bytes, limit_bytes) in stores {
            for (gauge, value) in [(&self.bytes, bytes), (&self.limit_bytes, limit_bytes)] {
                gauge
                    .with_label_values(&[self.partition.as_str(), store])
                    .set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
    }
}

impl Drop for StoreSizes {
    fn drop(&mut self) {
        for store in ["spool", "chunks", "journal"] {
            for gauge in [&self.bytes, &self.limit_bytes] {
                // There is none before the first look.
                gauge
                    .remove_label_values(&[self.partition.as_str(), store])
                    .ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_partition_until_it_is_given_away() {
        let sizes = StoreSizes::new(PartitionId(61));
        let usage = Usage {
            spool_bytes: 70,
            spool_max_bytes: 100,
            chunks_bytes: 0,
            chunks_max_bytes: 100,
            journal_bytes: 0,
            journal_max_bytes: 100,
            spool_first: 1,
            spool_last: 1,
        };
        sizes.show(&usage);
        let shown = |text: &str| telemetry::gather().contains(text);
        let series = "staffetta_scheduler_store_bytes{partition=\"61\",store=\"spool\"} 70";
        assert!(shown(series), "{}", telemetry::gather());

        drop(sizes);

        assert!(!shown("partition=\"61\""), "{}", telemetry::gather());
    }
}
