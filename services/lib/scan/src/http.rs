//! As much of HTTP/1.1 as one request on a connection needs (RFC 9112): the request's content in chunks, since its length is not
//! known when it begins, and a bounded response.

/// Octets of a response's head.
const LONGEST_HEAD: usize = 16 * 1024;
/// Octets of a response's content.
const LONGEST_CONTENT: usize = 1024 * 1024;
/// Interim responses (1xx) before the response.
const MOST_INTERIM: u8 = 8;
/// Fields after the last chunk.
const MOST_TRAILERS: u8 = 32;
/// Octets of the line before a chunk.
const LONGEST_LINE: usize = 1024;

/// After the last chunk of a request.
pub const END_OF_CHUNKS: &[u8] = b"0\r\n\r\n";
/// After each chunk.
pub const AFTER_CHUNK: &[u8] = b"\r\n";

/// What comes before a chunk of so many octets; not 0, which would be the end.
pub fn chunk_head(length: usize) -> String {
    format!("{length:x}\r\n")
}

/// A response can't be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not begin as a response of HTTP/1.
    #[error("it is no response of HTTP/1")]
    Status,
    /// Lines that are no fields, or lengths that contradict each other.
    #[error("its head can't be understood")]
    Head,
    /// Chunks that are none.
    #[error("its chunks can't be understood")]
    Chunks,
    /// Larger than anything that a scanner would say.
    #[error("it is too large")]
    TooLarge,
    /// The connection ended before the response did.
    #[error("it is not complete")]
    Incomplete,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 200 to 999.
    pub status: u16,
    /// The content.
    pub content: Vec<u8>,
}

/// How a response's content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Octets that are to come.
    Length(usize),
    Chunked,
    Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(usize),
    /// The line before a chunk.
    ChunkHead,
    Chunk(usize),
    /// CRLF after one.
    ChunkEnd,
    /// Fields after the last one.
    Trailer,
    UntilClosed,
    Done,
}

/// Reads one response.
#[derive(Debug)]
pub struct ResponseDecoder {
    state: State,
    /// What came of the head, or of a line.
    gathered: Vec<u8>,
    interim: u8,
    trailers: u8,
    status: u16,
    content: Vec<u8>,
}

impl Default for ResponseDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseDecoder {
    /// For the next response of a connection.
    pub fn new() -> Self {
        Self {
            state: State::Head,
            gathered: Vec::new(),
            interim: 0,
            trailers: 0,
            status: 0,
            content: Vec::new(),
        }
    }

    /// Takes what came; `None` while the response is not complete. What follows it is not looked at.
    pub fn decode(&mut self, mut octets: &[u8]) -> Result<Option<Response>, Error> {
        while self.state != State::Done {
            let Some(used) = self.step(octets)? else {
                return Ok(None);
            };
            octets = octets.get(used..).unwrap_or_default();
        }
        Ok(Some(self.response()))
    }

    /// The connection has ended.
    pub fn end(&mut self) -> Result<Response, Error> {
        match self.state {
            State::UntilClosed | State::Done => Ok(self.response()),
            _ => Err(Error::Incomplete),
        }
    }

    fn response(&mut self) -> Response {
        Response {
            status: self.status,
            content: std::mem::take(&mut self.content),
        }
    }

    /// Takes some of the octets, and says how many; `None` when it needs more and has kept them all.
    fn step(&mut self, octets: &[u8]) -> Result<Option<usize>, Error> {
        if octets.is_empty() {
            return Ok(None);
        }
        match self.state {
            State::Head => {
                let Some(used) = self.gather(octets, b"\r\n\r\n", LONGEST_HEAD)? else {
                    return Ok(None);
                };
                let head = std::mem::take(&mut self.gathered);
                self.read_head(&head)?;
                Ok(Some(used))
            }
            State::Length(left) => Ok(self.take(octets, left, State::Length, State::Done)?),
            State::Chunk(left) => Ok(self.take(octets, left, State::Chunk, State::ChunkEnd)?),
            State::UntilClosed => {
                self.keep(octets)?;
                Ok(None)
            }
            State::ChunkHead | State::ChunkEnd | State::Trailer => {
                let Some(used) = self.gather(octets, b"\r\n", LONGEST_LINE)? else {
                    return Ok(None);
                };
                let line = std::mem::take(&mut self.gathered);
                self.read_line(line.strip_suffix(b"\r\n").unwrap_or(&line))?;
                Ok(Some(used))
            }
            State::Done => Ok(None),
        }
    }

    /// Gathers up to `end`; gives how many octets were used for it.
    fn gather(&mut self, octets: &[u8], end: &[u8], most: usize) -> Result<Option<usize>, Error> {
        for (index, octet) in octets.iter().enumerate() {
            self.gathered.push(*octet);
            if self.gathered.ends_with(end) {
                return Ok(Some(index.saturating_add(1)));
            }
            if self.gathered.len() > most {
                return Err(Error::TooLarge);
            }
        }
        Ok(None)
    }

    /// Content of which `left` octets are to come.
    fn take(
        &mut self,
        octets: &[u8],
        left: usize,
        more: fn(usize) -> State,
        then: State,
    ) -> Result<Option<usize>, Error> {
        let part = octets.get(..left.min(octets.len())).unwrap_or_default();
        self.keep(part)?;
        let left = left.saturating_sub(part.len());
        self.state = if left == 0 { then } else { more(left) };
        Ok(Some(part.len()))
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), Error> {
        if self.content.len().saturating_add(part.len()) > LONGEST_CONTENT {
            return Err(Error::TooLarge);
        }
        self.content.extend_from_slice(part);
        Ok(())
    }

