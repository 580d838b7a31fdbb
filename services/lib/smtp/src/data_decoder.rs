//! Content after `DATA`, on the server's side (RFC 5321 section 4.5.2).

use memchr::memchr2;

use crate::EnhancedCode;

/// Longest text line with its CRLF, octets, a stuffed dot not counted (RFC 5321 section 4.5.3.1.6).
const LONGEST_LINE: u64 = 1000;

/// Reads content up to the line with a single dot, and takes the stuffed dots away.
///
/// Strict: only CRLF ends a line and only CRLF, dot, CRLF ends the content (at the very beginning
/// dot, CRLF do). An LF or CR alone is an error that is remembered; the content is still read to its
/// real end, so that nothing in it can be taken for a command (SMTP smuggling). The same for
/// content that is too large.
#[derive(Debug, Clone)]
pub struct DataDecoder {
    state: State,
    limit: u64,
    kept: u64,
    size: u64,
    line: u64,
    longest_line: u64,
    error: Option<DataError>,
}

/// What was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// CRLF, or nothing yet.
    LineStart,
    /// A dot at the start of a line.
    Dot,
    /// A dot and CR at the start of a line.
    DotCr,
    /// Anything else.
    Text,
    /// CR within a line.
    Cr,
    /// The final dot.
    Done,
}

/// How far a [`DataDecoder`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataProgress {
    /// So many octets of the input belong to the content. Less than all only when `done`: the rest
    /// are commands.
    pub consumed: usize,
    /// The final dot was seen.
    pub done: bool,
}

/// Why content can't be accepted, and what to answer when it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// An LF without a CR before it.
    #[error("content with a bare LF")]
    BareLineFeed,
    /// A CR without an LF behind it.
    #[error("content with a bare CR")]
    BareCarriageReturn,
    /// More octets than the limit.
    #[error("content over the size limit")]
    TooLarge,
}

impl DataError {
    /// The reply's code.
    pub fn code(self) -> u16 {
        match self {
            Self::BareLineFeed | Self::BareCarriageReturn => 554,
            Self::TooLarge => 552,
        }
    }

    /// The reply's enhanced code.
    pub fn enhanced(self) -> EnhancedCode {
        match self {
            Self::BareLineFeed | Self::BareCarriageReturn => EnhancedCode(5, 6, 11),
            Self::TooLarge => EnhancedCode(5, 3, 4),
        }
    }

    /// The reply's text, fit for the public.
    pub fn text(self) -> &'static str {
        match self {
            Self::BareLineFeed => "Message contains a bare LF; lines must end with CRLF",
            Self::BareCarriageReturn => "Message contains a bare CR; lines must end with CRLF",
            Self::TooLarge => "Message is larger than allowed",
        }
    }

    /// Appends the reply.
    pub fn write(self, out: &mut Vec<u8>) {
        crate::write::reply(out, self.code(), Some(self.enhanced()), self.text());
    }
}

impl DataDecoder {
    /// At the beginning of content of at most `limit` octets, stuffed dots and the final dot not
    /// counted.
    pub fn new(limit: u64) -> Self {
        Self {
            state: State::LineStart,
            limit,
            kept: 0,
            size: 0,
            line: 0,
            longest_line: 0,
            error: None,
        }
    }

    /// Reads on and appends content to `out`: never more than the limit in all, and nothing after
    /// an error.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> DataProgress {
        let mut rest = input;
        while self.state != State::Done && !rest.is_empty() {
            rest = match self.state {
                State::LineStart | State::Text => self.run(rest, out),
                _ => self.one_octet(rest, out),
            };
        }
        DataProgress {
            consumed: input.len().saturating_sub(rest.len()),
            done: self.state == State::Done,
        }
    }

    /// The first thing that is wrong with what was read so far.
    pub fn error(&self) -> Option<DataError> {
        self.error
    }

    /// Octets of content read so far, beyond the limit and after errors too.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A line was over 1,000 octets; whether that matters is policy.
    pub fn has_long_line(&self) -> bool {
        self.longest_line.max(self.line) > LONGEST_LINE
    }

    /// Takes as much as passes unchanged in one piece: up to a dot at the start of a line, an
    /// irregular line end, or the end of the input. Returns what is left.
    fn run<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let mut rest = input;
        let next = loop {
            if self.state == State::LineStart {
                if let Some(behind) = rest.strip_prefix(b".") {
                    self.state = State::Dot;
                    break behind;
                }
                self.state = State::Text;
            }
            let Some((line, end)) =
                memchr2(b'\r', b'\n', rest).and_then(|at| rest.split_at_checked(at))
            else {
                self.count(rest.len());
                rest = &[];
                break rest;
            };
            self.count(line.len());
            match end {
                [b'\r', b'\n', behind @ ..] => {
                    self.count(2);
                    self.end_line();
                    rest = behind;
                    if rest.is_empty() {
                        break rest;
                    }
                }
                [b'\r', behind @ ..] => {
                    rest = end;
                    self.state = State::Cr;
                    break behind;
                }
                _ => {
                    rest = end;
                    self.emit(passed(input, rest), out);
                    return self.bare(DataError::BareLineFeed, rest);
                }
            }
        };
        self.emit(passed(input, rest), out);
        next
    }

    /// Decides over a dot or CR by the octet behind it.
    fn one_octet<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let Some((&octet, behind)) = input.split_first() else {
            return input;
        };
        match (self.state, octet) {
            (State::Dot, b'\r') => {
                self.state = State::DotCr;
                behind
            }
            // The dot was a stuffed one: gone. What follows is the line.
            (State::Dot, _) => {
                self.state = State::Text;
                input
            }
            (State::DotCr, b'\n') => {
                self.state = State::Done;
                behind
            }
            (State::Cr, b'\n') => {
                self.count(2);
                self.emit(b"\r\n", out);
                self.end_line();
                behind
            }
            _ => {
                self.count(1);
                self.fail(DataError::BareCarriageReturn);
                self.state = State::Text;
                input
            }
        }
    }

    /// Passes over one octet that is not allowed.
    fn bare<'a>(&mut self, error: DataError, input: &'a [u8]) -> &'a [u8] {
        self.fail(error);
        self.count(1);
        input.split_first().map_or(&[], |(_, behind)| behind)
    }

    fn fail(&mut self, error: DataError) {
        self.error.get_or_insert(error);
    }

    fn count(&mut self, octets: usize) {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(octets);
        self.line = self.line.saturating_add(octets);
    }

    fn end_line(&mut self) {
        self.longest_line = self.longest_line.max(self.line);
        self.line = 0;
        self.state = State::LineStart;
    }

    fn emit(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        if self.error.is_some() {
            return;
        }
        let room = usize::try_from(self.limit.saturating_sub(self.kept)).unwrap_or(usize::MAX);
        let kept = match octets.get(..room) {
            Some(fitting) if room < octets.len() => {
                self.fail(DataError::TooLarge);
                fitting
            }
            _ => octets,
        };
        out.extend_from_slice(kept);
        self.kept = self
            .kept
            .saturating_add(u64::try_from(kept.len()).unwrap_or(u64::MAX));
    }
}

/// The part of `input` before `rest`, which is its end.
fn passed<'a>(input: &'a [u8], rest: &[u8]) -> &'a [u8] {
    input
        .get(..input.len().saturating_sub(rest.len()))
        .unwrap_or_default()
}
