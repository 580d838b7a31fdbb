//! Kind Shaping.

use mail::{Rate, Span};
use serde_json::{Map, Value, json};

use super::names::DomainMatch;
use crate::Fields;

/// Rules for lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapingSet {
    /// Unique.
    pub name: String,
    /// In the order of the document, which has no meaning.
    pub rules: Vec<ShapingRule>,
}

/// Sets fields for the lanes that it matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShapingRule {
    /// Which lanes.
    pub matches: ShapingMatch,
    /// Connections open at once.
    pub connections: Option<u32>,
    /// 0 = no limit.
    pub messages_per_connection: Option<u32>,
    /// `Some(None)` = no limit.
    pub rate: Option<Option<Rate>>,
    /// TLS.
    pub tls: Option<TlsPolicy>,
    /// Until the connection is there.
    pub connect_timeout: Option<Span>,
    /// An unused connection is closed after it.
    pub idle_timeout: Option<Span>,
}

/// Which lanes a rule is for; what is `None` matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ShapingMatch {
    /// Name of an egress source.
    pub source: Option<String>,
    /// Recipient domain.
    pub domain: Option<DomainMatch>,
    /// Site.
    pub site: Option<DomainMatch>,
    /// Name of an egress pool.
    pub pool: Option<String>,
}

/// When TLS is used towards a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Never.
    None,
    /// When it is offered; certificates are not checked (RFC 7435).
    Opportunistic,
    /// Encrypted or not at all; certificates are not checked.
    Required,
}

const TLS: [(&str, TlsPolicy); 3] = [
    ("none", TlsPolicy::None),
    ("opportunistic", TlsPolicy::Opportunistic),
    ("required", TlsPolicy::Required),
];

/// The limits and policies of one lane, complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shaping {
    /// Connections open at once, over all senders; at least 1.
    pub connections: u32,
    /// 0 = no limit.
    pub messages_per_connection: u32,
    /// Messages; `None` = no limit.
    pub rate: Option<Rate>,
    /// TLS.
    pub tls: TlsPolicy,
    /// Until the connection is there.
    pub connect_timeout: Span,
    /// An unused connection is closed after it.
    pub idle_timeout: Span,
}

/// Times follow RFC 5321 section 4.5.3.2.
impl Default for Shaping {
    fn default() -> Self {
        Self {
            connections: 10,
            messages_per_connection: 100,
            rate: None,
            tls: TlsPolicy::Opportunistic,
            connect_timeout: Span::from_secs(30),
            idle_timeout: Span::from_secs(5),
        }
    }
}

impl Shaping {
    /// Lays the fields that the rule sets over the present ones.
    pub(crate) fn overlay(&mut self, rule: &ShapingRule) {
        fn set<T: Copy>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut self.connections, rule.connections);
        set(
            &mut self.messages_per_connection,
            rule.messages_per_connection,
        );
        set(&mut self.rate, rule.rate);
        set(&mut self.tls, rule.tls);
        set(&mut self.connect_timeout, rule.connect_timeout);
        set(&mut self.idle_timeout, rule.idle_timeout);
    }
}

/// A lane, as shaping is asked for it. Domain and site in lower case and A-labels.
#[derive(Debug, Clone, Copy)]
pub struct ShapingQuery<'a> {
    /// Site.
    pub site: &'a str,
    /// Recipient domain.
    pub domain: &'a str,
    /// Name of the egress source.
    pub source: &'a str,
    /// Name of the egress pool.
    pub pool: &'a str,
}

impl ShapingMatch {
    /// Whether the lane is one of its.
    pub(crate) fn matches(&self, lane: &ShapingQuery<'_>) -> bool {
        self.source
            .as_ref()
            .is_none_or(|source| source == lane.source)
            && self.pool.as_ref().is_none_or(|pool| pool == lane.pool)
            && self
                .domain
                .as_ref()
                .is_none_or(|domain| domain.matches(lane.domain))
            && self
                .site
                .as_ref()
                .is_none_or(|site| lane.site.split(',').any(|host| site.matches(host)))
    }

