//! Blocks as ingress writes them, and what senders say.

use bytes::Bytes;
use proto::dispatch::{Begin, DeliveryRef, RecipientReport, Report, SenderItem, sender_item::Kind};
use proto::envelope::{Envelope, Recipient};
use proto::journal::{Reply, Stage};
use proto::spool::{BlockIndex, IndexEntry};

/// The configuration: every limit is set, none is reached.
const DOCUMENTS: &str = r#"
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: default }
spec: { sources: [ { name: a, address: 127.0.0.1, ehlo: a.relay.example, weight: 2 }, { name: b, address: 127.0.0.2, ehlo: b.relay.example, weight: 1 } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: default }
spec: { pool: default, retry: { initial: 4h, factor: 2, max: 8h, jitter: 10 }, maxAge: 5d }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: waiting }
spec: { match: { domains: [.waiting.example] }, pool: default, retry: { initial: 4h, factor: 2, max: 8h, jitter: 10 }, maxAge: 5d }
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: { name: default }
spec:
  rules:
    - { match: {}, connections: 200, messagesPerConnection: 100, rate: "1000000/s", tls: opportunistic, idleTimeout: 5s }
    - { match: { site: mx.d1.fast.example }, connections: 150 }
"#;

/// Limits that all lanes of a source share, beside their own.
pub const SHARED: &str = r#"---
apiVersion: staffetta.dev/v1alpha1
kind: Provider
metadata: { name: fast }
spec: { mx: [.fast.example] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: { name: shared }
spec: { rules: [ { match: { provider: fast }, scope: provider, connections: 100000, rate: "1000000/s" } ] }
"#;

/// The configuration for so many tenants, named by [`tenant`].
pub fn documents(tenants: u64) -> String {
    let mut text = String::from(DOCUMENTS);
    for number in 0..tenants {
        let weight = 1 + number % 5;
        text.push_str(&format!(
            "---\napiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: {} }}\nspec: {{ weight: {weight}, \
             defaultStream: transactional, streams: [ {{ name: transactional, inDoubt: retry }}, {{ name: bulk, inDoubt: hold }} ] }}\n",
            tenant(number)
        ));
    }
    text
}

/// The name of a tenant.
pub fn tenant(number: u64) -> String {
    format!("tenant{number}")
}

/// Where a stream of messages goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Accepts at the first attempt.
    Fast,
    /// Answers 451, so that the deliveries wait.
    Waiting,
}

/// Of whom messages are, and to so many domains.
#[derive(Debug, Clone, Copy)]
pub struct Mail {
    /// The first tenant, and how many.
    pub tenants: (u64, u64),
    /// Domains.
    pub domains: u64,
}

/// A block of messages with one recipient each.
pub fn block(
    numbers: std::ops::Range<u64>,
    now_ms: u64,
    to: Destination,
    mail: Mail,
) -> BlockIndex {
    let entries = numbers
        .clone()
        .map(|number| entry(number, now_ms, to, mail));
    BlockIndex {
        format: 1,
        flags: 0,
        block_id: id(numbers.start, now_ms),
        entries: entries.collect(),
    }
}

fn entry(number: u64, now_ms: u64, to: Destination, mail: Mail) -> IndexEntry {
    let kind = if to == Destination::Fast {
        "fast"
    } else {
        "waiting"
    };
    // Neighbours in a block go to unrelated domains.
    let domain = number.wrapping_mul(7_919) % mail.domains;
    let (first, tenants) = mail.tenants;
    let tenant = tenant(first + number.wrapping_mul(31) % tenants);
    let recipient = Recipient {
        address: format!(
            "user{}.{number}@d{domain}.{kind}.example",
            number * 31 % 9973
        ),
        ..Recipient::default()
    };
    let envelope = Envelope {
        tenant,
        stream: "transactional".into(),
        campaign: String::new(),
        credential: "acme-app".into(),
        authenticated_as: "app@acme.example".into(),
        return_path: "bounces@acme.example".into(),
        recipients: vec![recipient],
        accepted_at_ms: now_ms,
        from_domain: "acme.example".into(),
        ..Envelope::default()
    };
    IndexEntry {
        message_id: id(number, now_ms),
        length: 10_240,
        crc: number as u32,
        body_hash: Bytes::from_static(&[7; 32]),
        header_length: 600,
        envelope: Some(envelope),
        ..IndexEntry::default()
    }
}

/// A UUIDv7 of the present with a number in its random part.
pub fn id(number: u64, now_ms: u64) -> Bytes {
    let mut bytes = [0_u8; 16];
    bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
    // Multiplication by an odd constant is a bijection: the tail stays unique and looks random.
    bytes[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[6] = 0x70 | (number as u8 & 0x0f);
    bytes[7] = (number >> 4) as u8;
    Bytes::copy_from_slice(&bytes)
}

/// MAIL FROM was sent.
pub fn begin(delivery: DeliveryRef) -> SenderItem {
    SenderItem {
        kind: Some(Kind::Begin(Begin {
            delivery: Some(delivery),
            ..Begin::default()
        })),
    }
}

/// The attempt's result.
pub fn report(delivery: DeliveryRef, now_ms: u64, to: Destination) -> SenderItem {
    let reply = match to {
        Destination::Fast => Reply {
            stage: Stage::FinalDot.into(),
            code: 250,
            enhanced: "2.0.0".into(),
            text: "2.0.0 Ok: queued as 4cXyZ12AbCdEf".into(),
        },
        Destination::Waiting => Reply {
            stage: Stage::Rcpt.into(),
            code: 451,
            enhanced: "4.7.1".into(),
            text: "4.7.1 Greylisting in action, please come back later".into(),
        },
    };
    let recipients = delivery.ordinals.iter().map(|&ordinal| RecipientReport {
        ordinal,
        address: "user@recipient.example".into(),
        reply: Some(reply.clone()),
    });
    let report = Report {
        recipients: recipients.collect(),
        delivery: Some(delivery),
        mx_host: "mx1.recipient.example".into(),
        mx_address: "192.0.2.25".into(),
        tls: true,
        started_at_ms: now_ms,
        finished_at_ms: now_ms,
        dot_sent: to == Destination::Fast,
        asked: None,
    };
    SenderItem {
        kind: Some(Kind::Report(report)),
    }
}
