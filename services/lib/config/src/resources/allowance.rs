//! What a tenant or a credential may submit: `limits` of both kinds.

use std::fmt;
use std::str::FromStr;

use mail::{ByteSize, Span};
use serde_json::{Map, Value, json};

use crate::Fields;

/// Limits of what is submitted. Those of tenant and credential hold both, except where one replaces the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Recipients of one message; more are refused for good (550 5.7.1). The credential's replaces the tenant's.
    pub max_recipients: Option<u32>,
    /// Largest messages by number of recipients, in ascending order. The credential's replace the tenant's.
    pub sizes: Vec<SizeLimit>,
    /// Recipients in sliding windows, all of which hold.
    pub quotas: Vec<Quota>,
    /// The same for each client network (an IPv4 address, an IPv6 /64).
    pub network_quotas: Vec<Quota>,
    /// Recipients in a calendar month (UTC); what is over it is refused for good.
    pub monthly: Option<u64>,
    /// What becomes of mail over a quota. The credential's replaces the tenant's.
    pub over_quota: Option<OverQuota>,
    /// Mail over a quota is queued for no longer than this. The credential's replaces the tenant's.
    pub queue_up_to: Option<Span>,
}

/// With more than `above` recipients a message may have at most `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    /// 0 = the limit holds for every message.
    pub above: u32,
    /// Content.
    pub size: ByteSize,
}

/// At most `count` recipients in any window of the length `window`, written `300/m` or `10000/12h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// At least 1.
    pub count: u64,
    /// One second to 31 days.
    pub window: Span,
}

/// What becomes of mail over a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverQuota {
    /// Accepted and sent when the quota allows, up to a bound.
    #[default]
    Queue,
    /// 451 with the seconds after which it would be accepted.
    Defer,
    /// 550.
    Reject,
}

const OVER_QUOTA: [(&str, OverQuota); 3] = [
    ("queue", OverQuota::Queue),
    ("defer", OverQuota::Defer),
    ("reject", OverQuota::Reject),
];

/// So many windows of one list.
const MOST_QUOTAS: usize = 4;
const LONGEST_WINDOW: Span = Span::from_secs(31 * 86_400);

/// The text is no quota.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a quota such as 300/m, 2000/h or 10000/12h (1 second to 31 days) is expected")]
pub struct QuotaError;

impl FromStr for Quota {
    type Err = QuotaError;

    fn from_str(text: &str) -> Result<Self, QuotaError> {
        let (count, window) = text.split_once('/').ok_or(QuotaError)?;
        let digits = (1..=12).contains(&count.len()) && count.bytes().all(|b| b.is_ascii_digit());
        let count = digits.then(|| count.parse().ok()).flatten();
        let window: Span = if window.starts_with(|first: char| first.is_ascii_digit()) {
            window.parse()
        } else {
            format!("1{window}").parse()
        }
        .map_err(|_| QuotaError)?;
        match count {
            Some(count) if count > 0 && (Span::from_secs(1)..=LONGEST_WINDOW).contains(&window) => {
                Ok(Self { count, window })
            }
            _ => Err(QuotaError),
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.window.to_string();
        // "m" for "1m", as it is written.
        let short = window
            .strip_prefix('1')
            .filter(|unit| !unit.starts_with(|first: char| first.is_ascii_digit()));
        write!(f, "{}/{}", self.count, short.unwrap_or(&window))
    }
}

impl Allowance {
    /// The largest message for so many recipients; `None` = nothing is said.
    pub fn size_for(&self, recipients: usize) -> Option<ByteSize> {
        self.sizes
            .iter()
            .filter(|limit| recipients > limit.above as usize)
            .map(|limit| limit.size)
            .min()
    }

    /// Whether anything has to be counted.
    pub fn has_quotas(&self) -> bool {
        !self.quotas.is_empty() || !self.network_quotas.is_empty() || self.monthly.is_some()
    }

