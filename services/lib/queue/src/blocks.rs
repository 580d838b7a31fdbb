//! The blocks with something that lives, by sequence.
//!
//! Most blocks near each other live and die together, so they are kept in small groups of neighbours: about 10 bytes
//! for each where they are dense, at most about 160 for a lone survivor.

use std::collections::BTreeMap;

/// Neighbours in a group.
const GROUP: u64 = 16;

/// A block with something that lives.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    /// Live messages in it; 0 = not a live block.
    live: u32,
    /// How far before its sequence it begins: parts of a large index go before a block.
    before: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    groups: BTreeMap<u64, Box<[Block; GROUP as usize]>>,
    count: usize,
}

fn place(sequence: u64) -> (u64, usize) {
    (sequence / GROUP, (sequence % GROUP) as usize)
}

impl Blocks {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// One more live message in a block. `first` is the lowest sequence that belongs to it.
    pub(crate) fn hold(&mut self, first: u64, sequence: u64) {
        let (group, position) = place(sequence);
        let block = &mut self.groups.entry(group).or_default()[position];
        if block.live == 0 {
            block.before = u32::try_from(sequence.saturating_sub(first)).unwrap_or(u32::MAX);
            self.count += 1;
        }
        block.live += 1;
    }

    /// One live message less in a block.
    pub(crate) fn release(&mut self, sequence: u64) {
        let (group, position) = place(sequence);
        let Some(blocks) = self.groups.get_mut(&group) else {
            return;
        };
        let block = &mut blocks[position];
        if block.live == 0 {
            return;
        }
        block.live -= 1;
        if block.live > 0 {
            return;
        }
        self.count -= 1;
        if blocks.iter().all(|block| block.live == 0) {
            self.groups.remove(&group);
        }
    }

    /// Lowest sequence that belongs to a block.
    pub(crate) fn first_of(&self, sequence: u64) -> u64 {
        let (group, position) = place(sequence);
        match self.groups.get(&group).map(|blocks| blocks[position]) {
            Some(block) if block.live > 0 => sequence.saturating_sub(block.before.into()),
            _ => sequence,
        }
    }

    /// The live blocks in order: the sequence of each, and the lowest that belongs to it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.groups.iter().flat_map(|(group, blocks)| {
            let sequences = group * GROUP..;
            let live = sequences
                .zip(blocks.iter())
                .filter(|(_, block)| block.live > 0);
            live.map(|(sequence, block)| (sequence, sequence.saturating_sub(block.before.into())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_lives_in_each_block_and_forgets_the_empty_ones() {
        let mut blocks = Blocks::default();
        blocks.hold(5, 7);
        blocks.hold(7, 7);
        blocks.hold(900, 900);
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [(7, 5), (900, 900)]);
        assert_eq!(
            (blocks.len(), blocks.first_of(7), blocks.first_of(8)),
            (2, 5, 8)
        );
        blocks.release(7);
        assert_eq!(blocks.len(), 2);
        blocks.release(7);
        blocks.release(7);
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [(900, 900)]);
        blocks.release(900);
        assert_eq!((blocks.len(), blocks.groups.len()), (0, 0));
    }
}
