//! The task that makes the blocks and keeps them in flight.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mail::{PartitionId, Place};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::packing::Packing;
use super::publish::{RecordFailure, publish_assembled};
use super::{Pending, Shared, Stored, SubmitError};
use crate::block::AssembledBlock;

type Reply = oneshot::Sender<Result<Stored, SubmitError>>;
type Flight = Pin<Box<dyn Future<Output = Landed> + Send>>;

pub(crate) struct Task {
    shared: Arc<Shared>,
    submissions: mpsc::UnboundedReceiver<Pending>,
    packing: Packing,
    in_flight: FuturesUnordered<Flight>,
    /// No more submissions will come.
    closing: bool,
}

/// A block under way.
struct Block {
    assembled: AssembledBlock,
    /// In the order of the index; with what each is charged for until it is answered.
    waiters: Vec<Waiter>,
    /// Has chunks in its partition.
    pinned: bool,
    /// Another partition refused it.
    second_try: bool,
}

struct Waiter {
    reply: Reply,
    _charge: tokio::sync::OwnedSemaphorePermit,
}

struct Landed {
    partition: PartitionId,
    block: Block,
    result: Result<u64, RecordFailure>,
    wait: Duration,
}

impl Task {
    pub fn new(shared: Arc<Shared>, submissions: mpsc::UnboundedReceiver<Pending>) -> Self {
        let packing = Packing::new(Instant::now());
        Self {
            shared,
            submissions,
            packing,
            in_flight: FuturesUnordered::new(),
            closing: false,
        }
    }

    pub async fn run(mut self) {
        while !(self.closing && self.packing.is_empty() && self.in_flight.is_empty()) {
            let wake_at = self.send_what_can_go();
            let wake_at = tokio::time::Instant::from_std(wake_at);
            tokio::select! {
                biased;
                Some(landed) = self.in_flight.next() => self.land(landed),
                submission = self.submissions.recv(), if !self.closing => match submission {
                    Some(pending) => self.collect(pending),
                    None => self.closing = true,
                },
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep_until(wake_at), if !self.packing.is_empty() => {}
            }
        }
    }

    fn collect(&mut self, first: Pending) {
        let now = Instant::now();
        self.packing.push(first, now);
        // As far as one block needs: what is behind it waits in the channel.
        while !self.packing.is_full(&self.shared.options) {
            match self.submissions.try_recv() {
                Ok(pending) => self.packing.push(pending, now),
                Err(_) => return,
            }
        }
    }

    /// Sends blocks as far as the rule allows; tells when to look again if nothing happens before.
    fn send_what_can_go(&mut self) -> Instant {
        let shared = self.shared.clone();
        let options = &shared.options;
        loop {
            let now = Instant::now();
            self.give_up_the_impatient(now);
            let Some(oldest) = self.packing.oldest() else {
                return now + options.patience;
            };
            let patient_until = oldest + options.patience;
            let healthy = shared.partitions.healthy_in_flight();
            let full = self.packing.is_full(options);
            let most = options.blocks_in_flight.max(1) * shared.partitions.count();
            if healthy as usize >= if full { most } else { 1 } {
                return patient_until;
            }
            let linger_until = self.packing.linger_until(options, now);
            if !full && !self.closing && linger_until > now {
                return linger_until.min(patient_until);
            }
            let Some(partition) = self.choose() else {
                if shared.partitions.is_any_accepting() {
                    // They are stuck.
                    return patient_until;
                }
                self.give_up(now, &SubmitError::Full);
                continue;
            };
            let messages = self.packing.take(partition, options);
            if !messages.is_empty() {
                self.launch(partition, assemble(messages));
            } else if let Some(oldest) = self.packing.oldest() {
                // All of them have chunks in partitions that are stuck.
                return oldest + options.patience;
            }
        }
    }

    fn choose(&self) -> Option<PartitionId> {
        let partitions = &self.shared.partitions;
        // Where its chunks are: room or not, JetStream decides.
        let pinned = self.packing.pinned_to().filter(|pinned| {
            partitions
                .get(*pinned)
                .is_some_and(|fill| fill.stuck.load(Relaxed) == 0)
        });
        pinned.or_else(|| partitions.choose(None))
    }

