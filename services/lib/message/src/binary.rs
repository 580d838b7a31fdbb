//! Content that came with BODY=BINARYMIME (RFC 3030), made into what every host takes: parts whose encoding is `binary` become
//! base64, and everything else must consist of lines.
//!
//! It is done while the content comes in, since the body is hashed for signatures then. What is kept of it is a part's header
//! section at most.

pub(crate) mod entity;
mod leaf;
#[cfg(test)]
mod tests;

use memchr::memmem;

use entity::{Entity, Kind};
use leaf::Base64;

/// Largest header section of a part, octets.
const MAX_PART_HEADER: usize = 64 * 1024;
/// Multiparts in each other.
const MAX_DEPTH: usize = 32;
/// A delimiter line is shorter, octets: two hyphens, a boundary of 70, two hyphens, and white space.
const MAX_DELIMITER: usize = 256;

/// Why the content can't be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// What is not binary by its header has octets that DATA can't carry.
    #[error("a part that is not binary has CR or LF alone")]
    NoLines,
    /// A multipart without (a valid) boundary, or an encoding said twice.
    #[error("the structure of the message cannot be read")]
    Malformed,
    /// More than [`MAX_DEPTH`].
    #[error("multiparts are nested too deeply")]
    TooDeep,
    /// More than [`MAX_PART_HEADER`].
    #[error("the header section of a part is too large")]
    HeaderTooLarge,
    /// A signature is over the octets that would change.
    #[error("a signed part is binary; conversion would break its signature")]
    Signed,
}

/// What the octets that come next are.
#[derive(Debug)]
enum State {
    /// The header section of a part; the lines so far.
    Header(Vec<u8>),
    /// Lines that are passed on as they are. `begun`: the present one has been in part.
    Lines { begun: bool },
    /// Octets to be encoded. `fresh`: none came yet.
    Binary { encoder: Base64, fresh: bool },
}

/// A multipart that is open.
#[derive(Debug)]
struct Level {
    /// The boundary with the hyphens before it.
    delimiter: Vec<u8>,
    signed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Converter {
    levels: Vec<Level>,
    state: State,
    /// What can't be judged yet.
    pending: Vec<u8>,
    error: Option<BinaryError>,
}

/// How a line ends the part in which it stands.
enum Delimiter {
    /// Another part of this level follows.
    Next(usize),
    /// This level is over.
    Last(usize),
}

impl Converter {
    /// For a message with this header section, without the empty line after it; gives the header section that it is to have.
    pub fn begin(header: &[u8]) -> Result<(Self, Vec<u8>), BinaryError> {
        let mut converter = Self {
            levels: Vec::new(),
            state: State::Lines { begun: false },
            pending: Vec::new(),
            error: None,
        };
        let mut rest = header;
        while let Some(end) = memmem::find(rest, b"\r\n") {
            check_line(&rest[..end])?;
            rest = &rest[end + 2..];
        }
        check_line(rest)?;
        let header = converter.enter(header)?;
        Ok((converter, header))
    }

    /// Octets that it may hold.
    pub fn memory(&self) -> usize {
        MAX_PART_HEADER + self.pending.capacity()
    }

