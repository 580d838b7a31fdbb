//! The journal as events: what happened to every message, one JSON object each.
//!
//! Version 1. Fields that have nothing to say are left out. Every event has:
//!
//! | field | meaning |
//! |---|---|
//! | `version` | 1 |
//! | `type` | see below |
//! | `time` | RFC 3339 in UTC with milliseconds: end of the attempt, or when the owner wrote it |
//! | `id` | `partition-sequence-entry-position`, unique for ever: reading again gives the same ids |
//! | `partition`, `sequence` | the record of the journal; reading can be resumed after it |
//!
//! and, where they apply, `message_id`, `tenant`, `stream`, `campaign`, `recipient`, `ordinal` (position in the
//! envelope), `attempt`, `source`, `site`, `mx` (`host`, `address`), `tls`, `sender`, `reply` (`stage`, `code`,
//! `enhanced`, `text`), `class` and what a type adds.
//!
//! | type | when | adds |
//! |---|---|---|
//! | `Reception` | a message was read from the spool | `recipients`, `size`, `reports_on` |
//! | `Attempt` | the attempt is recorded, the final dot allowed | `ordinals` |
//! | `Delivery` | the other side accepted | `relay_owed`: true when the sender is to be told that it was relayed |
//! | `Deferral` | refused for now | `next_attempt` |
//! | `Bounce` | refused for good | `dsn_owed` |
//! | `Expiration` | not accepted in time | `dsn_owed` |
//! | `Suppression`, `Cancellation` | not tried (any more) | |
//! | `Returned` | given back before the dialogue; no attempt | `next_attempt` |
//! | `InDoubt` | begun, and no outcome known | `next_attempt` |
//! | `Late` | not delivered by the time that its client asked for with DELIVERBY; it is tried on | `delay_notice` |
//! | `Moved` | the message is in another block | `spool_sequence` |
//! | `Quarantined` | a block or message can't be read | `spool_sequence`, `reason` |
//! | `DsnSpooled` | the sender is told of failures, or of a delay | `ordinals`, `dsn_message_id`, `delay_notice` |
//! | `Automation` | something is done about replies, or is over | `rule`, `subject`, `measure`, `until`, `cause`, `ended`, and figures of the measure |
//! | `AdminAction` | an operation on the live queue holds or begins in this partition, or is over there | `operation`, `action` (`suspend`, `move`, `retry`, `bounce`, `cancel`, `release`), `phase` (`begun`, `done`, `lifted`, `expired`), `author`, `reason`, `selector`, `until`, `pool`, `recipients`, `unresolved`, `refused`, `lifted_by`, `lifted_reason` |
//! | `TenantMoved` | a tenant is on probation in a pool, a member or in quarantine from now on | `pool`, `tenant`, `from`, `to` (`new`, `probation`, `member`, `quarantine`), `number` (of the move in the pool), `cause`, `author` (none: the rules), `until` |
//! | `HoldExpired` | it was on hold for too long; an `Expiration` or `Cancellation` for each recipient follows | `ordinals`, `held_since`, `ends` (`return`, `discard`) |
//! | `Rescheduled`, `Released` | an operation made a delivery due, or released it | `operation`, `next_attempt` |
//! | `Claim` | a scheduler took the partition | `scheduler` |
//!
//! A `Bounce` or `Cancellation` by an operation has its id as `operation`.
//!
//! Where the simulator answers, attempts and outcomes have `simulated`: true; those of mail of the sandbox, its reception and
//! the DSNs about it have `sandbox`: true. The reception of what is accepted on hold has `hold`: true.
//!
//! Snapshots are no events. What others than the owner have to say is in a stream of its own, and is told by [`told`].

mod told;

use jiff::Timestamp;
use mail::{MessageId, PartitionId};
use proto::journal::entry::Kind;
use proto::journal::{
    Accepted, Acted, AdminAction, Begin, Class, Disposition, Outcome, Phase, Quarantined,
    RecipientOutcome, Record, Reply, Simulation, Stage, Touched,
};
use proto::operation::{Kind as Action, Selector};
use proto::standing::{Move, Standing};
use serde_json::{Map, Value, json};

