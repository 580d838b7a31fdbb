//! What acceptance changes in a header section.

use std::borrow::Cow;

use mail::MessageId;

use crate::inspect::is_bcc;
use crate::labels::is_label;
use crate::lines::{LONGEST_LINE, fold};
use crate::times::is_time;
use crate::{SignedNames, fields};

/// Name of the field that says what pre-flight checks found; ours alone.
pub const WARNING: &str = "X-Staffetta-Warning";

/// What [`repair`] changes, besides what it always takes out.
#[derive(Debug, Clone, Copy)]
pub struct Additions<'a> {
    /// Our `Received` field with its CRLF, from [`crate::received_field`]; may be several fields
    /// or empty.
    pub received: &'a str,
    /// Fields that are put at the end where they are missing, in this order.
    pub if_missing: &'a [Addition<'a>],
    /// Lines that are too long are folded, unless the message is signed.
    pub fold: bool,
    /// What signatures of the message cover: it is neither taken out nor added.
    pub signed: &'a SignedNames<'a>,
    /// The message is somebody else's: what is for us is taken out only where no signature covers it.
    pub is_foreign: bool,
}

/// A field that is added where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition<'a> {
    /// Its name.
    pub name: &'static str,
    /// Its value, without CRLF.
    pub value: Cow<'a, str>,
    /// It is not added when a field of one of these names is there.
    pub unless: &'static [&'static str],
}

/// The header section as it is passed on: our trace field on top, what is missing and wanted at the end (RFC 6409
/// section 8), no `Bcc` and no `Resent-Bcc` (RFC 5322 section
/// 3.6.3), none of the fields that [`crate::times`] and [`crate::labels`] read, and no [`WARNING`] but ours. A first line that begins with white space continues nothing and would continue our own
/// field: it is dropped. Every other byte stays as it is. Header section in, header section out, both without
/// the empty line that ends them; every line of the result ends in CRLF.
pub fn repair(header: &[u8], additions: &Additions<'_>) -> Vec<u8> {
    let capacity = header.len() + additions.received.len() + 160;
    let mut repaired = Vec::with_capacity(capacity);
    repaired.extend_from_slice(additions.received.as_bytes());
    let Additions { signed, .. } = additions;
    let mut is_there = vec![false; additions.if_missing.len()];
    // By name, of which there are a handful: what signatures cover is looked for once, however many fields there are.
    let mut covered: Vec<(&[u8], bool)> = Vec::new();
    for (index, field) in fields(header).enumerate() {
        let continues_nothing =
            index == 0 && field.raw.starts_with(b" ") | field.raw.starts_with(b"\t");
        let is_ours = is_time(&field) || is_label(&field) || field.is(WARNING);
        let may_be_kept = is_bcc(&field) || is_ours && additions.is_foreign;
        if continues_nothing || is_ours && !may_be_kept {
            continue;
        }
        if may_be_kept {
            let known = covered
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(field.name));
            let is_covered = known.map_or_else(|| signed.covers_field(&field), |(_, is)| *is);
            if known.is_none() {
                covered.push((field.name, is_covered));
            }
            if !is_covered {
                continue;
            }
        }
        for (addition, is_there) in additions.if_missing.iter().zip(&mut is_there) {
            *is_there |= addition.unless.iter().any(|name| field.is(name));
        }
        if additions.fold && !signed.is_signed() && field.raw.len() > LONGEST_LINE {
            fold(field.raw, &mut repaired);
        } else {
            repaired.extend_from_slice(field.raw);
        }
    }
    if !repaired.is_empty() && !repaired.ends_with(b"\r\n") {
        repaired.extend_from_slice(b"\r\n");
    }
    for (addition, is_there) in additions.if_missing.iter().zip(is_there) {
        let is_signed = addition.unless.iter().any(|name| signed.covers(name));
        if !is_there && !is_signed {
            push_field(&mut repaired, addition.name, &addition.value);
        }
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

    fn additions() -> [Addition<'static>; 2] {
        let addition = |name, value: &'static str, unless| Addition {
            name,
            value: Cow::Borrowed(value),
            unless,
        };
        [
            addition("Date", "today", &["Date"]),
            addition("Message-ID", "<i@us>", &["Message-ID"]),
        ]
    }

    fn repaired_with(header: &[u8], received: &str, if_missing: &[Addition<'_>]) -> Vec<u8> {
        let additions = Additions {
            received,
            if_missing,
            fold: true,
            signed: &SignedNames::of(header),
            is_foreign: false,
        };
        repair(header, &additions)
    }

    fn repaired(header: &str) -> String {
        let repaired = repaired_with(header.as_bytes(), "Received: us\r\n", &additions());
        String::from_utf8(repaired).unwrap()
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
        assert_eq!(
            repaired_with(
                b"x-staffetta-warning: forged\r\nFrom: a@b\r\n",
                "Received: us\r\n",
                &[]
            ),
            b"Received: us\r\nFrom: a@b\r\n"
        );
    }

    #[test]
    fn neither_adds_nor_takes_out_what_a_signature_covers() {
        let signature = "DKIM-Signature: h=From:Bcc:Date\r\n";
        assert_eq!(
            repaired(&format!(
                "{signature}Bcc: a\r\nResent-Bcc: b\r\nX-Staffetta-Stream: s\r\n"
            )),
            format!("Received: us\r\n{signature}Bcc: a\r\nMessage-ID: <i@us>\r\n")
        );
    }

    #[test]
    fn what_is_for_us_stays_in_mail_of_others_where_it_is_signed() {
        let header =
            b"ARC-Message-Signature: i=1; h=from:x-staffetta-stream\r\nX-Staffetta-Stream: s\r\n\
                       X-Staffetta-Campaign: c\r\n";
        for (is_foreign, kept) in [(true, true), (false, false)] {
            let additions = Additions {
                received: "",
                if_missing: &[],
                fold: true,
                signed: &SignedNames::of(header),
                is_foreign,
            };
            let repaired = String::from_utf8(repair(header, &additions)).unwrap();
            assert_eq!(repaired.contains("X-Staffetta-Stream: s\r\n"), kept);
            assert!(!repaired.contains("Campaign") && repaired.contains("ARC-Message-Signature"));
        }
    }

    #[test]
    fn many_fields_and_a_long_list_of_signed_ones_are_gone_through_once() {
        // Would take minutes if the list was read for each field.
        let list = "a:".repeat(500_000);
        let many = "Bcc:\r\n".repeat(100_000);
        let header = format!("DKIM-Signature: h={list}Date:Message-ID\r\n{many}");
        assert_eq!(repaired(&header).matches("Bcc").count(), 0);
    }

    #[test]
    fn folds_long_lines_of_what_is_not_signed() {
        let words = "word ".repeat(300);
        let header = format!("Date: d\r\nMessage-ID: i\r\nX: {words}\r\n");
        assert!(
            repaired(&header)
                .lines()
                .all(|line| line.len() <= LONGEST_LINE)
        );
        let signed = format!("DKIM-Signature: h=\r\n{header}");
        assert_eq!(repaired(&signed), format!("Received: us\r\n{signed}"));
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
            let once = repaired_with(&header, "", &additions());
            let twice = repaired_with(&once, "", &additions());
            prop_assert_eq!(once, twice);
        }
    }
}
