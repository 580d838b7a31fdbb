//! A growing store of equal things that never moves them.
//!
//! It grows by chunks, not by doubling: at a million deliveries the difference is a hundred megabytes.

const CHUNK: usize = 4096;

/// Things by slot number. A freed slot is used again.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Arena<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One past the highest slot ever used.
    pub(crate) fn slots(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        (full + self.chunks.last().map_or(0, Vec::len)) as u32
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            self.chunks[slot as usize / CHUNK][slot as usize % CHUNK] = Some(value);
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let slot = self.slots();
        let chunk = self
            .chunks
            .last_mut()
            .expect("a chunk with room was just ensured");
        chunk.push(Some(value));
        slot
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.chunks
            .get(slot as usize / CHUNK)?
            .get(slot as usize % CHUNK)?
            .as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.chunks
            .get_mut(slot as usize / CHUNK)?
            .get_mut(slot as usize % CHUNK)?
            .as_mut()
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self
            .chunks
            .get_mut(slot as usize / CHUNK)?
            .get_mut(slot as usize % CHUNK)?
            .take()?;
        self.free.push(slot);
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.chunks.iter().flatten().zip(0_u32..);
        slots.filter_map(|(value, slot)| Some((slot, value.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_values_in_their_slots_and_reuses_freed_ones() {
        let mut arena = Arena::default();
        let slots: Vec<u32> = (0..10_000).map(|n| arena.insert(n)).collect();
        assert_eq!((arena.len(), arena.slots()), (10_000, 10_000));
        assert_eq!(arena.get(slots[5000]), Some(&5000));
        assert_eq!(arena.remove(slots[5000]), Some(5000));
        assert_eq!(arena.get(slots[5000]), None);
        assert_eq!(arena.insert(7), slots[5000]);
        assert_eq!(arena.iter().count(), 10_000);
    }
}
