//! Where the header section ends, found while the content comes in.

use memchr::memchr;

/// Finds the end of the header section in content that comes in pieces of any size.
#[derive(Debug, Clone)]
pub struct HeaderEnd {
    seen: usize,
    matched: Matched,
}

/// How much of CRLF CRLF the last bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matched {
    Nothing,
    Cr,
    CrLf,
    CrLfCr,
    All,
}

impl Default for HeaderEnd {
    fn default() -> Self {
        Self::new()
    }
}

impl HeaderEnd {
    /// At the start of the content. An empty first line ends an empty header section.
    pub fn new() -> Self {
        Self {
            seen: 0,
            matched: Matched::CrLf,
        }
    }

    /// Takes the next piece. Once the empty line was seen: the offset from the start of the
    /// content of the first byte after it, which is where the body begins; the header section is
    /// everything before the two bytes of the empty line.
    pub fn push(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        while self.matched != Matched::All {
            if self.matched == Matched::Nothing {
                match memchr(b'\r', &piece[at..]) {
                    Some(distance) => at += distance,
                    None => at = piece.len(),
                }
            }
            let Some(byte) = piece.get(at) else { break };
            at += 1;
            self.matched = match (self.matched, byte) {
                (Matched::CrLfCr, b'\n') => Matched::All,
                (Matched::CrLf, b'\r') => Matched::CrLfCr,
                (Matched::Cr, b'\n') => Matched::CrLf,
                (_, b'\r') => Matched::Cr,
                _ => Matched::Nothing,
            };
        }
        self.seen += at;
        self.found()
    }

    /// What the last [`HeaderEnd::push`] said. `None` at the end of the content: it has no empty
    /// line, all of it is header.
    pub fn found(&self) -> Option<usize> {
        (self.matched == Matched::All).then_some(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(content: &[u8]) -> Option<usize> {
        if content.starts_with(b"\r\n") {
            return Some(2);
        }
        content
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map(|at| at + 4)
    }

    #[test]
    fn finds_the_body_behind_the_empty_line() {
        for (content, expected) in [
            (&b"A: 1\r\n\r\nbody"[..], Some(8)),
            (b"\r\nbody", Some(2)),
            (b"A: 1\r\r\n\r\n", Some(9)),
            (b"A: 1\r\n\r\r\n\r\n", Some(11)),
            (b"A: 1\n\nbody", None),
            (b"A: 1\r\n", None),
            (b"", None),
        ] {
            assert_eq!(HeaderEnd::new().push(content), expected, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn does_not_depend_on_the_pieces(
            content in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..40),
            size in 1_usize..7,
        ) {
            let mut end = HeaderEnd::new();
            for piece in content.chunks(size) {
                end.push(piece);
            }
            prop_assert_eq!(end.found(), naive(&content));
        }
    }
}
