//! Domain names as mail uses them.

use std::fmt;

/// A domain in the form that DNS is asked for: lower case, A-labels (RFC 5890), no final dot,
/// at most 253 octets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

/// Not a domain name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DomainError {
    /// Nothing is there.
    #[error("the domain is empty")]
    Empty,
    /// Longer than 253 octets, or a label longer than 63.
    #[error("the domain is too long")]
    TooLong,
    /// A character or label that a host name can't have.
    #[error("the domain has an invalid label")]
    InvalidLabel,
}

impl Domain {
    /// Reads a domain; U-labels are converted to A-labels (IDNA, UTS #46).
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| DomainError::InvalidLabel)?
        };
        if ascii.len() > 253 {
            return Err(DomainError::TooLong);
        }
        for label in ascii.split('.') {
            if label.len() > 63 {
                return Err(DomainError::TooLong);
            }
            let valid_bytes = label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if label.is_empty() || label.starts_with('-') || label.ends_with('-') || !valid_bytes {
                return Err(DomainError::InvalidLabel);
            }
        }
        Ok(Self(ascii.into_boxed_str()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `parent` or below it.
    pub fn is_within(&self, parent: &Self) -> bool {
        self.as_str()
            .strip_suffix(parent.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brings_names_into_the_form_of_dns() {
        for (given, expected) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("_dmarc.example", "_dmarc.example"),
        ] {
            assert_eq!(Domain::parse(given).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn refuses_what_is_no_domain() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = vec!["abcdefgh"; 32].join(".");
        for given in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a-.b",
            "a b.c",
            "a@b",
            "[1.2.3.4]",
            &long_label,
            &long_name,
        ] {
            assert!(Domain::parse(given).is_err(), "{given}");
        }
    }
}
