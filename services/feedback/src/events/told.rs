//! The records of the stream `EVENTS` as events: what others than the owner of a partition have to say.

use proto::event::event::Kind;
use proto::event::{
    Complaint, CredentialMeasure, CredentialNoticed, DomainChecked, Event as Told, OutOfBandBounce,
    Preflight, Record, Rejection, Stage, SuppressionChanged, TlsSessions, Unsubscribe,
    WebhookGivenUp,
};
use proto::watch::{Action, Evidence, Measure};
use serde_json::{Map, Value, json};

use super::{Event, VERSION, class_name, reply_value, time};

/// The events of a record of the stream `EVENTS`, in order. One that a later release wrote is told as `Unknown`.
pub fn told(sequence: u64, record: &Record) -> Vec<Value> {
    let written = Written { sequence, record };
    let events = record.events.iter().zip(0..);
    events
        .map(|(event, position)| written.event(event, position))
        .collect()
}

struct Written<'a> {
    sequence: u64,
    record: &'a Record,
}

impl Written<'_> {
    fn event(&self, told: &Told, position: u32) -> Value {
        let event = self.begin(told, position);
        let event = match &told.kind {
            Some(Kind::Rejection(rejection)) => rejected(event, rejection),
            Some(Kind::LoginFailed(failed)) => event.text("user", &failed.user),
            Some(Kind::LoginsBlocked(blocked)) => event.text("user", &blocked.user),
            Some(Kind::Resubmission(again)) => event
                .id("message_id", &again.message_id)
                .number("recipients", again.recipients.into()),
            Some(Kind::Preflight(preflight)) => looked_over(event, preflight),
            Some(Kind::CredentialNoticed(noticed)) => credential_noticed(event, noticed),
            Some(Kind::CredentialMeasure(measure)) => credential_measure(event, measure),
            Some(Kind::OutOfBandBounce(bounce)) => came_back(event, bounce),
            Some(Kind::Complaint(complaint)) => complained(event, complaint),
            Some(Kind::Unsubscribe(unsubscribe)) => unsubscribed(event, unsubscribe),
            Some(Kind::SuppressionChanged(changed)) => suppression_changed(event, changed),
            Some(Kind::DomainChecked(checked)) => domain_checked(event, checked),
            Some(Kind::WebhookGivenUp(given_up)) => webhook_given_up(event, given_up),
            Some(Kind::TlsSessions(sessions)) => tls_sessions(event, sessions),
            None => event,
        };
        Value::Object(event.0)
    }

    fn begin(&self, told: &Told, position: u32) -> Event {
        let record = self.record;
        let id = hex(&record.id);
        let at_ms = match told.at_ms {
            0 => record.written_at_ms,
            at_ms => at_ms,
        };
        let mut event = Event(Map::new())
            .put("version", json!(VERSION))
            .put("type", json!(type_name(told.kind.as_ref())))
            .put("time", json!(time(at_ms)))
            .put("id", json!(format!("{id}-{position}")))
            .put("sequence", json!(self.sequence))
            .text("service", &record.service)
            .text("tenant", &told.tenant)
            .text("credential", &told.credential)
            .text("network", &told.network);
        if told.count > 1 {
            event = event
                .number("count", told.count)
                .put("last", json!(time(told.last_ms)));
        }
        event
    }
}

fn type_name(kind: Option<&Kind>) -> &'static str {
    match kind {
        Some(Kind::Rejection(_)) => "Rejection",
        Some(Kind::LoginFailed(_)) => "LoginFailed",
        Some(Kind::LoginsBlocked(_)) => "LoginsBlocked",
        Some(Kind::Resubmission(_)) => "Resubmission",
        Some(Kind::Preflight(_)) => "Preflight",
        Some(Kind::CredentialNoticed(_)) => "CredentialNoticed",
        Some(Kind::CredentialMeasure(_)) => "CredentialMeasure",
        Some(Kind::OutOfBandBounce(_)) => "OutOfBandBounce",
        Some(Kind::Complaint(_)) => "Complaint",
        Some(Kind::Unsubscribe(_)) => "Unsubscribe",
        Some(Kind::SuppressionChanged(_)) => "SuppressionChanged",
        Some(Kind::DomainChecked(_)) => "DomainChecked",
        Some(Kind::WebhookGivenUp(_)) => "WebhookGivenUp",
        Some(Kind::TlsSessions(_)) => "TlsSessions",
        None => "Unknown",
    }
}

