//! The content of one message while it comes in: decoded text goes in, and what is to be stored
//! comes out, without the body being copied again.
//!
//! The header section is collected first. As soon as it is complete it is judged and repaired (by
//! the caller's closure), and the repaired one is put right before the body: room is left for it
//! at the front of the buffer. From then on the buffer is the message as it will be stored, and
//! what is large can leave in pieces.

use bytes::Bytes;
use config::LongLines;
use dkim::{BodyHasher, SimpleBodyHasher};
use mail::Domain;
use message::{Converter, HeaderEnd, LineBreaker, LineWatch, has_long_line};

use crate::answer::{self, Answer};
use crate::chain::Checks;
use crate::checks::Examine;
use crate::links::Links;
use crate::policy::JudgedTimes;
use crate::scanning::Marks;

/// Room for fields that are put on top, octets.
const HEADROOM: usize = 2048;
/// Largest header section of a client, octets.
pub(crate) const MAX_HEADER: usize = 256 * 1024;
/// What is larger leaves in pieces of this size and up to one read more, octets: a piece with it is
/// still one chunk of the spool (1 MiB).
pub(crate) const PIECE: usize = 960 * 1024;
/// Room for the read that completes a piece, octets.
const ONE_READ: usize = 64 * 1024;
/// First allocation when the client names no size, octets: the usual message fits.
const FIRST: usize = 16 * 1024;

/// What judging the header section gave.
pub(crate) struct Repaired {
    /// Without the empty line, every line with CRLF.
    pub(crate) header: Vec<u8>,
    /// What the body goes through when it is binary.
    pub(crate) converter: Option<Box<Converter>>,
    pub(crate) lines: Lines,
    /// What looks over the content when it is there, or its first piece before that leaves.
    pub(crate) examine: Option<Examine>,
    pub(crate) judged: Judged,
}

/// What is done about long lines of a body.
#[derive(Debug, Default)]
pub(crate) enum Lines {
    /// Nothing.
    #[default]
    Kept,
    /// The message is refused when there is one.
    Refused(LineWatch),
    /// They are broken; none was found yet, and nothing is copied.
    Watched(LineWatch),
    /// They are broken from where the first was found.
    Broken(Box<LineBreaker>),
}

impl Lines {
    /// What is done about those of a message. One that came with a signature keeps its body as it is.
    pub(crate) fn of(policy: LongLines, header: &[u8], is_signed: bool) -> Result<Self, Answer> {
        match policy {
            LongLines::Reject if has_long_line(header) => Err(answer::LINE_TOO_LONG),
            LongLines::Reject => Ok(Self::Refused(LineWatch::default())),
            LongLines::Break if !is_signed => Ok(Self::Watched(LineWatch::default())),
            LongLines::Break | LongLines::Keep => Ok(Self::Kept),
        }
    }
}

/// What follows from a header section.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Domain of the author, whose keys sign; empty when it is not of the tenant.
    pub(crate) from_domain: String,
    /// Somebody is an author who is not of the tenant.
    pub(crate) is_foreign: bool,
    /// What is found out for it.
    pub(crate) checks: Option<Box<Checks>>,
    /// Domain of the return paths that its recipients get; `None`: they have the client's.
    pub(crate) return_domain: Option<Domain>,
    /// The ARC set that it gets.
    pub(crate) seal: Option<Box<proto::envelope::Seal>>,
    /// Traffic class of the tenant.
    pub(crate) stream: String,
    /// Label in it; may be empty.
    pub(crate) campaign: String,
    pub(crate) times: JudgedTimes,
    /// As far as the client asks for one and its stream has it, -9 to 9.
    pub(crate) priority: i8,
    /// What domains of recipients say about TLS is to be passed over.
    pub(crate) tls_optional: bool,
    /// Of the client, where messages that are sent again are known.
    pub(crate) message_id: Option<Box<[u8]>>,
    /// What the warnings of checks weigh together.
    pub(crate) warned: u32,
    /// What its scanners want.
    pub(crate) marks: Marks,
    /// Of a message to several, of whom each gets a link of its own.
    pub(crate) links: Option<Box<Links>>,
}

