//! Kind Route.

use mail::{Domain, Span};
use serde_json::{Value, json};

use super::names::DomainMatch;
use super::retry::RetryPolicy;
use crate::Fields;

/// Which way mail goes, and for how long it is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Unique.
    pub name: String,
    /// What it is for.
    pub matches: RouteMatch,
    /// Name of the egress pool.
    pub pool: String,
    /// Port at the other side.
    pub port: u16,
    /// Whether the other side may have a private or loopback address.
    pub allow_private: bool,
    /// All of its mail goes to this host instead of the domain's MX hosts.
    pub smart_host: Option<Domain>,
    /// When a deferred delivery is tried again.
    pub retry: RetryPolicy,
    /// After this the remaining recipients expire.
    pub max_age: Span,
}

/// What a route is for; an empty list matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// Names of tenants.
    pub tenants: Vec<String>,
    /// Names of streams.
    pub streams: Vec<String>,
    /// Recipient domains.
    pub domains: Vec<DomainMatch>,
}

const DEFAULT_MAX_AGE: Span = Span::from_secs(5 * 86_400);

impl Route {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let matched = spec.map("match");
        let matches = RouteMatch {
            tenants: matched.read_list("tenants", |text| Ok(text.to_owned())),
            streams: matched.read_list("streams", |text| Ok(text.to_owned())),
            domains: matched.read_list("domains", DomainMatch::parse),
        };
        matched.close();
        let retry_fields = spec.map("retry");
        let retry = RetryPolicy::read(&retry_fields);
        retry_fields.close();
        let smart_host = spec.text("smartHost").filter(|text| !text.is_empty());
        let smart_host = smart_host.and_then(|_| spec.domain("smartHost"));
        let max_age = spec.parsed("maxAge").unwrap_or(DEFAULT_MAX_AGE);
        if !(Span::from_secs(1)..=Span::from_secs(30 * 86_400)).contains(&max_age) {
            spec.problem("maxAge", format!("1s to 30d is expected, found {max_age}"));
        }
        let port = spec.small_integer("port", 1..=65_535);
        let allow_private = spec.boolean("allowPrivate").unwrap_or(false);
        Some(Self {
            name: name.to_owned(),
            matches,
            pool: spec.required_text("pool")?.to_owned(),
            port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(25),
            allow_private,
            smart_host,
            retry,
            max_age,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let domains: Vec<String> = self
            .matches
            .domains
            .iter()
            .map(DomainMatch::to_string)
            .collect();
        let mut spec = json!({
            "match": { "tenants": self.matches.tenants, "streams": self.matches.streams, "domains": domains },
            "pool": self.pool,
            "port": self.port,
            "allowPrivate": self.allow_private,
            "retry": self.retry.spec(),
            "maxAge": self.max_age.to_string(),
        });
        if let Some(host) = &self.smart_host {
            spec["smartHost"] = json!(host.as_str());
        }
        spec
    }
}