fn rejected(event: Event, rejection: &Rejection) -> Event {
    let reply = Event(Map::new())
        .text("stage", stage_name(rejection.stage()))
        .number("code", rejection.code.into())
        .text("enhanced", &rejection.enhanced)
        .text("text", &rejection.text);
    event
        .put("reply", Value::Object(reply.0))
        .text("reason", &rejection.reason)
        .text("recipient", &rejection.recipient)
        .number("recipients", rejection.recipients.into())
}

fn looked_over(event: Event, preflight: &Preflight) -> Event {
    let findings = preflight.findings.iter().map(|finding| {
        let finding = Event(Map::new())
            .text("rule", &finding.rule)
            .number("weight", finding.weight.into())
            .text("explanation", &finding.explanation);
        Value::Object(finding.0)
    });
    event
        .id("message_id", &preflight.message_id)
        .text("stream", &preflight.stream)
        .put("refused", json!(preflight.refused))
        .put("findings", findings.collect())
}

fn credential_noticed(event: Event, noticed: &CredentialNoticed) -> Event {
    event
        .number("weight", noticed.weight.into())
        .put("evidence", evidence_values(&noticed.evidence))
}

fn credential_measure(event: Event, taken: &CredentialMeasure) -> Event {
    let measure = taken.measure.clone().unwrap_or_default();
    event.take_over(measure_value(&measure))
}

fn came_back(event: Event, bounce: &OutOfBandBounce) -> Event {
    let event = event
        .id("message_id", &bounce.message_id)
        .text("stream", &bounce.stream)
        .text("recipient", &bounce.recipient)
        .text("action", &bounce.action);
    let event = match &bounce.reply {
        Some(reply) => event.put("reply", reply_value(reply)),
        None => event,
    };
    event
        .text("class", class_name(bounce.class()))
        .text("reason", &bounce.reason)
        .flag("hard", bounce.hard)
        .text("remote_mta", &bounce.remote_mta)
        .text("reporting_mta", &bounce.reporting_mta)
}

fn complained(event: Event, complaint: &Complaint) -> Event {
    event
        .id("message_id", &complaint.message_id)
        .text("stream", &complaint.stream)
        .text("recipient", &complaint.recipient)
        .text("feedback_type", &complaint.feedback_type)
        .text("user_agent", &complaint.user_agent)
}

fn unsubscribed(event: Event, unsubscribe: &Unsubscribe) -> Event {
    event
        .id("message_id", &unsubscribe.message_id)
        .text("stream", &unsubscribe.stream)
        .text("recipient", &unsubscribe.recipient)
        .text("by", &unsubscribe.by)
}

fn suppression_changed(event: Event, changed: &SuppressionChanged) -> Event {
    let event = event
        .text("stream", &changed.stream)
        .text("recipient", &changed.recipient)
        .put("removed", json!(changed.removed))
        .text("reason", &changed.reason)
        .text("author", &changed.author);
    match changed.until_ms {
        0 => event,
        until_ms => event.put("until", json!(time(until_ms))),
    }
}

fn domain_checked(event: Event, checked: &DomainChecked) -> Event {
    let findings = checked.findings.iter().map(|finding| {
        let finding = Event(Map::new())
            .text("check", &finding.check)
            .text("severity", &finding.severity)
            .text("text", &finding.text);
        Value::Object(finding.0)
    });
    event
        .text("domain", &checked.domain)
        .text("pool", &checked.pool)
        .put("findings", findings.collect())
}

fn webhook_given_up(event: Event, given_up: &WebhookGivenUp) -> Event {
    event
        .text("webhook", &given_up.webhook)
        .number("events", given_up.events)
        .text("reason", &given_up.reason)
}

