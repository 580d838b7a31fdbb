//! Mailbox addresses of the envelope.

use std::fmt;

use crate::Domain;

/// A mailbox (RFC 5321 section 4.1.2, RFC 6531 for non-ASCII), kept as it was written, since only
/// the receiving host may interpret a local part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    text: Box<str>,
    at: usize,
}

/// Not a mailbox address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// No "@" with something before it and after it.
    #[error("the address has no local part or no domain")]
    Incomplete,
    /// Local part over 64 octets, or address over 254 (RFC 5321 section 4.5.3.1).
    #[error("the address is too long")]
    TooLong,
    /// The local part is neither a dot-string nor a quoted string.
    #[error("the local part is not valid")]
    InvalidLocalPart,
    /// The domain is neither a host name nor an address literal.
    #[error("the domain is not valid")]
    InvalidDomain,
}

impl Address {
    /// Reads `local@domain`, without angle brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > 254 {
            return Err(AddressError::TooLong);
        }
        let at = text.rfind('@').ok_or(AddressError::Incomplete)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Incomplete);
        }
        if local.len() > 64 {
            return Err(AddressError::TooLong);
        }
        let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
        let local_valid = if quoted {
            is_quoted_content(&local[1..local.len() - 1])
        } else {
            local
                .split('.')
                .all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char))
        };
        if !local_valid {
            return Err(AddressError::InvalidLocalPart);
        }
        if !is_literal(domain) && Domain::parse(domain).is_err() {
            return Err(AddressError::InvalidDomain);
        }
        Ok(Self {
            text: text.into(),
            at,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Before the last "@", quotes included.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// After the last "@", as written: a host name or an address literal.
    pub fn domain_text(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The domain in the form of DNS; `None` for an address literal.
    pub fn domain(&self) -> Option<Domain> {
        Domain::parse(self.domain_text()).ok()
    }

    /// Whether SMTPUTF8 is needed to send to it.
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_atom_char(c: char) -> bool {
    is_text_beyond_ascii(c) || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

/// C1 control characters are no text.
fn is_text_beyond_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control()
}

fn is_quoted_content(content: &str) -> bool {
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        let valid = match c {
            '\\' => chars
                .next()
                .is_some_and(|escaped| escaped == ' ' || escaped.is_ascii_graphic()),
            '"' => false,
            ' ' => true,
            other => is_text_beyond_ascii(other) || other.is_ascii_graphic(),
        };
        if !valid {
            return false;
        }
    }
    true
}

fn is_literal(domain: &str) -> bool {
    let Some(inner) = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']')) else {
        return false;
    };
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => {
            inner[5..].parse::<std::net::Ipv6Addr>().is_ok()
        }
        _ => inner.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_and_splits_at_the_last_at() {
        let address = Address::parse("\"a@b c\"@Example.com").unwrap();
        assert_eq!(address.local_part(), "\"a@b c\"");
        assert_eq!(address.domain_text(), "Example.com");
        assert_eq!(address.domain().unwrap().as_str(), "example.com");
        assert_eq!(address.as_str(), "\"a@b c\"@Example.com");
    }

    #[test]
    fn accepts_what_the_rfc_allows() {
        for text in [
            "a@b",
            "a.b+c@d.example",
            "a@[127.0.0.1]",
            "a@[IPv6:::1]",
            "\"\\\"\"@d.example",
            "用户@例え.example",
        ] {
            assert!(Address::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_forbids() {
        let long = format!("{}@d.example", "a".repeat(65));
        for text in [
            "",
            "a",
            "@b",
            "a@",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a b@c",
            "a\r\nb@c",
            "a@b c",
            "a@[1.2.3]",
            "\"a\"b\"@c",
            "a<@b",
            &long,
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
