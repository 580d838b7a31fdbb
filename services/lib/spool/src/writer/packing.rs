//! What waits, and when it becomes a block. No clock and no connection of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mail::PartitionId;
use prost::Message;

use super::{Pending, WriterOptions};
use crate::block::MAX_HEADER_INDEX;

/// Room that the index's own fields take, bytes.
const INDEX_OVERHEAD: usize = 64;

/// Length of the windows in which arrivals are counted.
const RATE_WINDOW: Duration = Duration::from_millis(100);

/// Submissions in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Packing {
    waiting: VecDeque<Waiting>,
    content_bytes: usize,
    index_bytes: usize,
    rate: ArrivalRate,
}

#[derive(Debug)]
struct Waiting {
    pending: Pending,
    index_bytes: usize,
}

impl Packing {
    pub fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), content_bytes: 0, index_bytes: 0, rate: ArrivalRate::new(now) }
    }

    pub fn push(&mut self, pending: Pending, now: Instant) {
        self.rate.count(now);
        let index_bytes = pending.entry.encoded_len() + 4;
        self.content_bytes += pending.content.len();
        self.index_bytes += index_bytes;
        self.waiting.push_back(Waiting { pending, index_bytes });
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Since when the oldest waits.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.pending.since)
    }

    /// Enough waits for a block closed by size.
    pub fn is_full(&self, options: &WriterOptions) -> bool {
        self.waiting.len() >= options.block_messages
            || self.content_bytes >= options.block_bytes
            || self.index_bytes + INDEX_OVERHEAD >= MAX_HEADER_INDEX
    }

    /// Until when a block that is not full waits for company; in the past when it does not.
    pub fn linger_until(&self, options: &WriterOptions, now: Instant) -> Instant {
        match self.oldest() {
            Some(oldest) if self.rate.per_second(now) > u64::from(options.linger_rate) => oldest + options.linger,
            _ => now,
        }
    }

    /// Where the oldest has to go, when it has chunks there.
    pub fn pinned_to(&self) -> Option<PartitionId> {
        self.waiting.front().and_then(|waiting| waiting.pending.pinned)
    }

    /// Takes the next block for a partition: what fits, in order, without what is pinned elsewhere and
    /// what nobody waits for any more. At least one message, if there is one that can go there.
    pub fn take(&mut self, partition: PartitionId, options: &WriterOptions) -> Vec<Pending> {
        let mut block = Vec::with_capacity(options.block_messages.min(self.waiting.len()));
        let (mut content_bytes, mut index_bytes) = (0, INDEX_OVERHEAD);
        let mut kept = VecDeque::new();
        while let Some(next) = self.waiting.pop_front() {
            let length = next.pending.content.len();
            if next.pending.reply.is_closed() {
                self.forget(&next);
                continue;
            }
            if next.pending.pinned.is_some_and(|pinned| pinned != partition) {
                kept.push_back(next);
                continue;
            }
            let fits = content_bytes + length <= options.block_bytes
                && index_bytes + next.index_bytes <= MAX_HEADER_INDEX
                && block.len() < options.block_messages;
            if !fits && !block.is_empty() {
                self.waiting.push_front(next);
                break;
            }
            content_bytes += length;
            index_bytes += next.index_bytes;
            self.forget(&next);
            block.push(next.pending);
        }
        while let Some(skipped) = kept.pop_back() {
            self.waiting.push_front(skipped);
        }
        block
    }

    /// Takes what waits since `before` or longer.
    pub fn take_older(&mut self, before: Instant) -> Vec<Pending> {
        let mut old = Vec::new();
        while self.oldest().is_some_and(|since| since <= before) {
            if let Some(waiting) = self.waiting.pop_front() {
                self.forget(&waiting);
                old.push(waiting.pending);
            }
        }
        old
    }

    fn forget(&mut self, taken: &Waiting) {
        self.content_bytes -= taken.pending.content.len();
        self.index_bytes -= taken.index_bytes;
    }
}

/// Arrivals per second, over the last full window and the present one.
#[derive(Debug)]
struct ArrivalRate {
    begun: Instant,
    count: u64,
    before: u64,
}

impl ArrivalRate {
    fn new(now: Instant) -> Self {
        Self { begun: now, count: 0, before: 0 }
    }

    fn count(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.begun);
        if elapsed >= RATE_WINDOW {
            self.before = if elapsed < 2 * RATE_WINDOW { self.count } else { 0 };
            self.begun = now;
            self.count = 0;
        }
        self.count += 1;
    }

    fn per_second(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.begun);
        if elapsed >= 2 * RATE_WINDOW {
            return 0;
        }
        let in_window = self.before.max(self.count);
        in_window * 1000 / RATE_WINDOW.as_millis() as u64
    }
}
