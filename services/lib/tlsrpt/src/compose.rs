//! A report as mail (RFC 8460 section 5.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::day::date_text;
use crate::report::Report;

/// A message, ready to be spooled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Header and body, lines ended by CRLF, ASCII.
    pub content: Vec<u8>,
    /// Length of the header with the empty line after it, bytes.
    pub header_length: usize,
}

/// A report on its way by mail.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// What is told.
    pub report: Report<'a>,
    /// Address of the author: its domain signs.
    pub from: &'a str,
    /// Whom the domain names; at least one.
    pub to: &'a [&'a str],
    /// Unix milliseconds.
    pub date_ms: u64,
}

/// Characters of a line of base64.
const LINE: usize = 76;

impl Letter<'_> {
    /// The message. Of the same letter always the same.
    pub fn built(&self) -> Built {
        let Self {
            report,
            from,
            to,
            date_ms,
        } = self;
        let (domain, submitter) = (report.domain, report.reporter.domain.as_str());
        let to: Vec<String> = to.iter().map(|address| format!("<{address}>")).collect();
        let boundary = format!("=_staffetta_{}", report.id);
        let mut content = String::new();
        let mut field = |name: &str, value: &str| {
            content.push_str(name);
            content.push_str(": ");
            content.push_str(value);
            content.push_str("\r\n");
        };
        field("Date", &date_text(*date_ms));
        field("From", &format!("<{from}>"));
        field("To", &to.join(",\r\n "));
        field(
            "Subject",
            &format!(
                "Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{}>",
                report.full_id()
            ),
        );
        field("Message-ID", &format!("<{}>", report.full_id()));
        field("TLS-Report-Domain", domain);
        field("TLS-Report-Submitter", submitter);
        // RFC 8689 section 4.3: who is told that TLS fails must hear of it.
        field("TLS-Required", "No");
        field("Auto-Submitted", "auto-generated");
        field("MIME-Version", "1.0");
        field(
            "Content-Type",
            &format!("multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"{boundary}\""),
        );
        content.push_str("\r\n");
        let header_length = content.len();
        let day = report.day;
        let text = format!(
            "This is an aggregate report (RFC 8460) about TLS in sessions with the mail\r\n\
             hosts of {domain} on {day} (UTC), sent by {submitter}.\r\n"
        );
        content.push_str(&format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{text}\r\n"
        ));
        content.push_str(&format!(
            "--{boundary}\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=\"{}\"\r\n\r\n",
            report.file_name()
        ));
        let encoded = STANDARD.encode(report.compressed());
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(LINE));
            content.push_str(line);
            content.push_str("\r\n");
            rest = after;
        }
        content.push_str(&format!("--{boundary}--\r\n"));
        Built {
            content: content.into_bytes(),
            header_length,
        }
    }
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders};

    use super::*;
    use crate::Day;
    use crate::report::tests::{policies, reporter};

    #[test]
    fn a_report_by_mail_has_the_form_of_the_rfc() {
        let (reporter, policies) = (reporter(), policies());
        let report = Report {
            reporter: &reporter,
            domain: "dest.example",
            day: Day::of(1_795_351_206_000),
            id: "019ab3f2",
            policies: &policies,
        };
        let letter = Letter {
            report,
            from: "noreply@relay.example",
            to: &["a@dest.example", "b@reports.example"],
            date_ms: 1_795_392_000_000,
        };
        let built = letter.built();
        assert_eq!(built, letter.built());
        assert!(built.content.is_ascii());
        let header = &built.content[..built.header_length];
        assert!(header.ends_with(b"\r\n\r\n"));
        for line in built.content.split(|octet| *octet == b'\n') {
            assert!(
                line.is_empty() || line.ends_with(b"\r") && line.len() <= 200,
                "{line:?}"
            );
        }
        let message = MessageParser::default().parse(&built.content).unwrap();
        let text = |name: &str| {
            message
                .header(name)
                .and_then(|value| value.as_text())
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            message.subject().unwrap(),
            "Report Domain: dest.example Submitter: relay.example Report-ID: <019ab3f2@relay.example>"
        );
        assert_eq!(text("TLS-Report-Domain"), "dest.example");
        assert_eq!(text("TLS-Report-Submitter"), "relay.example");
        assert_eq!(text("TLS-Required"), "No");
        assert_eq!(message.message_id().unwrap(), "019ab3f2@relay.example");
        assert_eq!(message.to().unwrap().iter().count(), 2);
        assert_eq!(message.date().unwrap().to_rfc3339(), "2026-11-23T00:00:00Z");
        let kind = message.content_type().unwrap();
        assert_eq!(
            (kind.ctype(), kind.subtype()),
            ("multipart", Some("report"))
        );
        assert_eq!(kind.attribute("report-type"), Some("tlsrpt"));
        let part = message.attachment(0).unwrap();
        assert_eq!(part.content_type().unwrap().subtype(), Some("tlsrpt+gzip"));
        assert_eq!(part.attachment_name().unwrap(), report.file_name());
        assert_eq!(part.contents(), report.compressed());
    }
}
