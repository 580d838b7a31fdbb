//! Kind SendingDomain.

use std::path::PathBuf;

use mail::{Address, Domain, HttpsUrl, Span};
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
    /// Each signs every message, unless another takes its place.
    pub dkim: Vec<DkimKey>,
    /// Another sending domain, which signs beside this one.
    pub service_domain: Option<Domain>,
    /// What becomes of mail when none of the keys can sign.
    pub without_key: WithoutKey,
    /// Reports on its mail come to us, who make a return path for each recipient; `None`: the client's own is kept.
    pub return_path: Option<OwnReturnPath>,
    /// Signatures say that they hold for so long (the tag `x=`), 1 h to 365 d.
    pub signatures_expire_after: Option<Span>,
    /// `host` or `host:port`, to which links in its messages lead, over https.
    pub link_host: Option<String>,
}

/// Return paths of ours, for mail of authors of a sending domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnReturnPath {
    /// They are addresses of this domain, whose MX leads to our inbound listener.
    pub domain: Domain,
    /// Who reads what people write to them, and to `postmaster` and `abuse` of the domain.
    pub forward_to: Address,
}

#[derive(Clone, Copy, PartialEq)]
enum ReturnPathMode {
    Keep,
    Ours,
}

const RETURN_PATH_MODES: [(&str, ReturnPathMode); 2] = [
    ("keep", ReturnPathMode::Keep),
    ("ours", ReturnPathMode::Ours),
];

/// What becomes of mail of a domain none of whose keys can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WithoutKey {
    /// With a stream of high priority it is signed by the service domain alone, if there is one; else it waits.
    #[default]
    ByStream,
    /// It is signed by the service domain alone.
    Service,
    /// It waits.
    Wait,
}

const WITHOUT_KEY: [(&str, WithoutKey); 3] = [
    ("byStream", WithoutKey::ByStream),
    ("service", WithoutKey::Service),
    ("wait", WithoutKey::Wait),
];

const SHORTEST_LIFE: Span = Span::from_secs(3600);
const LONGEST_LIFE: Span = Span::from_secs(365 * 86_400);

/// A key of a sending domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    /// Under `<selector>._domainkey.<domain>`.
    pub selector: String,
    /// Algorithm.
    pub algorithm: DkimAlgorithm,
    /// PEM file with the private key, read by the signer only.
    pub key: PathBuf,
    /// It signs only once the DNS shows its public key.
    pub when_published: bool,
    /// Selector of the key above it that no longer signs as soon as this one does.
    pub replaces: Option<String>,
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
            if let Some(key) = &key {
                check_replaced(&fields, key, &dkim);
            }
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
        let service_domain = spec.text("serviceDomain").filter(|text| !text.is_empty());
        let service_domain = service_domain.and_then(|_| spec.domain("serviceDomain"));
        if !unsigned && !spec.is_given("dkim") && !spec.is_given("serviceDomain") {
            spec.problem(
                "dkim",
                "is missing: give keys, or say `unsigned: true` to send without signatures",
            );
        }
        if unsigned && service_domain.is_some() {
            spec.problem(
                "unsigned",
                "is true, and there is a serviceDomain to sign: only one of the two is expected",
            );
        }
        let without_key = spec.one_of("withoutKey", &WITHOUT_KEY).unwrap_or_default();
        if without_key == WithoutKey::Service && !spec.is_given("serviceDomain") {
            spec.problem(
                "withoutKey",
                "is service, and there is no serviceDomain to sign",
            );
        }
        let signatures_expire_after = read_life(spec);
        let return_path = OwnReturnPath::read(spec.map("returnPath"));
        let link_host = spec.read("linkHost", link_host);
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
            service_domain,
            without_key,
            return_path,
            signatures_expire_after,
            link_host,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let dkim: Vec<Value> = self.dkim.iter().map(DkimKey::spec).collect();
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
        if let Some(domain) = &self.service_domain {
            spec["serviceDomain"] = json!(domain.as_str());
        }
        if self.without_key != WithoutKey::default() {
            spec["withoutKey"] = json!(super::word(&WITHOUT_KEY, self.without_key));
        }
        if let Some(own) = &self.return_path {
            spec["returnPath"] = own.spec();
        }
        if let Some(life) = self.signatures_expire_after {
            spec["signaturesExpireAfter"] = json!(life.to_string());
        }
        if let Some(host) = &self.link_host {
            spec["linkHost"] = json!(host);
        }
        spec
    }
}