pub use told::{measure_value, told};

/// Version of the events' form.
pub const VERSION: u32 = 1;

/// The events of a record, in order.
pub fn events(partition: PartitionId, sequence: u64, record: &Record) -> Vec<Value> {
    let mut events = Events {
        partition,
        sequence,
        written_at_ms: record.written_at_ms,
        entry: 0,
        position: 0,
        events: Vec::new(),
    };
    for (entry, number) in record.entries.iter().zip(0..) {
        (events.entry, events.position) = (number, 0);
        match &entry.kind {
            Some(Kind::Accepted(accepted)) => events.receptions(accepted),
            Some(Kind::Begin(begin)) => events.attempt(begin),
            Some(Kind::Outcome(outcome)) => events.outcome(outcome),
            Some(Kind::Quarantined(quarantined)) => events.quarantined(quarantined),
            Some(Kind::Moved(moved)) => {
                for id in &moved.message_ids {
                    let event = events
                        .begin("Moved", 0)
                        .id("message_id", id)
                        .number("spool_sequence", moved.sequence);
                    events.push(event);
                }
            }
            Some(Kind::DsnSpooled(spooled)) => {
                let event = events
                    .begin("DsnSpooled", 0)
                    .id("message_id", &spooled.message_id)
                    .put(
                        "ordinals",
                        json!(match spooled.notice {
                            0 => &spooled.ordinals,
                            _ => &spooled.delayed_ordinals,
                        }),
                    )
                    .number("delay_notice", spooled.notice.into())
                    .id("dsn_message_id", &spooled.dsn_message_id)
                    .flag("sandbox", spooled.sandbox);
                events.push(event);
            }
            Some(Kind::Acted(acted)) => events.acted(acted),
            Some(Kind::AdminAction(action)) => events.admin_action(action),
            Some(Kind::StandingMoved(moved)) => events.tenant_moved(moved),
            Some(Kind::Touched(touched)) => events.touched(touched),
            Some(Kind::Claim(claim)) => {
                let event = events
                    .begin("Claim", 0)
                    .text("scheduler", &claim.scheduler_id);
                events.push(event);
            }
            Some(Kind::SnapshotStart(_) | Kind::SnapshotPart(_) | Kind::SnapshotEnd(_)) | None => {}
        }
    }
    events.events
}

struct Events {
    partition: PartitionId,
    sequence: u64,
    written_at_ms: u64,
    /// Of the record, and of the event in the entry.
    entry: u32,
    position: u32,
    events: Vec<Value>,
}

impl Events {
    /// `at_ms` 0: when the owner wrote it.
    fn begin(&self, kind: &str, at_ms: u64) -> Event {
        let at_ms = if at_ms == 0 {
            self.written_at_ms
        } else {
            at_ms
        };
        let id = format!(
            "{}-{}-{}-{}",
            self.partition, self.sequence, self.entry, self.position
        );
        Event(Map::new())
            .put("version", json!(VERSION))
            .put("type", json!(kind))
            .put("time", json!(time(at_ms)))
            .put("id", json!(id))
            .put("partition", json!(self.partition.0))
            .put("sequence", json!(self.sequence))
    }

    fn push(&mut self, event: Event) {
        self.events.push(Value::Object(event.0));
        self.position += 1;
    }

