//! Which partitions take mail: how full their streams are, what their owners say, and whether a
//! publish to them is stuck.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mail::PartitionId;

use super::Shared;
use crate::link::Link;
use crate::{Members, Stores, layout};

/// How often the streams of partitions that are written to are asked for their size.
const REFRESH: Duration = Duration::from_secs(1);

/// Every so many refreshes all partitions are asked.
const FULL_REFRESH: u32 = 5;

#[derive(Debug)]
pub(crate) struct Partitions {
    all: Vec<Fill>,
    watermark_percent: u32,
    rotation: AtomicUsize,
}

/// One partition, as the writer sees it.
#[derive(Debug)]
pub(crate) struct Fill {
    /// The fuller one of SPOOL and JOURNAL, per cent.
    percent: AtomicU32,
    chunks_percent: AtomicU32,
    /// What the owner says; true and 0 when nobody owns it.
    owner_accepts: AtomicBool,
    owner_percent: AtomicU32,
    /// Refused for want of room since the last refresh.
    refused: AtomicBool,
    /// Blocks in flight.
    in_flight: AtomicU32,
    /// Of them, those whose outcome is not known.
    pub stuck: AtomicU32,
    written: AtomicBool,
}

impl Fill {
    fn new() -> Self {
        Self {
            percent: AtomicU32::new(0),
            chunks_percent: AtomicU32::new(0),
            owner_accepts: AtomicBool::new(true),
            owner_percent: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            stuck: AtomicU32::new(0),
            written: AtomicBool::new(true),
        }
    }

    /// Until the next refresh.
    pub fn note_refused(&self) {
        self.refused.store(true, Relaxed);
    }
}

impl Partitions {
    pub fn new(partitions: u32, watermark_percent: u32) -> Self {
        // Processes begin at different partitions.
        let begin = uuid::Uuid::now_v7().as_bytes()[15] as usize;
        Self {
            all: (0..partitions).map(|_| Fill::new()).collect(),
            watermark_percent,
            rotation: AtomicUsize::new(begin),
        }
    }

