//! Base64 in lines, piece by piece.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Octets that make a line of 76 characters (RFC 2045 section 6.8).
const LINE: usize = 57;

/// Lines have CRLF between them, and none after the last.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    rest: Vec<u8>,
    begun: bool,
}

impl Base64 {
    pub(super) fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let mut octets = octets;
        if !self.rest.is_empty() {
            let missing = (LINE - self.rest.len()).min(octets.len());
            let (first, behind) = octets.split_at(missing);
            self.rest.extend_from_slice(first);
            octets = behind;
            if self.rest.len() < LINE {
                return;
            }
            let line = std::mem::take(&mut self.rest);
            self.line(&line, out);
        }
        let lines = octets.chunks_exact(LINE);
        self.rest.extend_from_slice(lines.remainder());
        for line in lines {
            self.line(line, out);
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest, out);
        }
    }

    fn line(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"\r\n");
        }
        let mut line = [0; 4 * LINE / 3];
        if let Ok(length) = STANDARD.encode_slice(octets, &mut line) {
            out.extend_from_slice(&line[..length]);
        }
    }
}
