//! PROXY headers: the same in whatever pieces, bounded, and nothing of what follows is asked for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::{ProxyDecoded, decode_proxy_header};

/// The longest header of version 2 that is taken.
const LONGEST: usize = 16 + 4096;

fuzz_target!(|input: &[u8]| {
    let whole = decode_proxy_header(input);
    if let Ok(ProxyDecoded::Header(_, length)) = whole {
        assert!((15..=LONGEST.min(input.len())).contains(&length));
    }
    let mut read = 0;
    loop {
        match decode_proxy_header(&input[..read]) {
            Ok(ProxyDecoded::Needs(more)) => {
                assert!(more > 0 && read + more <= LONGEST);
                if read + more > input.len() {
                    return;
                }
                read += more;
            }
            Ok(ProxyDecoded::Header(header, length)) => {
                assert_eq!(length, read, "nothing after the header is read");
                return assert_eq!(whole, Ok(ProxyDecoded::Header(header, length)));
            }
            Err(error) => return assert_eq!(whole, Err(error)),
        }
    }
});
