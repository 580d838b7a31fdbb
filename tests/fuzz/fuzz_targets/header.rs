//! Header sections: every octet is in one field, what is repaired is repaired, and lines get shorter without a loss.

#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use message::{
    Addition, Additions, HeaderEnd, LONGEST_LINE, LineBreaker, LineWatch, SignedNames, fields,
    inspect, labels, repair, times,
};

fuzz_target!(|input: &[u8]| {
    let (whole, pieces) = fuzz::pieces(input);
    let end = HeaderEnd::new().push(whole);
    let mut cut = HeaderEnd::new();
    assert_eq!(pieces.iter().find_map(|piece| cut.push(piece)), end);

    let header = end.map_or(whole, |end| &whole[..end]);
    let covered: usize = fields(header).map(|field| field.raw.len()).sum();
    assert!(covered == header.len() || header[covered..].starts_with(b"\r\n"));
    let found = inspect(header);
    assert_eq!(
        found.from_fields == 0,
        found.author == Err(message::AuthorError::Missing)
    );
    if let Ok(labels) = labels(header) {
        assert!(labels.stream.is_none_or(|label| label.len() <= 64));
    }
    let _read = times(header, 1_700_000_000_000);

    let repaired = repaired(header);
    assert_eq!(self::repaired(&repaired), repaired);
    assert!(repaired.ends_with(b"\r\n"));
    let signed = SignedNames::of(&repaired);
    let after = inspect(&repaired);
    assert!(after.has_date || signed.covers("Date"));
    assert!(!after.has_bcc || signed.covers("Bcc") || signed.covers("Resent-Bcc"));

    lines(whole, &pieces);
});

fn repaired(header: &[u8]) -> Vec<u8> {
    let additions = Additions {
        received: "",
        if_missing: &[Addition {
            name: "Date",
            value: Cow::Borrowed("Mon, 30 Nov 2026 12:00:00 +0000"),
            unless: &["Date"],
        }],
        fold: true,
        signed: &SignedNames::of(header),
        is_foreign: false,
    };
    repair(header, &additions)
}

/// Lines as a body has them, long ones among them: each octet stands for twenty.
fn lines(whole: &[u8], pieces: &[&[u8]]) {
    let longer = |part: &[u8]| -> Vec<u8> {
        let grown = |octet: &u8| match octet {
            b'\r' | b'\n' => vec![*octet],
            other => vec![*other; 20],
        };
        part.iter().flat_map(grown).collect()
    };
    let text = longer(whole);
    let broken = |parts: &[Vec<u8>]| {
        let (mut breaker, mut out) = (LineBreaker::new(0), Vec::new());
        for part in parts {
            breaker.push(part, &mut out);
            assert!(breaker.memory() <= 2 * text.len() + 4096);
        }
        breaker.finish(&mut out);
        out
    };
    let out = broken(&[text.clone()]);
    let parts: Vec<Vec<u8>> = pieces.iter().map(|piece| longer(piece)).collect();
    // A lone line feed ends no line of SMTP; it never comes here.
    if !text
        .split(|octet| *octet == b'\n')
        .rev()
        .skip(1)
        .all(|line| line.ends_with(b"\r"))
    {
        return;
    }
    assert_eq!(broken(&parts), out);
    let content = |octets: &[u8]| -> Vec<u8> {
        octets
            .iter()
            .copied()
            .filter(|octet| !b"\r\n".contains(octet))
            .collect()
    };
    assert_eq!(content(&out), content(&text));
    let longest = out.split(|octet| *octet == b'\n').map(<[u8]>::len).max();
    assert!(longest.is_none_or(|length| length <= LONGEST_LINE + 1));
    let is_long = LineWatch::default().push(&text).is_some();
    assert_eq!(is_long, out != text);
}
