//! The text of a message, and what is wrong with its MIME structure (RFC 2045, RFC 2046).
//!
//! A parser of mail looks for the end of each multipart in all that follows it; a message made of multiparts that do not end
//! makes this quadratic. So the structure is read here in one pass, and mail-parser decodes what is in the parts. Memory is a
//! part's text at a time; multiparts in each other are bounded.

mod decode;
mod part;
mod piece;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;
use memchr::{memchr, memmem};

use crate::{Page, fields};
use part::{Body, Part};
pub use piece::{Piece, read_pieces};

/// Multiparts in each other.
const MAX_DEPTH: usize = 32;
/// Parts of a message; a mail program would show none of so many.
const MAX_PARTS: usize = 1000;
/// A delimiter line is shorter, octets.
const MAX_DELIMITER: usize = 256;
/// So much of a subject is read, octets; reading a hostile one takes the square of it.
const MAX_SUBJECT: usize = 2048;

/// A message, or the first part of one.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// Without the empty line that ends it.
    pub header: &'a [u8],
    /// As much as there is of it; only CRLF ends a line.
    pub body: &'a [u8],
    /// It is all of it.
    pub is_complete: bool,
}

/// What [`read_content`] is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The texts.
    pub texts: bool,
    /// What is wrong with the structure.
    pub broken: bool,
}

/// A text of a message, decoded. Attachments and messages within the message are none.
#[derive(Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// Its subject, encoded words decoded (RFC 2047); the first 2,048 octets of it.
    Subject(Cow<'a, str>),
    /// A part of text/plain, or one that says no type.
    Plain(Cow<'a, str>),
    /// A part of text/html.
    Html(Page),
}

/// What is wrong with the MIME structure of a message, where readers would see something else than its author meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenMime {
    /// RFC 2046 section 5.1.1 asks for one.
    #[error("a multipart has no valid boundary")]
    NoBoundary,
    /// Its boundary appears nowhere, or only at the end.
    #[error("a multipart has no parts")]
    NoParts,
    /// The last boundary is missing.
    #[error("a multipart is not closed")]
    NotClosed,
    /// More than 32.
    #[error("multiparts are nested too deeply")]
    TooDeep,
    /// More than 1,000; what follows is not looked at.
    #[error("it has too many parts")]
    TooManyParts,
    /// Content-Type or Content-Transfer-Encoding: readers would disagree which one counts.
    #[error("a part says its type or encoding twice")]
    Repeated,
    /// Not one of RFC 2045 section 6.1.
    #[error("a part has an encoding that is not known")]
    UnknownEncoding,
    /// RFC 2045 section 6.4 and RFC 2046 section 5.2 allow 7bit, 8bit and binary only.
    #[error("a multipart or a message within is encoded")]
    EncodedComposite,
    /// Other characters, or too few.
    #[error("a part is not the base64 that it says")]
    NotBase64,
    /// An `=` without two hexadecimal digits or a line end.
    #[error("a part is not the quoted-printable that it says")]
    NotQuotedPrintable,
    /// No reader can be expected to know it.
    #[error("a text has a character set that is not known")]
    UnknownCharset,
    /// Octets that UTF-8 does not have.
    #[error("a text is not the UTF-8 that it says")]
    NotUtf8,
}

/// Reads a message: `take` gets its texts as they come; the answer is the first thing that is wrong. Of content that is not
/// complete only what is certain is said. Takes linear time, and memory for the largest text three times.
pub fn read_content(
    content: &Content<'_>,
    wanted: Wanted,
    take: &mut dyn FnMut(Text<'_>),
) -> Option<BrokenMime> {
    if wanted.texts
        && let Some(subject) = subject(content.header)
    {
        take(Text::Subject(subject.into()));
    }
    // What is cut within a line says nothing certain.
    let body = match memchr::memrchr(b'\n', content.body) {
        _ if content.is_complete => content.body,
        Some(end) => &content.body[..=end],
        None => &[],
    };
    let mut walk = Walk {
        body,
        is_complete: content.is_complete,
        wanted,
        take,
        pieces: None,
        levels: Vec::new(),
        broken: None,
    };
    walk.run(content.header);
    walk.broken.filter(|_| wanted.broken)
}

/// The first subject, encoded words decoded; of a long one the first 2,048 octets.
pub fn subject(header: &[u8]) -> Option<String> {
    let field = fields(header).find(|field| field.is("Subject"))?;
    let length = field.value.len().min(MAX_SUBJECT);
    let line = [&field.value[..length], b"\r\n"].concat();
    match MessageStream::new(&line).parse_unstructured() {
        HeaderValue::Text(text) => Some(text.into_owned()),
        _ => None,
    }
}

/// A multipart that is open.
struct Level {
    /// The boundary with the hyphens before it.
    delimiter: Vec<u8>,
    is_digest: bool,
    has_parts: bool,
}

/// A line that ends the part before it.
struct Delimiter {
    /// Where that part ends; the line end before the delimiter is not of it.
    content_end: usize,
    /// After the line.
    end: usize,
    level: usize,
    is_last: bool,
}

struct Walk<'a, 't> {
    body: &'a [u8],
    is_complete: bool,
    wanted: Wanted,
    take: &'t mut dyn FnMut(Text<'_>),
    /// Gets the parts as they are, instead of their texts.
    pieces: Option<&'t mut dyn FnMut(Piece<'a>)>,
    levels: Vec<Level>,
    broken: Option<BrokenMime>,
}