    fn acted(&mut self, acted: &Acted) {
        let on = acted.subject.clone().unwrap_or_default();
        let measure = acted.measure.clone().unwrap_or_default();
        let parts = [
            ("source", on.source),
            ("lane", on.lane),
            ("pool", on.pool),
            ("tenant", on.tenant),
            ("at", on.at),
        ];
        let subject: Map<String, Value> = parts
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        let mut event = self
            .begin("Automation", 0)
            .text("rule", &acted.rule)
            .put("subject", Value::Object(subject))
            .text("measure", &measure.kind)
            .put("until", json!(time(acted.until_ms)))
            .text("cause", &acted.cause);
        let figures = [
            ("rate_count", measure.rate_count),
            ("rate_per_ms", measure.rate_per_ms),
            ("connections", measure.connections.into()),
            (
                "messages_per_connection",
                measure.messages_per_connection.into(),
            ),
            ("reference_per_minute", measure.reference_per_minute),
            ("cut_per_minute", measure.cut_per_minute),
            ("step_ms", measure.step_ms),
        ];
        for (name, value) in figures.into_iter().filter(|(_, value)| *value > 0) {
            event = event.number(name, value);
        }
        if acted.ended {
            event = event.put("ended", json!(true));
        }
        self.push(event);
    }

    fn admin_action(&mut self, action: &AdminAction) {
        let operation = action.operation.clone().unwrap_or_default();
        let mut event = self
            .begin("AdminAction", 0)
            .text("operation", &operation.id)
            .text("action", action_name(operation.kind()))
            .text("phase", phase_name(action.phase()))
            .text("author", &operation.author)
            .text("reason", &operation.reason)
            .put("selector", selector_value(operation.selector.as_ref()))
            .text("pool", &operation.pool)
            .number("recipients", action.recipients)
            .number("unresolved", action.unresolved)
            .number("refused", action.refused);
        if operation.expires_at_ms != 0 {
            event = event.put("until", json!(time(operation.expires_at_ms)));
        }
        if let Some(lifted) = &operation.lifted {
            event = event
                .text("lifted_by", &lifted.author)
                .text("lifted_reason", &lifted.reason);
        }
        self.push(event);
    }

    fn tenant_moved(&mut self, moved: &Move) {
        let mut event = self
            .begin("TenantMoved", moved.at_ms)
            .text("pool", &moved.pool)
            .text("tenant", &moved.tenant)
            .text("from", standing_name(moved.from()))
            .text("to", standing_name(moved.to()))
            .number("number", moved.number)
            .text("author", &moved.author)
            .text("cause", &moved.cause);
        if moved.until_ms != 0 {
            event = event.put("until", json!(time(moved.until_ms)));
        }
        self.push(event);
    }

    fn touched(&mut self, touched: &Touched) {
        let kind = if touched.released {
            "Released"
        } else {
            "Rescheduled"
        };
        for delivery in &touched.deliveries {
            let event = self
                .begin(kind, 0)
                .id("message_id", &delivery.message_id)
                .put("ordinal", json!(delivery.ordinal))
                .text("operation", &touched.operation)
                .put("next_attempt", json!(time(touched.due_ms)));
            self.push(event);
        }
    }

    fn receptions(&mut self, accepted: &Accepted) {
        for message in &accepted.messages {
            let event = self
                .begin("Reception", 0)
                .id("message_id", &message.message_id)
                .text("tenant", &message.tenant)
                .text("stream", &message.stream)
                .text("campaign", &message.campaign)
                .put("recipients", json!(message.recipients))
                .put("size", json!(message.size))
                .put("spool_sequence", json!(accepted.sequence))
                .id("reports_on", &message.reports_on)
                .flag("hold", message.hold)
                .flag("sandbox", message.sandbox);
            self.push(event);
        }
    }

    fn attempt(&mut self, begin: &Begin) {
        let event = self
            .begin("Attempt", 0)
            .id("message_id", &begin.message_id)
            .put("ordinals", json!(begin.ordinals))
            .number("attempt", u64::from(begin.number))
            .text("source", &begin.source)
            .text("site", &begin.site)
            .text("sender", &begin.sender_id)
            .simulation(begin.simulation());
        self.push(event);
    }

