//! Kind Shaping.

mod shared;

use mail::{Rate, Span};
use serde_json::{Value, json};

use super::names::DomainMatch;
use crate::Fields;

use shared::SCOPES;
pub use shared::{ShapingScope, SharedShaping};

/// Windows of one field at most: each costs a question to Redis.
const MOST_WINDOWS: usize = 4;

/// Rules for lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapingSet {
    /// Unique.
    pub name: String,
    /// In the order of the document, which has no meaning.
    pub rules: Vec<ShapingRule>,
    /// As if it were not there; switches off a shipped one of the same name.
    pub disabled: bool,
}

/// Sets fields for the lanes that it matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShapingRule {
    /// Which lanes.
    pub matches: ShapingMatch,
    /// For each of them, or for all of a source and provider together.
    pub scope: ShapingScope,
    /// Connections open at once.
    pub connections: Option<u32>,
    /// 0 = no limit.
    pub messages_per_connection: Option<u32>,
    /// See [`Shaping::rates`]; an empty list = no limit.
    pub rates: Option<Vec<Rate>>,
    /// See [`Shaping::connection_rate`]; `Some(None)` = no limit.
    pub connection_rate: Option<Option<Rate>>,
    /// See [`Shaping::ramp_up`].
    pub ramp_up: Option<Span>,
    /// TLS.
    pub tls: Option<TlsPolicy>,
    /// Until the connection is there.
    pub connect_timeout: Option<Span>,
    /// An unused connection is closed after it.
    pub idle_timeout: Option<Span>,
    /// See [`Shaping::command_timeout`].
    pub command_timeout: Option<Span>,
    /// See [`Shaping::data_timeout`].
    pub data_timeout: Option<Span>,
    /// See [`Shaping::final_reply_timeout`].
    pub final_reply_timeout: Option<Span>,
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
    /// Name of a provider.
    pub provider: Option<String>,
    /// Name of a stream.
    pub stream: Option<String>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaping {
    /// Connections open at once, over all senders; at least 1.
    pub connections: u32,
    /// 0 = no limit.
    pub messages_per_connection: u32,
    /// Messages, in windows that all hold, the shortest first; empty = no limit. No two have the same length, and
    /// longer ones allow more.
    pub rates: Vec<Rate>,
    /// Connections that are opened; `None` = no limit.
    pub connection_rate: Option<Rate>,
    /// A lane without a connection begins with one and gets another after each of these spans; 0 = all at once.
    pub ramp_up: Span,
    /// TLS.
    pub tls: TlsPolicy,
    /// Until the connection is there.
    pub connect_timeout: Span,
    /// An unused connection is closed after it.
    pub idle_timeout: Span,
    /// For the banner and for the reply to each command up to RCPT; 1 s to 1 h.
    pub command_timeout: Span,
    /// For the reply to DATA, and for each piece of the content to be taken; 1 s to 1 h.
    pub data_timeout: Span,
    /// For the reply after the final dot; 1 s to 1 h. An attempt without outcome is in doubt for so much longer.
    pub final_reply_timeout: Span,
    /// What holds besides for all lanes of its source to its provider together.
    pub shared: SharedShaping,
}

/// Times follow RFC 5321 section 4.5.3.2; those for a command, data and the final reply are the least that it asks
/// for.
impl Default for Shaping {
    fn default() -> Self {
        Self {
            connections: 10,
            messages_per_connection: 100,
            rates: Vec::new(),
            connection_rate: None,
            ramp_up: Span::from_secs(0),
            tls: TlsPolicy::Opportunistic,
            connect_timeout: Span::from_secs(30),
            idle_timeout: Span::from_secs(5),
            command_timeout: Span::from_secs(300),
            data_timeout: Span::from_secs(180),
            final_reply_timeout: Span::from_secs(600),
            shared: SharedShaping::default(),
        }
    }
}

impl Shaping {
    /// Limits of messages that hold for the lane, those that it shares included.
    pub fn message_rates(&self) -> impl Iterator<Item = &Rate> {
        self.rates.iter().chain(&self.shared.rates)
    }

