//! Commands out of the octets of a connection.

use std::fmt;

use memchr::memchr2;

use crate::auth::AUTH_LINE;
use crate::line::{Decoded, Line, LineReader};
use crate::{Command, CommandError, grammar};

/// Longest command line with its CRLF, octets (RFC 5321 section 4.5.3.1.4).
const COMMAND_LINE: usize = 512;
/// The same for MAIL and RCPT, with what their extensions add (SIZE, DSN, AUTH, SMTPUTF8).
const ENVELOPE_LINE: usize = 4096;

/// Reads commands, one at a time, strictly: a line ends with CRLF and nothing else.
///
/// A line that is too long is read to its end without being kept, and gives one error. A line
/// that ends with LF alone gives one error and the next line begins behind the LF.
#[derive(Default)]
pub struct CommandDecoder {
    line: LineReader,
}

impl CommandDecoder {
    /// At the beginning of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on; see [`Decoded`]. After `DATA`, `BDAT`, `STARTTLS` and `AUTH` what follows is not for
    /// this decoder until the session says so.
    pub fn decode(&mut self, input: &[u8]) -> Decoded<Command, CommandError> {
        let (consumed, line) = self.line.read(input, bound);
        let item = line.map(|line| parse(&line));
        if item.is_some() {
            self.line.clear();
        }
        Decoded { consumed, item }
    }
}

/// What an unfinished line holds may be a password: only its length is shown.
impl fmt::Debug for CommandDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandDecoder")
            .field("pending", &self.line.pending())
            .finish()
    }
}

fn bound(line: &[u8]) -> usize {
    match line.get(..5) {
        Some(verb)
            if verb.eq_ignore_ascii_case(b"MAIL ") || verb.eq_ignore_ascii_case(b"RCPT ") =>
        {
            ENVELOPE_LINE
        }
        Some(verb) if verb.eq_ignore_ascii_case(b"AUTH ") => AUTH_LINE,
        _ => COMMAND_LINE,
    }
}

fn parse(line: &Line<'_>) -> Result<Command, CommandError> {
    if line.cut {
        let auth = bound(line.octets) == AUTH_LINE;
        return Err(if auth {
            CommandError::AuthLineTooLong
        } else {
            CommandError::TooLong
        });
    }
    if !line.strict_end || memchr2(b'\r', 0, line.octets).is_some() {
        return Err(CommandError::LineEnding);
    }
    let text = std::str::from_utf8(line.octets).map_err(|_| CommandError::NotText)?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(CommandError::NotText);
    }
    grammar::command(text)
}
