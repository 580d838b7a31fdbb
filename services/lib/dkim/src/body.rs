//! The body hash: SHA-256 of the body in relaxed canonical form (RFC 6376 section 3.4.4).

use aws_lc_rs::digest;

/// Hashes a body that comes in pieces of any size; memory is constant.
///
/// Relaxed form: runs of white space become one space, white space at the end of a line is
/// dropped, empty lines at the end of the body are dropped (after that dropping, so lines of white
/// space are empty too), the last line ends in CRLF, and an empty body is nothing at all. Only
/// CRLF ends a line.
#[derive(Clone)]
pub struct BodyHasher {
    digest: digest::Context,
    gathered: [u8; GATHER],
    gathered_len: usize,
    /// What was hashed last is a CRLF, or nothing was hashed yet.
    at_line_start: bool,
    /// CRLFs of empty lines, withheld until something follows them.
    empty_lines: u64,
    /// White space, withheld until something other than a line end follows it.
    space: bool,
    /// The last piece ended in a CR whose LF may come.
    carriage_return: bool,
}

/// Short pieces are gathered up to this size: a call of the hash costs as much as 40 bytes of it.
const GATHER: usize = 512;
/// Bytes that are looked at together: in long runs, and to come close to where one ends.
const LARGE_BLOCK: usize = 32;
const SMALL_BLOCK: usize = 16;

const TAB: u8 = b'\t';
const LF: u8 = b'\n';
const CR: u8 = b'\r';
const SP: u8 = b' ';

impl Default for BodyHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyHasher").finish_non_exhaustive()
    }
}

impl BodyHasher {
    /// Before the first byte of the body.
    pub fn new() -> Self {
        Self {
            digest: digest::Context::new(&digest::SHA256),
            gathered: [0; GATHER],
            gathered_len: 0,
            at_line_start: true,
            empty_lines: 0,
            space: false,
            carriage_return: false,
        }
    }

    /// Takes the next piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        let mut rest = piece;
        if self.carriage_return && !rest.is_empty() {
            self.carriage_return = false;
            if rest[0] == LF {
                self.end_line();
                rest = &rest[1..];
            } else {
                self.take_plain(&[CR]);
            }
        }
        while let Some(first) = rest.first() {
            match (first, rest.get(1)) {
                (&SP | &TAB, _) => {
                    self.space = true;
                    let spaces = rest
                        .iter()
                        .take_while(|byte| matches!(**byte, SP | TAB))
                        .count();
                    rest = &rest[spaces..];
                }
                (&CR, Some(&LF)) => {
                    self.end_line();
                    rest = &rest[2..];
                }
                (&CR, None) => {
                    self.carriage_return = true;
                    return;
                }
                _ => {
                    let (plain, others) = rest.split_at(plain_run(rest));
                    self.take_plain(plain);
                    rest = others;
                }
            }
        }
    }

    /// After the last byte of the body: the SHA-256 for the tag `bh=`.
    pub fn finish(mut self) -> [u8; 32] {
        if self.carriage_return {
            self.take_plain(&[CR]);
        }
        if !self.at_line_start {
            self.hash(b"\r\n");
        }
        self.digest.update(&self.gathered[..self.gathered_len]);
        let mut hash = [0; 32];
        hash.copy_from_slice(self.digest.finish().as_ref());
        hash
    }

    fn end_line(&mut self) {
        self.space = false;
        if self.at_line_start {
            self.empty_lines += 1;
        } else {
            self.hash(b"\r\n");
            self.at_line_start = true;
        }
    }

    /// Bytes that are in canonical form already, and what was withheld before them.
    fn take_plain(&mut self, plain: &[u8]) {
        for _ in 0..std::mem::take(&mut self.empty_lines) {
            self.hash(b"\r\n");
        }
        if std::mem::take(&mut self.space) {
            self.hash(b" ");
        }
        self.hash(plain);
        self.at_line_start = plain.ends_with(b"\r\n");
    }

    fn hash(&mut self, bytes: &[u8]) {
        if bytes.len() > GATHER - self.gathered_len {
            self.digest.update(&self.gathered[..self.gathered_len]);
            self.gathered_len = 0;
            if bytes.len() >= GATHER / 2 {
                self.digest.update(bytes);
                return;
            }
        }
        let end = self.gathered_len + bytes.len();
        self.gathered[self.gathered_len..end].copy_from_slice(bytes);
        self.gathered_len = end;
    }
}

