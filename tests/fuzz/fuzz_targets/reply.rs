//! Replies: the same in whatever pieces, within bounds, safe to show, and what was read can be
//! written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::{EhloCapabilities, Reply, ReplyDecoder, write};

fuzz_target!(|input: &[u8]| {
    let (whole, pieces) = fuzz::pieces(input);
    let mut decoder = ReplyDecoder::new();
    let replies = fuzz::items(&pieces, |input| decoder.decode(input));
    let mut decoder = ReplyDecoder::new();
    assert_eq!(
        replies,
        fuzz::items(&[whole], |input| decoder.decode(input))
    );

    for reply in replies.into_iter().filter_map(|(_, reply)| reply.ok()) {
        assert!((200..600).contains(&reply.code));
        assert!((1..=100).contains(&reply.lines.len()));
        assert!(
            reply
                .lines
                .iter()
                .all(|line| line.len() <= 2048 && !line.contains(char::is_control))
        );
        assert!(reply.text(100).len() <= 100);
        let capabilities = EhloCapabilities::from_reply(&reply);
        let _ = (
            capabilities.size(),
            capabilities.limits(),
            capabilities.auth_mechanisms(),
        );
        if reply.lines.iter().all(|line| line.len() <= 480) {
            write_and_read_again(reply);
        }
    }
});

fn write_and_read_again(reply: Reply) {
    let mut octets = Vec::new();
    write::reply_lines(&mut octets, reply.code, reply.enhanced, &reply.lines);
    let decoded = ReplyDecoder::new().decode(&octets);
    let read = Reply {
        bare_line_feed: reply.bare_line_feed,
        truncated: reply.truncated,
        ..decoded.item.unwrap().unwrap()
    };
    assert_eq!((decoded.consumed, read), (octets.len(), reply));
}
