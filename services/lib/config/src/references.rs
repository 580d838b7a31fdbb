//! What can be checked only when all resources are there: references, names that must be unique
//! among several resources, and rules that tie.

mod forwarding;
mod isolation;
mod returning;
mod signing;
mod tokens;

use std::collections::{BTreeMap, HashMap};

use mail::Address;

use crate::resources::{Origin, Resource};
use crate::shaping_rules::ShapingRules;
use crate::{
    Credential, DomainMatch, Kind, Problems, Provider, Route, ShapingMatch, ShapingScope, Tenant,
    index, shipped,
};

/// All resources by kind and name.
pub(crate) type Entries = BTreeMap<(Kind, String), Resource>;

pub(crate) struct References<'a> {
    entries: &'a Entries,
    origins: &'a BTreeMap<(Kind, String), Origin>,
    problems: &'a Problems,
}

impl<'a> References<'a> {
    /// Reports everything. `origins` holds the documents that were just read; one that is not among
    /// the entries could not be understood, which is reported already, so that what refers to it is
    /// not reported too.
    pub(crate) fn check(
        entries: &'a Entries,
        origins: &'a BTreeMap<(Kind, String), Origin>,
        problems: &'a Problems,
    ) {
        let references = Self {
            entries,
            origins,
            problems,
        };
        for resource in entries.values() {
            references.check_resource(resource);
        }
        references.check_logins_and_networks();
        references.check_tokens();
        references.check_sources();
        references.check_providers_for_ties();
        references.check_routes_for_ties();
        references.check_shaping_for_ties();
    }

    fn check_resource(&self, resource: &Resource) {
        match resource {
            Resource::Scanner(_) | Resource::TokenIssuer(_) | Resource::Provider(_) => {}
            Resource::Tenant(tenant) => {
                self.check_complaint_addresses(resource, tenant);
                self.check_link_hosts(resource, tenant);
                self.check_scanners(resource, tenant);
            }
            Resource::EgressPool(pool) => self.check_pool(resource, pool),
            Resource::SendingDomain(domain) => {
                self.check_name(resource, "spec.tenant", Kind::Tenant, &domain.tenant);
                self.check_return_path(resource, domain);
                if let Some(stream) = &domain.stream {
                    self.check_stream(resource, "spec.stream", &domain.tenant, stream);
                }
                self.check_service_domain(resource, domain);
            }
            Resource::Credential(credential) => self.check_credential(resource, credential),
            Resource::Route(route) => self.check_route(resource, route),
            Resource::Shaping(set) => {
                self.check_matches(resource, set.rules.iter().map(|rule| &rule.matches));
            }
            Resource::Automation(set) => {
                self.check_matches(resource, set.rules.iter().map(|rule| &rule.matches));
            }
        }
    }

    fn check_scanners(&self, resource: &Resource, tenant: &Tenant) {
        let of_streams = tenant.streams.iter().enumerate().map(|(index, stream)| {
            let path = format!("spec.streams[{index}].scanners");
            (path, stream.scanners.as_deref().unwrap_or_default())
        });
        let of_tenant = ("spec.scanners".to_owned(), tenant.scanners.as_slice());
        for (path, names) in std::iter::once(of_tenant).chain(of_streams) {
            for (index, name) in names.iter().enumerate() {
                let path = format!("{path}[{index}]");
                self.check_name(resource, &path, Kind::Scanner, name);
            }
        }
    }

    fn check_credential(&self, resource: &Resource, credential: &Credential) {
        self.check_name(resource, "spec.tenant", Kind::Tenant, &credential.tenant);
        let tenant = &credential.tenant;
        if let Some(stream) = &credential.stream {
            self.check_stream(resource, "spec.stream", tenant, stream);
        }
        for (index, stream) in credential.may_choose.iter().flatten().enumerate() {
            self.check_stream(
                resource,
                &format!("spec.mayChoose[{index}]"),
                tenant,
                stream,
            );
        }
        self.check_foreign_senders(resource, credential);
    }

    /// Reports a stream that the tenant does not have.
    fn check_stream(&self, resource: &Resource, path: &str, tenant: &str, stream: &str) {
        let tenant = (Kind::Tenant, tenant.to_owned());
        if let Some(Resource::Tenant(tenant)) = self.entries.get(&tenant)
            && tenant.stream(stream).is_none()
        {
            let streams = tenant.streams.iter().map(|stream| stream.name.as_str());
            let what = format!(
                "the tenant {} has no stream named {stream:?}; {}",
                tenant.name,
                known(streams)
            );
            self.report(resource, path, what);
        }
    }

