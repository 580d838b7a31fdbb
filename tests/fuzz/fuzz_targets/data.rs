//! Content: the same in whatever pieces, both ways, and what is encoded comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::{DataDecoder, DataEncoder, DataError};

fuzz_target!(|input: &[u8]| {
    let (whole, pieces) = fuzz::pieces(input);
    for limit in [16, u64::MAX] {
        assert_eq!(decode(&pieces, limit), decode(&[whole], limit));
    }

    let encoded = encode(&pieces);
    assert_eq!(encoded, encode(&[whole]));
    let (content, error, end, _) = decode(&[&encoded], u64::MAX);
    assert_eq!((error, end), (None, Some(encoded.len())));
    assert_eq!(content, normalised(whole));
    if DataEncoder::passes_unchanged(whole) {
        assert_eq!(encoded, [whole, b".\r\n"].concat());
    }
});

fn decode(pieces: &[&[u8]], limit: u64) -> (Vec<u8>, Option<DataError>, Option<usize>, u64) {
    let mut decoder = DataDecoder::new(limit);
    let mut content = Vec::new();
    let (mut used, mut end) = (0, None);
    for piece in pieces {
        let progress = decoder.decode(piece, &mut content);
        used += progress.consumed;
        if progress.done {
            end = Some(used);
            break;
        }
        assert_eq!(progress.consumed, piece.len());
    }
    assert!(content.len() as u64 <= limit);
    (content, decoder.error(), end, decoder.size())
}

fn encode(pieces: &[&[u8]]) -> Vec<u8> {
    let mut encoder = DataEncoder::new();
    let mut out = Vec::new();
    for piece in pieces {
        encoder.encode(piece, &mut out);
    }
    encoder.finish(&mut out);
    out
}

/// CR, LF and CRLF become CRLF, and the last line has an end.
fn normalised(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let mut octets = content.iter().copied().peekable();
    while let Some(octet) = octets.next() {
        match octet {
            b'\r' | b'\n' => {
                if octet == b'\r' {
                    octets.next_if_eq(&b'\n');
                }
                out.extend_from_slice(b"\r\n");
            }
            other => out.push(other),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}
