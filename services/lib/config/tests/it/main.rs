//! The crate through its public face.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod automation;
mod egress_sources;
mod forwarding;
mod isolation;
mod lookups;
mod merging;
mod problems;
mod returning;
mod round_trip;
mod shaping;
mod signing;
mod times;
mod tokens;
mod watch;

/// A valid configuration with every kind.
const COMPLETE: &str = r#"
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: transactional, streams: [ { name: transactional, inDoubt: retry }, { name: bulk, inDoubt: hold } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-app }
spec:
  tenant: acme
  username: app@acme.example
  passwordHash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo"
  stream: transactional
  networks: ["127.0.0.0/8"]
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: Acme.example }
spec:
  tenant: acme
  dkim:
    - { selector: s1, algorithm: rsa-sha256, key: "file:/keys/acme.rsa.pem" }
    - { selector: e1, algorithm: ed25519-sha256, key: "file:/keys/acme.ed25519.pem" }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: default }
spec: { sources: [ { name: a, address: 127.0.0.1, ehlo: relay.example.com, weight: 1 } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: default }
spec: { pool: default, port: 2525, allowPrivate: true, retry: { initial: 5m, factor: 2, max: 4h, jitter: 10 }, maxAge: 5d }
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: { name: default }
spec:
  rules:
    - { match: {}, connections: 10, messagesPerConnection: 100, rate: 100/s, tls: opportunistic, idleTimeout: 5s }
"#;

/// A document of version v1alpha1.
fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
    )
}
