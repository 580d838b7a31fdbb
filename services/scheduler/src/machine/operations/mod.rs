//! What operators do to the live queue: suspend, move, retry, bounce, cancel, release.
//!
//! Every scheduler follows the same list of operations. What holds for a while (suspend, move) is asked when a delivery is
//! placed in a lane, and again for what is in lanes when the list changes. What is done once (retry, bounce, cancel,
//! release) goes through the index of each owned partition in slices ([`runs`]); a note in the journal says when it is
//! through, so that a later owner does the rest. Bounces and cancellations are asked at placing, too, as long as they are
//! in the list: for what was under way, or not read yet, when the index was gone through.
//!
//! What keeps a delivery for how its tenant stands ([`super::isolation`]) is asked and parked in the same places.
//!
//! Without operations all of it costs a look at three empty tables per placing.

mod runs;
pub(crate) mod select;

use std::collections::HashSet;
use std::sync::Arc;

use config::{EgressPool, Route, Snapshot};
use egress::Waits;
use mail::PartitionId;
use proto::dispatch::DeliveryRef;
use proto::journal::{AdminAction, Disposition, Phase, Reply, Stage};
use proto::operation::{Kind, Operation};
use queue::{RouteOf, Standing};

use super::isolation::Leaves;
use super::placing::only_host;
use super::{Item, LaneInfo, Machine};
use runs::Run;
use select::{Facts, Index, Selection, Sources};

/// The format version of operations that this release carries out; others wait for one that knows them.
const FORMAT: u32 = 1;

/// See the module.
#[derive(Default)]
pub(super) struct Operations {
    known: Vec<Known>,
    suspensions: Index,
    moves: Index,
    /// Bounces and cancellations.
    endings: Index,
    runs: Vec<Run>,
    /// Ready deliveries that are suspended.
    parked: Vec<Item>,
    /// When the next one is over, Unix milliseconds.
    next_expiry_ms: Option<u64>,
    /// Routes as they are by another pool.
    moved_routes: Vec<(Arc<Route>, Arc<Route>)>,
}

#[derive(Clone)]
struct Known {
    operation: Arc<Operation>,
    selection: Arc<Selection>,
}

/// How far an operation is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub partition: PartitionId,
    /// How far.
    pub phase: Phase,
    /// Recipients that it was done to.
    pub recipients: u64,
    /// Recipients that might be meant, and whose site is not known.
    pub unresolved: u64,
    /// Recipients whose attempt was begun, and goes on.
    pub in_flight: u64,
    /// Recipients that stay on hold: who sent the message may not send it any more.
    pub refused: u64,
}

/// What becomes of a ready delivery.
enum Fate {
    Ends(Arc<Operation>),
    /// Whether others of its line may go on.
    Parks(bool),
    /// It leaves by no pool; it and its line wait. With the pool in which its tenant is new.
    Waits(Option<String>),
}

/// Sources of a pool that a delivery does not leave by; empty = none.
#[derive(Default)]
pub(super) struct Gates {
    /// Suspended.
    closed: Vec<bool>,
    /// Mail that would leave by it is moved.
    moved: Vec<bool>,
}

impl Gates {
    pub(super) fn is_open(&self, position: usize) -> bool {
        !self.closed.get(position).copied().unwrap_or(false)
    }

    pub(super) fn moves(&self, position: usize) -> bool {
        self.moved.get(position).copied().unwrap_or(false)
    }
}

impl Known {
    fn holds(&self, now_ms: u64) -> bool {
        let operation = &self.operation;
        operation.lifted.is_none() && !is_over(operation, now_ms)
    }

    /// Whether it is done once.
    fn is_once(&self) -> bool {
        !matches!(self.operation.kind(), Kind::Suspend | Kind::Move)
    }
}

fn is_over(operation: &Operation, now_ms: u64) -> bool {
    operation.expires_at_ms != 0 && now_ms >= operation.expires_at_ms
}

/// The disposition and reply of what an operation ends.
fn end_of(operation: &Operation) -> (Disposition, Reply) {
    let bounces = operation.kind() == Kind::Bounce;
    let reply = Reply {
        stage: Stage::Unspecified.into(),
        code: 0,
        enhanced: if bounces { "5.7.1" } else { "" }.to_owned(),
        text: operation.reason.clone(),
    };
    let disposition = if bounces {
        Disposition::Bounced
    } else {
        Disposition::Cancelled
    };
    (disposition, reply)
}

