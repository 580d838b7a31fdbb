//! Which tenants leave by another pool than their own: on probation, in quarantine, or by none at all.
//!
//! What is stored decides, and every scheduler follows it. This one tells what it sees (mail of a tenant that is new, what
//! was delivered, replies for which a rule sends a tenant into quarantine) and writes the moves of the pools whose partition
//! it owns into that journal, so that each is one event.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{EgressPool, Route, Snapshot};
use egress::{StandingEvent, Standings, Waits, Way};
use hashbrown::HashMap;
use mail::PartitionId;
use proto::standing::{PoolStandings, Standing, TenantStanding};
use queue::{Judged, Verdict};

use super::operations::Operations;
use super::operations::select::Facts;
use super::{Machine, Output, lane_hash};

/// How often what was delivered is told, milliseconds.
const TELL_MS: u64 = 5_000;
/// What is not answered is told again after this, milliseconds.
const AGAIN_MS: u64 = 10_000;
/// New tenants, and those of which deliveries are counted, that are kept in mind.
const MOST: usize = 10_000;

/// See the module.
#[derive(Default)]
pub(super) struct Isolation {
    standings: Standings,
    /// Delivered since it was last told, by pool and tenant.
    delivered: HashMap<(String, String), u64>,
    tell_ms: Option<u64>,
    /// New tenants by pool and tenant, and when they were last told.
    new: HashMap<(String, String), u64>,
    /// When the passing of time was last looked at.
    passed_ms: Option<u64>,
    /// To be told, by pool.
    events: BTreeMap<String, Vec<StandingEvent>>,
    /// Pools of which something is under way, and since when.
    under_way: HashMap<String, u64>,
}

/// By which pool a delivery leaves, its source apart.
pub(super) enum Leaves<'a> {
    /// By its own.
    ByOwn(&'a Arc<EgressPool>),
    /// By the one that an operator moves it to.
    Moved(&'a Arc<EgressPool>),
    /// By another one, for how its tenant stands in the one that it would leave by.
    Elsewhere {
        /// That one.
        home: &'a str,
        /// The other one.
        pool: &'a Arc<EgressPool>,
        /// How.
        standing: &'a TenantStanding,
    },
    /// By none for now; with the pool that it would leave by.
    Waits(&'a str, Waits<'a>),
    /// There is no such pool.
    NoPool,
}

impl<'a> Leaves<'a> {
    pub(super) fn pool(&self) -> Option<&'a Arc<EgressPool>> {
        match self {
            Self::ByOwn(pool) | Self::Moved(pool) | Self::Elsewhere { pool, .. } => Some(pool),
            Self::Waits(..) | Self::NoPool => None,
        }
    }

    /// For people: by which pool it leaves instead, and why.
    pub(super) fn elsewhere(&self) -> Option<String> {
        let Self::Elsewhere {
            home,
            pool,
            standing,
        } = self
        else {
            return None;
        };
        let how = match standing.standing() {
            Standing::Quarantine => "in quarantine",
            _ => "on probation",
        };
        let by = match standing.author.as_str() {
            "" => String::new(),
            author => format!(" by {author}"),
        };
        Some(format!(
            "{} is {how} in the pool {home}{by} ({}): its mail leaves by the pool {}",
            standing.tenant, standing.cause, pool.name
        ))
    }
}

impl Isolation {
    /// Whether some pool keeps tenants apart, or somebody is in quarantine.
    pub(super) fn is_needed(&self) -> bool {
        self.standings.is_needed()
    }

