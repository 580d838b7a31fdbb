//! The structure and texts of a message: when a part of it is broken, the whole is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use message::{BrokenMime, Content, Wanted, read_content};

fuzz_target!(|input: &[u8]| {
    let (whole, pieces) = fuzz::pieces(input);
    let at = whole.windows(4).position(|four| four == b"\r\n\r\n");
    let header = at.map_or(whole, |at| &whole[..at + 2]);
    let body = at.map_or(&[][..], |at| &whole[at + 4..]);
    let broken = read(header, body, true);
    let mut cut = 0;
    for piece in pieces {
        // What comes first of several things that are wrong may depend on the cut.
        let certain = read(header, &body[..cut.min(body.len())], false);
        assert!(certain.is_none() || broken.is_some());
        cut += piece.len();
    }
});

fn read(header: &[u8], body: &[u8], is_complete: bool) -> Option<BrokenMime> {
    let content = Content {
        header,
        body,
        is_complete,
    };
    let wanted = Wanted {
        texts: true,
        broken: true,
    };
    read_content(&content, wanted, &mut |_| {})
}
