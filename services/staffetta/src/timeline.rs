//! The timeline of one message, out of the events of the journals.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::dialogue;

/// Collects the events of one message, from all partitions.
#[derive(Debug)]
pub(crate) struct Timeline {
    message_id: String,
    events: Vec<Value>,
}

impl Timeline {
    /// Of the message with this id.
    pub(crate) fn new(message_id: String) -> Self {
        Self {
            message_id,
            events: Vec::new(),
        }
    }

    /// Keeps the event when it is about the message, or the reception of the DSN that reports on it.
    pub(crate) fn add(&mut self, event: Value) {
        if text(&event, "message_id") == self.message_id
            || text(&event, "reports_on") == self.message_id
        {
            self.events.push(event);
        }
    }

    /// Takes over what another has collected.
    pub(crate) fn join(&mut self, other: Self) {
        self.events.extend(other.events);
    }

    /// In the order of time.
    pub(crate) fn events(mut self) -> Vec<Value> {
        // RFC 3339 of one form sorts as text; stable: what one record says stays in its order.
        self.events
            .sort_by_key(|event| (text(event, "time").to_owned(), event["sequence"].as_u64()));
        self.events
    }
}

/// The timeline for people.
pub(crate) fn render(message_id: &str, received: &str, events: &[Value]) -> String {
    let mut lines = format!("message {message_id}, received {received}\n");
    for event in events {
        lines.push_str(&format!(
            "{}  {:<12} {}\n",
            text(event, "time"),
            text(event, "type"),
            printable(&describe(message_id, event))
        ));
        if text(event, "type") == dialogue::TRANSCRIPT {
            lines.push_str(&dialogue::render(event));
        }
    }
    lines + &summary(message_id, events)
}

fn describe(message_id: &str, event: &Value) -> String {
    if text(event, "message_id") != message_id {
        return format!("of the DSN about it: message {}", text(event, "message_id"));
    }
    let mut parts: Vec<String> = Vec::new();
    let mut field = |name: &str, shown: &str| match &event[name] {
        Value::Null => {}
        Value::String(value) => parts.push(format!("{shown}{value}")),
        value => parts.push(format!("{shown}{value}")),
    };
    field("recipient", "");
    if event["recipient"].is_null() {
        field("tenant", "tenant ");
        field("stream", "stream ");
        field("campaign", "campaign ");
    }
    field("recipients", "recipients ");
    field("size", "octets ");
    field("reports_on", "a DSN about ");
    field("ordinals", "for recipients ");
    field("attempt", "attempt ");
    field("source", "source ");
    field("site", "site ");
    field("sender", "sender ");
    field("spool_sequence", "block ");
    field("reason", "");
    field("operation", "operation ");
    field("dsn_message_id", "message ");
    field("duration_ms", "ms ");
    if !event["mx"].is_null() {
        let tls = if event["tls"] == Value::Bool(true) {
            " with TLS"
        } else {
            " without TLS"
        };
        parts.push(format!(
            "{} [{}]{tls}",
            text(&event["mx"], "host"),
            text(&event["mx"], "address")
        ));
    }
    if !event["reply"].is_null() {
        parts.push(describe_reply(&event["reply"]));
    }
    for finding in event["findings"].as_array().into_iter().flatten() {
        parts.push(format!(
            "{} ({})",
            text(finding, "explanation"),
            text(finding, "rule")
        ));
    }
    if !event["next_attempt"].is_null() {
        parts.push(format!("next attempt {}", text(event, "next_attempt")));
    }
    if event["dsn_owed"] == Value::Bool(true) {
        parts.push("a DSN is owed".to_owned());
    }
    for (flag, words) in [
        ("hold", "on hold"),
        ("simulated", "simulated"),
        ("sandbox", "in the sandbox"),
    ] {
        if event[flag] == Value::Bool(true) {
            parts.push(words.to_owned());
        }
    }
    parts.join(", ")
}

