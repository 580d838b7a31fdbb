//! What is done about addresses that nothing should be sent to.

use config::{AtRecipient, Snapshot, StoredAddresses, Suppression};
use mail::Span;

use crate::document;

const DAY: u64 = 86_400;

fn tenant(spec: &str) -> String {
    document("Tenant", "t", &format!("{{ defaultStream: bulk, {spec} }}"))
}

#[test]
fn a_stream_says_what_is_other_than_its_tenant_and_everything_reads_back() {
    let text = tenant(
        "suppression: { atRecipient: reject, addresses: hashed, expires: { hard: 365d, soft: never } }, \
         streams: [ { name: bulk, suppression: { softBounces: { count: 3, within: 10d }, expires: { hard: never } } }, \
         { name: transactional }, { name: receipts, transactional: true, suppression: { atRecipient: accept } }, \
         { name: plain } ]",
    );
    let snapshot = Snapshot::from_documents(&text).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let tenant = read.tenant("t").unwrap();
    assert_eq!(
        tenant.suppression.expires.hard,
        Some(Span::from_secs(365 * DAY))
    );
    assert_eq!(tenant.suppression.expires.soft, None);
    let of = |stream| tenant.suppression_of(stream);
    assert_eq!(of("bulk").at_recipient, AtRecipient::Reject);
    assert_eq!(of("bulk").expires.hard, None);
    assert_eq!(of("bulk").soft_bounces.count, 3);
    assert_eq!(of("bulk").soft_bounces.within, Span::from_secs(10 * DAY));
    assert_eq!(of("bulk").addresses, StoredAddresses::Hashed);
    assert_eq!(of("receipts").at_recipient, AtRecipient::Accept);
    assert_eq!(of("plain"), &tenant.suppression);
    assert_eq!(of("no stream"), &tenant.suppression);
    let transactional: Vec<&str> = tenant
        .streams
        .iter()
        .filter(|stream| stream.transactional)
        .map(|stream| &*stream.name)
        .collect();
    assert_eq!(transactional, ["transactional", "receipts"]);
}

#[test]
fn without_a_word_it_is_as_usual_and_the_document_stays_short() {
    let text = tenant("streams: [ { name: bulk } ]");
    let snapshot = Snapshot::from_documents(&text).unwrap();
    assert!(!snapshot.to_json().contains("suppression"));
    assert!(!snapshot.to_json().contains("transactional"));
    let tenant = snapshot.tenant("t").unwrap();
    assert_eq!(tenant.suppression, Suppression::default());
    assert_eq!(tenant.suppression.soft_bounces.count, 5);
}

#[test]
fn what_makes_no_sense_is_said() {
    for (suppression, expected) in [
        (
            "{ atRecipient: drop }",
            "suppression.atRecipient: one of accept, reject",
        ),
        (
            "{ addresses: secret }",
            "suppression.addresses: one of clear, hashed",
        ),
        (
            "{ softBounces: { count: 31 } }",
            "softBounces.count: a whole number from 0 to 30",
        ),
        (
            "{ softBounces: { within: 400d } }",
            "softBounces.within: 1d to 365d is expected, found 400d",
        ),
        (
            "{ softBounces: { count: 8, within: 7d } }",
            "softBounces.count: a day counts once",
        ),
        (
            "{ expires: { soft: 1h } }",
            "expires.soft: 1d to 3650d or `never` is expected",
        ),
        ("{ expires: { manual: 1d } }", "expires.manual"),
    ] {
        let text = tenant(&format!(
            "streams: [ {{ name: bulk }} ], suppression: {suppression}"
        ));
        let problems = Snapshot::from_documents(&text).unwrap_err();
        let text_of = |problem: &config::Problem| match problem.to_string().split_once(" (line ") {
            Some((place, what)) => place.to_owned() + what.split_once(')').unwrap().1,
            None => problem.to_string(),
        };
        let problems: Vec<String> = problems.iter().map(text_of).collect();
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{expected}: {problems:?}"
        );
    }
}
