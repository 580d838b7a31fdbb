//! The whole configuration, validated.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::homes::homes;
use crate::index::Index;
use crate::references::{Entries, References};
use crate::resources::{Origin, Resource, read_document};
use crate::{
    AutomationSet, Credential, EgressPool, Kind, Node, Problem, Problems, Provider, Route, Scanner,
    SendingDomain, Shaping, ShapingExplanation, ShapingQuery, SharedShaping, Stream, Tenant,
    TokenIssuer, canonical,
};

/// The version of the JSON form.
const FORMAT: u64 = 1;

/// All resources of an installation: valid each, and together. Immutable; clones are cheap enough
/// for an `apply`, services share one in an `Arc`. Names and domains are compared as they are
/// stored: domains in lower case and A-labels (`mail::Domain`).
#[derive(Debug, Clone)]
pub struct Snapshot {
    entries: Entries,
    index: Index,
    hash: String,
}

/// What `merge` did to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// Kind of the resource.
    pub kind: Kind,
    /// Name of the resource.
    pub name: String,
}

/// What became of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Action {
    Created,
    Changed,
    Removed,
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Created => "created",
            Action::Changed => "changed",
            Action::Removed => "removed",
            Action::Unchanged => "unchanged",
        };
        write!(f, "{action} {}/{}", self.kind, self.name)
    }
}

/// Without any resource.
impl Default for Snapshot {
    fn default() -> Self {
        Self::build(Entries::new(), Index::build(std::iter::empty()))
    }
}

impl Snapshot {
    /// Reads YAML documents that are the whole configuration.
    pub fn from_documents(documents: &str) -> Result<Self, Vec<Problem>> {
        Self::default()
            .merge(documents, false)
            .map(|(snapshot, _)| snapshot)
    }

    /// Adds the resources of YAML documents to the present ones, and replaces those of the same kind
    /// and name. With `prune`, resources that the documents do not name are removed. Either the
    /// whole result is valid, or all problems are returned. Changes come in the order of kinds and
    /// names.
    pub fn merge(&self, documents: &str, prune: bool) -> Result<(Self, Vec<Change>), Vec<Problem>> {
        let nodes = Node::from_yaml(documents).map_err(|problem| vec![problem])?;
        if prune && nodes.is_empty() {
            let what = "there is no document: with prune everything would be removed".to_owned();
            return Err(vec![Problem {
                at: String::new(),
                line: None,
                what,
            }]);
        }
        let base = if prune {
            Entries::new()
        } else {
            self.entries.clone()
        };
        let merged = Self::merge_nodes(base, &nodes)?;
        let changes = changes(&self.entries, &merged.entries);
        Ok((merged, changes))
    }

    /// Reads what `to_json` wrote.
    pub fn from_json(json: &[u8]) -> Result<Self, Vec<Problem>> {
        let problem = |what: String| {
            vec![Problem {
                at: "snapshot".to_owned(),
                line: None,
                what,
            }]
        };
        let value: Value = serde_json::from_slice(json)
            .map_err(|error| problem(format!("not valid JSON: {error}")))?;
        if value.get("format") != Some(&json!(FORMAT)) {
            return Err(problem(format!(
                "format {FORMAT} is expected: the snapshot is of another release"
            )));
        }
        let Some(Value::Array(resources)) = value.get("resources") else {
            return Err(problem("a list of resources is expected".to_owned()));
        };
        let nodes: Vec<Node> = resources.iter().map(Node::from).collect();
        Self::merge_nodes(Entries::new(), &nodes)
    }

    /// The canonical JSON (RFC 8785): `{"format":1,"resources":[documents…]}`.
    pub fn to_json(&self) -> String {
        to_json(&self.entries)
    }

    /// SHA-256 of the canonical JSON, 64 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn merge_nodes(base: Entries, nodes: &[Node]) -> Result<Self, Vec<Problem>> {
        let problems = Problems::new();
        let mut entries = base;
        let mut origins: BTreeMap<(Kind, String), Origin> = BTreeMap::new();
        for (position, node) in nodes.iter().enumerate() {
            let Some(document) = read_document(position + 1, node, &problems) else {
                continue;
            };
            let key = (document.kind, document.name);
            if let Some(first) = origins.get(&key) {
                let what = format!("{} has the same kind and name", first.label);
                document.origin.problem(&problems, "metadata.name", what);
                continue;
            }
            match document.resource {
                Some(resource) => entries.insert(key.clone(), resource),
                None => entries.remove(&key),
            };
            origins.insert(key, document.origin);
        }
        References::check(&entries, &origins, &problems);
        let index = Index::build(entries.values());
        if problems.is_empty() {
            References::check_isolation(&entries, &origins, &problems, &index);
        }
        problems.none_or(()).map(|()| Self::build(entries, index))
    }

    fn build(entries: Entries, index: Index) -> Self {
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, to_json(&entries).as_bytes());
        let hash = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            entries,
            index,
            hash,
        }
    }
}

