//! Which shaping rules hold for a lane, and which lanes there must be.

use std::sync::Arc;

use crate::resources::hosts_of;
use crate::suffixes::Suffixes;
use crate::{
    DomainMatch, Provider, Shaping, ShapingMatch, ShapingQuery, ShapingRule, ShapingScope,
    ShapingSet, SharedShaping,
};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleName {
    /// Name of the document of kind Shaping.
    pub document: String,
    /// Position of the rule in it, from 0.
    pub position: usize,
    /// It is shipped with Staffetta.
    pub shipped: bool,
    /// What it matches.
    pub matches: ShapingMatch,
}

impl std::fmt::Display for RuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shipped = if self.shipped { "shipped " } else { "" };
        let Self {
            document, position, ..
        } = self;
        write!(
            f,
            "{shipped}Shaping/{document} rules[{position}] {}",
            self.matches
        )
    }
}

/// A field of a lane's shaping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedField {
    /// As in the documents.
    pub name: &'static str,
    /// As in the documents.
    pub value: String,
    /// The rule that sets it; `None` = it is built in.
    pub rule: Option<RuleName>,
}

/// A lane's shaping with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapingExplanation {
    /// The provider of the lane.
    pub provider: Option<String>,
    /// Every field once.
    pub fields: Vec<ExplainedField>,
    /// What rules set for all lanes of its source to its provider together.
    pub shared: Vec<ExplainedField>,
    /// All rules that match, the least specific first.
    pub rules: Vec<RuleName>,
}

/// All rules of a configuration, shipped ones included.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShapingRules {
    providers: Providers,
    /// The least specific first: later ones are laid over earlier ones.
    ordered: Vec<Placed>,
    /// Rules that make lanes of their own, by their domain.
    by_domain: Suffixes<Vec<usize>>,
    /// Those without a domain.
    for_any_domain: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Placed {
    rule: ShapingRule,
    document: Box<str>,
    position: usize,
    shipped: bool,
    class: Option<String>,
}