    pub(super) fn read(fields: &Fields<'_>) -> Self {
        let mut sizes: Vec<SizeLimit> = Vec::new();
        for entry in fields.maps("sizes") {
            let above = entry.small_integer("above", 0..=10_000).unwrap_or(0);
            let size = entry.parsed::<ByteSize>("size");
            if !entry.is_given("size") {
                entry.problem("size", "is missing");
            }
            if let Some(size) = size {
                if size.as_u64() < 1024 {
                    entry.problem("size", "at least 1KiB is expected");
                }
                match sizes.last() {
                    Some(before) if before.above >= above => {
                        entry.problem("above", "must be more than that of the entry before");
                    }
                    Some(before) if before.size <= size => {
                        entry.problem("size", "must be less than that of the entry before");
                    }
                    _ => sizes.push(SizeLimit { above, size }),
                }
            }
            entry.close();
        }
        Self {
            max_recipients: fields.small_integer("maxRecipients", 1..=10_000),
            sizes,
            quotas: read_quotas(fields, "quotas"),
            network_quotas: read_quotas(fields, "networkQuotas"),
            monthly: fields.integer("monthly", 1..=1_000_000_000_000),
            over_quota: fields.one_of("overQuota", &OVER_QUOTA),
            queue_up_to: fields.parsed("queueUpTo"),
        }
    }

    /// `None` when nothing is set.
    pub(super) fn spec(&self) -> Option<Value> {
        let mut spec = Map::new();
        if let Some(most) = self.max_recipients {
            spec.insert("maxRecipients".to_owned(), json!(most));
        }
        if !self.sizes.is_empty() {
            let size =
                |limit: &SizeLimit| json!({ "above": limit.above, "size": limit.size.to_string() });
            spec.insert(
                "sizes".to_owned(),
                self.sizes.iter().map(size).collect::<Vec<_>>().into(),
            );
        }
        for (name, quotas) in [
            ("quotas", &self.quotas),
            ("networkQuotas", &self.network_quotas),
        ] {
            if !quotas.is_empty() {
                let texts: Vec<String> = quotas.iter().map(Quota::to_string).collect();
                spec.insert(name.to_owned(), json!(texts));
            }
        }
        if let Some(monthly) = self.monthly {
            spec.insert("monthly".to_owned(), json!(monthly));
        }
        if let Some(over_quota) = self.over_quota {
            let word = super::word(&OVER_QUOTA, over_quota);
            spec.insert("overQuota".to_owned(), json!(word));
        }
        if let Some(queue_up_to) = self.queue_up_to {
            spec.insert("queueUpTo".to_owned(), json!(queue_up_to.to_string()));
        }
        (!spec.is_empty()).then_some(Value::Object(spec))
    }
}

fn read_quotas(fields: &Fields<'_>, name: &'static str) -> Vec<Quota> {
    let quotas: Vec<Quota> = fields.parsed_list(name);
    if quotas.len() > MOST_QUOTAS {
        fields.problem(name, format!("at most {MOST_QUOTAS} are expected"));
    }
    for (index, quota) in quotas.iter().enumerate() {
        for other in quotas.iter().take(index) {
            let (short, long) = if other.window < quota.window {
                (other, quota)
            } else {
                (quota, other)
            };
            if long.count <= short.count && long.window > short.window {
                fields.problem(name, format!("{short} has no effect beside {long}"));
            } else if long.window == short.window {
                fields.problem(name, format!("{quota} and {other} are of the same window"));
            }
        }
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_quotas() {
        for (text, count, seconds, written) in [
            ("300/m", 300, 60, "300/m"),
            ("2000/1h", 2000, 3600, "2000/h"),
            ("10000/12h", 10_000, 43_200, "10000/12h"),
            ("5/30s", 5, 30, "5/30s"),
            ("7/15m", 7, 900, "7/15m"),
        ] {
            let quota: Quota = text.parse().unwrap();
            assert_eq!(
                (quota.count, quota.window),
                (count, Span::from_secs(seconds))
            );
            assert_eq!(quota.to_string(), written);
            assert_eq!(written.parse(), Ok(quota));
        }
        for text in [
            "", "5", "/m", "0/m", "5/", "5/x", "5/500ms", "5/32d", "+5/m", "5/-1m",
        ] {
            assert_eq!(text.parse::<Quota>(), Err(QuotaError), "{text}");
        }
    }

    #[test]
    fn the_smallest_size_that_applies_holds() {
        let limit = |above, mebibytes| SizeLimit {
            above,
            size: ByteSize::from_mib(mebibytes),
        };
        let allowance = Allowance {
            sizes: vec![limit(0, 500), limit(1, 150), limit(50, 5)],
            ..Allowance::default()
        };
        for (recipients, mebibytes) in [(1, 500), (2, 150), (50, 150), (51, 5), (1000, 5)] {
            assert_eq!(
                allowance.size_for(recipients),
                Some(ByteSize::from_mib(mebibytes))
            );
        }
        assert_eq!(Allowance::default().size_for(9), None);
    }
}