    /// By which pool a delivery leaves that a route leads to one. A move by an operator does not take a tenant out of
    /// probation or quarantine.
    pub(super) fn leaves<'a>(
        &'a self,
        config: &'a Snapshot,
        operations: &'a Operations,
        facts: &Facts<'_>,
        route: &'a Route,
    ) -> Leaves<'a> {
        let Some(own) = config.pool(&route.pool) else {
            return Leaves::NoPool;
        };
        if self.is_needed() {
            let way = self.standings.way(own, facts.tenant);
            let leaves = resolved(config, own, way);
            if !matches!(leaves, Leaves::ByOwn(_)) {
                return leaves;
            }
        }
        match operations.move_of(facts) {
            Some(name) => self.leaves_moved(config, name, facts.tenant),
            None => Leaves::ByOwn(own),
        }
    }

    /// By which pool a delivery leaves that an operator moves to one.
    pub(super) fn leaves_moved<'a>(
        &'a self,
        config: &'a Snapshot,
        pool: &str,
        tenant: &str,
    ) -> Leaves<'a> {
        let Some(pool) = config.pool(pool) else {
            return Leaves::NoPool;
        };
        let way = self.standings.way_of_moved(pool, tenant);
        match resolved(config, pool, way) {
            Leaves::ByOwn(pool) => Leaves::Moved(pool),
            other => other,
        }
    }

    fn tell(&mut self, pool: &str, event: StandingEvent) {
        self.events.entry(pool.to_owned()).or_default().push(event);
    }

    /// Mail of a tenant waits until it is stored that it is new.
    pub(super) fn seen(&mut self, now_ms: u64, pool: &str, tenant: &str) {
        let key = (pool.to_owned(), tenant.to_owned());
        if self.new.len() < MOST && !self.new.contains_key(&key) {
            self.new.insert(key, now_ms);
            self.tell(pool, StandingEvent::Seen(tenant.to_owned()));
        }
    }

    /// Counts what a tenant on probation had delivered.
    pub(super) fn count(&mut self, now_ms: u64, pool: &str, tenant: &str, judged: &[Judged]) {
        let standing = self
            .standings
            .of(pool, tenant)
            .map(TenantStanding::standing);
        if standing != Some(Standing::Probation) || self.delivered.len() >= MOST {
            return;
        }
        let is_delivered =
            |judged: &&Judged| matches!(judged.verdict, Verdict::Delivered | Verdict::Relayed);
        let count = judged.iter().filter(is_delivered).count() as u64;
        if count > 0 {
            let key = (pool.to_owned(), tenant.to_owned());
            *self.delivered.entry(key).or_default() += count;
            self.tell_ms.get_or_insert(now_ms + TELL_MS);
        }
    }

    pub(super) fn next_wake(&self) -> Option<u64> {
        let again = [self.new.values().min(), self.under_way.values().min()];
        let again = again.into_iter().flatten().map(|at_ms| at_ms + AGAIN_MS);
        let passed = |next_ms: u64| next_ms.max(self.passed_ms.map_or(0, |at_ms| at_ms + AGAIN_MS));
        let time = self.standings.next_wake().map(passed);
        again.chain(self.tell_ms).chain(time).min()
    }
}

fn resolved<'a>(config: &'a Snapshot, home: &'a Arc<EgressPool>, way: Way<'a>) -> Leaves<'a> {
    match way {
        Way::Own => Leaves::ByOwn(home),
        Way::By(other, standing) => match config.pool(other) {
            Some(pool) => Leaves::Elsewhere {
                home: &home.name,
                pool,
                standing,
            },
            None => Leaves::NoPool,
        },
        Way::Waits(waits) => Leaves::Waits(&home.name, waits),
    }
}