    fn outcome(&mut self, outcome: &Outcome) {
        if outcome.held_since_ms > 0 {
            self.hold_expired(outcome);
        }
        for recipient in &outcome.recipients {
            let disposition = recipient.disposition();
            let event = self
                .begin(outcome_type(disposition), outcome.finished_at_ms)
                .id("message_id", &outcome.message_id)
                .text("tenant", &outcome.tenant)
                .text("stream", &outcome.stream)
                .text("campaign", &outcome.campaign)
                .text("recipient", &recipient.address)
                .put("ordinal", json!(recipient.ordinal))
                .number("attempt", u64::from(outcome.attempt))
                .text("source", &outcome.source)
                .text("site", &outcome.site)
                .text("sender", &outcome.sender_id)
                .text("operation", &outcome.operation)
                .simulation(outcome.simulation())
                .connection(outcome)
                .verdict(disposition, recipient);
            self.push(event);
        }
    }

    fn hold_expired(&mut self, outcome: &Outcome) {
        let ordinals: Vec<u32> = outcome.recipients.iter().map(|of| of.ordinal).collect();
        let mut dispositions = outcome.recipients.iter().map(RecipientOutcome::disposition);
        let is_discarded = dispositions.any(|of| of == Disposition::Cancelled);
        let event = self
            .begin("HoldExpired", outcome.finished_at_ms)
            .id("message_id", &outcome.message_id)
            .text("tenant", &outcome.tenant)
            .text("stream", &outcome.stream)
            .text("campaign", &outcome.campaign)
            .put("ordinals", json!(ordinals))
            .put("held_since", json!(time(outcome.held_since_ms)))
            .text("ends", if is_discarded { "discard" } else { "return" })
            .simulation(outcome.simulation());
        self.push(event);
    }

    fn quarantined(&mut self, quarantined: &Quarantined) {
        let whole_block = quarantined.message_ids.is_empty();
        let blank = bytes::Bytes::new(); // the whole block
        let ids: Vec<&bytes::Bytes> = if whole_block {
            vec![&blank]
        } else {
            quarantined.message_ids.iter().collect()
        };
        for id in ids {
            let event = self
                .begin("Quarantined", 0)
                .id("message_id", id)
                .number("spool_sequence", quarantined.sequence)
                .text("reason", &quarantined.reason);
            self.push(event);
        }
    }
}

/// One event under construction; what is empty is left out.
struct Event(Map<String, Value>);

