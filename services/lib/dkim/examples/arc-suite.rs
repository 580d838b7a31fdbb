//! Judges the chains of a file of validation tests in the form of ValiMail's arc_test_suite, which is not ours to ship:
//!
//!     cargo run -p dkim --example arc-suite -- …/tests/arc-draft-validation-tests.yml
//!
//! Prints where the judgement is another one than the file's, and ends with status 1 then.

use std::collections::HashMap;
use std::process::ExitCode;

use dkim::{BodyHasher, BodyHashes, Chain, Claim, PublicKey, SimpleBodyHasher};
use serde::Deserialize;
use serde_saphyr::options::DuplicateKeyPolicy;

/// After every signature of the suite was made.
const NOW: u64 = 1_795_351_205;

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

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("the file of the suite is expected")?;
    let text = std::fs::read_to_string(path)?;
    // Two of its tests have the same name.
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    let suites: Vec<Suite> = serde_saphyr::from_multiple_with_options(&text, options)?;
    let (mut number, mut others) = (0, 0);
    for suite in &suites {
        for (name, case) in &suite.tests {
            number += 1;
            let expected = case.cv.as_deref().filter(|cv| !cv.is_empty());
            let expected = expected.unwrap_or("Fail");
            let found = judge(&case.message.replace('\n', "\r\n"), &suite.records);
            if found != expected && !OTHER_THAN_THE_RFC.contains(&name.as_str()) {
                println!("{name}: {found}, and not {expected}");
                others += 1;
            }
        }
    }
    println!("tests={number} others={others}");
    Ok(ExitCode::from(u8::from(others > 0)))
}

fn judge(message: &str, records: &HashMap<String, String>) -> &'static str {
    let (header, body) = match message.split_once("\r\n\r\n") {
        _ if message.starts_with("\r\n") => ("", &message[2..]),
        Some((header, body)) => (&message[..header.len() + 2], body),
        None => (message, ""),
    };
    let (mut relaxed, mut simple) = (BodyHasher::new(), SimpleBodyHasher::new());
    relaxed.update(body.as_bytes());
    simple.update(body.as_bytes());
    let bodies = BodyHashes {
        relaxed: relaxed.finish(),
        simple: Some(simple.finish()),
    };
    let holds = |claim: &Claim| {
        let record = records.get(&claim.key_name());
        let key = record.and_then(|record| PublicKey::parse(record).ok());
        key.is_some_and(|key| claim.check(&key, &bodies, NOW).is_ok())
    };
    match Chain::of(header.as_bytes()) {
        Chain::None => "None",
        Chain::Whole { message, seals, .. } if holds(&message) && seals.iter().all(holds) => "Pass",
        _ => "Fail",
    }
}
