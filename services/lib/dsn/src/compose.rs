//! The message from its parts.

use crate::date::date_text;
use crate::explanation::explanation;
use crate::original::{self, message_id};
use crate::status_fields::status_fields;
use crate::text::{field, one_line, quoted_printable};
use crate::{Action, Report};

/// A notification, ready to be spooled with the null return path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Header and body, lines ended by CRLF.
    pub content: Vec<u8>,
    /// Length of the header with the empty line after it, bytes.
    pub header_length: usize,
}

impl Built {
    /// Whether it needs BODY=8BITMIME.
    pub fn is_eight_bit(&self) -> bool {
        !self.content[self.header_length..].is_ascii()
    }
}

/// Builds the notification that delivery to some recipients failed or is delayed. At most about 64 KiB for the original, and
/// 2 KiB for each recipient.
pub fn notification(report: &Report<'_>) -> Built {
    let returned = report
        .original
        .map(|original| original::part(&original, report.ret));
    let status = status_fields(report);
    let text = explanation(report);

    let mut parts = vec![text_part(&text), status_part(&status)];
    if let Some(part) = returned {
        let mut bytes = part.fields.as_bytes().to_vec();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&part.body);
        parts.push(bytes);
    }
    let eight_bit = parts.iter().any(|part| !part.is_ascii());
    let boundary = boundary(report, &parts);

    let mut content = header(report, &boundary, eight_bit).into_bytes();
    let header_length = content.len();
    content.extend_from_slice(b"This is a delivery report in the format of RFC 3464.\r\n");
    for part in &parts {
        content.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        content.extend_from_slice(part);
    }
    content.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Built {
        content,
        header_length,
    }
}

fn header(report: &Report<'_>, boundary: &str, eight_bit: bool) -> String {
    let host = one_line(report.reporting_mta, 255);
    let mut header = String::new();
    header.push_str(&field("Date", &date_text(report.date_ms)));
    header.push_str(&field(
        "From",
        &format!("Mail Delivery System <MAILER-DAEMON@{host}>"),
    ));
    header.push_str(&field(
        "To",
        &format!("<{}>", one_line(report.return_path, 320)),
    ));
    let subject = match report.action {
        Action::Failed => "Your message could not be delivered",
        Action::Delayed { .. } => "Your message is delayed",
        Action::Relayed => "Your message was relayed",
    };
    header.push_str(&field("Subject", subject));
    header.push_str(&field(
        "Message-ID",
        &format!("<{}@{host}>", one_line(report.own_id, 64)),
    ));
    if let Some(id) = report.original.as_ref().and_then(message_id) {
        header.push_str(&field("In-Reply-To", &id));
        header.push_str(&field("References", &id));
    }
    // RFC 3834 section 5, so that nobody answers automatically.
    header.push_str(&field("Auto-Submitted", "auto-replied"));
    header.push_str(&field("MIME-Version", "1.0"));
    header.push_str(&field(
        "Content-Type",
        &format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\""),
    ));
    if eight_bit {
        header.push_str(&field("Content-Transfer-Encoding", "8bit"));
    }
    header.push_str("\r\n");
    header
}

fn text_part(text: &str) -> Vec<u8> {
    let mut part = b"Content-Description: Notification\r\n".to_vec();
    if text.is_ascii() {
        part.extend_from_slice(b"Content-Type: text/plain; charset=us-ascii\r\n\r\n");
        part.extend_from_slice(text.as_bytes());
    } else {
        part.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
        part.extend_from_slice(&quoted_printable(text.as_bytes()));
    }
    part
}

fn status_part(status: &str) -> Vec<u8> {
    format!("Content-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\n{status}").into_bytes()
}

/// A boundary that is in none of the parts, and always the same for the same report.
fn boundary(report: &Report<'_>, parts: &[Vec<u8>]) -> String {
    let id: String = report
        .own_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(40)
        .collect();
    let mut attempt = 0_u32;
    loop {
        let boundary = format!("=_staffetta_{id}_{attempt}");
        if !parts.iter().any(|part| contains(part, boundary.as_bytes())) {
            return boundary;
        }
        attempt += 1;
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
