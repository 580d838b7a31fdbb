//! Blocks that were read lately, bounded by bytes. Each block is fetched once, however many ask for it.
//!
//! A block of which every message has been read is hardly asked for again: only few of those are kept, so that the next
//! block goes into memory that is warm.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mail::PartitionId;
use proto::spool::IndexEntry;
use tokio::sync::OnceCell;

/// Blocks held at most, however small they are.
const MAX_BLOCKS: usize = 65_536;

/// Blocks that were read whole are held up to so many bytes: other deliveries of the same messages follow soon.
const MAX_SPENT_BYTES: usize = 4 << 20;

/// A block of the spool: partition and sequence.
pub(crate) type BlockKey = (PartitionId, u64);

/// A block in memory.
#[derive(Debug)]
pub(crate) struct CachedBlock {
    entries: Vec<CachedEntry>,
    unread: AtomicUsize,
    pub payload: Bytes,
    /// Of the index in memory, about.
    index_bytes: usize,
}

#[derive(Debug)]
struct CachedEntry {
    entry: Arc<IndexEntry>,
    read: AtomicBool,
}

impl CachedBlock {
    /// `index_bytes`: size of its index in memory, about.
    pub fn new(entries: Vec<IndexEntry>, payload: Bytes, index_bytes: usize) -> Self {
        let cached = |entry| CachedEntry {
            entry: Arc::new(entry),
            read: AtomicBool::new(false),
        };
        Self {
            unread: AtomicUsize::new(entries.len()),
            entries: entries.into_iter().map(cached).collect(),
            payload,
            index_bytes,
        }
    }

    /// Size in memory, about.
    pub fn bytes(&self) -> usize {
        self.payload.len() + self.index_bytes
    }

    /// The entry of a message.
    pub fn entry(&self, index: u32) -> Option<&Arc<IndexEntry>> {
        self.entries.get(index as usize).map(|cached| &cached.entry)
    }

    /// Notes that a message was read; tells whether it was the last one.
    pub fn note_read(&self, index: u32) -> bool {
        self.entries
            .get(index as usize)
            .is_some_and(|cached| !cached.read.swap(true, Relaxed))
            && self.unread.fetch_sub(1, Relaxed) == 1
    }
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
    /// Those that were read whole, in that order; some may be gone already.
    spent: VecDeque<(BlockKey, Slot)>,
    /// Of all in `spent`.
    spent_bytes: usize,
}

impl State {
    fn remove(&mut self, key: BlockKey, slot: &Slot) {
        if self
            .blocks
            .get(&key)
            .is_some_and(|held| Arc::ptr_eq(&held.slot, slot))
            && let Some(held) = self.blocks.remove(&key)
        {
            self.order.remove(&held.used);
            self.bytes -= held.bytes;
        }
    }
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
        self.lock().remove(key, slot);
    }

    /// Every message of the block was read: it is kept while few such blocks came after it.
    pub fn spent(&self, key: BlockKey, slot: &Slot) {
        let bytes_of = |slot: &Slot| slot.get().map_or(0, |block| block.bytes());
        let mut state = self.lock();
        state.spent_bytes += bytes_of(slot);
        state.spent.push_back((key, slot.clone()));
        while state.spent_bytes > MAX_SPENT_BYTES
            && let Some((oldest, slot)) = state.spent.pop_front()
        {
            state.spent_bytes -= bytes_of(&slot);
            state.remove(oldest, &slot);
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
        let entries = vec![IndexEntry::default(); 2];
        Arc::new(CachedBlock::new(entries, Bytes::from(vec![0; bytes]), 0))
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
    fn a_block_is_spent_when_each_message_was_read_once() {
        let block = block(1);
        assert!(!block.note_read(0));
        assert!(!block.note_read(0));
        assert!(!block.note_read(7));
        assert!(block.note_read(1));
        assert!(!block.note_read(1));
    }

    #[test]
    fn few_blocks_that_were_read_whole_are_kept() {
        let cache = BlockCache::new(1 << 30);
        for sequence in 1..=6 {
            let key = (PartitionId(0), sequence);
            let (slot, _) = cache.slot(key);
            slot.set(block(1 << 20)).unwrap();
            cache.filled(key, &slot, 1 << 20);
            // Block 6 has messages that nobody asked for yet.
            if sequence < 6 {
                cache.spent(key, &slot);
            }
        }
        assert_eq!(cache.bytes(), 5 << 20);
        assert!(!cache.slot((PartitionId(0), 1)).1);
        for sequence in 2..=6 {
            assert!(cache.slot((PartitionId(0), sequence)).1, "{sequence}");
        }
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
