//! Replies out of the octets of a connection.

use crate::line::{Decoded, Line, LineReader};
use crate::{EnhancedCode, Reply, ReplyError};

/// So much of a line's text is kept, octets; code, separator and CRLF come on top.
const LINE_TEXT: usize = 2048;
const LINE: usize = LINE_TEXT + 6;
const LINES: usize = 100;
const OCTETS: usize = 256 * 1024;

/// Reads replies, one at a time. After an error the connection must be closed.
#[derive(Default)]
pub struct ReplyDecoder {
    line: LineReader,
    reply: Option<Reply>,
    octets: usize,
}

impl ReplyDecoder {
    /// At the beginning of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a reply has begun and is not complete.
    pub fn is_within_reply(&self) -> bool {
        self.octets > 0
    }

    /// Reads on; see [`Decoded`].
    pub fn decode(&mut self, input: &[u8]) -> Decoded<Reply, ReplyError> {
        let mut rest = input;
        loop {
            // Whatever the pieces, the decision falls at the same octet.
            let allowed = OCTETS.saturating_sub(self.octets);
            let piece = rest.get(..allowed).unwrap_or(rest);
            let (consumed, line) = self.line.read(piece, |_| LINE);
            let parsed = line.map(|line| parse(&line));
            self.octets = self.octets.saturating_add(consumed);
            rest = rest.get(consumed..).unwrap_or_default();
            let item = match parsed {
                Some(line) => {
                    self.line.clear();
                    line.and_then(|line| self.add(line)).transpose()
                }
                None if self.octets >= OCTETS => Some(Err(ReplyError::TooLong)),
                None => None,
            };
            if item.is_some() {
                *self = Self::default();
            }
            if item.is_some() || rest.is_empty() {
                return Decoded {
                    consumed: input.len().saturating_sub(rest.len()),
                    item,
                };
            }
        }
    }

    /// Returns the reply when this was its last line.
    fn add(&mut self, line: ReplyLine) -> Result<Option<Reply>, ReplyError> {
        let reply = self.reply.get_or_insert_with(|| Reply {
            code: line.code,
            enhanced: None,
            lines: Vec::new(),
            bare_line_feed: false,
            truncated: false,
        });
        if reply.code != line.code {
            return Err(ReplyError::MixedCodes);
        }
        if reply.lines.len() >= LINES {
            return Err(ReplyError::TooLong);
        }
        let mut text = line.text.as_str();
        if let Some((enhanced, rest)) = EnhancedCode::split_from(text)
            && *reply.enhanced.get_or_insert(enhanced) == enhanced
        {
            text = rest;
        }
        reply.lines.push(text.into());
        reply.bare_line_feed |= line.bare_line_feed;
        reply.truncated |= line.truncated;
        Ok(if line.last { self.reply.take() } else { None })
    }
}

struct ReplyLine {
    code: u16,
    last: bool,
    text: String,
    bare_line_feed: bool,
    truncated: bool,
}

fn parse(line: &Line<'_>) -> Result<ReplyLine, ReplyError> {
    let (digits, rest) = line.octets.split_at_checked(3).ok_or(ReplyError::Syntax)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(ReplyError::Syntax);
    }
    let code = digits.iter().fold(0_u16, |code, digit| {
        code.saturating_mul(10)
            .saturating_add(u16::from(digit & 15))
    });
    if !(200..600).contains(&code) {
        return Err(ReplyError::Code);
    }
    let (last, text) = match rest {
        // No blank is allowed for by RFC 5321 section 4.2 when there is no text.
        [] => (true, rest),
        [b' ', text @ ..] => (true, text),
        [b'-', text @ ..] => (false, text),
        _ => return Err(ReplyError::Syntax),
    };
    let text = String::from_utf8_lossy(text);
    let mut text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // Octets that are not UTF-8 have become longer.
    let truncated = line.cut || text.len() > LINE_TEXT;
    text.truncate(text.floor_char_boundary(LINE_TEXT));
    Ok(ReplyLine {
        code,
        last,
        text,
        bare_line_feed: !line.strict_end,
        truncated,
    })
}
