//! xtext (RFC 3461 section 4): printable ASCII in which `+XX` stands for any octet.

use std::fmt;

/// Valid xtext, kept as it was received.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Xtext(Box<str>);

impl Xtext {
    /// Takes text that already is xtext; `None` when it is not, or is empty.
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && is_valid(text)).then(|| Self(text.into()))
    }

    /// Encodes any text; `None` when it is empty.
    pub fn encode(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(encode(text.as_bytes()).into_boxed_str()))
    }

    /// As received, not decoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Xtext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the text is xtext; the empty text is.
pub fn is_valid(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'+' => bytes.next().is_some_and(is_hex) && bytes.next().is_some_and(is_hex),
            other => is_plain(other),
        };
        if !valid {
            return false;
        }
    }
    true
}

/// Writes any octets as xtext.
pub fn encode(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for &octet in octets {
        if is_plain(octet) {
            text.push(char::from(octet));
        } else {
            text.push('+');
            text.push(hex_digit(octet >> 4));
            text.push(hex_digit(octet & 15));
        }
    }
    text
}

/// The octets that xtext stands for; `None` when it is not xtext. Lower-case digits are read too.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                octets.push(u8::try_from((high << 4) | low).ok()?);
            }
            other if is_plain(other) => octets.push(other),
            _ => return None,
        }
    }
    Some(octets)
}

/// `xchar`: stands for itself.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b'+' && octet != b'='
}

/// RFC 3461 wants upper case; senders exist that write lower case, and it is harmless.
fn is_hex(octet: u8) -> bool {
    octet.is_ascii_hexdigit()
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).map_or('0', |digit| digit.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_what_is_not_plain() {
        assert_eq!(encode(b"a+b=c d\r\n\xff"), "a+2Bb+3Dc+20d+0D+0A+FF");
        assert_eq!(decode("a+2Bb+3dc").unwrap(), b"a+b=c");
    }

    #[test]
    fn refuses_what_is_no_xtext() {
        for text in ["+", "+2", "+2G", "a=b", "a b", "a\r\nb", "é", "\u{7f}"] {
            assert!(!is_valid(text), "{text:?}");
            assert_eq!(decode(text), None, "{text:?}");
            assert_eq!(Xtext::parse(text), None, "{text:?}");
        }
        assert_eq!(Xtext::parse(""), None);
        assert_eq!(Xtext::parse("<>").unwrap().as_str(), "<>");
    }
}