/// A message that came in whole.
pub(crate) struct Received {
    /// What did not leave in pieces: all of it, or the last piece.
    pub(crate) rest: Bytes,
    /// Octets of the header section with its empty line.
    pub(crate) header_length: u32,
    pub(crate) body_hash: [u8; 32],
    /// In simple form, where it was asked for.
    pub(crate) simple_body_hash: Option<[u8; 32]>,
    pub(crate) judged: Judged,
    /// Octets of the whole, pieces included.
    pub(crate) length: u64,
}

/// Collects one message.
pub(crate) struct Content {
    buffer: Vec<u8>,
    /// Where in `buffer` that begins which has not left yet.
    start: usize,
    /// Up to where `buffer` was looked at.
    seen: usize,
    header_end: HeaderEnd,
    header: Option<Done>,
    hasher: BodyHasher,
    /// Where a signature of somebody asks for it.
    simple_hasher: Option<Box<SimpleBodyHasher>>,
    /// Of a binary body, and what came and is to go through it.
    converter: Option<Box<Converter>>,
    unconverted: Vec<u8>,
    lines: Lines,
    /// What is to go through the breaker of lines.
    unbroken: Vec<u8>,
    examine: Option<Examine>,
    left: u64,
    refusal: Option<Answer>,
}

struct Done {
    length: u32,
    judged: Judged,
}

impl Content {
    /// `declared` is what the client said with SIZE.
    pub(crate) fn new(declared: Option<u64>) -> Self {
        let mut buffer = Vec::with_capacity(Self::first_need(declared));
        buffer.resize(HEADROOM, 0);
        Self {
            buffer,
            start: HEADROOM,
            seen: HEADROOM,
            header_end: HeaderEnd::new(),
            header: None,
            hasher: BodyHasher::new(),
            simple_hasher: None,
            converter: None,
            unconverted: Vec::new(),
            lines: Lines::Kept,
            unbroken: Vec::new(),
            examine: None,
            left: 0,
            refusal: None,
        }
    }

    /// Octets of memory that a message needs at first when the client says it has `declared`.
    pub(crate) fn first_need(declared: Option<u64>) -> usize {
        let largest = PIECE + ONE_READ;
        let expected = declared.map_or(FIRST, |size| usize::try_from(size).unwrap_or(largest));
        HEADROOM + expected.min(largest)
    }

    /// Octets of memory in use once `more` octets have come.
    pub(crate) fn need(&self, more: usize) -> usize {
        let mut more = more;
        let mut beside = 0;
        if let Some(converter) = &self.converter {
            // Base64 with its line ends is longer by two fifths.
            more = (self.unconverted.len() + more) * 7 / 5 + ONE_READ;
            beside += converter.memory() + self.unconverted.capacity();
        }
        if let Lines::Broken(breaker) = &self.lines {
            beside += breaker.memory() + self.unbroken.capacity().max(more);
            more += more / 256;
        }
        self.buffer_need(more) + beside
    }

    fn buffer_need(&self, more: usize) -> usize {
        let length = self.buffer.len() + more;
        if length <= self.buffer.capacity() {
            self.buffer.capacity()
        } else {
            (2 * self.buffer.capacity()).max(length)
        }
    }

    /// Where decoded text is appended.
    pub(crate) fn sink(&mut self) -> &mut Vec<u8> {
        if self.converter.is_some() {
            &mut self.unconverted
        } else {
            self.unbroken()
        }
    }

    /// Where text is appended whose lines may be too long.
    fn unbroken(&mut self) -> &mut Vec<u8> {
        match self.lines {
            Lines::Broken(_) => &mut self.unbroken,
            _ => &mut self.buffer,
        }
    }

