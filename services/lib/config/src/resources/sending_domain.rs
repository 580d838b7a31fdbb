//! Kind SendingDomain.

use std::path::PathBuf;

use mail::Domain;
use serde_json::{Value, json};

use super::credential::read_file_reference;
use crate::Fields;

/// A domain that a tenant sends as; its name is the resource's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendingDomain {
    /// The domain.
    pub domain: Domain,
    /// Name of the tenant.
    pub tenant: String,
    /// Whether names below it belong to it too.
    pub include_subdomains: bool,
    /// Stream of mail of its authors when neither the message nor the credential names one.
    pub stream: Option<String>,
    /// Mail goes out without a signature; asked for by name.
    pub unsigned: bool,
    /// Each signs every message.
    pub dkim: Vec<DkimKey>,
}

/// A key of a sending domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    /// Under `<selector>._domainkey.<domain>`.
    pub selector: String,
    /// Algorithm.
    pub algorithm: DkimAlgorithm,
    /// PEM file with the private key, read by the signer only.
    pub key: PathBuf,
}

/// Algorithms of RFC 6376 and RFC 8463.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DkimAlgorithm {
    /// `rsa-sha256`, 2048 bits or more.
    RsaSha256,
    /// `ed25519-sha256`.
    Ed25519Sha256,
}

const ALGORITHMS: [(&str, DkimAlgorithm); 2] = [
    ("rsa-sha256", DkimAlgorithm::RsaSha256),
    ("ed25519-sha256", DkimAlgorithm::Ed25519Sha256),
];

impl SendingDomain {
    /// Whether it speaks for `domain`.
    pub fn includes(&self, domain: &Domain) -> bool {
        self.domain == *domain || self.include_subdomains && domain.is_within(&self.domain)
    }

    pub(super) fn read(name: &str, metadata: &Fields<'_>, spec: &Fields<'_>) -> Option<Self> {
        let domain = Domain::parse(name);
        if let Err(error) = &domain {
            metadata.problem(
                "name",
                format!("a domain is expected ({error}), found {name:?}"),
            );
        }
        let mut dkim: Vec<DkimKey> = Vec::new();
        for fields in spec.maps("dkim") {
            let key = read_key(&fields);
            fields.close();
            let Some(key) = key else { continue };
            if dkim.iter().any(|other| other.selector == key.selector) {
                spec.problem(
                    "dkim",
                    format!("the selector {:?} is used twice", key.selector),
                );
            }
            dkim.push(key);
        }
        let unsigned = spec.boolean("unsigned").unwrap_or(false);
        if !unsigned && !spec.is_given("dkim") {
            spec.problem(
                "dkim",
                "is missing: give keys, or say `unsigned: true` to send without signatures",
            );
        }
        if unsigned && !dkim.is_empty() {
            spec.problem(
                "unsigned",
                "is true, and there are dkim keys: only one of the two is expected",
            );
        }
        let include_subdomains = spec.boolean("includeSubdomains").unwrap_or(false);
        let stream = spec.text("stream").filter(|text| !text.is_empty());
        let tenant = spec.required_text("tenant")?.to_owned();
        Some(Self {
            domain: domain.ok()?,
            tenant,
            include_subdomains,
            stream: stream.map(str::to_owned),
            unsigned,
            dkim,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let dkim: Vec<Value> = self
            .dkim
            .iter()
            .map(|key| {
                json!({
                    "selector": key.selector,
                    "algorithm": super::word(&ALGORITHMS, key.algorithm),
                    "key": format!("file:{}", key.key.display()),
                })
            })
            .collect();
        let mut spec = json!({
            "tenant": self.tenant,
            "includeSubdomains": self.include_subdomains,
            "unsigned": self.unsigned,
        });
        if !dkim.is_empty() {
            spec["dkim"] = json!(dkim);
        }
        if let Some(stream) = &self.stream {
            spec["stream"] = json!(stream);
        }
        spec
    }
}

fn read_key(fields: &Fields<'_>) -> Option<DkimKey> {
    // Every field is read before the first missing one ends it, so that all are reported.
    let selector = fields.required_text("selector");
    let algorithm = fields.required_text("algorithm");
    let algorithm = algorithm.and_then(|_| fields.one_of("algorithm", &ALGORITHMS));
    let key = fields.required_text("key");
    let key = key.and_then(|_| fields.read_secret("key", read_file_reference));
    let selector = selector?;
    if Domain::parse(selector).is_err() {
        fields.problem(
            "selector",
            format!("a DNS name such as s1 is expected, found {selector:?}"),
        );
    }
    Some(DkimKey {
        selector: selector.to_ascii_lowercase(),
        algorithm: algorithm?,
        key: key?,
    })
}
