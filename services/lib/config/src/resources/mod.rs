//! The kinds of resource documents.

mod allowance;
mod automation;
mod credential;
mod egress_pool;
mod egress_source;
mod foreign_senders;
mod headers;
mod names;
mod preflight;
mod provider;
mod retry;
mod route;
mod scanner;
mod scram_keys;
mod sending_domain;
mod shaping;
mod tenant;
mod token_issuer;
mod watch;
mod window;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{Fields, Node, Problems};

pub use allowance::{Allowance, OverQuota, Quota, QuotaError, SizeLimit};
pub use automation::{Action, AutomationRule, AutomationSet, ReplyMatch, Scope, TextPattern};
pub use credential::{Credential, Login, PasswordHash, TokenSubject};
pub use egress_pool::{EgressPool, Probation, Sticky};
pub use egress_source::{
    AddressFamily, AuthMechanism, AuthOver, ClientCertificate, EgressProxy, EgressSource,
    ProxyProtocol, SmartHost, SmartHostAuth, SmartHostTls,
};
pub use foreign_senders::{ForeignSenders, LongReturnPath, ReturnPath};
pub use headers::{Headers, UriTemplate, UriValues};
pub use names::DomainMatch;
pub use preflight::{
    Check, CheckAction, CheckRule, LongLines, Preflight, Repair, WordList, WordText,
};
pub use provider::Provider;
pub use retry::{AskedWait, RetryClass, RetryPolicy, RetrySchedule, RetryWaits};
pub use route::{Route, RouteMatch};
pub use scanner::{
    Engine, Scanner, ScannerAddress, ScannerAddressError, Spam, WhenDown, WhenTooLarge,
};
pub use scram_keys::{ScramKeys, ScramKeysError};
pub use sending_domain::{DkimAlgorithm, DkimKey, OwnReturnPath, SendingDomain, WithoutKey};
pub use shaping::{
    Shaping, ShapingMatch, ShapingQuery, ShapingRule, ShapingScope, ShapingSet, SharedShaping,
    TlsPolicy,
};
pub use tenant::{HoldEnd, InDoubt, Mode, Priority, Stream, Tenant};
pub use token_issuer::{TokenAlgorithm, TokenIssuer, TokenKeys};
pub use watch::{SignalRule, Signals, Watch};
pub use window::{OpenHours, Timing, Window};

pub(crate) use shaping::hosts_of;

/// The version of all kinds.
pub const API_VERSION: &str = "staffetta.dev/v1alpha1";

/// The kinds, in the order in which they refer to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the kind of the type of the same name")]
pub enum Kind {
    Scanner,
    Tenant,
    TokenIssuer,
    Credential,
    SendingDomain,
    EgressPool,
    Route,
    Provider,
    Shaping,
    Automation,
}

const KINDS: [(&str, Kind); 10] = [
    ("Scanner", Kind::Scanner),
    ("Tenant", Kind::Tenant),
    ("TokenIssuer", Kind::TokenIssuer),
    ("Credential", Kind::Credential),
    ("SendingDomain", Kind::SendingDomain),
    ("EgressPool", Kind::EgressPool),
    ("Route", Kind::Route),
    ("Provider", Kind::Provider),
    ("Shaping", Kind::Shaping),
    ("Automation", Kind::Automation),
];

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(word(&KINDS, *self))
    }
}

/// One validated resource; references to others are not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    Scanner(Arc<Scanner>),
    Tenant(Arc<Tenant>),
    TokenIssuer(Arc<TokenIssuer>),
    Credential(Arc<Credential>),
    SendingDomain(Arc<SendingDomain>),
    EgressPool(Arc<EgressPool>),
    Route(Arc<Route>),
    Provider(Arc<Provider>),
    Shaping(Arc<ShapingSet>),
    Automation(Arc<AutomationSet>),
}

impl Resource {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Scanner(_) => Kind::Scanner,
            Self::Tenant(_) => Kind::Tenant,
            Self::TokenIssuer(_) => Kind::TokenIssuer,
            Self::Credential(_) => Kind::Credential,
            Self::SendingDomain(_) => Kind::SendingDomain,
            Self::EgressPool(_) => Kind::EgressPool,
            Self::Route(_) => Kind::Route,
            Self::Provider(_) => Kind::Provider,
            Self::Shaping(_) => Kind::Shaping,
            Self::Automation(_) => Kind::Automation,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Scanner(scanner) => &scanner.name,
            Self::Tenant(tenant) => &tenant.name,
            Self::TokenIssuer(issuer) => &issuer.name,
            Self::Credential(credential) => &credential.name,
            Self::SendingDomain(domain) => domain.domain.as_str(),
            Self::EgressPool(pool) => &pool.name,
            Self::Route(route) => &route.name,
            Self::Provider(provider) => &provider.name,
            Self::Shaping(set) => &set.name,
            Self::Automation(set) => &set.name,
        }
    }

    /// The resource as a document, every field that has a value written out.
    pub(crate) fn document(&self) -> Value {
        let spec = match self {
            Self::Scanner(scanner) => scanner.spec(),
            Self::Tenant(tenant) => tenant.spec(),
            Self::TokenIssuer(issuer) => issuer.spec(),
            Self::Credential(credential) => credential.spec(),
            Self::SendingDomain(domain) => domain.spec(),
            Self::EgressPool(pool) => pool.spec(),
            Self::Route(route) => route.spec(),
            Self::Provider(provider) => provider.spec(),
            Self::Shaping(set) => set.spec(),
            Self::Automation(set) => set.spec(),
        };
        json!({
            "apiVersion": API_VERSION,
            "kind": self.kind().to_string(),
            "metadata": { "name": self.name() },
            "spec": spec,
        })
    }
}

