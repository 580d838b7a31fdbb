//! Content for `DATA`, on the client's side (RFC 5321 section 4.5.2).

use memchr::memchr2;

/// Stuffs dots into content that comes in pieces of any size, and ends it.
///
/// Content is expected with CRLF line ends. Should there be an LF or CR alone, it goes out as CRLF:
/// a signature over it breaks, but nobody can take it for the end of the message.
#[derive(Debug, Clone)]
pub struct DataEncoder {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    Text,
    /// A CR was taken and not written: what it becomes depends on the next octet.
    Cr,
}

impl Default for DataEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl DataEncoder {
    /// At the beginning of content.
    pub fn new() -> Self {
        Self {
            state: State::LineStart,
        }
    }

    /// Whether content can go out as it is, followed by `.` CRLF only: all lines end with CRLF and
    /// none begins with a dot. Then it need not be copied through [`Self::encode`].
    pub fn passes_unchanged(content: &[u8]) -> bool {
        let mut rest = content;
        while !rest.is_empty() {
            if rest.starts_with(b".") {
                return false;
            }
            let end = memchr2(b'\r', b'\n', rest).and_then(|at| rest.get(at..));
            let Some([b'\r', b'\n', behind @ ..]) = end else {
                return false;
            };
            rest = behind;
        }
        true
    }

    /// Appends the next piece of content to `out`.
    pub fn encode(&mut self, content: &[u8], out: &mut Vec<u8>) {
        out.reserve(content.len());
        let mut rest = content;
        if self.state == State::Cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            out.extend_from_slice(b"\r\n");
            self.state = State::LineStart;
        }
        while !rest.is_empty() {
            rest = self.run(rest, out);
        }
    }

    /// Ends a last line that has no end, and appends the final dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.state != State::LineStart {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }

    /// Takes as much as goes out in one piece, and returns what is left.
    fn run<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        if self.state == State::LineStart && input.starts_with(b".") {
            out.push(b'.');
        }
        self.state = State::Text;
        let mut rest = input;
        let next = loop {
            let Some(end) = memchr2(b'\r', b'\n', rest).and_then(|at| rest.get(at..)) else {
                rest = &[];
                break rest;
            };
            rest = end;
            match end {
                [b'\r', b'\n', behind @ ..] => {
                    rest = behind;
                    if behind.is_empty() || behind.starts_with(b".") {
                        self.state = State::LineStart;
                        break rest;
                    }
                }
                [b'\r'] => {
                    self.state = State::Cr;
                    break &[];
                }
                [_, behind @ ..] => {
                    self.write_passed(input, rest, out);
                    out.extend_from_slice(b"\r\n");
                    self.state = State::LineStart;
                    return behind;
                }
                [] => break rest,
            }
        };
        self.write_passed(input, rest, out);
        next
    }

    fn write_passed(&self, input: &[u8], rest: &[u8], out: &mut Vec<u8>) {
        let passed = input
            .get(..input.len().saturating_sub(rest.len()))
            .unwrap_or_default();
        out.extend_from_slice(passed);
    }
}
