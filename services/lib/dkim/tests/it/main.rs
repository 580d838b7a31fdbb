//! Signatures and chains that others have made.

use dkim::{
    BodyHasher, BodyHashes, Broken, Chain, ClaimError, Key, MOST_SETS, PublicKey, SimpleBodyHasher,
    claims,
};
use proptest::prelude::*;

/// After every signature here was made.
const NOW: u64 = 1_795_351_205;

fn bodies(body: &[u8]) -> BodyHashes {
    let mut relaxed = BodyHasher::new();
    relaxed.update(body);
    let mut simple = SimpleBodyHasher::new();
    simple.update(body);
    BodyHashes {
        relaxed: relaxed.finish(),
        simple: Some(simple.finish()),
    }
}

/// The header section and the body.
fn split(message: &str) -> (&str, &str) {
    match message.split_once("\r\n\r\n") {
        _ if message.starts_with("\r\n") => ("", &message[2..]),
        Some((header, body)) => (&message[..header.len() + 2], body),
        None => (message, ""),
    }
}

/// Messages that dkimpy 1.1.8 has signed in each canonical form, with a field of a name that it signed once more than there
/// were.
#[test]
fn takes_what_dkimpy_has_signed() {
    let key = Key::from_pem(include_bytes!("../../testdata/rsa2048-pkcs1.pem")).unwrap();
    let key = PublicKey::parse(&key.dns_record()).unwrap();
    for message in [
        include_str!("../../testdata/dkimpy/simple-simple.eml"),
        include_str!("../../testdata/dkimpy/simple-relaxed.eml"),
        include_str!("../../testdata/dkimpy/relaxed-simple.eml"),
        include_str!("../../testdata/dkimpy/relaxed-relaxed.eml"),
    ] {
        let check = |message: &str| {
            let (header, body) = split(message);
            let claim = claims(header.as_bytes(), 5).remove(0).unwrap();
            claim.check(&key, &bodies(body.as_bytes()), NOW)
        };
        assert_eq!(check(message), Ok(()), "{message}");
        let unsigned = message.replace("To: a@", "To: b@");
        assert_eq!(check(&unsigned), Ok(()));
        for (from, to, broken) in [
            ("From: Joe", "From: Jim", Broken::Signature),
            ("X-Twice: one", "X-Twice: 1", Broken::Signature),
            ("\r\nTo:", "\r\nX-Twice: three\r\nTo:", Broken::Signature),
            ("\r\nTo:", "\r\nMissing: not\r\nTo:", Broken::Signature),
            ("first", "last", Broken::Body),
        ] {
            let changed = message.replacen(from, to, 1);
            assert_eq!(check(&changed), Err(broken), "{changed}");
        }
        // White space at the end of a line, and within one, counts in simple form.
        let simple_body = message.contains("/simple");
        let respaced = message.replace("first  line \t", "first line");
        assert_eq!(check(&respaced).is_err(), simple_body);
        let simple_header = message.contains("c=simple");
        let refolded = message.replace("folded\r\n\t subject ", "folded subject");
        assert_ne!(refolded, message);
        assert_eq!(check(&refolded).is_err(), simple_header);
    }
}

#[test]
fn says_what_it_does_not_check() {
    let tags = "v=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; b=AAAA";
    for (from, to, error) in [
        ("", "", None),
        ("rsa-sha256", "rsa-sha1", Some(ClaimError::Unsupported)),
        ("s=s;", "s=s; l=10;", Some(ClaimError::Unsupported)),
        ("v=1;", "v=2;", Some(ClaimError::Malformed)),
        ("v=1;", "", Some(ClaimError::Malformed)),
        ("h=from", "h=to", Some(ClaimError::Malformed)),
        ("d=a.example", "d=a b", Some(ClaimError::Malformed)),
        ("s=s;", "s=s; c=nowsp;", Some(ClaimError::Malformed)),
        ("s=s;", "s=s; i=@b.example;", Some(ClaimError::Malformed)),
        ("s=s;", "s=s; i=@xa.example;", Some(ClaimError::Malformed)),
        ("s=s;", "s=s; i=u@x.a.example;", None),
        ("b=AAAA", "b=!", Some(ClaimError::Malformed)),
        ("bh=AAAA", "bh=", Some(ClaimError::Malformed)),
    ] {
        let changed = tags.replacen(from, to, 1);
        let header = format!("DKIM-Signature: {changed}\r\nFrom: a@a.example\r\n");
        let claim = claims(header.as_bytes(), 1).remove(0);
        assert_eq!(claim.err(), error, "{changed}");
    }
}

proptest! {
    #[test]
    fn never_panics_whatever_a_header_section_has(header in proptest::collection::vec(prop_oneof![
        Just(b"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=a.example; s=s; b=AAAA\r\n".to_vec()),
        Just(b"ARC-Message-Signature: i=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=; b=\r\n".to_vec()),
        Just(b"ARC-Authentication-Results: i=1; x\r\n".to_vec()),
        Just(b"DKIM-Signature: v=1; ".to_vec()), Just(b"ARC-Seal: ".to_vec()), Just(b"i=".to_vec()), Just(b";".to_vec()),
        Just(b"b=".to_vec()), Just(b"h=from:".to_vec()), Just(b"c=simple/".to_vec()), Just(b"\r\n".to_vec()), Just(b" ".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6)], 0..30)) {
        let header = header.concat();
        let chain = Chain::of(&header);
        prop_assert!(chain.sets() <= MOST_SETS);
        claims(&header, 5);
        if let Ok(text) = std::str::from_utf8(&header) {
            PublicKey::parse(text).ok();
        }
    }
}
