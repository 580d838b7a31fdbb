//! Text from elsewhere, made harmless.

/// Longest line that is written without folding.
const FOLD_AT: usize = 76;

/// One line: what is not a printable character becomes a blank, blanks are joined, at most `limit` characters.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    let mut length = 0;
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
    {
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        for c in word.chars() {
            if length >= limit {
                line.push_str("...");
                return line;
            }
            line.push(if is_directional(c) { '?' } else { c });
            length += 1;
        }
    }
    line
}

/// Characters that change the order in which others are shown could make a text say what it does not.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// [`one_line`] in ASCII, with "?" for every other character.
pub(crate) fn ascii_line(text: &str, limit: usize) -> String {
    one_line(text, limit)
        .chars()
        .map(|c| if c.is_ascii() { c } else { '?' })
        .collect()
}

/// A header field of a value that is one line, folded at blanks (RFC 5322 section 2.2.3). A word that is longer
/// than a line is cut, or a hostile one could make a line of any length.
pub(crate) fn field(name: &str, value: &str) -> String {
    let mut folded = format!("{name}:");
    let mut column = folded.len();
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        if column + 1 + word.len() > FOLD_AT && column > 1 {
            folded.push_str("\r\n");
            column = 0;
        }
        folded.push(' ');
        column += 1;
        for c in word.chars() {
            if column + c.len_utf8() > 990 {
                folded.push_str("\r\n ");
                column = 1;
            }
            folded.push(c);
            column += c.len_utf8();
        }
    }
    folded.push_str("\r\n");
    folded
}

/// Decodes xtext (RFC 3461 section 4); what is not valid stays as it is.
pub(crate) fn decode_xtext(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let octet = hex
            .filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match octet {
            Some(octet) if byte == b'+' => {
                decoded.push(octet);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The lines of a text part, in quoted-printable (RFC 2045 section 6.7). `bytes` has CRLF line ends.
pub(crate) fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(bytes.len() + bytes.len() / 8);
    let mut column = 0;
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        if rest.starts_with(b"\r\n") {
            encoded.extend_from_slice(b"\r\n");
            column = 0;
            rest = &rest[2..];
            continue;
        }
        let ends_line = after.is_empty() || after.starts_with(b"\r\n");
        let plain = matches!(byte, b'!'..=b'<' | b'>'..=b'~')
            || (matches!(byte, b' ' | b'\t') && !ends_line);
        let width = if plain { 1 } else { 3 };
        if column + width > 75 {
            encoded.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if plain {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("={byte:02X}").as_bytes());
        }
        column += width;
        rest = after;
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_lines_and_cuts() {
        assert_eq!(one_line(" a\r\n\tb\u{0} c\u{85}d ", 100), "a b c d");
        assert_eq!(one_line("abcdef", 3), "abc...");
        assert_eq!(ascii_line("é\u{202e}x", 10), "??x");
    }

    #[test]
    fn folds_at_blanks_and_bounds_every_line() {
        assert_eq!(field("A", "b c"), "A: b c\r\n");
        let long = field("Diagnostic-Code", &"word ".repeat(60));
        assert!(long.lines().all(|line| line.len() <= 78), "{long}");
        assert!(long.lines().skip(1).all(|line| line.starts_with(' ')));
        let one_word = field("A", &"x".repeat(5000));
        assert!(one_word.lines().all(|line| line.len() <= 998));
    }

    #[test]
    fn decodes_xtext_and_leaves_what_is_none() {
        assert_eq!(decode_xtext("a+2Bb+40c"), "a+b@c");
        assert_eq!(decode_xtext("a+zz+4"), "a+zz+4");
        assert_eq!(decode_xtext("+C3+A9"), "é");
    }

    #[test]
    fn quoted_printable_keeps_line_ends_and_encodes_the_rest() {
        assert_eq!(
            quoted_printable("é=\r\na \r\n".as_bytes()),
            b"=C3=A9=3D\r\na=20\r\n"
        );
        let long = quoted_printable(&[b'x'; 300]);
        assert!(long.split(|b| *b == b'\n').all(|line| line.len() <= 77));
    }
}
