//! The lines that a client sends within an AUTH exchange (RFC 4954 section 4).

use std::fmt;

use crate::CommandError;
use crate::line::{Decoded, Line, LineReader};

/// Longest line of an AUTH exchange with its CRLF, octets (RFC 4954 section 4).
pub(crate) const AUTH_LINE: usize = 12_288;

/// Text that must not reach a log: base64 of credentials, as received.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// The text itself, base64 not decoded; empty when an empty response was sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `None` when the text is not made of base64's characters.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let unpadded = text.trim_end_matches('=');
        let padding = text.len().saturating_sub(unpadded.len());
        let valid = padding <= 2
            && text.len().is_multiple_of(4)
            && unpadded
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
        valid.then(|| Self(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A client's answer to a `334`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthLine {
    /// `*`: the client gives up; to be answered with 501.
    Cancel,
    /// Base64 as received.
    Response(Secret),
}

/// Reads the lines of an AUTH exchange, at most 12,288 octets each.
#[derive(Default)]
pub struct AuthLineDecoder {
    line: LineReader,
}

impl AuthLineDecoder {
    /// At the beginning of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on; see [`Decoded`].
    pub fn decode(&mut self, input: &[u8]) -> Decoded<AuthLine, CommandError> {
        let (consumed, line) = self.line.read(input, |_| AUTH_LINE);
        let item = line.map(|line| parse(&line));
        if item.is_some() {
            self.line.clear();
        }
        Decoded { consumed, item }
    }
}

impl fmt::Debug for AuthLineDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthLineDecoder")
            .field("pending", &self.line.pending())
            .finish()
    }
}

fn parse(line: &Line<'_>) -> Result<AuthLine, CommandError> {
    if line.cut {
        return Err(CommandError::AuthLineTooLong);
    }
    if !line.strict_end || line.octets.contains(&b'\r') {
        return Err(CommandError::LineEnding);
    }
    if line.octets == b"*" {
        return Ok(AuthLine::Cancel);
    }
    std::str::from_utf8(line.octets)
        .ok()
        .and_then(Secret::parse)
        .map(AuthLine::Response)
        .ok_or(CommandError::AuthEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(input: &[u8]) -> Result<AuthLine, CommandError> {
        let decoded = AuthLineDecoder::new().decode(input);
        assert_eq!(decoded.consumed, input.len());
        decoded.item.unwrap()
    }

    #[test]
    fn reads_responses_and_the_asterisk() {
        assert_eq!(one(b"*\r\n"), Ok(AuthLine::Cancel));
        assert_eq!(one(b"\r\n"), Ok(AuthLine::Response(Secret("".into()))));
        assert_eq!(
            one(b"YWJj\r\n"),
            Ok(AuthLine::Response(Secret("YWJj".into())))
        );
        assert_eq!(
            one(b"YWI=\r\n"),
            Ok(AuthLine::Response(Secret("YWI=".into())))
        );
    }

    #[test]
    fn refuses_what_is_no_base64() {
        for input in [
            &b"a\r\n"[..],
            b"====\r\n",
            b"YW=j\r\n",
            b"YW j\r\n",
            b"\xff\xff\xff\xff\r\n",
            b"****\r\n",
        ] {
            assert_eq!(one(input), Err(CommandError::AuthEncoding));
        }
        assert_eq!(one(b"YWJj\n"), Err(CommandError::LineEnding));
    }

    #[test]
    fn refuses_lines_over_12288_octets_and_reads_the_next() {
        let mut decoder = AuthLineDecoder::new();
        let mut longest = vec![b'a'; AUTH_LINE - 4];
        longest.extend_from_slice(b"\r\n");
        assert!(matches!(
            decoder.decode(&longest).item,
            Some(Ok(AuthLine::Response(_)))
        ));
        let mut long = vec![b'a'; AUTH_LINE];
        long.extend_from_slice(b"\r\n");
        assert_eq!(
            decoder.decode(&long).item,
            Some(Err(CommandError::AuthLineTooLong))
        );
        assert_eq!(decoder.decode(b"*\r\n").item, Some(Ok(AuthLine::Cancel)));
    }

    #[test]
    fn never_shows_a_secret() {
        let mut decoder = AuthLineDecoder::new();
        decoder.decode(b"c2VjcmV0");
        assert!(!format!("{decoder:?}").contains("c2Vj"));
        assert_eq!(format!("{:?}", Secret("c2VjcmV0".into())), "Secret(…)");
    }
}