    /// Reports addresses for complaints that no signature of the tenant's own domains would speak for (RFC 9477
    /// section 3.1).
    fn check_complaint_addresses(&self, resource: &Resource, tenant: &Tenant) {
        if self.some_unreadable(Kind::SendingDomain) {
            return;
        }
        for (index, stream) in tenant.streams.iter().enumerate() {
            let address = stream
                .headers
                .as_ref()
                .and_then(|headers| headers.cfbl_address.as_ref());
            let Some(domain) = address.and_then(Address::domain) else {
                continue;
            };
            let is_own = self.entries.values().any(|entry| match entry {
                Resource::SendingDomain(own) => own.tenant == tenant.name && own.includes(&domain),
                _ => false,
            });
            if !is_own {
                let path = format!("spec.streams[{index}].headers.cfblAddress");
                let what = format!(
                    "{domain} is no SendingDomain of the tenant: its mail is not signed for it"
                );
                self.report(resource, &path, what);
            }
        }
    }

    /// Reports links that would lead nowhere.
    fn check_link_hosts(&self, resource: &Resource, tenant: &Tenant) {
        let has_host = self.entries.values().any(|entry| match entry {
            Resource::SendingDomain(own) => own.tenant == tenant.name && own.link_host.is_some(),
            _ => false,
        });
        if has_host || self.some_unreadable(Kind::SendingDomain) {
            return;
        }
        for (index, stream) in tenant.streams.iter().enumerate() {
            let headers = stream.headers.as_ref();
            if headers.is_some_and(|headers| headers.unsubscribe.is_some()) {
                let path = format!("spec.streams[{index}].headers.unsubscribe");
                let what = "no SendingDomain of the tenant has a linkHost: there would be no links";
                self.report(resource, &path, what.to_owned());
            }
        }
    }

    fn check_route(&self, resource: &Resource, route: &Route) {
        self.check_name(resource, "spec.pool", Kind::EgressPool, &route.pool);
        let pool = self.entries.get(&(Kind::EgressPool, route.pool.clone()));
        if let (Some(_), Some(Resource::EgressPool(pool))) = (&route.smart_host, pool)
            && let Some(source) = pool
                .sources
                .iter()
                .find(|source| source.smart_host.is_some())
        {
            let what = format!(
                "EgressPool/{} has a source with a smart host of its own ({})",
                pool.name, source.name
            );
            self.report(resource, "spec.smartHost", what);
        }
        for (index, tenant) in route.matches.tenants.iter().enumerate() {
            let path = format!("spec.match.tenants[{index}]");
            self.check_name(resource, &path, Kind::Tenant, tenant);
        }
        let named = |tenant: &str| {
            let tenants = &route.matches.tenants;
            tenants.is_empty() || tenants.iter().any(|name| name == tenant)
        };
        let mut streams: Vec<&str> = Vec::new();
        for entry in self.entries.values() {
            if let Resource::Tenant(tenant) = entry
                && named(&tenant.name)
            {
                streams.extend(tenant.streams.iter().map(|stream| stream.name.as_str()));
            }
        }
        streams.sort_unstable();
        streams.dedup();
        if self.some_unreadable(Kind::Tenant) {
            return;
        }
        for (index, stream) in route.matches.streams.iter().enumerate() {
            if !streams.contains(&stream.as_str()) {
                let path = format!("spec.match.streams[{index}]");
                let what = format!(
                    "no matched tenant has a stream named {stream:?}; {}",
                    known(streams.iter().copied())
                );
                self.report(resource, &path, what);
            }
        }
    }

