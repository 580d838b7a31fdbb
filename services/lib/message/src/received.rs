//! The trace field that we put on top of a message.

use std::fmt::Write;
use std::net::IpAddr;

use mail::MessageId;

use crate::date_text;

/// How the message came to us: the `with` clause (RFC 3848).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HELO instead of EHLO.
    Smtp,
    /// Neither TLS nor AUTH.
    Esmtp,
    /// Under TLS.
    Esmtps,
    /// Authenticated, without TLS.
    Esmtpa,
    /// Authenticated under TLS.
    Esmtpsa,
    /// With SMTPUTF8 (RFC 6531 section 4.3), neither TLS nor AUTH.
    Utf8Smtp,
    /// With SMTPUTF8, under TLS.
    Utf8Smtps,
    /// With SMTPUTF8, authenticated, without TLS.
    Utf8Smtpa,
    /// With SMTPUTF8, authenticated under TLS.
    Utf8Smtpsa,
}

impl Protocol {
    /// The protocol of a session that said EHLO.
    pub fn of_session(tls: bool, authenticated: bool) -> Self {
        match (tls, authenticated) {
            (false, false) => Self::Esmtp,
            (true, false) => Self::Esmtps,
            (false, true) => Self::Esmtpa,
            (true, true) => Self::Esmtpsa,
        }
    }

    /// The same for a transaction with SMTPUTF8.
    pub fn with_smtputf8(self) -> Self {
        match self {
            Self::Esmtp => Self::Utf8Smtp,
            Self::Esmtps => Self::Utf8Smtps,
            Self::Esmtpa => Self::Utf8Smtpa,
            Self::Esmtpsa => Self::Utf8Smtpsa,
            other => other,
        }
    }

    /// As it is registered.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Esmtp => "ESMTP",
            Self::Esmtps => "ESMTPS",
            Self::Esmtpa => "ESMTPA",
            Self::Esmtpsa => "ESMTPSA",
            Self::Utf8Smtp => "UTF8SMTP",
            Self::Utf8Smtps => "UTF8SMTPS",
            Self::Utf8Smtpa => "UTF8SMTPA",
            Self::Utf8Smtpsa => "UTF8SMTPSA",
        }
    }
}

/// What the trace field says.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedInfo<'a> {
    /// The argument of EHLO or HELO, whatever the client wrote there.
    pub from_helo: &'a str,
    /// Address of the client.
    pub client_ip: IpAddr,
    /// Our host name.
    pub by_host: &'a str,
    /// How it came.
    pub with: Protocol,
    /// The id that we gave the message.
    pub id: MessageId,
    /// The recipient, only when there is exactly one: the others must not be shown to each other.
    pub for_single_recipient: Option<&'a str>,
    /// When it came, Unix milliseconds.
    pub unix_ms: u64,
}

/// The `Received` field of RFC 5321 section 4.4, folded, with its CRLF. Nothing that the client
/// said can break out of its place: other bytes than those of a host name or address are replaced
/// by `?`, and what is too long is cut.
pub fn received_field(info: &ReceivedInfo<'_>) -> String {
    let mut field = String::with_capacity(320);
    field.push_str("Received: from ");
    push_safely(&mut field, info.from_helo, is_host_byte);
    field.push_str(" (");
    match info.client_ip.to_canonical() {
        IpAddr::V4(ip) => write!(field, "[{ip}]"),
        IpAddr::V6(ip) => write!(field, "[IPv6:{ip}]"),
    }
    .expect("a string takes all text");
    field.push_str(")\r\n\tby ");
    push_safely(&mut field, info.by_host, is_host_byte);
    write!(field, " with {}\r\n\tid {}", info.with.as_str(), info.id)
        .expect("a string takes all text");
    // An address that needs SMTPUTF8 would make a header that needs it.
    if let Some(recipient) = info
        .for_single_recipient
        .filter(|recipient| recipient.is_ascii())
    {
        field.push_str("\r\n\tfor <");
        push_safely(&mut field, recipient, is_address_byte);
        field.push('>');
    }
    field.push_str(";\r\n\t");
    field.push_str(&date_text(info.unix_ms));
    field.push_str("\r\n");
    field
}

fn push_safely(field: &mut String, text: &str, allowed: fn(u8) -> bool) {
    if text.is_empty() {
        field.push_str("unknown");
    }
    let safe = text.chars().take(255).map(|c| match u8::try_from(c) {
        Ok(byte) if allowed(byte) => c,
        _ => '?',
    });
    field.extend(safe);
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)
}

/// Of an address in angle brackets only what cannot end them; quoted local parts may hold more,
/// and are shown with `?` there.
fn is_address_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"<>()\\;".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;

    fn info() -> ReceivedInfo<'static> {
        ReceivedInfo {
            from_helo: "client.example",
            client_ip: "192.0.2.7".parse().unwrap(),
            by_host: "relay.example.com",
            with: Protocol::Esmtpsa,
            id: MessageId::from_bytes([7; 16]),
            for_single_recipient: Some("user@d.example"),
            unix_ms: 1_795_351_205_000,
        }
    }

    #[test]
    fn has_the_clauses_in_the_order_of_the_rfc() {
        assert_eq!(
            received_field(&info()),
            "Received: from client.example ([192.0.2.7])\r\n\
             \tby relay.example.com with ESMTPSA\r\n\
             \tid 07070707-0707-0707-0707-070707070707\r\n\
             \tfor <user@d.example>;\r\n\
             \tSun, 22 Nov 2026 12:40:05 +0000\r\n"
        );
    }

    #[test]
    fn leaves_the_recipient_out_when_there_are_several_or_it_is_not_ascii() {
        for recipient in [None, Some("用户@d.example")] {
            let field = received_field(&ReceivedInfo {
                for_single_recipient: recipient,
                ..info()
            });
            assert!(!field.contains("for <"), "{field}");
            assert!(field.contains("070707;\r\n\tSun"), "{field}");
        }
    }

    #[test]
    fn tags_ipv6_addresses_and_shows_mapped_ones_as_ipv4() {
        for (ip, text) in [
            ("2001:db8::1", "([IPv6:2001:db8::1])"),
            ("::ffff:192.0.2.7", "([192.0.2.7])"),
        ] {
            let field = received_field(&ReceivedInfo {
                client_ip: ip.parse().unwrap(),
                ..info()
            });
            assert!(field.contains(text), "{field}");
        }
    }

    #[test]
    fn lets_the_client_write_nothing_but_its_name() {
        let field = received_field(&ReceivedInfo {
            from_helo: "a\r\nBcc: x (y); z\0<é>",
            for_single_recipient: Some("\"a>;\r\n b\"@d.example"),
            ..info()
        });
        assert!(
            field.starts_with("Received: from a??Bcc:?x??y???z???? ([192"),
            "{field}"
        );
        assert!(field.contains("for <\"a?????b\"@d.example>;"), "{field}");
        assert_eq!(fields(field.as_bytes()).count(), 1);
        let field = received_field(&ReceivedInfo {
            from_helo: "",
            ..info()
        });
        assert!(field.starts_with("Received: from unknown ("), "{field}");
        let long = "a".repeat(100_000);
        assert!(
            received_field(&ReceivedInfo {
                from_helo: &long,
                ..info()
            })
            .len()
                < 600
        );
    }
}
