//! The fields of RFC 3464 (and RFC 6533), as programs write them.

use crate::address::first_address;
use crate::inbound::Action;
use crate::line::fields_in;
use crate::reply::enhanced_of;

/// As much of the part as is read, octets.
pub(crate) const PART_LIMIT: usize = 512 * 1024;
/// Recipients of one report.
pub(crate) const MOST_RECIPIENTS: usize = 1000;

/// The part for programs.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) reporting_mta: String,
    pub(crate) envelope_id: String,
    pub(crate) groups: Vec<Group>,
}

/// The fields for a recipient.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) original: String,
    pub(crate) last: String,
    pub(crate) action: Option<Action>,
    pub(crate) status: Option<(u8, u16, u16)>,
    /// It says 2.x.x.
    pub(crate) is_success: bool,
    pub(crate) diagnostic: String,
    pub(crate) remote_mta: String,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.original.is_empty()
            && self.last.is_empty()
            && self.action.is_none()
            && self.status.is_none()
            && self.diagnostic.is_empty()
    }
}

/// Reads the part. Groups are apart by empty lines, or where a field begins that the group already has: not all programs write
/// the empty lines.
pub(crate) fn read_status(octets: &[u8]) -> Status {
    let mut status = Status::default();
    let mut group = Group::default();
    for field in fields_in(octets) {
        if status.groups.len() >= MOST_RECIPIENTS {
            return status;
        }
        let Some((name, value)) = field else {
            // Some write an empty line within a group: it goes on as long as no recipient was named.
            if !(group.last.is_empty() && group.original.is_empty()) || group.action.is_some() {
                end_group(&mut status, &mut group);
            }
            continue;
        };
        match &name[..] {
            "reporting-mta" if status.reporting_mta.is_empty() => {
                status.reporting_mta = typed(&value).to_owned();
            }
            "original-envelope-id" => status.envelope_id = value,
            "original-recipient" => {
                if !group.original.is_empty() {
                    end_group(&mut status, &mut group);
                }
                group.original = address(&value);
            }
            "final-recipient" => {
                if !group.last.is_empty() {
                    end_group(&mut status, &mut group);
                }
                group.last = address(&value);
            }
            "x-actual-recipient" if group.last.is_empty() => group.last = address(&value),
            "action" => group.action = action(&value),
            "status" => read_code(&value, &mut group),
            "diagnostic-code" | "x-supplementary-info" | "x-display-name"
                if name != "x-display-name" && group.diagnostic.is_empty() =>
            {
                group.diagnostic = typed(&value).to_owned();
            }
            "remote-mta" => group.remote_mta = host(typed(&value)),
            _ => {}
        }
    }
    end_group(&mut status, &mut group);
    status
}

fn end_group(status: &mut Status, group: &mut Group) {
    let group = std::mem::take(group);
    if !group.is_empty() {
        status.groups.push(group);
    }
}

/// Without the type before the semicolon, when there is one.
fn typed(value: &str) -> &str {
    match value.split_once(';') {
        Some((kind, rest)) if kind.len() <= 40 && !kind.trim().contains(' ') => rest.trim(),
        _ => value.trim(),
    }
}

fn host(value: &str) -> String {
    let first = value.split_whitespace().next().unwrap_or_default();
    first
        .trim_matches(['(', ')', '[', ']', '<', '>', '.'])
        .to_owned()
}

/// The address of a typed field (RFC 3464 section 2.3.1), also in the form for ASCII (RFC 6533 section 3).
fn address(value: &str) -> String {
    let text = typed(value);
    let decoded = if value
        .trim_start()
        .get(..5)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("utf-8"))
    {
        decode_utf8_address(text)
    } else {
        text.to_owned()
    };
    first_address(&decoded).map_or_else(
        || {
            let bare = decoded.trim_matches(['<', '>', '"', ' ']);
            bare.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        },
        str::to_owned,
    )
}

/// `\x{E9}` is é.
fn decode_utf8_address(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x{") {
        decoded.push_str(&rest[..at]);
        let behind = &rest[at + 3..];
        let character = behind.find('}').filter(|end| *end <= 6).and_then(|end| {
            Some((
                end,
                char::from_u32(u32::from_str_radix(&behind[..end], 16).ok()?)?,
            ))
        });
        match character {
            Some((end, character)) => {
                decoded.push(character);
                rest = &behind[end + 1..];
            }
            None => {
                decoded.push_str("\\x{");
                rest = behind;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

fn action(value: &str) -> Option<Action> {
    let word = value
        .split(|c: char| !c.is_ascii_alphabetic())
        .find(|word| !word.is_empty())?;
    match &word.to_ascii_lowercase()[..] {
        "failed" | "failure" | "fail" | "expired" | "undelivered" | "error" => Some(Action::Failed),
        "delayed" | "deferred" | "delay" => Some(Action::Delayed),
        "delivered" | "deliverable" => Some(Action::Delivered),
        "relayed" => Some(Action::Relayed),
        "expanded" => Some(Action::Expanded),
        _ => None,
    }
}

fn read_code(value: &str, group: &mut Group) {
    let tokens = value.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    for token in tokens {
        if let Some(code) = enhanced_of(token) {
            group.status = Some(code);
            return;
        }
        if token.starts_with("2.") {
            group.is_success = true;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_groups_with_and_without_empty_lines() {
        let text = "Reporting-MTA: dns; mx.example\nOriginal-Envelope-Id: 7\n\nOriginal-Recipient: rfc822;a@b.example\n\
                    Final-Recipient: RFC822; <c@d.example>\nAction: failed (expired)\nStatus: 5.1.1 (bad)\nRemote-MTA: dns; mx.d.example (1.2.3.4)\n\
                    Diagnostic-Code: smtp;\n 550 5.1.1 no\n such user\nFinal-Recipient: utf-8; j\\x{FC}rgen@d.example\nAction: delayed\n";
        let status = read_status(text.as_bytes());
        assert_eq!(
            (&status.reporting_mta[..], &status.envelope_id[..]),
            ("mx.example", "7")
        );
        let [first, second] = &status.groups[..] else {
            panic!("{status:?}");
        };
        assert_eq!(
            (&first.original[..], &first.last[..], &first.remote_mta[..]),
            ("a@b.example", "c@d.example", "mx.d.example")
        );
        assert_eq!(first.diagnostic, "550 5.1.1 no such user");
        assert_eq!(
            (first.action, first.status),
            (Some(Action::Failed), Some((5, 1, 1)))
        );
        assert_eq!(
            (&second.last[..], second.action),
            ("jürgen@d.example", Some(Action::Delayed))
        );
    }

    #[test]
    fn keeps_what_is_no_address_and_no_type() {
        assert_eq!(address("rfc822; user"), "user");
        assert_eq!(address("a@b.example"), "a@b.example");
        assert_eq!(decode_utf8_address("\\x{ZZ}\\x{"), "\\x{ZZ}\\x{");
        assert_eq!(typed("550 no; really"), "550 no; really");
    }

    #[test]
    fn ends_at_a_thousand_recipients() {
        let text = "Final-Recipient: rfc822; a@b.example\nAction: failed\n\n".repeat(5000);
        assert_eq!(read_status(text.as_bytes()).groups.len(), MOST_RECIPIENTS);
    }
}
