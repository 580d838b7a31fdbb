//! By which pool the mail of a tenant leaves.

use std::collections::BTreeSet;

use config::{EgressPool, Snapshot};
use hashbrown::{HashMap, HashSet};
use proto::standing::{Move, PoolStandings, Standing, TenantStanding};

use super::{FORMAT, begins_on_probation, due_ms, standing_of};

/// What is stored of all pools, and who has a place.
#[derive(Debug, Default)]
pub struct Standings {
    pools: HashMap<Box<str>, PoolStandings>,
    /// Pools whose record is of a later release: nothing leaves by them.
    unreadable: HashSet<Box<str>>,
    /// By home and tenant, where the pool of a tenant's standing has no place for it: how many it has.
    without_place: HashMap<Box<str>, HashMap<Box<str>, u32>>,
    /// When time changes something next.
    next_ms: Option<u64>,
    /// Some pool keeps tenants apart, or somebody is in quarantine.
    needed: bool,
}

/// Which way the mail of a tenant goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way<'a> {
    /// By the pool that was asked about.
    Own,
    /// By another one, for how it stands.
    By(&'a str, &'a TenantStanding),
    /// Nowhere for now.
    Waits(Waits<'a>),
}

/// Why the mail of a tenant leaves by no pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Waits<'a> {
    /// It is in quarantine, and there is no pool for that.
    Quarantine(&'a TenantStanding),
    /// The pool for its standing has as many tenants as may share it.
    Full {
        /// Which.
        pool: &'a str,
        /// Tenants.
        most: u32,
    },
    /// The pool is dedicated to another tenant.
    Closed {
        /// To whom.
        owner: &'a str,
    },
    /// It is new, and that is not stored yet, or what is stored is of a later release.
    Unknown,
}

impl Standings {
    /// Takes what is stored now. True when the mail of some tenant goes another way than before.
    pub fn know(&mut self, config: &Snapshot, records: &[PoolStandings]) -> bool {
        let mut pools: HashMap<Box<str>, PoolStandings> = HashMap::new();
        let mut unreadable = HashSet::new();
        for record in records {
            let name = record.pool.as_str().into();
            if record.format == FORMAT {
                pools.insert(name, record.clone());
            } else {
                unreadable.insert(name);
            }
        }
        let before = std::mem::replace(&mut self.pools, pools);
        let were_unreadable = std::mem::replace(&mut self.unreadable, unreadable);
        let places = std::mem::take(&mut self.without_place);
        self.configure(config);
        let same = |(name, record): (&Box<str>, &PoolStandings)| {
            let before = before.get(name).map_or(&[][..], |record| &record.tenants);
            let is_same = |(one, other): (&TenantStanding, &TenantStanding)| {
                one.tenant == other.tenant && one.standing == other.standing
            };
            before.len() == record.tenants.len() && before.iter().zip(&record.tenants).all(is_same)
        };
        let gone = before.keys().any(|name| !self.pools.contains_key(name));
        gone || were_unreadable != self.unreadable
            || places != self.without_place
            || !self.pools.iter().all(same)
    }

    /// Other documents hold from now on.
    pub fn configure(&mut self, config: &Snapshot) {
        let quarantined = |standing: &TenantStanding| standing.standing() == Standing::Quarantine;
        self.needed = config.pools().any(|pool| pool.keeps_apart())
            || !self.unreadable.is_empty()
            || self
                .pools
                .values()
                .any(|record| record.tenants.iter().any(quarantined));
        self.next_ms = self.next(config).map(|(_, due_ms)| due_ms).min();
        self.without_place.clear();
        let capped = config.pools().any(|pool| pool.max_tenants.is_some());
        if !capped {
            return;
        }
        let homes = config.homes();
        let mut taken: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        for (_, home, tenant, pool) in self.guests(config) {
            let Some(most) = config.pool(pool).and_then(|pool| pool.max_tenants) else {
                continue;
            };
            let of_pool = taken.entry(pool).or_insert_with(|| {
                let own = homes.get(pool).into_iter().flatten();
                own.copied().collect()
            });
            if of_pool.len() < most as usize || of_pool.contains(tenant) {
                of_pool.insert(tenant);
            } else {
                let of_home = self.without_place.entry(home.into()).or_default();
                of_home.insert(tenant.into(), most);
            }
        }
    }

