//! What is counted of a day.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proto::event::TlsSessions;

/// What is kept at most of a day; what goes beyond is told to be missing.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Domains; others get no report.
    pub domains: usize,
    /// Policies of a domain; sessions under others are not counted.
    pub policies: usize,
    /// Ways to fail under a policy: hosts, addresses and results. Sessions that failed in others are in the sum alone.
    pub failures: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            domains: 50_000,
            policies: 64,
            failures: 200,
        }
    }
}

/// Whose policy, and what it says (RFC 8460 section 4.4).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// `tlsa`, `sts`, `no-policy-found`.
    pub kind: String,
    /// Whose it is.
    pub domain: String,
    /// Its lines, or records.
    pub lines: Vec<String>,
    /// Hosts that an MTA-STS policy takes.
    pub hosts: Vec<String>,
}

/// How sessions failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// RFC 8460 section 4.3.
    pub result: String,
    /// Our address.
    pub source: Option<IpAddr>,
    /// Name of the mail host; empty where none was spoken to.
    pub host: String,
    /// Its address.
    pub address: Option<IpAddr>,
}

/// Sessions under one policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Those that came up to it.
    pub succeeded: u64,
    /// Those that did not.
    pub failed: u64,
    /// How they failed: with fewer sessions than `failed` where there were too many ways.
    pub failures: BTreeMap<Failure, u64>,
}

/// The sessions of one day, by domain and policy.
#[derive(Debug, Default)]
pub struct Tally {
    bounds: Bounds,
    domains: BTreeMap<String, BTreeMap<Policy, Counted>>,
    left_out: u64,
}

impl Tally {
    /// With other bounds than usual.
    pub fn with_bounds(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// Counts what a sender tells.
    pub fn add(&mut self, told: &TlsSessions) {
        let Bounds {
            domains,
            policies,
            failures,
        } = self.bounds;
        let sessions = told
            .failures
            .iter()
            .fold(told.succeeded, |sum: u64, failure| {
                sum.saturating_add(failure.sessions)
            });
        let is_full = |known: usize, most: usize, has: bool| known >= most && !has;
        if is_full(
            self.domains.len(),
            domains,
            self.domains.contains_key(&told.domain),
        ) {
            self.left_out = self.left_out.saturating_add(sessions);
            return;
        }
        let of_domain = self.domains.entry(told.domain.clone()).or_default();
        let policy = told.policy.clone().unwrap_or_default();
        let policy = Policy {
            kind: policy.r#type,
            domain: policy.domain,
            lines: policy.lines,
            hosts: policy.hosts,
        };
        if is_full(of_domain.len(), policies, of_domain.contains_key(&policy)) {
            self.left_out = self.left_out.saturating_add(sessions);
            return;
        }
        let counted = of_domain.entry(policy).or_default();
        counted.succeeded = counted.succeeded.saturating_add(told.succeeded);
        for failure in &told.failures {
            counted.failed = counted.failed.saturating_add(failure.sessions);
            let way = Failure {
                result: failure.result.clone(),
                source: failure.source_address.parse().ok(),
                host: failure.host.clone(),
                address: failure.address.parse().ok(),
            };
            if !is_full(
                counted.failures.len(),
                failures,
                counted.failures.contains_key(&way),
            ) {
                let sessions = counted.failures.entry(way).or_default();
                *sessions = sessions.saturating_add(failure.sessions);
            }
        }
    }

    /// Sessions that are in no report, since there were too many domains or policies.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Domains with something counted, in alphabetical order, after `after`.
    pub fn domains<'a>(&'a self, after: &'a str) -> impl Iterator<Item = &'a str> {
        let domains = self.domains.keys().map(String::as_str);
        domains.filter(move |domain| *domain > after)
    }

    /// What is counted of a domain.
    pub fn of(&self, domain: &str) -> Option<&BTreeMap<Policy, Counted>> {
        self.domains.get(domain)
    }
}

#[cfg(test)]
mod tests {
    use proto::event::{TlsFailure, TlsPolicy};

    use super::*;

    fn told(domain: &str, kind: &str, succeeded: u64, failures: &[(&str, u64)]) -> TlsSessions {
        TlsSessions {
            domain: domain.into(),
            policy: Some(TlsPolicy {
                r#type: kind.into(),
                domain: domain.into(),
                ..TlsPolicy::default()
            }),
            succeeded,
            failures: failures
                .iter()
                .map(|(result, sessions)| TlsFailure {
                    result: (*result).into(),
                    source_address: "192.0.2.1".into(),
                    host: "mx.dest.example".into(),
                    address: "nonsense".into(),
                    sessions: *sessions,
                })
                .collect(),
        }
    }

    #[test]
    fn what_senders_tell_is_added_up_by_domain_and_policy() {
        let mut tally = Tally::default();
        tally.add(&told("b.example", "sts", 3, &[("certificate-expired", 2)]));
        tally.add(&told(
            "b.example",
            "sts",
            4,
            &[("certificate-expired", 1), ("other", 5)],
        ));
        tally.add(&told("b.example", "no-policy-found", 1, &[]));
        tally.add(&told("a.example", "sts", 0, &[("other", 1)]));
        assert_eq!(
            tally.domains("").collect::<Vec<_>>(),
            ["a.example", "b.example"]
        );
        assert_eq!(
            tally.domains("a.example").collect::<Vec<_>>(),
            ["b.example"]
        );
        let policies = tally.of("b.example").unwrap();
        assert_eq!(policies.len(), 2);
        let (policy, sts) = policies.last_key_value().unwrap();
        assert_eq!(policy.kind, "sts");
        assert_eq!((sts.succeeded, sts.failed), (7, 8));
        let ways: Vec<_> = sts
            .failures
            .iter()
            .map(|(way, n)| (&*way.result, way.address, *n))
            .collect();
        assert_eq!(ways, [("certificate-expired", None, 3), ("other", None, 5)]);
    }

    #[test]
    fn what_is_too_much_is_left_out_and_counted() {
        let mut tally = Tally::with_bounds(Bounds {
            domains: 2,
            policies: 1,
            failures: 1,
        });
        tally.add(&told("a.example", "sts", 1, &[("x", 1), ("y", 10)]));
        tally.add(&told("a.example", "tlsa", 2, &[("x", 3)]));
        tally.add(&told("b.example", "sts", 1, &[]));
        tally.add(&told("c.example", "sts", 7, &[]));
        tally.add(&told("a.example", "sts", u64::MAX, &[("x", u64::MAX)]));
        assert_eq!(tally.domains("").count(), 2);
        assert_eq!(tally.left_out(), 12);
        let (_, counted) = tally.of("a.example").unwrap().first_key_value().unwrap();
        assert_eq!(
            (counted.succeeded, counted.failed, counted.failures.len()),
            (u64::MAX, u64::MAX, 1)
        );
    }
}