    /// All fields, as they are written, but for those that are shared.
    pub fn written(&self) -> Vec<(&'static str, String)> {
        vec![
            ("connections", self.connections.to_string()),
            (
                "messagesPerConnection",
                self.messages_per_connection.to_string(),
            ),
            ("rate", written_rates(&self.rates)),
            ("connectionRate", written_or_none(self.connection_rate)),
            ("rampUp", self.ramp_up.to_string()),
            ("tls", super::word(&TLS, self.tls).to_owned()),
            ("connectTimeout", self.connect_timeout.to_string()),
            ("idleTimeout", self.idle_timeout.to_string()),
            ("commandTimeout", self.command_timeout.to_string()),
            ("dataTimeout", self.data_timeout.to_string()),
            ("finalReplyTimeout", self.final_reply_timeout.to_string()),
        ]
    }

    /// Lays the fields that the rule sets over the present ones.
    pub(crate) fn overlay(&mut self, rule: &ShapingRule) {
        if rule.scope == ShapingScope::Provider {
            return self.shared.overlay(rule);
        }
        set(&mut self.connections, &rule.connections);
        set(
            &mut self.messages_per_connection,
            &rule.messages_per_connection,
        );
        set(&mut self.rates, &rule.rates);
        set(&mut self.connection_rate, &rule.connection_rate);
        set(&mut self.ramp_up, &rule.ramp_up);
        set(&mut self.tls, &rule.tls);
        set(&mut self.connect_timeout, &rule.connect_timeout);
        set(&mut self.idle_timeout, &rule.idle_timeout);
        set(&mut self.command_timeout, &rule.command_timeout);
        set(&mut self.data_timeout, &rule.data_timeout);
        set(&mut self.final_reply_timeout, &rule.final_reply_timeout);
    }
}

/// A lane, as shaping is asked for it. Domain and site in lower case and A-labels.
#[derive(Debug, Clone, Copy)]
pub struct ShapingQuery<'a> {
    /// Site.
    pub site: &'a str,
    /// Recipient domain.
    pub domain: &'a str,
    /// Name of the stream.
    pub stream: &'a str,
    /// Name of the egress source.
    pub source: &'a str,
    /// Name of the egress pool.
    pub pool: &'a str,
}

impl ShapingMatch {
    pub(super) fn read(matched: &Fields<'_>) -> Self {
        let text = |name| matched.text(name).filter(|text| !text.is_empty());
        let domain = |name| text(name).and_then(|_| matched.read(name, DomainMatch::parse));
        let matches = Self {
            source: text("source").map(str::to_owned),
            domain: domain("domain"),
            site: domain("site"),
            provider: text("provider").map(str::to_owned),
            stream: text("stream").map(str::to_owned),
            pool: text("pool").map(str::to_owned),
        };
        matched.report_unknown();
        matches
    }

    pub(super) fn spec(&self) -> Value {
        let entries = self.entries().into_iter();
        let entries = entries.map(|(name, text)| (name.to_owned(), Value::String(text)));
        Value::Object(entries.collect())
    }

    /// Whether the lane is one of its. `provider` is that of the lane.
    pub fn matches(&self, lane: &ShapingQuery<'_>, provider: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == name)
        };
        is(&self.source, lane.source)
            && is(&self.pool, lane.pool)
            && is(&self.stream, lane.stream)
            && self
                .provider
                .as_deref()
                .is_none_or(|wanted| provider == Some(wanted))
            && self
                .domain
                .as_ref()
                .is_none_or(|domain| domain.matches(lane.domain))
            && self
                .site
                .as_ref()
                .is_none_or(|site| hosts_of(lane.site).any(|host| site.matches(host)))
    }

    /// Compares as "source before domain before site before provider before stream before pool", longer suffixes
    /// before shorter.
    pub(crate) fn specificity(&self) -> (bool, usize, usize, bool, bool, bool) {
        let of = |domain: &Option<DomainMatch>| domain.as_ref().map_or(0, DomainMatch::specificity);
        (
            self.source.is_some(),
            of(&self.domain),
            of(&self.site),
            self.provider.is_some(),
            self.stream.is_some(),
            self.pool.is_some(),
        )
    }

    /// What makes lanes of one source and site differ, as a part of their names.
    pub(crate) fn class(&self) -> Option<String> {
        let parts = [
            self.domain
                .as_ref()
                .map(|domain| format!("domain={domain}")),
            self.stream
                .as_ref()
                .map(|stream| format!("stream={stream}")),
            self.pool.as_ref().map(|pool| format!("pool={pool}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("&"))
    }

    /// As it is written.
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
        let entries = [
            ("source", self.source.clone()),
            ("domain", self.domain.as_ref().map(DomainMatch::to_string)),
            ("site", self.site.as_ref().map(DomainMatch::to_string)),
            ("provider", self.provider.clone()),
            ("stream", self.stream.clone()),
            ("pool", self.pool.clone()),
        ];
        entries
            .into_iter()
            .filter_map(|(name, text)| Some((name, text?)))
            .collect()
    }
}

impl std::fmt::Display for ShapingMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.entries();
        let texts: Vec<String> = entries
            .iter()
            .map(|(name, text)| format!("{name}: {text}"))
            .collect();
        write!(f, "{{{}}}", texts.join(", "))
    }
}