    /// Tenants that are at other pools for how they stand, who came first first: since when, home, tenant, pool.
    pub fn guests<'a>(&self, config: &'a Snapshot) -> Vec<(u64, String, &'a str, &'a str)> {
        let mut guests = Vec::new();
        for pool in config.pools() {
            let Some(record) = self.pools.get(pool.name.as_str()) else {
                continue;
            };
            for standing in &record.tenants {
                if let Some(other) = other_pool(pool, standing.standing())
                    && let Some(tenant) = config.tenant(&standing.tenant)
                {
                    let home = pool.name.clone();
                    guests.push((standing.since_ms, home, tenant.name.as_str(), other));
                }
            }
        }
        guests.sort();
        guests
    }

    /// Whether some pool keeps tenants apart, or somebody is in quarantine.
    pub fn is_needed(&self) -> bool {
        self.needed
    }

    /// How a tenant stands, as it is stored.
    pub fn of(&self, pool: &str, tenant: &str) -> Option<&TenantStanding> {
        standing_of(self.pools.get(pool)?, tenant)
    }

    /// The way of a tenant's mail that a route leads to a pool.
    pub fn way<'a>(&'a self, pool: &'a EgressPool, tenant: &str) -> Way<'a> {
        if !self.needed {
            return Way::Own;
        }
        if let Some(owner) = pool.dedicated_to.as_deref() {
            return match owner == tenant {
                true => Way::Own,
                false => Way::Waits(Waits::Closed { owner }),
            };
        }
        match self.of(&pool.name, tenant) {
            _ if self.unreadable.contains(pool.name.as_str()) => Way::Waits(Waits::Unknown),
            Some(standing) => self.way_of(pool, tenant, standing),
            None if begins_on_probation(pool, tenant) => Way::Waits(Waits::Unknown),
            None => Way::Own,
        }
    }

    /// The way of a tenant's mail that an operator moves to a pool: a probation there is for those whose mail is led there.
    pub fn way_of_moved<'a>(&'a self, pool: &'a EgressPool, tenant: &str) -> Way<'a> {
        if pool.dedicated_to.is_some() {
            return self.way(pool, tenant);
        }
        match self.of(&pool.name, tenant) {
            _ if self.unreadable.contains(pool.name.as_str()) => Way::Waits(Waits::Unknown),
            Some(standing) if standing.standing() == Standing::Quarantine => {
                self.way_of(pool, tenant, standing)
            }
            _ => Way::Own,
        }
    }

    fn way_of<'a>(
        &'a self,
        pool: &'a EgressPool,
        tenant: &str,
        standing: &'a TenantStanding,
    ) -> Way<'a> {
        let Some(other) = other_pool(pool, standing.standing()) else {
            return match standing.standing() {
                Standing::Quarantine => Way::Waits(Waits::Quarantine(standing)),
                _ => Way::Own,
            };
        };
        let of_home = self.without_place.get(pool.name.as_str());
        match of_home.and_then(|of_home| of_home.get(tenant)) {
            Some(most) => Way::Waits(Waits::Full {
                pool: other,
                most: *most,
            }),
            None => Way::By(other, standing),
        }
    }

    /// Pools for which [`super::StandingEvent::Passed`] changes something now.
    pub fn due<'a>(&'a self, config: &'a Snapshot, now_ms: u64) -> Vec<&'a str> {
        if self.next_ms.is_none_or(|next_ms| now_ms < next_ms) {
            return Vec::new();
        }
        let is_due = |(_, due_ms): &(&str, u64)| *due_ms <= now_ms;
        let due = self.next(config).filter(is_due);
        due.map(|(pool, _)| pool).collect()
    }

    /// When it does next, Unix milliseconds.
    pub fn next_wake(&self) -> Option<u64> {
        self.next_ms
    }

    fn next<'a>(&'a self, config: &'a Snapshot) -> impl Iterator<Item = (&'a str, u64)> {
        self.pools.iter().filter_map(|(name, record)| {
            let pool = config.pool(name)?;
            let due = record.tenants.iter();
            let due_ms = due.filter_map(|standing| due_ms(standing, pool)).min()?;
            Some((&**name, due_ms))
        })
    }

    /// The moves of a pool after the one of this number.
    pub fn moves_after(&self, pool: &str, number: u64) -> impl Iterator<Item = &Move> {
        let record = self.pools.get(pool).into_iter();
        let moves = record.flat_map(|record| &record.moves);
        moves.filter(move |moved| moved.number > number)
    }

    /// The pools of which something is stored.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.pools.keys().map(|name| &**name)
    }

    /// Tenants by standing: on probation, members that were, in quarantine.
    pub fn count(&self) -> [u64; 3] {
        let mut count = [0; 3];
        for standing in self.pools.values().flat_map(|record| &record.tenants) {
            match standing.standing() {
                Standing::Probation => count[0] += 1,
                Standing::Member => count[1] += 1,
                Standing::Quarantine => count[2] += 1,
                Standing::Unspecified => {}
            }
        }
        count
    }
}

/// The pool by which a tenant of a pool leaves that stands so; `None` = there is none.
fn other_pool(pool: &EgressPool, standing: Standing) -> Option<&str> {
    match standing {
        Standing::Probation => pool.probation.as_ref().map(|probation| &*probation.pool),
        Standing::Quarantine => pool.quarantine.as_deref(),
        Standing::Member | Standing::Unspecified => None,
    }
}
