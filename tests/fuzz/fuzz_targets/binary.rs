//! Binary content: what comes out consists of lines, and is the same however it was cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use message::{BinaryError, Converter};

fuzz_target!(|input: &[u8]| {
    let (whole, pieces) = fuzz::pieces(input);
    let at = whole.windows(4).position(|four| four == b"\r\n\r\n");
    let header = at.map_or(whole, |at| &whole[..at + 2]);
    let body = at.map_or(&[][..], |at| &whole[at + 4..]);
    let one = convert(header, &[body]);
    let mut cut = Vec::new();
    let mut rest = body;
    for piece in pieces {
        let (first, behind) = rest.split_at(piece.len().min(rest.len()));
        cut.push(first);
        rest = behind;
    }
    cut.push(rest);
    let other = convert(header, &cut);
    // Which of two things is wrong first may depend on the cut.
    assert_eq!(other.is_ok(), one.is_ok());
    if let Ok(out) = one {
        assert_eq!(other, Ok(out.clone()));
        let lone = |line: &[u8]| line.contains(&b'\r');
        let lines = out.split(|octet| *octet == b'\n');
        for line in lines {
            assert!(!lone(line.strip_suffix(b"\r").unwrap_or(line)));
        }
        assert!(out.ends_with(b"\r\n"));
    }
});

fn convert(header: &[u8], body: &[&[u8]]) -> Result<Vec<u8>, BinaryError> {
    let (mut converter, mut out) = Converter::begin(header)?;
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    for piece in body {
        converter.push(piece, &mut out);
        assert!(converter.memory() < 1 << 20);
    }
    converter.finish(&mut out);
    converter.error().map_or(Ok(out), Err)
}
