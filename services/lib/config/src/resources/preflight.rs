//! What is done to the messages of a tenant before they are accepted: `preflight` and `repair` of a Tenant.

use serde_json::{Map, Value, json};

use crate::Fields;

/// Checks of header sections. Without any there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// In the order of the document.
    pub checks: Vec<Check>,
    /// A message whose warnings weigh so much together is refused; `None`: never.
    pub reject_at: Option<u32>,
    /// Warnings are put into the message.
    pub warn_header: bool,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is looked for.
    pub rule: CheckRule,
    /// What follows when it is found.
    pub action: CheckAction,
    /// Of a warning, 1 to 100.
    pub weight: u32,
    /// Streams whose messages are looked at; empty: all.
    pub streams: Vec<String>,
}

/// What a check looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckRule {
    /// No `Subject`, or an empty one.
    NoSubject,
    /// Neither `To` nor `Cc`.
    NoRecipientField,
    /// No `List-Unsubscribe`.
    NoUnsubscribe,
    /// No `List-Unsubscribe-Post`.
    NoOneClick,
    /// Lines that are no header fields.
    MalformedHeader,
    /// Octets beyond ASCII without SMTPUTF8.
    EightBitHeader,
}

/// What follows when it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckAction {
    /// It is counted and said.
    Warn,
    /// The message is refused.
    Reject,
}

const RULES: [(&str, CheckRule); 6] = [
    ("noSubject", CheckRule::NoSubject),
    ("noRecipientField", CheckRule::NoRecipientField),
    ("noUnsubscribe", CheckRule::NoUnsubscribe),
    ("noOneClick", CheckRule::NoOneClick),
    ("malformedHeader", CheckRule::MalformedHeader),
    ("eightBitHeader", CheckRule::EightBitHeader),
];

const ACTIONS: [(&str, CheckAction); 2] =
    [("warn", CheckAction::Warn), ("reject", CheckAction::Reject)];

impl CheckRule {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        super::word(&RULES, self)
    }

    /// What is wrong with a message in which it is found, for its sender.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::NoSubject => "it has no subject",
            Self::NoRecipientField => "it names nobody in To or Cc",
            Self::NoUnsubscribe => "it has no List-Unsubscribe field",
            Self::NoOneClick => "it has no List-Unsubscribe-Post field",
            Self::MalformedHeader => "lines of its header section are no fields",
            Self::EightBitHeader => "its header section has unencoded characters beyond ASCII",
        }
    }
}

impl Preflight {
    /// The checks for a stream.
    pub fn of_stream<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = &'a Check> {
        self.checks.iter().filter(move |check| {
            check.streams.is_empty() || check.streams.iter().any(|name| name == stream)
        })
    }

    /// `streams` are those of the tenant.
    pub(super) fn read(fields: &Fields<'_>, streams: &[&str]) -> Self {
        let mut checks: Vec<Check> = Vec::new();
        for entry in fields.maps("checks") {
            let rule = match entry.required_text("rule") {
                Some(_) => entry.one_of("rule", &RULES),
                None => None,
            };
            let action = entry
                .one_of("action", &ACTIONS)
                .unwrap_or(CheckAction::Warn);
            let weight = entry.small_integer("weight", 1..=100);
            if weight.is_some() && action == CheckAction::Reject {
                entry.problem("weight", "has no meaning: what is found is refused");
            }
            let of_streams = entry.read_list("streams", |name| {
                if streams.contains(&name) {
                    Ok(name.to_owned())
                } else {
                    Err("the name of a stream of the tenant is expected".to_owned())
                }
            });
            if let Some(rule) = rule {
                checks.push(Check {
                    rule,
                    action,
                    weight: weight.unwrap_or(1),
                    streams: of_streams,
                });
            }
            entry.close();
        }
        Self {
            checks,
            reject_at: fields.small_integer("rejectAt", 1..=10_000),
            warn_header: fields.boolean("warnHeader").unwrap_or(false),
        }
    }

    /// `None` when nothing is set.
    pub(super) fn spec(&self) -> Option<Value> {
        if *self == Self::default() {
            return None;
        }
        let check = |check: &Check| {
            let mut spec = json!({
                "rule": check.rule.name(),
                "action": super::word(&ACTIONS, check.action),
            });
            if check.action == CheckAction::Warn {
                spec["weight"] = json!(check.weight);
            }
            if !check.streams.is_empty() {
                spec["streams"] = json!(check.streams);
            }
            spec
        };
        let checks: Vec<Value> = self.checks.iter().map(check).collect();
        let mut spec = json!({ "checks": checks, "warnHeader": self.warn_header });
        if let Some(reject_at) = self.reject_at {
            spec["rejectAt"] = json!(reject_at);
        }
        Some(spec)
    }
}

/// What is mended in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// `Date` is added where it is missing.
    pub date: bool,
    /// So is `Message-ID`.
    pub message_id: bool,
    /// What becomes of lines that are too long.
    pub long_lines: LongLines,
}

/// What becomes of lines of more than 998 octets (RFC 5322 section 2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongLines {
    /// They are broken, before anything is hashed; those of a message that came with a signature are kept.
    #[default]
    Break,
    /// They stay as they are. Some hosts refuse them, others break them after they were signed.
    Keep,
    /// The message is refused.
    Reject,
}

const LONG_LINES: [(&str, LongLines); 3] = [
    ("break", LongLines::Break),
    ("keep", LongLines::Keep),
    ("reject", LongLines::Reject),
];

impl Default for Repair {
    fn default() -> Self {
        Self {
            date: true,
            message_id: true,
            long_lines: LongLines::default(),
        }
    }
}

impl Repair {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        Self {
            date: fields.boolean("date").unwrap_or(true),
            message_id: fields.boolean("messageId").unwrap_or(true),
            long_lines: fields.one_of("longLines", &LONG_LINES).unwrap_or_default(),
        }
    }

    /// `None` when nothing is set.
    pub(super) fn spec(self) -> Option<Value> {
        let mut spec = Map::new();
        for (name, is_added) in [("date", self.date), ("messageId", self.message_id)] {
            if !is_added {
                spec.insert(name.to_owned(), json!(false));
            }
        }
        if self.long_lines != LongLines::default() {
            let word = super::word(&LONG_LINES, self.long_lines);
            spec.insert("longLines".to_owned(), json!(word));
        }
        (!spec.is_empty()).then_some(Value::Object(spec))
    }
}
