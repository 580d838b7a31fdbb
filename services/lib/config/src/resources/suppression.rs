//! What is done about addresses that nothing should be sent to: `suppression` of a Tenant or of one of its streams.

use mail::Span;
use serde_json::{Value, json};

use crate::Fields;

/// What is done about addresses that nothing should be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suppression {
    /// What a client hears of a suppressed recipient.
    pub at_recipient: AtRecipient,
    /// How often an address may fail for a while.
    pub soft_bounces: SoftBounces,
    /// How long entries hold that rules make.
    pub expires: SuppressionExpiry,
    /// How addresses are stored.
    pub addresses: StoredAddresses,
}

/// What a client hears of a suppressed recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtRecipient {
    /// It is accepted, and an event tells that nothing was sent.
    #[default]
    Accept,
    /// RCPT is refused.
    Reject,
}

/// How addresses are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoredAddresses {
    /// They can be listed.
    #[default]
    Clear,
    /// Only their keys are: nobody can list them.
    Hashed,
}

/// How often an address may fail for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftBounces {
    /// Days on which it failed, 1 to 30; 0: it is never suppressed for that.
    pub count: u32,
    /// In which they lie, 1 to 365 days.
    pub within: Span,
}

/// How long entries hold that rules make; `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuppressionExpiry {
    /// There was no such mailbox.
    pub hard: Option<Span>,
    /// It failed too often.
    pub soft: Option<Span>,
    /// Its owner complained.
    pub complaint: Option<Span>,
    /// Its owner wants no more.
    pub unsubscribe: Option<Span>,
}

impl Default for Suppression {
    fn default() -> Self {
        Self {
            at_recipient: AtRecipient::Accept,
            soft_bounces: SoftBounces {
                count: 5,
                within: days(30),
            },
            expires: SuppressionExpiry {
                hard: None,
                soft: Some(days(30)),
                complaint: None,
                unsubscribe: None,
            },
            addresses: StoredAddresses::Clear,
        }
    }
}

const AT_RECIPIENT: [(&str, AtRecipient); 2] = [
    ("accept", AtRecipient::Accept),
    ("reject", AtRecipient::Reject),
];
const ADDRESSES: [(&str, StoredAddresses); 2] = [
    ("clear", StoredAddresses::Clear),
    ("hashed", StoredAddresses::Hashed),
];
const NEVER: &str = "never";

const fn days(count: u64) -> Span {
    Span::from_secs(count * 86_400)
}

impl Suppression {
    /// What is said at `suppression`; what is not said is as in `usual`.
    pub(super) fn read(spec: &Fields<'_>, usual: &Self) -> Self {
        let fields = spec.map("suppression");
        let soft = fields.map("softBounces");
        let soft_bounces = SoftBounces {
            count: soft
                .small_integer("count", 0..=30)
                .unwrap_or(usual.soft_bounces.count),
            within: soft.parsed("within").unwrap_or(usual.soft_bounces.within),
        };
        if !(days(1)..=days(365)).contains(&soft_bounces.within) {
            let what = format!("1d to 365d is expected, found {}", soft_bounces.within);
            soft.problem("within", what);
        } else if u64::from(soft_bounces.count) * 86_400_000 > soft_bounces.within.as_millis() {
            let what = format!(
                "a day counts once: there are no {} of them in {}",
                soft_bounces.count, soft_bounces.within
            );
            soft.problem("count", what);
        }
        soft.close();
        let ends = fields.map("expires");
        let expires = SuppressionExpiry {
            hard: read_end(&ends, "hard", usual.expires.hard),
            soft: read_end(&ends, "soft", usual.expires.soft),
            complaint: read_end(&ends, "complaint", usual.expires.complaint),
            unsubscribe: read_end(&ends, "unsubscribe", usual.expires.unsubscribe),
        };
        ends.close();
        let at_recipient = fields.one_of("atRecipient", &AT_RECIPIENT);
        let addresses = fields.one_of("addresses", &ADDRESSES);
        fields.close();
        Self {
            at_recipient: at_recipient.unwrap_or(usual.at_recipient),
            soft_bounces,
            expires,
            addresses: addresses.unwrap_or(usual.addresses),
        }
    }

    /// `None` when it is as usual.
    pub(super) fn spec(&self, usual: &Self) -> Option<Value> {
        let end = |end: Option<Span>| end.map_or(NEVER.to_owned(), |span| span.to_string());
        (self != usual).then(|| {
            json!({
                "atRecipient": super::word(&AT_RECIPIENT, self.at_recipient),
                "softBounces": {
                    "count": self.soft_bounces.count,
                    "within": self.soft_bounces.within.to_string(),
                },
                "expires": {
                    "hard": end(self.expires.hard),
                    "soft": end(self.expires.soft),
                    "complaint": end(self.expires.complaint),
                    "unsubscribe": end(self.expires.unsubscribe),
                },
                "addresses": super::word(&ADDRESSES, self.addresses),
            })
        })
    }
}

fn read_end(fields: &Fields<'_>, name: &'static str, usual: Option<Span>) -> Option<Span> {
    let read = |text: &str| match text {
        NEVER => Ok(None),
        text => match text.parse::<Span>() {
            Ok(span) if (days(1)..=days(3_650)).contains(&span) => Ok(Some(span)),
            _ => Err("1d to 3650d or `never` is expected".to_owned()),
        },
    };
    fields.read(name, read).unwrap_or(usual)
}
