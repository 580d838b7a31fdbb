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
        Self {
            waiting: VecDeque::new(),
            content_bytes: 0,
            index_bytes: 0,
            rate: ArrivalRate::new(now),
        }
    }

    pub fn push(&mut self, pending: Pending, now: Instant) {
        self.rate.count(now);
        let index_bytes = pending.entry.encoded_len() + 4;
        self.content_bytes += pending.content.len();
        self.index_bytes += index_bytes;
        self.waiting.push_back(Waiting {
            pending,
            index_bytes,
        });
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
            Some(oldest) if self.rate.per_second(now) > u64::from(options.linger_rate) => {
                oldest + options.linger
            }
            _ => now,
        }
    }

    /// Where the oldest has to go, when it has chunks there.
    pub fn pinned_to(&self) -> Option<PartitionId> {
        self.waiting
            .front()
            .and_then(|waiting| waiting.pending.pinned)
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
            if next
                .pending
                .pinned
                .is_some_and(|pinned| pinned != partition)
            {
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
        Self {
            begun: now,
            count: 0,
            before: 0,
        }
    }

    fn count(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.begun);
        if elapsed >= RATE_WINDOW {
            self.before = if elapsed < 2 * RATE_WINDOW {
                self.count
            } else {
                0
            };
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proto::spool::IndexEntry;
    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::{Stored, SubmitError};

    type Answer = oneshot::Receiver<Result<Stored, SubmitError>>;

    const P0: PartitionId = PartitionId(0);
    const P1: PartitionId = PartitionId(1);

    fn pending(
        length: usize,
        index: usize,
        pinned: Option<PartitionId>,
        since: Instant,
    ) -> (Pending, Answer) {
        let (reply, answer) = oneshot::channel();
        let entry = IndexEntry {
            header_variants: vec![Bytes::from(vec![0; index])],
            ..Default::default()
        };
        let charge = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (
            Pending {
                entry,
                content: Bytes::from(vec![0; length]),
                pinned,
                since,
                reply,
                _charge: charge,
            },
            answer,
        )
    }

    fn packing(
        messages: &[(usize, usize, Option<PartitionId>)],
        now: Instant,
    ) -> (Packing, Vec<Answer>) {
        let mut packing = Packing::new(now);
        let mut answers = Vec::new();
        for (length, index, pinned) in messages {
            let (pending, answer) = pending(*length, *index, *pinned, now);
            packing.push(pending, now);
            answers.push(answer);
        }
        (packing, answers)
    }

    fn lengths(block: &[Pending]) -> Vec<usize> {
        block.iter().map(|pending| pending.content.len()).collect()
    }

    #[test]
    fn a_block_closes_by_number_bytes_or_index() {
        let options = WriterOptions::default();
        let now = Instant::now();
        for (message, expected) in [
            ((10, 10, None), 16),
            ((50_000, 10, None), 3),
            ((10, 10_000, None), 3),
            ((500_000, 50_000, None), 1),
        ] {
            let (mut packing, _answers) = packing(&[message; 20], now);
            assert!(packing.is_full(&options));
            assert_eq!(packing.take(P0, &options).len(), expected, "{message:?}");
        }
        let (mut few, _answers) = packing(&[(10, 10, None); 15], now);
        assert!(!few.is_full(&options));
        assert_eq!(few.take(P0, &options).len(), 15);
        assert!(few.is_empty() && few.content_bytes == 0 && few.index_bytes == 0);
    }

    #[test]
    fn what_is_pinned_elsewhere_stays_in_its_place_and_holds_up_nobody() {
        let options = WriterOptions::default();
        let messages = [
            (1, 0, Some(P1)),
            (2, 0, None),
            (3, 0, Some(P0)),
            (4, 0, Some(P1)),
            (5, 0, None),
        ];
        let (mut packing, _answers) = packing(&messages, Instant::now());
        assert_eq!(packing.pinned_to(), Some(P1));
        assert_eq!(lengths(&packing.take(P0, &options)), [2, 3, 5]);
        assert!(packing.take(P0, &options).is_empty());
        assert_eq!(lengths(&packing.take(P1, &options)), [1, 4]);
    }

    #[test]
    fn what_nobody_waits_for_is_not_stored() {
        let options = WriterOptions::default();
        let (mut packing, mut answers) =
            packing(&[(1, 0, None), (2, 0, None), (3, 0, None)], Instant::now());
        drop(answers.remove(1));
        assert_eq!(lengths(&packing.take(P0, &options)), [1, 3]);
        assert!(packing.is_empty());
    }

    #[test]
    fn only_with_much_traffic_a_block_waits_for_company() {
        let options = WriterOptions::default();
        let begin = Instant::now();
        for (every, waits) in [
            (Duration::from_millis(10), false),
            (Duration::from_millis(1), true),
        ] {
            let mut packing = Packing::new(begin);
            let mut now = begin;
            for _ in 0..1000 {
                now += every;
                let (pending, answer) = pending(1, 1, None, now);
                packing.push(pending, now);
                assert_eq!(packing.take(P0, &options).len(), 1);
                drop(answer);
            }
            let (pending, _answer) = pending(1, 1, None, now);
            packing.push(pending, now);
            let expected = if waits { now + options.linger } else { now };
            assert_eq!(packing.linger_until(&options, now), expected);
            // Long after the rush it does not.
            assert!(
                packing.linger_until(&options, now + Duration::from_secs(1))
                    <= now + Duration::from_secs(1)
            );
        }
    }

    #[test]
    fn gives_up_on_what_waits_too_long() {
        let now = Instant::now();
        let (mut packing, _answers) = packing(&[(1, 0, None), (2, 0, None)], now);
        let (late, _answer) = pending(3, 0, None, now + Duration::from_secs(1));
        packing.push(late, now + Duration::from_secs(1));
        assert_eq!(lengths(&packing.take_older(now)), [1, 2]);
        assert_eq!(packing.oldest(), Some(now + Duration::from_secs(1)));
    }
}
