//! Whether mail is aligned, and what is asked of receivers when it is not (RFC 7489).

use dns::Resolver;
use mail::Domain;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::dmarc::{Alignment, Dmarc, Policy};

use crate::Subject;
use crate::finding::{Finding, Topic, Verdict};

/// Names that are asked at most: the domain's own, and those above it.
const MOST_NAMES: usize = 8;

/// The record that holds for a domain.
struct Found {
    /// Below `_dmarc`.
    domain: Domain,
    record: Dmarc,
}

pub(crate) async fn examine(resolver: &Resolver, subject: &Subject) -> Vec<Finding> {
    let domain = &subject.domain;
    let name = format!("_dmarc.{domain}");
    let of = |verdict, at: &str, what: String| Finding::new(verdict, Topic::Dmarc, at, what);
    let found = match discover(resolver, domain).await {
        Ok(found) => found,
        Err(Failure::Dns(error)) => return vec![of(Verdict::Unknown, &name, error)],
        Err(Failure::Record(at, what)) => {
            return vec![of(Verdict::Wrong, &at, what.to_owned())];
        }
    };
    let Some(found) = found else {
        let what = "there is no DMARC record: the large providers refuse bulk mail without one";
        let value = format!("v=DMARC1; p=none; rua=mailto:dmarc@{domain}");
        return vec![of(Verdict::Wrong, &name, what.to_owned()).publishing(&name, "TXT", value)];
    };
    let at = format!("_dmarc.{}", found.domain);
    let (verdict, what) = policy(&found, domain);
    let mut findings = vec![of(verdict, &at, what)];
    findings.push(alignment(&found, subject, &at));
    findings
}

enum Failure {
    Dns(String),
    Record(String, &'static str),
}

/// The record of the domain, or of the nearest one above it that has one.
async fn discover(resolver: &Resolver, domain: &Domain) -> Result<Option<Found>, Failure> {
    for domain in upwards(domain).take(MOST_NAMES) {
        let name = format!("_dmarc.{domain}");
        let texts = match resolver.texts(&name).await {
            Ok(texts) => texts,
            Err(error) if error.is_permanent() => continue,
            Err(error) => return Err(Failure::Dns(error.to_string())),
        };
        let mut records = texts
            .iter()
            .filter(|text| text.trim_start().starts_with("v=DMARC1"));
        let Some(text) = records.next() else { continue };
        if records.next().is_some() {
            let what = "there are several DMARC records: receivers go by none of them";
            return Err(Failure::Record(name, what));
        }
        let Ok(record) = Dmarc::parse(text.as_bytes()) else {
            return Err(Failure::Record(name, "the DMARC record can't be read"));
        };
        return Ok(Some(Found { domain, record }));
    }
    Ok(None)
}

/// `a.b.example`, `b.example`.
fn upwards(domain: &Domain) -> impl Iterator<Item = Domain> {
    let text = domain.as_str().to_owned();
    let starts: Vec<usize> = std::iter::once(0)
        .chain(text.match_indices('.').map(|(at, _)| at + 1))
        .collect();
    starts.into_iter().filter_map(move |start| {
        let name = &text[start..];
        // A top-level domain is nobody's who sends mail.
        name.contains('.')
            .then(|| Domain::parse(name).ok())
            .flatten()
    })
}

fn policy(found: &Found, domain: &Domain) -> (Verdict, String) {
    let record = &found.record;
    let is_above = found.domain != *domain;
    let policy = match record.sp {
        Policy::Unspecified => record.p,
        of_subdomains if is_above => of_subdomains,
        _ => record.p,
    };
    let whose = if is_above {
        format!("that of {} holds", found.domain)
    } else {
        "there is one".to_owned()
    };
    let reports = if record.rua.is_empty() {
        ", and nobody gets reports (rua=)"
    } else {
        ""
    };
    let (verdict, asked) = match policy {
        Policy::None => (
            Verdict::Note,
            "p=none: forged mail of the domain is delivered",
        ),
        Policy::Quarantine => (Verdict::Fine, "p=quarantine"),
        Policy::Reject => (Verdict::Fine, "p=reject"),
        Policy::Unspecified => (Verdict::Wrong, "no policy that can be read"),
    };
    let verdict = if reports.is_empty() {
        verdict
    } else {
        verdict.max(Verdict::Note)
    };
    (verdict, format!("{whose}, {asked}{reports}"))
}

/// One of the two is enough.
fn alignment(found: &Found, subject: &Subject, at: &str) -> Finding {
    let record = &found.record;
    let by_dkim = !subject.unsigned
        && !subject.keys.is_empty()
        && aligned(record.adkim, &subject.signed_by, subject, found);
    let by_spf = aligned(record.aspf, &subject.return_path, subject, found);
    let (verdict, what) = match (by_dkim, by_spf) {
        (true, true) => (
            Verdict::Fine,
            "mail is aligned by DKIM and by SPF".to_owned(),
        ),
        (true, false) => {
            let what = format!(
                "mail is aligned by DKIM; the return path {} is not",
                subject.return_path
            );
            (Verdict::Fine, what)
        }
        (false, true) => {
            let what =
                "mail is aligned by SPF alone, which forwarding breaks: sign it for the domain";
            (Verdict::Note, what.to_owned())
        }
        (false, false) => {
            let what = format!(
                "mail is not aligned: neither the return path {} nor what is signed for ({}) is of the domain",
                subject.return_path, subject.signed_by
            );
            (Verdict::Wrong, what)
        }
    };
    Finding::new(verdict, Topic::Dmarc, at, what)
}

/// Strict: the domain itself. Relaxed: of the same organisation, which the place of the record tells.
fn aligned(alignment: Alignment, other: &Domain, subject: &Subject, found: &Found) -> bool {
    let within = |domain: &Domain| domain.is_within(&found.domain);
    match alignment {
        Alignment::Strict => *other == subject.domain,
        Alignment::Relaxed => {
            other.is_within(&subject.domain)
                || subject.domain.is_within(other)
                || within(other) && within(&subject.domain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_above_are_asked_but_not_the_top() {
        let names: Vec<String> = upwards(&Domain::parse("a.b.example").unwrap())
            .map(|name| name.to_string())
            .collect();
        assert_eq!(names, ["a.b.example", "b.example"]);
    }
}
