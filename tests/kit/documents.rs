//! Resource documents as YAML, with what most tests want.

use std::fmt::Write;

/// Builds the documents of an installation: one tenant `acme` that may send as `acme.example` from
/// the loopback networks, one pool, one route with short retries, wide limits.
#[derive(Debug, Clone)]
pub struct Documents {
    /// Port of all MX hosts.
    pub mx_port: u16,
    /// Value of `dkim` of the sending domain; unsigned when empty.
    pub dkim: String,
    /// Value of `retry` of the route.
    pub retry: String,
    /// Value of `maxAge` of the route.
    pub max_age: String,
    /// Value of `inDoubt` of the stream.
    pub in_doubt: String,
    /// The rules of the shaping, as a YAML flow sequence.
    pub shaping: String,
    /// More fields of the tenant, each with a comma before it.
    pub tenant: String,
    /// Further documents, each beginning with `---`.
    pub more: String,
}

const API: &str = "apiVersion: staffetta.dev/v1alpha1\n";

impl Documents {
    /// With MX hosts on this port.
    pub fn new(mx_port: u16) -> Self {
        Self {
            mx_port,
            dkim: String::new(),
            retry: "{ initial: 1s, factor: 2, max: 4s, jitter: 10 }".to_owned(),
            max_age: "1h".to_owned(),
            in_doubt: "retry".to_owned(),
            shaping: "[ { connections: 10, messagesPerConnection: 100, tls: opportunistic } ]"
                .to_owned(),
            tenant: String::new(),
            more: String::new(),
        }
    }

    /// The YAML text.
    pub fn yaml(&self) -> String {
        let Self {
            mx_port,
            retry,
            max_age,
            in_doubt,
            shaping,
            tenant,
            more,
            ..
        } = self;
        let dkim = if self.dkim.is_empty() {
            "unsigned: true".to_owned()
        } else {
            format!("dkim: {}", self.dkim)
        };
        let specs = [
            (
                "Tenant",
                "acme",
                format!(
                    "{{ defaultStream: transactional, streams: [ {{ name: transactional, inDoubt: {in_doubt} }} ]{tenant} }}"
                ),
            ),
            (
                "Credential",
                "acme-app",
                "{ tenant: acme, stream: transactional, networks: [\"127.0.0.0/8\"] }".to_owned(),
            ),
            (
                "SendingDomain",
                "acme.example",
                format!("{{ tenant: acme, {dkim} }}"),
            ),
            (
                "EgressPool",
                "default",
                "{ sources: [ { name: a, ehlo: relay.example.com } ] }".to_owned(),
            ),
            (
                "Route",
                "default",
                format!(
                    "{{ pool: default, port: {mx_port}, allowPrivate: true, retry: {retry}, maxAge: {max_age} }}"
                ),
            ),
            ("Shaping", "default", format!("{{ rules: {shaping} }}")),
        ];
        let mut yaml = String::new();
        for (kind, name, spec) in specs {
            write!(
                yaml,
                "---\n{API}kind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
            )
            .expect("a String takes everything");
        }
        yaml.push_str(more);
        yaml
    }
}