    /// Looks at what was appended. `judge` gets the header section, once.
    pub(crate) fn absorb(&mut self, judge: &mut dyn FnMut(&[u8]) -> Result<Repaired, Answer>) {
        if self.refusal.is_some() {
            self.discard();
            return;
        }
        if self.header.is_some() {
            self.take_in(false);
            return;
        }
        let found = self.header_end.push(&self.buffer[self.seen..]);
        self.seen = self.buffer.len();
        match found {
            Some(body) if body <= MAX_HEADER => {
                self.header_complete(HEADROOM + body, body.saturating_sub(2), judge)
            }
            None if self.buffer.len() - HEADROOM <= MAX_HEADER => {}
            _ => self.refuse(answer::HEADER_TOO_LARGE),
        }
    }

    /// The body begins at `body` in the buffer, after `length` octets of header.
    fn header_complete(
        &mut self,
        body: usize,
        length: usize,
        judge: &mut dyn FnMut(&[u8]) -> Result<Repaired, Answer>,
    ) {
        match judge(&self.buffer[HEADROOM..HEADROOM + length]) {
            Ok(mut repaired) => {
                repaired.header.extend_from_slice(b"\r\n");
                let size = repaired.header.len();
                self.start = if size <= body {
                    self.buffer[body - size..body].copy_from_slice(&repaired.header);
                    body - size
                } else {
                    self.buffer.splice(..body, repaired.header);
                    0
                };
                self.seen = self.start + size;
                let length = u32::try_from(size).unwrap_or(u32::MAX);
                let checks = repaired.judged.checks.as_deref();
                self.simple_hasher = checks
                    .filter(|checks| checks.need_simple_body())
                    .map(|_| Box::default());
                self.header = Some(Done {
                    length,
                    judged: repaired.judged,
                });
                self.examine = repaired.examine;
                if let Some(converter) = repaired.converter {
                    self.unconverted = self.buffer.split_off(self.seen);
                    self.converter = Some(converter);
                }
                self.lines = repaired.lines;
                self.take_in(false);
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Takes what came of the body: converted and broken into lines if need be, and hashed. `last`: it is complete.
    fn take_in(&mut self, last: bool) {
        if let Some(mut converter) = self.converter.take() {
            let unconverted = std::mem::take(&mut self.unconverted);
            let converted = self.unbroken();
            converter.push(&unconverted, converted);
            if last {
                converter.finish(converted);
            }
            if let Some(error) = converter.error() {
                self.refuse(error.into());
                return;
            }
            self.converter = Some(converter);
            self.unconverted = unconverted;
            self.unconverted.clear();
        }
        if let Err(refusal) = self.look_at_lines(last) {
            self.refuse(refusal);
            return;
        }
        self.hasher.update(&self.buffer[self.seen..]);
        if let Some(hasher) = &mut self.simple_hasher {
            hasher.update(&self.buffer[self.seen..]);
        }
        self.seen = self.buffer.len();
    }

    fn look_at_lines(&mut self, last: bool) -> Result<(), Answer> {
        match &mut self.lines {
            Lines::Kept => {}
            Lines::Refused(watch) => {
                if watch.push(&self.buffer[self.seen..]).is_some() {
                    return Err(answer::LINE_TOO_LONG);
                }
            }
            Lines::Watched(watch) => {
                if let Some(found) = watch.push(&self.buffer[self.seen..]) {
                    self.unbroken = self.buffer.split_off(self.seen + found.offset);
                    self.lines = Lines::Broken(Box::new(LineBreaker::new(found.column)));
                    return self.look_at_lines(last);
                }
            }
            Lines::Broken(breaker) => {
                breaker.push(&self.unbroken, &mut self.buffer);
                self.unbroken.clear();
                if last {
                    breaker.finish(&mut self.buffer);
                }
            }
        }
        Ok(())
    }

    /// The message will get this answer, whatever else is in it; the first refusal counts. The
    /// memory is given back; what still comes is read and forgotten.
    pub(crate) fn refuse(&mut self, refusal: Answer) {
        self.refusal.get_or_insert(refusal);
        self.discard();
    }

    fn discard(&mut self) {
        if self.buffer.capacity() > FIRST {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.converter = None;
        self.unconverted = Vec::new();
        self.lines = Lines::Kept;
        self.unbroken = Vec::new();
        self.examine = None;
        self.seen = 0;
        self.start = 0;
    }

    /// What the message was refused with.
    pub(crate) fn refusal(&self) -> Option<&Answer> {
        self.refusal.as_ref()
    }

    /// Has the message looked over as far as it is there, once.
    fn examine(&mut self, is_complete: bool) {
        let (Some(examine), Some(done)) = (self.examine.take(), &mut self.header) else {
            return;
        };
        let stored = &self.buffer[self.start..];
        let length = usize::try_from(done.length).map_or(stored.len(), |it| it.min(stored.len()));
        let (header, body) = stored.split_at(length);
        let content = message::Content {
            header: header.strip_suffix(b"\r\n").unwrap_or(header),
            body,
            is_complete,
        };
        match examine(&content) {
            Ok(said) => {
                let more = u32::try_from(said.fields.len()).unwrap_or(u32::MAX);
                done.length = done.length.saturating_add(more);
                done.judged.warned = said.weight;
                self.put_on_top(said.fields.as_bytes());
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Puts fields before the header section, which has not left yet.
    fn put_on_top(&mut self, fields: &[u8]) {
        if let Some(start) = self.start.checked_sub(fields.len()) {
            self.buffer[start..self.start].copy_from_slice(fields);
            self.start = start;
        } else {
            self.buffer.splice(..self.start, fields.iter().copied());
            self.seen = self.seen - self.start + fields.len();
            self.start = 0;
        }
    }

    /// What its header section says, when it is complete, and how many octets that is with its empty line.
    pub(crate) fn judged(&self) -> Option<(&Judged, u32)> {
        let header = self.header.as_ref()?;
        Some((&header.judged, header.length))
    }

    /// A piece of a large message that is ready to leave.
    pub(crate) fn take_piece(&mut self) -> Option<Bytes> {
        if self.header.is_none() || self.buffer.len() - self.start < PIECE {
            return None;
        }
        self.examine(false);
        if self.refusal.is_some() {
            return None;
        }
        let next = Vec::with_capacity(PIECE + ONE_READ);
        let piece = Bytes::from(std::mem::replace(&mut self.buffer, next)).slice(self.start..);
        self.left += piece.len() as u64;
        self.start = 0;
        self.seen = 0;
        Some(piece)
    }

    /// The end of the content was seen.
    pub(crate) fn finish(
        mut self,
        judge: &mut dyn FnMut(&[u8]) -> Result<Repaired, Answer>,
    ) -> Result<Received, Answer> {
        if self.refusal.is_none() && self.header.is_none() {
            // No empty line: all of it is header, the body is empty.
            let end = self.buffer.len();
            self.header_complete(end, end - HEADROOM, judge);
        }
        if self.refusal.is_none() {
            self.take_in(true);
        }
        if self.refusal.is_none() {
            self.examine(true);
        }
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let header = self
            .header
            .expect("without a refusal the header section is complete here");
        let rest = Bytes::from(self.buffer).slice(self.start..);
        Ok(Received {
            header_length: header.length,
            body_hash: self.hasher.finish(),
            simple_body_hash: self.simple_hasher.map(|hasher| hasher.finish()),
            judged: header.judged,
            length: self.left + rest.len() as u64,
            rest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Said;

    fn keep(header: &[u8]) -> Result<Repaired, Answer> {
        let mut repaired = b"Received: us\r\n".to_vec();
        repaired.extend_from_slice(header);
        if !header.is_empty() && !header.ends_with(b"\r\n") {
            repaired.extend_from_slice(b"\r\n");
        }
        Ok(Repaired {
            header: repaired,
            converter: None,
            lines: Lines::Kept,
            examine: None,
            judged: Judged::default(),
        })
    }

    fn receive(content: &[u8], step: usize) -> Result<(Vec<u8>, Received), Answer> {
        let mut assembling = Content::new(None);
        let mut stored = Vec::new();
        for part in content.chunks(step) {
            assembling.sink().extend_from_slice(part);
            assembling.absorb(&mut keep);
            if let Some(piece) = assembling.take_piece() {
                stored.extend_from_slice(&piece);
            }
        }
        let received = assembling.finish(&mut keep)?;
        stored.extend_from_slice(&received.rest);
        Ok((stored, received))
    }

    fn hash(body: &[u8]) -> [u8; 32] {
        let mut hasher = BodyHasher::new();
        hasher.update(body);
        hasher.finish()
    }

    #[test]
    fn puts_the_repaired_header_before_the_body_however_it_came() {
        let content = b"From: a@b\r\nTo: c@d\r\n\r\nbody\r\n\r\nmore\r\n";
        for step in 1..=content.len() {
            let (stored, received) = receive(content, step).unwrap();
            assert_eq!(
                stored,
                b"Received: us\r\nFrom: a@b\r\nTo: c@d\r\n\r\nbody\r\n\r\nmore\r\n"
            );
            assert_eq!(
                &stored[received.header_length as usize..],
                b"body\r\n\r\nmore\r\n"
            );
            assert_eq!(received.body_hash, hash(b"body\r\n\r\nmore\r\n"));
            assert_eq!(received.length, stored.len() as u64);
        }
    }

    #[test]
    fn content_without_an_empty_line_is_all_header() {
        let (stored, received) = receive(b"From: a@b\r\n", 3).unwrap();
        assert_eq!(stored, b"Received: us\r\nFrom: a@b\r\n\r\n");
        assert_eq!(received.header_length as usize, stored.len());
        let (stored, _) = receive(b"", 3).unwrap();
        assert_eq!(stored, b"Received: us\r\n\r\n");
        let (stored, _) = receive(b"\r\nbody\r\n", 1).unwrap();
        assert_eq!(stored, b"Received: us\r\n\r\nbody\r\n");
    }

    #[test]
    fn a_header_that_grows_beyond_the_headroom_still_fits() {
        let mut assembling = Content::new(None);
        assembling.sink().extend_from_slice(b"A: b\r\n\r\nbody\r\n");
        assembling.absorb(&mut |_| {
            Ok(Repaired {
                header: vec![b'x'; 5000],
                converter: None,
                lines: Lines::Kept,
                examine: None,
                judged: Judged::default(),
            })
        });
        let received = assembling.finish(&mut keep).unwrap();
        assert_eq!(received.header_length, 5002);
        assert_eq!(&received.rest[5000..], b"\r\nbody\r\n");
    }

    #[test]
    fn large_content_leaves_in_pieces_and_is_hashed_whole() {
        let mut content = b"From: a@b\r\n\r\n".to_vec();
        let body: Vec<u8> = b"0123456789abcdef0123456789abcdef\r\n".repeat(100_000);
        content.extend_from_slice(&body);
        let (stored, received) = receive(&content, 16_384).unwrap();
        assert!(received.rest.len() <= PIECE);
        assert_eq!(&stored[received.header_length as usize..], &body[..]);
        assert_eq!(received.body_hash, hash(&body));
        assert_eq!(received.length, stored.len() as u64);
    }

    #[test]
    fn a_binary_body_is_stored_and_hashed_as_it_was_converted() {
        let mut binary = |header: &[u8]| -> Result<Repaired, Answer> {
            let (converter, header) = message::Converter::begin(header)?;
            Ok(Repaired {
                header,
                converter: Some(Box::new(converter)),
                lines: Lines::Kept,
                examine: None,
                judged: Judged::default(),
            })
        };
        let head = b"Content-Transfer-Encoding: binary\r\n\r\n";
        for (size, step) in [(0, 7), (1, 7), (1_000, 1), (1_000, 7), (3_000_000, 16_384)] {
            let body: Vec<u8> = (0..=255).cycle().take(size).collect();
            let mut assembling = Content::new(None);
            let mut stored = Vec::new();
            for part in [&head[..], &body].concat().chunks(step) {
                assembling.need(part.len());
                assembling.sink().extend_from_slice(part);
                assembling.absorb(&mut binary);
                if let Some(piece) = assembling.take_piece() {
                    stored.extend_from_slice(&piece);
                }
            }
            let received = assembling.finish(&mut binary).unwrap();
            stored.extend_from_slice(&received.rest);
            let text = &stored[received.header_length as usize..];
            assert_eq!(received.body_hash, hash(text));
            assert_eq!(received.length, stored.len() as u64);
            assert!(stored.starts_with(b"Content-Transfer-Encoding: base64\r\n\r\n"));
            let lines = size.div_ceil(57).max(1);
            assert_eq!(text.len(), 4 * size.div_ceil(3) + 2 * lines, "{size}");
        }
        let mut assembling = Content::new(None);
        assembling.sink().extend_from_slice(b"A: b\r\n\r\na\nb");
        assembling.absorb(&mut binary);
        let refused = assembling.finish(&mut binary).err();
        assert_eq!(refused.map(|answer| answer.code), Some(554));
    }

    /// How many octets of a body were looked over, and whether they were all.
    type LookedOver = Vec<(usize, bool)>;

    /// Receives content, one of whose judges says what it is given, and has `fields` put on top or refuses it.
    fn examined(
        content: &[u8],
        step: usize,
        fields: Option<&'static str>,
    ) -> (LookedOver, Result<(Vec<u8>, Received), Answer>) {
        let (told, seen) = std::sync::mpsc::channel();
        let mut judge = |header: &[u8]| {
            let told = told.clone();
            let mut repaired = keep(header)?;
            repaired.examine = Some(Box::new(move |content: &message::Content<'_>| {
                assert_eq!(content.header, b"Received: us\r\nFrom: a@b\r\n");
                told.send((content.body.len(), content.is_complete))
                    .unwrap();
                let fields = fields.ok_or(answer::LOOP)?.to_owned();
                Ok(Said { fields, weight: 0 })
            }));
            Ok(repaired)
        };
        let mut assembling = Content::new(None);
        let mut stored = Vec::new();
        for part in content.chunks(step) {
            assembling.sink().extend_from_slice(part);
            assembling.absorb(&mut judge);
            if let Some(piece) = assembling.take_piece() {
                stored.extend_from_slice(&piece);
            }
        }
        let received = assembling.finish(&mut judge).map(|received| {
            stored.extend_from_slice(&received.rest);
            (stored, received)
        });
        (seen.try_iter().collect(), received)
    }

    #[test]
    fn content_is_looked_over_once_before_any_of_it_leaves() {
        let head = b"From: a@b\r\n\r\n";
        let many: &'static str = Box::leak("X-Warning: x\r\n".repeat(400).into_boxed_str());
        for size in [0, 100, 5_000, 3_000_000] {
            let body: Vec<u8> = b"0123456789abcdef0123456789abcdef\r\n".repeat(size / 34);
            let content = [&head[..], &body].concat();
            for fields in ["", "X-Warning: x\r\n", many] {
                let (seen, received) = examined(&content, 16_384, Some(fields));
                let (stored, received) = received.unwrap();
                let expected = [
                    fields.as_bytes(),
                    b"Received: us\r\nFrom: a@b\r\n\r\n",
                    &body,
                ]
                .concat();
                assert!(stored == expected, "{size} {}", fields.len());
                assert_eq!(&stored[received.header_length as usize..], &body[..]);
                assert_eq!(received.body_hash, hash(&body));
                assert_eq!(received.length, stored.len() as u64);
                let [(length, is_complete)] = seen[..] else {
                    panic!("{seen:?}");
                };
                assert_eq!(is_complete, length == body.len());
                assert_eq!(is_complete, body.len() < PIECE);
                assert!(length < PIECE + ONE_READ);
            }
            let (seen, refused) = examined(&content, 16_384, None);
            assert_eq!(refused.err(), Some(answer::LOOP));
            assert_eq!(seen.len(), 1);
        }
    }

    #[test]
    fn long_lines_are_broken_and_hashed_as_they_are_stored() {
        let long = "word ".repeat(1_000) + &"x".repeat(3_000) + "\r\n";
        for before in ["", "short\r\n", &"short\r\n".repeat(150_000)] {
            let content = format!("A: b\r\n\r\n{before}{long}{long}end\r\n");
            let mut bodies = Vec::new();
            for step in [100, 999, 65_536] {
                let mut watched = |_: &[u8]| {
                    let lines = Lines::of(LongLines::Break, b"", false)?;
                    Ok(Repaired {
                        lines,
                        ..keep(b"")?
                    })
                };
                let mut assembling = Content::new(None);
                let mut stored = Vec::new();
                for part in content.as_bytes().chunks(step) {
                    assembling.need(part.len());
                    assembling.sink().extend_from_slice(part);
                    assembling.absorb(&mut watched);
                    if let Some(piece) = assembling.take_piece() {
                        stored.extend_from_slice(&piece);
                    }
                }
                let received = assembling.finish(&mut watched).unwrap();
                stored.extend_from_slice(&received.rest);
                let body = stored[received.header_length as usize..].to_vec();
                assert_eq!(received.body_hash, hash(&body));
                assert_eq!(received.length, stored.len() as u64);
                let text = String::from_utf8(body).unwrap();
                assert!(text.starts_with(before) && text.ends_with("x\r\nend\r\n"));
                assert!(text.lines().all(|line| line.len() <= 998));
                assert_eq!(text.replace("\r\n", ""), content[8..].replace("\r\n", ""));
                bodies.push(text);
            }
            // The first long line may have begun in a part that was passed on; the second one has not.
            let second = |body: &str| body[body.len() - long.len()..].to_owned();
            assert_eq!(second(&bodies[0]), second(&bodies[2]));
        }
    }

    #[test]
    fn a_long_line_is_refused_where_the_tenant_wants_that() {
        let mut strict = |header: &[u8]| {
            let lines = Lines::of(LongLines::Reject, header, true)?;
            Ok(Repaired {
                lines,
                ..keep(header)?
            })
        };
        for (length, expected) in [(998, None), (999, Some(answer::LINE_TOO_LONG))] {
            for content in [
                format!("A: b\r\n\r\n{}\r\n", "x".repeat(length)),
                format!("A: {}\r\n\r\nbody\r\n", "x".repeat(length - 3)),
            ] {
                let mut assembling = Content::new(None);
                assembling.sink().extend_from_slice(content.as_bytes());
                assembling.absorb(&mut strict);
                assert_eq!(assembling.finish(&mut strict).err(), expected);
            }
        }
    }

    #[test]
    fn what_was_refused_is_forgotten_while_it_comes() {
        let mut assembling = Content::new(None);
        for round in 0..100 {
            assembling.sink().extend_from_slice(&[b'x'; 10_000]);
            assembling.absorb(&mut keep);
            if round == 1 {
                assembling.refuse(answer::NO_MEMORY);
            }
            assert!(assembling.sink().capacity() < 100_000);
        }
        assert_eq!(assembling.finish(&mut keep).err(), Some(answer::NO_MEMORY));
    }

    #[test]
    fn a_header_without_end_is_refused() {
        let content = b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(10_000);
        assert_eq!(
            receive(&content, 4096).err(),
            Some(answer::HEADER_TOO_LARGE)
        );
    }

    #[test]
    fn the_judgement_of_the_header_is_the_answer() {
        let mut assembling = Content::new(None);
        assembling.sink().extend_from_slice(b"From: x\r\n\r\nbody");
        assembling.absorb(&mut |_| Err(answer::LOOP));
        assembling.sink().extend_from_slice(b"more");
        assembling.absorb(&mut keep);
        assert_eq!(assembling.finish(&mut keep).err(), Some(answer::LOOP));
    }
}