/// The MX hosts that the name of a site tells. One that was shortened (`a.example+3#0123456789abcdef`) tells the first.
pub(crate) fn hosts_of(site: &str) -> impl Iterator<Item = &str> {
    site.split(',')
        .map(|host| host.split_once('+').map_or(host, |(host, _)| host))
}

impl ShapingRule {
    /// The fields that it sets, as they are written.
    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        let mut shaping = Shaping::default();
        shaping.overlay(self);
        let set = self.fields();
        let mut written = match self.scope {
            ShapingScope::Site => shaping.written(),
            ShapingScope::Provider => shaping.shared.written(),
        };
        written.retain(|(name, _)| set.contains(name));
        written
    }

    /// Names of the fields that it sets, as they are written.
    pub(crate) fn fields(&self) -> Vec<&'static str> {
        let set = [
            ("connections", self.connections.is_some()),
            (
                "messagesPerConnection",
                self.messages_per_connection.is_some(),
            ),
            ("rate", self.rates.is_some()),
            ("connectionRate", self.connection_rate.is_some()),
            ("rampUp", self.ramp_up.is_some()),
            ("tls", self.tls.is_some()),
            ("connectTimeout", self.connect_timeout.is_some()),
            ("idleTimeout", self.idle_timeout.is_some()),
            ("commandTimeout", self.command_timeout.is_some()),
            ("dataTimeout", self.data_timeout.is_some()),
            ("finalReplyTimeout", self.final_reply_timeout.is_some()),
        ];
        set.iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(name, _)| *name)
            .collect()
    }

    fn read(fields: &Fields<'_>) -> Self {
        let rule = Self {
            matches: ShapingMatch::read(&fields.map("match")),
            scope: fields.one_of("scope", &SCOPES).unwrap_or_default(),
            connections: fields.small_integer("connections", 1..=100_000),
            messages_per_connection: fields.small_integer("messagesPerConnection", 0..=1_000_000),
            rates: read_rates(fields),
            connection_rate: fields.read("connectionRate", rate_or_none),
            ramp_up: fields.parsed("rampUp"),
            tls: fields.one_of("tls", &TLS),
            connect_timeout: positive(fields, "connectTimeout"),
            idle_timeout: fields.parsed("idleTimeout"),
            command_timeout: up_to_an_hour(fields, "commandTimeout"),
            data_timeout: up_to_an_hour(fields, "dataTimeout"),
            final_reply_timeout: up_to_an_hour(fields, "finalReplyTimeout"),
        };
        if rule.fields().is_empty() {
            fields.problem("", "the rule sets nothing");
        }
        rule.check_scope(fields);
        rule
    }

    fn spec(&self) -> Value {
        // One window has the short form.
        let (mut rate, mut rates) = (None, None);
        match self.rates.as_deref() {
            None => {}
            Some([]) => rate = Some("none".to_owned()),
            Some([one]) => rate = Some(one.to_string()),
            Some(several) => rates = Some(several.iter().map(Rate::to_string).collect::<Vec<_>>()),
        }
        let span = |span: Option<Span>| span.map(|span| json!(span.to_string()));
        let entries = [
            ("match", Some(self.matches.spec())),
            (
                "scope",
                (self.scope != ShapingScope::Site).then(|| json!(super::word(&SCOPES, self.scope))),
            ),
            ("connections", self.connections.map(|value| json!(value))),
            (
                "messagesPerConnection",
                self.messages_per_connection.map(|value| json!(value)),
            ),
            ("rate", rate.map(|text| json!(text))),
            ("rates", rates.map(|texts| json!(texts))),
            (
                "connectionRate",
                self.connection_rate
                    .map(|rate| json!(written_or_none(rate))),
            ),
            ("rampUp", span(self.ramp_up)),
            ("tls", self.tls.map(|tls| json!(super::word(&TLS, tls)))),
            ("connectTimeout", span(self.connect_timeout)),
            ("idleTimeout", span(self.idle_timeout)),
            ("commandTimeout", span(self.command_timeout)),
            ("dataTimeout", span(self.data_timeout)),
            ("finalReplyTimeout", span(self.final_reply_timeout)),
        ];
        let fields = entries
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(fields.collect())
    }
}

