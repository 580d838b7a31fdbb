use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

/// A whole message, its body in pieces of so many octets.
fn convert(message: &[u8], step: usize) -> Result<Vec<u8>, BinaryError> {
    let at = memmem::find(message, b"\r\n\r\n").unwrap();
    let (mut converter, mut out) = Converter::begin(&message[..at + 2])?;
    out.extend_from_slice(b"\r\n");
    for piece in message[at + 4..].chunks(step) {
        converter.push(piece, &mut out);
    }
    converter.finish(&mut out);
    converter.error().map_or(Ok(out), Err)
}

fn converted(message: &[u8]) -> String {
    let whole = convert(message, usize::MAX).unwrap();
    for step in 1..=message.len().min(100) {
        let cut = convert(message, step).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&cut),
            String::from_utf8_lossy(&whole),
            "{step}"
        );
    }
    String::from_utf8(whole).unwrap()
}

fn refused(message: &[u8]) -> BinaryError {
    let whole = convert(message, usize::MAX).unwrap_err();
    for step in 1..=message.len().min(100) {
        assert_eq!(convert(message, step), Err(whole), "{step}");
    }
    whole
}

#[test]
fn a_binary_message_becomes_base64_whole() {
    assert_eq!(
        converted(b"A: b\r\nContent-Transfer-Encoding: Binary\r\n\r\n\0\r\n.\r\n\n\r"),
        "A: b\r\nContent-Transfer-Encoding: base64\r\n\r\nAA0KLg0KCg0=\r\n"
    );
    assert_eq!(
        converted(b"Content-Transfer-Encoding: binary\r\n\r\n"),
        "Content-Transfer-Encoding: base64\r\n\r\n\r\n"
    );
}

#[test]
fn lines_have_76_characters_and_nothing_is_lost_between_them() {
    let mut message = b"Content-Transfer-Encoding: (so) binary\r\n\r\n".to_vec();
    let body: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    message.extend_from_slice(&body);
    let text = converted(&message);
    let (_, encoded) = text.split_once("\r\n\r\n").unwrap();
    assert!(encoded.lines().all(|line| line.len() <= 76));
    assert_eq!(encoded.lines().next().unwrap().len(), 76);
    assert_eq!(STANDARD.decode(encoded.replace("\r\n", "")).unwrap(), body);
}

#[test]
fn only_binary_parts_change_and_their_boundaries_are_found() {
    let text = converted(
        b"Content-Type: multipart/mixed; charset=x; boundary=\"b\"\r\nContent-Transfer-Encoding: binary\r\n\r\n\
          before\r\n--b\r\n\r\nplain\r\n.\r\n--b \r\nContent-Transfer-Encoding: binary\r\nX: y\r\n\r\n\
          \0\r\n--bc\r\n-\r\n--\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\n--b--\r\nafter\r\n",
    );
    let inner = STANDARD.encode(b"\0\r\n--bc\r\n-\r\n--");
    assert_eq!(
        text,
        format!(
            "Content-Type: multipart/mixed; charset=x; boundary=\"b\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             before\r\n--b\r\n\r\nplain\r\n.\r\n--b \r\nContent-Transfer-Encoding: base64\r\nX: y\r\n\r\n\
             {inner}\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n--b--\r\nafter\r\n"
        )
    );
}

#[test]
fn messages_and_multiparts_within_are_looked_into() {
    let text = converted(
        b"Content-Type: Multipart/Mixed; boundary=a\r\n\r\n--a\r\nContent-Type: message/rfc822\r\n\
          Content-Transfer-Encoding: binary\r\n\r\nSubject: x\r\nContent-Type: multipart/related;\r\n boundary=\"b c\"\r\n\r\n\
          --b c\r\nContent-Transfer-Encoding: binary\r\n\r\n\n\r\n--a--",
    );
    assert!(
        text.contains("message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: x\r\n"),
        "{text}"
    );
    // The outer delimiter ends what is within.
    assert!(
        text.ends_with("--b c\r\nContent-Transfer-Encoding: base64\r\n\r\nCg==\r\n--a--\r\n"),
        "{text}"
    );
}

