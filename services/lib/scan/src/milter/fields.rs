//! Header fields on their way to a milter, and from it.

use super::Error;

/// Octets of all fields that a milter may add to a message.
pub(super) const MOST: usize = 16 * 1024;
/// Octets of one line (RFC 5322 section 2.1.1).
const LONGEST_LINE: usize = 998;

/// A field's value as milters know it: lines end with a line feed.
pub(super) fn to_milter(value: &[u8], keeps_space: bool) -> Vec<u8> {
    let value = value.strip_suffix(b"\r\n").unwrap_or(value);
    let value = match value.strip_prefix(b" ") {
        Some(rest) if !keeps_space => rest,
        _ => value,
    };
    value
        .iter()
        .copied()
        .filter(|octet| !matches!(octet, b'\r' | 0))
        .collect()
}

/// A field as it is put into a message, with its CRLF. What is not printable ASCII becomes `?`, and each line of the value
/// goes on with the field, whatever it begins with.
pub(super) fn from_milter(name: &[u8], value: &[u8], keeps_space: bool) -> Result<Vec<u8>, Error> {
    let is_name = |octet: &u8| matches!(octet, b'!'..=b'~') && *octet != b':';
    if name.is_empty() || name.len() > 76 || !name.iter().all(is_name) {
        return Err(Error::Field);
    }
    let mut field = name.to_vec();
    field.push(b':');
    if !keeps_space {
        field.push(b' ');
    }
    let mut line_length = field.len();
    let mut is_first = true;
    for line in value.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // An empty line would end the header section, and so might one of white space in the eyes of others.
        if !is_first && line.trim_ascii().is_empty() {
            continue;
        }
        if !is_first {
            field.extend_from_slice(b"\r\n");
            line_length = 0;
            if !matches!(line.first(), Some(b' ' | b'\t')) {
                field.push(b'\t');
                line_length = 1;
            }
        }
        is_first = false;
        field.extend(line.iter().map(|octet| match octet {
            b'\t' | b' '..=b'~' => *octet,
            _ => b'?',
        }));
        line_length = line_length.saturating_add(line.len());
        if line_length > LONGEST_LINE {
            return Err(Error::Field);
        }
    }
    field.extend_from_slice(b"\r\n");
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_first_space_and_line_ends() {
        assert_eq!(to_milter(b" a\r\n\tb\r\n", false), b"a\n\tb");
        assert_eq!(to_milter(b" a\r\n\tb\r\n", true), b" a\n\tb");
        assert_eq!(to_milter(b"", false), b"");
    }

    #[test]
    fn no_field_begins_another_or_ends_the_header_section() {
        let field = |name: &str, value: &str| {
            from_milter(name.as_bytes(), value.as_bytes(), false)
                .map(|field| String::from_utf8(field).unwrap())
        };
        for (name, value, expected) in [
            ("X-A", "b", Ok("X-A: b\r\n")),
            ("X-A", "b\n\tc\r\n d\n", Ok("X-A: b\r\n\tc\r\n d\r\n")),
            ("X-A", "b\nFrom: c", Ok("X-A: b\r\n\tFrom: c\r\n")),
            ("X-A", "b\n\n\r\n \nbody", Ok("X-A: b\r\n\tbody\r\n")),
            ("X-A", "ü\rx", Ok("X-A: ???x\r\n")),
            ("X A", "b", Err(Error::Field)),
            ("X:", "b", Err(Error::Field)),
            ("", "b", Err(Error::Field)),
        ] {
            assert_eq!(
                field(name, value),
                expected.map(str::to_owned),
                "{name} {value:?}"
            );
        }
        assert_eq!(field("X", &"x".repeat(2000)), Err(Error::Field));
        assert_eq!(from_milter(b"X", b" b", true).unwrap(), b"X: b\r\n");
    }
}
