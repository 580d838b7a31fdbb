//! Kind Automation.

use mail::{Rate, Span};
use serde_json::{Value, json};

use super::shaping::ShapingMatch;
use crate::Fields;

/// Rules for what the other side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutomationSet {
    /// Unique.
    pub name: String,
    /// In the order of the document, which has no meaning.
    pub rules: Vec<AutomationRule>,
    /// As if it were not there; switches off a shipped one of the same name.
    pub disabled: bool,
}

/// When replies of a kind come too often, something is done for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutomationRule {
    /// For which lanes.
    pub matches: ShapingMatch,
    /// For which replies.
    pub reply: ReplyMatch,
    /// So many of them within so long; `None` = the first one is enough.
    pub threshold: Option<Rate>,
    /// What is done.
    pub action: Action,
    /// To what.
    pub scope: Scope,
}

/// Which replies; what is empty fits any that is not an acceptance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyMatch {
    /// Reply codes, 400 to 599.
    pub codes: Vec<u16>,
    /// Enhanced codes, such as 4.7.28.
    pub enhanced: Vec<String>,
    /// Must be found in the text.
    pub text: Option<TextPattern>,
}

/// A regular expression without backtracking, its size bounded; upper and lower case are the same.
#[derive(Debug, Clone)]
pub struct TextPattern(regex::Regex);

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing is sent.
    Suspend {
        /// For so long.
        span: Span,
    },
    /// Less is sent.
    Limit {
        /// For so long.
        span: Span,
        /// Messages, at most.
        rate: Option<Rate>,
        /// Connections, at most.
        connections: Option<u32>,
        /// Messages per connection, at most.
        messages_per_connection: Option<u32>,
    },
    /// The tenant goes into quarantine from the pool to which its mail is routed.
    Quarantine {
        /// For so long; `None` = until somebody ends it.
        span: Option<Span>,
    },
    /// The present rate is cut to a share at each trigger, and grows back by steps.
    Slow {
        /// Per cent of the present rate that is left, 10 to 90.
        to_percent: u32,
        /// A tenth of the rate before comes back each time that so much has passed.
        recover: Span,
        /// It does not get less.
        least: Rate,
    },
}

/// What an action concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The lane that heard the reply.
    Lane,
    /// All lanes of its pool at the provider (at the site, if it has none).
    Pool,
    /// The tenant's mail to the provider (to the site, if it has none).
    TenantAtProvider,
    /// All mail of the tenant.
    Tenant,
}

const SCOPES: [(&str, Scope); 4] = [
    ("lane", Scope::Lane),
    ("pool", Scope::Pool),
    ("tenantAtProvider", Scope::TenantAtProvider),
    ("tenant", Scope::Tenant),
];

#[derive(Clone, Copy)]
enum Word {
    Suspend,
    Limit,
    Slow,
    Quarantine,
}

const ACTIONS: [(&str, Word); 4] = [
    ("suspend", Word::Suspend),
    ("limit", Word::Limit),
    ("slow", Word::Slow),
    ("quarantine", Word::Quarantine),
];

/// Bytes of a compiled pattern at most.
const PATTERN_SIZE: usize = 256 << 10;
/// Characters of a pattern at most.
const PATTERN_LENGTH: usize = 500;
/// Replies that a threshold may count.
const MOST_COUNTED: u32 = 1_000;
/// The longest time that a rule acts on its own.
const LONGEST: Span = Span::from_secs(30 * 86_400);

impl TextPattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().count() > PATTERN_LENGTH {
            return Err(format!(
                "a regular expression of 1 to {PATTERN_LENGTH} characters is expected"
            ));
        }
        let built = regex::RegexBuilder::new(text)
            .case_insensitive(true)
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE)
            .build();
        let first_line = |error: regex::Error| {
            let text = error.to_string();
            let line = text.lines().rfind(|line| !line.trim().is_empty());
            format!(
                "a regular expression is expected ({})",
                line.unwrap_or_default().trim()
            )
        };
        built.map(Self).map_err(first_line)
    }

    /// Whether it is found in a text. Takes time in proportion to the text's length.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for TextPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for TextPattern {}

impl ReplyMatch {
    /// Whether a reply is one of them. `enhanced` may be empty.
    pub fn fits(&self, code: u16, enhanced: &str, text: &str) -> bool {
        (self.codes.is_empty() || self.codes.contains(&code))
            && (self.enhanced.is_empty() || self.enhanced.iter().any(|wanted| wanted == enhanced))
            && self.text.as_ref().is_none_or(|pattern| pattern.is_in(text))
    }

    fn read(fields: &Fields<'_>) -> Self {
        let enhanced = |text: &str| {
            let parts: Vec<&str> = text.split('.').collect();
            let is_number = |part: &&str| part.parse::<u16>().is_ok_and(|number| number < 1000);
            if parts.len() == 3 && matches!(parts[0], "4" | "5") && parts.iter().all(is_number) {
                Ok(text.to_owned())
            } else {
                Err("an enhanced code such as 4.7.28 is expected".to_owned())
            }
        };
        let reply = Self {
            codes: fields
                .integers("codes", 400..=599)
                .into_iter()
                .filter_map(|code| u16::try_from(code).ok())
                .collect(),
            enhanced: fields.read_list("enhanced", enhanced),
            text: fields.read("text", TextPattern::parse),
        };
        if !["codes", "enhanced", "text"]
            .iter()
            .any(|name| fields.is_given(name))
        {
            fields.problem("", "codes, enhanced or text are expected");
        }
        reply
    }
}