impl<'a> Walk<'a, '_> {
    fn run(&mut self, header: &'a [u8]) {
        let mut part = Part::read(header, false);
        let mut part_header = Some(header);
        let mut at = 0;
        for _ in 0..=MAX_PARTS {
            self.enter(&part);
            let delimiter = self.next_delimiter(at);
            let end = delimiter
                .as_ref()
                .map_or(self.body.len(), |it| it.content_end);
            let is_cut = delimiter.is_none() && !self.is_complete;
            self.leaf(&part, part_header, &self.body[at..end], is_cut);
            let Some(delimiter) = delimiter else {
                if self.is_complete {
                    self.leave(0);
                }
                return;
            };
            at = delimiter.end;
            self.leave(delimiter.level + 1);
            if delimiter.is_last {
                self.close();
                part = Part::nothing();
                part_header = None;
                continue;
            }
            let Some((header_end, body)) = self.part_header(at) else {
                return;
            };
            let level = &mut self.levels[delimiter.level];
            level.has_parts = true;
            let header = &self.body[at..header_end];
            part = Part::read(header, level.is_digest);
            part_header = Some(header);
            at = body;
        }
        self.note(BrokenMime::TooManyParts);
    }

    /// The body of a part begins.
    fn enter(&mut self, part: &Part) {
        if let Some(broken) = part.broken {
            self.note(broken);
        }
        if let Body::Multipart {
            boundary,
            is_digest,
        } = &part.body
        {
            if self.levels.len() == MAX_DEPTH {
                self.note(BrokenMime::TooDeep);
                return;
            }
            self.levels.push(Level {
                delimiter: [b"--", &boundary[..]].concat(),
                is_digest: *is_digest,
                has_parts: false,
            });
        }
    }

    /// Multiparts from the level `depth` on end without their own delimiter.
    fn leave(&mut self, depth: usize) {
        if let Some(level) = self.levels.get(depth..).and_then(<[Level]>::last) {
            let broken = if level.has_parts {
                BrokenMime::NotClosed
            } else {
                BrokenMime::NoParts
            };
            self.note(broken);
        }
        self.levels.truncate(depth);
    }

    /// The innermost multipart ends with its delimiter.
    fn close(&mut self) {
        if self.levels.pop().is_some_and(|level| !level.has_parts) {
            self.note(BrokenMime::NoParts);
        }
    }

    fn note(&mut self, broken: BrokenMime) {
        self.broken.get_or_insert(broken);
    }

    /// The next delimiter at or after the beginning of a line. The innermost multipart comes first; an outer delimiter ends those
    /// within (RFC 2046 section 5.1.2).
    fn next_delimiter(&self, from: usize) -> Option<Delimiter> {
        if self.levels.is_empty() {
            return None;
        }
        let mut at = from;
        loop {
            let rest = &self.body[at..];
            let end = memchr(b'\n', rest).map_or(self.body.len(), |end| at + end + 1);
            if let Some((level, is_last)) = self.delimiter_in(&self.body[at..end]) {
                return Some(Delimiter {
                    content_end: at.saturating_sub(2).max(from),
                    end,
                    level,
                    is_last,
                });
            }
            at += memmem::find(rest, b"\n--")? + 1;
        }
    }

    /// The level that a line belongs to, and whether it ends it.
    fn delimiter_in(&self, line: &[u8]) -> Option<(usize, bool)> {
        if !line.starts_with(b"--") || line.len() > MAX_DELIMITER {
            return None;
        }
        let line = line.trim_ascii_end();
        let levels = self.levels.iter().enumerate().rev();
        levels
            .filter_map(|(number, level)| Some((number, line.strip_prefix(&level.delimiter[..])?)))
            .find_map(|(number, rest)| match rest {
                b"" => Some((number, false)),
                b"--" => Some((number, true)),
                _ => None,
            })
    }

    /// Where the header section of a part ends, and its body begins; `None`: more would have to come.
    fn part_header(&self, from: usize) -> Option<(usize, usize)> {
        let mut at = from;
        while let Some(length) = memchr(b'\n', &self.body[at..]) {
            let line = &self.body[at..=at + length];
            if line == b"\r\n" {
                return Some((at, at + 2));
            }
            if self.delimiter_in(line).is_some() {
                // A part without a body, and without the empty line before it.
                return Some((at, at));
            }
            at += length + 1;
        }
        let end = self.body.len();
        self.is_complete.then_some((end, end))
    }

    /// The body of a part is there; `is_cut`: what follows of it is not.
    fn leaf(&mut self, part: &Part, header: Option<&'a [u8]>, body: &'a [u8], is_cut: bool) {
        if let Some(pieces) = &mut self.pieces {
            if let Some(header) = header.filter(|_| !matches!(part.body, Body::Multipart { .. })) {
                pieces(Piece::new(header, part, body));
            }
            return;
        }
        let Body::Text { charset, is_html } = &part.body else {
            if self.wanted.broken
                && let Err(broken) = decode::check(body, part.encoding, is_cut)
            {
                self.note(broken);
            }
            return;
        };
        let is_read = self.wanted.texts && is_html.is_some() && !part.is_attachment;
        if !is_read && !self.wanted.broken {
            return;
        }
        let (octets, broken) = decode::transfer_encoding(body, part.encoding, is_cut);
        let (text, unreadable) = decode::text(octets, charset.as_deref(), is_cut);
        for broken in [broken, unreadable].into_iter().flatten() {
            self.note(broken);
        }
        match is_html {
            Some(false) if is_read => (self.take)(Text::Plain(text)),
            Some(true) if is_read => (self.take)(Text::Html(Page::read(&text))),
            _ => {}
        }
    }
}
