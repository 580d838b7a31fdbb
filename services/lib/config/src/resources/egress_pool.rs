//! Kind EgressPool.

use std::net::IpAddr;

use mail::Domain;
use serde_json::{Value, json};

use super::names::{LABEL_FORM, is_label};
use crate::Fields;

/// Weighted egress sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressPool {
    /// Unique.
    pub name: String,
    /// At least one.
    pub sources: Vec<EgressSource>,
    /// Which deliveries keep their source.
    pub sticky: Sticky,
}

/// Which deliveries go on by the source of their last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sticky {
    /// Those that were greylisted there.
    Greylisted,
    /// All: a delivery has one source for all its attempts.
    Always,
}

const STICKY: [(&str, Sticky); 2] = [
    ("greylisted", Sticky::Greylisted),
    ("always", Sticky::Always),
];

/// Where connections to the outside come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressSource {
    /// Unique in the installation; in two pools it is the same source.
    pub name: String,
    /// Address to bind; `None` = the system chooses.
    pub address: Option<IpAddr>,
    /// EHLO name; `None` = `hostname` of staffetta.yaml.
    pub ehlo: Option<Domain>,
    /// Share of the pool's mail, 0 to 1000; 0 = takes nothing new.
    pub weight: u32,
}

impl EgressPool {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let mut sources: Vec<EgressSource> = Vec::new();
        for fields in spec.maps("sources") {
            let address = fields.read("address", |text| match text {
                "" => Ok(None),
                text => text
                    .parse()
                    .map(Some)
                    .map_err(|_| "an IP address is expected".to_owned()),
            });
            let ehlo = fields.text("ehlo").filter(|text| !text.is_empty());
            let ehlo = ehlo.and_then(|_| fields.domain("ehlo"));
            let weight = fields.small_integer("weight", 0..=1000).unwrap_or(1);
            if let Some(name) = fields.required_text("name") {
                if !is_label(name) {
                    fields.problem("name", format!("{LABEL_FORM}, found {name:?}"));
                }
                if sources.iter().any(|source| source.name == name) {
                    fields.problem("name", format!("{name:?} is used twice"));
                }
                sources.push(EgressSource {
                    name: name.to_owned(),
                    address: address.flatten(),
                    ehlo,
                    weight,
                });
            }
            fields.close();
        }
        if sources.is_empty() {
            spec.problem("sources", "at least one source is expected");
        } else if sources.iter().all(|source| source.weight == 0) {
            spec.problem("sources", "all weights are 0: nothing could be sent");
        }
        let sticky = spec.one_of("sticky", &STICKY);
        Some(Self {
            name: name.to_owned(),
            sources,
            sticky: sticky.unwrap_or(Sticky::Greylisted),
        })
    }

    pub(super) fn spec(&self) -> Value {
        let sources: Vec<Value> = self
            .sources
            .iter()
            .map(|source| {
                let mut value = json!({ "name": source.name, "weight": source.weight });
                if let Some(address) = source.address {
                    value["address"] = json!(address.to_string());
                }
                if let Some(ehlo) = &source.ehlo {
                    value["ehlo"] = json!(ehlo.as_str());
                }
                value
            })
            .collect();
        json!({ "sources": sources, "sticky": super::word(&STICKY, self.sticky) })
    }
}