impl Event {
    fn put(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    fn text(self, name: &str, text: &str) -> Self {
        if text.is_empty() {
            self
        } else {
            self.put(name, json!(text))
        }
    }

    fn flag(self, name: &str, is: bool) -> Self {
        if is {
            self.put(name, json!(true))
        } else {
            self
        }
    }

    /// Who answers instead of a host.
    fn simulation(self, simulation: Simulation) -> Self {
        self.flag("simulated", simulation != Simulation::None)
            .flag("sandbox", simulation == Simulation::Sandbox)
    }

    fn number(self, name: &str, number: u64) -> Self {
        if number == 0 {
            self
        } else {
            self.put(name, json!(number))
        }
    }

    fn id(self, name: &str, bytes: &[u8]) -> Self {
        match MessageId::try_from(bytes) {
            Ok(id) => self.put(name, json!(id.to_string())),
            Err(_) => self,
        }
    }

    /// How the other side was reached; nothing when no attempt was made.
    fn connection(self, outcome: &Outcome) -> Self {
        if outcome.mx_host.is_empty() && outcome.mx_address.is_empty() {
            return self;
        }
        let mx = Event(Map::new())
            .text("host", &outcome.mx_host)
            .text("address", &outcome.mx_address);
        let with_mx = self
            .put("mx", Value::Object(mx.0))
            .put("tls", json!(outcome.tls));
        match outcome.finished_at_ms.checked_sub(outcome.started_at_ms) {
            Some(duration) if outcome.started_at_ms != 0 => {
                with_mx.put("duration_ms", json!(duration))
            }
            _ => with_mx,
        }
    }

    fn verdict(self, disposition: Disposition, recipient: &RecipientOutcome) -> Self {
        let mut event = self.text("class", class_name(recipient.class()));
        if let Some(reply) = &recipient.reply {
            event = event.put("reply", reply_value(reply));
        }
        if recipient.next_attempt_ms != 0 {
            event = event.put("next_attempt", json!(time(recipient.next_attempt_ms)));
        }
        event = event.number("delay_notice", recipient.delay_notice.into());
        if matches!(disposition, Disposition::Bounced | Disposition::Expired) {
            event = event.put("dsn_owed", json!(recipient.dsn_owed));
        }
        event = event.flag("relay_owed", recipient.relay_owed);
        event
    }
}

/// What a selector names, without what it leaves open.
fn selector_value(selector: Option<&Selector>) -> Value {
    let Some(selector) = selector else {
        return json!({});
    };
    let fields = [
        ("messages", &selector.messages),
        ("domains", &selector.domains),
        ("sites", &selector.sites),
        ("providers", &selector.providers),
        ("tenants", &selector.tenants),
        ("streams", &selector.streams),
        ("campaigns", &selector.campaigns),
        ("sources", &selector.sources),
    ];
    let named = fields.into_iter().filter(|(_, values)| !values.is_empty());
    let mut named: Map<String, Value> = named
        .map(|(name, values)| (name.to_owned(), json!(values)))
        .collect();
    if selector.accepted_before_ms != 0 {
        let before = json!(time(selector.accepted_before_ms));
        named.insert("accepted_before".to_owned(), before);
    }
    if selector.all {
        named.insert("all".to_owned(), json!(true));
    }
    Value::Object(named)
}

fn action_name(kind: Action) -> &'static str {
    match kind {
        Action::Unspecified => "",
        Action::Suspend => "suspend",
        Action::Move => "move",
        Action::Retry => "retry",
        Action::Bounce => "bounce",
        Action::Cancel => "cancel",
        Action::Release => "release",
    }
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Unspecified => "new",
        Standing::Probation => "probation",
        Standing::Member => "member",
        Standing::Quarantine => "quarantine",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "",
        Phase::Begun => "begun",
        Phase::Done => "done",
        Phase::Lifted => "lifted",
        Phase::Expired => "expired",
    }
}

fn reply_value(reply: &Reply) -> Value {
    let event = Event(Map::new())
        .text("stage", stage_name(reply.stage()))
        .number("code", u64::from(reply.code))
        .text("enhanced", &reply.enhanced)
        .text("text", &reply.text);
    Value::Object(event.0)
}

fn outcome_type(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Delivered => "Delivery",
        Disposition::Deferred => "Deferral",
        Disposition::Bounced => "Bounce",
        Disposition::Expired => "Expiration",
        Disposition::Suppressed => "Suppression",
        Disposition::Cancelled => "Cancellation",
        Disposition::Returned => "Returned",
        Disposition::InDoubt => "InDoubt",
        Disposition::Late => "Late",
        Disposition::Unspecified => "Unknown",
    }
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Unspecified => "",
        Class::Recipient => "recipient",
        Class::MailboxFull => "mailbox_full",
        Class::Policy => "policy",
        Class::Throttled => "throttled",
        Class::Greylisted => "greylisted",
        Class::Infrastructure => "infrastructure",
        Class::Content => "content",
        Class::Dns => "dns",
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Unspecified => "",
        Stage::Dns => "dns",
        Stage::Connect => "connect",
        Stage::Banner => "banner",
        Stage::Ehlo => "ehlo",
        Stage::Starttls => "starttls",
        Stage::Auth => "auth",
        Stage::Mail => "mail",
        Stage::Rcpt => "rcpt",
        Stage::Data => "data",
        Stage::FinalDot => "final_dot",
        Stage::Prepare => "prepare",
    }
}

