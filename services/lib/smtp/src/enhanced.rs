//! Enhanced status codes (RFC 3463, RFC 2034).

use std::fmt;
use std::str::FromStr;

/// `class.subject.detail`: class 2, 4 or 5, the others 0 to 999 (Microsoft says `5.7.509`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

/// Not an enhanced status code.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an enhanced status code")]
pub struct EnhancedCodeError;

impl EnhancedCode {
    /// Reads exactly a code, nothing before or after it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let class = match parts.next()? {
            "2" => 2,
            "4" => 4,
            "5" => 5,
            _ => return None,
        };
        let subject = part(parts.next()?)?;
        let detail = part(parts.next()?)?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self(class, subject, detail))
    }

    /// Splits a code off the beginning of a reply's text; the rest is without the blank after it.
    pub fn split_from(text: &str) -> Option<(Self, &str)> {
        let (first, rest) = match text.split_once(' ') {
            Some((first, rest)) => (first, rest),
            None => (text, ""),
        };
        Some((Self::parse(first)?, rest))
    }
}

/// One to three digits.
fn part(text: &str) -> Option<u16> {
    if text.is_empty() || text.len() > 3 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for EnhancedCode {
    type Err = EnhancedCodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or(EnhancedCodeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_codes_with_parts_of_three_digits() {
        assert_eq!(
            EnhancedCode::parse("5.7.509"),
            Some(EnhancedCode(5, 7, 509))
        );
        assert_eq!(EnhancedCode::parse("2.0.0"), Some(EnhancedCode(2, 0, 0)));
        assert_eq!("4.999.1".parse(), Ok(EnhancedCode(4, 999, 1)));
        assert_eq!(EnhancedCode(5, 7, 509).to_string(), "5.7.509");
    }

    #[test]
    fn refuses_what_only_looks_like_a_code() {
        for text in [
            "", "5", "5.1", "5.1.1.1", "3.1.1", "55.1.1", "5.1000.1", "5..1", "5.+1.1", " 5.1.1",
            "5.1.1:",
        ] {
            assert_eq!(EnhancedCode::parse(text), None, "{text}");
        }
    }

    #[test]
    fn splits_a_code_off_a_text() {
        assert_eq!(
            EnhancedCode::split_from("5.1.1 no such user"),
            Some((EnhancedCode(5, 1, 1), "no such user"))
        );
        assert_eq!(
            EnhancedCode::split_from("5.1.1"),
            Some((EnhancedCode(5, 1, 1), ""))
        );
        assert_eq!(EnhancedCode::split_from("5.1.1.2 host"), None);
    }
}