impl Operations {
    /// Whether a delivery that is placed need not be looked at.
    pub(super) fn is_idle(&self) -> bool {
        self.suspensions.is_empty() && self.moves.is_empty() && self.endings.is_empty()
    }

    pub(super) fn next_wake(&self) -> Option<u64> {
        let runs = self.runs.iter().filter_map(Run::next_wake);
        runs.chain(self.next_expiry_ms).min()
    }

    /// Sorts what holds now. True when what is asked at placing changed.
    fn sort(&mut self, now_ms: u64) -> bool {
        let standing = |of: &Self| {
            let tables = [&of.suspensions, &of.moves];
            tables.map(Index::ids)
        };
        let before = standing(self);
        (self.suspensions, self.moves, self.endings) = Default::default();
        for known in self.known.iter().filter(|known| known.holds(now_ms)) {
            let table = match known.operation.kind() {
                Kind::Suspend => &mut self.suspensions,
                Kind::Move => &mut self.moves,
                Kind::Bounce | Kind::Cancel => &mut self.endings,
                Kind::Retry | Kind::Release | Kind::Unspecified => continue,
            };
            table.add(&known.operation, &known.selection);
        }
        let ends = self.known.iter().map(|known| &known.operation);
        self.next_expiry_ms = ends
            .filter(|operation| operation.lifted.is_none())
            .map(|operation| operation.expires_at_ms)
            .filter(|at_ms| now_ms < *at_ms)
            .min();
        before != standing(self)
    }

    pub(super) fn config_changed(&mut self) {
        self.moved_routes.clear();
    }

    pub(super) fn forget_partition(&mut self, partition: PartitionId) {
        self.parked.retain(|item| item.partition != partition);
        self.runs.retain(|run| run.partition() != partition);
    }

    /// The operation that suspends a delivery, whatever its source.
    fn suspension(&self, facts: &Facts<'_>, pool: Option<&EgressPool>) -> Option<&select::Entry> {
        if self.suspensions.is_empty() {
            return None;
        }
        if let Some(found) = self.suspensions.find(&facts.by(Sources::Unknown)) {
            return Some(found);
        }
        let pool = pool.filter(|_| self.suspensions.by_source())?;
        let mut usable = pool.sources.iter().filter(|source| source.weight > 0);
        let by = |name| self.suspensions.find(&facts.by(Sources::One(name)));
        let first = by(&usable.next()?.name)?;
        usable
            .all(|source| by(&source.name).is_some())
            .then_some(first)
    }

    /// Whether something is moved.
    pub(super) fn moves_some(&self) -> bool {
        !self.moves.is_empty()
    }

    /// The pool by which a delivery goes instead of its own.
    pub(super) fn move_of(&self, facts: &Facts<'_>) -> Option<&str> {
        let entry = self.moves.find(facts)?;
        Some(&entry.operation.pool)
    }

    /// As [`Operations::move_of`], of what would leave by a source.
    pub(super) fn move_from(
        &self,
        config: &Snapshot,
        of: &RouteOf<'_>,
        site: &str,
        source: &str,
    ) -> Option<&str> {
        let facts = Facts::of_ready(of).at(config, Some(site));
        self.move_of(&facts.by(Sources::One(source)))
    }

    /// What waits until operations, or how tenants stand, change.
    pub(super) fn keep(&mut self, item: Item) {
        self.parked.push(item);
    }

    /// The route as it is by another pool.
    pub(super) fn by_pool(&mut self, route: &Arc<Route>, pool: &str) -> Arc<Route> {
        let known = self
            .moved_routes
            .iter()
            .find(|(from, to)| Arc::ptr_eq(from, route) && to.pool == pool);
        if let Some((_, moved)) = known {
            return moved.clone();
        }
        let moved = Arc::new(Route {
            pool: pool.to_owned(),
            ..(**route).clone()
        });
        self.moved_routes.push((route.clone(), moved.clone()));
        moved
    }