impl AutomationRule {
    fn read(fields: &Fields<'_>) -> Option<Self> {
        let reply = fields.map("reply");
        let threshold: Option<Rate> = fields.parsed("threshold");
        if threshold.is_some_and(|rate| rate.count() > MOST_COUNTED) {
            fields.problem("threshold", format!("at most {MOST_COUNTED} are counted"));
        }
        let word = fields.one_of("action", &ACTIONS);
        if !fields.is_given("action") {
            fields.problem("action", "is missing");
        }
        let word = word?;
        let usual = match word {
            Word::Quarantine => Scope::Tenant,
            Word::Suspend | Word::Limit | Word::Slow => Scope::Lane,
        };
        let rule = Self {
            matches: ShapingMatch::read(&fields.map("match")),
            reply: ReplyMatch::read(&reply),
            threshold,
            action: match word {
                Word::Suspend => Action::Suspend {
                    span: read_span(fields),
                },
                Word::Limit => read_limit(fields),
                Word::Slow => read_slow(fields),
                Word::Quarantine => Action::Quarantine {
                    span: fields.is_given("for").then(|| read_span(fields)),
                },
            },
            scope: fields.one_of("scope", &SCOPES).unwrap_or(usual),
        };
        reply.close();
        let of_tenant = matches!(rule.scope, Scope::Tenant | Scope::TenantAtProvider);
        match rule.action {
            Action::Quarantine { .. } if rule.scope != Scope::Tenant => {
                fields.problem("scope", "a tenant goes into quarantine: tenant is expected");
            }
            Action::Limit { .. } | Action::Slow { .. } if of_tenant => fields.problem(
                "scope",
                "tenants can be suspended or go into quarantine only: lane or pool is expected",
            ),
            _ => {}
        }
        Some(rule)
    }

    fn spec(&self) -> Value {
        let mut reply = json!({});
        if !self.reply.codes.is_empty() {
            reply["codes"] = json!(self.reply.codes);
        }
        if !self.reply.enhanced.is_empty() {
            reply["enhanced"] = json!(self.reply.enhanced);
        }
        if let Some(pattern) = &self.reply.text {
            reply["text"] = json!(pattern.0.as_str());
        }
        let mut spec = json!({
            "match": self.matches.spec(),
            "reply": reply,
            "scope": super::word(&SCOPES, self.scope),
        });
        if let Some(threshold) = self.threshold {
            spec["threshold"] = json!(threshold.to_string());
        }
        match self.action {
            Action::Suspend { span } => {
                spec["action"] = json!("suspend");
                spec["for"] = json!(span.to_string());
            }
            Action::Quarantine { span } => {
                spec["action"] = json!("quarantine");
                if let Some(span) = span {
                    spec["for"] = json!(span.to_string());
                }
            }
            Action::Limit {
                span,
                rate,
                connections,
                messages_per_connection,
            } => {
                spec["action"] = json!("limit");
                spec["for"] = json!(span.to_string());
                if let Some(rate) = rate {
                    spec["rate"] = json!(rate.to_string());
                }
                if let Some(connections) = connections {
                    spec["connections"] = json!(connections);
                }
                if let Some(messages) = messages_per_connection {
                    spec["messagesPerConnection"] = json!(messages);
                }
            }
            Action::Slow {
                to_percent,
                recover,
                least,
            } => {
                spec["action"] = json!("slow");
                spec["to"] = json!(to_percent);
                spec["recover"] = json!(recover.to_string());
                spec["least"] = json!(least.to_string());
            }
        }
        spec
    }
}

fn read_span(fields: &Fields<'_>) -> Span {
    let span: Option<Span> = fields.parsed("for");
    match span {
        None if !fields.is_given("for") => fields.problem("for", "is missing"),
        Some(span) if !(Span::from_secs(1)..=LONGEST).contains(&span) => {
            fields.problem("for", format!("1s to {LONGEST} is expected, found {span}"));
        }
        _ => {}
    }
    span.unwrap_or(LONGEST)
}

fn read_limit(fields: &Fields<'_>) -> Action {
    let names = ["rate", "connections", "messagesPerConnection"];
    if !names.iter().any(|name| fields.is_given(name)) {
        fields.problem(
            "action",
            "rate, connections or messagesPerConnection are expected with limit",
        );
    }
    Action::Limit {
        span: read_span(fields),
        rate: fields.parsed("rate"),
        connections: fields.small_integer("connections", 1..=100_000),
        messages_per_connection: fields.small_integer("messagesPerConnection", 1..=1_000_000),
    }
}

fn read_slow(fields: &Fields<'_>) -> Action {
    let recover = fields.parsed("recover").unwrap_or(Span::from_secs(10 * 60));
    if !(Span::from_secs(1)..=LONGEST).contains(&recover) {
        fields.problem(
            "recover",
            format!("1s to {LONGEST} is expected, found {recover}"),
        );
    }
    Action::Slow {
        to_percent: fields.small_integer("to", 10..=90).unwrap_or(50),
        recover,
        least: fields
            .parsed("least")
            .unwrap_or_else(|| "1/m".parse().expect("it is the form of a rate")),
    }
}

impl AutomationSet {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let disabled = spec.boolean("disabled").unwrap_or(false);
        let mut rules = Vec::new();
        for fields in spec.maps("rules") {
            rules.extend(AutomationRule::read(&fields));
            fields.close();
        }
        if !spec.is_given("rules") && !disabled {
            spec.problem("rules", "at least one rule is expected");
        }
        Some(Self {
            name: name.to_owned(),
            rules,
            disabled,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let rules: Vec<Value> = self.rules.iter().map(AutomationRule::spec).collect();
        let mut spec = json!({ "rules": rules });
        if self.disabled {
            spec["disabled"] = json!(true);
        }
        spec
    }
}
