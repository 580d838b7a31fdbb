//! Kind Webhook.

use std::path::PathBuf;

use mail::{Span, WebUrl};
use serde_json::{Value, json};

use super::credential::read_file_reference;
use crate::Fields;

/// Where events are posted to as they happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Unique.
    pub name: String,
    /// Whose events; `None` = those of all tenants, and those that are of none.
    pub tenant: Option<String>,
    /// The endpoint.
    pub url: WebUrl,
    /// Files with `whsec_…`, each. Posts are signed with all of them, so that one can be replaced by another.
    pub secrets: Vec<PathBuf>,
    /// Types of the events, as in [`EVENT_TYPES`]; empty = all.
    pub events: Vec<String>,
    /// Streams of the tenant; empty = all, and what is of none.
    pub streams: Vec<String>,
    /// Events in one post at most.
    pub batch: usize,
    /// The first event of a post waits so long for others.
    pub linger: Span,
    /// For one post, from the name's resolution to the answer.
    pub timeout: Span,
    /// Events that are not accepted are given up when they are so old.
    pub max_age: Span,
    /// Addresses that are not public are posted to.
    pub allow_private: bool,
    /// The URL may be `http`.
    pub allow_http: bool,
    /// PEM file with the authorities of the server's certificate; `None` = those of the system.
    pub authorities: Option<PathBuf>,
    /// Nothing is posted; events wait as long as the journals keep them.
    pub disabled: bool,
}

/// The types of events, as they are called in JSON.
pub const EVENT_TYPES: [&str; 36] = [
    "AdminAction",
    "Attempt",
    "Automation",
    "Bounce",
    "Cancellation",
    "Claim",
    "Complaint",
    "CredentialMeasure",
    "CredentialNoticed",
    "Deferral",
    "Delivery",
    "DomainChecked",
    "DsnSpooled",
    "Expiration",
    "HoldExpired",
    "InDoubt",
    "Late",
    "LoginFailed",
    "LoginsBlocked",
    "Moved",
    "OutOfBandBounce",
    "Preflight",
    "Quarantined",
    "Reception",
    "Rejection",
    "Released",
    "Rescheduled",
    "Resubmission",
    "Returned",
    "Suppression",
    "SuppressionChanged",
    "TenantMoved",
    "TlsSessions",
    "Unknown",
    "Unsubscribe",
    "WebhookGivenUp",
];

const MOST_SECRETS: usize = 4;
const BATCH: usize = 100;
const LINGER: Span = Span::from_secs(1);
const TIMEOUT: Span = Span::from_secs(15);
const MAX_AGE: Span = Span::from_secs(3 * 86_400);

impl Webhook {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        // Every field is read before the first missing one ends it, so that all are reported.
        let tenant = spec.text("tenant").map(str::to_owned);
        let url: Option<WebUrl> = spec.required_text("url").and_then(|_| spec.parsed("url"));
        let allow_http = spec.boolean("allowHttp").unwrap_or(false);
        if url.as_ref().is_some_and(WebUrl::is_plain) && !allow_http {
            spec.problem(
                "url",
                "is http: anybody on the way could read it; https is expected, or allowHttp: true",
            );
        }
        let secrets = spec.read_list("secrets", read_file_reference);
        if !spec.is_given("secrets") {
            spec.problem(
                "secrets",
                "is missing: nobody could tell whose posts they are",
            );
        } else if spec.is_empty_list("secrets") || secrets.len() > MOST_SECRETS {
            spec.problem("secrets", format!("1 to {MOST_SECRETS} are expected"));
        }
        let events = spec.read_list("events", read_event);
        let streams: Vec<String> = spec.read_list("streams", |text| Ok(text.to_owned()));
        if !streams.is_empty() && tenant.is_none() {
            spec.problem("streams", "are of a tenant, and none is given");
        }
        let batch = spec.small_integer("batch", 1..=1_000);
        let linger = bounded(spec, "linger", "0", "1m", 0..=60_000).unwrap_or(LINGER);
        let timeout = bounded(spec, "timeout", "1s", "1m", 1_000..=60_000).unwrap_or(TIMEOUT);
        let max_age = bounded(spec, "maxAge", "1m", "30d", 60_000..=2_592_000_000);
        let allow_private = spec.boolean("allowPrivate").unwrap_or(false);
        let authorities = spec.read("authorities", read_file_reference);
        let disabled = spec.boolean("disabled").unwrap_or(false);
        Some(Self {
            name: name.to_owned(),
            tenant,
            url: url?,
            secrets,
            events,
            streams,
            batch: batch.map_or(BATCH, |batch| batch as usize),
            linger,
            timeout,
            max_age: max_age.unwrap_or(MAX_AGE),
            allow_private,
            allow_http,
            authorities,
            disabled,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let file = |path: &PathBuf| json!(format!("file:{}", path.display()));
        let mut spec = json!({
            "url": self.url.to_string(),
            "secrets": self.secrets.iter().map(file).collect::<Vec<_>>(),
            "batch": self.batch,
            "linger": self.linger.to_string(),
            "timeout": self.timeout.to_string(),
            "maxAge": self.max_age.to_string(),
            "allowPrivate": self.allow_private,
            "allowHttp": self.allow_http,
            "disabled": self.disabled,
        });
        if let Some(tenant) = &self.tenant {
            spec["tenant"] = json!(tenant);
        }
        if !self.events.is_empty() {
            spec["events"] = json!(self.events);
        }
        if !self.streams.is_empty() {
            spec["streams"] = json!(self.streams);
        }
        if let Some(authorities) = &self.authorities {
            spec["authorities"] = file(authorities);
        }
        spec
    }
}

fn read_event(text: &str) -> Result<String, String> {
    match EVENT_TYPES.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err("a type of events such as Delivery or Bounce is expected".to_owned()),
    }
}

fn bounded(
    spec: &Fields<'_>,
    name: &'static str,
    least: &str,
    most: &str,
    milliseconds: std::ops::RangeInclusive<u64>,
) -> Option<Span> {
    let span: Span = spec.parsed(name)?;
    if !milliseconds.contains(&span.as_millis()) {
        spec.problem(name, format!("{least} to {most} is expected, found {span}"));
        return None;
    }
    Some(span)
}
