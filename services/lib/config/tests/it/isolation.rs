//! Who shares what: caps, dedicated pools, probation and quarantine.

use config::Snapshot;

use crate::document;

fn tenants(names: &[&str]) -> String {
    let spec = "{ defaultStream: main, streams: [ { name: main }, { name: bulk } ] }";
    let documents = names.iter().map(|name| document("Tenant", name, spec));
    documents.collect()
}

fn pool(name: &str, source: &str, more: &str) -> String {
    let spec = format!("{{ sources: [ {source} ]{more} }}");
    document("EgressPool", name, &spec)
}

fn route(name: &str, spec: &str) -> String {
    document("Route", name, &format!("{{ {spec} }}"))
}

fn problems(documents: &str) -> Vec<String> {
    match Snapshot::from_documents(documents) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(|problem| {
                let at = problem.at.split_once(' ').map_or("", |(_, at)| at);
                let at = at.split_once(' ').map_or(at, |(_, rest)| rest);
                format!("{at}: {}", problem.what)
            })
            .collect(),
    }
}

#[test]
fn a_cap_counts_the_tenants_whose_mail_leaves_by_the_pool() {
    let three = tenants(&["acme", "bravo", "charlie"]);
    let pools =
        pool("shared", "{ name: a }", ", maxTenants: 2") + &pool("other", "{ name: b }", "");
    let all = route("all", "pool: shared");
    let found = problems(&(three.clone() + &pools + &all));
    assert_eq!(
        found,
        [
            "EgressPool/shared spec.maxTenants: at most 2 tenants may share the pool, and the mail of 3 leaves by it: acme, bravo, charlie by Route/all"
        ]
    );
    // Who goes another way with all mail is not one of them; who does with a stream or a domain still is.
    let own = |matches: &str| {
        let route = route("own", &format!("match: {{ {matches} }}, pool: other"));
        problems(&(three.clone() + &pools + &all + &route)).len()
    };
    assert_eq!(own("tenants: [ charlie ]"), 0);
    assert_eq!(own("tenants: [ charlie ], streams: [ bulk ]"), 1);
    assert_eq!(own("tenants: [ charlie ], streams: [ bulk, main ]"), 0);
    assert_eq!(own("tenants: [ charlie ], domains: [ one.example ]"), 1);
    // The domain's route goes before the tenant's.
    let by_domain = route(
        "domain",
        "match: { domains: [ .one.example ] }, pool: shared",
    );
    let by_tenant = route("own", "match: { tenants: [ charlie ] }, pool: other");
    let found = problems(&(three.clone() + &pools + &all + &by_tenant + &by_domain));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("acme, bravo by Route/all; charlie by Route/domain"),
        "{found:?}"
    );
}

#[test]
fn a_dedicated_pool_is_for_its_tenant_alone() {
    let base = tenants(&["acme", "bravo"])
        + &pool(
            "vip",
            "{ name: v, address: 192.0.2.7 }",
            ", dedicatedTo: acme",
        );
    let table: &[(String, &[&str])] = &[
        (
            pool(
                "more",
                "{ name: v, address: 192.0.2.7 }",
                ", dedicatedTo: acme",
            ) + &route("vip", "match: { tenants: [ acme ] }, pool: vip"),
            &[],
        ),
        (
            route("vip", "pool: vip"),
            &[
                "Route/vip spec.pool: EgressPool/vip is dedicated to Tenant/acme, and by this route mail of bravo would leave by it",
            ],
        ),
        (
            pool("shared", "{ name: a }, { name: v, address: 192.0.2.7 }", ""),
            &[
                "EgressPool/shared spec.sources[1]: the source v is in EgressPool/vip, which is dedicated to Tenant/acme",
            ],
        ),
        (
            pool(
                "shared",
                "{ name: a, address: 192.0.2.7 }",
                ", dedicatedTo: bravo",
            ),
            &[
                "EgressPool/shared spec.sources[0]: 192.0.2.7, the address of the source v, is in EgressPool/vip, which is dedicated to Tenant/acme",
                "EgressPool/vip spec.sources[0]: 192.0.2.7, the address of the source a, is in EgressPool/shared, which is dedicated to Tenant/bravo",
            ],
        ),
        (
            pool("shared", "{ name: a }", ", quarantine: vip"),
            &["EgressPool/shared spec.quarantine: EgressPool/vip is dedicated to Tenant/acme"],
        ),
        (
            pool("own", "{ name: o }", ", dedicatedTo: nobody"),
            &["EgressPool/own spec.dedicatedTo: no Tenant named \"nobody\"; known: acme, bravo"],
        ),
        (
            pool(
                "own",
                "{ name: o }",
                ", dedicatedTo: bravo, maxTenants: 2, quarantine: vip",
            ),
            &[
                "EgressPool/own spec.maxTenants: is for pools that are shared, and this one is dedicated to bravo",
                "EgressPool/own spec.quarantine: is for pools that are shared, and this one is dedicated to bravo",
            ],
        ),
    ];
    for (documents, expected) in table {
        let mut found = problems(&(base.clone() + documents));
        found.sort();
        assert_eq!(found, *expected, "{documents}");
    }
}

