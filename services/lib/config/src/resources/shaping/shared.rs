//! What all lanes of a source to the sites of a provider share.

use mail::Rate;

use super::{ShapingRule, set, written_or_none, written_rates};
use crate::Fields;

/// What the values of a rule are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ShapingScope {
    /// Each lane.
    #[default]
    Site,
    /// All lanes of a source to the sites of a provider together.
    Provider,
}

pub(super) const SCOPES: [(&str, ShapingScope); 2] = [
    ("site", ShapingScope::Site),
    ("provider", ShapingScope::Provider),
];

/// Fields that can be shared, as they are written.
const SHARED: [&str; 3] = ["connections", "rate", "connectionRate"];

/// Limits for all lanes of a source to the sites of a provider together, beside those of each lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedShaping {
    /// Connections open at once; `None` = no limit.
    pub connections: Option<u32>,
    /// As in [`super::Shaping`].
    pub rates: Vec<Rate>,
    /// As in [`super::Shaping`].
    pub connection_rate: Option<Rate>,
}

impl SharedShaping {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All fields, as they are written.
    pub fn written(&self) -> Vec<(&'static str, String)> {
        let connections = self.connections.map(|count| count.to_string());
        let values = [
            connections.unwrap_or_else(|| "none".to_owned()),
            written_rates(&self.rates),
            written_or_none(self.connection_rate),
        ];
        SHARED.into_iter().zip(values).collect()
    }

    /// Lays the fields that the rule sets over the present ones.
    pub(crate) fn overlay(&mut self, rule: &ShapingRule) {
        set(&mut self.connections, &rule.connections.map(Some));
        set(&mut self.rates, &rule.rates);
        set(&mut self.connection_rate, &rule.connection_rate);
    }
}

impl ShapingRule {
    /// What is shared is shared by all lanes of a source and provider, so a rule for some of them can't say it.
    pub(super) fn check_scope(&self, fields: &Fields<'_>) {
        if self.scope != ShapingScope::Provider {
            return;
        }
        if self.matches.provider.is_none() {
            fields.problem("match", "scope: provider needs a provider here");
        }
        let entries = self.matches.entries();
        let others = entries.iter().map(|(name, _)| *name);
        let others: Vec<&str> = others
            .filter(|name| !["provider", "source"].contains(name))
            .collect();
        if !others.is_empty() {
            let what = format!(
                "scope: provider is for all mail from a source to a provider: only provider and source are expected, found {}",
                others.join(", ")
            );
            fields.problem("match", what);
        }
        let fields_set = self.fields().into_iter();
        let own: Vec<&str> = fields_set.filter(|name| !SHARED.contains(name)).collect();
        if !own.is_empty() {
            let what = format!(
                "only connections, rates and connectionRate can be for a provider as a whole: {} belongs in a rule of scope site",
                own.join(", ")
            );
            fields.problem("scope", what);
        }
    }
}
