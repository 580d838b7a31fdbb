//! Signatures and chains that others have made.

use std::collections::HashMap;

use dkim::{
    BodyHasher, BodyHashes, Broken, Chain, Claim, ClaimError, Key, MOST_SETS, PublicKey,
    SimpleBodyHasher, claims,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_saphyr::options::DuplicateKeyPolicy;

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

#[derive(Deserialize)]
struct Suite {
    tests: HashMap<String, Case>,
    #[serde(rename = "txt-records", default)]
    records: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Case {
    message: String,
    /// Empty: nothing is said of a chain that had ended before.
    #[serde(default)]
    cv: Option<String>,
}

/// Where the suite follows a draft, or dkimpy, and not RFC 8617: an ARC-Message-Signature without `c=` is in simple form, and
/// must cover From, as a DKIM-Signature (section 4.1.2).
const OTHER_THAN_THE_RFC: [&str; 2] = ["ams_fields_c_na", "ams_fields_h_empty"];

/// The validation tests of ValiMail's arc_test_suite.
#[test]
fn judges_chains_as_the_test_suite_does() {
    let text = include_str!("../../testdata/arc_test_suite/validation.yml");
    // Two of its tests have the same name.
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    let suites: Vec<Suite> = serde_saphyr::from_multiple_with_options(text, options).unwrap();
    let mut number = 0;
    for suite in suites {
        for (name, case) in suite.tests {
            let message = case.message.replace('\n', "\r\n");
            let (header, body) = split(&message);
            let bodies = bodies(body.as_bytes());
            let holds = |claim: &Claim| {
                let record = suite.records.get(&claim.key_name());
                let key = record.and_then(|record| PublicKey::parse(record).ok());
                key.is_some_and(|key| claim.check(&key, &bodies, NOW).is_ok())
            };
            let found = match Chain::of(header.as_bytes()) {
                Chain::None => "None",
                Chain::Whole { message, seals, .. }
                    if holds(&message) && seals.iter().all(holds) =>
                {
                    "Pass"
                }
                _ => "Fail",
            };
            let expected = case.cv.as_deref().filter(|cv| !cv.is_empty());
            let expected = expected.unwrap_or("Fail");
            if OTHER_THAN_THE_RFC.contains(&name.as_str()) {
                assert_eq!((found, expected), ("Fail", "Pass"), "{name}");
            } else {
                assert_eq!(found, expected, "{name}");
            }
            number += 1;
        }
    }
    assert_eq!(number, 171);
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
