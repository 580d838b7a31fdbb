use config::Snapshot;

use crate::document;

fn tenant(name: &str) -> String {
    document(
        "Tenant",
        name,
        "{ defaultStream: m, streams: [ { name: m } ] }",
    )
}

fn domain(name: &str, tenant: &str, return_path: &str) -> String {
    let spec = format!("{{ tenant: {tenant}, unsigned: true, returnPath: {{ {return_path} }} }}");
    document("SendingDomain", name, &spec)
}

fn problems(documents: &str) -> Vec<String> {
    match Snapshot::from_documents(&(tenant("t") + &tenant("other") + documents)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

const OURS: &str = "mode: ours, domain: B.a.example, forwardTo: people@a.example";

#[test]
fn return_paths_of_ours_read_back_and_are_found_by_their_domain() {
    let documents = [
        tenant("t"),
        domain("a.example", "t", OURS),
        domain("c.example", "t", OURS),
        domain("d.example", "t", "mode: keep"),
    ];
    let snapshot = Snapshot::from_documents(&documents.concat()).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let found = read.return_domain("b.a.example").unwrap();
    let own = found.return_path.as_ref().unwrap();
    assert_eq!(own.forward_to.as_str(), "people@a.example");
    assert!(read.return_domain("a.example").is_none());
    let kept = read.sending_domain("d.example").unwrap();
    assert_eq!(kept.return_path, None);
}

#[test]
fn return_paths_that_lead_nowhere_are_refused() {
    let a = domain("a.example", "t", OURS);
    for (documents, problem) in [
        (
            domain("a.example", "t", "mode: ours, forwardTo: p@a.example"),
            "spec.returnPath.domain",
        ),
        (
            domain("a.example", "t", "mode: ours, domain: b.a.example"),
            "spec.returnPath.forwardTo",
        ),
        (
            domain("a.example", "t", "mode: keep, domain: b.a.example"),
            "domain (line 14): has no use: mode is not ours",
        ),
        (
            domain("a.example", "t", "mode: theirs"),
            "one of keep, ours is expected",
        ),
        (
            domain("a.example", "t", &OURS.replace("people@a", "people@b.a")),
            "b.a.example takes no mail but what comes back",
        ),
        (
            a.clone() + &domain("c.example", "other", OURS),
            "is of the tenant other: each tenant needs a domain of its own",
        ),
        (
            a + &domain("c.example", "t", &OURS.replace("people", "others")),
            "SendingDomain/c.example has the same returnPath.domain and forwards to another address",
        ),
    ] {
        let found = problems(&documents);
        let (path, what) = problem.split_once(" (line 14): ").unwrap_or(("", problem));
        assert!(
            found
                .iter()
                .any(|found| found.contains(path) && found.contains(what)),
            "{problem}: {found:?}"
        );
    }
}
