//! How stolen credentials are noticed.

use config::{Signals, Snapshot};
use mail::Span;

use crate::document;

fn documents(of_tenant: &str, of_credential: &str) -> String {
    let tenant = format!("{{ defaultStream: m, streams: [ {{ name: m }} ]{of_tenant} }}");
    let credential = format!("{{ tenant: t, networks: [ \"192.0.2.0/24\" ]{of_credential} }}");
    document("Tenant", "t", &tenant) + &document("Credential", "c", &credential)
}

#[test]
fn what_is_not_said_only_tells_and_everything_reads_back() {
    let all = ", watch: { signals: { newNetworks: { atLeast: 3, factor: 5, weight: 9 }, refusals: { percent: 50 }, \
               senders: { weight: 0 } }, slowAt: 2, holdAt: 4, lockAt: 6, slowTo: 10/m, lasts: 1h, lockLasts: 7d, learn: 0 }";
    let text = documents(", watch: {}", all);
    let snapshot = Snapshot::from_documents(&text).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let usual = read.tenant("t").unwrap().watch.clone().unwrap();
    assert!(usual.enabled);
    assert_eq!(usual.signals, Signals::default());
    assert_eq!(
        (usual.slow_at, usual.hold_at, usual.lock_at),
        (None, None, None)
    );
    assert_eq!(
        (usual.lasts, usual.lock_lasts),
        (Span::from_secs(14_400), None)
    );
    let own = read.credential("c").unwrap().watch.clone().unwrap();
    assert_eq!(
        (own.slow_at, own.hold_at, own.lock_at),
        (Some(2), Some(4), Some(6))
    );
    assert_eq!(own.signals.new_networks.threshold(2), 10);
    assert_eq!(own.signals.new_networks.threshold(0), 3);
    assert_eq!(own.signals.refusals.percent, 50);
    assert_eq!(own.signals.volume, Signals::default().volume);
    assert_eq!(own.slow_to.to_string(), "10/m");
    assert_eq!(own.learn, Span::from_secs(0));

    let none = Snapshot::from_documents(&documents("", "")).unwrap();
    assert!(none.tenant("t").unwrap().watch.is_none());
}

#[test]
fn what_makes_no_sense_is_said() {
    let wrong = ", watch: { signals: { guessed: { factor: 3 }, volume: { atLeast: 0 }, wrong: {} }, slowAt: 5, lockAt: 5, \
                 lasts: 1m, learn: 15d }";
    let problems = Snapshot::from_documents(&documents(wrong, "")).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for expected in [
        "spec.watch.signals.guessed.factor",
        "spec.watch.signals.volume.atLeast",
        "spec.watch.signals.wrong",
        "spec.watch.lockAt",
        "more than slowAt (5) is expected",
        "spec.watch.lasts",
        "spec.watch.learn",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{expected}: {problems:#?}"
        );
    }
}
