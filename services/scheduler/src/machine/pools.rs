//! The sources of a pool: whose turn it is, and which deliveries stay with theirs.

use std::sync::Arc;

use config::{EgressPool, EgressSource, Snapshot, Sticky};
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

    /// The position of the source of a delivery among those that may be used.
    fn choose(
        &mut self,
        outputs: &mut Vec<Output>,
        pool: &EgressPool,
        stays: Stays,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match stays {
            // Also by one that takes nothing new (weight 0).
            Stays::At(position) if usable(position) => Some(position),
            Stays::By(number) => self.rotation(pool).of_number(number, usable),
            Stays::At(_) | Stays::No => self.next(outputs, pool, usable),
        }
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
        now_ms: u64,
        pool: &EgressPool,
        stays: Stays,
        gates: &Gates,
    ) -> Option<usize> {
        let is_open = |position: usize| gates.is_open(position);
        if self.sources.all_work() {
            return self.pools.choose(&mut self.outputs, pool, stays, is_open);
        }
        if stays.is_free()
            && let Some(position) = self.sources.due_for_a_try(now_ms, pool, is_open)
        {
            return Some(position);
        }
        let sources = &self.sources;
        let is_out = |source: &EgressSource| sources.is_out(&source.name);
        let works = |position: usize| !pool.sources.get(position).is_some_and(is_out);
        let usable = |position| is_open(position) && works(position);
        let (pools, outputs) = (&mut self.pools, &mut self.outputs);
        let position = pools.choose(outputs, pool, stays, usable);
        // When none works it waits at one of them: what keeps that lane is why.
        position.or_else(|| pools.choose(outputs, pool, stays, is_open))
    }

    /// An answer to [`Output::AskTurns`].
    pub(super) fn turns(&mut self, pool: &str, first: Option<u64>, count: u32) {
        if let Some(rotation) = self.pools.by_name.get_mut(pool) {
            rotation.lend(first, count);
        }
    }
}
