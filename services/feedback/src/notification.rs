//! A DSN as a message of the spool.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use dkim::BodyHasher;
use dsn::{Action, FailedRecipient, Report, Return};
use mail::MessageId;
use proto::envelope::{Body, DsnReturn, Envelope, Recipient};
use proto::spool::{IndexEntry, ReportsDelay, ReportsOn};

use crate::ledger::Owed;
use crate::original::Original;

/// Bit of `IndexEntry.flags`: the simulator answers for the recipient.
const SIMULATED: u64 = 1;

/// Ready to be published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notification {
    /// Of the block that holds it alone.
    pub(crate) block_id: [u8; 16],
    pub(crate) entry: IndexEntry,
    pub(crate) content: Bytes,
}

/// Why no DSN is written though one is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotOwed {
    /// The original has the null return path: nobody is to be told (RFC 5321 section 6.1).
    NullReturnPath,
    /// The journal names recipients that the message does not have.
    NoSuchRecipients,
}

/// Builds the DSN. `stream` is the traffic class it goes out in. The same arguments give the same bytes.
pub(crate) fn notification(
    owed: &Owed,
    original: &Original,
    hostname: &str,
    stream: &str,
) -> Result<Notification, NotOwed> {
    let envelope = original.entry.envelope.clone().unwrap_or_default();
    if envelope.return_path.is_empty() {
        return Err(NotOwed::NullReturnPath);
    }
    let recipients = failed_recipients(owed, &envelope);
    if recipients.is_empty() {
        return Err(NotOwed::NoSuchRecipients);
    }
    let ordinals = owed.ordinals();
    let id = MessageId::from_bytes(derived(b"message", owed, &ordinals));
    // RFC 3461 section 4.3: RET is about failures. Of a message that was not to be read on its way no more goes back than
    // is needed, although the notification is protected in the same way.
    let wants_whole = envelope.ret() == DsnReturn::Full
        && !original.is_partial
        && owed.notice == 0
        && !owed.is_relay()
        && !envelope.require_tls;
    let built = dsn::notification(&Report {
        reporting_mta: hostname,
        own_id: &id.to_string(),
        date_ms: owed.written_at_ms,
        return_path: &envelope.return_path,
        arrival_ms: envelope.accepted_at_ms,
        original_id: &owed.message_id.to_string(),
        envid: &envelope.envid,
        ret: if wants_whole {
            Return::Full
        } else {
            Return::Headers
        },
        action: match owed.notice {
            0 if owed.is_relay() => Action::Relayed,
            0 => Action::Failed,
            _ => Action::Delayed {
                until_ms: owed.tried_until_ms,
            },
        },
        recipients,
        original: Some(dsn::Original {
            content: &original.content,
            header_length: original.entry.header_length as usize,
        }),
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
        flags: if envelope.sandbox { SIMULATED } else { 0 },
        body_hash: Bytes::copy_from_slice(&hasher.finish()),
        header_length: u32::try_from(built.header_length).unwrap_or(u32::MAX),
        envelope: Some(Envelope {
            tenant: envelope.tenant,
            stream: stream.to_owned(),
            recipients: vec![Recipient {
                address: envelope.return_path.clone(),
                ..Recipient::default()
            }],
            sandbox: envelope.sandbox,
            accepted_at_ms: owed.written_at_ms,
            body: body.into(),
            smtputf8: !envelope.return_path.is_ascii(),
            from_domain: hostname.to_owned(),
            // RFC 8689 section 5: it is protected as the message was.
            require_tls: envelope.require_tls,
            ..Envelope::default()
        }),
        reports_on: (owed.notice == 0).then(|| ReportsOn {
            message_id: Bytes::copy_from_slice(owed.message_id.as_bytes()),
            ordinals: ordinals.clone(),
        }),
        reports_delay: (owed.notice > 0).then(|| ReportsDelay {
            message_id: Bytes::copy_from_slice(owed.message_id.as_bytes()),
            ordinals: ordinals.clone(),
            notice: owed.notice,
        }),
        ..IndexEntry::default()
    };
    Ok(Notification {
        block_id: derived(b"block", owed, &ordinals),
        entry,
        content: built.content.into(),
    })
}

fn failed_recipients<'a>(owed: &'a Owed, envelope: &'a Envelope) -> Vec<FailedRecipient<'a>> {
    let recipients = owed.recipients.iter().filter_map(|failed| {
        let recipient = envelope
            .recipients
            .get(usize::try_from(failed.ordinal).ok()?)?;
        Some(FailedRecipient {
            address: &recipient.address,
            orcpt: &recipient.orcpt,
            failure: failed.failure,
            status: &failed.enhanced,
            reply_code: failed.code,
            reply_text: &failed.text,
            remote_mta: &owed.mx_host,
            last_attempt_ms: owed.last_attempt_ms,
        })
    });
    recipients.collect()
}

/// A UUIDv7 that follows from the original's id and the recipients: its time, so that ids stay sorted by time, and
/// for the rest a hash, so that whoever writes the DSN again gives it the same id.
fn derived(purpose: &[u8], owed: &Owed, ordinals: &[u32]) -> [u8; 16] {
    let original = owed.message_id;
    let mut input = b"staffetta dsn ".to_vec();
    input.extend_from_slice(purpose);
    input.extend_from_slice(original.as_bytes());
    for ordinal in ordinals {
        input.extend_from_slice(&ordinal.to_be_bytes());
    }
    if owed.notice > 0 {
        input.extend_from_slice(b" delay");
        input.extend_from_slice(&owed.notice.to_be_bytes());
    }
    let hash = digest(&SHA256, &input);
    let mut id = *original.as_bytes();
    id[6..].copy_from_slice(&hash.as_ref()[..10]);
    id[6] = 0x70 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    id
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dsn::Failure;
    use mail::Place;

    use super::*;
    use crate::ledger::OwedRecipient;

    fn owed(ordinals: &[u32]) -> Owed {
        let recipients = ordinals.iter().map(|ordinal| OwedRecipient {
            ordinal: *ordinal,
            failure: Failure::Refused,
            code: 550,
            enhanced: "5.1.1".into(),
            text: "no such user".into(),
        });
        Owed {
            message_id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            place: Place {
                sequence: 1,
                index: 0,
            },
            notice: 0,
            tried_until_ms: 0,
            written_at_ms: 1_795_351_206_000,
            mx_host: "mx.receiver.example".into(),
            last_attempt_ms: 1_795_351_205_000,
            recipients: recipients.collect(),
        }
    }

    fn original(return_path: &str) -> Original {
        let content = Bytes::from_static(b"Subject: hello\r\n\r\nbody\r\n");
        let recipient = |address: &str| Recipient {
            address: address.into(),
            ..Recipient::default()
        };
        let envelope = Envelope {
            tenant: "acme".into(),
            stream: "bulk".into(),
            return_path: return_path.into(),
            recipients: vec![
                recipient("a@receiver.example"),
                recipient("b@receiver.example"),
            ],
            accepted_at_ms: 1_795_351_200_000,
            ..Envelope::default()
        };
        let entry = IndexEntry {
            header_length: 18,
            envelope: Some(envelope),
            ..IndexEntry::default()
        };
        Original {
            entry: Arc::new(entry),
            content,
            is_partial: false,
        }
    }

    #[test]
    fn goes_to_the_return_path_with_the_null_return_path() {
        let built = notification(
            &owed(&[1]),
            &original("me@sender.example"),
            "relay.example.com",
            "transactional",
        )
        .unwrap();
        let envelope = built.entry.envelope.clone().unwrap();
        assert_eq!(
            (
                envelope.return_path.as_str(),
                envelope.tenant.as_str(),
                envelope.stream.as_str()
            ),
            ("", "acme", "transactional")
        );
        assert_eq!(
            (
                envelope.recipients.len(),
                envelope.recipients[0].address.as_str()
            ),
            (1, "me@sender.example")
        );
        assert_eq!(envelope.from_domain, "relay.example.com");
        let reports_on = built.entry.reports_on.unwrap();
        assert_eq!(
            (&reports_on.message_id[..], reports_on.ordinals),
            (&owed(&[1]).message_id.as_bytes()[..], vec![1])
        );
        let text = String::from_utf8(built.content.to_vec()).unwrap();
        assert!(
            text.contains("Final-Recipient: rfc822; b@receiver.example")
                && !text.contains("a@receiver.example"),
            "{text}"
        );
        assert_eq!(
            &built.content
                [built.entry.header_length as usize - 4..built.entry.header_length as usize],
            b"\r\n\r\n"
        );
        assert_eq!(built.entry.body_hash.len(), 32);
    }

    #[test]
    fn what_goes_back_about_a_message_that_requires_tls_is_its_header_and_requires_tls() {
        for require_tls in [false, true] {
            let mut original = original("me@sender.example");
            let envelope = Arc::make_mut(&mut original.entry).envelope.as_mut();
            let envelope = envelope.unwrap();
            envelope.require_tls = require_tls;
            envelope.set_ret(DsnReturn::Full);
            let built = notification(&owed(&[1]), &original, "h.example", "s").unwrap();
            assert_eq!(built.entry.envelope.unwrap().require_tls, require_tls);
            let text = String::from_utf8(built.content.to_vec()).unwrap();
            assert!(text.contains("Subject: hello\r\n"), "{text}");
            assert_eq!(text.contains("\r\nbody\r\n"), !require_tls, "{text}");
        }
    }

    #[test]
    fn ids_follow_from_the_original_and_the_recipients_and_keep_its_time() {
        let build = |ordinals: &[u32]| {
            notification(
                &owed(ordinals),
                &original("me@sender.example"),
                "relay.example.com",
                "s",
            )
            .unwrap()
        };
        assert_eq!(build(&[0, 1]), build(&[0, 1]));
        assert_eq!(
            build(&[1, 0]).entry.message_id,
            build(&[0, 1]).entry.message_id
        );
        assert_ne!(build(&[0]).entry.message_id, build(&[1]).entry.message_id);
        let one = build(&[0]);
        assert_ne!(one.block_id[..], one.entry.message_id[..]);
        let id = MessageId::try_from(&one.entry.message_id[..]).unwrap();
        assert_eq!(id.unix_ms(), owed(&[0]).message_id.unix_ms());
        assert_eq!(
            (one.entry.message_id[6] >> 4, one.entry.message_id[8] >> 6),
            (7, 2)
        );
    }

    #[test]
    fn a_dsn_about_mail_of_the_sandbox_stays_there() {
        for sandbox in [false, true] {
            let mut original = original("me@sender.example");
            let entry = Arc::make_mut(&mut original.entry);
            entry.envelope.as_mut().unwrap().sandbox = sandbox;
            for notice in [0, 1] {
                let mut owed = owed(&[0]);
                owed.notice = notice;
                let built = notification(&owed, &original, "h.example", "s").unwrap();
                assert_eq!(built.entry.flags, u64::from(sandbox));
                assert_eq!(built.entry.envelope.unwrap().sandbox, sandbox);
            }
        }
    }

    #[test]
    fn what_was_relayed_is_said_to_be() {
        let mut owed = owed(&[1]);
        (owed.recipients[0].failure, owed.recipients[0].code) = (Failure::Relayed, 250);
        owed.recipients[0].enhanced = "2.0.0".into();
        let mut original = original("me@sender.example");
        let envelope = Arc::make_mut(&mut original.entry).envelope.as_mut();
        envelope.unwrap().set_ret(DsnReturn::Full);
        let built = notification(&owed, &original, "h.example", "s").unwrap();
        assert_eq!(built.entry.reports_on.unwrap().ordinals, [1]);
        let text = String::from_utf8(built.content.to_vec()).unwrap();
        assert!(
            text.contains("Action: relayed\r\nStatus: 2.0.0\r\n"),
            "{text}"
        );
        assert!(
            text.contains("Subject: hello\r\n") && !text.contains("\r\nbody\r\n"),
            "{text}"
        );
    }

    #[test]
    fn each_notice_of_delay_is_a_message_of_its_own() {
        let build = |notice| {
            let mut owed = owed(&[1]);
            (owed.notice, owed.tried_until_ms) = (notice, 1_795_783_200_000);
            let built = notification(&owed, &original("me@sender.example"), "h.example", "s");
            built.unwrap()
        };
        let ids: Vec<_> = (0..3)
            .flat_map(|notice| {
                let built = build(notice);
                [built.entry.message_id.to_vec(), built.block_id.to_vec()]
            })
            .collect();
        let unlike: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unlike.len(), ids.len());
        let second = build(2);
        assert_eq!(second, build(2));
        assert!(second.entry.reports_on.is_none());
        let on = second.entry.reports_delay.unwrap();
        assert_eq!((on.ordinals, on.notice), (vec![1], 2));
        let text = String::from_utf8(second.content.to_vec()).unwrap();
        assert!(text.contains("Action: delayed\r\n"), "{text}");
        assert!(text.contains("Will-Retry-Until: Fri, 27 Nov 2026 12:40:00 +0000\r\n"));
    }

    #[test]
    fn nobody_is_told_about_mail_with_the_null_return_path() {
        assert_eq!(
            notification(&owed(&[0]), &original(""), "h.example", "s"),
            Err(NotOwed::NullReturnPath)
        );
        assert_eq!(
            notification(&owed(&[7]), &original("a@b.example"), "h.example", "s"),
            Err(NotOwed::NoSuchRecipients)
        );
    }
}
