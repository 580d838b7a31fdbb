//! Complaints: ARF (RFC 5965) as it is sent, and what was sent before it.

use crate::address::{addresses_in, first_address};
use crate::inbound::{Feedback, FeedbackKind, Original};
use crate::line::fields_in;

/// As much of the part as is read, octets.
pub(crate) const PART_LIMIT: usize = 64 * 1024;
const MOST_RECIPIENTS: usize = 100;
const MOST_DOMAINS: usize = 20;

/// Reads the fields of message/feedback-report. `None` when they do not say what it is about.
pub(crate) fn read_feedback(octets: &[u8]) -> Option<Feedback> {
    let mut feedback = of_kind(FeedbackKind::Other);
    let mut has_kind = false;
    let fields = fields_in(&octets[..octets.len().min(PART_LIMIT)]);
    for (name, value) in fields.into_iter().flatten() {
        match &name[..] {
            "feedback-type" => {
                feedback.kind = kind(&value);
                has_kind = true;
            }
            "user-agent" => feedback.user_agent = value,
            "original-mail-from" => {
                feedback.mail_from = first_address(&value).unwrap_or_default().to_owned();
            }
            "original-rcpt-to" | "removal-recipient" => add(&mut feedback, &value),
            "source-ip" => {
                let ip = value.trim_matches(['[', ']', ' ']);
                feedback.source_ip = ip.trim_start_matches("IPv6:").parse().ok();
            }
            "reported-domain" if feedback.domains.len() < MOST_DOMAINS => {
                feedback.domains.push(value);
            }
            "incidents" => feedback.incidents = value.parse().unwrap_or(1).max(1),
            _ => {}
        }
    }
    has_kind.then_some(feedback)
}

fn add(feedback: &mut Feedback, value: &str) {
    for found in addresses_in(value) {
        if feedback.recipients.len() < MOST_RECIPIENTS {
            feedback.recipients.push(found.address.to_owned());
        }
    }
}

pub(crate) fn of_kind(kind: FeedbackKind) -> Feedback {
    Feedback {
        kind,
        user_agent: String::new(),
        mail_from: String::new(),
        recipients: Vec::new(),
        source_ip: None,
        domains: Vec::new(),
        incidents: 1,
        original: Original::default(),
    }
}

fn kind(value: &str) -> FeedbackKind {
    match &value.trim().to_ascii_lowercase()[..] {
        "abuse" | "complaint" | "spam" => FeedbackKind::Abuse,
        "fraud" | "phishing" => FeedbackKind::Fraud,
        "virus" | "malware" => FeedbackKind::Virus,
        "not-spam" | "notspam" | "not_spam" => FeedbackKind::NotSpam,
        "opt-out" | "opt-out-list" | "unsubscribe" => FeedbackKind::OptOut,
        "auth-failure" | "authfailure" | "dkim" | "dmarc" | "spf" => FeedbackKind::AuthFailure,
        _ => FeedbackKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields() {
        let text = "Feedback-Type: Abuse\r\nUser-Agent: Some/1.0\r\nVersion: 1\r\nOriginal-Mail-From: <r@x.example>\r\n\
                    Original-Rcpt-To: <a@b.example>\r\nOriginal-Rcpt-To: c@d.example\r\nSource-IP: 192.0.2.1\r\n\
                    Reported-Domain: x.example\r\nIncidents: 7\r\n";
        let feedback = read_feedback(text.as_bytes()).unwrap();
        assert_eq!(feedback.kind, FeedbackKind::Abuse);
        assert_eq!(
            (&feedback.user_agent[..], &feedback.mail_from[..]),
            ("Some/1.0", "r@x.example")
        );
        assert_eq!(feedback.recipients, ["a@b.example", "c@d.example"]);
        assert_eq!(feedback.source_ip, Some([192, 0, 2, 1].into()));
        assert_eq!(
            (&feedback.domains[..], feedback.incidents),
            (&["x.example".to_owned()][..], 7)
        );
        assert!(read_feedback(b"Version: 1\r\n").is_none());
    }

    #[test]
    fn only_unwanted_mail_is_a_complaint() {
        for (text, is_complaint) in [
            ("abuse", true),
            ("fraud", true),
            ("opt-out", true),
            ("not-spam", false),
            ("auth-failure", false),
            ("else", false),
        ] {
            assert_eq!(kind(text).is_complaint(), is_complaint, "{text}");
        }
    }
}
