//! Content, both ways.

use proptest::prelude::*;
use smtp::{DataDecoder, DataEncoder, DataError};

use crate::pieces::{Content, content, cut, lengths};

/// The same rules as the decoder's, written for clarity: one octet after the other.
fn content_by_the_book(input: &[u8], limit: u64) -> Content {
    let mut read = Content {
        octets: Vec::new(),
        error: None,
        end: None,
        size: 0,
        long_line: false,
    };
    let mut line_length = 0;
    let mut at = 0;
    while at < input.len() {
        let rest = &input[at..];
        let line_start = at == 0 || (input[..at].ends_with(b"\r\n"));
        if line_start && rest.starts_with(b".\r\n") {
            read.end = Some(at + 3);
            return read;
        }
        let mut passes = 1;
        if line_start && rest[0] == b'.' {
            passes = 0;
            // Whether ".\r" is the end or a bare CR is open until more comes.
        } else if rest.starts_with(b"\r\n") {
            passes = 2;
        } else if rest == b"\r" {
            // Open as well.
            return read;
        } else if rest[0] == b'\r' {
            read.error.get_or_insert(DataError::BareCarriageReturn);
        } else if rest[0] == b'\n' {
            read.error.get_or_insert(DataError::BareLineFeed);
        }
        read.size += passes;
        line_length += passes;
        read.long_line |= line_length > 1000;
        for octet in &rest[..passes as usize] {
            if read.error.is_none() && read.octets.len() as u64 >= limit {
                read.error = Some(DataError::TooLarge);
            }
            if read.error.is_none() {
                read.octets.push(*octet);
            }
        }
        if passes == 2 {
            line_length = 0;
        }
        at += passes.max(1) as usize;
    }
    read
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

/// What the other side gets: line ends made CRLF, the last line ended.
fn normalised(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut octets = content.iter().copied().peekable();
    while let Some(octet) = octets.next() {
        match octet {
            b'\r' => {
                octets.next_if_eq(&b'\n');
                out.extend_from_slice(b"\r\n");
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            other => out.push(other),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// All inputs of up to `longest` octets out of those that matter.
fn every_input(longest: usize) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut begin = 0;
    for _ in 0..longest {
        let end = all.len();
        for index in begin..end {
            for octet in *b"a.\r\n" {
                let mut next = all[index].clone();
                next.push(octet);
                all.push(next);
            }
        }
        begin = end;
    }
    all
}

#[test]
fn every_short_input_is_read_by_the_book_in_whatever_pieces() {
    for input in every_input(7) {
        for limit in [2, 1000] {
            let expected = content_by_the_book(&input, limit);
            assert_eq!(
                content(&[&input], limit),
                expected,
                "{}",
                input.escape_ascii()
            );
            assert_eq!(
                content(&cut(&input, &[1]), limit),
                expected,
                "{}",
                input.escape_ascii()
            );
            for at in 1..input.len() {
                let (head, rest) = input.split_at(at);
                assert_eq!(
                    content(&[head, rest], limit),
                    expected,
                    "{} at {at}",
                    input.escape_ascii()
                );
            }
        }
    }
}

#[test]
fn every_short_content_comes_back_normalised_in_whatever_pieces() {
    for input in every_input(7) {
        let encoded = encode(&[&input]);
        assert_eq!(
            encode(&cut(&input, &[1])),
            encoded,
            "{}",
            input.escape_ascii()
        );
        let read = content(&[&encoded], u64::MAX);
        assert_eq!(
            (read.octets, read.error, read.end),
            (normalised(&input), None, Some(encoded.len()))
        );
        let mut unchanged = input.clone();
        unchanged.extend_from_slice(b".\r\n");
        assert_eq!(
            DataEncoder::passes_unchanged(&input),
            encoded == unchanged,
            "{}",
            input.escape_ascii()
        );
    }
}

#[test]
fn keeps_reading_after_oversize_until_the_final_dot() {
    let read = content(&[b"12345\r\n6\r\n.\r\nQUIT\r\n"], 7);
    assert_eq!(
        read,
        Content {
            octets: b"12345\r\n".to_vec(),
            error: Some(DataError::TooLarge),
            end: Some(13),
            size: 10,
            long_line: false
        }
    );
    assert_eq!(content(&[b"12345\r\n.\r\n"], 7).error, None);
}

#[test]
fn the_first_error_is_the_one_that_counts() {
    assert_eq!(
        content(&[b"1\n234567\r\n.\r\n"], 4).error,
        Some(DataError::BareLineFeed)
    );
    assert_eq!(
        content(&[b"1234567\n\r\n.\r\n"], 4).error,
        Some(DataError::TooLarge)
    );
}

#[test]
fn a_line_over_1000_octets_is_noted() {
    for (length, long) in [(998, false), (999, true)] {
        let line = "x".repeat(length);
        assert_eq!(
            content(&[format!("{line}\r\na\r\n.\r\n").as_bytes()], u64::MAX).long_line,
            long
        );
        // The stuffed dot does not count (RFC 5321 section 4.5.3.1.6).
        assert_eq!(
            content(
                &[format!("a\r\n..{}\r\n.\r\n", &line[1..]).as_bytes()],
                u64::MAX
            )
            .long_line,
            long
        );
    }
}

#[test]
fn nothing_is_taken_after_the_end() {
    let mut decoder = DataDecoder::new(100);
    let mut out = Vec::new();
    assert!(decoder.decode(b".\r\n", &mut out).done);
    let progress = decoder.decode(b"more\r\n", &mut out);
    assert!(progress.done && progress.consumed == 0 && out.is_empty());
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        &b"."[..],
        b"\r\n",
        b"\r",
        b"\n",
        b"..",
        b"\r\n.",
        b"\r\n.\r\n",
        b"text",
        b"\0\xff",
    ]);
    let piece = prop_oneof![8 => token.prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..1500)];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn content_comes_back_in_whatever_pieces(input in text(), sent in lengths(), received in lengths()) {
        let encoded = encode(&cut(&input, &sent));
        prop_assert_eq!(&encoded, &encode(&[&input]));
        let read = content(&cut(&encoded, &received), u64::MAX);
        let expected = normalised(&input);
        prop_assert_eq!(read.size, expected.len() as u64);
        prop_assert_eq!((read.octets, read.error, read.end), (expected, None, Some(encoded.len())));
    }

    #[test]
    fn any_octets_are_read_by_the_book_in_whatever_pieces(input in text(), lengths in lengths(), limit in 0_u64..3000) {
        let expected = content_by_the_book(&input, limit);
        prop_assert_eq!(content(&cut(&input, &lengths), limit), expected.clone());
        prop_assert_eq!(content(&[&input], limit), expected);
    }
}
