//! Header fields in relaxed canonical form (RFC 6376 section 3.4.2).

/// Appends `name:value` in relaxed form, without a CRLF: the name in lower case, the value
/// unfolded, its runs of white space as one space and none at its ends.
pub(crate) fn push_relaxed_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let start = out.len();
    let mut space = false;
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' => space = true,
            b'\r' if bytes.peek() == Some(&b'\n') => {
                bytes.next();
            }
            _ => {
                if space && out.len() > start {
                    out.push(b' ');
                }
                space = false;
                out.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::verifier::relaxed_field;

    #[test]
    fn follows_the_table_of_the_rfc() {
        for (name, value, canonical) in [
            // RFC 6376 section 3.4.5.
            ("A", " X", "a:X"),
            ("B", " Y\t\r\n\tZ  ", "b:Y Z"),
            ("Subject", "", "subject:"),
            ("Subject", " \t ", "subject:"),
            ("Subject", "\r\n \r\n x", "subject:x"),
            ("SUBJECT", "a\rb\nc", "subject:a\rb\nc"),
        ] {
            let mut out = Vec::new();
            push_relaxed_field(&mut out, name.as_bytes(), value.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), canonical);
        }
    }

    proptest! {
        #[test]
        fn equals_the_naive_form(value in proptest::collection::vec(
            prop_oneof![Just(b"\r\n ".to_vec()), Just(b" ".to_vec()), Just(b"\t".to_vec()), Just(b"x".to_vec())], 0..30)) {
            let value = value.concat();
            let mut out = Vec::new();
            push_relaxed_field(&mut out, b"Name", &value);
            prop_assert_eq!(out, relaxed_field(b"Name", &value));
        }
    }
}
