//! The fields of a header section, as slices of it.

use memchr::{memchr, memchr_iter};

/// One header field, or a line that should be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// All of its lines as they came, the last CRLF included (if there is one).
    pub raw: &'a [u8],
    /// What stands before the colon, without the white space that the obsolete syntax allows
    /// there. Empty when the line is no field: there is no colon, or no name of RFC 5322.
    pub name: &'a [u8],
    /// What stands after the colon, folding included, without the last CRLF. Of a line that is
    /// no field: the line.
    pub value: &'a [u8],
}

impl<'a> Field<'a> {
    /// Whether the field has this name; case does not matter.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    fn of_raw(raw: &'a [u8]) -> Self {
        let line = raw.strip_suffix(b"\r\n").unwrap_or(raw);
        if let Some(colon) = memchr(b':', line) {
            let name = line[..colon].trim_ascii_end();
            if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) {
                return Self {
                    raw,
                    name,
                    value: &line[colon + 1..],
                };
            }
        }
        Self {
            raw,
            name: &[],
            value: line,
        }
    }
}

/// Iterator over the fields of a header section.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// The fields of a header section, from the top. Every byte up to the empty line (or the end) is
/// in the `raw` of exactly one of them, whatever the bytes are.
pub fn fields(header: &[u8]) -> Fields<'_> {
    Fields { rest: header }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.rest.is_empty() || self.rest.starts_with(b"\r\n") {
            return None;
        }
        let (raw, rest) = self.rest.split_at(end_of_field(self.rest));
        self.rest = rest;
        Some(Field::of_raw(raw))
    }
}

/// After the first CRLF that is not followed by white space.
fn end_of_field(rest: &[u8]) -> usize {
    for line_feed in memchr_iter(b'\n', rest) {
        let ends_line = rest[..line_feed].last() == Some(&b'\r');
        let goes_on = matches!(rest.get(line_feed + 1), Some(b' ' | b'\t'));
        if ends_line && !goes_on {
            return line_feed + 1;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(header: &[u8]) -> Vec<(&[u8], &[u8])> {
        fields(header)
            .map(|field| (field.name, field.value))
            .collect()
    }

    #[test]
    fn keeps_folded_lines_together() {
        let header = b"Subject: a\r\n b\r\n\tc\r\nTo:x\r\n";
        assert_eq!(
            split(header),
            [(&b"Subject"[..], &b" a\r\n b\r\n\tc"[..]), (b"To", b"x")]
        );
    }

    #[test]
    fn stops_at_the_empty_line() {
        assert_eq!(split(b"A: 1\r\n\r\nB: 2\r\n"), [(&b"A"[..], &b" 1"[..])]);
        assert_eq!(split(b"\r\nB: 2\r\n"), []);
    }

    #[test]
    fn gives_lines_that_are_no_fields_without_a_name() {
        for line in [
            "no colon here",
            ": no name",
            "two words: x",
            " begins with white space: x",
            "näme: x",
        ] {
            let header = format!("{line}\r\nA: 1\r\n");
            assert_eq!(
                split(header.as_bytes()),
                [(&b""[..], line.as_bytes()), (b"A", b" 1")],
                "{line}"
            );
        }
    }

    #[test]
    fn allows_white_space_before_the_colon() {
        assert_eq!(split(b"Subject \t: x\r\n"), [(&b"Subject"[..], &b" x"[..])]);
    }

    #[test]
    fn takes_a_lone_line_feed_or_carriage_return_as_part_of_the_value() {
        assert_eq!(
            split(b"A: 1\nB: 2\rC: 3\r\n"),
            [(&b"A"[..], &b" 1\nB: 2\rC: 3"[..])]
        );
    }

    #[test]
    fn reads_a_last_line_without_crlf() {
        assert_eq!(split(b"A: 1"), [(&b"A"[..], &b" 1"[..])]);
    }

    proptest! {
        #[test]
        fn covers_every_byte_once(header in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'a'), any::<u8>()], 0..200)) {
            let joined: Vec<u8> = fields(&header).flat_map(|field| field.raw.to_vec()).collect();
            prop_assert!(header.starts_with(&joined));
            let rest = &header[joined.len()..];
            prop_assert!(rest.is_empty() || rest.starts_with(b"\r\n"));
        }
    }
}
