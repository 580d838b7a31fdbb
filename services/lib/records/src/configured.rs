//! Whom the configuration names.

use std::collections::BTreeSet;

use config::{EgressPool, Route, SendingDomain, Snapshot};
use mail::Domain;
use proto::signer::KeyState;

use crate::{Key, KeyUse, Source, Subject};

impl Key {
    /// As the signer tells of it, at a time in Unix milliseconds.
    pub fn of(state: &KeyState, now_ms: u64) -> Self {
        use proto::signer::KeyUse as Told;
        Self {
            selector: state.selector.clone(),
            record: state.record.clone(),
            used: match state.r#use() {
                Told::Active => KeyUse::Active,
                Told::Pending => KeyUse::Pending,
                Told::Retiring if state.keep_until_ms <= now_ms => KeyUse::Retired,
                Told::Retiring => KeyUse::Retiring,
                Told::Missing | Told::Unspecified => KeyUse::Missing,
            },
            problem: state.problem.clone(),
        }
    }
}

impl Source {
    /// Those of a pool; `hostname` is what those say in EHLO that have no name of their own. The name of one that has none
    /// either.
    pub fn of_pool(pool: &EgressPool, hostname: Option<&str>) -> Result<Vec<Self>, String> {
        let source = |source: &config::EgressSource| {
            let ehlo = source.ehlo.as_ref().map(|ehlo| ehlo.as_str()).or(hostname);
            Ok(Self {
                name: source.name.clone(),
                address: source.address,
                ehlo: ehlo.ok_or_else(|| source.name.clone())?.to_owned(),
            })
        };
        pool.sources.iter().map(source).collect()
    }
}

impl Subject {
    /// A domain, or a name below it, that mail leaves for from these sources. Its return path has the same domain.
    pub fn of(
        domain: &Domain,
        sending_domain: &SendingDomain,
        keys: Vec<Key>,
        sources: Vec<Source>,
    ) -> Self {
        Self {
            domain: domain.clone(),
            signed_by: sending_domain.domain.clone(),
            return_path: domain.clone(),
            keys,
            // Without own keys the service domain signs, which is not aligned.
            unsigned: sending_domain.unsigned || sending_domain.dkim.is_empty(),
            sources,
        }
    }
}

/// The sending domains, each with every pool that a route has for mail of its tenant: their names, in order.
pub fn domains_and_pools(snapshot: &Snapshot) -> BTreeSet<(String, String)> {
    let mut pairs = BTreeSet::new();
    for domain in snapshot.sending_domains() {
        let is_for = |route: &Route| {
            let tenants = &route.matches.tenants;
            tenants.is_empty() || tenants.contains(&domain.tenant)
        };
        let routes = snapshot.routes().iter().filter(|route| is_for(route));
        pairs.extend(routes.map(|route| (domain.domain.to_string(), route.pool.clone())));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: staffetta.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
        )
    }

    #[test]
    fn a_domain_goes_with_the_pools_that_its_tenant_may_be_routed_to() {
        let streams = "{ defaultStream: a, streams: [ { name: a } ] }";
        let pool = "{ sources: [ { name: one, address: 192.0.2.1 } ] }";
        let documents = [
            document("Tenant", "acme", streams),
            document("Tenant", "other", streams),
            document(
                "SendingDomain",
                "acme.example",
                "{ tenant: acme, unsigned: true }",
            ),
            document(
                "SendingDomain",
                "other.example",
                "{ tenant: other, unsigned: true }",
            ),
            document("EgressPool", "own", pool),
            document("EgressPool", "shared", &pool.replace("one", "two")),
            document("EgressPool", "unused", &pool.replace("one", "three")),
            document("Route", "own", "{ pool: own, match: { tenants: [acme] } }"),
            document("Route", "default", "{ pool: shared }"),
            document(
                "Route",
                "more",
                "{ pool: shared, match: { domains: [d.example] } }",
            ),
        ];
        let snapshot = Snapshot::from_documents(&documents.concat()).unwrap();
        let pairs = domains_and_pools(&snapshot);
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("acme.example", "own"),
                ("acme.example", "shared"),
                ("other.example", "shared"),
            ]
        );
        let pool = snapshot.pool("own").unwrap();
        let sources = Source::of_pool(pool, Some("relay.example")).unwrap();
        assert_eq!(sources[0].ehlo, "relay.example");
        assert_eq!(Source::of_pool(pool, None).unwrap_err(), "one");
        let domain = snapshot.sending_domain("acme.example").unwrap();
        let subject = Subject::of(&domain.domain, domain, Vec::new(), sources);
        assert!(subject.unsigned);
        assert_eq!(subject.return_path, domain.domain);
    }
}
