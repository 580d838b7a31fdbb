//! The part for people.

use crate::date::date_text;
use crate::status_fields::status;
use crate::text::one_line;
use crate::{Action, FailedRecipient, Failure, Report};

/// As much of a reply as is shown, characters.
const REPLY_LIMIT: usize = 500;
/// Longest address that is shown, characters.
const ADDRESS_LIMIT: usize = 320;
/// Recipients that are explained one by one; the part for machines has all of them.
const SHOWN: usize = 50;

/// What happened, in plain English; lines end in CRLF.
pub(crate) fn explanation(report: &Report<'_>) -> String {
    let host = one_line(report.reporting_mta, 255);
    let mut lines = vec![
        format!("This is the mail system at {host}."),
        String::new(),
        match (report.action, report.recipients.len()) {
            (Action::Failed, 1) => {
                "Your message could not be delivered to the recipient below.".into()
            }
            (Action::Failed, count) => {
                format!("Your message could not be delivered to the {count} recipients below.")
            }
            (Action::Delayed { .. }, 1) => {
                "Your message could not yet be delivered to the recipient below.".into()
            }
            (Action::Delayed { .. }, count) => {
                format!("Your message could not yet be delivered to the {count} recipients below.")
            }
            (Action::Relayed, 1) => {
                "Your message was accepted by the mail system of the recipient below.".into()
            }
            (Action::Relayed, count) => {
                format!(
                    "Your message was accepted by the mail system of the {count} recipients below."
                )
            }
        },
        match report.action {
            Action::Failed => "No further attempt will be made.".into(),
            Action::Delayed { until_ms: 0 } => {
                "You need not send it again: it is tried further.".into()
            }
            Action::Delayed { until_ms } => format!(
                "You need not send it again: it is tried until {}.",
                date_text(until_ms)
            ),
            Action::Relayed => {
                "It will not tell you whether it was delivered: only failures may be reported."
                    .into()
            }
        },
    ];
    for recipient in report.recipients.iter().take(SHOWN) {
        lines.push(String::new());
        push_recipient(&mut lines, recipient);
    }
    if report.recipients.len() > SHOWN {
        lines.push(String::new());
        lines.push(format!(
            "... and {} more, named in the attached delivery report.",
            report.recipients.len() - SHOWN
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "Your message was accepted on {}.",
        date_text(report.arrival_ms)
    ));
    lines.push("If you ask your provider about it, please give this id:".into());
    lines.push(format!("  {}", one_line(report.original_id, 64)));
    lines.push(String::new());
    lines.join("\r\n")
}

fn push_recipient(lines: &mut Vec<String>, recipient: &FailedRecipient<'_>) {
    lines.push(format!("<{}>", one_line(recipient.address, ADDRESS_LIMIT)));
    lines.push(format!("  {}", reason(recipient)));
    let text = one_line(recipient.reply_text, REPLY_LIMIT);
    if recipient.reply_code != 0 {
        let host = match one_line(recipient.remote_mta, 255) {
            host if host.is_empty() => "The receiving server".into(),
            host => format!("The server {host}"),
        };
        lines.push(format!("  {host} said:"));
        let enhanced = one_line(recipient.status, 16);
        push_wrapped(
            lines,
            &format!("{} {enhanced} {text}", recipient.reply_code),
        );
    } else if !text.is_empty() {
        push_wrapped(lines, &format!("({text})"));
    }
}

/// A sentence for the status codes that people meet.
fn reason(recipient: &FailedRecipient<'_>) -> &'static str {
    if recipient.failure == Failure::Expired {
        return "The receiving server could not be reached or did not accept the message in time.";
    }
    if recipient.failure == Failure::Relayed {
        return "The receiving server accepted the message.";
    }
    if recipient.failure == Failure::Delayed {
        return match recipient.reply_code {
            0 => "The receiving server could not be reached.",
            _ => "The receiving server did not accept the message yet.",
        };
    }
    match status(recipient).as_str() {
        "5.1.1" | "5.1.6" => "There is no such mailbox. Please check the address.",
        "5.1.2" | "5.1.10" | "5.4.4" => {
            "The domain of this address does not exist or receives no mail. Please check the address."
        }
        "5.1.3" => "The address is not valid.",
        "5.2.1" => "The mailbox is disabled and receives no mail.",
        "5.2.2" => "The mailbox is full.",
        "5.2.3" | "5.3.4" => "The message is larger than the receiving server allows.",
        "5.4.6" => "The message was going round in circles.",
        code if code.starts_with("5.7.") => {
            "The receiving server refused the message because of its rules."
        }
        _ => "The receiving server refused the message.",
    }
}

fn push_wrapped(lines: &mut Vec<String>, text: &str) {
    let mut line = String::from("   ");
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if line.len() > 4 && line.len() + 1 + word.len() > 76 {
            lines.push(std::mem::replace(&mut line, "   ".into()));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
}
