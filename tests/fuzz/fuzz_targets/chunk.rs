//! Content in chunks: the same wherever chunks and reads end, judged as strictly as that of DATA, with which it is passed on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::{ChunkDecoder, DataDecoder, DataEncoder, DataError};

fuzz_target!(|input: &[u8]| {
    let (whole, chunks) = fuzz::pieces(input);
    for limit in [16, u64::MAX] {
        let one = decode(&[whole], limit, usize::MAX);
        assert_eq!(decode(&chunks, limit, usize::MAX), one);
        assert_eq!(decode(&chunks, limit, 1), one);
        assert_eq!(decode(&[whole], limit, 3), one);
    }

    let (content, error) = decode(&chunks, u64::MAX, usize::MAX);
    assert_eq!(error.is_some(), has_lone_line_end(whole));
    if error.is_none() {
        let line_end: &[u8] = if whole.is_empty() || whole.ends_with(b"\r\n") {
            b""
        } else {
            b"\r\n"
        };
        assert_eq!(content, [whole, line_end].concat());
        // What is taken so can be passed on with DATA as it is.
        let mut encoder = DataEncoder::new();
        let mut encoded = Vec::new();
        encoder.encode(&content, &mut encoded);
        encoder.finish(&mut encoded);
        let mut received = Vec::new();
        let mut decoder = DataDecoder::new(u64::MAX);
        let progress = decoder.decode(&encoded, &mut received);
        assert!(progress.done && progress.consumed == encoded.len());
        assert_eq!((received, decoder.error()), (content, None));
    }
});

/// Each chunk comes in reads of `read` octets, the last one together with a command. Kept is only what no error came with;
/// how much was kept before an error depends on the chunks.
fn decode(chunks: &[&[u8]], limit: u64, read: usize) -> (Vec<u8>, Option<DataError>) {
    const COMMAND: &[u8] = b"BDAT 0 LAST\r\n";
    let mut decoder = ChunkDecoder::new(limit);
    let mut content = Vec::new();
    for chunk in chunks {
        decoder.begin(chunk.len() as u64);
        let octets = [chunk, COMMAND].concat();
        let mut used = 0;
        while used < chunk.len() {
            let end = used.saturating_add(read).min(octets.len());
            let progress = decoder.decode(&octets[used..end], &mut content);
            used += progress.consumed;
            assert_eq!(progress.done, used == chunk.len());
        }
        assert_eq!(used, chunk.len(), "the command is not content");
    }
    decoder.finish(&mut content);
    assert!(content.len() as u64 <= limit.saturating_add(2));
    match decoder.error() {
        // Which of two things is wrong first depends on what comes in one chunk.
        Some(_) if limit < u64::MAX => (Vec::new(), Some(DataError::TooLarge)),
        Some(error) => (Vec::new(), Some(error)),
        None => (content, None),
    }
}

fn has_lone_line_end(content: &[u8]) -> bool {
    let before = |at: usize| at.checked_sub(1).and_then(|at| content.get(at));
    content.iter().enumerate().any(|(at, octet)| match octet {
        b'\r' => content.get(at + 1) != Some(&b'\n'),
        b'\n' => before(at) != Some(&b'\r'),
        _ => false,
    })
}
