//! What is done once, partition by partition, in slices.

use std::sync::Arc;

use mail::PartitionId;
use proto::journal::{AdminAction, Phase};
use proto::operation::{Kind, Operation};
use queue::{Ended, Intake, Key, Standing, Wait, Which};

use super::super::policies::ByConfig;
use super::super::{Machine, Owned};
use super::end_of;
use super::select::{Facts, Meant, Selection};

/// Places of the index that one slice looks at.
const SLICE: u32 = 1024;
/// Slices of one pass over all that is to be done: other inputs must not wait behind a large index.
const SLICES: usize = 4;
/// How often it is seen whether an attempt that was under way is over, milliseconds.
const LOOK_MS: u64 = 200;

/// An operation at work in a partition.
pub(super) struct Run {
    partition: PartitionId,
    epoch: u64,
    operation: Arc<Operation>,
    selection: Arc<Selection>,
    /// The place in the index to go on at; `None` = it is through.
    next: Option<u32>,
    /// Attempts that were begun: they go on, and what is not delivered then is ended.
    flights: Vec<Key>,
    look_ms: u64,
    pub(super) recipients: u64,
    pub(super) unresolved: u64,
    /// They stay on hold.
    pub(super) refused: u64,
}

impl Run {
    pub(super) fn new(
        partition: PartitionId,
        epoch: u64,
        operation: Arc<Operation>,
        selection: Arc<Selection>,
    ) -> Self {
        Self {
            partition,
            epoch,
            operation,
            selection,
            next: Some(0),
            flights: Vec::new(),
            look_ms: 0,
            recipients: 0,
            unresolved: 0,
            refused: 0,
        }
    }

    pub(super) fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(super) fn id(&self) -> &str {
        &self.operation.id
    }

    pub(super) fn is(&self, partition: PartitionId, id: &str) -> bool {
        self.partition == partition && self.operation.id == id
    }

    pub(super) fn next_wake(&self) -> Option<u64> {
        self.next.is_none().then_some(self.look_ms)
    }

    /// Recipients whose attempt is waited for.
    pub(super) fn in_flight(&self, intake: &Intake) -> u64 {
        let standings = self.flights.iter();
        let standings = standings.filter_map(|key| intake.standing_of(*key));
        standings.map(|standing| standing.recipients as u64).sum()
    }

    fn is_done(&self) -> bool {
        self.next.is_none() && self.flights.is_empty()
    }
}

impl Machine {
    /// Goes on with what is to be done. True when there is more to do at once.
    pub(super) fn run_slices(&mut self, now_ms: u64) -> bool {
        if self.operations.runs.is_empty() {
            return false;
        }
        let mut runs = std::mem::take(&mut self.operations.runs);
        let mut slices = SLICES;
        for run in &mut runs {
            if slices == 0 {
                break;
            }
            slices -= usize::from(self.run_slice(now_ms, run));
        }
        let is_at_work = |run: &Run| {
            let owned = self.partitions.get(&run.partition);
            owned.is_some_and(|owned| owned.intake.epoch() == run.epoch)
        };
        runs.retain(|run| is_at_work(run) && !run.is_done());
        self.operations.runs = runs;
        slices < SLICES
    }

    /// False when there is nothing to do now.
    fn run_slice(&mut self, now_ms: u64, run: &mut Run) -> bool {
        let may_go_on = |owned: &&Owned| {
            owned.intake.epoch() == run.epoch && !owned.draining && !owned.intake.is_busy()
        };
        let Some(owned) = self.partitions.get(&run.partition).filter(may_go_on) else {
            return false;
        };
        let (keys, is_through) = match run.next {
            Some(from) => {
                let (keys, unresolved, next) = self.meant(&owned.intake, run, from);
                run.unresolved += unresolved;
                run.next = next;
                (keys, next.is_none())
            }
            None if now_ms < run.look_ms => return false,
            None => (std::mem::take(&mut run.flights), true),
        };
        run.look_ms = now_ms + LOOK_MS;
        self.act(now_ms, run, keys);
        if is_through && run.is_done() {
            let done = AdminAction {
                operation: Some((*run.operation).clone()),
                phase: Phase::Done.into(),
                recipients: run.recipients,
                unresolved: run.unresolved,
                refused: run.refused,
            };
            if let Some(owned) = self.partitions.get_mut(&run.partition) {
                owned.intake.note_operation(now_ms, done);
            }
        }
        true
    }

    /// The deliveries of a slice that are meant, the recipients about which that is open, and the place to go on at.
    fn meant(&self, intake: &Intake, run: &Run, from: u32) -> (Vec<Key>, u64, Option<u32>) {
        let (mut keys, mut unresolved) = (Vec::new(), 0);
        let mut look = |standing: &Standing<'_>| match self.is_meant(standing, &run.selection) {
            Meant::Yes => keys.push(standing.key),
            Meant::Unresolved => unresolved += standing.recipients as u64,
            Meant::No => {}
        };
        if let Some(ids) = run.selection.messages() {
            for id in ids {
                let standings = intake.standings(&Which::Message(id), usize::MAX);
                standings.iter().for_each(&mut look);
            }
            return (keys, unresolved, None);
        }
        let (standings, next) = intake.slice(from, SLICE);
        standings.iter().for_each(look);
        (keys, unresolved, (next != 0).then_some(next))
    }

    /// Whether a selection means a delivery, wherever it is.
    pub(crate) fn is_meant(&self, standing: &Standing<'_>, selection: &Selection) -> Meant {
        let facts = Facts::of_standing(standing);
        if !selection.asks_for_ways() {
            return selection.meant(&facts);
        }
        let config = &self.config;
        let route = config.route(standing.tenant, standing.stream, standing.domain);
        let facts = facts.at(config, self.known_site(route, standing.domain));
        let leaves = route.map(|route| self.leaves(&facts, route));
        let sources = self.sources_of(route, leaves.as_ref());
        selection.meant(&facts.by(sources))
    }

    fn act(&mut self, now_ms: u64, run: &mut Run, keys: Vec<Key>) {
        let Some(owned) = self.partitions.get_mut(&run.partition) else {
            return;
        };
        let intake = &mut owned.intake;
        let id = run.operation.id.as_str();
        run.recipients += match run.operation.kind() {
            Kind::Bounce | Kind::Cancel => {
                let (disposition, reply) = end_of(&run.operation);
                let mut recipients = 0;
                for key in keys {
                    match intake.end(now_ms, key, disposition, reply.clone(), id) {
                        Ended::Now(count) => recipients += count as u64,
                        Ended::Begun => run.flights.push(key),
                        Ended::Gone => {}
                    }
                }
                recipients
            }
            Kind::Retry => {
                // What failed for the DNS would only fail again by what is remembered of it.
                for key in &keys {
                    if let Some(standing) = intake.standing_of(*key)
                        && matches!(standing.wait, Wait::Until(_))
                        && self.sites.peek(standing.domain).is_none()
                    {
                        self.sites.forget(standing.domain);
                    }
                }
                intake.hurry(now_ms, &keys, id)
            }
            Kind::Release => {
                let policies = ByConfig(self.config.clone());
                let released = intake.release(now_ms, &keys, id, &policies);
                run.refused += released.refused;
                released.recipients
            }
            Kind::Suspend | Kind::Move | Kind::Unspecified => 0,
        };
    }
}
