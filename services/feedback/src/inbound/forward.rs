//! What people write to an address of ours, as a message of the spool to whoever reads it.

use bytes::{Bytes, BytesMut};
use dkim::BodyHasher;
use mail::Address;
use message::{HeaderEnd, inspect};
use proto::envelope::{Body, Envelope, Forwarded, Recipient};
use proto::inbound::Record;
use proto::spool::IndexEntry;

use super::derived;

/// It has been through so many hosts that it goes round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InALoop;

/// The message, octet by octet as it came, and the id of its block. It has the null return path, so that nothing comes back on
/// it, and no signature of ours, since we did not write it. The same arguments give the same bytes.
pub(crate) fn forwarded(
    record: &Record,
    id: &[u8; 16],
    to: &Address,
    tenant: &str,
    stream: &str,
) -> Result<([u8; 16], IndexEntry, Bytes), InALoop> {
    let mut end = HeaderEnd::new();
    end.push(&record.content);
    let (content, header_length) = match end.found() {
        Some(length) => (record.content.clone(), length),
        // All of it is header: the body is empty.
        None => {
            let mut content = BytesMut::with_capacity(record.content.len() + 2);
            content.extend_from_slice(&record.content);
            content.extend_from_slice(b"\r\n");
            let length = content.len();
            (content.freeze(), length)
        }
    };
    if inspect(&content[..header_length]).is_loop() {
        return Err(InALoop);
    }
    let mut hasher = BodyHasher::new();
    hasher.update(&content[header_length..]);
    let body = if content.is_ascii() {
        Body::SevenBit
    } else {
        Body::EightBit
    };
    let message_id = derived(id, "forward", to.as_str());
    let entry = IndexEntry {
        message_id: Bytes::copy_from_slice(&message_id),
        body_hash: Bytes::copy_from_slice(&hasher.finish()),
        header_length: u32::try_from(header_length).unwrap_or(u32::MAX),
        envelope: Some(Envelope {
            tenant: tenant.to_owned(),
            stream: stream.to_owned(),
            recipients: vec![Recipient {
                address: to.as_str().to_owned(),
                ..Recipient::default()
            }],
            accepted_at_ms: record.received_at_ms,
            body: body.into(),
            // Its header is UTF-8 then (RFC 6532), and goes only to who takes that.
            smtputf8: !content[..header_length].is_ascii(),
            forwarded: Some(Forwarded { seal: None }),
            ..Envelope::default()
        }),
        ..IndexEntry::default()
    };
    Ok((derived(id, "forward block", to.as_str()), entry, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(content: &str) -> Result<(IndexEntry, Bytes), InALoop> {
        let record = Record {
            content: Bytes::copy_from_slice(content.as_bytes()),
            received_at_ms: 5,
            ..Record::default()
        };
        let to = Address::parse("people@acme.example").unwrap();
        let made = forwarded(&record, &[7; 16], &to, "acme", "mail")?;
        assert_eq!(
            forwarded(&record, &[7; 16], &to, "acme", "mail"),
            Ok(made.clone())
        );
        Ok((made.1, made.2))
    }

    #[test]
    fn goes_on_as_it_came() {
        let text = "Received: x\r\nSubject: hello\r\n\r\nbody \u{e9}\r\n";
        let (entry, content) = forward(text).unwrap();
        assert_eq!(&content[..], text.as_bytes());
        assert_eq!(entry.header_length, 31);
        let envelope = entry.envelope.unwrap();
        assert_eq!(
            (envelope.return_path.as_str(), envelope.body()),
            ("", Body::EightBit)
        );
        assert_eq!(envelope.recipients[0].address, "people@acme.example");
        assert!(envelope.forwarded.is_some() && envelope.from_domain.is_empty());
        assert!(!envelope.smtputf8);
        let (entry, _) = forward("Subject: h\u{e9}llo\r\n\r\nbody\r\n").unwrap();
        assert!(entry.envelope.unwrap().smtputf8);
    }

    #[test]
    fn a_header_without_an_end_gets_one() {
        let (entry, content) = forward("Subject: hello\r\n").unwrap();
        assert_eq!(&content[..], b"Subject: hello\r\n\r\n");
        assert_eq!(entry.header_length, 18);
    }

    #[test]
    fn what_goes_round_ends() {
        let text = "Received: x\r\n".repeat(101) + "\r\n";
        assert_eq!(forward(&text), Err(InALoop));
    }
}