impl Placed {
    fn name(&self) -> RuleName {
        RuleName {
            document: self.document.to_string(),
            position: self.position,
            shipped: self.shipped,
            matches: self.rule.matches.clone(),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Providers {
    by_mx: Suffixes<Arc<Provider>>,
    by_domain: Suffixes<Arc<Provider>>,
}

impl Providers {
    fn of_site(&self, site: &str) -> Option<&Arc<Provider>> {
        let fitting = hosts_of(site).filter_map(|host| self.by_mx.fitting(host).next());
        // The first of those that are equally specific: hosts are sorted in the name of a site.
        let best = fitting.reduce(|best, other| if other.0 > best.0 { other } else { best });
        best.map(|(_, provider)| provider)
    }

    fn of_domain(&self, domain: &str) -> Option<&Arc<Provider>> {
        if self.by_domain.is_empty() {
            return None;
        }
        let first = self.by_domain.fitting(domain).next();
        first.map(|(_, provider)| provider)
    }
}

impl ShapingRules {
    /// Own providers are added before shipped ones: of two with the same host the first one has it.
    pub(crate) fn add_provider(&mut self, provider: &Arc<Provider>) {
        if provider.disabled {
            return;
        }
        for mx in &provider.mx {
            let entry = self.providers.by_mx.entry(mx);
            entry.or_insert_with(|| provider.clone());
        }
        for domain in &provider.domains {
            let entry = self.providers.by_domain.entry(domain);
            entry.or_insert_with(|| provider.clone());
        }
    }

    pub(crate) fn add_set(&mut self, set: &ShapingSet, shipped: bool) {
        if set.disabled {
            return;
        }
        let rules = set.rules.iter().enumerate();
        self.ordered.extend(rules.map(|(position, rule)| Placed {
            rule: rule.clone(),
            document: set.name.as_str().into(),
            position,
            shipped,
            class: rule.matches.class(),
        }));
    }

    /// To be called when all rules are there.
    pub(crate) fn finish(&mut self) {
        self.ordered.sort_by(|left, right| {
            let key = |placed: &Placed| (placed.rule.matches.specificity(), !placed.shipped);
            key(left)
                .cmp(&key(right))
                .then_with(|| left.document.cmp(&right.document))
                .then_with(|| left.position.cmp(&right.position))
        });
        for (number, placed) in self.ordered.iter().enumerate() {
            if placed.class.is_none() {
                continue;
            }
            match &placed.rule.matches.domain {
                Some(domain) => self.by_domain.entry(domain).or_default().push(number),
                None => self.for_any_domain.push(number),
            }
        }
    }

    /// The provider of mail to a domain at a site: by domain, else by the MX hosts.
    pub(crate) fn provider(&self, site: &str, domain: &str) -> Option<&Arc<Provider>> {
        let of_domain = self.providers.of_domain(domain);
        of_domain.or_else(|| self.providers.of_site(site))
    }

    fn matching(&self, lane: &ShapingQuery<'_>) -> impl Iterator<Item = &Placed> {
        let provider = self
            .provider(lane.site, lane.domain)
            .map(|provider| provider.name.as_str());
        self.ordered
            .iter()
            .filter(move |placed| placed.rule.matches.matches(lane, provider))
    }

    pub(crate) fn shaping(&self, lane: &ShapingQuery<'_>) -> Shaping {
        let mut shaping = Shaping::default();
        for placed in self.matching(lane) {
            shaping.overlay(&placed.rule);
        }
        shaping
    }

    /// What the lanes of a source to the sites of a provider share.
    pub(crate) fn shared(&self, source: &str, provider: &str) -> SharedShaping {
        let mut shared = SharedShaping::default();
        let of_it = |rule: &&ShapingRule| {
            let matched = &rule.matches;
            rule.scope == ShapingScope::Provider
                && matched.provider.as_deref() == Some(provider)
                && matched.source.as_deref().is_none_or(|of| of == source)
        };
        let rules = self.ordered.iter().map(|placed| &placed.rule);
        rules.filter(of_it).for_each(|rule| shared.overlay(rule));
        shared
    }

    pub(crate) fn explain(&self, lane: &ShapingQuery<'_>) -> ShapingExplanation {
        let built_in = |(name, value)| ExplainedField {
            name,
            value,
            rule: None,
        };
        let mut fields: Vec<ExplainedField> = (Shaping::default().written().into_iter())
            .map(built_in)
            .collect();
        let mut shared: Vec<ExplainedField> = (SharedShaping::default().written().into_iter())
            .map(built_in)
            .collect();
        let mut rules = Vec::new();
        for placed in self.matching(lane) {
            let fields = match placed.rule.scope {
                ShapingScope::Site => &mut fields,
                ShapingScope::Provider => &mut shared,
            };
            for (name, value) in placed.rule.written() {
                if let Some(field) = fields.iter_mut().find(|field| field.name == name) {
                    (field.value, field.rule) = (value, Some(placed.name()));
                }
            }
            rules.push(placed.name());
        }
        shared.retain(|field| field.rule.is_some());
        ShapingExplanation {
            provider: self
                .provider(lane.site, lane.domain)
                .map(|provider| provider.name.clone()),
            fields,
            shared,
            rules,
        }
    }

    /// See [`crate::Snapshot::lane_class`].
    pub(crate) fn class(&self, lane: &ShapingQuery<'_>) -> Option<String> {
        let of_domain = self.providers.of_domain(lane.domain);
        if self.for_any_domain.is_empty() && self.by_domain.is_empty() && of_domain.is_none() {
            return None;
        }
        let of_site = self.providers.of_site(lane.site);
        let provider = of_domain.or(of_site).map(|provider| provider.name.as_str());
        let mut parts: Vec<&str> = Vec::new();
        let by_domain = self.by_domain.fitting(lane.domain);
        let candidates = by_domain.flat_map(|(_, numbers)| numbers);
        for number in candidates.chain(&self.for_any_domain) {
            let placed = &self.ordered[*number];
            // Whatever the source: it is in the name of the lane already.
            let source = placed.rule.matches.source.as_deref();
            let lane = ShapingQuery {
                source: source.unwrap_or(lane.source),
                ..*lane
            };
            if placed.rule.matches.matches(&lane, provider) {
                parts.extend(placed.class.as_deref());
            }
        }
        // The same for all who ask, whatever the documents are called.
        parts.sort_unstable();
        parts.dedup();
        let mut class = parts.join("%");
        let own_provider =
            of_domain.filter(|own| of_site.is_none_or(|of_site| of_site.name != own.name));
        if let Some(own) = own_provider {
            let separator = if class.is_empty() { "" } else { "%" };
            class = format!("{class}{separator}provider={}", own.name);
        }
        (!class.is_empty()).then_some(class)
    }

    /// Whether a site can be one of the provider's and fit the match. Unknown providers count as possible.
    pub(crate) fn can_be_at(provider: &Provider, site: &DomainMatch) -> bool {
        let below = |inner: &DomainMatch, outer: &DomainMatch| match (inner, outer) {
            (DomainMatch::Exact(inner), outer) => outer.matches(inner.as_str()),
            (DomainMatch::Below(inner), DomainMatch::Below(outer)) => {
                inner == outer || DomainMatch::Below(outer.clone()).matches(inner.as_str())
            }
            (DomainMatch::Below(_), DomainMatch::Exact(_)) => false,
        };
        !provider.domains.is_empty()
            || provider
                .mx
                .iter()
                .any(|mx| below(mx, site) || below(site, mx))
    }
}