#[test]
fn a_part_may_end_in_its_header() {
    let text =
        converted(b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nX: y\r\n--a\r\nX: z");
    assert!(text.ends_with("--a\r\nX: y\r\n--a\r\nX: z\r\n"), "{text}");
}

#[test]
fn what_ends_with_a_line_gets_no_other_one() {
    let message = "Content-Type: text/plain\r\n\r\none\r\n\r\ntwo\r\n";
    assert_eq!(converted(message.as_bytes()), message);
    assert_eq!(
        converted(b"Content-Type: text/plain\r\n\r\none\r\ntwo"),
        "Content-Type: text/plain\r\n\r\none\r\ntwo\r\n"
    );
    let long = format!("A: b\r\n\r\n{}\r\n", "x".repeat(3 * MAX_DELIMITER));
    assert_eq!(converted(long.as_bytes()), long);
}

#[test]
fn says_why_it_can_not_be_done() {
    for (message, expected) in [
        ("A: b\r\n\r\none\ntwo", BinaryError::NoLines),
        ("A: b\r\n\r\none\rtwo", BinaryError::NoLines),
        ("A: b\r\n\r\none\r", BinaryError::NoLines),
        ("A: b\nc\r\n\r\n", BinaryError::NoLines),
        (
            "Content-Type: multipart/mixed\r\n\r\n",
            BinaryError::Malformed,
        ),
        (
            "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n",
            BinaryError::Malformed,
        ),
        (
            "Content-Type: multipart/mixed; boundary=\"a\r\n\r\n",
            BinaryError::Malformed,
        ),
        (
            "Content-Type: multipart/mixed; boundary=a; boundary=b\r\n\r\n",
            BinaryError::Malformed,
        ),
        (
            "Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n",
            BinaryError::Malformed,
        ),
        (
            "Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
            BinaryError::Malformed,
        ),
        (
            "Content-Type: multipart/signed; boundary=a\r\n\r\n--a\r\nContent-Transfer-Encoding: binary\r\n\r\nx\r\n--a--\r\n",
            BinaryError::Signed,
        ),
        (
            "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nX: a\nb\r\n\r\n",
            BinaryError::NoLines,
        ),
    ] {
        assert_eq!(refused(message.as_bytes()), expected, "{message:?}");
    }
}

#[test]
fn memory_and_depth_are_bounded() {
    let mut deep = b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n".to_vec();
    for level in 0..=MAX_DEPTH {
        let part = format!(
            "--b{level}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n",
            level + 1
        );
        deep.extend_from_slice(part.as_bytes());
    }
    assert_eq!(convert(&deep, 1000), Err(BinaryError::TooDeep));
    for line in [
        "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
        "yyyyyyyyyyyyyyyyyyyy",
    ] {
        let (mut converter, _) = Converter::begin(b"Content-Type: message/rfc822\r\n").unwrap();
        let mut out = Vec::new();
        for _ in 0..10_000 {
            converter.push(line.as_bytes(), &mut out);
            assert!(converter.memory() <= 4 * MAX_PART_HEADER);
        }
        assert_eq!(converter.error(), Some(BinaryError::HeaderTooLarge));
    }
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\r\n--b".to_vec()),
        Just(b"--b--".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"-".to_vec()),
        Just(b"x".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..80),
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn whatever_comes_is_lines_and_does_not_depend_on_the_cut(body in pieces(), step in 1_usize..50) {
        let header = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\n";
        let message = [&header[..], &body].concat();
        let whole = convert(&message, usize::MAX);
        prop_assert_eq!(&convert(&message, step), &whole);
        if let Ok(out) = whole {
            for line in out.split(|byte| *byte == b'\n') {
                let inner = line.strip_suffix(b"\r").unwrap_or(line);
                prop_assert!(!inner.contains(&b'\r'));
            }
            prop_assert!(out.ends_with(b"\r\n"));
        }
    }

    #[test]
    fn what_has_no_delimiter_comes_out_as_it_was(body in pieces(), step in 1_usize..50) {
        let message = [&b"Content-Transfer-Encoding: binary\r\n\r\n"[..], &body].concat();
        let out = convert(&message, step).unwrap();
        let at = memmem::find(&out, b"\r\n\r\n").unwrap() + 4;
        let text: Vec<u8> = out[at..].iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        prop_assert_eq!(STANDARD.decode(text).unwrap(), body);
    }
}
