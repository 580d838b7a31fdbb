//! Which operations concern a delivery.
//!
//! Looked up by hash of what their selectors name, not one after another: a look-up costs as many hashes as there are
//! kinds of fields in use, whatever the number of operations.

use std::sync::Arc;

use config::{EgressPool, Snapshot};
use hashbrown::{HashMap, HashSet};
use mail::MessageId;
use proto::operation::{Operation, Selector};
use queue::{RouteOf, Standing};

/// By which sources a delivery may leave.
#[derive(Clone, Copy)]
pub(crate) enum Sources<'a> {
    /// It is not known yet: no selector by source matches.
    Unknown,
    /// By this one.
    One(&'a str),
    /// By any of the pool.
    Pool(&'a EgressPool),
}

/// What selectors ask about a delivery.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) id: MessageId,
    pub(crate) tenant: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) campaign: &'a str,
    pub(crate) domain: &'a str,
    /// `None` = not known (yet).
    pub(crate) site: Option<&'a str>,
    pub(crate) provider: Option<&'a str>,
    pub(crate) sources: Sources<'a>,
}

impl<'a> Facts<'a> {
    pub(crate) fn of_ready(of: &RouteOf<'a>) -> Self {
        Self {
            id: of.id,
            tenant: of.tenant,
            stream: of.stream,
            campaign: of.campaign,
            domain: of.domain,
            site: None,
            provider: None,
            sources: Sources::Unknown,
        }
    }

    pub(crate) fn of_standing(of: &Standing<'a>) -> Self {
        Self {
            id: of.id,
            tenant: of.tenant,
            stream: of.stream,
            campaign: of.campaign,
            domain: of.domain,
            site: None,
            provider: None,
            sources: Sources::Unknown,
        }
    }

    /// With its site, if it is known, and the provider there.
    pub(crate) fn at(self, config: &'a Snapshot, site: Option<&'a str>) -> Self {
        let provider = config.provider(site.unwrap_or(""), self.domain);
        Self {
            site,
            provider: provider.map(|provider| provider.name.as_str()),
            ..self
        }
    }

    pub(crate) fn by(self, sources: Sources<'a>) -> Self {
        Self { sources, ..self }
    }
}

/// A selector, for matching.
#[derive(Debug)]
pub(crate) struct Selection {
    messages: HashSet<MessageId>,
    selector: Selector,
}

/// Whether a selector means a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meant {
    Yes,
    No,
    /// It does if its site is one of those that are named, and the site is not known.
    Unresolved,
}

impl Selection {
    pub(crate) fn new(selector: &Selector) -> Self {
        let ids = selector.messages.iter();
        Self {
            messages: ids.filter_map(|id| id.parse().ok()).collect(),
            selector: selector.clone(),
        }
    }

    /// Ids of messages, when it names some.
    pub(crate) fn messages(&self) -> Option<impl Iterator<Item = MessageId>> {
        (!self.selector.messages.is_empty()).then(|| self.messages.iter().copied())
    }

    /// Whether deliveries of the same tenant, stream, campaign and domain may differ in whether they are meant.
    fn parts_lines(&self) -> bool {
        !self.selector.messages.is_empty() || self.selector.accepted_before_ms > 0
    }

    /// Whether it asks for sites, providers or sources.
    pub(crate) fn asks_for_ways(&self) -> bool {
        let Selector {
            sites,
            providers,
            sources,
            ..
        } = &self.selector;
        !(sites.is_empty() && providers.is_empty() && sources.is_empty())
    }

