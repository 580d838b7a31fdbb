//! Addresses and domains: what is taken reads back as itself, fits into a command, and stays one argument.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::{Address, Domain};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(domain) = Domain::parse(text) {
        let name = domain.as_str();
        assert!(name.is_ascii() && !name.is_empty() && name.len() <= 253);
        assert!(name.split('.').all(|label| (1..=63).contains(&label.len())));
        assert_eq!(Domain::parse(name).as_ref(), Ok(&domain));
        assert!(domain.is_within(&domain));
    }
    let Ok(address) = Address::parse(text) else {
        return;
    };
    let written = address.as_str();
    assert_eq!(Address::parse(written).as_ref(), Ok(&address));
    // RFC 5321 section 4.5.3.1: 64 octets, "@" and 255.
    assert!(written.len() <= 320 && !written.contains(['\r', '\n', '\0']));
    assert_eq!(
        written,
        format!("{}@{}", address.local_part(), address.domain_text())
    );
    if let Some(domain) = address.domain() {
        assert!(!domain.as_str().contains(['@', '[', '"', ' ']));
    }
});
