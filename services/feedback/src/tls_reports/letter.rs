//! A report as a message of the spool.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use dkim::BodyHasher;
use mail::Address;
use proto::envelope::{Body, Envelope, Recipient};
use proto::spool::IndexEntry;
use tlsrpt::{Day, Letter, Report, Reporter};

/// Bit of NOTIFY: never (RFC 3461 section 4.1).
const NEVER: u32 = 1;

/// Ids that follow from domain, day and reporter, whoever makes the report.
pub(super) struct Ids {
    day: Day,
    hash: [u8; 32],
}

impl Ids {
    pub(super) fn of(domain: &str, day: Day, reporter: &Reporter) -> Self {
        let text = format!(
            "staffetta tls report\n{domain}\n{}\n{}",
            day.0, reporter.domain
        );
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self { day, hash }
    }

    fn number(&self, at: usize) -> u64 {
        let octets = self.hash[at..].iter().take(8);
        octets.fold(0, |number, octet| number << 8 | u64::from(*octet))
    }

    /// Of the report, as the domain sees it: letters and digits.
    pub(super) fn report(&self) -> String {
        let octets = self.hash[..16].iter();
        octets.map(|octet| format!("{octet:02x}")).collect()
    }

    /// A UUIDv7 of the moment after the day.
    fn message(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&self.day.after().start_ms().to_be_bytes()[2..]);
        id[6..].copy_from_slice(&self.hash[16..26]);
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        id
    }

    pub(super) fn block(&self) -> [u8; 16] {
        let mut id = self.message();
        id[15] ^= 0xff;
        id
    }

    pub(super) fn partition(&self, partitions: u32) -> u32 {
        let number = self.number(0) % u64::from(partitions.max(1));
        u32::try_from(number).unwrap_or(0)
    }

    /// Some part of a whole, always the same.
    pub(super) fn share_of(&self, whole: u64) -> u64 {
        self.number(8) % whole.max(1)
    }
}

/// How it goes out.
pub(super) struct Way<'a> {
    pub tenant: &'a str,
    pub stream: &'a str,
    pub from: &'a Address,
    pub to: &'a [Address],
    pub not_before_ms: u64,
}

/// The message; of the same arguments always the same.
pub(super) fn block(way: &Way<'_>, report: Report<'_>, ids: &Ids) -> (IndexEntry, Bytes) {
    let to: Vec<&str> = way.to.iter().map(Address::as_str).collect();
    let built = Letter {
        report,
        from: way.from.as_str(),
        to: &to,
        date_ms: way.not_before_ms,
    }
    .built();
    let mut hasher = BodyHasher::new();
    hasher.update(&built.content[built.header_length..]);
    let recipient = |address: &&str| Recipient {
        address: (*address).to_owned(),
        notify: NEVER,
        ..Recipient::default()
    };
    let entry = IndexEntry {
        message_id: Bytes::copy_from_slice(&ids.message()),
        body_hash: Bytes::copy_from_slice(&hasher.finish()),
        header_length: u32::try_from(built.header_length).unwrap_or(u32::MAX),
        envelope: Some(Envelope {
            tenant: way.tenant.to_owned(),
            stream: way.stream.to_owned(),
            return_path: way.from.as_str().to_owned(),
            recipients: to.iter().map(recipient).collect(),
            accepted_at_ms: report.day.after().start_ms(),
            not_before_ms: way.not_before_ms,
            body: Body::SevenBit.into(),
            from_domain: report.reporter.domain.clone(),
            // RFC 8460 section 3: what keeps mail from the domain must not keep its report.
            tls_optional: true,
            ..Envelope::default()
        }),
        ..IndexEntry::default()
    };
    (entry, built.content.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_same_report_is_the_same_message_and_another_one_is_not() {
        let reporter = |domain: &str| Reporter {
            organization: "Relay".into(),
            contact: "x@relay.example".into(),
            domain: domain.into(),
        };
        let (policies, day) = (BTreeMap::new(), Day(20_000));
        let build = |domain: &str, day: Day, from: &str| {
            let reporter = reporter(from);
            let ids = Ids::of(domain, day, &reporter);
            let report = Report {
                reporter: &reporter,
                domain,
                day,
                id: &ids.report(),
                policies: &policies,
            };
            let way = Way {
                tenant: "ops",
                stream: "reports",
                from: &Address::parse(&format!("tls@{from}")).unwrap(),
                to: &[Address::parse("a@b.example").unwrap()],
                not_before_ms: day.after().start_ms() + ids.share_of(1_000),
            };
            (ids.block(), block(&way, report, &ids))
        };
        let first = build("dest.example", day, "relay.example");
        assert_eq!(first, build("dest.example", day, "relay.example"));
        for other in [
            build("other.example", day, "relay.example"),
            build("dest.example", day.after(), "relay.example"),
            build("dest.example", day, "other.example"),
        ] {
            assert!(other.0 != first.0 && other.1.0.message_id != first.1.0.message_id);
        }
        let id = mail::MessageId::try_from(&first.1.0.message_id[..]).unwrap();
        assert_eq!(id.unix_ms(), day.after().start_ms());
        let envelope = first.1.0.envelope.unwrap();
        assert!(envelope.tls_optional && !envelope.require_tls);
        assert_eq!(envelope.recipients[0].notify, NEVER);
        assert_eq!(
            (&*envelope.return_path, &*envelope.from_domain),
            ("tls@relay.example", "relay.example")
        );
        assert!(envelope.not_before_ms < day.after().start_ms() + 1_000);
    }
}
