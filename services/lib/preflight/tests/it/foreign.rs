//! What Python's email package makes is read as it was meant, and nothing in it is broken.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::{Preflight, Snapshot};
use message::{Content, HeaderEnd};
use preflight::look_at_content;
use serde_json::Value;

fn checks() -> Preflight {
    let documents = "apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: t }
spec:
  defaultStream: m
  streams: [ { name: m } ]
  preflight:
    checks:
      - { rule: spamWords, words: [ kostenlos, БЕСПЛАТНО, 無料 ] }
      - { rule: manyLinks, most: 0 }
      - { rule: brokenMime }
";
    let snapshot = Snapshot::from_documents(documents).expect("the documents are valid");
    let tenant = snapshot.tenant("t").expect("it is there");
    tenant.preflight.clone()
}

#[test]
fn messages_of_python_are_read_as_they_were_meant() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/messages.py");
    let made = Command::new("python3").arg(script).output().unwrap();
    let errors = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{errors}");
    let preflight = checks();
    let mut count = 0;
    for line in String::from_utf8(made.stdout).unwrap().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let name = value["name"].as_str().unwrap();
        let message = STANDARD.decode(value["message"].as_str().unwrap()).unwrap();
        let body = HeaderEnd::new().push(&message).unwrap();
        let content = Content {
            header: &message[..body - 2],
            body: &message[body..],
            is_complete: true,
        };
        let findings = look_at_content(&content, &preflight, "m", Vec::new());
        let found: Vec<&str> = findings.warnings.iter().map(|it| it.rule).collect();
        let links = value["links"].as_u64().unwrap();
        let mut expected = Vec::new();
        if value["words"].as_bool().unwrap() {
            expected.push("spamWords");
        }
        if links > 0 {
            expected.push("manyLinks");
        }
        assert_eq!(found, expected, "{name}: {:?}", findings.warnings);
        let counted = findings.warnings.iter().find(|it| it.rule == "manyLinks");
        if let Some(counted) = counted {
            let start = format!("it has {links} links");
            assert!(counted.what.starts_with(&start), "{name}: {}", counted.what);
        }
        count += 1;
    }
    assert!(count > 20, "{count}");
}
