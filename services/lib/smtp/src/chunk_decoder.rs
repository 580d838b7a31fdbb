//! Content after `BDAT`, on the server's side (RFC 3030 section 2).

use memchr::memchr2;

use crate::{DataError, DataProgress};

/// Reads content that comes in chunks of announced sizes: no octet of it ends the content, and no dot is
/// stuffed.
///
/// As strict with line ends as [`crate::DataDecoder`], since what is taken in chunks is passed on with DATA:
/// an LF or CR alone is an error that is remembered while the chunks are read to their ends. Of binary content
/// ([`ChunkDecoder::binary`]) every octet is taken: who converts it sees to its lines.
#[derive(Debug, Clone)]
pub struct ChunkDecoder {
    /// Octets that are still to come of this chunk.
    left: u64,
    limit: u64,
    binary: bool,
    kept: u64,
    /// The last octet of the content so far was a CR: the next must be an LF.
    after_cr: bool,
    /// The content so far is empty or ends with CRLF.
    at_line_start: bool,
    error: Option<DataError>,
}

impl ChunkDecoder {
    /// Before the first chunk of content of at most `limit` octets.
    pub fn new(limit: u64) -> Self {
        Self {
            left: 0,
            limit,
            binary: false,
            kept: 0,
            after_cr: false,
            at_line_start: true,
            error: None,
        }
    }

    /// The same for BODY=BINARYMIME (RFC 3030 section 3).
    pub fn binary(limit: u64) -> Self {
        Self {
            binary: true,
            ..Self::new(limit)
        }
    }

    /// A chunk of `size` octets begins; the one before it was read to its end.
    pub fn begin(&mut self, size: u64) {
        self.left = size;
        if self.kept.saturating_add(size) > self.limit {
            self.error.get_or_insert(DataError::TooLarge);
        }
    }

    /// Reads on and appends content to `out`; nothing after an error. Done when the chunk is complete: what
    /// follows are commands.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> DataProgress {
        let fitting = usize::try_from(self.left).unwrap_or(usize::MAX);
        let octets = input.get(..fitting).unwrap_or(input);
        let length = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_sub(length);
        if self.error.is_none() && !self.binary {
            self.check(octets);
        }
        if self.error.is_none() {
            out.extend_from_slice(octets);
            self.kept = self.kept.saturating_add(length);
        }
        DataProgress {
            consumed: octets.len(),
            done: self.left == 0,
        }
    }

    /// After the last chunk: content that does not end with a line end gets one, since DATA, with which it is
    /// passed on, can't do without.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.after_cr {
            self.error.get_or_insert(DataError::BareCarriageReturn);
        }
        if self.error.is_none() && !self.at_line_start {
            out.extend_from_slice(b"\r\n");
            self.at_line_start = true;
        }
    }

    /// The first thing that is wrong with what was read so far.
    pub fn error(&self) -> Option<DataError> {
        self.error
    }

    fn check(&mut self, octets: &[u8]) {
        let mut rest = octets;
        if let (true, Some(&first)) = (self.after_cr, rest.first()) {
            if first != b'\n' {
                return self.fail(DataError::BareCarriageReturn);
            }
            self.after_cr = false;
            self.at_line_start = true;
            rest = rest.get(1..).unwrap_or_default();
        }
        while let Some((line, end)) =
            memchr2(b'\r', b'\n', rest).and_then(|at| rest.split_at_checked(at))
        {
            rest = match end {
                [b'\r', b'\n', behind @ ..] => {
                    self.at_line_start = true;
                    behind
                }
                [b'\r'] => {
                    self.after_cr = true;
                    self.at_line_start &= line.is_empty();
                    return;
                }
                [b'\r', ..] => return self.fail(DataError::BareCarriageReturn),
                _ => return self.fail(DataError::BareLineFeed),
            };
        }
        self.at_line_start &= rest.is_empty();
    }

    fn fail(&mut self, error: DataError) {
        self.error.get_or_insert(error);
    }
}
