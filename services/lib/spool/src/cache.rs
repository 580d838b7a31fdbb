//! Blocks that were read lately, bounded by bytes. Each block is fetched once, however many ask for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mail::PartitionId;
use proto::spool::IndexEntry;
use tokio::sync::OnceCell;

/// Blocks held at most, however small they are.
const MAX_BLOCKS: usize = 65_536;

/// A block of the spool: partition and sequence.
pub(crate) type BlockKey = (PartitionId, u64);

/// A block in memory.
#[derive(Debug)]
pub(crate) struct CachedBlock {
    pub entries: Vec<Arc<IndexEntry>>,
    pub payload: Bytes,
    /// Of the index in memory, about.
    pub index_bytes: usize,
}

/// A place for a block, filled by the first who wants it.
pub(crate) type Slot = Arc<OnceCell<Arc<CachedBlock>>>;

#[derive(Debug)]
pub(crate) struct BlockCache {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: HashMap<BlockKey, Held>,
    /// By the time of their last use.
    order: BTreeMap<u64, BlockKey>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    slot: Slot,
    used: u64,
    /// 0 until it is read.
    bytes: usize,
}

impl BlockCache {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    /// The place for a block, and whether it is there already.
    pub fn slot(&self, key: BlockKey) -> (Slot, bool) {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        let held = state.blocks.entry(key).or_insert_with(|| Held {
            slot: Slot::default(),
            used: 0,
            bytes: 0,
        });
        let before = std::mem::replace(&mut held.used, now);
        let slot = held.slot.clone();
        state.order.remove(&before);
        state.order.insert(now, key);
        let hit = slot.initialized();
        (slot, hit)
    }

    /// Counts a block that was read, and drops the longest unused ones when there are too many.
    pub fn filled(&self, key: BlockKey, slot: &Slot, bytes: usize) {
        let mut state = self.lock();
        if let Some(held) = state.blocks.get_mut(&key)
            && Arc::ptr_eq(&held.slot, slot)
        {
            let before = std::mem::replace(&mut held.bytes, bytes);
            state.bytes = state.bytes + bytes - before;
        }
        while (state.bytes > self.capacity || state.blocks.len() > MAX_BLOCKS)
            && let Some((_, oldest)) = state.order.pop_first()
        {
            let dropped = state.blocks.remove(&oldest).map_or(0, |held| held.bytes);
            state.bytes -= dropped;
        }
    }

    /// Drops a block, or a place that could not be filled.
    pub fn forget(&self, key: BlockKey, slot: &Slot) {
        let mut state = self.lock();
        if state
            .blocks
            .get(&key)
            .is_some_and(|held| Arc::ptr_eq(&held.slot, slot))
            && let Some(held) = state.blocks.remove(&key)
        {
            state.order.remove(&held.used);
            state.bytes -= held.bytes;
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(bytes: usize) -> Arc<CachedBlock> {
        Arc::new(CachedBlock {
            entries: Vec::new(),
            payload: Bytes::from(vec![0; bytes]),
            index_bytes: 0,
        })
    }

    #[test]
    fn keeps_the_blocks_used_last_within_its_bytes() {
        let cache = BlockCache::new(100);
        for sequence in 1..=3 {
            let key = (PartitionId(0), sequence);
            let (slot, hit) = cache.slot(key);
            assert!(!hit);
            slot.set(block(40)).unwrap();
            // Block 1 is used between the others.
            assert!(cache.slot((PartitionId(0), 1)).1);
            cache.filled(key, &slot, 40);
        }
        assert_eq!(cache.bytes(), 80);
        assert!(cache.slot((PartitionId(0), 1)).1);
        assert!(!cache.slot((PartitionId(0), 2)).1);
        assert!(cache.slot((PartitionId(0), 3)).1);
    }

    #[test]
    fn forgets_only_the_place_that_is_meant() {
        let cache = BlockCache::new(100);
        let key = (PartitionId(1), 1);
        let (old, _) = cache.slot(key);
        cache.forget(key, &old);
        let (new, _) = cache.slot(key);
        new.set(block(10)).unwrap();
        cache.filled(key, &new, 10);
        cache.forget(key, &old);
        assert!(cache.slot(key).1);
    }
}