/// How many bytes, from the first (which is neither white space nor the start of a CRLF), are in
/// canonical form already: single spaces inside lines and line ends of non-empty lines included.
fn plain_run(bytes: &[u8]) -> usize {
    let mut at = plain_blocks::<LARGE_BLOCK>(bytes, 0);
    at = plain_blocks::<SMALL_BLOCK>(bytes, at);
    while let Some(&[byte, next]) = bytes.get(at..at + 2) {
        if is_odd(byte, next) {
            // The line feed of an empty line's predecessor is still plain.
            return if byte == LF { at + 1 } else { at };
        }
        at += 1;
    }
    if matches!(bytes[at], SP | TAB | CR) {
        at
    } else {
        at + 1
    }
}

/// Whether canonical form differs from here on, or may: a tab, a second white space, white space
/// at the end of a line, an empty line.
fn is_odd(byte: u8, next: u8) -> bool {
    (byte == TAB)
        | ((byte == SP) & ((next == SP) | (next == TAB) | (next == CR)))
        | ((byte == LF) & (next == CR))
}

/// Where the first block of `N` bytes begins, from `at` on, that has something odd or is not whole.
/// The inner loop has no branches, so that it becomes vector instructions.
fn plain_blocks<const N: usize>(bytes: &[u8], mut at: usize) -> usize {
    while let Some((block, nexts)) = bytes.get(at..).and_then(|rest| {
        let block = rest.first_chunk::<N>()?;
        Some((block, rest.get(1..)?.first_chunk::<N>()?))
    }) {
        let mut odd = false;
        for (byte, next) in block.iter().zip(nexts) {
            odd |= is_odd(*byte, *next);
        }
        if odd {
            break;
        }
        at += N;
    }
    at
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::verifier::relaxed_body;

    fn hash(body: &[u8]) -> [u8; 32] {
        let mut hasher = BodyHasher::new();
        hasher.update(body);
        hasher.finish()
    }

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        digest::digest(&digest::SHA256, bytes)
            .as_ref()
            .try_into()
            .unwrap()
    }

    #[test]
    fn follows_the_table_of_the_rfc() {
        for (body, canonical) in [
            // RFC 6376 section 3.4.5.
            (" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"),
            ("", ""),
            ("\r\n", ""),
            ("\r\n\r\n", ""),
            (" \t", ""),
            (" \r\n\t\r\n  ", ""),
            ("hello", "hello\r\n"),
            ("hello\r\n", "hello\r\n"),
            ("hello \t", "hello\r\n"),
            ("hello\r\n  \r\n", "hello\r\n"),
            ("hello\r\n \t\r\n\r\n   ", "hello\r\n"),
            ("\r\n \r\nhello\r\n", "\r\n\r\nhello\r\n"),
            ("a\r\n\r\n \r\n\tb", "a\r\n\r\n\r\n b\r\n"),
            ("a\rb\nc\n\r\nd\r", "a\rb\nc\n\r\nd\r\r\n"),
            ("a \rb", "a \rb\r\n"),
            ("a\r\r\n\r\n", "a\r\r\n"),
        ] {
            assert_eq!(
                hash(body.as_bytes()),
                sha256(canonical.as_bytes()),
                "{body:?}"
            );
            assert_eq!(
                relaxed_body(body.as_bytes()),
                canonical.as_bytes(),
                "{body:?}"
            );
        }
    }

    #[test]
    fn gives_the_published_hash_of_the_empty_body() {
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(BASE64_STANDARD.encode(hash(b"")), empty);
        assert_eq!(BASE64_STANDARD.encode(hash(b"\r\n \r\n")), empty);
    }

    #[test]
    fn gives_the_hash_in_the_example_of_rfc_8463() {
        let body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
        assert_eq!(
            BASE64_STANDARD.encode(hash(body)),
            "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
        );
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            4 => Just(b"\r\n".to_vec()),
            2 => Just(b" ".to_vec()),
            1 => Just(b"\t".to_vec()),
            1 => Just(b"\r".to_vec()),
            1 => Just(b"\n".to_vec()),
            3 => Just(b"w".to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..20),
            1 => (0_usize..700).prop_map(|length| b"lorem ipsum ".iter().copied().cycle().take(length).collect()),
        ];
        proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn equals_the_hash_of_the_naive_canonical_form(body in body()) {
            prop_assert_eq!(hash(&body), sha256(&relaxed_body(&body)));
        }

        #[test]
        fn does_not_depend_on_the_pieces(body in body(), sizes in proptest::collection::vec(0_usize..9, 1..9)) {
            let mut hasher = BodyHasher::new();
            let mut rest = &body[..];
            for size in sizes.iter().cycle().take(2 * body.len()) {
                let (piece, others) = rest.split_at(rest.len().min(*size));
                hasher.update(piece);
                rest = others;
            }
            hasher.update(rest);
            prop_assert_eq!(hasher.finish(), hash(&body));
        }
    }
}