fn tls_sessions(event: Event, sessions: &TlsSessions) -> Event {
    let policy = sessions.policy.clone().unwrap_or_default();
    let failures = sessions.failures.iter().map(|failure| {
        let failure = Event(Map::new())
            .text("result", &failure.result)
            .text("source_address", &failure.source_address)
            .text("host", &failure.host)
            .text("address", &failure.address)
            .number("sessions", failure.sessions);
        Value::Object(failure.0)
    });
    event
        .text("domain", &sessions.domain)
        .text("policy", &policy.r#type)
        .text("policy_domain", &policy.domain)
        .put("succeeded", json!(sessions.succeeded))
        .put("failures", failures.collect())
}

/// A measure as JSON: what is done, who wants it, and what for.
pub fn measure_value(measure: &Measure) -> Map<String, Value> {
    let mut event = Event(Map::new())
        .text("action", action_name(measure.action()))
        .text("author", &measure.author)
        .text("reason", &measure.cause)
        .put("since", json!(time(measure.since_ms)));
    if measure.until_ms != 0 {
        event = event.put("until", json!(time(measure.until_ms)));
    }
    if !measure.evidence.is_empty() {
        event = event.put("evidence", evidence_values(&measure.evidence));
    }
    event.0
}

fn evidence_values(evidence: &[Evidence]) -> Value {
    evidence
        .iter()
        .map(|of| {
            let mut value = Event(Map::new())
                .text("signal", of.signal().word())
                .number("observed", of.observed)
                .number("usual", of.usual)
                .number("threshold", of.threshold)
                .number("weight", of.weight.into())
                .put("since", json!(time(of.since_ms)));
            if !of.networks.is_empty() {
                value = value.put("networks", json!(of.networks));
            }
            Value::Object(value.0)
        })
        .collect()
}

impl Event {
    fn take_over(mut self, fields: Map<String, Value>) -> Self {
        self.0.extend(fields);
        self
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Unspecified => "",
        Stage::Auth => "auth",
        Stage::Mail => "mail",
        Stage::Rcpt => "rcpt",
        Stage::Data => "data",
        Stage::Content => "content",
    }
}

/// `lock`, `hold`, …
fn action_name(action: Action) -> &'static str {
    match action {
        Action::Unspecified => "",
        Action::Tell => "tell",
        Action::Slow => "slow",
        Action::Hold => "hold",
        Action::Lock => "lock",
        Action::Pardon => "pardon",
    }
}

