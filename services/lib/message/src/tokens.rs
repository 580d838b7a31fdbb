//! The structured values of MIME fields (RFC 2045 section 5.1): words, comments, parameters.

use memchr::memchr;

/// Type and subtype in lower case, and what follows them.
pub(crate) fn type_of(value: &[u8]) -> (Vec<u8>, &[u8]) {
    let (main, rest) = token(value);
    let Some(rest) = rest.trim_ascii_start().strip_prefix(b"/") else {
        return (Vec::new(), rest);
    };
    let (sub, rest) = token(rest);
    ([&main[..], b"/", &sub[..]].concat(), rest)
}

/// The first word in lower case, and what follows it; white space and comments before it are passed over.
pub(crate) fn token(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let text = after_comments(text);
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"()<>@,;:\\\"/[]?=".contains(byte);
    let end = text.iter().position(ends).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word.to_ascii_lowercase(), rest)
}

/// Without white space and comments at the front.
pub(crate) fn after_comments(text: &[u8]) -> &[u8] {
    let mut rest = text.trim_ascii_start();
    while rest.first() == Some(&b'(') {
        let (mut depth, mut escaped) = (0_u32, false);
        let end = rest.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        rest = end
            .map_or(&[][..], |end| &rest[end + 1..])
            .trim_ascii_start();
    }
    rest
}

/// A token as it is, or what is in quotes.
pub(crate) fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b';' | b'(' | b'"');
        let end = text.iter().position(ends).unwrap_or(text.len());
        return Some((text[..end].to_vec(), &text[end..]));
    };
    let mut content = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((content, &quoted[at + 1..])),
            b'\\' => content.push(*bytes.next()?.1),
            _ => content.push(*byte),
        }
    }
    None
}

/// The value of a parameter, the first of this name (in lower case). What is no parameter is passed over.
pub(crate) fn parameter(parameters: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let mut rest = after_comments(parameters);
    loop {
        rest = &rest[memchr(b';', rest)? + 1..];
        let (name, behind) = token(rest);
        let behind = after_comments(behind);
        let Some(behind) = behind.strip_prefix(b"=") else {
            // What was looked at is not looked at again: a comment may be as long as the field.
            rest = behind;
            continue;
        };
        let (value, behind) = value(after_comments(behind))?;
        if name == wanted {
            return Some(value);
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_that_never_end_are_looked_at_once() {
        // Would take minutes if each of them was read to the end.
        let parameters = ";(".repeat(2_000_000);
        assert_eq!(parameter(parameters.as_bytes(), b"charset"), None);
    }

    #[test]
    fn finds_a_parameter_among_others_and_odd_ones() {
        for (parameters, expected) in [
            ("; charset=utf-8", Some("utf-8")),
            ("; format=flowed; Charset = \"utf-8\"; x=y", Some("utf-8")),
            (
                " (plain; charset=no) ; charset=(so)utf-8 (really)",
                Some("utf-8"),
            ),
            (";; odd; =x; charset=utf-8; charset=other", Some("utf-8")),
            (
                "; name=\"a;charset=no\"; charset=\"u\\tf-8\"",
                Some("utf-8"),
            ),
            ("; odd (; charset=no); charset=utf-8", Some("utf-8")),
            ("; format=flowed", None),
            ("; name=\"not closed; charset=utf-8", None),
            ("", None),
        ] {
            let found = parameter(parameters.as_bytes(), b"charset");
            assert_eq!(
                found.as_deref(),
                expected.map(str::as_bytes),
                "{parameters}"
            );
        }
    }
}