    fn read_head(&mut self, head: &[u8]) -> Result<(), Error> {
        let mut lines = head.split(|octet| *octet == b'\n');
        let status = lines.next().unwrap_or_default();
        self.status = read_status(status).ok_or(Error::Status)?;
        if (100..200).contains(&self.status) {
            self.interim = self.interim.saturating_add(1);
            return if self.interim > MOST_INTERIM {
                Err(Error::Head)
            } else {
                Ok(())
            };
        }
        let framing = read_framing(lines)?;
        self.state = match framing {
            // RFC 9112 section 6.3: these have none.
            _ if matches!(self.status, 204 | 304) => State::Done,
            Framing::Length(0) => State::Done,
            Framing::Length(length) if length > LONGEST_CONTENT => return Err(Error::TooLarge),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkHead,
            Framing::Connection => State::UntilClosed,
        };
        Ok(())
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.state = match self.state {
            State::ChunkHead => match read_chunk_size(line).ok_or(Error::Chunks)? {
                0 => State::Trailer,
                size if size > LONGEST_CONTENT => return Err(Error::TooLarge),
                size => State::Chunk(size),
            },
            State::ChunkEnd if line.is_empty() => State::ChunkHead,
            State::ChunkEnd => return Err(Error::Chunks),
            _ if line.is_empty() => State::Done,
            // It says nothing to us.
            _ => {
                self.trailers = self.trailers.saturating_add(1);
                if self.trailers > MOST_TRAILERS {
                    return Err(Error::TooLarge);
                }
                State::Trailer
            }
        };
        Ok(())
    }
}

/// `HTTP/1.1 200 OK`.
fn read_status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b" ")?;
    let code = rest.get(..3)?;
    let ends = matches!(rest.get(3), None | Some(b' ' | b'\r'));
    if !minor.is_ascii_digit() || !ends || !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status: u16 = std::str::from_utf8(code).ok()?.parse().ok()?;
    (status >= 100).then_some(status)
}

fn read_framing<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Framing, Error> {
    let mut length = None;
    let mut chunked = false;
    for line in lines {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let colon = memchr::memchr(b':', line).ok_or(Error::Head)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Error::Head)?;
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        if name.eq_ignore_ascii_case(b"Content-Length") {
            let found = read_number(value, 10).ok_or(Error::Head)?;
            if length.is_some_and(|length| length != found) {
                return Err(Error::Head);
            }
            length = Some(found);
        } else if name.eq_ignore_ascii_case(b"Transfer-Encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Error::Head);
            }
            chunked = true;
        }
    }
    match (chunked, length) {
        // RFC 9112 section 6.3: somebody is up to something.
        (true, Some(_)) => Err(Error::Head),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::Connection),
    }
}

/// Extensions after `;` are passed over.
fn read_chunk_size(line: &[u8]) -> Option<usize> {
    let size = line.split(|octet| *octet == b';').next()?;
    read_number(size.trim_ascii(), 16)
}

fn read_number(digits: &[u8], radix: u32) -> Option<usize> {
    let text = std::str::from_utf8(digits).ok()?;
    if !text.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    usize::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<Response, Error> {
        let mut decoder = ResponseDecoder::new();
        for piece in pieces {
            if let Some(response) = decoder.decode(piece)? {
                return Ok(response);
            }
        }
        decoder.end()
    }

    #[test]
    fn responses_are_read_wherever_they_are_cut() {
        let ok = |content: &[u8]| {
            Ok(Response {
                status: 200,
                content: content.to_vec(),
            })
        };
        let table: [(&str, Result<Response, Error>); 15] = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest",
                ok(b"{}"),
            ),
            ("HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", ok(b"")),
            ("HTTP/1.0 200 OK\r\n\r\nuntil the end", ok(b"until the end")),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\n{\"\r\n2\r\n\"}\r\n0\r\nT: x\r\n\r\n",
                ok(b"{\"\"}"),
            ),
            (
                "HTTP/1.1 204 No Content\r\n\r\n",
                Ok(Response {
                    status: 204,
                    content: Vec::new(),
                }),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
                Err(Error::Incomplete),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Len", Err(Error::Incomplete)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                Err(Error::Head),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Err(Error::Head),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
                Err(Error::Head),
            ),
            ("HTTP/1.1 200 OK\r\nno field\r\n\r\n", Err(Error::Head)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
                Err(Error::TooLarge),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                Err(Error::Chunks),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
                Err(Error::Chunks),
            ),
            ("220 relay ESMTP\r\n\r\n", Err(Error::Status)),
        ];
        for (text, expected) in table {
            let octets = text.as_bytes();
            for cut in 0..=octets.len() {
                let (first, second) = octets.split_at(cut);
                assert_eq!(decode(&[first, second]), expected, "{text:?} cut at {cut}");
            }
            let single: Vec<&[u8]> = octets.chunks(1).collect();
            assert_eq!(decode(&single), expected, "{text:?}");
        }
    }

    #[test]
    fn what_does_not_end_is_given_up() {
        let endless: [(&str, &[u8]); 4] = [
            ("", b"x"),
            ("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 1000]),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"1\r\nx\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
                b"X: y\r\n",
            ),
        ];
        for (begin, more) in endless {
            let mut decoder = ResponseDecoder::new();
            decoder.decode(begin.as_bytes()).unwrap();
            let given_up = (0..2_000_000).find(|_| decoder.decode(more) == Err(Error::TooLarge));
            assert!(given_up.is_some(), "{begin:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let whole = decode(&[&octets]);
            let single: Vec<&[u8]> = octets.chunks(1).collect();
            prop_assert_eq!(decode(&single), whole);
        }
    }
}