    /// Compares as "source before domain before site before pool", longer suffixes before shorter.
    pub(crate) fn specificity(&self) -> (bool, usize, usize, bool) {
        let of = |domain: &Option<DomainMatch>| domain.as_ref().map_or(0, DomainMatch::specificity);
        (
            self.source.is_some(),
            of(&self.domain),
            of(&self.site),
            self.pool.is_some(),
        )
    }
}

impl ShapingRule {
    /// Names of the fields that it sets, as they are written.
    pub(crate) fn fields(&self) -> Vec<&'static str> {
        let set = [
            ("connections", self.connections.is_some()),
            (
                "messagesPerConnection",
                self.messages_per_connection.is_some(),
            ),
            ("rate", self.rate.is_some()),
            ("tls", self.tls.is_some()),
            ("connectTimeout", self.connect_timeout.is_some()),
            ("idleTimeout", self.idle_timeout.is_some()),
        ];
        set.iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(name, _)| *name)
            .collect()
    }

    fn read(fields: &Fields<'_>) -> Self {
        let matched = fields.map("match");
        let text = |name| matched.text(name).filter(|text| !text.is_empty());
        let domain = |name| text(name).and_then(|_| matched.read(name, DomainMatch::parse));
        let matches = ShapingMatch {
            source: text("source").map(str::to_owned),
            domain: domain("domain"),
            site: domain("site"),
            pool: text("pool").map(str::to_owned),
        };
        matched.close();
        let rule = Self {
            matches,
            connections: fields.small_integer("connections", 1..=100_000),
            messages_per_connection: fields.small_integer("messagesPerConnection", 0..=1_000_000),
            rate: fields.read("rate", |text| match text {
                "none" => Ok(None),
                text => text
                    .parse()
                    .map(Some)
                    .map_err(|error| format!("{error}, or none")),
            }),
            tls: fields.one_of("tls", &TLS),
            connect_timeout: positive(fields, "connectTimeout"),
            idle_timeout: fields.parsed("idleTimeout"),
        };
        if rule.fields().is_empty() {
            fields.problem("", "the rule sets nothing");
        }
        rule
    }

    fn spec(&self) -> Value {
        let mut matched = Map::new();
        let entries = [
            ("source", self.matches.source.clone()),
            (
                "domain",
                self.matches.domain.as_ref().map(DomainMatch::to_string),
            ),
            (
                "site",
                self.matches.site.as_ref().map(DomainMatch::to_string),
            ),
            ("pool", self.matches.pool.clone()),
        ];
        for (name, text) in entries {
            if let Some(text) = text {
                matched.insert(name.to_owned(), Value::String(text));
            }
        }
        let span = |span: Option<Span>| span.map(|span| json!(span.to_string()));
        let entries = [
            ("match", Some(Value::Object(matched))),
            ("connections", self.connections.map(|value| json!(value))),
            (
                "messagesPerConnection",
                self.messages_per_connection.map(|value| json!(value)),
            ),
            (
                "rate",
                self.rate
                    .map(|rate| json!(rate.map_or("none".to_owned(), |rate| rate.to_string()))),
            ),
            ("tls", self.tls.map(|tls| json!(super::word(&TLS, tls)))),
            ("connectTimeout", span(self.connect_timeout)),
            ("idleTimeout", span(self.idle_timeout)),
        ];
        let fields = entries
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(fields.collect())
    }
}

impl ShapingSet {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let mut rules = Vec::new();
        for fields in spec.maps("rules") {
            rules.push(ShapingRule::read(&fields));
            fields.close();
        }
        if rules.is_empty() && !spec.is_given("rules") {
            spec.problem("rules", "at least one rule is expected");
        }
        Some(Self {
            name: name.to_owned(),
            rules,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let rules: Vec<Value> = self.rules.iter().map(ShapingRule::spec).collect();
        json!({ "rules": rules })
    }
}

fn positive(fields: &Fields<'_>, name: &'static str) -> Option<Span> {
    let span: Option<Span> = fields.parsed(name);
    if span.is_some_and(|span| span.as_millis() == 0) {
        fields.problem(name, "must not be 0");
    }
    span
}
