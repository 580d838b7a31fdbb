//! Things by number. A number that is free is used again, the latest first: it is still in the cache.

#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(value);
            return slot;
        }
        self.slots.push(Some(value));
        (self.slots.len() - 1) as u32
    }

    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// What must be there.
    pub(super) fn at(&mut self, slot: u32) -> &mut T {
        self.get_mut(slot).expect("links lead to what is there")
    }

    /// Takes it out. When the last is gone its memory is given back, unless it is little.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        if self.free.len() == self.slots.len() && self.slots.len() > KEPT {
            *self = Self::default();
        }
        Some(value)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// Slots that stay when nothing is in them.
const KEPT: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_free_are_used_again_the_latest_first() {
        let mut slab = Slab::default();
        let numbers = ["a", "b", "c"].map(|value| slab.insert(value));
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(
            (slab.remove(0), slab.remove(2), slab.remove(2)),
            (Some("a"), Some("c"), None)
        );
        assert_eq!(
            (slab.len(), slab.get(0), slab.get(1)),
            (1, None, Some(&"b"))
        );
        assert_eq!(["d", "e", "f"].map(|value| slab.insert(value)), [2, 0, 3]);
        *slab.at(1) = "g";
        assert_eq!(
            (slab.get(1), slab.get(2), slab.len()),
            (Some(&"g"), Some(&"d"), 4)
        );
    }

    #[test]
    fn memory_of_many_is_given_back_with_the_last_of_them_and_that_of_few_stays() {
        for (count, stays) in [(KEPT, KEPT), (KEPT + 1, 0)] {
            let mut slab = Slab::default();
            for value in 0..count {
                slab.insert(value);
            }
            for slot in 1..count {
                slab.remove(slot as u32);
            }
            assert_eq!((slab.len(), slab.get(0)), (1, Some(&0)));
            slab.remove(0);
            assert_eq!((slab.len(), slab.slots.len()), (0, stays));
        }
    }
}
