//! Complaints: whatever the fields are, their numbers and lengths are bounded, and none counts for nothing.

#![no_main]

use bounce::{Inbound, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let message = [
        b"From: fbl@b.example\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n\
          --b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n",
        input,
        b"\r\n--b--\r\n",
    ]
    .concat();
    let Inbound::Feedback(feedback) = read(&message) else {
        return;
    };
    assert!(feedback.incidents >= 1);
    assert!(feedback.recipients.len() <= 100 && feedback.domains.len() <= 20);
    let texts = feedback.recipients.iter().chain(&feedback.domains);
    for text in texts.chain([&feedback.user_agent, &feedback.mail_from]) {
        assert!(
            text.len() <= 1024 && !text.contains(['\r', '\n']),
            "{text:?}"
        );
    }
});
