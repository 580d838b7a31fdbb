//! The DSN to the sender of a message whose recipient's host accepted it and gave up later (RFC 3461 section 5.2.7).

use bytes::Bytes;
use dkim::BodyHasher;
use dsn::{Action, FailedRecipient, Failure, Report, Return};
use mail::MessageId;
use proto::envelope::{Body, Envelope, Recipient};
use proto::event::OutOfBandBounce;
use proto::journal::Asked;
use proto::spool::IndexEntry;

use super::derived;

/// Bits of NOTIFY, as in `Recipient.notify`.
const NEVER: u32 = 1;
const FAILURE: u32 = 4;

/// What the DSN is made of, beside the report.
pub(crate) struct Late<'a> {
    /// Of the message that the report came in.
    pub(crate) record_id: [u8; 16],
    pub(crate) received_at_ms: u64,
    pub(crate) hostname: &'a str,
    pub(crate) tenant: &'a str,
    /// The traffic class it goes out in.
    pub(crate) stream: &'a str,
    pub(crate) message: MessageId,
    /// The recipient, as the sender gave it.
    pub(crate) address: &'a str,
    pub(crate) asked: &'a Asked,
}

impl Late<'_> {
    /// Whether the sender wants to be told.
    pub(crate) fn is_wanted(&self, bounce: &OutOfBandBounce) -> bool {
        let notify = self.asked.notify;
        let wants_failures = notify == 0 || notify & FAILURE != 0 && notify & NEVER == 0;
        bounce.action == "failed" && wants_failures && !self.asked.return_path.is_empty()
    }

    /// The DSN, as a message of the spool, and the id of its block. The same arguments give the same bytes.
    pub(crate) fn notification(&self, bounce: &OutOfBandBounce) -> ([u8; 16], IndexEntry, Bytes) {
        let reply = bounce.reply.clone().unwrap_or_default();
        let to = self.asked.return_path.as_str();
        let id = MessageId::from_bytes(derived(&self.record_id, "late dsn", self.address));
        let built = dsn::notification(&Report {
            reporting_mta: self.hostname,
            own_id: &id.to_string(),
            date_ms: self.received_at_ms,
            return_path: to,
            arrival_ms: self.message.unix_ms(),
            original_id: &self.message.to_string(),
            envid: &self.asked.envid,
            ret: Return::Headers,
            action: Action::Failed,
            recipients: vec![FailedRecipient {
                address: self.address,
                orcpt: &self.asked.orcpt,
                failure: Failure::Refused,
                status: &reply.enhanced,
                reply_code: reply.code,
                reply_text: &reply.text,
                remote_mta: &bounce.remote_mta,
                last_attempt_ms: 0,
            }],
            // It was delivered, and is not kept.
            original: None,
        });
        let mut hasher = BodyHasher::new();
        hasher.update(&built.content[built.header_length..]);
        let body = if built.is_eight_bit() {
            Body::EightBit
        } else {
            Body::SevenBit
        };
        let entry = IndexEntry {
            message_id: Bytes::copy_from_slice(id.as_bytes()),
            body_hash: Bytes::copy_from_slice(&hasher.finish()),
            header_length: u32::try_from(built.header_length).unwrap_or(u32::MAX),
            envelope: Some(Envelope {
                tenant: self.tenant.to_owned(),
                stream: self.stream.to_owned(),
                recipients: vec![Recipient {
                    address: to.to_owned(),
                    ..Recipient::default()
                }],
                accepted_at_ms: self.received_at_ms,
                body: body.into(),
                smtputf8: !to.is_ascii(),
                from_domain: self.hostname.to_owned(),
                ..Envelope::default()
            }),
            ..IndexEntry::default()
        };
        let block_id = derived(&self.record_id, "late dsn block", self.address);
        (block_id, entry, built.content.into())
    }
}

#[cfg(test)]
mod tests {
    use proto::journal::Reply;

    use super::*;

    fn asked(notify: u32, return_path: &str) -> Asked {
        Asked {
            return_path: return_path.to_owned(),
            envid: "QQ314159".to_owned(),
            notify,
            orcpt: "rfc822;b@d.example".to_owned(),
        }
    }

    fn late(asked: &Asked) -> Late<'_> {
        Late {
            record_id: [7; 16],
            received_at_ms: 1_795_351_206_000,
            hostname: "relay.example",
            tenant: "acme",
            stream: "transactional",
            message: MessageId::from_bytes([1; 16]),
            address: "b@d.example",
            asked,
        }
    }

    fn bounce(action: &str) -> OutOfBandBounce {
        OutOfBandBounce {
            action: action.to_owned(),
            reply: Some(Reply {
                code: 550,
                enhanced: "5.1.1".to_owned(),
                text: "no such user".to_owned(),
                ..Reply::default()
            }),
            remote_mta: "mx.d.example".to_owned(),
            ..OutOfBandBounce::default()
        }
    }

    #[test]
    fn is_written_as_the_sender_asked() {
        for (notify, path, action, wanted) in [
            (0, "me@acme.example", "failed", true),
            (FAILURE, "me@acme.example", "failed", true),
            (FAILURE | 8, "me@acme.example", "failed", true),
            (NEVER, "me@acme.example", "failed", false),
            (2, "me@acme.example", "failed", false),
            (0, "", "failed", false),
            (0, "me@acme.example", "delayed", false),
            (0, "me@acme.example", "delivered", false),
        ] {
            let asked = asked(notify, path);
            let found = late(&asked).is_wanted(&bounce(action));
            assert_eq!(found, wanted, "{notify} {path} {action}");
        }
    }

    #[test]
    fn says_what_the_report_said_with_what_the_sender_gave() {
        let asked = asked(FAILURE, "me@acme.example");
        let (block_id, entry, content) = late(&asked).notification(&bounce("failed"));
        assert_eq!(late(&asked).notification(&bounce("failed")).0, block_id);
        let envelope = entry.envelope.unwrap();
        assert_eq!(envelope.return_path, "");
        assert_eq!(envelope.recipients[0].address, "me@acme.example");
        let text = String::from_utf8(content.to_vec()).unwrap();
        for field in [
            "Original-Envelope-Id: QQ314159\r\n",
            "Original-Recipient: rfc822; b@d.example\r\n",
            "Final-Recipient: rfc822; b@d.example\r\n",
            "Action: failed\r\n",
            "Status: 5.1.1\r\n",
            "Remote-MTA: dns; mx.d.example\r\n",
        ] {
            assert!(text.contains(field), "{field} in {text}");
        }
    }
}