/// RFC 3339 with milliseconds; the epoch for a time that no calendar has.
pub(crate) fn time(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", timestamp.unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use proto::journal::{AcceptedMessage, Claim, DsnSpooled, Entry, Moved, SnapshotEnd};

    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn id() -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(ID.parse::<MessageId>().unwrap().as_bytes())
    }

    fn of(kinds: Vec<Kind>) -> Vec<Value> {
        let entries = kinds
            .into_iter()
            .map(|kind| Entry { kind: Some(kind) })
            .collect();
        let record = Record {
            format: 1,
            epoch: 3,
            written_at_ms: 1_795_351_206_000,
            entries,
            ..Record::default()
        };
        events(PartitionId(2), 40, &record)
    }

    #[test]
    fn an_outcome_is_an_event_for_each_recipient() {
        let recipient = |ordinal, disposition: Disposition| RecipientOutcome {
            ordinal,
            address: format!("r{ordinal}@receiver.example"),
            disposition: disposition.into(),
            reply: Some(Reply {
                stage: Stage::Rcpt.into(),
                code: 550,
                enhanced: "5.1.1".into(),
                text: "no".into(),
            }),
            class: Class::Recipient.into(),
            dsn_owed: true,
            ..RecipientOutcome::default()
        };
        let outcome = Outcome {
            message_id: id(),
            attempt: 2,
            tenant: "acme".into(),
            stream: "bulk".into(),
            recipients: vec![
                recipient(0, Disposition::Bounced),
                recipient(3, Disposition::Deferred),
            ],
            source: "a".into(),
            site: "receiver.example".into(),
            mx_host: "mx.receiver.example".into(),
            mx_address: "192.0.2.1".into(),
            tls: true,
            started_at_ms: 1_795_351_205_000,
            finished_at_ms: 1_795_351_205_250,
            sender_id: "s1".into(),
            ..Outcome::default()
        };
        let events = of(vec![Kind::Outcome(outcome)]);
        assert_eq!(events.len(), 2);
        assert_eq!(
            events[0],
            json!({
                "version": 1, "type": "Bounce", "time": "2026-11-22T12:40:05.250Z", "id": "2-40-0-0",
                "partition": 2, "sequence": 40, "message_id": ID, "tenant": "acme", "stream": "bulk",
                "recipient": "r0@receiver.example", "ordinal": 0, "attempt": 2, "source": "a",
                "site": "receiver.example", "sender": "s1", "tls": true, "duration_ms": 250,
                "mx": {"host": "mx.receiver.example", "address": "192.0.2.1"},
                "reply": {"stage": "rcpt", "code": 550, "enhanced": "5.1.1", "text": "no"},
                "class": "recipient", "dsn_owed": true,
            })
        );
        assert_eq!(
            (&events[1]["type"], &events[1]["id"]),
            (&json!("Deferral"), &json!("2-40-0-1"))
        );
    }

    #[test]
    fn every_kind_of_entry_but_snapshots_is_an_event() {
        let message = AcceptedMessage {
            message_id: id(),
            recipients: 2,
            size: 10,
            ..AcceptedMessage::default()
        };
        let events = of(vec![
            Kind::Claim(Claim {
                scheduler_id: "s".into(),
                ..Claim::default()
            }),
            Kind::SnapshotEnd(SnapshotEnd::default()),
            Kind::Accepted(Accepted {
                sequence: 7,
                messages: vec![message.clone(), message],
            }),
            Kind::Begin(Begin {
                message_id: id(),
                ordinals: vec![0, 1],
                attempt: 53,
                number: 1,
                ..Begin::default()
            }),
            Kind::Moved(Moved {
                sequence: 9,
                message_ids: vec![id()],
            }),
            Kind::Quarantined(Quarantined {
                sequence: 9,
                message_ids: vec![],
                reason: "damaged".into(),
            }),
            Kind::DsnSpooled(DsnSpooled {
                message_id: id(),
                ordinals: vec![1],
                dsn_message_id: id(),
                ..DsnSpooled::default()
            }),
        ]);
        let types: Vec<&str> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            types,
            [
                "Claim",
                "Reception",
                "Reception",
                "Attempt",
                "Moved",
                "Quarantined",
                "DsnSpooled"
            ]
        );
        let mut ids: Vec<&str> = events
            .iter()
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        ids.dedup();
        assert_eq!(ids.len(), events.len());
        assert!(
            events
                .iter()
                .all(|event| event["time"] == "2026-11-22T12:40:06.000Z")
        );
        assert!(events[5].get("message_id").is_none());
    }

    #[test]
    fn an_expiry_without_an_attempt_has_no_connection() {
        let recipient = RecipientOutcome {
            disposition: Disposition::Expired.into(),
            ..RecipientOutcome::default()
        };
        let events = of(vec![Kind::Outcome(Outcome {
            message_id: id(),
            recipients: vec![recipient],
            ..Outcome::default()
        })]);
        assert_eq!(events[0]["type"], "Expiration");
        for absent in ["mx", "tls", "reply", "attempt", "class", "duration_ms"] {
            assert!(events[0].get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn tells_what_was_simulated_and_what_is_of_the_sandbox() {
        let of_simulation = |simulation: Simulation| {
            let events = of(vec![
                Kind::Begin(Begin {
                    message_id: id(),
                    simulation: simulation.into(),
                    ..Begin::default()
                }),
                Kind::Outcome(Outcome {
                    message_id: id(),
                    recipients: vec![RecipientOutcome {
                        disposition: Disposition::Delivered.into(),
                        ..RecipientOutcome::default()
                    }],
                    simulation: simulation.into(),
                    ..Outcome::default()
                }),
            ]);
            let is = |event: &Value| (event["simulated"] == true, event["sandbox"] == true);
            events.iter().map(is).collect::<Vec<_>>()
        };
        assert_eq!(of_simulation(Simulation::None), [(false, false); 2]);
        assert_eq!(of_simulation(Simulation::Recipient), [(true, false); 2]);
        assert_eq!(of_simulation(Simulation::Sandbox), [(true, true); 2]);
        let events = of(vec![
            Kind::Accepted(Accepted {
                sequence: 9,
                messages: vec![AcceptedMessage {
                    message_id: id(),
                    sandbox: true,
                    hold: true,
                    ..AcceptedMessage::default()
                }],
            }),
            Kind::DsnSpooled(DsnSpooled {
                message_id: id(),
                sandbox: true,
                ..DsnSpooled::default()
            }),
        ]);
        assert_eq!(events[0]["hold"], true);
        assert!(events.iter().all(|event| event["sandbox"] == true));
    }

    #[test]
    fn the_end_of_a_hold_comes_before_what_becomes_of_each_recipient() {
        for (disposition, kind, ends) in [
            (Disposition::Expired, "Expiration", "return"),
            (Disposition::Cancelled, "Cancellation", "discard"),
        ] {
            let recipient = |ordinal| RecipientOutcome {
                ordinal,
                disposition: disposition.into(),
                ..RecipientOutcome::default()
            };
            let events = of(vec![Kind::Outcome(Outcome {
                message_id: id(),
                recipients: vec![recipient(0), recipient(3)],
                held_since_ms: 1_795_351_200_000,
                ..Outcome::default()
            })]);
            let types: Vec<&str> = events.iter().filter_map(|of| of["type"].as_str()).collect();
            assert_eq!(types, ["HoldExpired", kind, kind]);
            assert_eq!(events[0]["held_since"], "2026-11-22T12:40:00.000Z");
            assert_eq!(events[0]["ordinals"], json!([0, 3]));
            assert_eq!(events[0]["ends"], ends);
        }
    }

    #[test]
    fn survives_what_no_owner_writes() {
        let recipient = RecipientOutcome {
            disposition: 99,
            next_attempt_ms: u64::MAX,
            ..RecipientOutcome::default()
        };
        let outcome = Outcome {
            message_id: bytes::Bytes::from_static(b"x"),
            recipients: vec![recipient],
            finished_at_ms: u64::MAX,
            ..Outcome::default()
        };
        let events = of(vec![Kind::Outcome(outcome)]);
        assert_eq!(events[0]["type"], "Unknown");
        assert!(events[0].get("message_id").is_none());
    }
}
