//! Which tenants' mail leaves by which pools, as the routes say it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::index::Index;
use crate::{DomainMatch, Route, Tenant};

/// By pool: its tenants, each with the first of the routes that leads there.
pub(crate) type Homes<'i> = BTreeMap<&'i str, BTreeMap<&'i str, &'i Route>>;

/// In a name that nobody can have.
const NOBODY: &str = "\0";

/// For each tenant the routes that some of its mail takes: those of a more specific match don't leave anything to others.
/// Tenants that no route tells apart are looked at once.
pub(crate) fn homes(index: &Index) -> Homes<'_> {
    let probes = probes(index);
    let mut named: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, route) in index.routes().iter().enumerate() {
        for tenant in &route.matches.tenants {
            named.entry(tenant).or_default().push(number);
        }
    }
    let mut known: HashMap<(Vec<usize>, Vec<&str>), Vec<&Route>> = HashMap::new();
    let mut homes = Homes::new();
    for tenant in index.tenants.values() {
        let mut streams: Vec<&str> = tenant.streams.iter().map(|stream| &*stream.name).collect();
        streams.sort_unstable();
        let routes = named.get(tenant.name.as_str()).cloned().unwrap_or_default();
        let routes = known
            .entry((routes, streams))
            .or_insert_with(|| routes_of(index, tenant, &probes));
        for route in routes {
            let of_pool = homes.entry(&route.pool).or_default();
            of_pool.entry(tenant.name.as_str()).or_insert(*route);
        }
    }
    homes
}

fn routes_of<'i>(index: &'i Index, tenant: &Tenant, probes: &[String]) -> Vec<&'i Route> {
    let mut found: BTreeMap<&str, &Route> = BTreeMap::new();
    for stream in &tenant.streams {
        for probe in probes {
            if let Some(route) = index.route(&tenant.name, &stream.name, probe) {
                found.insert(&route.name, route);
            }
        }
    }
    found.into_values().collect()
}

/// One domain for each that routes tell apart.
fn probes(index: &Index) -> Vec<String> {
    let matches = index
        .routes()
        .iter()
        .flat_map(|route| &route.matches.domains);
    let domains = matches.map(|of| match of {
        DomainMatch::Exact(domain) => domain.as_str().to_owned(),
        DomainMatch::Below(domain) => format!("{NOBODY}.{domain}"),
    });
    let probes: BTreeSet<String> = domains.chain([NOBODY.to_owned()]).collect();
    probes.into_iter().collect()
}