    pub(crate) fn meant(&self, facts: &Facts<'_>) -> Meant {
        let selector = &self.selector;
        let any = |values: &[String], value: &str| {
            values.is_empty() || values.iter().any(|other| other == value)
        };
        let by_source = selector.sources.is_empty()
            || match facts.sources {
                Sources::Unknown => false,
                Sources::One(source) => any(&selector.sources, source),
                Sources::Pool(pool) => pool
                    .sources
                    .iter()
                    .any(|source| source.weight > 0 && any(&selector.sources, &source.name)),
            };
        let is_meant = (selector.messages.is_empty() || self.messages.contains(&facts.id))
            && (selector.accepted_before_ms == 0
                || facts.id.unix_ms() < selector.accepted_before_ms)
            && any(&selector.domains, facts.domain)
            && any(&selector.tenants, facts.tenant)
            && any(&selector.streams, facts.stream)
            && any(&selector.campaigns, facts.campaign)
            && by_source;
        if !is_meant {
            return Meant::No;
        }
        let by_provider = selector.providers.is_empty()
            || facts
                .provider
                .is_some_and(|provider| any(&selector.providers, provider));
        let by_site =
            selector.sites.is_empty() || facts.site.is_some_and(|site| any(&selector.sites, site));
        match (by_site && by_provider, facts.site) {
            (true, _) => Meant::Yes,
            (false, None) => Meant::Unresolved,
            (false, Some(_)) => Meant::No,
        }
    }
}

/// Fields by which an operation is looked up, the most selective first.
const FIELDS: usize = 8;

fn values(selector: &Selector) -> [&[String]; FIELDS] {
    [
        &selector.messages,
        &selector.campaigns,
        &selector.domains,
        &selector.sites,
        &selector.tenants,
        &selector.sources,
        &selector.providers,
        &selector.streams,
    ]
}

/// Operations of one kind that hold now.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    /// By the values of the field that is looked up.
    by: [HashMap<Box<str>, Vec<u32>>; FIELDS],
    /// Those that mean all mail.
    everywhere: Vec<u32>,
    by_source: bool,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) operation: Arc<Operation>,
    pub(crate) selection: Arc<Selection>,
    pub(crate) parts_lines: bool,
}

