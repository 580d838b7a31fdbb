//! Maps prepared once for a snapshot, so that the services' look-ups allocate nothing.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::resources::Resource;
use crate::shaping_rules::ShapingRules;
use crate::shipped;
use crate::suffixes::parents;
use crate::{
    AutomationSet, Credential, DomainMatch, EgressPool, Route, Scanner, SendingDomain, Tenant,
    TokenIssuer,
};

type ByName<T> = HashMap<Box<str>, Arc<T>>;

#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    pub(crate) scanners: ByName<Scanner>,
    pub(crate) tenants: ByName<Tenant>,
    pub(crate) pools: ByName<EgressPool>,
    pub(crate) sending_domains: ByName<SendingDomain>,
    /// By the domain of return paths of ours: one of those that have it, which agree about it.
    pub(crate) by_return_domain: ByName<SendingDomain>,
    pub(crate) credentials: ByName<Credential>,
    by_username: ByName<Credential>,
    by_certificate: ByName<Credential>,
    /// By issuer's name, then by subject.
    pub(crate) by_token: HashMap<Box<str>, ByName<Credential>>,
    /// By `iss`.
    pub(crate) token_issuers: ByName<TokenIssuer>,
    /// Longest prefix first.
    by_network: Vec<(IpNet, Arc<Credential>)>,
    routes: Routes,
    pub(crate) shaping: ShapingRules,
    pub(crate) automation: Vec<Arc<AutomationSet>>,
}

/// Routes by the most specific part of their match; each list begins with the most specific route.
#[derive(Debug, Clone, Default)]
struct Routes {
    all: Vec<Arc<Route>>,
    exact: HashMap<Box<str>, Vec<Arc<Route>>>,
    below: HashMap<Box<str>, Vec<Arc<Route>>>,
    any: Vec<Arc<Route>>,
}

impl Index {
    /// Of an installation's resources, and of the shipped ones that they do not replace.
    pub(crate) fn build<'a>(resources: impl Iterator<Item = &'a Resource>) -> Self {
        let mut index = Self::default();
        let mut own = HashSet::new();
        for resource in resources {
            own.insert((resource.kind(), resource.name()));
            index.add(resource, false);
        }
        for resource in shipped::resources() {
            if !own.contains(&(resource.kind(), resource.name())) {
                index.add(resource, true);
            }
        }
        index
            .by_network
            .sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        index.routes.sort();
        index.shaping.finish();
        index
            .automation
            .sort_by(|left, right| left.name.cmp(&right.name));
        index
    }

    fn add(&mut self, resource: &Resource, shipped: bool) {
        let name = || resource.name().into();
        match resource {
            Resource::Scanner(scanner) => {
                self.scanners.insert(name(), scanner.clone());
            }
            Resource::Tenant(tenant) => {
                self.tenants.insert(name(), tenant.clone());
            }
            Resource::TokenIssuer(issuer) => {
                let iss = issuer.issuer.as_str().into();
                self.token_issuers.insert(iss, issuer.clone());
            }
            Resource::EgressPool(pool) => {
                self.pools.insert(name(), pool.clone());
            }
            Resource::SendingDomain(domain) => {
                if let Some(own) = &domain.return_path {
                    let of_returns = own.domain.as_str().into();
                    self.by_return_domain.insert(of_returns, domain.clone());
                }
                self.sending_domains.insert(name(), domain.clone());
            }
            Resource::Credential(credential) => {
                self.credentials.insert(name(), credential.clone());
                if let Some(login) = &credential.login {
                    let username = login.username.as_str().into();
                    self.by_username.insert(username, credential.clone());
                }
                for name in &credential.certificates {
                    let name = name.as_str().into();
                    self.by_certificate.insert(name, credential.clone());
                }
                for token in &credential.tokens {
                    let of_issuer = self.by_token.entry(token.issuer.as_str().into());
                    let subject = token.subject.as_str().into();
                    of_issuer.or_default().insert(subject, credential.clone());
                }
                let networks = credential.networks.iter();
                self.by_network
                    .extend(networks.map(|network| (*network, credential.clone())));
            }
            Resource::Route(route) => self.routes.add(route),
            Resource::Provider(provider) => self.shaping.add_provider(provider),
            Resource::Shaping(set) => self.shaping.add_set(set, shipped),
            Resource::Automation(set) if set.disabled => {}
            Resource::Automation(set) => self.automation.push(set.clone()),
        }
    }

    pub(crate) fn credential_by_username(&self, username: &str) -> Option<&Arc<Credential>> {
        self.by_username.get(username)
    }

    pub(crate) fn credential_by_certificate(&self, name: &str) -> Option<&Arc<Credential>> {
        self.by_certificate.get(name)
    }

    pub(crate) fn credential_for_network(&self, address: IpAddr) -> Option<&Arc<Credential>> {
        let address = address.to_canonical();
        self.by_network
            .iter()
            .find(|(network, _)| network.contains(&address))
            .map(|(_, credential)| credential)
    }

    pub(crate) fn sending_domain(&self, domain: &str) -> Option<&Arc<SendingDomain>> {
        if let Some(exact) = self.sending_domains.get(domain) {
            return Some(exact);
        }
        parents(domain)
            .filter_map(|parent| self.sending_domains.get(parent))
            .find(|found| found.include_subdomains)
    }

    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        &self.routes.all
    }

    pub(crate) fn route<'a>(
        &'a self,
        tenant: &str,
        stream: &str,
        domain: &str,
    ) -> Option<&'a Arc<Route>> {
        let first_match = |routes: &'a [Arc<Route>]| {
            routes.iter().find(|route| {
                names(&route.matches.streams, stream) && names(&route.matches.tenants, tenant)
            })
        };
        let exact = self.routes.exact.get(domain).into_iter();
        let below = parents(domain).filter_map(|parent| self.routes.below.get(parent));
        exact
            .chain(below)
            .chain([&self.routes.any])
            .find_map(|routes| first_match(routes))
    }
}

impl Routes {
    fn add(&mut self, route: &Arc<Route>) {
        self.all.push(route.clone());
        if route.matches.domains.is_empty() {
            self.any.push(route.clone());
        }
        for domain in &route.matches.domains {
            let (map, name) = match domain {
                DomainMatch::Exact(name) => (&mut self.exact, name),
                DomainMatch::Below(name) => (&mut self.below, name),
            };
            map.entry(name.as_str().into())
                .or_default()
                .push(route.clone());
        }
    }

    fn sort(&mut self) {
        let lists = self.exact.values_mut().chain(self.below.values_mut());
        for list in lists.chain([&mut self.any]) {
            list.sort_by_key(|route| std::cmp::Reverse(specificity(route)));
        }
    }
}

/// Among routes for the same domain: a named stream before a named tenant.
pub(crate) fn specificity(route: &Route) -> (bool, bool) {
    (
        !route.matches.streams.is_empty(),
        !route.matches.tenants.is_empty(),
    )
}

/// An empty list names everything.
fn names(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|entry| entry == name)
}