    pub fn get(&self, partition: PartitionId) -> Option<&Fill> {
        self.all.get(partition.0 as usize)
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn note_launched(&self, partition: PartitionId) {
        if let Some(fill) = self.get(partition) {
            fill.in_flight.fetch_add(1, Relaxed);
            fill.written.store(true, Relaxed);
        }
    }

    pub fn note_landed(&self, partition: PartitionId) {
        if let Some(fill) = self.get(partition) {
            fill.in_flight.fetch_sub(1, Relaxed);
        }
    }

    pub fn note_stuck(&self, partition: PartitionId) {
        if let Some(fill) = self.get(partition) {
            fill.stuck.fetch_add(1, Relaxed);
        }
    }

    pub fn note_unstuck(&self, partition: PartitionId) {
        if let Some(fill) = self.get(partition) {
            fill.stuck.fetch_sub(1, Relaxed);
        }
    }

    fn accepts(&self, fill: &Fill) -> bool {
        fill.owner_accepts.load(Relaxed)
            && !fill.refused.load(Relaxed)
            && fill.percent.load(Relaxed) < self.watermark_percent
    }

    pub fn is_any_accepting(&self) -> bool {
        self.all.iter().any(|fill| self.accepts(fill))
    }

    pub fn least_fill_percent(&self) -> u32 {
        let accepting = self.all.iter().filter(|fill| self.accepts(fill));
        let percents = accepting.map(|fill| {
            fill.percent
                .load(Relaxed)
                .max(fill.owner_percent.load(Relaxed))
        });
        percents.min().unwrap_or(100)
    }

    /// The next one in rotation that accepts and is not stuck, the least busy first.
    pub fn choose(&self, except: Option<PartitionId>) -> Option<PartitionId> {
        let usable = |fill: &Fill| self.accepts(fill) && fill.stuck.load(Relaxed) == 0;
        self.next_by(|partition, fill| {
            (usable(fill) && Some(partition) != except).then(|| fill.in_flight.load(Relaxed))
        })
    }

    pub fn choose_for_upload(&self) -> Option<PartitionId> {
        self.next_by(|_, fill| {
            let usable = self.accepts(fill)
                && fill.stuck.load(Relaxed) == 0
                && fill.chunks_percent.load(Relaxed) < self.watermark_percent;
            usable.then_some(0)
        })
    }

    fn next_by(&self, cost: impl Fn(PartitionId, &Fill) -> Option<u32>) -> Option<PartitionId> {
        let count = self.all.len();
        let start = self.rotation.fetch_add(1, Relaxed);
        (0..count)
            .map(|step| (start + step) % count)
            .filter_map(|index| {
                let partition = PartitionId(index as u32);
                cost(partition, &self.all[index]).map(|cost| (cost, partition))
            })
            .min_by_key(|(cost, _)| *cost)
            .map(|(_, partition)| partition)
    }

    /// Blocks in flight whose outcome will be known soon.
    pub fn healthy_in_flight(&self) -> u32 {
        self.all
            .iter()
            .map(|fill| {
                fill.in_flight
                    .load(Relaxed)
                    .saturating_sub(fill.stuck.load(Relaxed))
            })
            .sum()
    }
}

/// Keeps the partitions' state up to date for as long as the writer lives.
pub(crate) fn watch(shared: &Arc<Shared>, stores: &Stores) {
    tokio::spawn(refresh(Arc::downgrade(shared), stores.control().clone()));
    tokio::spawn(follow_owners(Arc::downgrade(shared), stores.members()));
}

async fn refresh(shared: Weak<Shared>, link: Link) {
    let mut round = 0_u32;
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        for (index, fill) in shared.partitions.all.iter().enumerate() {
            let written = fill.written.swap(false, Relaxed) | fill.refused.load(Relaxed);
            if written || round.is_multiple_of(FULL_REFRESH) {
                refresh_one(&link, PartitionId(index as u32), fill).await;
            }
        }
        shared.changed.notify_one();
        drop(shared);
        round = round.wrapping_add(1);
        tokio::time::sleep(REFRESH).await;
    }
}

async fn refresh_one(link: &Link, partition: PartitionId, fill: &Fill) {
    let (spool, chunks, journal) = (
        layout::spool_stream(partition),
        layout::chunks_stream(partition),
        layout::journal_stream(partition),
    );
    let (spool, chunks, journal) = tokio::join!(
        percent_of(link, &spool),
        percent_of(link, &chunks),
        percent_of(link, &journal)
    );
    // Without an answer the last one holds.
    if let (Some(spool), Some(journal)) = (spool, journal) {
        fill.percent.store(spool.max(journal), Relaxed);
        fill.refused.store(false, Relaxed);
    }
    if let Some(chunks) = chunks {
        fill.chunks_percent.store(chunks, Relaxed);
    }
}

async fn percent_of(link: &Link, stream: &str) -> Option<u32> {
    match link.stream_state(stream).await {
        Ok(info) => {
            let bound = u64::try_from(info.config.max_bytes)
                .ok()
                .filter(|bound| *bound > 0)?;
            Some(u32::try_from(info.state.bytes.saturating_mul(100) / bound).unwrap_or(u32::MAX))
        }
        Err(error) => {
            tracing::debug!(stream, %error, "can't ask how full the stream is");
            None
        }
    }
}

async fn follow_owners(shared: Weak<Shared>, members: Members) {
    let mut statuses = members.watch_partitions();
    loop {
        {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let known = statuses.borrow_and_update().clone();
            for (index, fill) in shared.partitions.all.iter().enumerate() {
                let status = known.get(&PartitionId(index as u32));
                fill.owner_accepts
                    .store(status.is_none_or(|status| status.accepting), Relaxed);
                fill.owner_percent
                    .store(status.map_or(0, |status| status.fill_percent), Relaxed);
            }
            shared.changed.notify_one();
        }
        // Wakes up now and then to see whether the writer is gone.
        if let Ok(Err(_)) = tokio::time::timeout(Duration::from_secs(10), statuses.changed()).await
        {
            return;
        }
    }
}
