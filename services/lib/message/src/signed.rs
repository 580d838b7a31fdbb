//! What signatures that came with a message cover.

use memchr::memchr;

use crate::{Field, fields};

/// Signatures that are looked at; a message with more has nothing to lose.
const MOST_SIGNATURES: usize = 20;

/// Names of the fields that the `DKIM-Signature` and `ARC-Message-Signature` fields of a header section name in `h=` (RFC 6376
/// section 3.5, RFC 8617 section 4.1.2).
/// Whether a signature is right is not looked at: who changes nothing of what one covers breaks none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedNames<'a> {
    /// Values of `h=`.
    lists: Vec<&'a [u8]>,
}

impl<'a> SignedNames<'a> {
    /// Of a header section. Linear; takes no memory when there is no signature.
    pub fn of(header: &'a [u8]) -> Self {
        let lists = fields(header)
            .filter(|field| field.is("DKIM-Signature") || field.is("ARC-Message-Signature"))
            .take(MOST_SIGNATURES)
            .map(|field| signed_list(&field))
            .collect();
        Self { lists }
    }

    /// Whether there is a signature.
    pub fn is_signed(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Whether a signature covers the fields of this name, also those that are not there: over-signed ones
    /// (section 8.15).
    pub fn covers(&self, name: &str) -> bool {
        self.covers_name(name.as_bytes())
    }

    /// Whether a signature covers fields of the name that this one has.
    pub(crate) fn covers_field(&self, field: &Field<'_>) -> bool {
        self.covers_name(field.name)
    }

    fn covers_name(&self, name: &[u8]) -> bool {
        let is_it = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(name);
        self.lists
            .iter()
            .any(|list| list.split(|octet| *octet == b':').any(is_it))
    }
}

/// Empty when it has none.
fn signed_list<'a>(field: &Field<'a>) -> &'a [u8] {
    field
        .value
        .split(|octet| *octet == b';')
        .find_map(|tag| {
            let equals = memchr(b'=', tag)?;
            (tag[..equals].trim_ascii() == b"h").then_some(&tag[equals + 1..])
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_signatures_cover() {
        let header = b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example;\r\n\th=From:To :\r\n\t subject: Date:date; bh=h=;\r\nFrom: a@b\r\ndkim-signature: h=List-Unsubscribe\r\n";
        let signed = SignedNames::of(header);
        assert!(signed.is_signed());
        for name in ["From", "to", "Subject", "DATE", "List-Unsubscribe"] {
            assert!(signed.covers(name), "{name}");
        }
        for name in ["Bcc", "h", "Message-ID", "List-Unsubscribe-Post"] {
            assert!(!signed.covers(name), "{name}");
        }
    }

    #[test]
    fn takes_what_is_no_signature_as_one_that_covers_nothing() {
        for value in ["", "h", "v=1; H=From", ";;;=", "bh=from"] {
            let header = format!("DKIM-Signature: {value}\r\n");
            let signed = SignedNames::of(header.as_bytes());
            assert!(signed.is_signed() && !signed.covers("From"), "{value}");
        }
        assert!(!SignedNames::of(b"X-DKIM-Signature: h=From\r\n").is_signed());
    }
}