impl Machine {
    /// What is stored of all pools now.
    pub(super) fn standings_known(&mut self, now_ms: u64, records: &[PoolStandings]) {
        let isolation = &mut self.isolation;
        let moves = isolation.standings.know(&self.config, records);
        let standings = &isolation.standings;
        isolation
            .new
            .retain(|(pool, tenant), _| standings.of(pool, tenant).is_none());
        isolation.passed_ms = None;
        if moves {
            self.replace_all(now_ms);
        }
        let partitions: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.note_standings(now_ms, partition);
        }
    }

    /// What was told of a pool is stored, or can't be.
    pub(super) fn standings_told(&mut self, pool: &str) {
        self.isolation.under_way.remove(pool);
    }

    /// The partition whose journal tells of a pool's moves.
    fn teller_of(&self, pool: &str) -> PartitionId {
        PartitionId((lane_hash(pool) % u64::from(self.partition_count.max(1))) as u32)
    }

    /// Writes the moves of the pools of a partition into its journal.
    pub(super) fn note_standings(&mut self, now_ms: u64, partition: PartitionId) {
        let pools = self.isolation.standings.pools();
        let pools = pools.filter(|pool| self.teller_of(pool) == partition);
        let pools: Vec<String> = pools.map(str::to_owned).collect();
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return;
        };
        for pool in pools {
            let noted = owned.intake.last_move(&pool);
            for moved in self.isolation.standings.moves_after(&pool, noted) {
                owned.intake.standing_moved(now_ms, moved);
            }
        }
    }

    /// Tells what is to be stored.
    pub(super) fn tell_standings(&mut self, now_ms: u64) {
        if self
            .isolation
            .next_wake()
            .is_some_and(|at_ms| at_ms <= now_ms)
        {
            self.gather_standings(now_ms);
        }
        let isolation = &mut self.isolation;
        if isolation.events.is_empty() {
            return;
        }
        let (under_way, outputs) = (&mut isolation.under_way, &mut self.outputs);
        isolation.events.retain(|name, events| {
            if under_way.contains_key(name) {
                return true;
            }
            if let Some(pool) = self.config.pool(name) {
                under_way.insert(name.clone(), now_ms);
                let (pool, events) = (pool.clone(), std::mem::take(events));
                outputs.push(Output::TellStandings { pool, events });
            }
            false
        });
    }

    /// What is due by time: deliveries counted, new tenants that are not stored yet, ends of probation and quarantine.
    fn gather_standings(&mut self, now_ms: u64) {
        let is_due = |at_ms: &u64| at_ms + AGAIN_MS <= now_ms;
        if self.isolation.passed_ms.as_ref().is_none_or(is_due) {
            let due = self.isolation.standings.due(&self.config, now_ms);
            // Not all schedulers tell the same.
            let owned = |pool: &&str| self.partitions.contains_key(&self.teller_of(pool));
            let due: Vec<String> = due.into_iter().filter(owned).map(str::to_owned).collect();
            self.isolation.passed_ms = Some(now_ms);
            for pool in due {
                self.isolation.tell(&pool, StandingEvent::Passed);
            }
        }
        let isolation = &mut self.isolation;
        isolation.under_way.retain(|_, at_ms| !is_due(at_ms));
        let mut again = Vec::new();
        for ((pool, tenant), at_ms) in &mut isolation.new {
            if is_due(at_ms) {
                *at_ms = now_ms;
                again.push((pool.clone(), tenant.clone()));
            }
        }
        for (pool, tenant) in again {
            isolation.tell(&pool, StandingEvent::Seen(tenant));
        }
        if isolation.tell_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            isolation.tell_ms = None;
            for ((pool, tenant), count) in std::mem::take(&mut isolation.delivered) {
                isolation.tell(&pool, StandingEvent::Delivered(tenant, count));
            }
        }
    }

    /// A rule sends a tenant into quarantine from the pool to which its mail is routed.
    pub(super) fn convict(
        &mut self,
        home: &str,
        (rule, tenant): (&str, &str),
        until_ms: u64,
        cause: &str,
    ) {
        let is_shared = |pool: &Arc<EgressPool>| pool.dedicated_to.is_none();
        if self.config.pool(home).is_some_and(is_shared) {
            self.counts.convicted += 1;
            let event = StandingEvent::Convicted {
                tenant: tenant.to_owned(),
                until_ms,
                cause: format!("{rule}: {cause}"),
            };
            self.isolation.tell(home, event);
        }
    }

    /// Tenants of which something is stored: on probation, members that were, in quarantine.
    pub fn tenant_standings(&self) -> [u64; 3] {
        self.isolation.standings.count()
    }

    pub(super) fn isolate(&mut self) {
        self.isolation.standings.configure(&self.config);
        self.isolation.new.clear();
    }
}