/// Look-ups; none allocates.
impl Snapshot {
    /// The tenant of this name.
    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.index.tenants.get(name)
    }

    /// A stream of a tenant.
    pub fn stream(&self, tenant: &str, stream: &str) -> Option<&Stream> {
        self.tenant(tenant)?.stream(stream)
    }

    /// The tenants whose mail leaves by each pool, as far as the routes say it; in the order of names. Not for each
    /// message: it goes through tenants and routes.
    pub fn homes(&self) -> BTreeMap<&str, Vec<&str>> {
        let homes = homes(&self.index).into_iter();
        homes
            .map(|(pool, tenants)| (pool, tenants.into_keys().collect()))
            .collect()
    }

    /// All tenants, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.index.tenants.values()
    }

    /// The scanner of this name.
    pub fn scanner(&self, name: &str) -> Option<&Arc<Scanner>> {
        self.index.scanners.get(name)
    }

    /// The credential of this name.
    pub fn credential(&self, name: &str) -> Option<&Arc<Credential>> {
        self.index.credentials.get(name)
    }

    /// All credentials, in no order.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.index.credentials.values()
    }

    /// The credential with this user name.
    pub fn credential_by_username(&self, username: &str) -> Option<&Arc<Credential>> {
        self.index.credential_by_username(username)
    }

    /// The credential of clients whose certificate has this DNS name (lower case).
    pub fn credential_by_certificate(&self, name: &str) -> Option<&Arc<Credential>> {
        self.index.credential_by_certificate(name)
    }

    /// Whether any credential has tokens.
    pub fn takes_tokens(&self) -> bool {
        !self.index.by_token.is_empty()
    }

    /// The issuer of tokens that say this `iss`.
    pub fn token_issuer(&self, iss: &str) -> Option<&Arc<TokenIssuer>> {
        self.index.token_issuers.get(iss)
    }

    /// All issuers of tokens, in no order.
    pub fn token_issuers(&self) -> impl Iterator<Item = &Arc<TokenIssuer>> {
        self.index.token_issuers.values()
    }

    /// The credential of tokens about this subject; `issuer` is the name of a [`TokenIssuer`].
    pub fn credential_by_token(&self, issuer: &str, subject: &str) -> Option<&Arc<Credential>> {
        self.index.by_token.get(issuer)?.get(subject)
    }

    /// The credential that clients at `address` have without AUTH: that of the longest prefix.
    /// An IPv4-mapped address counts as the IPv4 address.
    pub fn credential_for_network(&self, address: IpAddr) -> Option<&Arc<Credential>> {
        self.index.credential_for_network(address)
    }

    /// The sending domain `domain`, or the nearest one above it that includes its subdomains.
    pub fn sending_domain(&self, domain: &str) -> Option<&Arc<SendingDomain>> {
        self.index.sending_domain(domain)
    }

    /// The sending domain, or one of them, whose return paths of ours are addresses of `domain`.
    pub fn return_domain(&self, domain: &str) -> Option<&Arc<SendingDomain>> {
        self.index.by_return_domain.get(domain)
    }

    /// All sending domains, in no order.
    pub fn sending_domains(&self) -> impl Iterator<Item = &Arc<SendingDomain>> {
        self.index.sending_domains.values()
    }

    /// The egress pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Arc<EgressPool>> {
        self.index.pools.get(name)
    }

    /// All egress pools, in no order.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<EgressPool>> {
        self.index.pools.values()
    }

    /// The most specific route: by domain, then by stream, then by tenant. A recipient domain that
    /// is an address literal is matched only by routes for any domain.
    pub fn route(&self, tenant: &str, stream: &str, domain: &str) -> Option<&Arc<Route>> {
        self.index.route(tenant, stream, domain)
    }

    /// All routes, by name.
    pub fn routes(&self) -> &[Arc<Route>] {
        self.index.routes()
    }

    /// The provider of mail to a domain at a site.
    pub fn provider(&self, site: &str, domain: &str) -> Option<&Arc<Provider>> {
        self.index.shaping.provider(site, domain)
    }

    /// The shaping of a lane: each field from the most specific rule that sets it (by source, then
    /// domain, site, provider, stream and pool), else the default. Looks at every rule: keep the
    /// result with the lane.
    pub fn shaping(&self, lane: &ShapingQuery<'_>) -> Shaping {
        self.index.shaping.shaping(lane)
    }

    /// What all lanes of a source to the sites of a provider share: [`Shaping::shared`] of each of
    /// them.
    pub fn shared_shaping(&self, source: &str, provider: &str) -> SharedShaping {
        self.index.shaping.shared(source, provider)
    }

    /// As [`Snapshot::shaping`], with the rule that each field comes from.
    pub fn explain_shaping(&self, lane: &ShapingQuery<'_>) -> ShapingExplanation {
        self.index.shaping.explain(lane)
    }

    /// What is done about replies, shipped rules included; by name.
    pub fn automation(&self) -> &[Arc<AutomationSet>] {
        &self.index.automation
    }

    /// Names the rules that make mail of this domain, stream or pool a lane of its own beside the
    /// others of its source and site; `None` = it goes in the lane that they share. The same for
    /// all mail for which the same rules hold, in every process. Does not look at the source.
    pub fn lane_class(&self, lane: &ShapingQuery<'_>) -> Option<String> {
        self.index.shaping.class(lane)
    }
}

fn to_json(entries: &Entries) -> String {
    let resources: Vec<Value> = entries.values().map(Resource::document).collect();
    canonical::write(&json!({ "format": FORMAT, "resources": resources }))
}

fn changes(before: &Entries, after: &Entries) -> Vec<Change> {
    let mut actions: BTreeMap<&(Kind, String), Action> = BTreeMap::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        actions.insert(key, Action::Removed);
    }
    for (key, resource) in after {
        let action = match before.get(key) {
            None => Action::Created,
            Some(present) if present == resource => Action::Unchanged,
            Some(_) => Action::Changed,
        };
        actions.insert(key, action);
    }
    actions
        .into_iter()
        .map(|((kind, name), action)| Change {
            action,
            kind: *kind,
            name: name.clone(),
        })
        .collect()
}
