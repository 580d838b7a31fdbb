//! Kind EgressPool.

use serde_json::{Value, json};

use super::egress_source::EgressSource;
use crate::Fields;

/// Weighted egress sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressPool {
    /// Unique.
    pub name: String,
    /// At least one.
    pub sources: Vec<EgressSource>,
    /// Some, or all, of its sources have a smart host of their own.
    smart_hosts: SmartHosts,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SmartHosts {
    None,
    Some,
    All,
}

impl SmartHosts {
    fn of(sources: &[EgressSource]) -> Self {
        let has = |source: &&EgressSource| source.smart_host.is_some();
        match sources.iter().filter(has).count() {
            0 => Self::None,
            count if count == sources.len() => Self::All,
            _ => Self::Some,
        }
    }
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

impl EgressPool {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let mut sources: Vec<EgressSource> = Vec::new();
        for fields in spec.maps("sources") {
            if let Some(source) = EgressSource::read(&fields) {
                if sources.iter().any(|other| other.name == source.name) {
                    fields.problem("name", format!("{:?} is used twice", source.name));
                }
                sources.push(source);
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
            smart_hosts: SmartHosts::of(&sources),
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

    /// Whether any source has a smart host of its own.
    pub fn has_smart_hosts(&self) -> bool {
        self.smart_hosts != SmartHosts::None
    }

    /// The host of the first source when every source has a smart host of its own: then nobody needs to know where the
    /// mail of a domain goes.
    pub fn only_smart_hosts(&self) -> Option<&str> {
        let host = self.sources.first()?.smart_host.as_ref()?.host.as_str();
        (self.smart_hosts == SmartHosts::All).then_some(host)
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
        let sources: Vec<Value> = self.sources.iter().map(EgressSource::spec).collect();
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