    fn check_matches<'m>(
        &self,
        resource: &Resource,
        matches: impl Iterator<Item = &'m ShapingMatch>,
    ) {
        for (index, matches) in matches.enumerate() {
            if let Some(pool) = &matches.pool {
                let path = format!("spec.rules[{index}].match.pool");
                self.check_name(resource, &path, Kind::EgressPool, pool);
            }
            if let Some(source) = &matches.source {
                let mut sources: Vec<&str> = self
                    .sources()
                    .map(|(_, _, source)| source.name.as_str())
                    .collect();
                sources.sort_unstable();
                sources.dedup();
                if !sources.contains(&source.as_str()) && !self.some_unreadable(Kind::EgressPool) {
                    let path = format!("spec.rules[{index}].match.source");
                    let what = format!(
                        "no egress source named {source:?}; {}",
                        known(sources.iter().copied())
                    );
                    self.report(resource, &path, what);
                }
            }
            let path = format!("spec.rules[{index}].match");
            self.check_shaping_match(resource, &path, matches);
        }
    }

    /// Names that are not there, and matches that nothing can fit.
    fn check_shaping_match(&self, resource: &Resource, path: &str, matches: &ShapingMatch) {
        if let (Some(source), Some(pool)) = (&matches.source, &matches.pool)
            && let Some(Resource::EgressPool(found)) =
                self.entries.get(&(Kind::EgressPool, pool.clone()))
            && found.sources.iter().all(|present| present.name != *source)
            && self
                .sources()
                .any(|(_, _, present)| present.name == *source)
        {
            let what = format!("never matches: the pool {pool} has no source {source}");
            self.report(resource, path, what);
        }
        if let Some(stream) = &matches.stream {
            let mut streams: Vec<&str> = self.streams().collect();
            streams.sort_unstable();
            streams.dedup();
            if !streams.contains(&stream.as_str()) && !self.some_unreadable(Kind::Tenant) {
                let what = format!(
                    "no tenant has a stream named {stream:?}; {}",
                    known(streams.iter().copied())
                );
                self.report(resource, &format!("{path}.stream"), what);
            }
        }
        let Some(name) = &matches.provider else {
            return;
        };
        let Some(provider) = self.provider(name) else {
            if !self.some_unreadable(Kind::Provider) {
                let mut names: Vec<&str> = self.providers().map(|(_, of)| &*of.name).collect();
                names.sort_unstable();
                let what = format!("no Provider named {name:?}; {}", known(names.into_iter()));
                self.report(resource, &format!("{path}.provider"), what);
            }
            return;
        };
        if provider.disabled {
            let what = format!("never matches: Provider/{name} is disabled");
            self.report(resource, path, what);
        } else if let Some(site) = &matches.site
            && !ShapingRules::can_be_at(provider, site)
        {
            let what = format!("never matches: no MX host of Provider/{name} fits {site}");
            self.report(resource, path, what);
        }
    }

    fn streams(&self) -> impl Iterator<Item = &'a str> {
        self.entries.values().flat_map(|entry| {
            let streams = match entry {
                Resource::Tenant(tenant) => tenant.streams.as_slice(),
                _ => &[],
            };
            streams.iter().map(|stream| stream.name.as_str())
        })
    }

    /// The installation's providers, then the shipped ones that they do not replace.
    fn providers(&self) -> impl Iterator<Item = (&'a Resource, &'a Provider)> {
        let is_own = |name: &str| {
            self.entries
                .contains_key(&(Kind::Provider, name.to_owned()))
        };
        let shipped: Vec<&'a Resource> = shipped::resources()
            .filter(move |shipped| !is_own(shipped.name()))
            .collect();
        let all = self.entries.values().chain(shipped);
        all.filter_map(|entry| match entry {
            Resource::Provider(provider) => Some((entry, &**provider)),
            _ => None,
        })
    }

    fn provider(&self, name: &str) -> Option<&'a Provider> {
        let mut named = self.providers().filter(|(_, of)| of.name == name);
        named.next().map(|(_, provider)| provider)
    }

    /// Two own providers with the same host or domain: which has it would depend on their names.
    fn check_providers_for_ties(&self) {
        let mut seen: HashMap<(&str, &DomainMatch), &str> = HashMap::new();
        for resource in self.entries.values() {
            let Resource::Provider(provider) = resource else {
                continue;
            };
            let mx = provider.mx.iter().map(|entry| ("mx", entry));
            let domains = provider.domains.iter().map(|entry| ("domains", entry));
            for (list, entry) in mx.chain(domains).filter(|_| !provider.disabled) {
                if let Some(other) = seen.insert((list, entry), &provider.name) {
                    let what = if other == provider.name {
                        format!("names {entry} twice")
                    } else {
                        format!("Provider/{other} has {entry} too")
                    };
                    self.report(resource, &format!("spec.{list}"), what);
                }
            }
        }
    }

    fn check_logins_and_networks(&self) {
        let mut usernames: HashMap<&str, &str> = HashMap::new();
        let mut networks: HashMap<ipnet::IpNet, &str> = HashMap::new();
        let mut certificates: HashMap<&str, &str> = HashMap::new();
        for resource in self.entries.values() {
            let Resource::Credential(credential) = resource else {
                continue;
            };
            if let Some(login) = &credential.login
                && let Some(other) = usernames.insert(&login.username, &credential.name)
            {
                self.report(
                    resource,
                    "spec.username",
                    format!("Credential/{other} has the same"),
                );
            }
            for (index, name) in credential.certificates.iter().enumerate() {
                if let Some(other) = certificates.insert(name, &credential.name) {
                    let path = format!("spec.certificates[{index}]");
                    let what = format!("Credential/{other} has the same name {name}");
                    self.report(resource, &path, what);
                }
            }
            for (index, network) in credential.networks.iter().enumerate() {
                if let Some(other) = networks.insert(*network, &credential.name) {
                    let path = format!("spec.networks[{index}]");
                    self.report(
                        resource,
                        &path,
                        format!("Credential/{other} has the same network {network}"),
                    );
                }
            }
        }
    }

    fn check_sources(&self) {
        let mut first: HashMap<&str, (&Resource, &crate::EgressSource)> = HashMap::new();
        for (resource, index, source) in self.sources() {
            let Some((other_pool, other)) = first.insert(&source.name, (resource, source)) else {
                continue;
            };
            if !other.is_same(source) {
                let path = format!("spec.sources[{index}]");
                let what = format!(
                    "EgressPool/{} has a source named {:?} that is not the same in all but its weight",
                    other_pool.name(),
                    source.name
                );
                self.report(resource, &path, what);
            }
        }
    }

    fn sources(&self) -> impl Iterator<Item = (&'a Resource, usize, &'a crate::EgressSource)> {
        self.entries.values().flat_map(|resource| {
            let sources = match resource {
                Resource::EgressPool(pool) => pool.sources.as_slice(),
                _ => &[],
            };
            sources
                .iter()
                .enumerate()
                .map(move |(index, source)| (resource, index, source))
        })
    }

    /// Two routes tie when both match some mail and neither is more specific for it.
    fn check_routes_for_ties(&self) {
        let mut by_domain: HashMap<Option<&crate::DomainMatch>, Vec<(&Resource, &Route)>> =
            HashMap::new();
        for resource in self.entries.values() {
            let Resource::Route(route) = resource else {
                continue;
            };
            let mut domains: Vec<Option<&crate::DomainMatch>> =
                route.matches.domains.iter().map(Some).collect();
            if domains.is_empty() {
                domains.push(None);
            }
            for domain in domains {
                let others = by_domain.entry(domain).or_default();
                let tie = others.iter().find(|(_, other)| {
                    index::specificity(other) == index::specificity(route) && overlap(route, other)
                });
                if let Some((_, other)) = tie {
                    let of = domain.map_or("any domain".to_owned(), ToString::to_string);
                    let what = if other.name == route.name {
                        format!("names {of} twice")
                    } else {
                        format!(
                            "ties with Route/{} for mail to {of}: neither is more specific",
                            other.name
                        )
                    };
                    self.report(resource, "spec.match", what);
                }
                others.push((resource, route));
            }
        }
    }

    /// Two rules tie when they have the same match and set the same field.
    fn check_shaping_for_ties(&self) {
        // Resource, rule and the fields that it sets.
        type Seen<'s> = (&'s str, usize, Vec<&'static str>);
        let mut by_match: HashMap<(&ShapingMatch, ShapingScope), Vec<Seen<'_>>> = HashMap::new();
        for resource in self.entries.values() {
            let Resource::Shaping(set) = resource else {
                continue;
            };
            for (index, rule) in set.rules.iter().enumerate().filter(|_| !set.disabled) {
                let fields = rule.fields();
                let others = by_match.entry((&rule.matches, rule.scope)).or_default();
                for (name, other_index, other_fields) in others.iter() {
                    let both: Vec<&str> = fields
                        .iter()
                        .copied()
                        .filter(|field| other_fields.contains(field))
                        .collect();
                    if !both.is_empty() {
                        let path = format!("spec.rules[{index}]");
                        let fields = both.join(", ");
                        let what = format!(
                            "has the same match as Shaping/{name} spec.rules[{other_index}], and both set {fields}"
                        );
                        self.report(resource, &path, what);
                    }
                }
                others.push((&set.name, index, fields));
            }
        }
    }

    fn some_unreadable(&self, kind: Kind) -> bool {
        self.origins
            .keys()
            .any(|key| key.0 == kind && !self.entries.contains_key(key))
    }

    fn check_name(&self, resource: &Resource, path: &str, kind: Kind, name: &str) {
        let key = (kind, name.to_owned());
        if self.entries.contains_key(&key) || self.origins.contains_key(&key) {
            return;
        }
        let names = self
            .entries
            .keys()
            .filter(|(other, _)| *other == kind)
            .map(|(_, name)| name.as_str());
        self.report(
            resource,
            path,
            format!("no {kind} named {name:?}; {}", known(names)),
        );
    }

    fn report(&self, resource: &Resource, path: &str, what: String) {
        let (kind, name) = (resource.kind(), resource.name());
        match self.origins.get(&(kind, name.to_owned())) {
            Some(origin) => origin.problem(self.problems, path, what),
            None => Origin::present(kind, name).problem(self.problems, path, what),
        }
    }
}

fn overlap(left: &Route, right: &Route) -> bool {
    let shared = |left: &[String], right: &[String]| {
        left.is_empty() || left.iter().any(|name| right.contains(name))
    };
    shared(&left.matches.streams, &right.matches.streams)
        && shared(&left.matches.tenants, &right.matches.tenants)
}

/// Lists at most five names.
fn known<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => "there is none".to_owned(),
        names if names.len() <= 5 => format!("known: {}", names.join(", ")),
        names => format!(
            "known: {} and {} more",
            names[..5].join(", "),
            names.len() - 5
        ),
    }
}
