//! MTA-STS: no record or policy is too much; what is read keeps its bounds, and takes no host that none of its lines names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sts::{Mode, Policy, policy_id};

fuzz_target!(|input: &[u8]| {
    if let Some(id) = policy_id([input]) {
        assert!((1..=32).contains(&id.len()));
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(policy_id([input, input]), None);
    }
    let Ok(policy) = Policy::parse(input) else {
        return;
    };
    assert!(policy.max_age.as_secs() <= 31_557_600);
    let text = String::from_utf8_lossy(input).to_ascii_lowercase();
    assert!(policy.mode == Mode::None || text.contains("mx"));
    for host in ["mx.a.example", "a.example", "", ".example", "x"] {
        let domain = host.split_once('.').map_or(host, |(_, rest)| rest);
        let is_named = text.contains(host) || text.contains(&format!("*.{domain}"));
        assert!(!policy.takes(host) || is_named, "{host:?}");
    }
});