impl Index {
    pub(crate) fn add(&mut self, operation: &Arc<Operation>, selection: &Arc<Selection>) {
        let number = self.entries.len() as u32;
        let named = values(&selection.selector)
            .into_iter()
            .zip(&mut self.by)
            .find(|(values, _)| !values.is_empty());
        match named {
            Some((values, by)) => {
                for value in values {
                    by.entry_ref(value.as_str()).or_default().push(number);
                }
            }
            None => self.everywhere.push(number),
        }
        self.by_source |= !selection.selector.sources.is_empty();
        self.entries.push(Entry {
            operation: operation.clone(),
            selection: selection.clone(),
            parts_lines: selection.parts_lines(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The ids of all.
    pub(crate) fn ids(&self) -> Vec<String> {
        let operations = self.entries.iter().map(|entry| &entry.operation);
        operations.map(|operation| operation.id.clone()).collect()
    }

    /// Whether one of them names a source.
    pub(crate) fn by_source(&self) -> bool {
        self.by_source
    }

    /// The first operation that means a delivery.
    pub(crate) fn find(&self, facts: &Facts<'_>) -> Option<&Entry> {
        if self.entries.is_empty() {
            return None;
        }
        let is_it = |number: &&u32| {
            let entry = self.entries.get(**number as usize);
            entry.is_some_and(|entry| entry.selection.meant(facts) == Meant::Yes)
        };
        let among = |field: usize, value: &str| {
            let by = self.by.get(field).filter(|by| !by.is_empty())?;
            by.get(value)?.iter().find(is_it)
        };
        let id = (!self.by[0].is_empty()).then(|| facts.id.to_string());
        let found = id
            .and_then(|id| among(0, &id))
            .or_else(|| among(1, facts.campaign))
            .or_else(|| among(2, facts.domain))
            .or_else(|| facts.site.and_then(|site| among(3, site)))
            .or_else(|| among(4, facts.tenant))
            .or_else(|| match facts.sources {
                Sources::Unknown => None,
                Sources::One(source) => among(5, source),
                Sources::Pool(pool) => {
                    let mut sources = pool.sources.iter();
                    sources.find_map(|source| among(5, &source.name))
                }
            })
            .or_else(|| facts.provider.and_then(|provider| among(6, provider)))
            .or_else(|| among(7, facts.stream))
            .or_else(|| self.everywhere.iter().find(is_it));
        self.entries.get(*found? as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0198c2a4-7b1e-7c3a-9d2f-1a2b3c4d5e6f";

    fn facts() -> Facts<'static> {
        Facts {
            id: ID.parse().unwrap(),
            tenant: "acme",
            stream: "bulk",
            campaign: "june",
            domain: "one.example",
            site: Some("mx.one.example"),
            provider: Some("google"),
            sources: Sources::One("a"),
        }
    }

    fn selector(change: impl FnOnce(&mut Selector)) -> Selector {
        let mut selector = Selector::default();
        change(&mut selector);
        selector
    }

    fn text(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn every_field_must_hold_and_of_each_one_value() {
        for (is_meant, selector) in [
            (true, selector(|all| all.all = true)),
            (true, selector(|s| s.messages = text(ID))),
            (true, selector(|s| s.domains = text("one.example"))),
            (true, selector(|s| s.sites = text("mx.one.example"))),
            (true, selector(|s| s.providers = text("google"))),
            (true, selector(|s| s.tenants = text("acme"))),
            (true, selector(|s| s.streams = text("bulk"))),
            (true, selector(|s| s.campaigns = text("june"))),
            (true, selector(|s| s.sources = text("a"))),
            (false, selector(|s| s.domains = text("two.example"))),
            (false, selector(|s| s.sites = text("mx.two.example"))),
            (false, selector(|s| s.providers = text("yahoo"))),
            (false, selector(|s| s.tenants = text("bravo"))),
            (false, selector(|s| s.streams = text("mail"))),
            (false, selector(|s| s.campaigns = text("july"))),
            (false, selector(|s| s.sources = text("b"))),
            (false, selector(|s| s.accepted_before_ms = 1)),
            (
                false,
                selector(|s| (s.tenants, s.campaigns) = (text("acme"), text("july"))),
            ),
            (
                true,
                selector(|s| s.domains = vec!["two.example".into(), "one.example".into()]),
            ),
        ] {
            let selection = Arc::new(Selection::new(&selector));
            let meant = selection.meant(&facts()) == Meant::Yes;
            assert_eq!(meant, is_meant, "{selector:?}");
            let mut index = Index::default();
            index.add(&Arc::new(Operation::default()), &selection);
            let found = index.find(&facts()).is_some();
            assert_eq!(found, is_meant, "looked up: {selector:?}");
        }
    }

    #[test]
    fn what_depends_on_a_site_that_is_not_known_is_left_open() {
        let unresolved = Facts {
            site: None,
            provider: None,
            ..facts()
        };
        let by_site = Selection::new(&selector(|s| s.sites = text("mx.one.example")));
        assert_eq!(by_site.meant(&unresolved), Meant::Unresolved);
        let other_tenant = selector(|s| (s.sites, s.tenants) = (text("mx"), text("bravo")));
        let by_both = Selection::new(&other_tenant);
        assert_eq!(by_both.meant(&unresolved), Meant::No);
    }

    #[test]
    fn by_a_source_what_may_leave_by_it_is_meant() {
        let documents = "apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: default }
spec: { sources: [ { name: a, weight: 1 }, { name: b, weight: 0 } ] }
";
        let config = Snapshot::from_documents(documents).unwrap();
        let pool = config.pool("default").unwrap();
        let of = |name: &str| Selection::new(&selector(|s| s.sources = text(name)));
        let facts = facts().by(Sources::Pool(pool));
        assert_eq!(of("a").meant(&facts), Meant::Yes);
        assert_eq!(of("b").meant(&facts), Meant::No);
        let unknown = facts.by(Sources::Unknown);
        assert_eq!(of("a").meant(&unknown), Meant::No);
    }
}
