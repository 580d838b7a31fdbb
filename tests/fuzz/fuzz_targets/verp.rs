//! Return paths and links: what was made is read again, and nothing that differs from it is taken, but for the case of return paths.

#![no_main]

use bounce::{Link, Purpose, Subject, TokenKeys};
use libfuzzer_sys::fuzz_target;
use mail::{Domain, MessageId};

const NOW: u64 = 1_796_000_000;

fuzz_target!(|input: &[u8]| {
    let keys = TokenKeys::parse("7 a secret of sixteen octets or more").expect("it is a key");
    let domain = Domain::parse("b.acme.example").expect("it is a domain");
    if let Ok(text) = std::str::from_utf8(input) {
        assert!(keys.read(Purpose::Bounce, text, &domain, NOW).is_err());
        assert!(keys.read_link(text, NOW).is_err());
    }
    let Some((seed, rest)) = input.split_at_checked(20) else {
        return;
    };
    let message = MessageId::try_from(&seed[..16]).expect("sixteen octets are an id");
    let recipient = format!(
        "{:x}@receiver.example",
        u16::from_be_bytes([seed[16], seed[17]])
    );
    let subject = Subject {
        tenant: "acme",
        stream: "bulk",
        message,
        recipient: &recipient,
    };
    let end = NOW + u64::from(seed[19]) * 86_400;
    let text = keys
        .mint(Purpose::Bounce, &subject, &domain, end)
        .expect("it has room");
    let token = keys
        .read(Purpose::Bounce, &text, &domain, NOW)
        .expect("it is ours");
    assert_eq!(token.message, message);
    assert!(keys.is_of(&token, &recipient) && !keys.is_of(&token, ""));
    if let Some(changed) = changed(&text, rest) {
        let is_taken = keys.read(Purpose::Bounce, &changed, &domain, NOW).is_ok();
        assert_eq!(is_taken, changed.eq_ignore_ascii_case(&text), "{changed}");
    }
    let link = Link {
        message,
        tenant: "acme",
        stream: "bulk",
        recipient: recipient.as_str(),
    };
    let text = keys.mint_link(&link, end).expect("it has room");
    let read = keys.read_link(&text, NOW).expect("it is ours");
    assert_eq!((read.message, read.recipient), (message, recipient));
    if let Some(changed) = changed(&text, rest) {
        assert_eq!(
            keys.read_link(&changed, NOW).is_ok(),
            changed == text,
            "{changed}"
        );
    }
});

/// With pairs of a place and what is put there; `None` when it is no text any more.
fn changed(text: &str, pairs: &[u8]) -> Option<String> {
    let mut octets = text.as_bytes().to_vec();
    for pair in pairs.chunks_exact(2) {
        let at = usize::from(pair[0]) % octets.len();
        octets[at] = pair[1];
    }
    String::from_utf8(octets).ok()
}
