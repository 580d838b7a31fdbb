//! The body hash of those who sign simple canonical form (RFC 6376 section 3.4.3).

use aws_lc_rs::digest;

/// Hashes a body that comes in pieces of any size, changed in nothing but the empty lines at its end: they are dropped, and
/// a last line without CRLF gets one. An empty body is one CRLF.
#[derive(Clone)]
pub struct SimpleBodyHasher {
    digest: digest::Context,
    /// CRLFs withheld until something follows them: the last line's own, and those of empty lines.
    line_ends: u64,
    /// The last piece ended in a CR whose LF may come.
    carriage_return: bool,
}

impl Default for SimpleBodyHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SimpleBodyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimpleBodyHasher").finish_non_exhaustive()
    }
}

impl SimpleBodyHasher {
    /// Before the first byte of the body.
    pub fn new() -> Self {
        Self {
            digest: digest::Context::new(&digest::SHA256),
            line_ends: 0,
            carriage_return: false,
        }
    }

    /// Takes the next piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        let mut rest = piece;
        if self.carriage_return && !rest.is_empty() {
            self.carriage_return = false;
            match rest.strip_prefix(b"\n") {
                Some(others) => {
                    self.line_ends += 1;
                    rest = others;
                }
                None => self.take(b"\r"),
            }
        }
        let mut text = rest;
        if let Some(before) = text.strip_suffix(b"\r") {
            self.carriage_return = true;
            text = before;
        }
        let mut ends = 0;
        while let Some(before) = text.strip_suffix(b"\r\n") {
            text = before;
            ends += 1;
        }
        if !text.is_empty() {
            self.take(text);
        }
        self.line_ends += ends;
    }

    /// After the last byte of the body: the SHA-256 for the tag `bh=`.
    pub fn finish(mut self) -> [u8; 32] {
        if self.carriage_return {
            self.take(b"\r");
        }
        self.digest.update(b"\r\n");
        let mut hash = [0; 32];
        hash.copy_from_slice(self.digest.finish().as_ref());
        hash
    }

    fn take(&mut self, text: &[u8]) {
        for _ in 0..std::mem::take(&mut self.line_ends) {
            self.digest.update(b"\r\n");
        }
        self.digest.update(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(pieces: &[&[u8]]) -> [u8; 32] {
        let mut hasher = SimpleBodyHasher::new();
        for piece in pieces {
            hasher.update(piece);
        }
        hasher.finish()
    }

    /// As the RFC says it.
    fn naive(body: &[u8]) -> [u8; 32] {
        let mut text = body;
        while let Some(before) = text.strip_suffix(b"\r\n") {
            text = before;
        }
        let canonical = [text, b"\r\n"].concat();
        let hash = digest::digest(&digest::SHA256, &canonical);
        hash.as_ref().try_into().unwrap()
    }

    #[test]
    fn drops_empty_lines_at_the_end_and_nothing_else() {
        for body in [
            "",
            "\r\n",
            "\r\n\r\n",
            "a",
            "a\r\n",
            "a\r\n\r\n",
            "a \r\n \r\n",
            "\r\na\r\n",
            "a\r",
            "a\r\r\n",
            "a\n",
            "a\r\n\r",
        ] {
            assert_eq!(hash(&[body.as_bytes()]), naive(body.as_bytes()), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(pieces in proptest::collection::vec(proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..5), 0..12)) {
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(hash(&slices), naive(&pieces.concat()));
        }
    }
}
