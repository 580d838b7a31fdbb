//! Content after BDAT.

use proptest::prelude::*;
use smtp::{ChunkDecoder, DataError};

/// Everything as chunks of `chunk` octets that come in pieces of `piece`.
fn decoded(content: &[u8], chunk: usize, piece: usize) -> (Vec<u8>, Option<DataError>) {
    let mut decoder = ChunkDecoder::new(1000);
    let mut out = Vec::new();
    for octets in content.chunks(chunk) {
        decoder.begin(octets.len() as u64);
        let mut stream = octets.to_vec();
        stream.extend_from_slice(b"NOOP\r\n");
        let mut read = 0;
        loop {
            let next = &stream[read..stream.len().min(read + piece)];
            let progress = decoder.decode(next, &mut out);
            read += progress.consumed;
            if progress.done {
                break;
            }
        }
        assert_eq!(read, octets.len(), "commands are left alone");
    }
    decoder.finish(&mut out);
    (out, decoder.error())
}

#[test]
fn takes_everything_as_it_is_and_ends_the_last_line() {
    for (content, expected) in [
        (&b""[..], &b""[..]),
        (b"a\r\n.\r\nb\r\n", b"a\r\n.\r\nb\r\n"),
        (b"..a", b"..a\r\n"),
        (b"\r\n", b"\r\n"),
    ] {
        for chunk in 1..6 {
            for piece in 1..6 {
                assert_eq!(decoded(content, chunk, piece), (expected.to_vec(), None));
            }
        }
    }
}

#[test]
fn refuses_line_ends_that_others_might_take_for_the_end() {
    for (content, error) in [
        (&b"a\n.\n"[..], DataError::BareLineFeed),
        (b"a\r.\r", DataError::BareCarriageReturn),
        (b"a\r\r\n", DataError::BareCarriageReturn),
        (b"\nb", DataError::BareLineFeed),
        (b"b\r", DataError::BareCarriageReturn),
    ] {
        for chunk in 1..5 {
            assert_eq!(decoded(content, chunk, 2).1, Some(error), "{content:?}");
        }
    }
}

#[test]
fn is_too_large_as_soon_as_the_size_says_so() {
    let mut decoder = ChunkDecoder::new(10);
    let mut out = Vec::new();
    decoder.begin(8);
    decoder.decode(b"12345678", &mut out);
    assert_eq!(decoder.error(), None);
    decoder.begin(3);
    assert_eq!(decoder.error(), Some(DataError::TooLarge));
    assert!(decoder.decode(b"abcd", &mut out).done);
    assert_eq!(out, b"12345678");
}

proptest! {
    #[test]
    fn agrees_with_a_naive_reading_however_it_is_cut(
        content in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..30),
        chunk in 1_usize..7,
        piece in 1_usize..7,
    ) {
        let regular = !String::from_utf8(content.clone()).unwrap().replace("\r\n", "").contains(['\r', '\n']);
        let (out, error) = decoded(&content, chunk, piece);
        prop_assert_eq!(error.is_none(), regular);
        if regular {
            let mut expected = content;
            if !expected.is_empty() && !expected.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(out, expected);
        }
    }
}