    /// Takes body that came in; appends what is to be stored to `out`. Nothing after an error.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        if self.error.is_some() {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(octets);
        let mut used = 0;
        loop {
            match self.step(&pending[used..], out) {
                Ok(0) => break,
                Ok(more) => used += more,
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
        pending.drain(..used);
        self.pending = pending;
    }

    /// The body is complete. What is stored ends with a line end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let ends_with_a_line = match &self.state {
            State::Lines { begun: false } => self.pending.is_empty(),
            State::Header(header) => header.is_empty() && self.pending.is_empty(),
            State::Lines { begun: true } | State::Binary { .. } => false,
        };
        if !ends_with_a_line {
            // The last line may be a delimiter without an end.
            self.push(b"\r\n", out);
        }
        let rest = std::mem::take(&mut self.pending);
        if self.error.is_some() {
            return;
        }
        match std::mem::replace(&mut self.state, State::Lines { begun: false }) {
            State::Header(header) => match self.enter(&header) {
                Ok(header) => out.extend_from_slice(&header),
                Err(error) => self.error = Some(error),
            },
            State::Lines { .. } => {}
            State::Binary { mut encoder, .. } => {
                // The two octets are ours.
                let own = rest.strip_suffix(b"\r\n").unwrap_or(&rest);
                encoder.push(own, out);
                encoder.finish(out);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// What is wrong with what came so far.
    pub fn error(&self) -> Option<BinaryError> {
        self.error
    }

    /// Does what can be done with the first octets; gives how many are used, 0 = more are needed.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, BinaryError> {
        match &self.state {
            State::Header(_) => self.header_line(input, out),
            State::Lines { begun } => {
                let begun = *begun;
                self.line(begun, input, out)
            }
            State::Binary { .. } => self.binary(input, out),
        }
    }

    fn header_line(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, BinaryError> {
        let State::Header(header) = &mut self.state else {
            return Ok(0);
        };
        let Some(end) = memmem::find(input, b"\r\n") else {
            let too_large = header.len() + input.len() > MAX_PART_HEADER;
            return if too_large {
                Err(BinaryError::HeaderTooLarge)
            } else {
                Ok(0)
            };
        };
        let line = &input[..end];
        check_line(line)?;
        let whole = &input[..end + 2];
        let delimiter = find_delimiter(&self.levels, line);
        if !line.is_empty() && delimiter.is_none() {
            header.extend_from_slice(whole);
            let too_large = header.len() > MAX_PART_HEADER;
            return if too_large {
                Err(BinaryError::HeaderTooLarge)
            } else {
                Ok(whole.len())
            };
        }
        let header = std::mem::take(header);
        out.extend_from_slice(&self.enter(&header)?);
        out.extend_from_slice(whole);
        if let Some(delimiter) = delimiter {
            // A part without a body, and without the empty line before it.
            self.pass(&delimiter);
        }
        Ok(whole.len())
    }

    fn line(&mut self, begun: bool, input: &[u8], out: &mut Vec<u8>) -> Result<usize, BinaryError> {
        let Some(end) = memmem::find(input, b"\r\n") else {
            if input.len() <= MAX_DELIMITER {
                return Ok(0);
            }
            // Too long for a delimiter; a CR may be half of a line end.
            let part = input.strip_suffix(b"\r").unwrap_or(input);
            check_line(part)?;
            out.extend_from_slice(part);
            self.state = State::Lines { begun: true };
            return Ok(part.len());
        };
        let line = &input[..end];
        check_line(line)?;
        out.extend_from_slice(&input[..end + 2]);
        self.state = State::Lines { begun: false };
        if !begun && let Some(delimiter) = find_delimiter(&self.levels, line) {
            self.pass(&delimiter);
        }
        Ok(end + 2)
    }

    fn binary(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, BinaryError> {
        let State::Binary { encoder, fresh } = &mut self.state else {
            return Ok(0);
        };
        // Where a line begins that may be a delimiter, and where the content ends then.
        let (content, line_at) = match memmem::find(input, b"\r\n--") {
            _ if *fresh && input.starts_with(b"--") => (0, 0),
            _ if *fresh && b"--".starts_with(input) => return Ok(0),
            Some(at) => (at, at + 2),
            None => {
                let held = held_back(input);
                let content = input.len() - held;
                encoder.push(&input[..content], out);
                *fresh &= content == 0;
                return Ok(content);
            }
        };
        let behind = &input[line_at..];
        let (delimiter, length) = match memmem::find(behind, b"\r\n") {
            Some(end) => (find_delimiter(&self.levels, &behind[..end]), end + 2),
            None if behind.len() <= MAX_DELIMITER => {
                // What is before it can go.
                encoder.push(&input[..content], out);
                *fresh &= content == 0;
                return Ok(content);
            }
            None => (None, 0),
        };
        let Some(delimiter) = delimiter else {
            let content = line_at.max(2);
            encoder.push(&input[..content], out);
            *fresh = false;
            return Ok(content);
        };
        encoder.push(&input[..content], out);
        encoder.finish(out);
        out.extend_from_slice(&input[content..line_at + length]);
        self.pass(&delimiter);
        Ok(line_at + length)
    }

    /// A header section is complete: what follows it, and how it is to read.
    fn enter(&mut self, header: &[u8]) -> Result<Vec<u8>, BinaryError> {
        let Entity { kind, header } = Entity::read(header)?;
        self.state = match kind {
            Kind::Multipart { boundary, signed } => {
                if self.levels.len() == MAX_DEPTH {
                    return Err(BinaryError::TooDeep);
                }
                let delimiter = [b"--", &boundary[..]].concat();
                self.levels.push(Level { delimiter, signed });
                State::Lines { begun: false }
            }
            Kind::Message => State::Header(Vec::new()),
            Kind::Lines => State::Lines { begun: false },
            Kind::Binary if self.levels.iter().any(|level| level.signed) => {
                return Err(BinaryError::Signed);
            }
            Kind::Binary => State::Binary {
                encoder: Base64::default(),
                fresh: true,
            },
        };
        Ok(header)
    }

    fn pass(&mut self, delimiter: &Delimiter) {
        self.state = match delimiter {
            Delimiter::Next(level) => {
                self.levels.truncate(level + 1);
                State::Header(Vec::new())
            }
            Delimiter::Last(level) => {
                self.levels.truncate(*level);
                State::Lines { begun: false }
            }
        };
    }
}

/// Only CRLF ends a line.
fn check_line(line: &[u8]) -> Result<(), BinaryError> {
    match memchr::memchr2(b'\r', b'\n', line) {
        None => Ok(()),
        Some(_) => Err(BinaryError::NoLines),
    }
}

/// Octets at the end that may begin a delimiter.
fn held_back(input: &[u8]) -> usize {
    let begins = [&b"\r\n-"[..], b"\r\n", b"\r"];
    let begun = begins.into_iter().find(|begin| input.ends_with(begin));
    begun.map_or(0, <[u8]>::len)
}

/// The innermost multipart comes first; an outer delimiter ends those within (RFC 2046 section 5.1.2).
fn find_delimiter(levels: &[Level], line: &[u8]) -> Option<Delimiter> {
    // The longest that is waited for, so that it does not matter how the content was cut.
    if !line.starts_with(b"--") || line.len() + 2 > MAX_DELIMITER {
        return None;
    }
    levels.iter().enumerate().rev().find_map(|(number, level)| {
        let rest = line.strip_prefix(&level.delimiter[..])?;
        let (rest, delimiter) = match rest.strip_prefix(b"--") {
            Some(rest) => (rest, Delimiter::Last(number)),
            None => (rest, Delimiter::Next(number)),
        };
        // White space may follow, but no CR alone: the line is passed on.
        let is_blank = rest.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        is_blank.then_some(delimiter)
    })
}
