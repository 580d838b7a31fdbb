//! Kind Provider.

use serde_json::{Value, json};

use super::names::DomainMatch;
use crate::Fields;

/// A named group of sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Unique.
    pub name: String,
    /// Sites with one of these MX hosts belong to it.
    pub mx: Vec<DomainMatch>,
    /// Recipient domains that belong to it, wherever their MX hosts are.
    pub domains: Vec<DomainMatch>,
    /// It has no site, as if it were not there; switches off a shipped one of the same name.
    pub disabled: bool,
}

impl Provider {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let provider = Self {
            name: name.to_owned(),
            mx: spec.read_list("mx", DomainMatch::parse),
            domains: spec.read_list("domains", DomainMatch::parse),
            disabled: spec.boolean("disabled").unwrap_or(false),
        };
        let given = spec.is_given("mx") || spec.is_given("domains");
        if !given && !provider.disabled {
            spec.problem("", "mx or domains are expected, or disabled: true");
        }
        Some(provider)
    }

    pub(super) fn spec(&self) -> Value {
        let texts = |list: &[DomainMatch]| -> Vec<String> {
            list.iter().map(DomainMatch::to_string).collect()
        };
        let mut spec = json!({ "mx": texts(&self.mx), "domains": texts(&self.domains) });
        if self.disabled {
            spec["disabled"] = json!(true);
        }
        spec
    }
}
