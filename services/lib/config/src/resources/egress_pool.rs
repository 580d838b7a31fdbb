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
    /// Tenants that may share it at most; `None` = any number.
    pub max_tenants: Option<u32>,
    /// The one tenant whose mail leaves by it, and by its sources; `None` = it is shared.
    pub dedicated_to: Option<String>,
    /// Where tenants begin that are new to it; `None` = here.
    pub probation: Option<Probation>,
    /// The pool by which the mail of tenants leaves that are in quarantine from this one; `None` = it waits.
    pub quarantine: Option<String>,
}

/// How a tenant comes into a pool: by another one, for so long and until so much is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probation {
    /// The pool by which its mail leaves meanwhile.
    pub pool: String,
    /// Since its first mail, 1 to 365.
    pub days: u32,
    /// Recipients that must have accepted since then, at least 1.
    pub delivered: u32,
    /// Tenants that are not new.
    pub except: Vec<String>,
}

const DEFAULT_DAYS: u32 = 14;
const DEFAULT_DELIVERED: u32 = 1_000;
/// Tenants that a pool may be shared by when it says so, and exceptions of its probation.
const MOST_TENANTS: u32 = 10_000;

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
        let some = |text: &str| Some(text.to_owned());
        let pool = Self {
            name: name.to_owned(),
            sources,
            sticky: sticky.unwrap_or(Sticky::Greylisted),
            max_tenants: spec.small_integer("maxTenants", 1..=MOST_TENANTS),
            dedicated_to: spec.text("dedicatedTo").and_then(some),
            probation: Probation::read(spec),
            quarantine: spec.text("quarantine").and_then(some),
        };
        if let Some(tenant) = &pool.dedicated_to {
            for field in ["maxTenants", "probation", "quarantine"] {
                if spec.is_given(field) {
                    let what = format!(
                        "is for pools that are shared, and this one is dedicated to {tenant}"
                    );
                    spec.problem(field, what);
                }
            }
        }
        Some(pool)
    }

    /// Whether it says which tenants may leave by it, or how.
    pub fn keeps_apart(&self) -> bool {
        self.max_tenants.is_some()
            || self.dedicated_to.is_some()
            || self.probation.is_some()
            || self.quarantine.is_some()
    }

    /// Whether somebody else's mail must not leave by it.
    pub fn is_closed_to(&self, tenant: &str) -> bool {
        self.dedicated_to
            .as_ref()
            .is_some_and(|owner| owner != tenant)
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
        let mut spec = json!({ "sources": sources, "sticky": super::word(&STICKY, self.sticky) });
        if let Some(most) = self.max_tenants {
            spec["maxTenants"] = json!(most);
        }
        if let Some(tenant) = &self.dedicated_to {
            spec["dedicatedTo"] = json!(tenant);
        }
        if let Some(probation) = &self.probation {
            spec["probation"] = json!({
                "pool": probation.pool,
                "days": probation.days,
                "delivered": probation.delivered,
                "except": probation.except,
            });
        }
        if let Some(pool) = &self.quarantine {
            spec["quarantine"] = json!(pool);
        }
        spec
    }
}

impl Probation {
    fn read(spec: &Fields<'_>) -> Option<Self> {
        let is_given = spec.is_given("probation");
        let fields = spec.map("probation");
        if !is_given {
            return None;
        }
        let except = fields.read_list("except", |text| Ok(text.to_owned()));
        if except.len() > MOST_TENANTS as usize {
            fields.problem(
                "except",
                format!("at most {MOST_TENANTS} tenants are expected"),
            );
        }
        let days = fields.small_integer("days", 1..=365);
        let delivered = fields.small_integer("delivered", 1..=1_000_000_000);
        let pool = fields.required_text("pool").map(str::to_owned);
        fields.close();
        Some(Self {
            pool: pool?,
            days: days.unwrap_or(DEFAULT_DAYS),
            delivered: delivered.unwrap_or(DEFAULT_DELIVERED),
            except,
        })
    }
}
