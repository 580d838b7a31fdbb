//! Counters of the writer, cheap enough to be always on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets of [`WriterStats::messages_per_block`].
const MESSAGES: [u64; 6] = [1, 2, 4, 8, 12, 16];

/// Upper bounds of the buckets of [`WriterStats::storage_wait`], microseconds.
const WAITS: [u64; 11] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000,
];

#[derive(Debug, Default)]
pub(crate) struct Counters {
    blocks: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    more_records: AtomicU64,
    messages_buckets: [AtomicU64; MESSAGES.len() + 1],
    wait_buckets: [AtomicU64; WAITS.len() + 1],
    wait_micros: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    overloaded: AtomicU64,
    repeated: AtomicU64,
}

/// What the writer did since its start. Buckets are cumulative counts by upper bound, as Prometheus
/// has them; the last bound is infinite.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WriterStats {
    /// Blocks stored.
    pub blocks: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of content in them.
    pub bytes: u64,
    /// Records stored for parts of large indexes.
    pub more_records: u64,
    /// Blocks by the number of their messages: (upper bound, blocks).
    pub messages_per_block: Vec<(f64, u64)>,
    /// Blocks by the time from their first publish to the acknowledgement: (upper bound in seconds, blocks).
    pub storage_wait: Vec<(f64, u64)>,
    /// Sum of that time, seconds.
    pub storage_wait_seconds: f64,
    /// Messages whose storage is not known after five minutes.
    pub accept_unknown: u64,
    /// Messages refused because no partition took them.
    pub refused: u64,
    /// Messages refused because too much waited.
    pub overloaded: u64,
    /// Publishes repeated because their outcome was not known.
    pub repeated: u64,
    /// Bytes of the queue that are taken.
    pub queued_bytes: u64,
}

impl Counters {
    pub fn count_block(&self, messages: usize, bytes: usize, more_records: usize, wait: Duration) {
        self.blocks.fetch_add(1, Relaxed);
        self.messages.fetch_add(messages as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.more_records.fetch_add(more_records as u64, Relaxed);
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.wait_micros.fetch_add(micros, Relaxed);
        count_in(&self.messages_buckets, &MESSAGES, messages as u64);
        count_in(&self.wait_buckets, &WAITS, micros);
    }

    pub fn count_unknown(&self, messages: usize) {
        self.unknown.fetch_add(messages as u64, Relaxed);
    }

    pub fn count_refused(&self, messages: usize) {
        self.refused.fetch_add(messages as u64, Relaxed);
    }

    pub fn count_overloaded(&self) {
        self.overloaded.fetch_add(1, Relaxed);
    }

    pub fn count_repeated(&self) {
        self.repeated.fetch_add(1, Relaxed);
    }

    pub fn snapshot(&self, queue_bytes: usize, free_bytes: usize) -> WriterStats {
        WriterStats {
            blocks: self.blocks.load(Relaxed),
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            more_records: self.more_records.load(Relaxed),
            messages_per_block: cumulative(&self.messages_buckets, &MESSAGES, 1.0),
            storage_wait: cumulative(&self.wait_buckets, &WAITS, 1e6),
            storage_wait_seconds: self.wait_micros.load(Relaxed) as f64 / 1e6,
            accept_unknown: self.unknown.load(Relaxed),
            refused: self.refused.load(Relaxed),
            overloaded: self.overloaded.load(Relaxed),
            repeated: self.repeated.load(Relaxed),
            queued_bytes: queue_bytes.saturating_sub(free_bytes) as u64,
        }
    }
}

fn count_in(buckets: &[AtomicU64], bounds: &[u64], value: u64) {
    let bucket = bounds.partition_point(|bound| *bound < value);
    buckets[bucket].fetch_add(1, Relaxed);
}

fn cumulative(buckets: &[AtomicU64], bounds: &[u64], unit: f64) -> Vec<(f64, u64)> {
    let bounds = bounds
        .iter()
        .map(|bound| *bound as f64 / unit)
        .chain([f64::INFINITY]);
    let mut sum = 0;
    buckets
        .iter()
        .zip(bounds)
        .map(|(count, bound)| {
            sum += count.load(Relaxed);
            (bound, sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_blocks_into_cumulative_buckets() {
        let counters = Counters::default();
        counters.count_block(1, 10, 0, Duration::from_micros(100));
        counters.count_block(16, 160, 1, Duration::from_millis(3));
        counters.count_block(17, 1, 0, Duration::from_secs(9));
        let stats = counters.snapshot(1 << 20, 1 << 19);
        assert_eq!(
            (
                stats.blocks,
                stats.messages,
                stats.bytes,
                stats.more_records
            ),
            (3, 34, 171, 1)
        );
        assert_eq!(stats.messages_per_block.first(), Some(&(1.0, 1)));
        assert_eq!(stats.messages_per_block[5], (16.0, 2));
        assert_eq!(stats.messages_per_block.last(), Some(&(f64::INFINITY, 3)));
        assert_eq!(stats.storage_wait[4], (0.005, 2));
        assert_eq!(stats.queued_bytes, 1 << 19);
    }
}