    /// As [`Operations::gates`], without what is moved.
    pub(super) fn closed(
        &self,
        config: &Snapshot,
        of: &RouteOf<'_>,
        site: &str,
        pool: &str,
    ) -> Gates {
        Gates {
            moved: Vec::new(),
            ..self.gates(config, of, site, pool)
        }
    }

    /// Which sources of a pool a delivery does not leave by.
    pub(super) fn gates(
        &self,
        config: &Snapshot,
        of: &RouteOf<'_>,
        site: &str,
        pool: &str,
    ) -> Gates {
        let mut gates = Gates::default();
        if !self.suspensions.by_source() && !self.moves.by_source() {
            return gates;
        }
        let Some(pool) = config.pool(pool) else {
            return gates;
        };
        let facts = Facts::of_ready(of).at(config, Some(site));
        for source in &pool.sources {
            let facts = facts.by(Sources::One(&source.name));
            gates.closed.push(self.suspensions.find(&facts).is_some());
            gates.moved.push(self.moves.find(&facts).is_some());
        }
        gates
    }
}

impl Machine {
    /// The operations that are stored now.
    pub(super) fn operations_known(&mut self, now_ms: u64, operations: Vec<Operation>) {
        let before = std::mem::take(&mut self.operations.known);
        for operation in operations {
            if operation.format != FORMAT || operation.kind() == Kind::Unspecified {
                continue;
            }
            let same = before.iter().find(|known| *known.operation == operation);
            let known = same.cloned().unwrap_or_else(|| Known {
                selection: Arc::new(Selection::new(
                    operation.selector.as_ref().unwrap_or(&Default::default()),
                )),
                operation: Arc::new(operation),
            });
            self.operations.known.push(known);
        }
        self.operations_changed(now_ms);
    }

