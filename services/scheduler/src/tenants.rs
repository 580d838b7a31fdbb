//! Tenants of pools, for the command-line tool: how they stand, and what operators decide about that.

use config::{EgressPool, Snapshot};
use egress::{Decided, STANDING_CAUSE, StandingEvent, Standings, Waits, Way};
use proto::admin::{
    Decision, PoolGuest, PoolTenant, PoolTenants, SetStandingRequest, TenantsRequest,
};
use proto::standing::PoolStandings;

use crate::operate::short;

/// Octets of the author.
const AUTHOR: usize = 128;

/// The pools and their tenants, as far as they are asked for; in the order of names.
pub(crate) fn overview(
    config: &Snapshot,
    records: &[PoolStandings],
    asked: &TenantsRequest,
) -> Vec<PoolTenants> {
    let mut standings = Standings::default();
    standings.know(config, records);
    let homes = config.homes();
    let is_asked = |tenant: &str| asked.tenant.is_empty() || asked.tenant == tenant;
    let guests = standings.guests(config);
    let mut pools: Vec<&EgressPool> = config.pools().map(|pool| &**pool).collect();
    pools.sort_by(|one, other| one.name.cmp(&other.name));
    let of_pool = |pool: &EgressPool| {
        let tenants = homes.get(pool.name.as_str()).into_iter().flatten();
        let tenants = tenants.filter(|tenant| is_asked(tenant));
        let guests = guests.iter();
        let guests = guests.filter(|(_, _, tenant, at)| *at == pool.name && is_asked(tenant));
        PoolTenants {
            pool: pool.name.clone(),
            max_tenants: pool.max_tenants.unwrap_or(0),
            dedicated_to: pool.dedicated_to.clone().unwrap_or_default(),
            tenants: tenants
                .map(|tenant| row(&standings, pool, tenant))
                .collect(),
            guests: guests
                .map(|(_, home, tenant, _)| PoolGuest {
                    tenant: (*tenant).to_owned(),
                    home: home.clone(),
                })
                .collect(),
        }
    };
    let pools = pools.into_iter();
    let pools = pools.filter(|pool| asked.pool.is_empty() || asked.pool == pool.name);
    let pools = pools.map(of_pool);
    pools
        .filter(|of| asked.tenant.is_empty() || !of.tenants.is_empty() || !of.guests.is_empty())
        .collect()
}

fn row(standings: &Standings, pool: &EgressPool, tenant: &str) -> PoolTenant {
    let (by, waits) = match standings.way(pool, tenant) {
        Way::Own => (pool.name.as_str(), String::new()),
        Way::By(other, _) => (other, String::new()),
        Way::Waits(waits) => ("", text_of(waits)),
    };
    PoolTenant {
        tenant: tenant.to_owned(),
        standing: standings.of(&pool.name, tenant).cloned(),
        by: by.to_owned(),
        waits,
    }
}

fn text_of(waits: Waits<'_>) -> String {
    match waits {
        Waits::Quarantine(_) => "its pool names none for quarantine".to_owned(),
        Waits::Full { pool, most } => format!("the pool {pool} has its {most} tenants"),
        Waits::Closed { owner } => format!("its pool is dedicated to {owner}"),
        Waits::Unknown => "nothing of it was seen yet".to_owned(),
    }
}

/// What an operator decides, or what is wrong with it.
pub(crate) fn decided(
    request: &SetStandingRequest,
    now_ms: u64,
    config: &Snapshot,
) -> Result<StandingEvent, String> {
    let SetStandingRequest { pool, tenant, .. } = request;
    short("author", &request.author, AUTHOR)?;
    short("cause", &request.cause, STANDING_CAUSE)?;
    if request.author.is_empty() {
        return Err("author: somebody must have asked for it".to_owned());
    }
    let of_pool = config
        .pool(pool)
        .ok_or_else(|| format!("pool: there is no EgressPool {pool:?}"))?;
    if let Some(owner) = &of_pool.dedicated_to {
        let what = "so nobody is on probation or in quarantine there: `staffetta queue suspend` stops mail";
        return Err(format!("pool: {pool} is dedicated to {owner}, {what}"));
    }
    let decision = request.decision();
    let is_home = |tenants: &Vec<&str>| tenants.contains(&tenant.as_str());
    // What is left over of one that is gone can be forgotten.
    if decision != Decision::Forget && !config.homes().get(pool.as_str()).is_some_and(is_home) {
        return Err(format!(
            "tenant: no route leads mail of {tenant:?} to the pool {pool}"
        ));
    }
    if request.until_ms != 0 && decision != Decision::Quarantine {
        return Err("until_ms: only a quarantine has an end".to_owned());
    }
    if request.until_ms != 0 && request.until_ms <= now_ms {
        return Err("until_ms: that time is over".to_owned());
    }
    let decision = match decision {
        Decision::Unspecified => return Err("decision: not one that this release knows".to_owned()),
        Decision::Quarantine if request.cause.is_empty() => {
            return Err("cause: a quarantine has one".to_owned());
        }
        Decision::Quarantine => Decided::Quarantine {
            until_ms: request.until_ms,
        },
        Decision::Release => Decided::Release,
        Decision::Admit => Decided::Admit,
        Decision::Probation if of_pool.probation.is_none() => {
            return Err(format!("pool: {pool} has no probation"));
        }
        Decision::Probation => Decided::Probation,
        Decision::Forget => Decided::Forget,
    };
    Ok(StandingEvent::Decided {
        tenant: tenant.clone(),
        decision,
        author: request.author.clone(),
        cause: request.cause.clone(),
    })
}