#[test]
fn pools_for_probation_and_quarantine_keep_tenants_apart() {
    let base =
        tenants(&["acme"]) + &pool("new", "{ name: fresh }", "") + &pool("bad", "{ name: b }", "");
    let shared = |more: &str| base.clone() + &pool("shared", "{ name: a }", more);
    let table: &[(String, &[&str])] = &[
        (
            shared(", probation: { pool: new, except: [ acme ] }, quarantine: bad"),
            &[],
        ),
        (
            shared(", probation: { pool: shared }, quarantine: shared"),
            &[
                "EgressPool/shared spec.probation.pool: must be another pool: there is nothing that keeps its tenants apart",
                "EgressPool/shared spec.quarantine: must be another pool: there is nothing that keeps its tenants apart",
            ],
        ),
        (
            shared(", probation: { days: 0, delivered: 5 }"),
            &[
                "EgressPool/shared spec.probation.days: a whole number from 1 to 365 is expected, found the number 0",
                "EgressPool/shared spec.probation.pool: is missing",
            ],
        ),
        (
            shared(", probation: { pool: gone, except: [ nobody ] }"),
            &[
                "EgressPool/shared spec.probation.except[0]: no Tenant named \"nobody\"; known: acme",
                "EgressPool/shared spec.probation.pool: no EgressPool named \"gone\"; known: bad, new, shared",
            ],
        ),
        (
            shared(", quarantine: chain") + &pool("chain", "{ name: c }", ", quarantine: bad"),
            &[
                "EgressPool/shared spec.quarantine: EgressPool/chain sends tenants on to other pools itself",
            ],
        ),
        (
            shared(", quarantine: same") + &pool("same", "{ name: a }", ""),
            &[
                "EgressPool/shared spec.quarantine: EgressPool/same does not keep tenants apart from this one: the source a is in both",
            ],
        ),
    ];
    for (documents, expected) in table {
        let mut found = problems(documents);
        found.sort();
        assert_eq!(found, *expected, "{documents}");
    }
}

#[test]
fn what_keeps_tenants_apart_reads_back() {
    let documents = tenants(&["acme"])
        + &pool("new", "{ name: fresh }", ", maxTenants: 3")
        + &pool("vip", "{ name: v }", ", dedicatedTo: acme")
        + &pool(
            "shared",
            "{ name: a }",
            ", maxTenants: 20, probation: { pool: new, days: 3, delivered: 50, except: [ acme ] }, quarantine: new",
        );
    let snapshot = Snapshot::from_documents(&documents).unwrap();
    let again = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(again.hash(), snapshot.hash());
    let shared = again.pool("shared").unwrap();
    let probation = shared.probation.as_ref().unwrap();
    assert_eq!((probation.days, probation.delivered), (3, 50));
    assert_eq!(probation.except, ["acme"]);
    assert_eq!(
        (shared.max_tenants, shared.quarantine.as_deref()),
        (Some(20), Some("new"))
    );
    assert!(again.pool("vip").unwrap().is_closed_to("bravo"));
    assert!(!again.pool("vip").unwrap().is_closed_to("acme"));
}
