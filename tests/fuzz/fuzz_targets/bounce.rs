//! Reports: no message is too much; what is kept is bounded and in one line, and no address is given up for what is said for now.

#![no_main]

use bounce::{Inbound, Report, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Inbound::Report(report) = read(input) {
        check(&report);
    }
});

fn check(report: &Report) {
    assert!((1..=1000).contains(&report.recipients.len()));
    is_short(&report.reporting_mta);
    is_short(&report.original.message_id);
    for recipient in &report.recipients {
        for text in [
            &recipient.address,
            &recipient.original_address,
            &recipient.diagnostic,
            &recipient.remote_mta,
        ] {
            is_short(text);
        }
        let is_for_now = (400..500).contains(&recipient.code);
        assert!(!(recipient.is_hard() && is_for_now), "{recipient:?}");
        assert!(!recipient.is_hard() || recipient.judgement.reason.is_about_address());
    }
}

fn is_short(text: &str) {
    assert!(
        text.len() <= 1024 && !text.contains(['\r', '\n']),
        "{text:?}"
    );
}
