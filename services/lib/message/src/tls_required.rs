//! The field `TLS-Required` (RFC 8689 section 3).

use crate::fields;

/// Whether the message asks for what domains say about TLS to be passed over: it has the field `TLS-Required`, once, with
/// the one value that there is. Anything else says nothing. Linear in the header section.
pub fn tls_is_optional(header: &[u8]) -> bool {
    let mut found = fields(header).filter(|field| field.is("TLS-Required"));
    match (found.next(), found.next()) {
        (Some(field), None) => field.value.trim_ascii().eq_ignore_ascii_case(b"No"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_with_its_one_value_counts() {
        for (header, optional) in [
            ("TLS-Required: No\r\n", true),
            ("From: a@b\r\ntls-required:no\r\n", true),
            ("TLS-Required:\r\n no \r\nTo: x\r\n", true),
            ("TLS-Required: Yes\r\n", false),
            ("TLS-Required: No way\r\n", false),
            ("TLS-Required:\r\n", false),
            ("TLS-Required: No\r\nTLS-Required: No\r\n", false),
            ("X-TLS-Required: No\r\n", false),
            ("From: a@b\r\n\r\nTLS-Required: No\r\n", false),
            ("", false),
        ] {
            assert_eq!(tls_is_optional(header.as_bytes()), optional, "{header:?}");
        }
    }
}