fn hex(id: &[u8]) -> String {
    use std::fmt::Write as _;
    id.iter().fold(String::new(), |mut text, octet| {
        write!(text, "{octet:02x}").expect("a String takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use proto::event::{Finding, LoginFailed};

    use super::*;

    fn record(events: Vec<Told>) -> Record {
        Record {
            format: 1,
            id: bytes::Bytes::from_static(&[0xab; 16]),
            written_at_ms: 1_795_351_206_000,
            service: "ingress".into(),
            events,
        }
    }

    #[test]
    fn a_rejection_tells_the_reply_and_whose_it_was() {
        let rejection = Rejection {
            stage: Stage::Rcpt.into(),
            code: 550,
            enhanced: "5.1.2".into(),
            text: "No".into(),
            reason: "address_literal".into(),
            recipient: "a@[192.0.2.1]".into(),
            recipients: 0,
        };
        let told_one = Told {
            at_ms: 1_795_351_205_123,
            tenant: "acme".into(),
            credential: "acme-app".into(),
            network: "192.0.2.0/24".into(),
            kind: Some(Kind::Rejection(rejection)),
            ..Told::default()
        };
        let events = told(7, &record(vec![told_one]));
        assert_eq!(
            events[0],
            json!({
                "version": 1, "type": "Rejection", "time": "2026-11-22T12:40:05.123Z",
                "id": format!("{}-0", "ab".repeat(16)), "sequence": 7, "service": "ingress",
                "tenant": "acme", "credential": "acme-app", "network": "192.0.2.0/24",
                "reply": { "stage": "rcpt", "code": 550, "enhanced": "5.1.2", "text": "No" },
                "reason": "address_literal", "recipient": "a@[192.0.2.1]",
            })
        );
    }

    #[test]
    fn several_that_are_told_together_have_a_number_and_two_times() {
        let failed = Told {
            at_ms: 1_795_351_205_000,
            last_ms: 1_795_351_206_500,
            count: 12,
            kind: Some(Kind::LoginFailed(LoginFailed { user: "x".into() })),
            ..Told::default()
        };
        let events = told(7, &record(vec![Told::default(), failed]));
        assert_eq!(events[0]["type"], "Unknown");
        assert_eq!(events[0]["time"], "2026-11-22T12:40:06.000Z");
        assert_eq!(events[1]["count"], 12);
        assert_eq!(events[1]["last"], "2026-11-22T12:40:06.500Z");
        assert_ne!(events[0]["id"], events[1]["id"]);
    }

    #[test]
    fn what_came_back_tells_whom_it_is_about() {
        let message_id = bytes::Bytes::from_static(&[1; 16]);
        let bounce = OutOfBandBounce {
            message_id: message_id.clone(),
            stream: "bulk".into(),
            recipient: "gone@receiver.example".into(),
            action: "failed".into(),
            reply: Some(proto::journal::Reply {
                code: 550,
                enhanced: "5.1.1".into(),
                text: "no such user".into(),
                ..proto::journal::Reply::default()
            }),
            class: proto::journal::Class::Recipient.into(),
            reason: "unknown_user".into(),
            hard: true,
            ..OutOfBandBounce::default()
        };
        let unsubscribe = Unsubscribe {
            message_id,
            stream: "bulk".into(),
            recipient: "tired@receiver.example".into(),
            by: "one_click".into(),
        };
        let changed = SuppressionChanged {
            recipient: "tired@receiver.example".into(),
            reason: "unsubscribe".into(),
            until_ms: 1_795_351_206_000,
            ..SuppressionChanged::default()
        };
        let kinds = [
            Kind::OutOfBandBounce(bounce),
            Kind::Unsubscribe(unsubscribe),
            Kind::SuppressionChanged(changed),
        ];
        let events = kinds.map(|kind| Told {
            tenant: "acme".into(),
            kind: Some(kind),
            ..Told::default()
        });
        let events = told(7, &record(events.into()));
        assert_eq!(events[0]["type"], "OutOfBandBounce");
        assert_eq!(events[0]["hard"], true);
        assert_eq!(events[0]["class"], "recipient");
        assert_eq!(
            events[0]["reply"],
            json!({ "code": 550, "enhanced": "5.1.1", "text": "no such user" })
        );
        assert_eq!(events[1]["by"], "one_click");
        assert_eq!(events[1]["recipient"], "tired@receiver.example");
        assert_eq!(events[2]["removed"], false);
        assert_eq!(events[2]["until"], "2026-11-22T12:40:06.000Z");
    }

    #[test]
    fn findings_and_evidence_are_lists_of_what_was_seen() {
        let preflight = Preflight {
            message_id: bytes::Bytes::from_static(&[1; 16]),
            stream: "bulk".into(),
            refused: true,
            findings: vec![Finding {
                rule: "noSubject".into(),
                weight: 2,
                explanation: "it has no subject".into(),
            }],
        };
        let measure = Measure {
            action: Action::Hold.into(),
            since_ms: 1_795_351_205_000,
            evidence: vec![Evidence {
                signal: proto::watch::Signal::NewNetworks.into(),
                observed: 40,
                usual: 2,
                threshold: 10,
                weight: 3,
                since_ms: 1_795_351_205_000,
                networks: vec!["192.0.2.0/24".into()],
            }],
            ..Measure::default()
        };
        let measure = CredentialMeasure {
            measure: Some(measure),
        };
        let kinds = [Kind::Preflight(preflight), Kind::CredentialMeasure(measure)];
        let events = kinds.map(|kind| Told {
            kind: Some(kind),
            ..Told::default()
        });
        let events = told(7, &record(events.into()));
        assert_eq!(
            events[0]["findings"],
            json!([{ "rule": "noSubject", "weight": 2, "explanation": "it has no subject" }])
        );
        assert_eq!(events[1]["action"], "hold");
        assert_eq!(events[1]["evidence"][0]["signal"], "newNetworks");
        assert_eq!(
            events[1]["evidence"][0]["networks"],
            json!(["192.0.2.0/24"])
        );
        assert!(events[1].get("until").is_none());
    }

    /// The list that is in the configuration, and what is written: the table in the documentation of the journal's
    /// events, and the match here.
    #[test]
    fn all_types_of_events_can_be_asked_for_by_name() {
        let mut written = std::collections::BTreeSet::new();
        let rows = include_str!("../events.rs").lines();
        for row in rows.filter_map(|line| line.strip_prefix("//! | `")) {
            let (types, _) = row.split_once(" | ").unwrap();
            let types = types
                .split('`')
                .filter(|name| name.starts_with(char::is_uppercase));
            written.extend(types);
        }
        for line in include_str!("told.rs").lines() {
            let arm = line.trim().strip_prefix("Some(Kind::");
            if let Some((_, name)) = arm.and_then(|arm| arm.split_once("(_)) => \"")) {
                written.insert(name.trim_end_matches("\","));
            }
        }
        written.insert("Unknown");
        let listed = config::EVENT_TYPES.into_iter().collect();
        assert_eq!(written, listed);
    }
}
