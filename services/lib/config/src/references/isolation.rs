//! Who shares what: pools with a bound on their tenants, dedicated ones, and those for probation and quarantine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Entries, References};
use crate::homes::{Homes, homes};
use crate::index::Index;
use crate::resources::{Origin, Resource};
use crate::{EgressPool, Kind, Problems};

/// Names that a problem lists.
const SHOWN: usize = 5;

impl<'a> References<'a> {
    /// For resources whose references are good: [`Index`] is theirs.
    pub(crate) fn check_isolation(
        entries: &'a Entries,
        origins: &'a BTreeMap<(Kind, String), Origin>,
        problems: &'a Problems,
        index: &Index,
    ) {
        let references = Self {
            entries,
            origins,
            problems,
        };
        let pools = || {
            entries.values().filter_map(|resource| match resource {
                Resource::EgressPool(pool) => Some((resource, &**pool)),
                _ => None,
            })
        };
        if !pools().any(|(_, pool)| pool.keeps_apart()) {
            return;
        }
        let homes = homes(index);
        for (resource, pool) in pools() {
            references.check_cap(resource, pool, &homes);
            references.check_owner(pool, &homes);
            if pool.dedicated_to.is_some() {
                for (other_resource, other) in pools() {
                    references.check_shared_sources(pool, other_resource, other);
                }
            }
            let probation = pool.probation.as_ref().map(|probation| &*probation.pool);
            let others = [
                ("spec.probation.pool", probation),
                ("spec.quarantine", pool.quarantine.as_deref()),
            ];
            for (path, other) in others {
                let other = other.and_then(|name| index.pools.get(name));
                if let Some(other) = other {
                    references.check_other_pool((resource, path), pool, other);
                }
            }
        }
    }

    /// Names in pools of other resources.
    pub(super) fn check_pool(&self, resource: &Resource, pool: &EgressPool) {
        if let Some(tenant) = &pool.dedicated_to {
            self.check_name(resource, "spec.dedicatedTo", Kind::Tenant, tenant);
        }
        if let Some(probation) = &pool.probation {
            self.check_name(
                resource,
                "spec.probation.pool",
                Kind::EgressPool,
                &probation.pool,
            );
            for (index, tenant) in probation.except.iter().enumerate() {
                let path = format!("spec.probation.except[{index}]");
                self.check_name(resource, &path, Kind::Tenant, tenant);
            }
        }
        if let Some(other) = &pool.quarantine {
            self.check_name(resource, "spec.quarantine", Kind::EgressPool, other);
        }
    }

    fn check_cap(&self, resource: &Resource, pool: &EgressPool, homes: &Homes<'_>) {
        let (Some(most), Some(tenants)) = (pool.max_tenants, homes.get(&*pool.name)) else {
            return;
        };
        if tenants.len() > most as usize {
            let mut by_route: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (tenant, route) in tenants {
                by_route.entry(&route.name).or_default().push(tenant);
            }
            let routes: Vec<String> = by_route
                .into_iter()
                .map(|(route, tenants)| format!("{} by Route/{route}", listed(&tenants)))
                .collect();
            let what = format!(
                "at most {most} tenants may share the pool, and the mail of {} leaves by it: {}",
                tenants.len(),
                routes.join("; ")
            );
            self.report(resource, "spec.maxTenants", what);
        }
    }

    /// No route leads the mail of others to a dedicated pool.
    fn check_owner(&self, pool: &EgressPool, homes: &Homes<'_>) {
        let Some(owner) = &pool.dedicated_to else {
            return;
        };
        let mut by_route: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let tenants = homes.get(&*pool.name).into_iter().flatten();
        for (tenant, route) in tenants.filter(|(tenant, _)| **tenant != owner) {
            by_route.entry(&route.name).or_default().push(tenant);
        }
        for (route, others) in by_route {
            let key = (Kind::Route, route.to_owned());
            if let Some(resource) = self.entries.get(&key) {
                let what = format!(
                    "EgressPool/{} is dedicated to Tenant/{owner}, and by this route mail of {} would leave by it",
                    pool.name,
                    listed(&others)
                );
                self.report(resource, "spec.pool", what);
            }
        }
    }

    /// The sources of a dedicated pool, and their addresses, are in no pool of somebody else.
    fn check_shared_sources(&self, pool: &EgressPool, resource: &Resource, other: &EgressPool) {
        let owner = pool.dedicated_to.as_deref().unwrap_or_default();
        if other.name == pool.name || other.dedicated_to == pool.dedicated_to {
            return;
        }
        for (index, source) in other.sources.iter().enumerate() {
            if let Some(same) = same_as(pool, &source.name, source.address) {
                let path = format!("spec.sources[{index}]");
                let what = format!(
                    "{same} is in EgressPool/{}, which is dedicated to Tenant/{owner}",
                    pool.name
                );
                self.report(resource, &path, what);
            }
        }
    }

    /// A pool for probation or quarantine is another one, for anybody, and ends there.
    fn check_other_pool(
        &self,
        (resource, path): (&Resource, &str),
        pool: &EgressPool,
        other: &EgressPool,
    ) {
        let what = if other.name == pool.name {
            "must be another pool: there is nothing that keeps its tenants apart".to_owned()
        } else if let Some(owner) = &other.dedicated_to {
            format!("EgressPool/{} is dedicated to Tenant/{owner}", other.name)
        } else if other.probation.is_some() || other.quarantine.is_some() {
            format!(
                "EgressPool/{} sends tenants on to other pools itself",
                other.name
            )
        } else {
            let same = |source: &crate::EgressSource| same_as(pool, &source.name, source.address);
            let Some(same) = other.sources.iter().find_map(same) else {
                return;
            };
            format!(
                "EgressPool/{} does not keep tenants apart from this one: {same} is in both",
                other.name
            )
        };
        self.report(resource, path, what);
    }
}

/// A source of the pool that is this one, or leaves by its address.
fn same_as(pool: &EgressPool, name: &str, address: Option<IpAddr>) -> Option<String> {
    if pool.sources.iter().any(|source| source.name == name) {
        return Some(format!("the source {name}"));
    }
    let address = address?;
    let is_it = |source: &&crate::EgressSource| source.address == Some(address);
    let source = pool.sources.iter().find(is_it)?;
    Some(format!(
        "{address}, the address of the source {},",
        source.name
    ))
}

fn listed(names: &[&str]) -> String {
    match names {
        names if names.len() <= SHOWN => names.join(", "),
        names => format!(
            "{} and {} more",
            names[..SHOWN].join(", "),
            names.len() - SHOWN
        ),
    }
}