impl ShapingSet {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let disabled = spec.boolean("disabled").unwrap_or(false);
        let mut rules = Vec::new();
        for fields in spec.maps("rules") {
            rules.push(ShapingRule::read(&fields));
            fields.close();
        }
        if rules.is_empty() && !spec.is_given("rules") && !disabled {
            spec.problem("rules", "at least one rule is expected");
        }
        Some(Self {
            name: name.to_owned(),
            rules,
            disabled,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let rules: Vec<Value> = self.rules.iter().map(ShapingRule::spec).collect();
        let mut spec = json!({ "rules": rules });
        if self.disabled {
            spec["disabled"] = json!(true);
        }
        spec
    }
}

fn set<T: Clone>(field: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}

fn written_rates(rates: &[Rate]) -> String {
    let rates: Vec<String> = rates.iter().map(Rate::to_string).collect();
    match rates.is_empty() {
        true => "none".to_owned(),
        false => rates.join(", "),
    }
}

fn rate_or_none(text: &str) -> Result<Option<Rate>, String> {
    match text {
        "none" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error| format!("{error}, or none")),
    }
}

fn written_or_none(rate: Option<Rate>) -> String {
    rate.map_or("none".to_owned(), |rate| rate.to_string())
}

/// `rate: 100/s`, or several as `rates: [100/s, 20000/d]`.
fn read_rates(fields: &Fields<'_>) -> Option<Vec<Rate>> {
    let one = fields.read("rate", rate_or_none);
    let mut several: Vec<Rate> = fields.parsed_list("rates");
    if !fields.is_given("rates") {
        return one.map(|rate| rate.into_iter().collect());
    }
    if one.is_some() {
        fields.problem("rates", "rate and rates are given: one of them is expected");
    }
    if several.len() > MOST_WINDOWS {
        let what = format!(
            "at most {MOST_WINDOWS} are expected, found {}",
            several.len()
        );
        fields.problem("rates", what);
    }
    several.sort_by_key(|rate| rate.per());
    for (short, long) in several.iter().zip(several.iter().skip(1)) {
        if short.per() == long.per() {
            fields.problem(
                "rates",
                format!("{short} and {long} are of the same window"),
            );
        } else if long.count() <= short.count() {
            fields.problem("rates", format!("{short} has no effect beside {long}"));
        }
    }
    Some(several)
}

fn positive(fields: &Fields<'_>, name: &'static str) -> Option<Span> {
    let span: Option<Span> = fields.parsed(name);
    if span.is_some_and(|span| span.as_millis() == 0) {
        fields.problem(name, "must not be 0");
    }
    span
}

fn up_to_an_hour(fields: &Fields<'_>, name: &'static str) -> Option<Span> {
    let span: Option<Span> = fields.parsed(name);
    if let Some(span) = span
        && !(Span::from_secs(1)..=Span::from_secs(3600)).contains(&span)
    {
        fields.problem(name, format!("1s to 1h is expected, found {span}"));
    }
    span
}
