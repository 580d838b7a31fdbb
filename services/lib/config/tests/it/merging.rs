use config::Snapshot;

use crate::{COMPLETE, document};

fn changes(snapshot: &Snapshot, documents: &str, prune: bool) -> Vec<String> {
    let (_, changes) = snapshot.merge(documents, prune).unwrap();
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn merging_replaces_by_kind_and_name_and_keeps_the_rest() {
    let before = Snapshot::from_documents(COMPLETE).unwrap();
    let documents = [
        document("Route", "default", "{ pool: default, port: 26 }"),
        document(
            "Route",
            "new",
            "{ match: { domains: [ x.test ] }, pool: default }",
        ),
        document(
            "EgressPool",
            "default",
            "{ sources: [ { name: a, address: 127.0.0.1, ehlo: relay.example.com } ] }",
        ),
    ]
    .concat();
    assert_eq!(
        changes(&before, &documents, false),
        [
            "unchanged Tenant/acme",
            "unchanged Credential/acme-app",
            "unchanged SendingDomain/acme.example",
            "unchanged EgressPool/default",
            "changed Route/default",
            "created Route/new",
            "unchanged Shaping/default",
        ]
    );
}

#[test]
fn pruning_removes_what_is_not_named() {
    let before = Snapshot::from_documents(COMPLETE).unwrap();
    let documents = document(
        "Tenant",
        "acme",
        "{ defaultStream: main, streams: [ { name: main } ] }",
    );
    let (after, changes) = before.merge(&documents, true).unwrap();
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "changed Tenant/acme",
            "removed Credential/acme-app",
            "removed SendingDomain/acme.example",
            "removed EgressPool/default",
            "removed Route/default",
            "removed Shaping/default",
        ]
    );
    assert_eq!(after.len(), 1);
    assert!(after.credential_by_username("app@acme.example").is_none());
}

#[test]
fn a_change_that_breaks_what_is_already_there_is_refused() {
    let before = Snapshot::from_documents(COMPLETE).unwrap();
    let documents = document(
        "Tenant",
        "acme",
        "{ defaultStream: main, streams: [ { name: main } ] }",
    );
    let problems = before.merge(&documents, false).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "Credential/acme-app spec.stream: the tenant acme has no stream named \"transactional\"; known: main"
        ]
    );
}

#[test]
fn pruning_with_no_document_is_refused() {
    let before = Snapshot::from_documents(COMPLETE).unwrap();
    let problems = before.merge("# nothing\n", true).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "there is no document: with prune everything would be removed"
    );
    assert!(
        before
            .merge("", false)
            .unwrap()
            .1
            .iter()
            .all(|change| change.to_string().starts_with("unchanged"))
    );
}
