//! What acceptance changes in a header section.

use mail::MessageId;

use crate::fields;
use crate::inspect::is_bcc;
use crate::labels::is_label;
use crate::times::is_time;

/// Name of the field that says what pre-flight checks found; ours alone.
pub const WARNING: &str = "X-Staffetta-Warning";

/// What [`repair`] puts in.
#[derive(Debug, Clone, Copy)]
pub struct Additions<'a> {
    /// Our `Received` field with its CRLF, from [`crate::received_field`]; may be several fields
    /// or empty.
    pub received: &'a str,
    /// Value of the `Date` field if there is none, from [`crate::date_text`]; `None`: it stays away.
    pub date_if_missing: Option<&'a str>,
    /// Value of the `Message-ID` field if there is none, from [`message_id_text`]; `None`: it stays away.
    pub message_id_if_missing: Option<&'a str>,
}

/// The header section as it is passed on: our trace field on top, `Date` and `Message-ID` at the
/// end when they are missing and wanted (RFC 6409 section 8), no `Bcc` and no `Resent-Bcc` (RFC 5322 section
/// 3.6.3), none of the fields that [`crate::times`] and [`crate::labels`] read, and no [`WARNING`] but ours. A first line that begins with white space continues nothing and would continue our own
/// field: it is dropped. Every other byte stays as it is. Header section in, header section out, both without
/// the empty line that ends them; every line of the result ends in CRLF.
pub fn repair(header: &[u8], additions: &Additions<'_>) -> Vec<u8> {
    let capacity = header.len() + additions.received.len() + 160;
    let mut repaired = Vec::with_capacity(capacity);
    repaired.extend_from_slice(additions.received.as_bytes());
    let (mut has_date, mut has_message_id) = (false, false);
    for (index, field) in fields(header).enumerate() {
        let continues_nothing =
            index == 0 && field.raw.starts_with(b" ") | field.raw.starts_with(b"\t");
        if is_bcc(&field)
            || is_time(&field)
            || is_label(&field)
            || field.is(WARNING)
            || continues_nothing
        {
            continue;
        }
        has_date |= field.is("Date");
        has_message_id |= field.is("Message-ID");
        repaired.extend_from_slice(field.raw);
    }
    if !repaired.is_empty() && !repaired.ends_with(b"\r\n") {
        repaired.extend_from_slice(b"\r\n");
    }
    if let (false, Some(date)) = (has_date, additions.date_if_missing) {
        push_field(&mut repaired, "Date", date);
    }
    if let (false, Some(message_id)) = (has_message_id, additions.message_id_if_missing) {
        push_field(&mut repaired, "Message-ID", message_id);
    }
    repaired
}

/// The value of a `Message-ID` field that we add: unique because `id` is.
pub fn message_id_text(id: MessageId, host: &str) -> String {
    format!("<{id}@{host}>")
}

fn push_field(header: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        header.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDITIONS: Additions<'static> = Additions {
        received: "Received: us\r\n",
        date_if_missing: Some("today"),
        message_id_if_missing: Some("<i@us>"),
    };

    fn repaired(header: &str) -> String {
        String::from_utf8(repair(header.as_bytes(), &ADDITIONS)).unwrap()
    }

    #[test]
    fn adds_what_is_missing_and_only_that() {
        assert_eq!(
            repaired("From: a@b\r\n"),
            "Received: us\r\nFrom: a@b\r\nDate: today\r\nMessage-ID: <i@us>\r\n"
        );
        assert_eq!(
            repaired("date: d\r\nMESSAGE-ID: i\r\n"),
            "Received: us\r\ndate: d\r\nMESSAGE-ID: i\r\n"
        );
        assert_eq!(
            repaired(""),
            "Received: us\r\nDate: today\r\nMessage-ID: <i@us>\r\n"
        );
    }

    #[test]
    fn adds_only_what_is_wanted() {
        let additions = Additions {
            date_if_missing: None,
            message_id_if_missing: None,
            ..ADDITIONS
        };
        assert_eq!(
            repair(b"x-staffetta-warning: forged\r\nFrom: a@b\r\n", &additions),
            b"Received: us\r\nFrom: a@b\r\n"
        );
    }

    #[test]
    fn removes_blind_copies_with_their_folded_lines() {
        assert_eq!(
            repaired(
                "Date: d\r\nBCC: a@b,\r\n\tc@d,\r\n e@f\r\nSubject: s\r\nbcc : g@h\r\nResent-Bcc: x\r\nMessage-ID: i\r\n"
            ),
            "Received: us\r\nDate: d\r\nSubject: s\r\nMessage-ID: i\r\n"
        );
        assert_eq!(
            repaired("Date: d\r\nMessage-ID: i\r\nBcc: a"),
            "Received: us\r\nDate: d\r\nMessage-ID: i\r\n"
        );
    }

    #[test]
    fn removes_what_is_for_us() {
        assert_eq!(
            repaired(
                "Date: d\r\nx-staffetta-not-before: 1h\r\nX-Staffetta-Expires:\r\n 2h\r\nX-Staffetta-Stream: s\r\nx-staffetta-campaign: c\r\nMessage-ID: i\r\n"
            ),
            "Received: us\r\nDate: d\r\nMessage-ID: i\r\n"
        );
    }

    #[test]
    fn keeps_odd_bytes_and_malformed_lines() {
        let header = "Date: d\r\nX: \t \u{e9} \r\n \r\nno field\r\nY:\rz\nw\r\nMessage-ID: i";
        assert_eq!(repaired(header), format!("Received: us\r\n{header}\r\n"));
    }

    #[test]
    fn lets_no_first_line_continue_our_own_field() {
        for first in [" forged: x", "\tforged\r\n more"] {
            let header = format!("{first}\r\nDate: d\r\nMessage-ID: i\r\n");
            assert_eq!(
                repaired(&header),
                "Received: us\r\nDate: d\r\nMessage-ID: i\r\n"
            );
        }
    }

    #[test]
    fn makes_a_message_id_of_ours() {
        assert_eq!(
            message_id_text(MessageId::from_bytes([1; 16]), "relay.example"),
            "<01010101-0101-0101-0101-010101010101@relay.example>"
        );
    }

    proptest! {
        #[test]
        fn changes_nothing_in_a_second_pass(header in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'B'), Just(b'c'), any::<u8>()], 0..100)) {
            let once = repair(&header, &Additions { received: "", ..ADDITIONS });
            let twice = repair(&once, &Additions { received: "", ..ADDITIONS });
            prop_assert_eq!(once, twice);
        }
    }
}
