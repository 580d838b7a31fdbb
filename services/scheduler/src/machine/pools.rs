//! The sources of a pool: whose turn it is, and which deliveries stay with theirs.

use std::sync::Arc;

use config::{EgressPool, Snapshot, Sticky};
use egress::Rotation;
use hashbrown::HashMap;
use queue::RouteOf;

use super::operations::Gates;
use super::{Machine, Output, lane_hash};

/// The rotations of the pools.
pub(super) struct Pools {
    by_name: HashMap<Arc<str>, Rotation>,
    /// Where this scheduler begins while nobody tells it whose turn it is.
    seed: u64,
}

/// Whether a delivery has a source of its own in its pool.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stays {
    /// It leaves by the one whose turn it is.
    No,
    /// It was greylisted at the source of this position.
    At(usize),
    /// By the one that this number names, for all its attempts.
    By(u64),
}

impl Stays {
    pub(super) fn of(pool: &EgressPool, of: &RouteOf<'_>) -> Self {
        if pool.sticky == Sticky::Always {
            let id = of.id.as_bytes();
            let tail = id.iter().skip(8);
            let tail = tail.fold(0, |tail, byte| tail << 8 | u64::from(*byte));
            return Self::By(tail ^ lane_hash(of.domain));
        }
        let is_it = |kept: &str| pool.sources.iter().position(|source| source.name == kept);
        of.kept_source.and_then(is_it).map_or(Self::No, Self::At)
    }

    pub(super) fn is_free(self) -> bool {
        matches!(self, Self::No)
    }
}

impl Pools {
    pub(super) fn new(scheduler_id: &str) -> Self {
        Self {
            by_name: HashMap::new(),
            seed: lane_hash(scheduler_id),
        }
    }

    /// Rotations go on with the weights that hold now.
    pub(super) fn configure(&mut self, config: &Snapshot) {
        self.by_name.retain(|name, rotation| {
            let Some(pool) = config.pool(name) else {
                return false;
            };
            rotation.set_weights(pool.sources.iter().map(|source| source.weight));
            true
        });
    }

    /// The position of the source whose turn it is among those that may be used.
    pub(super) fn next(
        &mut self,
        outputs: &mut Vec<Output>,
        pool: &EgressPool,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let rotation = self.rotation(pool);
        let position = rotation.next(usable);
        if let Some(count) = rotation.wants() {
            let pool = pool.name.as_str().into();
            outputs.push(Output::AskTurns { pool, count });
        }
        position
    }

    fn rotation(&mut self, pool: &EgressPool) -> &mut Rotation {
        let weights = || pool.sources.iter().map(|source| source.weight);
        let named = self.by_name.entry_ref(pool.name.as_str());
        named.or_insert_with(|| Rotation::new(weights(), self.seed))
    }
}

impl Machine {
    /// The position of the source by which a delivery leaves; `None` when operators keep it from all of them.
    pub(super) fn source_for(
        &mut self,
        pool: &EgressPool,
        stays: Stays,
        gates: &Gates,
    ) -> Option<usize> {
        match stays {
            // Also by one that takes nothing new (weight 0).
            Stays::At(position) if gates.is_open(position) => return Some(position),
            Stays::By(number) => {
                let rotation = self.pools.rotation(pool);
                return rotation.of_number(number, |position| gates.is_open(position));
            }
            Stays::At(_) | Stays::No => {}
        }
        let is_open = |position| gates.is_open(position);
        self.pools.next(&mut self.outputs, pool, is_open)
    }

    /// An answer to [`Output::AskTurns`].
    pub(super) fn turns(&mut self, pool: &str, first: Option<u64>, count: u32) {
        if let Some(rotation) = self.pools.by_name.get_mut(pool) {
            rotation.lend(first, count);
        }
    }
}
