use config::{Snapshot, TokenAlgorithm, TokenKeys};
use mail::Span;

use crate::document;

const TENANT: &str = "{ defaultStream: m, streams: [ { name: m } ] }";

fn issuer(name: &str, iss: &str, more: &str) -> String {
    document(
        "TokenIssuer",
        name,
        &format!("{{ issuer: \"{iss}\", audiences: [ relay ], {more} }}"),
    )
}

fn credential(name: &str, tokens: &str) -> String {
    document(
        "Credential",
        name,
        &format!("{{ tenant: t, tokens: [ {tokens} ] }}"),
    )
}

fn problems(documents: &str) -> Vec<String> {
    let problems = Snapshot::from_documents(documents).unwrap_err();
    let without_line = |text: String| match text.split_once(" (line ") {
        Some((before, after)) => {
            let (_, after) = after.split_once(')').unwrap();
            format!("{before}{after}")
        }
        None => text,
    };
    let texts = problems.iter().map(ToString::to_string);
    texts.map(without_line).collect()
}

#[test]
fn issuers_and_subjects_read_back_and_are_found() {
    let documents = document("Tenant", "t", TENANT)
        + &issuer(
            "corp",
            "https://login.example/",
            "jwksUrl: \"https://login.example:443/keys\"",
        )
        + &issuer(
            "lab",
            "lab",
            "jwksFile: \"file:/etc/keys.json\", algorithms: [ ES256 ], clockSkew: 0, claim: email, scope: smtp.send, keepKeysFor: 1h",
        )
        + &credential(
            "c",
            "{ issuer: corp, subject: \"1\" }, { issuer: lab, subject: \"1\" }",
        )
        + &credential("d", "{ issuer: corp, subject: \"2\" }");
    let snapshot = Snapshot::from_documents(&documents).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    assert!(read.takes_tokens() && !Snapshot::default().takes_tokens());

    let corp = read.token_issuer("https://login.example/").unwrap();
    assert_eq!((corp.name.as_str(), corp.claim.as_str()), ("corp", "sub"));
    assert_eq!(corp.algorithms, TokenAlgorithm::all().collect::<Vec<_>>());
    assert_eq!(corp.clock_skew, Span::from_secs(60));
    assert_eq!(corp.keep_keys_for, Span::from_secs(86_400));
    let url = "https://login.example/keys".parse().unwrap();
    let authorities = None;
    assert_eq!(corp.keys, TokenKeys::Url { url, authorities });
    assert!(read.token_issuer("https://login.example").is_none());
    let lab = read.token_issuer("lab").unwrap();
    assert_eq!(lab.algorithms, [TokenAlgorithm::Es256]);
    assert_eq!(lab.keys, TokenKeys::File("/etc/keys.json".into()));
    assert_eq!(lab.scope.as_deref(), Some("smtp.send"));

    let found = |issuer, subject| {
        let credential = read.credential_by_token(issuer, subject);
        credential.map(|credential| credential.name.as_str())
    };
    assert_eq!(found("corp", "1"), Some("c"));
    assert_eq!(found("corp", "2"), Some("d"));
    assert_eq!(found("lab", "1"), Some("c"));
    assert_eq!(found("lab", "2"), None);
    assert_eq!(found("https://login.example/", "1"), None);
}

#[test]
fn a_token_leads_to_one_issuer_and_to_one_credential() {
    let documents = document("Tenant", "t", TENANT)
        + &issuer("a", "same", "jwksFile: \"file:/a\"")
        + &issuer("b", "same", "jwksFile: \"file:/b\"")
        + &credential(
            "c",
            "{ issuer: a, subject: \"1\" }, { issuer: gone, subject: \"1\" }",
        )
        + &credential("d", "{ issuer: a, subject: \"1\" }");
    assert_eq!(
        problems(&documents),
        [
            "doc 3 TokenIssuer/b spec.issuer: TokenIssuer/a has the same",
            "doc 4 Credential/c spec.tokens[1].issuer: no TokenIssuer named \"gone\"; known: a, b",
            "doc 5 Credential/d spec.tokens[0]: Credential/c has the same",
        ]
    );
}

#[test]
fn each_bad_issuer_gets_its_message() {
    for (spec, expected) in [
        (
            "{}",
            &[
                "issuer: is missing",
                "audiences: is missing: tokens that are meant for others would be taken",
                "jwksUrl: is missing: jwksUrl or jwksFile is expected",
            ][..],
        ),
        (
            "{ issuer: i, audiences: [], algorithms: [], jwksFile: keys.json }",
            &[
                "audiences: 1 to 16 are expected: `aud` of tokens for this relay",
                "algorithms: is empty: no token would be taken",
                "jwksFile: \"file:/path\" is expected, found \"keys.json\"",
            ],
        ),
        (
            "{ issuer: i, audiences: [ a ], algorithms: [ none, HS256, rs256 ], jwksUrl: \"http://a.example/\" }",
            &[
                "algorithms[0]: one of RS256, PS256, ES256, EdDSA is expected, found \"none\"",
                "algorithms[1]: one of RS256, PS256, ES256, EdDSA is expected, found \"HS256\"",
                "algorithms[2]: one of RS256, PS256, ES256, EdDSA is expected, found \"rs256\"",
                "jwksUrl: a URL such as https://login.example.com/keys is expected, without user and fragment, found \"http://a.example/\"",
            ],
        ),
        (
            "{ issuer: i, audiences: [ a ], jwksFile: \"file:/a\", jwksUrl: \"https://a.example/\", clockSkew: 1h, keepKeysFor: 1m, scope: \"a b\" }",
            &[
                "jwksFile: is given beside jwksUrl: one of the two is expected",
                "keepKeysFor: 10m to 30d is expected, found 1m",
                "clockSkew: 0 to 5m is expected, found 1h",
                "scope: one scope of at most 128 characters is expected, found \"a b\"",
            ],
        ),
        (
            "{ issuer: i, audiences: [ a ], jwksFile: \"file:/a\", authorities: \"file:/b\" }",
            &["authorities: is for jwksUrl, which is not given"],
        ),
    ] {
        let found = problems(&document("TokenIssuer", "x", spec));
        let expected: Vec<String> = expected
            .iter()
            .map(|text| format!("doc 1 TokenIssuer/x spec.{text}"))
            .collect();
        assert_eq!(found, expected, "{spec}");
    }
    let credential = credential("c", "{ issuer: x }, { subject: \"\" }");
    let found = problems(&(document("Tenant", "t", TENANT) + &credential));
    assert!(found.contains(&"doc 2 Credential/c spec.tokens[0].subject: is missing".to_owned()));
    assert!(found.contains(&"doc 2 Credential/c spec.tokens[1].issuer: is missing".to_owned()));
}
