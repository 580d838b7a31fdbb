//! The part for machines: message/delivery-status (RFC 3464 section 2).

use crate::date::date_text;
use crate::text::{ascii_line, decode_xtext, field, one_line};
use crate::{Action, FailedRecipient, Failure, Report};

/// As much of a reply as is passed on, characters.
const DIAGNOSTIC_LIMIT: usize = 900;
/// Longest address or identifier that is passed on, characters.
const NAME_LIMIT: usize = 320;

/// The fields per message, and a group for each recipient. ASCII only.
pub(crate) fn status_fields(report: &Report<'_>) -> String {
    let mut part = String::new();
    if !report.envid.is_empty() {
        part.push_str(&field(
            "Original-Envelope-Id",
            &ascii_line(&decode_xtext(report.envid), NAME_LIMIT),
        ));
    }
    part.push_str(&field(
        "Reporting-MTA",
        &format!("dns; {}", ascii_line(report.reporting_mta, NAME_LIMIT)),
    ));
    part.push_str(&field("Arrival-Date", &date_text(report.arrival_ms)));
    for recipient in &report.recipients {
        part.push_str("\r\n");
        push_group(&mut part, recipient, report.action);
    }
    part
}

fn push_group(part: &mut String, recipient: &FailedRecipient<'_>, action: Action) {
    if let Some(original) = original_recipient(recipient.orcpt) {
        part.push_str(&field("Original-Recipient", &original));
    }
    part.push_str(&field("Final-Recipient", &typed_address(recipient.address)));
    let word = match action {
        Action::Failed => "failed",
        Action::Delayed { .. } => "delayed",
        Action::Relayed => "relayed",
    };
    part.push_str(&field("Action", word));
    part.push_str(&field("Status", &status(recipient)));
    if !recipient.remote_mta.is_empty() {
        part.push_str(&field(
            "Remote-MTA",
            &format!("dns; {}", ascii_line(recipient.remote_mta, NAME_LIMIT)),
        ));
    }
    if let Some(diagnostic) = diagnostic(recipient) {
        part.push_str(&field("Diagnostic-Code", &diagnostic));
    }
    if recipient.last_attempt_ms != 0 {
        part.push_str(&field(
            "Last-Attempt-Date",
            &date_text(recipient.last_attempt_ms),
        ));
    }
    if let Action::Delayed { until_ms } = action
        && until_ms != 0
    {
        part.push_str(&field("Will-Retry-Until", &date_text(until_ms)));
    }
}

/// The enhanced code of the refusal; 4.4.7 (delivery time expired) when the time is what ended it; 5.0.0 when
/// nothing was said, or something that is no failure. Of a delay the code that says "for now", else 4.0.0; of what was
/// relayed one that says "done", else 2.0.0.
pub(crate) fn status(recipient: &FailedRecipient<'_>) -> String {
    if recipient.failure == Failure::Expired {
        return "4.4.7".into();
    }
    let parts: Vec<&str> = recipient.status.split('.').collect();
    let digits = |text: &&str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    let class = match recipient.failure {
        Failure::Delayed => "4",
        Failure::Relayed => "2",
        _ => "5",
    };
    match parts.as_slice() {
        [first, subject, detail] if *first == class && digits(subject, 3) && digits(detail, 3) => {
            recipient.status.into()
        }
        _ => format!("{class}.0.0"),
    }
}

fn diagnostic(recipient: &FailedRecipient<'_>) -> Option<String> {
    let text = ascii_line(recipient.reply_text, DIAGNOSTIC_LIMIT);
    match recipient.reply_code {
        0 if text.is_empty() => None,
        0 => Some(format!("x-staffetta; {text}")),
        code => {
            let enhanced = ascii_line(recipient.status, 16);
            Some(format!("smtp; {code} {enhanced} {text}"))
        }
    }
}

/// `type; address`. A non-ASCII address takes the form that fits a 7-bit part (RFC 6533 section 3).
fn typed_address(address: &str) -> String {
    let address = one_line(address, NAME_LIMIT);
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    let mut encoded = String::new();
    for c in address.chars() {
        if c.is_ascii_graphic() && !matches!(c, '\\' | '+' | '=') {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    format!("utf-8; {encoded}")
}

/// `None` when ORCPT was not given or has no type.
fn original_recipient(orcpt: &str) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    let kind_is_atom = !kind.is_empty()
        && kind.len() <= 32
        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !kind_is_atom {
        return None;
    }
    let address = ascii_line(&decode_xtext(address), NAME_LIMIT);
    (!address.is_empty()).then(|| format!("{kind}; {address}"))
}
