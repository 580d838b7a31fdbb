//! Sessions that were counted and not told yet.

use std::collections::HashMap;

use proto::event::{TlsFailure, TlsPolicy, TlsSessions};
use tlsrpt::{Counted, Day, Failure, Policy};

use super::Session;

/// Domains, with their policies, that are counted between two times of telling.
const MOST_COUNTED: usize = 20_000;
/// Octets of their policies, about.
const MOST_OCTETS: usize = 16 * 1024 * 1024;
/// Ways to fail of each.
const MOST_WAYS: usize = 100;

/// See the module.
#[derive(Default)]
pub(super) struct Counts {
    counted: HashMap<(Day, String, Policy), Counted>,
    octets: usize,
    left_out: u64,
}

/// What is to be told.
pub(super) struct Taken {
    pub by_domain: HashMap<String, Vec<Told>>,
    /// Sessions that found no room.
    pub left_out: u64,
}

/// Sessions of one day under one policy.
pub(super) struct Told {
    pub day: Day,
    pub sessions: TlsSessions,
}

impl Counts {
    pub fn note(&mut self, day: Day, session: Session<'_>) {
        let Session {
            domain,
            policy,
            failure,
        } = session;
        let key = (day, domain.to_owned(), policy);
        let octets = key.1.len() + octets(&key.2);
        let is_full = self.counted.len() >= MOST_COUNTED || self.octets + octets > MOST_OCTETS;
        if !self.counted.contains_key(&key) {
            if is_full {
                self.left_out += 1;
                return;
            }
            self.octets += octets;
        }
        let counted = self.counted.entry(key).or_default();
        match failure {
            None => counted.succeeded += 1,
            Some(failure) => {
                let is_known = counted.failures.contains_key(&failure);
                if is_known || counted.failures.len() < MOST_WAYS {
                    *counted.failures.entry(failure).or_default() += 1;
                } else {
                    self.left_out += 1;
                }
            }
        }
    }

    /// All of it; nothing is left.
    pub fn take(&mut self) -> Taken {
        let Self {
            counted, left_out, ..
        } = std::mem::take(self);
        let mut by_domain: HashMap<String, Vec<Told>> = HashMap::new();
        for ((day, domain, policy), counted) in counted {
            let sessions = sessions(domain.clone(), policy, counted);
            by_domain
                .entry(domain)
                .or_default()
                .push(Told { day, sessions });
        }
        Taken {
            by_domain,
            left_out,
        }
    }
}

fn octets(policy: &Policy) -> usize {
    let lines = policy.lines.iter().chain(&policy.hosts);
    lines.map(|line| line.len() + 24).sum::<usize>() + policy.domain.len()
}

fn sessions(domain: String, policy: Policy, counted: Counted) -> TlsSessions {
    TlsSessions {
        domain,
        policy: Some(TlsPolicy {
            r#type: policy.kind,
            domain: policy.domain,
            lines: policy.lines,
            hosts: policy.hosts,
        }),
        succeeded: counted.succeeded,
        failures: counted.failures.into_iter().map(failure).collect(),
    }
}

fn failure((failure, sessions): (Failure, u64)) -> TlsFailure {
    let text = |address: Option<std::net::IpAddr>| address.map(|a| a.to_string());
    TlsFailure {
        result: failure.result,
        source_address: text(failure.source).unwrap_or_default(),
        host: failure.host,
        address: text(failure.address).unwrap_or_default(),
        sessions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session<'a>(domain: &'a str, result: Option<&str>) -> Session<'a> {
        Session {
            domain,
            policy: Policy {
                kind: "no-policy-found".into(),
                domain: domain.into(),
                ..Policy::default()
            },
            failure: result.map(|result| Failure {
                result: result.into(),
                ..Failure::default()
            }),
        }
    }

    #[test]
    fn sessions_are_told_once_by_day_and_way_to_fail() {
        let mut counts = Counts::default();
        for (day, domain, result) in [
            (1, "a.example", None),
            (1, "a.example", Some("certificate-expired")),
            (1, "a.example", Some("certificate-expired")),
            (2, "a.example", None),
            (1, "b.example", None),
        ] {
            counts.note(Day(day), session(domain, result));
        }
        let taken = counts.take();
        assert_eq!((taken.by_domain.len(), taken.left_out), (2, 0));
        let of_a = &taken.by_domain["a.example"];
        assert_eq!(of_a.len(), 2);
        let first = of_a.iter().find(|told| told.day == Day(1)).unwrap();
        let failures = &first.sessions.failures;
        assert_eq!((first.sessions.succeeded, failures.len()), (1, 1));
        assert_eq!(
            (&*failures[0].result, failures[0].sessions),
            ("certificate-expired", 2)
        );
        assert!(counts.take().by_domain.is_empty());
    }

    #[test]
    fn what_finds_no_room_is_left_out_and_known() {
        let mut counts = Counts::default();
        for number in 0..MOST_COUNTED + 5 {
            counts.note(Day(1), session(&format!("{number}.example"), None));
        }
        counts.note(Day(1), session("1.example", None));
        for way in 0..MOST_WAYS + 3 {
            counts.note(Day(1), session("1.example", Some(&way.to_string())));
        }
        let taken = counts.take();
        assert_eq!((taken.by_domain.len(), taken.left_out), (MOST_COUNTED, 8));
        let sessions = &taken.by_domain["1.example"][0].sessions;
        assert_eq!(
            (sessions.succeeded, sessions.failures.len()),
            (2, MOST_WAYS)
        );
    }
}