#[cfg(test)]
mod tests {
    use egress::{no_standings, step_standings};
    use proto::standing::Standing;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn config() -> Snapshot {
        let documents = "
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: shared }
spec: { sources: [ { name: a } ], maxTenants: 5, probation: { pool: fresh }, quarantine: bad }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: fresh }
spec: { sources: [ { name: b } ], maxTenants: 1 }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: bad }
spec: { sources: [ { name: c } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: vip }
spec: { sources: [ { name: d } ], dedicatedTo: bravo }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: default }
spec: { pool: shared }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: vip }
spec: { match: { tenants: [ bravo ] }, pool: vip }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: bad }
spec: { match: { tenants: [ delta ] }, pool: bad }
";
        let tenants = ["acme", "bravo", "charlie", "delta"].map(|name| {
            format!(
                "---\napiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\n\
                 spec: {{ defaultStream: main, streams: [ {{ name: main }} ] }}\n"
            )
        });
        Snapshot::from_documents(&(documents.to_owned() + &tenants.concat())).unwrap()
    }

    fn request(tenant: &str, decision: Decision) -> SetStandingRequest {
        SetStandingRequest {
            pool: "shared".to_owned(),
            tenant: tenant.to_owned(),
            decision: decision.into(),
            author: "alice".to_owned(),
            cause: "complaints".to_owned(),
            until_ms: 0,
        }
    }

    #[test]
    fn the_overview_tells_who_is_where() {
        let config = config();
        let mut record = no_standings("shared");
        let pool = config.pool("shared").unwrap();
        for tenant in ["acme", "charlie"] {
            let seen = StandingEvent::Seen(tenant.to_owned());
            step_standings(&mut record, pool, NOW_MS, &seen);
        }
        let all = overview(&config, &[record.clone()], &TenantsRequest::default());
        let pools: Vec<&str> = all.iter().map(|of| of.pool.as_str()).collect();
        assert_eq!(pools, ["bad", "fresh", "shared", "vip"]);
        let rows = |of: &PoolTenants| {
            let row = |row: &PoolTenant| {
                let standing = row
                    .standing
                    .as_ref()
                    .map_or(Standing::Unspecified, |of| of.standing());
                (
                    row.tenant.clone(),
                    standing,
                    row.by.clone(),
                    row.waits.clone(),
                )
            };
            of.tenants.iter().map(row).collect::<Vec<_>>()
        };
        let waits = "the pool fresh has its 1 tenants".to_owned();
        assert_eq!(
            rows(&all[2]),
            [
                (
                    "acme".to_owned(),
                    Standing::Probation,
                    "fresh".to_owned(),
                    String::new()
                ),
                (
                    "charlie".to_owned(),
                    Standing::Probation,
                    String::new(),
                    waits
                ),
            ]
        );
        assert_eq!(all[3].dedicated_to, "bravo");
        assert_eq!(rows(&all[3])[0].2, "vip");
        let guests: Vec<&str> = all[1]
            .guests
            .iter()
            .map(|guest| guest.tenant.as_str())
            .collect();
        assert_eq!(guests, ["acme", "charlie"]);
        assert_eq!(all[1].guests[0].home, "shared");
        let one = TenantsRequest {
            tenant: "charlie".to_owned(),
            ..TenantsRequest::default()
        };
        let pools = overview(&config, &[record], &one);
        let pools: Vec<&str> = pools.iter().map(|of| of.pool.as_str()).collect();
        assert_eq!(pools, ["fresh", "shared"]);
    }

    #[test]
    fn what_cannot_be_decided_is_refused() {
        let config = config();
        let event = decided(&request("acme", Decision::Quarantine), NOW_MS, &config).unwrap();
        let StandingEvent::Decided { decision, .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!(decision, Decided::Quarantine { until_ms: 0 });
        let refused = |change: &dyn Fn(&mut SetStandingRequest)| {
            let mut request = request("acme", Decision::Quarantine);
            change(&mut request);
            decided(&request, NOW_MS, &config).unwrap_err()
        };
        for (start, change) in [
            (
                "cause: a",
                (|r| r.cause.clear()) as fn(&mut SetStandingRequest),
            ),
            ("cause: holds", |r| r.cause = "a\u{1b}[2J".to_owned()),
            ("author: somebody", |r| r.author.clear()),
            ("until_ms: that time", |r| r.until_ms = NOW_MS),
            ("until_ms: only", |r| {
                r.until_ms = NOW_MS + 1;
                r.set_decision(Decision::Admit);
            }),
            ("pool: there is no", |r| r.pool = "none".to_owned()),
            ("pool: vip is dedicated to bravo", |r| {
                r.pool = "vip".to_owned()
            }),
            ("pool: bad has no probation", |r| {
                (r.pool, r.tenant) = ("bad".to_owned(), "delta".to_owned());
                r.set_decision(Decision::Probation);
            }),
            ("tenant: no route", |r| r.tenant = "bravo".to_owned()),
            ("decision", |r| r.decision = 99),
        ] {
            let problem = refused(&change);
            assert!(problem.starts_with(start), "{start}: {problem}");
        }
    }
}
