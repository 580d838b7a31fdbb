//! What a domain is told of a day (RFC 8460 section 4).

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::day::{Day, timestamp};
use crate::tally::{Counted, Failure, Policy};

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporter {
    /// Name of the organisation.
    pub organization: String,
    /// Where people who have questions write to.
    pub contact: String,
    /// Domain of the sender of reports, which names the reporter where a domain is asked for.
    pub domain: String,
}

/// One report.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Who reports.
    pub reporter: &'a Reporter,
    /// The domain that is told: its record asked for it.
    pub domain: &'a str,
    /// What it is about.
    pub day: Day,
    /// Letters and digits; the same report has the same, whoever makes it.
    pub id: &'a str,
    /// What was counted.
    pub policies: &'a BTreeMap<Policy, Counted>,
}

impl Report<'_> {
    /// The report's id, of the form of a Message-ID without brackets.
    pub fn full_id(&self) -> String {
        format!("{}@{}", self.id, self.reporter.domain)
    }

    /// RFC 8460 section 4.4.
    pub fn json(&self) -> Value {
        let policies = self
            .policies
            .iter()
            .map(|(policy, counted)| of_policy(policy, counted));
        json!({
            "organization-name": self.reporter.organization,
            "date-range": {
                "start-datetime": timestamp(self.day.start_ms()).to_string(),
                "end-datetime": timestamp(self.day.last_second_ms()).to_string(),
            },
            "contact-info": self.reporter.contact,
            "report-id": self.full_id(),
            "policies": policies.collect::<Value>(),
        })
    }

    /// The same, as it is sent (RFC 1952). The same report gives the same octets.
    pub fn compressed(&self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let text = self.json().to_string();
        encoder
            .write_all(text.as_bytes())
            .and_then(|()| encoder.finish())
            .expect("a vector takes all that is written")
    }

    /// RFC 8460 section 5.1.
    pub fn file_name(&self) -> String {
        let (from, to) = (
            self.day.start_ms() / 1_000,
            self.day.last_second_ms() / 1_000,
        );
        let Self {
            reporter,
            domain,
            id,
            ..
        } = self;
        format!("{}!{domain}!{from}!{to}!{id}.json.gz", reporter.domain)
    }
}

fn of_policy(policy: &Policy, counted: &Counted) -> Value {
    let mut described = Map::new();
    described.insert("policy-type".into(), json!(policy.kind));
    if !policy.lines.is_empty() {
        described.insert("policy-string".into(), json!(policy.lines));
    }
    described.insert("policy-domain".into(), json!(policy.domain));
    if !policy.hosts.is_empty() {
        described.insert("mx-host".into(), json!(policy.hosts));
    }
    let mut value = json!({
        "policy": described,
        "summary": {
            "total-successful-session-count": counted.succeeded,
            "total-failure-session-count": counted.failed,
        },
    });
    if !counted.failures.is_empty() {
        let failures = counted
            .failures
            .iter()
            .map(|(failure, sessions)| of_failure(failure, *sessions));
        value["failure-details"] = failures.collect();
    }
    value
}

fn of_failure(failure: &Failure, sessions: u64) -> Value {
    let mut details = Map::new();
    details.insert("result-type".into(), json!(failure.result));
    if let Some(source) = failure.source {
        details.insert("sending-mta-ip".into(), json!(source.to_string()));
    }
    if !failure.host.is_empty() {
        details.insert("receiving-mx-hostname".into(), json!(failure.host));
    }
    if let Some(address) = failure.address {
        details.insert("receiving-ip".into(), json!(address.to_string()));
    }
    details.insert("failed-session-count".into(), json!(sessions));
    Value::Object(details)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;

    use super::*;

    pub(crate) fn reporter() -> Reporter {
        Reporter {
            organization: "Relay \"Ü\" Ltd".into(),
            contact: "tls@relay.example".into(),
            domain: "relay.example".into(),
        }
    }

    pub(crate) fn policies() -> BTreeMap<Policy, Counted> {
        let sts = Policy {
            kind: "sts".into(),
            domain: "dest.example".into(),
            lines: vec![
                "version: STSv1".into(),
                "mode: testing".into(),
                "mx: *.mail.dest.example".into(),
                "max_age: 86400".into(),
            ],
            hosts: vec!["*.mail.dest.example".into()],
        };
        let way = |result: &str, address: &str, host: &str| Failure {
            result: result.into(),
            source: "2001:db8:abcd:0012::1".parse().ok(),
            host: host.into(),
            address: address.parse().ok(),
        };
        let counted = Counted {
            succeeded: 5326,
            failed: 303,
            failures: BTreeMap::from([
                (
                    way(
                        "certificate-expired",
                        "203.0.113.56",
                        "mx1.mail.dest.example",
                    ),
                    100,
                ),
                (way("sts-policy-fetch-error", "", ""), 3),
            ]),
        };
        let none = Policy {
            kind: "no-policy-found".into(),
            domain: "dest.example".into(),
            lines: Vec::new(),
            hosts: Vec::new(),
        };
        let good = Counted {
            succeeded: 1,
            ..Counted::default()
        };
        BTreeMap::from([(sts, counted), (none, good)])
    }

    #[test]
    fn says_in_json_what_the_rfc_wants_said() {
        let (reporter, policies) = (reporter(), policies());
        let report = Report {
            reporter: &reporter,
            domain: "dest.example",
            day: Day::of(1_795_351_206_000),
            id: "019ab3f2",
            policies: &policies,
        };
        assert_eq!(
            report.json(),
            json!({
                "organization-name": "Relay \"Ü\" Ltd",
                "date-range": {
                    "start-datetime": "2026-11-22T00:00:00Z",
                    "end-datetime": "2026-11-22T23:59:59Z",
                },
                "contact-info": "tls@relay.example",
                "report-id": "019ab3f2@relay.example",
                "policies": [
                    {
                        "policy": { "policy-type": "no-policy-found", "policy-domain": "dest.example" },
                        "summary": { "total-successful-session-count": 1, "total-failure-session-count": 0 },
                    },
                    {
                        "policy": {
                            "policy-type": "sts",
                            "policy-string": ["version: STSv1", "mode: testing", "mx: *.mail.dest.example", "max_age: 86400"],
                            "policy-domain": "dest.example",
                            "mx-host": ["*.mail.dest.example"],
                        },
                        "summary": { "total-successful-session-count": 5326, "total-failure-session-count": 303 },
                        "failure-details": [
                            {
                                "result-type": "certificate-expired",
                                "sending-mta-ip": "2001:db8:abcd:12::1",
                                "receiving-mx-hostname": "mx1.mail.dest.example",
                                "receiving-ip": "203.0.113.56",
                                "failed-session-count": 100,
                            },
                            {
                                "result-type": "sts-policy-fetch-error",
                                "sending-mta-ip": "2001:db8:abcd:12::1",
                                "failed-session-count": 3,
                            },
                        ],
                    },
                ],
            })
        );
        assert_eq!(
            report.file_name(),
            "relay.example!dest.example!1795305600!1795391999!019ab3f2.json.gz"
        );
        let mut text = String::new();
        flate2::read::GzDecoder::new(&report.compressed()[..])
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), report.json());
        assert_eq!(report.compressed(), report.compressed());
    }
}