fn describe_reply(reply: &Value) -> String {
    let code = reply["code"].as_u64().map(|code| code.to_string());
    let stage = text(reply, "stage").replace('_', " ");
    let words = [
        code.unwrap_or_default(),
        text(reply, "enhanced").to_owned(),
        text(reply, "text").to_owned(),
    ];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    format!("at {stage}: {}", words.join(" "))
}

/// How many recipients ended in which way.
fn summary(message_id: &str, events: &[Value]) -> String {
    let mut last: BTreeMap<u64, &str> = BTreeMap::new();
    let mut total = None;
    for event in events
        .iter()
        .filter(|event| text(event, "message_id") == message_id)
    {
        total = event["recipients"].as_u64().or(total);
        if let Some(ordinal) = event["ordinal"].as_u64() {
            last.insert(ordinal, text(event, "type"));
        }
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for kind in last.values() {
        *counts.entry(kind).or_default() += 1;
    }
    let mut parts: Vec<String> = counts
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let told = counts.values().sum();
    let untold = total.map_or(0, |total| total.saturating_sub(told));
    if untold > 0 {
        parts.push(format!("{untold} without an outcome yet"));
    }
    if parts.is_empty() {
        String::new()
    } else {
        format!("recipients: {}\n", parts.join(", "))
    }
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

/// The other side's text: nothing in it may steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_timeline_tells_what_happened_in_order_and_nothing_of_other_messages() {
        let events = [
            json!({ "type": "Attempt", "time": "2026-11-22T12:00:00.500Z", "sequence": 2, "message_id": "m",
                    "ordinals": [0, 1], "attempt": 1, "source": "a", "site": "mx.example", "sender": "s" }),
            json!({ "type": "Reception", "time": "2026-11-22T12:00:00.250Z", "sequence": 1, "message_id": "m",
                    "tenant": "acme", "stream": "bulk", "recipients": 3, "size": 2048, "spool_sequence": 9 }),
            json!({ "type": "Reception", "time": "2026-11-22T12:00:00.250Z", "sequence": 1, "message_id": "other" }),
            json!({ "type": "Delivery", "time": "2026-11-22T12:00:01.000Z", "sequence": 3, "message_id": "m",
                    "recipient": "a@d.example", "ordinal": 0, "attempt": 1, "tls": true, "tenant": "acme",
                    "mx": { "host": "mx1.example", "address": "192.0.2.1" },
                    "reply": { "stage": "final_dot", "code": 250, "enhanced": "2.0.0", "text": "ok\u{1b}[2J" } }),
            json!({ "type": "Deferral", "time": "2026-11-22T12:00:01.000Z", "sequence": 3, "message_id": "m",
                    "recipient": "b@d.example", "ordinal": 1, "attempt": 1,
                    "reply": { "stage": "rcpt", "code": 451, "text": "later" },
                    "next_attempt": "2026-11-22T12:05:00.000Z" }),
            json!({ "type": "Reception", "time": "2026-11-22T12:09:00.000Z", "sequence": 8, "message_id": "d",
                    "reports_on": "m" }),
        ];
        let mut timeline = Timeline::new("m".to_owned());
        for event in events {
            timeline.add(event);
        }
        let expected = "\
message m, received 2026-11-22T12:00:00.000Z
2026-11-22T12:00:00.250Z  Reception    tenant acme, stream bulk, recipients 3, octets 2048, block 9
2026-11-22T12:00:00.500Z  Attempt      for recipients [0,1], attempt 1, source a, site mx.example, sender s
2026-11-22T12:00:01.000Z  Delivery     a@d.example, attempt 1, mx1.example [192.0.2.1] with TLS, at final dot: 250 2.0.0 ok [2J
2026-11-22T12:00:01.000Z  Deferral     b@d.example, attempt 1, at rcpt: 451 later, next attempt 2026-11-22T12:05:00.000Z
2026-11-22T12:09:00.000Z  Reception    of the DSN about it: message d
recipients: 1 Deferral, 1 Delivery, 1 without an outcome yet
";
        assert_eq!(
            render("m", "2026-11-22T12:00:00.000Z", &timeline.events()),
            expected
        );
    }
}