    /// Lets take effect what holds now.
    fn operations_changed(&mut self, now_ms: u64) {
        if self.operations.sort(now_ms) {
            self.replace_all(now_ms);
        }
        let partitions: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.note_operations(now_ms, partition);
        }
    }

    /// Looks again at what is suspended, and at what waits in lanes.
    pub(super) fn replace_all(&mut self, now_ms: u64) {
        let mut items = std::mem::take(&mut self.operations.parked);
        items.extend(self.lanes.take_all());
        for item in items {
            let Some(owned) = self.partitions.get_mut(&item.partition) else {
                continue;
            };
            if owned.intake.epoch() == item.epoch && !owned.intake.unpark(item.key) {
                self.place(now_ms, item);
            }
        }
    }

    /// Notes in a partition's journal what begins and ends, and begins what is to be done there.
    pub(super) fn note_operations(&mut self, now_ms: u64, partition: PartitionId) {
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return;
        };
        let (intake, operations) = (&mut owned.intake, &mut self.operations);
        for known in &operations.known {
            let operation = &known.operation;
            let noted = intake.operation(&operation.id).map(AdminAction::phase);
            let has_begun = noted == Some(Phase::Begun);
            let is_running = |run: &Run| run.is(partition, &operation.id);
            if known.holds(now_ms) {
                if noted.is_none() {
                    intake.note_operation(now_ms, note(operation, Phase::Begun));
                }
                let is_done = noted == Some(Phase::Done);
                if known.is_once() && !is_done && !operations.runs.iter().any(is_running) {
                    let selection = known.selection.clone();
                    let run = Run::new(partition, intake.epoch(), operation.clone(), selection);
                    operations.runs.push(run);
                }
                continue;
            }
            operations.runs.retain(|run| !is_running(run));
            let phase = match &operation.lifted {
                Some(_) => Phase::Lifted,
                None => Phase::Expired,
            };
            if has_begun {
                intake.note_operation(now_ms, note(operation, phase));
            }
        }
        let known = operations.known.iter();
        let known: HashSet<&str> = known.map(|known| &*known.operation.id).collect();
        let is_gone = |action: &&AdminAction| {
            let id = action.operation.as_ref().map(|operation| &*operation.id);
            action.phase() == Phase::Begun && !known.contains(id.unwrap_or(""))
        };
        let gone: Vec<AdminAction> = intake
            .operations()
            .iter()
            .filter(is_gone)
            .cloned()
            .collect();
        for action in gone {
            let expired = AdminAction {
                phase: Phase::Expired.into(),
                ..action
            };
            intake.note_operation(now_ms, expired);
        }
        operations
            .runs
            .retain(|run| run.partition() != partition || known.contains(run.id()));
        intake.forget_operations(&known);
    }

    /// Goes on with what is to be done, and ends what is over. True when there is more to do at once.
    pub(super) fn run_operations(&mut self, now_ms: u64) -> bool {
        let is_expiry = |at_ms: u64| now_ms >= at_ms;
        if self.operations.next_expiry_ms.is_some_and(is_expiry) {
            self.operations_changed(now_ms);
        }
        self.run_slices(now_ms)
    }

    /// A ready delivery that is not to be placed: it is suspended, or ended.
    pub(super) fn is_kept(&mut self, now_ms: u64, item: Item) -> bool {
        if self.operations.is_idle() && !self.isolation.is_needed() {
            return false;
        }
        let Some(fate) = self.fate(item) else {
            return false;
        };
        let Some(owned) = self.partitions.get_mut(&item.partition) else {
            return false;
        };
        match fate {
            Fate::Ends(operation) => {
                let (disposition, reply) = end_of(&operation);
                let intake = &mut owned.intake;
                intake.end(now_ms, item.key, disposition, reply, &operation.id);
            }
            Fate::Parks(others_go_on) => {
                if others_go_on {
                    owned.intake.park(item.key);
                }
                self.operations.keep(item);
            }
            Fate::Waits(new_in) => {
                if let Some(pool) = new_in
                    && let Some(of) = owned.intake.route_of(item.key)
                {
                    self.isolation.seen(now_ms, &pool, of.tenant);
                }
                self.operations.keep(item);
            }
        }
        true
    }

    fn fate(&self, item: Item) -> Option<Fate> {
        let owned = self.partitions.get(&item.partition)?;
        let of = owned.intake.route_of(item.key)?;
        let config = &self.config;
        let route = config.route(of.tenant, of.stream, of.domain);
        let facts = Facts::of_ready(&of);
        let facts = match self.operations.is_idle() {
            true => facts,
            false => facts.at(config, self.known_site(route, of.domain)),
        };
        let leaves = route.map(|route| self.leaves(&facts, route));
        if !self.operations.is_idle() {
            let facts = facts.by(self.sources_of(route, leaves.as_ref()));
            if let Some(entry) = self.operations.endings.find(&facts) {
                return Some(Fate::Ends(entry.operation.clone()));
            }
            let pool = leaves.as_ref().and_then(Leaves::pool);
            if let Some(entry) = self.operations.suspension(&facts, pool.map(|pool| &**pool)) {
                return Some(Fate::Parks(entry.parts_lines));
            }
        }
        match leaves {
            Some(Leaves::Waits(pool, Waits::Unknown)) => Some(Fate::Waits(Some(pool.to_owned()))),
            Some(Leaves::Waits(..)) => Some(Fate::Waits(None)),
            _ => None,
        }
    }

    /// By which pool a delivery leaves that a route leads to one.
    pub(super) fn leaves<'a>(&'a self, facts: &Facts<'_>, route: &'a Route) -> Leaves<'a> {
        let (config, operations) = (&self.config, &self.operations);
        self.isolation.leaves(config, operations, facts, route)
    }

    /// As [`Machine::leaves`], of a delivery anywhere.
    pub(super) fn leaves_of<'a>(
        &'a self,
        standing: &Standing<'_>,
        site: Option<&str>,
        route: &'a Route,
    ) -> Leaves<'a> {
        let facts = Facts::of_standing(standing).at(&self.config, site);
        self.leaves(&facts, route)
    }

    /// The sources of the pool that a route names, or of that by which its tenant leaves.
    fn sources_of<'a>(
        &'a self,
        route: Option<&Arc<Route>>,
        leaves: Option<&Leaves<'a>>,
    ) -> Sources<'a> {
        let own = route.and_then(|route| self.config.pool(&route.pool));
        let pool = match leaves {
            Some(Leaves::Elsewhere { pool, .. }) => Some(*pool),
            _ => own,
        };
        pool.map_or(Sources::Unknown, |pool| Sources::Pool(pool))
    }

    pub(super) fn known_site<'a>(
        &'a self,
        route: Option<&'a Arc<Route>>,
        domain: &str,
    ) -> Option<&'a str> {
        match route.and_then(|route| only_host(&self.config, route)) {
            Some(host) => Some(host),
            None => self.sites.peek(domain),
        }
    }

    /// The operation that suspends a delivery which is ready.
    pub(super) fn suspended_by(
        &self,
        standing: &Standing<'_>,
        route: Option<&Arc<Route>>,
    ) -> Option<&Operation> {
        let site = self.known_site(route, standing.domain);
        let facts = Facts::of_standing(standing).at(&self.config, site);
        let leaves = route.map(|route| self.leaves(&facts, route));
        let pool = leaves.as_ref().and_then(Leaves::pool);
        let pool = pool.map(|pool| &**pool);
        let entry = self.operations.suspension(&facts, pool)?;
        Some(&entry.operation)
    }

    /// The pools by which a delivery to a known site may leave.
    pub(super) fn pools_of<'a>(
        &'a self,
        standing: &Standing<'_>,
        site: &str,
        route: &'a Route,
    ) -> Vec<&'a str> {
        if self.operations.moves.is_empty() && !self.isolation.is_needed() {
            return vec![&route.pool];
        }
        let facts = Facts::of_standing(standing).at(&self.config, Some(site));
        let own = match self.leaves(&facts, route) {
            Leaves::ByOwn(pool) => pool,
            Leaves::Moved(pool) | Leaves::Elsewhere { pool, .. } => return vec![&pool.name],
            Leaves::Waits(..) | Leaves::NoPool => return Vec::new(),
        };
        let by_source = self.operations.move_of(&facts.by(Sources::Pool(own)));
        let moved = by_source.map(|name| {
            let leaves = self
                .isolation
                .leaves_moved(&self.config, name, facts.tenant);
            leaves.pool().map_or(name, |pool| &pool.name)
        });
        std::iter::once(&*own.name).chain(moved).collect()
    }

    /// Whether an attempt that a sender is about to begin is suspended, or is to leave by another pool now.
    pub(super) fn may_not_begin(&self, info: Option<&LaneInfo>, delivery: &DeliveryRef) -> bool {
        if self.operations.suspensions.is_empty() && !self.isolation.is_needed() {
            return false;
        }
        let owned = self.partitions.get(&PartitionId(delivery.partition));
        let standing = owned.and_then(|owned| owned.intake.standing_of_attempt(delivery));
        let (Some(standing), Some(info)) = (standing, info) else {
            return false;
        };
        let facts = Facts::of_standing(&standing)
            .at(&self.config, Some(&info.site))
            .by(Sources::One(&info.source().name));
        if self.operations.suspensions.find(&facts).is_some() {
            return true;
        }
        let config = &self.config;
        let route = config.route(standing.tenant, standing.stream, standing.domain);
        match route.map(|route| self.leaves(&facts, route)) {
            // The pool of the lane may be another one with the same source.
            Some(Leaves::Elsewhere { pool, .. }) => {
                let mut sources = pool.sources.iter();
                !sources.any(|source| source.name == info.source().name)
            }
            Some(Leaves::Waits(..)) => true,
            _ => false,
        }
    }

    /// The operations that are known, each with how far it is in the owned partitions.
    pub fn operations(&self) -> Vec<(Arc<Operation>, Vec<Progress>)> {
        let of = |known: &Known| {
            let progress = self.partitions.iter().filter_map(|(partition, owned)| {
                let noted = owned.intake.operation(&known.operation.id)?;
                let is_it = |run: &&Run| run.is(*partition, &known.operation.id);
                let run = self.operations.runs.iter().find(is_it);
                let noted_sums = (noted.recipients, noted.unresolved, noted.refused);
                let (recipients, unresolved, refused) = run.map_or(noted_sums, |run| {
                    (run.recipients, run.unresolved, run.refused)
                });
                Some(Progress {
                    partition: *partition,
                    phase: noted.phase(),
                    recipients,
                    unresolved,
                    refused,
                    in_flight: run.map_or(0, |run| run.in_flight(&owned.intake)),
                })
            });
            (known.operation.clone(), progress.collect())
        };
        self.operations.known.iter().map(of).collect()
    }
}

fn note(operation: &Operation, phase: Phase) -> AdminAction {
    AdminAction {
        operation: Some(operation.clone()),
        phase: phase.into(),
        ..AdminAction::default()
    }
}