    fn give_up_the_impatient(&mut self, now: Instant) {
        if let Some(before) = now.checked_sub(self.shared.options.patience) {
            self.give_up(
                before,
                &SubmitError::Unavailable("earlier blocks are not acknowledged".to_owned()),
            );
        }
    }

    /// What waits since `before` or longer.
    fn give_up(&mut self, before: Instant, error: &SubmitError) {
        let given_up = self.packing.take_older(before);
        self.shared.stats.count_refused(given_up.len());
        for pending in given_up {
            answer(pending.reply, Err(error.clone()));
        }
    }

    fn launch(&mut self, partition: PartitionId, block: Block) {
        let shared = self.shared.clone();
        self.in_flight.push(Box::pin(async move {
            let begun = Instant::now();
            let mut flight = InFlight::begin(&shared, partition);
            let repeat_for = shared.options.repeat_for;
            let result = publish_assembled(
                &shared.link,
                partition,
                &block.assembled,
                repeat_for,
                || flight.stuck(),
            )
            .await;
            drop(flight);
            Landed {
                partition,
                block,
                result: result.map(|ack| ack.sequence),
                wait: begun.elapsed(),
            }
        }));
        // The flight counts from now on, not from when it is first polled.
        self.shared.partitions.note_launched(partition);
    }

    fn land(&mut self, landed: Landed) {
        let Landed {
            partition,
            block,
            result,
            wait,
        } = landed;
        self.shared.partitions.note_landed(partition);
        let messages = block.waiters.len();
        let error = match result {
            Ok(sequence) => {
                let more = block.assembled.more.len();
                self.shared
                    .stats
                    .count_block(messages, block.assembled.payload.len(), more, wait);
                for (index, waiter) in (0..).zip(block.waiters) {
                    answer(
                        waiter.reply,
                        Ok(Stored {
                            partition,
                            place: Place { sequence, index },
                        }),
                    );
                }
                return;
            }
            Err(RecordFailure::Unknown(detail)) => {
                tracing::error!(
                    %partition, block = %block.assembled.id, messages, detail,
                    "whether a block was stored is not known; its messages may be delivered twice"
                );
                self.shared.stats.count_unknown(messages);
                SubmitError::Unknown(detail)
            }
            Err(failure) => {
                if let (RecordFailure::Full(_), Some(fill)) =
                    (&failure, self.shared.partitions.get(partition))
                {
                    fill.note_refused();
                }
                tracing::warn!(%partition, messages, ?failure, "a block was refused");
                let other = self.shared.partitions.choose(Some(partition));
                if let (false, false, Some(other)) = (block.pinned, block.second_try, other) {
                    self.launch(
                        other,
                        Block {
                            second_try: true,
                            ..block
                        },
                    );
                    return;
                }
                self.shared.stats.count_refused(messages);
                failure.into()
            }
        };
        for waiter in block.waiters {
            answer(waiter.reply, Err(error.clone()));
        }
    }
}

fn assemble(messages: Vec<Pending>) -> Block {
    let mut contents = Vec::with_capacity(messages.len());
    let mut waiters = Vec::with_capacity(messages.len());
    let mut pinned = false;
    for Pending {
        entry,
        content,
        pinned: to,
        reply,
        _charge,
        ..
    } in messages
    {
        pinned |= to.is_some();
        contents.push((entry, content));
        waiters.push(Waiter { reply, _charge });
    }
    Block {
        assembled: AssembledBlock::new(Uuid::now_v7(), 0, contents),
        waiters,
        pinned,
        second_try: false,
    }
}

/// Who does not wait any more needs no answer.
fn answer(reply: Reply, result: Result<Stored, SubmitError>) {
    drop(reply.send(result));
}

/// Keeps the count of blocks whose outcome is not known right, also when the flight is dropped.
struct InFlight<'a> {
    shared: &'a Shared,
    partition: PartitionId,
    is_stuck: bool,
}

impl<'a> InFlight<'a> {
    fn begin(shared: &'a Shared, partition: PartitionId) -> Self {
        Self {
            shared,
            partition,
            is_stuck: false,
        }
    }

    fn stuck(&mut self) {
        self.shared.stats.count_repeated();
        if !std::mem::replace(&mut self.is_stuck, true) {
            self.shared.partitions.note_stuck(self.partition);
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.is_stuck {
            self.shared.partitions.note_unstuck(self.partition);
        }
    }
}