impl OwnReturnPath {
    fn read(fields: Fields<'_>) -> Option<Self> {
        let mode = fields.one_of("mode", &RETURN_PATH_MODES);
        let own = match mode {
            Some(ReturnPathMode::Ours) => {
                let domain = fields.required_text("domain");
                let domain = domain.and_then(|_| fields.domain("domain"));
                let forward_to = fields.required_text("forwardTo");
                let forward_to = forward_to.and_then(|_| fields.read("forwardTo", an_address));
                domain
                    .zip(forward_to)
                    .map(|(domain, forward_to)| Self { domain, forward_to })
            }
            Some(ReturnPathMode::Keep) | None => {
                for name in ["domain", "forwardTo"] {
                    if fields.is_given(name) {
                        fields.skip(name);
                        fields.problem(name, "has no use: mode is not ours");
                    }
                }
                None
            }
        };
        fields.close();
        own
    }

    fn spec(&self) -> Value {
        json!({
            "mode": super::word(&RETURN_PATH_MODES, ReturnPathMode::Ours),
            "domain": self.domain.as_str(),
            "forwardTo": self.forward_to.as_str(),
        })
    }
}

fn an_address(text: &str) -> Result<Address, String> {
    match Address::parse(text) {
        Ok(address) if address.domain().is_some() && !address.needs_smtputf8() => Ok(address),
        _ => Err("an address such as mail@acme.example is expected".to_owned()),
    }
}

impl DkimKey {
    fn spec(&self) -> Value {
        let mut spec = json!({
            "selector": self.selector,
            "algorithm": super::word(&ALGORITHMS, self.algorithm),
            "key": format!("file:{}", self.key.display()),
        });
        // With `replaces` it goes without saying.
        if let Some(selector) = &self.replaces {
            spec["replaces"] = json!(selector);
        } else if self.when_published {
            spec["whenPublished"] = json!(true);
        }
        spec
    }
}

/// As it stands in a link: in lower case, and without the port when it is that of https.
fn link_host(text: &str) -> Result<String, String> {
    let url: Option<HttpsUrl> = match text.contains(['/', '?']) {
        true => None,
        false => format!("https://{text}").parse().ok(),
    };
    url.map(|url| url.authority()).ok_or_else(|| {
        "a host such as u.acme.example is expected, with a port if needed".to_owned()
    })
}

fn read_life(spec: &Fields<'_>) -> Option<Span> {
    let life = spec.parsed("signaturesExpireAfter")?;
    if !(SHORTEST_LIFE..=LONGEST_LIFE).contains(&life) {
        let what = format!("1h to 365d is expected, found {life}");
        spec.problem("signaturesExpireAfter", what);
    }
    Some(life)
}

/// A key may replace one that stands above it, of its algorithm, which no other replaces.
fn check_replaced(fields: &Fields<'_>, key: &DkimKey, above: &[DkimKey]) {
    let Some(selector) = &key.replaces else {
        return;
    };
    let what = match above.iter().find(|other| other.selector == *selector) {
        None => format!("no key above this one has the selector {selector:?}"),
        Some(other) if other.algorithm != key.algorithm => {
            format!(
                "{selector} has another algorithm: it signs beside this key, and is not replaced"
            )
        }
        Some(_) => match above.iter().find(|other| other.replaces == key.replaces) {
            None => return,
            Some(other) => format!("{selector} is replaced by {} already", other.selector),
        },
    };
    fields.problem("replaces", what);
}

fn read_key(fields: &Fields<'_>) -> Option<DkimKey> {
    // Every field is read before the first missing one ends it, so that all are reported.
    let selector = fields.required_text("selector");
    let algorithm = fields.required_text("algorithm");
    let algorithm = algorithm.and_then(|_| fields.one_of("algorithm", &ALGORITHMS));
    let key = fields.required_text("key");
    let key = key.and_then(|_| fields.read_secret("key", read_file_reference));
    let replaces = fields.text("replaces").filter(|text| !text.is_empty());
    let when_published = fields.boolean("whenPublished");
    if replaces.is_some() && when_published == Some(false) {
        fields.problem(
            "whenPublished",
            "is false, and a key that replaces another waits for its DNS record",
        );
    }
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
        when_published: replaces.is_some() || when_published.unwrap_or(false),
        replaces: replaces.map(str::to_ascii_lowercase),
    })
}