/// Where a resource was read, for problems that show only when all are there.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// `doc 3 Credential/acme-app`, or `Credential/acme-app` when it was there before.
    pub(crate) label: String,
    /// The document, unless it was there before.
    pub(crate) node: Option<Node>,
}

impl Origin {
    /// Of a resource that was there before.
    pub(crate) fn present(kind: Kind, name: &str) -> Self {
        Self {
            label: format!("{kind}/{name}"),
            node: None,
        }
    }

    /// Reports a problem of the field at `path`.
    pub(crate) fn problem(&self, problems: &Problems, path: &str, what: String) {
        let line = self.node.as_ref().and_then(|node| node.line_at(path));
        problems.add(format!("{} {path}", self.label).trim_end(), line, what);
    }
}

/// A document that has a kind and a name.
pub(crate) struct Document {
    pub(crate) kind: Kind,
    /// As the resource's name: a domain in the form of DNS.
    pub(crate) name: String,
    /// `None` when it lacks what the kind cannot be without.
    pub(crate) resource: Option<Resource>,
    pub(crate) origin: Origin,
}

/// Reads one document; `number` counts from 1. Every problem is reported.
pub(crate) fn read_document(number: usize, node: &Node, problems: &Problems) -> Option<Document> {
    let bare = format!("doc {number}");
    let fields = Fields::open(&bare, "", node, problems);
    let kind = fields
        .required_text("kind")
        .and_then(|_| fields.one_of("kind", &KINDS));
    let metadata_unlabelled = fields.map("metadata");
    let name = metadata_unlabelled.required_text("name");
    let (kind, name) = (kind?, name?);

    let origin = Origin {
        label: format!(
            "{bare} {kind}/{}",
            name.chars().take(80).collect::<String>()
        ),
        node: Some(node.clone()),
    };
    let fields = Fields::open(&origin.label, "", node, problems);
    if let Some(version) = fields.required_text("apiVersion")
        && version != API_VERSION
    {
        fields.problem(
            "apiVersion",
            format!("{API_VERSION} is expected, found {version:?}"),
        );
    }
    fields.skip("kind");
    let metadata = fields.map("metadata");
    metadata.skip("name");
    if kind != Kind::SendingDomain && !names::is_label(name) {
        metadata.problem("name", format!("{}, found {name:?}", names::LABEL_FORM));
    }
    let spec = fields.map("spec");
    let resource = match kind {
        Kind::Scanner => Scanner::read(name, &spec).map(|read| Resource::Scanner(Arc::new(read))),
        Kind::Tenant => Tenant::read(name, &spec).map(|read| Resource::Tenant(Arc::new(read))),
        Kind::TokenIssuer => {
            TokenIssuer::read(name, &spec).map(|read| Resource::TokenIssuer(Arc::new(read)))
        }
        Kind::Credential => {
            Credential::read(name, &spec).map(|read| Resource::Credential(Arc::new(read)))
        }
        Kind::SendingDomain => SendingDomain::read(name, &metadata, &spec)
            .map(|read| Resource::SendingDomain(Arc::new(read))),
        Kind::EgressPool => {
            EgressPool::read(name, &spec).map(|read| Resource::EgressPool(Arc::new(read)))
        }
        Kind::Route => Route::read(name, &spec).map(|read| Resource::Route(Arc::new(read))),
        Kind::Provider => {
            Provider::read(name, &spec).map(|read| Resource::Provider(Arc::new(read)))
        }
        Kind::Shaping => {
            ShapingSet::read(name, &spec).map(|read| Resource::Shaping(Arc::new(read)))
        }
        Kind::Automation => {
            AutomationSet::read(name, &spec).map(|read| Resource::Automation(Arc::new(read)))
        }
    };
    spec.close();
    metadata.close();
    fields.close();
    let name = resource.as_ref().map_or(name, Resource::name).to_owned();
    Some(Document {
        kind,
        name,
        resource,
        origin,
    })
}

/// The word for a value of a table of words.
fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words
        .iter()
        .find(|(_, candidate)| *candidate == value)
        .map_or("", |(word, _)| word)
}
